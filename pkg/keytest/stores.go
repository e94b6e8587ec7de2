package keytest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// OnBothStores runs a test in memory, and on DynamoDB Local where that can be had. The package's TestMain must call Main
// or storetest.Main.
func OnBothStores(t *testing.T, test func(t *testing.T, open func(*testing.T) storetest.Store)) {
	t.Helper()
	for name, open := range map[string]func(*testing.T) storetest.Store{
		"memory":   func(*testing.T) storetest.Store { return memory.New() },
		"dynamodb": OnDynamoDB,
	} {
		t.Run(name, func(t *testing.T) {
			open(t) // skips here where there is none
			test(t, open)
		})
	}
}

// tables are what OnDynamoDB gives.
var tables struct {
	sync.Once
	store *dynamo.Store
	err   error
}

// OnDynamoDB is a store on DynamoDB Local, one for all tests of the process: every test keeps to organizations of its own.
func OnDynamoDB(t *testing.T) storetest.Store {
	t.Helper()
	endpoint := storetest.DynamoDBLocal(t)
	tables.Do(func() { tables.store, tables.err = newTables(endpoint) })
	if tables.err != nil {
		t.Fatal(tables.err)
	}
	return tables.store
}

func newTables(endpoint string) (*dynamo.Store, error) {
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		return nil, err
	}
	names := dynamo.Tables{Keys: "keys", Audit: "audit", Chain: "chain"}
	err = dynamo.CreateTables(context.Background(), client, names)
	return dynamo.New(client, names), err
}
