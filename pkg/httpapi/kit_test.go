package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// door is a whole service behind its mux, on a store, with a clock that stands still until it is moved. The
// organizations acme and other are on the largest plan and may use scopes that begin with "orders:". People sign in by
// tokens of the tests' own issuer.
type door struct {
	*httpapi.API
	http.Handler
	store   storetest.Store
	manager apikey.Issued // of acme, with every management scope and no limits

	mu    sync.Mutex
	now   time.Time
	log   bytes.Buffer
	sent  []notice
	comes *webhook.Result // of what is sent to a receiver; nil: it is delivered
}

func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }

func newDoor(t testing.TB) *door {
	t.Helper()
	return newDoorOn(t, memory.New())
}

func newDoorOn(t testing.TB, store storetest.Store) *door {
	t.Helper()
	format, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{store: store, now: time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC)}
	d.API = &httpapi.API{
		Keys:     &lifecycle.Service{Store: d.store, Plans: plan.Default(), Format: format, Now: d.clock, Seal: seal.NewLocal([32]byte{1})},
		Verifier: &verify.Verifier{Store: d.store, Format: format, Now: d.clock},
		Log:      slog.New(slog.NewJSONHandler(d, nil)),
		Now:      d.clock,
	}
	d.Notify = &notify.Service{Store: d.store, Sender: d, Secrets: d.signWith, Now: d.clock, Clock: d.clock, Log: d.Log}
	d.People = d.issuer(t).Verify
	d.Handler = d.API.Handler(d.Routes()...)
	for _, organization := range []string{"acme", "other"} {
		if _, err := d.Keys.AddOrganization(operator(organization), "enterprise", []string{"orders:*"}); err != nil {
			t.Fatal(err)
		}
	}
	d.manager = d.mustCreate(t, "acme", lifecycle.New{Name: "manager", Scopes: apikey.ManagementScopes()})
	return d
}

func (d *door) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *door) advance(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// Write takes the log.
func (d *door) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

func (d *door) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

func operator(organization string) context.Context {
	return caller.With(context.Background(), caller.Caller{OrganizationID: organization, Kind: caller.Operator, ID: "operator",
		Scopes: apikey.ManagementScopes()})
}

// mustCreate makes a key past the door. It has no limit unless n has one.
func (d *door) mustCreate(t testing.TB, organization string, n lifecycle.New) apikey.Issued {
	t.Helper()
	if n.ProjectID == "" {
		n.ProjectID = "shop"
	}
	if n.Name == "" {
		n.Name = "a key"
	}
	n.RateLimitPerMinute.Said = true
	issued, err := d.Keys.Create(operator(organization), n)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// with makes a key of acme with the scopes and gives its plaintext.
func (d *door) with(t testing.TB, scopes ...string) string {
	t.Helper()
	return d.mustCreate(t, "acme", lifecycle.New{Scopes: scopes}).Plaintext.Reveal()
}

// count is how many keys there are of an organization, ended ones included.
func (d *door) count(t testing.TB, organization string) int {
	t.Helper()
	keys, _, err := d.Keys.List(operator(organization), lifecycle.Filter{IncludeArchived: true, IncludeRevoked: true})
	if err != nil {
		t.Fatal(err)
	}
	return len(keys)
}

// request makes one with a key ("" for none) and, when body is not "", a JSON body.
func request(method, target, key, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (d *door) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

// do asks as the manager.
func (d *door) do(method, target, body string) *httptest.ResponseRecorder {
	return d.send(request(method, target, d.manager.Plaintext.Reveal(), body))
}

func read[T any](t testing.TB, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %d %s", err, w.Code, w.Body)
	}
	return v
}

// has demands a status, and gives the answer's body.
func has(t testing.TB, w *httptest.ResponseRecorder, status int) string {
	t.Helper()
	if w.Code != status {
		t.Fatalf("got %d, want %d: %s", w.Code, status, w.Body)
	}
	return w.Body.String()
}

// want demands a status, and a code if the answer is a problem. It returns the problem.
func want(t testing.TB, w *httptest.ResponseRecorder, status int, code apikey.Code) *apikey.Error {
	t.Helper()
	if w.Code != status {
		t.Fatalf("got %d, want %d: %s", w.Code, status, w.Body)
	}
	id := w.Header().Get("X-Request-Id")
	if !strings.HasPrefix(id, "req_") || len(id) != 30 {
		t.Errorf("X-Request-Id is %q", id)
	}
	if status < 400 {
		return nil
	}
	problem := new(read[apikey.Error](t, w))
	if w.Header().Get("Content-Type") != "application/problem+json" || problem.Code != code || problem.RequestID != id || problem.Message == "" {
		t.Fatalf("got %s %s, want the code %s of request %s", w.Header().Get("Content-Type"), w.Body, code, id)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("a refusal may be kept by caches")
	}
	return problem
}

func pointers(e *apikey.Error) (list []string) {
	for _, f := range e.Fields {
		list = append(list, f.Pointer)
	}
	return slices.Sorted(slices.Values(list))
}
