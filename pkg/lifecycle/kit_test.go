package lifecycle_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/verify"
)

// house is a Service and a Verifier on one store, with a clock that tests move.
type house struct {
	*lifecycle.Service
	verifier *verify.Verifier
	memory   *memory.Store

	mu  sync.Mutex
	now time.Time
}

// newHouse makes a house whose organization "acme" is on the plan named and may use scopes that begin with "orders:".
func newHouse(t *testing.T, planName string) *house {
	t.Helper()
	return newHouseOn(t, planName, nil)
}

func newHouseOn(t *testing.T, planName string, wrap func(*memory.Store) lifecycle.Store) *house {
	t.Helper()
	format, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{memory: memory.New(), now: time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC)}
	h.Service = &lifecycle.Service{Store: h.memory, Plans: plan.Default(), Format: format, Now: h.clock}
	h.verifier = &verify.Verifier{Store: h.memory, Format: format, Now: h.clock}
	if _, err := h.AddOrganization(admin(), planName, []string{"orders:*"}); err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		h.Service.Store = wrap(h.memory)
	}
	return h
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// admin is whoever runs the service, acting in the organization "acme".
func admin() context.Context {
	return as(caller.Caller{OrganizationID: "acme", Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()})
}

func as(c caller.Caller) context.Context { return caller.With(context.Background(), c) }

// holder is a management key of "acme" with the scopes.
func holder(scopes ...string) caller.Caller {
	return caller.Caller{OrganizationID: "acme", Kind: caller.Key, ID: apikey.ID(1).String(), Scopes: scopes}
}

func (h *house) mustCreate(t *testing.T, n lifecycle.New) apikey.Issued {
	t.Helper()
	issued, err := h.Create(admin(), n)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func (h *house) verify(issued apikey.Issued) apikey.Code {
	d := h.verifier.Verify(context.Background(), verify.Request{Key: issued.Plaintext.Reveal()})
	return d.Code
}

// activeKeys is the count that the plan keeps.
func (h *house) activeKeys(t *testing.T) int64 {
	t.Helper()
	o, err := h.memory.Organization(context.Background(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	return o.ActiveKeys
}

func basic() lifecycle.New { return lifecycle.New{ProjectID: "shop", Name: "basic"} }

func wantCode(t *testing.T, err error, code apikey.Code) {
	t.Helper()
	if err == nil || apikey.CodeOf(err) != code {
		t.Fatalf("got %v, want the code %s", err, code)
	}
}

func seconds(n int) *time.Duration { return new(time.Duration(n) * time.Second) }
