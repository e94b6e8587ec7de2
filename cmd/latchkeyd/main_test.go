package main_test

import (
	"crypto/rand"
	"flag"
	"os"
	"testing"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// TestMain lets several tests wait at once: most of their time is that of processes which look again in a second.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(keytest.Main(m))
}

// tables are two DynamoDB tables of a test's own, in which it starts any number of latchkeyd.
type tables struct {
	endpoint           string
	keys, audit, chain string
}

func newTables(t *testing.T) tables {
	t.Helper()
	name := rand.Text()
	return tables{storetest.DynamoDBLocal(t), "keys-" + name, "audit-" + name, "chain-" + name}
}

func (s tables) environment() []string {
	return []string{"LATCHKEY_KEYS_TABLE=" + s.keys, "LATCHKEY_AUDIT_TABLE=" + s.audit, "LATCHKEY_CHAIN_TABLE=" + s.chain}
}

func (s tables) names() dynamo.Tables {
	return dynamo.Tables{Keys: s.keys, Audit: s.audit, Chain: s.chain}
}

func (s tables) start(t *testing.T, flags ...string) *keytest.Daemon {
	t.Helper()
	return keytest.StartIn(t, s.environment(), append([]string{"-dev", "-dynamodb", s.endpoint}, flags...)...)
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
