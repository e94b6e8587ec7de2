package functions_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/httpapi"
)

func request(t *testing.T, method, path, key string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(method, path, http.NoBody)
	r.Header.Set("Authorization", "Bearer "+key)
	return r
}

func TestAWrongEnvironmentIsOneClearLine(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	for _, name := range names(t) {
		failsToStart(t, name, "LATCHKEY_GRACE_SECONDS", append(slices.Clone(d.environment), "LATCHKEY_GRACE_SECONDS=soon"))
	}
	for setting, says := range map[string]string{
		"LATCHKEY_TRUSTED_HOPS=-1":                              "LATCHKEY_TRUSTED_HOPS",
		"LATCHKEY_BRAND=Not a brand":                            "brand",
		"LATCHKEY_LOG_LEVEL=loud":                               "LATCHKEY_LOG_LEVEL",
		"LATCHKEY_SCOPES=orders;read":                           "LATCHKEY_SCOPES",
		"LATCHKEY_ANSWER=both":                                  "LATCHKEY_ANSWER",
		`LATCHKEY_ISSUERS=[{"issuer": "x", "audience": ["y"]}]`: "LATCHKEY_ISSUERS",
		"LATCHKEY_MANAGEMENT_AUTH=keys":                         "LATCHKEY_MANAGEMENT_AUTH",
		"LATCHKEY_PLANS=[]":                                     "LATCHKEY_PLANS",
		"LATCHKEY_DEFAULT_PLAN=golden":                          "LATCHKEY_DEFAULT_PLAN",
		"LATCHKEY_KMS_ENDPOINT=localhost:8000":                  "localhost:8000",
		"LATCHKEY_DYNAMODB_ENDPOINT=localhost:8000":             "localhost:8000",
		"AWS_REGION=":                                           "AWS_REGION",
		"AWS_SECRET_ACCESS_KEY=":                                "AWS_SECRET_ACCESS_KEY",
	} {
		failsToStart(t, "authorizer", says, append(slices.Clone(d.environment), setting))
	}
}

func failsToStart(t *testing.T, name, says string, environment []string) {
	t.Helper()
	f := start(t, name, environment...)
	select {
	case <-f.ended:
	case <-time.After(patience):
	}
	out := f.output()
	if f.command.ProcessState.ExitCode() != 1 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, name+": ") || !strings.Contains(out, says) {
		t.Errorf("%s, which should complain of %s: exit %d\n%s", name, says, f.command.ProcessState.ExitCode(), out)
	}
}

// away stands before DynamoDB and answers nothing while it is told so.
type away struct {
	http.Handler
	silent atomic.Bool
}

func (a *away) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.silent.Load() {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
		<-r.Context().Done()
		return
	}
	a.Handler.ServeHTTP(w, r)
}

// hidden puts an away before a deployment's store, and returns the environment of functions that ask there.
func hidden(t *testing.T, d deployed) (*away, []string) {
	t.Helper()
	endpoint, err := url.Parse(setting(d.environment, "LATCHKEY_DYNAMODB_ENDPOINT"))
	if err != nil {
		t.Fatal(err)
	}
	store := &away{Handler: httputil.NewSingleHostReverseProxy(endpoint)}
	front := httptest.NewServer(store)
	t.Cleanup(front.Close)
	return store, append(slices.Clone(d.environment), "LATCHKEY_DYNAMODB_ENDPOINT="+front.URL)
}

func TestADeadlineThatPassesRefusesInTime(t *testing.T) {
	d := deploy(t)
	store, environment := hidden(t, d)
	d.environment = environment
	s := &service{deployed: d, t: t, functions: map[string]*function{}}
	for _, name := range []string{"authorizer", "verify", "create", "list"} {
		s.functions[name] = start(t, name, d.environment...)
	}
	said, status := s.authorize(request(t, "GET", "/v1/api-keys", d.manager))
	if status != http.StatusOK {
		t.Fatal(status)
	}
	events := map[string]any{
		"verify": httpEvent(request(t, "GET", "/v1/authorize", d.manager), httpapi.Route{Method: "ANY", Pattern: "/v1/authorize"}),
		"list":   restEvent(request(t, "GET", "/v1/api-keys", d.manager), httpapi.Route{Pattern: "/v1/api-keys"}, said),
		"create": creation(t, d, said),
	}
	authorization := authorizerEvent(request(t, "GET", "/v1/api-keys", d.manager))

	const little = 700 * time.Millisecond
	store.silent.Store(true)
	if r := s.functions["authorizer"].invokeWithin(little, authorization); r.failed == "" || r.failed == "Unauthorized" {
		t.Errorf("the authorizer answered %q, error %q", r.answer, r.failed)
	}
	for name, event := range events {
		if status, code := s.functions[name].invokeWithin(little, event).problem(t); status != 503 || code != "unavailable" {
			t.Errorf("%s: %d %s", name, status, code)
		}
	}
	store.silent.Store(false)
	if r := s.functions["authorizer"].invoke(authorization); r.failed != "" {
		t.Errorf("afterwards the authorizer says %q", r.failed)
	}
	for name, want := range map[string]int{"verify": 403, "list": 200, "create": 201} { // a management key opens no protected API
		event := events[name]
		if name == "create" {
			event = creation(t, d, said)
		}
		if status, code := s.functions[name].invoke(event).problem(t); status != want {
			t.Errorf("afterwards %s: %d %s", name, status, code)
		}
	}
}

func creation(t *testing.T, d deployed, said map[string]any) map[string]any {
	t.Helper()
	r := request(t, "POST", "/v1/api-keys", d.manager)
	r.Header.Set("Content-Type", "application/json")
	event := restEvent(r, httpapi.Route{Pattern: "/v1/api-keys"}, said)
	event["body"] = `{"project_id": "shop", "name": "late"}`
	return event
}

func setting(environment []string, name string) string {
	for _, pair := range environment {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

func TestAfterAPanicTheNextInvocationWorks(t *testing.T) {
	t.Parallel()
	f := start(t, "panics")
	event := func(path string) map[string]any {
		return map[string]any{"httpMethod": "GET", "resource": path, "path": path}
	}
	for range 2 {
		if status, code := f.invoke(event("/panic")).problem(t); status != 500 || code != "internal" {
			t.Errorf("%d %s", status, code)
		}
		if r := f.invoke(event("/outside")); !strings.HasPrefix(r.failed, "panic: ") {
			t.Errorf("%q %q", r.answer, r.failed)
		}
		if status, _ := f.invoke(event("/fine")).problem(t); status != 200 {
			t.Errorf("%d", status)
		}
	}
	if out := f.output(); strings.Contains(out, "a secret") || !strings.Contains(out, "panic: string") {
		t.Errorf("%s", out)
	}
}

// A store that is away does not keep a function from starting: it refuses until the store is back.
func TestAStoreThatIsAwayRefusesAndIsNoInitError(t *testing.T) {
	t.Parallel()
	f := start(t, "verify", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"LATCHKEY_DYNAMODB_ENDPOINT=http://127.0.0.1:1")
	event := httpEvent(request(t, "GET", "/v1/authorize", "lk_live_00000001_activeactiveactiveactiveactive1Y4Wlb"),
		httpapi.Route{Method: "ANY", Pattern: "/v1/authorize"})
	if status, code := f.invoke(event).problem(t); status != 503 || code != "unavailable" {
		t.Errorf("%d %s", status, code)
	}
}
