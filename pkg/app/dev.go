package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/pkg/dynamo"
)

// DevOrganization is the organization of development mode.
const DevOrganization = "org_dev"

// markPatience is how long a process waits for the one that has just made the tables to mark them.
const markPatience = 5 * time.Second

// developmentStore opens tables for development on this machine, and makes them when they are not there. It refuses
// tables that another kind of process made: development would put a management key into them.
func developmentStore(ctx context.Context, endpoint string, s Settings) (Store, error) {
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: endpoint, LoopbackOnly: true})
	if err != nil {
		return nil, err
	}
	tables := dynamo.Tables{Keys: s.KeysTable, Audit: s.AuditTable}
	err = dynamo.DevelopmentTables(ctx, client, tables, markPatience)
	switch {
	case errors.Is(err, dynamo.ErrNotDevelopment):
		return nil, fmt.Errorf("%w: -dev leaves it alone; name others with LATCHKEY_KEYS_TABLE and LATCHKEY_AUDIT_TABLE", err)
	case err != nil:
		return nil, fmt.Errorf("is DynamoDB Local running at %s (make dynamodb starts one)? %w", endpoint, err)
	}
	return dynamo.New(client, tables), nil
}
