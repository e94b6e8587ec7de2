package caller_test

import (
	"context"
	"testing"

	"github.com/latchkey/latchkey/pkg/caller"
)

func TestAContextWithoutACallerCarriesOneThatMayDoNothing(t *testing.T) {
	if c := caller.From(context.Background()); c.Holds("") || c.Holds("keys:read") || c.OrganizationID != "" {
		t.Errorf("got %+v", c)
	}
	ctx := caller.With(context.Background(), caller.Caller{OrganizationID: "acme", Scopes: []string{"keys:read"}})
	if c := caller.From(ctx); !c.Holds("keys:read") || c.Holds("keys:write") || c.OrganizationID != "acme" {
		t.Errorf("got %+v", c)
	}
}
