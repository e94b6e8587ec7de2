// Package guard protects a net/http handler with API keys: a request comes through only with a key that verify lets in.
//
// It promises that the handler behind it runs for no refused request, that every refusal is answered with its own status
// (401, 403, 429, 503), headers and problem details, and that the handler finds the [verify.Decision] in the request's
// context. It reads no body, keeps nothing, and takes nothing away from the request: the handler still sees the
// Authorization header.
package guard

import (
	"context"
	"fmt"
	"net/http"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/verify"
)

// Option changes what New's middleware asks of a key.
type Option func(*guard)

type guard struct {
	verifier *verify.Verifier
	scopes   []string
	cost     func(*http.Request) int64
	hops     int
	observe  func(*http.Request, verify.Decision)
}

// New makes middleware that asks v about the key of every request. It panics when an option makes no sense, since a
// guard that is not the one intended must not come up.
func New(v *verify.Verifier, opts ...Option) func(http.Handler) http.Handler {
	g := &guard{verifier: v}
	Cost(1)(g)
	Observe(func(*http.Request, verify.Decision) {})(g)
	for _, opt := range opts {
		opt(g)
	}
	if v == nil || v.Store == nil || v.Now == nil || v.Format.Brand() == "" || g.cost == nil || g.observe == nil {
		panic("guard: the Verifier needs a Store, a Format and Now, and options need their functions")
	}
	return g.protect
}

// Scopes demands all the scopes of a key.
func Scopes(scopes ...string) Option {
	for _, s := range scopes {
		if !apikey.ValidScope(s) {
			panic(fmt.Sprintf("guard: %q is not a scope", s))
		}
	}
	return func(g *guard) { g.scopes = append(g.scopes, scopes...) }
}

// Cost makes each request count as n, from 1 to verify.MaxCost, against the key's limits.
func Cost(n int64) Option {
	if n < 1 || n > verify.MaxCost {
		panic(fmt.Sprintf("guard: a cost of %d is not from 1 to %d", n, verify.MaxCost))
	}
	return CostOf(func(*http.Request) int64 { return n })
}

// CostOf lets the request say what it counts. cost must not read the body. Below 1 counts as 1; above verify.MaxCost the
// request is refused.
func CostOf(cost func(*http.Request) int64) Option {
	return func(g *guard) { g.cost = cost }
}

// TrustedHops says how many proxies of one's own stand before this process, each of which appends to X-Forwarded-For.
// Without it the client's address is the peer of the connection, and no header can change it.
func TrustedHops(n int) Option {
	if n < 0 {
		panic(fmt.Sprintf("guard: %d trusted hops", n))
	}
	return func(g *guard) { g.hops = n }
}

// Observe calls f with every decision before it is acted upon, for logs and counters. Decision.Cause says why an
// Unavailable one could not be made.
func Observe(f func(*http.Request, verify.Decision)) Option {
	return func(g *guard) { g.observe = f }
}

type contextKey struct{}

// From returns the Decision that let the request in, and whether there is one. It is always Allowed.
func From(ctx context.Context) (verify.Decision, bool) {
	d, ok := ctx.Value(contextKey{}).(verify.Decision)
	return d, ok
}

func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := g.verifier.Verify(r.Context(), verify.Request{
			Key:     verify.Bearer(r.Header),
			Scopes:  g.scopes,
			Address: verify.ClientAddress(r, g.hops),
			Cost:    g.cost(r),
			Door:    verify.Protected,
		})
		g.observe(r, d)
		if !d.Allowed() {
			d.Refuse(w)
			return
		}
		d.SetHeaders(w.Header())
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, d)))
	})
}
