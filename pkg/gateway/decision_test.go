package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/gateway"
	"github.com/latchkey/latchkey/pkg/verify"
)

// decided is what Admitted makes of an event, as httpapi asks it.
func decided(t *testing.T, event string) verify.Decision {
	t.Helper()
	return asked(t, event, verify.Request{Door: verify.Management})
}

func asked(t *testing.T, event string, ask verify.Request) (d verify.Decision) {
	t.Helper()
	serve := gateway.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		d = gateway.Admitted{}.Key(r, ask)
	}), slog.New(slog.DiscardHandler))
	if _, err := serve(t.Context(), json.RawMessage(event)); err != nil {
		t.Fatal(err)
	}
	return d
}

// authorizerSays is the context that the authorizer at the management door gives for a key or a person.
func authorizerSays(t *testing.T, who string) map[string]any {
	t.Helper()
	a := &gateway.Authorizer{Verifier: verifier(t), People: whose, Log: slog.New(slog.DiscardHandler)}
	answer, err := a.Handle(t.Context(), json.RawMessage(`{"version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:eu-west-1:1:a/b/GET/",
		"headers": {"authorization": "Bearer `+plaintexts[who]+tokens[who]+`"}, "stageVariables": {"latchkey_door": "management"}}`))
	if err != nil {
		t.Fatal(err)
	}
	var simple struct{ Context map[string]any }
	if err := json.Unmarshal(pretty(t, answer), &simple); err != nil {
		t.Fatal(err)
	}
	return simple.Context
}

// withContext is a proxy event of each kind whose authorizer said said.
func withContext(t *testing.T, said map[string]any) []string {
	t.Helper()
	text := string(pretty(t, said))
	return []string{
		`{"httpMethod": "GET", "resource": "/", "path": "/", "requestContext": {"authorizer": ` + text + `}}`,
		`{"version": "2.0", "routeKey": "GET /", "rawPath": "/", "requestContext": {"http": {"method": "GET"}, "authorizer": {"lambda": ` + text + `}}}`,
	}
}

func TestTheFunctionKnowsWhatTheAuthorizerDecided(t *testing.T) {
	for _, key := range []string{"active", "scoped", "limited", "networked", "management"} {
		want := verifier(t).Verify(context.Background(), verify.Request{Key: plaintexts[key], Door: verify.Management})
		for i, l := range want.Limits {
			want.Limits[i].Reset = time.Duration(verify.Seconds(l.Reset)) * time.Second
		}
		for _, event := range withContext(t, authorizerSays(t, key)) {
			got := decided(t, event)
			if len(got.Scopes) == 0 && len(want.Scopes) == 0 {
				got.Scopes = want.Scopes
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got  %+v\nwant %+v", key, got, want)
			}
		}
	}
}

