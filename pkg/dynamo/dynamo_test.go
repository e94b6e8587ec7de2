package dynamo_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

// local is a client of DynamoDB Local. It waits longer than a gateway would: a retried write debits twice, and the
// tests count.
func local(t *testing.T) *dynamodb.Client {
	t.Helper()
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: storetest.DynamoDBLocal(t), LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// tables makes tables of their own for a test.
func tables(t *testing.T, client *dynamodb.Client) dynamo.Tables {
	t.Helper()
	name := strings.ToLower(rand.Text())
	names := dynamo.Tables{Keys: "keys-" + name, Audit: "audit-" + name, Chain: "chain-" + name}
	if err := dynamo.CreateTables(t.Context(), client, names); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestStore(t *testing.T) {
	client := local(t)
	store := dynamo.New(client, tables(t, client))
	storetest.Run(t, func(*testing.T) storetest.Store { return store })
}
