package app

import (
	"context"
	"fmt"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// First is what an organization begins with, made by whoever runs the service.
type First struct {
	Organization  string
	Plan          string
	AllowedScopes []string // service scopes that its keys may have; "*" ends a prefix
	NewKey        bool     // make a key although the organization exists
	By            string   // who runs the service, for the audit
}

// Bootstrap makes an organization and a key for it with every management scope and no limits. An organization that
// exists is left as it is, and then a key is made only if First asks for it: without one the zero Issued comes back.
func (a *App) Bootstrap(ctx context.Context, f First) (issued apikey.Issued, added bool, err error) {
	ctx = caller.With(ctx, caller.Caller{OrganizationID: f.Organization, Kind: caller.Operator, ID: f.By, Scopes: apikey.ManagementScopes(),
		RequestID: "bootstrap"})
	if added, err = a.Keys.AddOrganization(ctx, f.Plan, f.AllowedScopes); err != nil {
		return issued, false, fmt.Errorf("making the organization %s: %w", f.Organization, err)
	}
	if !added && !f.NewKey {
		return issued, false, nil
	}
	issued, err = a.Keys.Create(ctx, lifecycle.New{ProjectID: "latchkey", Name: "Management", Scopes: apikey.ManagementScopes(),
		RateLimitPerMinute: lifecycle.Limit{Said: true}})
	if err != nil {
		return issued, added, fmt.Errorf("making the management key: %w", err)
	}
	return issued, added, nil
}
