package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/issuer"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/oidc"
	"github.com/latchkey/latchkey/pkg/seal"
)

// DevOrganization is the organization of development mode.
const DevOrganization = "org_dev"

// issuerPath is where development's own issuer is.
const issuerPath = "/dev/issuer"

// markPatience is how long a process waits for the one that has just made the tables to mark them.
const markPatience = 5 * time.Second

// developmentStore opens a store for development: in memory, or in tables on this machine, which it makes when they are
// not there. It refuses tables that another kind of process made: development would put a management key into them. The
// key that seals is the store's own, so that all who work on one store open what the others sealed.
func developmentStore(ctx context.Context, endpoint string, s Settings) (Store, *seal.Sealer, error) {
	if endpoint == "" {
		var key [32]byte
		_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the process instead
		return memory.New(), seal.NewLocal(key), nil
	}
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: endpoint, LoopbackOnly: true})
	if err != nil {
		return nil, nil, err
	}
	tables := s.tables()
	err = dynamo.DevelopmentTables(ctx, client, tables, markPatience)
	switch {
	case errors.Is(err, dynamo.ErrNotDevelopment):
		return nil, nil, fmt.Errorf("%w: -dev leaves it alone; name others with LATCHKEY_KEYS_TABLE, LATCHKEY_AUDIT_TABLE and LATCHKEY_CHAIN_TABLE", err)
	case err != nil:
		return nil, nil, fmt.Errorf("is DynamoDB Local running at %s (make dynamodb starts one)? %w", endpoint, err)
	}
	key, err := dynamo.DevelopmentKey(ctx, client, tables)
	return dynamo.New(client, tables), seal.NewLocal(key), err
}

// developmentIssuer is an issuer for whoever tries the service at url, and adds it to the settings. Where the settings name
// issuers it is not needed, and there is none.
func developmentIssuer(url string, s *Settings, now func() time.Time) (*issuer.Issuer, error) {
	if len(s.Issuers) > 0 {
		return nil, nil
	}
	i, err := issuer.New(url+issuerPath, now)
	if err == nil {
		s.Issuers = []oidc.Issuer{{Issuer: i.URL(), Audiences: []string{issuer.Audience}}}
	}
	return i, err
}

// development adds to the routes what development mode serves beside them, and to the greeting how to begin.
func (d *daemon) development(ctx context.Context, hello *ready) error {
	issued, _, err := d.app.Bootstrap(ctx, First{Organization: DevOrganization, Plan: d.app.Settings.Plans.Largest(), AllowedScopes: []string{"*"},
		NewKey: true, By: "latchkeyd"})
	if err != nil {
		return err
	}
	hello.OrganizationID, hello.ManagementKey, hello.DemoURL = DevOrganization, issued.Plaintext.Reveal(), hello.URL+demoPath
	if d.issuer == nil {
		return nil
	}
	hello.IssuerURL = d.issuer.URL()
	hello.JWT, err = d.issuer.Sign(map[string]any{"sub": "dev", "org_id": DevOrganization, "role": "admin"})
	return err
}

// developmentRoutes are those that no deployment has: the demo, and the issuer's own.
func (d *daemon) developmentRoutes() []httpapi.Route {
	routes := []httpapi.Route{httpapi.Row(own, "GET", demoPath, d.app.demo(d.settings.TrustedHops))}
	if d.issuer == nil {
		return routes
	}
	for name, h := range d.issuer.Handlers() {
		method, pattern, _ := strings.Cut(name, " ")
		routes = append(routes, httpapi.Row(own, method, pattern, h))
	}
	return routes
}
