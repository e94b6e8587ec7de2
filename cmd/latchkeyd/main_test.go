package main_test

import (
	"crypto/rand"
	"os"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/storetest"
)

func TestMain(m *testing.M) { os.Exit(keytest.Main(m)) }

// tables are two DynamoDB tables of a test's own, in which it starts any number of latchkeyd.
type tables struct {
	endpoint    string
	keys, audit string
}

func newTables(t *testing.T) tables {
	t.Helper()
	name := rand.Text()
	return tables{storetest.DynamoDBLocal(t), "keys-" + name, "audit-" + name}
}

func (s tables) start(t *testing.T, flags ...string) *keytest.Daemon {
	t.Helper()
	return keytest.StartIn(t, []string{"LATCHKEY_KEYS_TABLE=" + s.keys, "LATCHKEY_AUDIT_TABLE=" + s.audit},
		append([]string{"-dev", "-dynamodb", s.endpoint}, flags...)...)
}

// onBothStores runs a test against a latchkeyd in memory and one on DynamoDB.
func onBothStores(t *testing.T, test func(*testing.T, *keytest.Daemon)) {
	t.Run("memory", func(t *testing.T) {
		test(t, keytest.Start(t))
	})
	t.Run("DynamoDB", func(t *testing.T) {
		test(t, newTables(t).start(t))
	})
}
