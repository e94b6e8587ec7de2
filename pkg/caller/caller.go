// Package caller says who is asking: which organization, which key or person, with which management scopes. A door
// establishes the caller once, by verifying a credential, and carries it in the context; the rooms behind read it there
// and decide. The zero Caller may do nothing.
package caller

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Kind tells what sort of credential a caller showed.
type Kind string

// The kinds of caller.
const (
	Key      Kind = "key"      // a management key
	User     Kind = "user"     // a person, signed in by a token
	Operator Kind = "operator" // whoever runs the service: bootstrap, sweep
)

// Caller is who is asking. What it holds has been verified.
type Caller struct {
	OrganizationID string
	Kind           Kind
	ID             string // of the key ("key_…"), the person, or whoever runs the service
	Scopes         []string
	Own            bool // may see and change the keys alone that it made

	Plan   string    // the organization's plan as a person's token names it; "" where it names none
	PlanAt time.Time // when the token was issued, so that an older one does not speak against a newer

	// Bounds of the key that asks, which what it makes may not exceed.
	Until time.Time      // its end; zero: it has none
	CIDRs []netip.Prefix // where it may be used from; empty: anywhere

	Address   netip.Addr // where the request came from, if known
	RequestID string
}

// Holds says whether the caller has the scope.
func (c Caller) Holds(scope string) bool { return slices.Contains(c.Scopes, scope) }

type contextKey struct{}

// With returns a context that carries c.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// From returns the caller that ctx carries, or the zero Caller, which may do nothing.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(contextKey{}).(Caller)
	return c
}