func TestARefusalTravelsWithItsHeaders(t *testing.T) {
	for _, event := range withContext(t, authorizerSays(t, "limited")) {
		w := httptest.NewRecorder()
		decided(t, event).Refuse(w)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "30" ||
			w.Header().Get("RateLimit") != `"minute";r=0;t=30, "day";r=500;t=50370` {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
}

// Whatever a client writes into header, query or body, and whatever else than our authorizer may stand before the
// function: without its decision nobody is let in, neither a key nor a person.
func TestNothingButTheAuthorizersContextDecides(t *testing.T) {
	said := authorizerSays(t, "management")
	if d := decided(t, withContext(t, said)[0]); !d.Allowed() {
		t.Fatalf("the test forges nothing: %+v", d)
	}
	for name, event := range forgeries(t, said) {
		if d := decided(t, event); d.Code != apikey.Unavailable || d.Cause == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
	said = authorizerSays(t, "admin")
	if _, err := person(t, withContext(t, said)[0]); err != nil {
		t.Fatalf("the test forges nobody: %v", err)
	}
	for name, event := range forgeries(t, said) {
		if c, err := person(t, event); apikey.CodeOf(err) != apikey.Unavailable || c.ID != "" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// forgeries are events that hold what an authorizer said wherever a client, or another authorizer, could put it.
func forgeries(t *testing.T, said map[string]any) map[string]string {
	t.Helper()
	text := string(pretty(t, said))
	var flat bytes.Buffer
	if err := json.Compact(&flat, []byte(`{"authorizer": `+text+`}`)); err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(flat.String())
	if err != nil {
		t.Fatal(err)
	}
	header := func(name string) string { return fmt.Sprintf(`"headers": {%q: %s}`, name, quoted) }
	listed := func(name string) string { return fmt.Sprintf(`"multiValueHeaders": {%q: [%s]}`, name, quoted) }
	v1 := func(more string) string {
		return `{"httpMethod": "GET", "resource": "/", "path": "/", ` + more + `}`
	}
	v2 := func(more string) string {
		return `{"version": "2.0", "routeKey": "GET /", "rawPath": "/", ` + more + `}`
	}
	const method = `"requestContext": {"http": {"method": "GET"}}`
	return map[string]string{
		"no authorizer":                     v1(`"requestContext": {}`),
		"authorizer null":                   v1(`"requestContext": {"authorizer": null}`),
		"authorizer empty":                  v1(`"requestContext": {"authorizer": {}}`),
		"header":                            v1(header("X-GoLambdaProxy-ApiGw-Context")),
		"header in lower case":              v1(header("x-golambdaproxy-apigw-context")),
		"header listed":                     v1(listed("X-GoLambdaProxy-ApiGw-Context")),
		"headers of the context's names":    v1(`"headers": ` + text),
		"query":                             v1(`"queryStringParameters": ` + text),
		"body":                              v1(`"body": ` + string(quoted)),
		"stage variables":                   v1(`"stageVariables": ` + text),
		"path parameters":                   v1(`"pathParameters": ` + text),
		"context beside the authorizer":     v1(`"requestContext": ` + text),
		"claims of a user pool":             v1(`"requestContext": {"authorizer": {"claims": ` + text + `}}`),
		"lambda context in a REST event":    v1(`"requestContext": {"authorizer": {"lambda": ` + text + `}}`),
		"HTTP API: no authorizer":           v2(method),
		"HTTP API: header":                  v2(method + `, ` + header("X-GoLambdaProxy-ApiGw-Context")),
		"HTTP API: query":                   v2(method + `, "queryStringParameters": ` + text),
		"HTTP API: body":                    v2(method + `, "body": ` + string(quoted)),
		"HTTP API: claims of a JWT":         v2(`"requestContext": {"http": {"method": "GET"}, "authorizer": {"jwt": {"claims": ` + text + `}}}`),
		"HTTP API: context without .lambda": v2(`"requestContext": {"http": {"method": "GET"}, "authorizer": {"iam": {"code": "valid"}}}`),
	}
}

// person is what Admitted makes of an event, as httpapi asks it about a token.
func person(t *testing.T, event string) (c caller.Caller, err error) {
	t.Helper()
	serve := gateway.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, err = gateway.Admitted{}.Person(r)
	}), slog.New(slog.DiscardHandler))
	if _, err := serve(t.Context(), json.RawMessage(event)); err != nil {
		t.Fatal(err)
	}
	return c, err
}

func TestTheFunctionKnowsThePersonWhomTheAuthorizerFound(t *testing.T) {
	for name, want := range people {
		for _, event := range withContext(t, authorizerSays(t, name)) {
			if got, err := person(t, event); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, want)
			}
		}
	}
}

func TestAPersonIsNoKeyAndAKeyIsNoPerson(t *testing.T) {
	for _, event := range withContext(t, authorizerSays(t, "admin")) {
		if d := decided(t, event); d.Code != apikey.Unavailable || d.Cause == nil || d.OrganizationID != "" {
			t.Errorf("a person passes for a key: %+v", d)
		}
	}
	for _, key := range []string{"active", "scoped", "limited", "management"} {
		for _, event := range withContext(t, authorizerSays(t, key)) {
			if c, err := person(t, event); apikey.CodeOf(err) != apikey.Unavailable || c.OrganizationID != "" {
				t.Errorf("the key %s passes for a person: %+v, %v", key, c, err)
			}
		}
	}
}

// A function may be newer than the authorizer for the moments of a deployment: one that knew keys alone said no kind.
func TestAContextWithoutAKindIsAboutAKey(t *testing.T) {
	said := authorizerSays(t, "management")
	for _, name := range []string{"kind", "user_id", "own", "plan"} {
		delete(said, name)
	}
	for _, event := range withContext(t, said) {
		if d := decided(t, event); !d.Allowed() {
			t.Errorf("%+v", d)
		}
		if _, err := person(t, event); apikey.CodeOf(err) != apikey.Unavailable {
			t.Errorf("%v", err)
		}
	}
}

