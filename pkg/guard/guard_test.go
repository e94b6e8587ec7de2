package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/guard"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/verify"
)

// house is a verifier on a memory store and what makes keys on it, at a moment that stands still.
type house struct {
	*verify.Verifier
	keys *lifecycle.Service
}

func newHouse(t testing.TB) house {
	t.Helper()
	format, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	store, now := memory.New(), func() time.Time { return time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC) }
	h := house{
		&verify.Verifier{Store: store, Format: format, Now: now},
		&lifecycle.Service{Store: store, Plans: plan.Default(), Format: format, Now: now},
	}
	if _, err := h.keys.AddOrganization(operator(), "enterprise", []string{"*"}); err != nil {
		t.Fatal(err)
	}
	return h
}

func operator() context.Context {
	return caller.With(context.Background(), caller.Caller{OrganizationID: "acme", Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()})
}

func (h house) mustCreate(t testing.TB, n lifecycle.New) apikey.Issued {
	t.Helper()
	n.ProjectID, n.Name = "shop", "a key"
	issued, err := h.keys.Create(operator(), n)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// ask sends a request with a key through middleware to a handler that says which key it found in its context.
func ask(middleware func(http.Handler) http.Handler, key string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/orders", strings.NewReader("body"))
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, ok := guard.From(r.Context())
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %s %s", d.KeyID, ok && d.Allowed(), body, r.Header.Get("Authorization"))
	})).ServeHTTP(w, r)
	return w
}

func TestAnAllowedRequestReachesTheHandlerWhole(t *testing.T) {
	h := newHouse(t)
	issued := h.mustCreate(t, lifecycle.New{Scopes: []string{"orders:read"}})
	key := issued.Plaintext.Reveal()
	w := ask(guard.New(h.Verifier, guard.Scopes("orders:read"), guard.Cost(10)), key)
	if got, want := w.Body.String(), issued.Key.ID.String()+" true body Bearer "+key; w.Code != 200 || got != want {
		t.Errorf("got  %d %s\nwant %s", w.Code, got, want)
	}
	if got := w.Header().Get("RateLimit"); got != `"minute";r=50;t=30` {
		t.Errorf("RateLimit is %s", got)
	}
}

func TestARefusedRequestNeverReachesTheHandler(t *testing.T) {
	h := newHouse(t)
	service := h.mustCreate(t, lifecycle.New{Scopes: []string{"orders:read"}}).Plaintext.Reveal()
	manager := h.mustCreate(t, lifecycle.New{Scopes: []string{"keys:read"}}).Plaintext.Reveal()
	bound := h.mustCreate(t, lifecycle.New{AllowedCIDRs: []string{"203.0.113.7"}}).Plaintext.Reveal()
	spent := h.mustCreate(t, lifecycle.New{DailyLimit: new(int64(1))}).Plaintext.Reveal()
	plain := guard.New(h.Verifier)
	ask(plain, spent)
	forwarded := func(r *http.Request) { r.Header.Set("X-Forwarded-For", "203.0.113.7") }
	for _, row := range []struct {
		guarantee string
		answer    *httptest.ResponseRecorder
		status    int
		code      apikey.Code
		header    string
	}{
		{"no key", ask(plain, ""), 401, apikey.MissingKey, "WWW-Authenticate"},
		{"no such key", ask(plain, newHouse(t).mustCreate(t, lifecycle.New{}).Plaintext.Reveal()), 401, apikey.UnknownKey, "WWW-Authenticate"},
		{"not all the scopes", ask(guard.New(h.Verifier, guard.Scopes("orders:read"), guard.Scopes("orders:write")), service), 403, apikey.InsufficientScope, "WWW-Authenticate"},
		{"a management key", ask(plain, manager), 403, apikey.ManagementKeyOnly, "Content-Type"},
		{"an address that a header claims", ask(plain, bound, forwarded), 403, apikey.AddressNotAllowed, "Content-Type"},
		{"a limit reached", ask(plain, spent), 429, apikey.DailyLimitExceeded, "Retry-After"},
		{"a cost above all limits", ask(guard.New(h.Verifier, guard.Cost(61)), service), 429, apikey.RateLimited, "RateLimit"},
		{"a cost out of bounds", ask(guard.New(h.Verifier, guard.CostOf(func(*http.Request) int64 { return verify.MaxCost + 1 })), service), 503, apikey.Unavailable, "Content-Type"},
		{"a store that does not answer", ask(guard.New(deaf(h)), service), 503, apikey.Unavailable, "Retry-After"},
	} {
		t.Run(row.guarantee, func(t *testing.T) {
			var problem apikey.Error
			if err := json.Unmarshal(row.answer.Body.Bytes(), &problem); err != nil {
				t.Fatalf("%v in %s", err, row.answer.Body)
			}
			if row.answer.Code != row.status || problem.Code != row.code || row.answer.Header().Get(row.header) == "" {
				t.Errorf("got %d %v %s", row.answer.Code, row.answer.Header(), row.answer.Body)
			}
		})
	}
	if w := ask(guard.New(h.Verifier, guard.TrustedHops(1)), bound, forwarded); w.Code != 200 {
		t.Errorf("behind a proxy: %d %s", w.Code, w.Body)
	}
}