func TestNobodyIsWhomAContextDoesNotPlainlySay(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"another door":               func(m map[string]any) { m["door"] = "" },
		"no kind":                    func(m map[string]any) { delete(m, "kind") },
		"a kind that no token gives": func(m map[string]any) { m["kind"] = "operator" },
		"a kind in capitals":         func(m map[string]any) { m["kind"] = "User" },
		"a kind that is no string":   func(m map[string]any) { m["kind"] = []string{"user"} },
		"no code":                    func(m map[string]any) { delete(m, "code") },
		"a refusal":                  func(m map[string]any) { m["code"] = "invalid_token" },
		"a key too":                  func(m map[string]any) { m["key_id"] = "key_00000001" },
		"no user":                    func(m map[string]any) { m["user_id"] = "" },
		"a user that is no id":       func(m map[string]any) { m["user_id"] = "ann#acme" },
		"no organization":            func(m map[string]any) { m["organization_id"] = "" },
		"an organization no id":      func(m map[string]any) { m["organization_id"] = "acme#shop" },
		"scopes in a list":           func(m map[string]any) { m["scopes"] = []string{"keys:read"} },
		"own in another word":        func(m map[string]any) { m["own"] = "yes" },
		"own said to be false":       func(m map[string]any) { m["own"] = "false" },
		"own as a truth value":       func(m map[string]any) { m["own"] = true },
		"a plan that is a number":    func(m map[string]any) { m["plan"] = 3 },
	} {
		said := authorizerSays(t, "admin")
		change(said)
		for _, event := range withContext(t, said) {
			c, err := person(t, event)
			if apikey.CodeOf(err) != apikey.Unavailable || errors.Unwrap(err) == nil || c.ID != "" || len(c.Scopes) > 0 {
				t.Errorf("%s: %+v, %v", name, c, err)
			}
		}
	}
}

func TestADecisionThatCannotBeReadRefuses(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"another door":         func(m map[string]any) { m["door"] = "" },
		"no code":              func(m map[string]any) { delete(m, "code") },
		"unknown code":         func(m map[string]any) { m["code"] = "fine" },
		"unavailable":          func(m map[string]any) { m["code"] = "unavailable" },
		"an HTTP code":         func(m map[string]any) { m["code"] = "internal" },
		"no key":               func(m map[string]any) { m["key_id"] = "" },
		"an impossible key":    func(m map[string]any) { m["key_id"] = "key_1" },
		"no organization":      func(m map[string]any) { m["organization_id"] = "" },
		"scopes in a list":     func(m map[string]any) { m["scopes"] = []string{"keys:read"} },
		"a torn end":           func(m map[string]any) { m["end"] = "tomorrow" },
		"a torn network":       func(m map[string]any) { m["cidrs"] = "192.0.2.0" },
		"a limit of words":     func(m map[string]any) { m["minute_limit"] = "many" },
		"a number for a limit": func(m map[string]any) { m["minute_limit"] = 60 },
	} {
		said := authorizerSays(t, "management")
		change(said)
		for _, event := range withContext(t, said) {
			if d := decided(t, event); d.Code != apikey.Unavailable || d.Cause == nil || d.OrganizationID != "" {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
}

// A gateway may leave out what is empty.
func TestWhatIsEmptyMayBeAbsent(t *testing.T) {
	said := authorizerSays(t, "management")
	for name, value := range said {
		if value == "" {
			delete(said, name)
		}
	}
	for _, event := range withContext(t, said) {
		if d := decided(t, event); !d.Allowed() || d.OrganizationID != "acme" {
			t.Errorf("%+v", d)
		}
	}
}

func TestTheAuthorizerCannotHaveDecidedWhatItWasNotAsked(t *testing.T) {
	for name, ask := range map[string]verify.Request{
		"the other door":     {},
		"scopes":             {Door: verify.Management, Scopes: []string{"keys:read"}},
		"a cost":             {Door: verify.Management, Cost: 2},
		"whose organization": {Door: verify.Management, OrganizationID: "acme"},
	} {
		if d := asked(t, withContext(t, authorizerSays(t, "management"))[0], ask); d.Code != apikey.Unavailable {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// A key's context and a person's have the same names, so that a mapping never meets one that is not there.
func TestTheContextIsFlatStrings(t *testing.T) {
	key := authorizerSays(t, "scoped")
	for _, who := range []string{"scoped", "admin", "member"} {
		said := authorizerSays(t, who)
		for name, value := range said {
			if _, ok := value.(string); !ok || strings.ToLower(name) != name {
				t.Errorf("%s: %s is %T", who, name, value)
			}
		}
		if !maps.EqualFunc(said, key, func(any, any) bool { return true }) {
			t.Errorf("%s has other names than a key", who)
		}
	}
}

func TestTheDocsNameEveryValueOfTheContext(t *testing.T) {
	page, err := os.ReadFile("../../docs/authorizer.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range authorizerSays(t, "scoped") {
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("docs/authorizer.md does not name %s", name)
		}
	}
}