type silent struct{ verify.Store }

var errSilent = errors.New("no answer")

func (silent) Debit(context.Context, verify.Debit) (verify.Hot, bool, error) {
	return verify.Hot{}, false, errSilent
}

func deaf(h house) *verify.Verifier {
	return &verify.Verifier{Store: silent{}, Format: h.Format, Now: h.Now}
}

func TestEveryDecisionCanBeObserved(t *testing.T) {
	h := newHouse(t)
	var seen []verify.Decision
	observe := guard.Observe(func(_ *http.Request, d verify.Decision) { seen = append(seen, d) })
	key := h.mustCreate(t, lifecycle.New{}).Plaintext.Reveal()
	ask(guard.New(h.Verifier, observe), key)
	ask(guard.New(h.Verifier, observe), "")
	ask(guard.New(deaf(h), observe), key)
	if len(seen) != 3 || !seen[0].Allowed() || seen[1].Code != apikey.MissingKey || !errors.Is(seen[2].Cause, errSilent) {
		t.Errorf("seen: %v", seen)
	}
}

func TestTheCostMayDependOnTheRequest(t *testing.T) {
	h := newHouse(t)
	key := h.mustCreate(t, lifecycle.New{}).Plaintext.Reveal()
	byMethod := guard.New(h.Verifier, guard.CostOf(func(r *http.Request) int64 {
		if r.Method == "POST" {
			return 20
		}
		return 0
	}))
	ask(byMethod, key)
	w := ask(byMethod, key, func(r *http.Request) { r.Method = "GET" })
	if got := w.Header().Get("RateLimit"); got != `"minute";r=39;t=30` {
		t.Errorf("after a POST of 20 and a GET, which counts as 1: %s", got)
	}
}

func TestWithoutAGuardThereIsNoDecision(t *testing.T) {
	if d, ok := guard.From(context.Background()); ok || d.Allowed() {
		t.Errorf("found %v", d)
	}
}

func TestAGuardThatMakesNoSenseDoesNotComeUp(t *testing.T) {
	for name, option := range map[string]func(){
		"no cost":         func() { guard.Cost(0) },
		"too high a cost": func() { guard.Cost(verify.MaxCost + 1) },
		"an empty scope":  func() { guard.Scopes("orders:read", "") },
		"negative hops":   func() { guard.TrustedHops(-1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it came up")
				}
			}()
			option()
		})
	}
}

func TestAGuardThatCouldNotDecideDoesNotComeUp(t *testing.T) {
	whole := newHouse(t).Verifier
	for name, make := range map[string]func(){
		"no verifier":       func() { guard.New(nil) },
		"no store":          func() { guard.New(&verify.Verifier{Format: whole.Format, Now: whole.Now}) },
		"no clock":          func() { guard.New(&verify.Verifier{Store: whole.Store, Format: whole.Format}) },
		"no format":         func() { guard.New(&verify.Verifier{Store: whole.Store, Now: whole.Now}) },
		"no cost function":  func() { guard.New(whole, guard.CostOf(nil)) },
		"no observer":       func() { guard.New(whole, guard.Observe(nil)) },
		"no scope":          func() { guard.New(whole, guard.Scopes("two words")) },
		"a negative number": func() { guard.New(whole, guard.TrustedHops(-1)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it came up")
				}
			}()
			make()
		})
	}
}
