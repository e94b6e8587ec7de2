package functions_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// deployed is what an operator has after a deployment: tables with the organization acme, its first management key, and
// the environment of every function.
type deployed struct {
	environment []string
	manager     string
	people      *signIn
	app         *app.App
}

func deploy(t *testing.T) deployed {
	t.Helper()
	endpoint := storetest.DynamoDBLocal(t)
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	name := rand.Text()
	tables := dynamo.Tables{Keys: "keys-" + name, Audit: "audit-" + name, Chain: "chain-" + name}
	if err := dynamo.CreateTables(t.Context(), client, tables); err != nil {
		t.Fatal(err)
	}
	a, err := app.New(dynamo.New(client, tables), app.Settings{Brand: "lk"}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	people := newSignIn(t)
	d := deployed{app: a, people: people, environment: []string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"LATCHKEY_DYNAMODB_ENDPOINT=" + endpoint, "LATCHKEY_KEYS_TABLE=" + tables.Keys, "LATCHKEY_AUDIT_TABLE=" + tables.Audit, "LATCHKEY_CHAIN_TABLE=" + tables.Chain,
		"LATCHKEY_SEALING_KEY_ID=sealing", "LATCHKEY_KMS_ENDPOINT=" + newKMS(t), people.setting()}}
	if _, err := a.Keys.AddOrganization(d.operator(), "enterprise", []string{"*"}); err != nil {
		t.Fatal(err)
	}
	d.manager = d.key(t, lifecycle.New{Name: "manager", Scopes: apikey.ManagementScopes()})
	return d
}

func (d deployed) operator() context.Context {
	return caller.With(context.Background(), caller.Caller{OrganizationID: "acme", Kind: caller.Operator, ID: "test",
		Scopes: apikey.ManagementScopes(), RequestID: "test"})
}

// key makes a key beside the functions.
func (d deployed) key(t *testing.T, in lifecycle.New) string {
	t.Helper()
	in.ProjectID, in.RateLimitPerMinute = "shop", lifecycle.Limit{Said: true}
	issued, err := d.app.Keys.Create(d.operator(), in)
	if err != nil {
		t.Fatal(err)
	}
	return issued.Plaintext.Reveal()
}

// service is all functions running, with API Gateway played before them: a REST API with its authorizer before the
// management routes but the envelope's, an HTTP API without one before the doors.
type service struct {
	deployed
	t         *testing.T
	functions map[string]*function
	mux       *http.ServeMux
	issued    []string
	tokens    []string
	secrets   []string // others that no function may print
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{deployed: deploy(t), t: t, functions: map[string]*function{}, mux: http.NewServeMux()}
	for _, name := range names(t) {
		s.functions[name] = start(t, name, s.environment...)
	}
	for _, r := range (&httpapi.API{}).Routes() {
		s.mux.HandleFunc(strings.TrimPrefix(r.Method+" ", httpapi.Any+" ")+r.Pattern, func(w http.ResponseWriter, req *http.Request) {
			s.route(w, req, r)
		})
	}
	s.issued = append(s.issued, s.manager)
	t.Cleanup(s.searchLogs)
	return s
}

// searchLogs fails the test if a function printed a key, a person's token or another secret.
func (s *service) searchLogs() {
	for name, f := range s.functions {
		printed := f.output()
		for _, what := range []string{keytest.Leaked(printed, s.issued), keytest.LeakedToken(printed, s.tokens), keytest.LeakedSecret(printed, s.secrets)} {
			if what != "" {
				s.t.Errorf("%s printed %s", name, what)
			}
		}
	}
}

func (s *service) route(w http.ResponseWriter, r *http.Request, route httpapi.Route) {
	if route.Function == "verify" {
		relay(s.t, w, s.functions["verify"].invoke(httpEvent(r, route)))
		return
	}
	if strings.HasPrefix(route.Pattern, "/envelope/") {
		relay(s.t, w, s.functions[route.Function].invoke(restEvent(r, route, nil)))
		return
	}
	said, status := s.authorize(r)
	if status != http.StatusOK {
		w.WriteHeader(status)
		return
	}
	relay(s.t, w, s.functions[route.Function].invoke(restEvent(r, route, said)))
}

// authorize asks the authorizer as a REST API does. The status is that of the gateway's own answer, 200 for none.
func (s *service) authorize(r *http.Request) (said map[string]any, status int) {
	if r.Header.Get("Authorization") == "" {
		return nil, http.StatusUnauthorized
	}
	result := s.functions["authorizer"].invoke(authorizerEvent(r))
	switch result.failed {
	case "":
	case "Unauthorized":
		return nil, http.StatusUnauthorized
	default:
		return nil, http.StatusServiceUnavailable
	}
	var answer struct {
		PolicyDocument struct {
			Statement []struct{ Effect string }
		}
		Context map[string]any
	}
	if err := json.Unmarshal(result.answer, &answer); err != nil {
		s.t.Fatal(err)
	}
	if answer.PolicyDocument.Statement[0].Effect != "Allow" {
		return nil, http.StatusForbidden
	}
	return answer.Context, http.StatusOK
}

func authorizerEvent(r *http.Request) map[string]any {
	return map[string]any{"type": "REQUEST", "methodArn": "arn:aws:execute-api:us-east-1:123456789012:abcdef123/prod/" + r.Method + r.URL.Path,
		"multiValueHeaders": r.Header, "multiValueQueryStringParameters": r.URL.Query(),
		"stageVariables": map[string]string{"latchkey_door": "management"},
		"requestContext": map[string]any{"stage": "prod", "apiId": "abcdef123", "identity": map[string]any{"sourceIp": "192.0.2.7"}}}
}

// parameters are the path's, as the gateway matched them.
func parameters(r *http.Request, route httpapi.Route) map[string]string {
	if !strings.Contains(route.Pattern, "{id}") {
		return nil
	}
	return map[string]string{"id": r.PathValue("id")}
}

func restEvent(r *http.Request, route httpapi.Route, said map[string]any) map[string]any {
	body, _ := io.ReadAll(r.Body)
	return map[string]any{"resource": route.Pattern, "path": r.URL.Path, "httpMethod": r.Method, "multiValueHeaders": r.Header,
		"multiValueQueryStringParameters": r.URL.Query(), "pathParameters": parameters(r, route), "body": string(body),
		"requestContext": map[string]any{"stage": "prod", "domainName": "keys.example.com", "authorizer": said,
			"identity": map[string]any{"sourceIp": "192.0.2.7"}}}
}

func httpEvent(r *http.Request, route httpapi.Route) map[string]any {
	body, _ := io.ReadAll(r.Body)
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	return map[string]any{"version": "2.0", "routeKey": route.Method + " " + route.Pattern, "rawPath": "/prod" + r.URL.Path,
		"rawQueryString": r.URL.RawQuery, "headers": headers, "pathParameters": parameters(r, route), "body": string(body),
		"requestContext": map[string]any{"stage": "prod", "domainName": "doors.example.com",
			"http": map[string]any{"method": r.Method, "path": "/prod" + r.URL.Path, "sourceIp": "192.0.2.7"}}}
}

// relay sends what a function answered to the client.
func relay(t testing.TB, w http.ResponseWriter, r result) {
	t.Helper()
	var a struct {
		StatusCode        int
		Headers           map[string]string
		MultiValueHeaders http.Header
		Body              string
	}
	if err := json.Unmarshal(r.answer, &a); err != nil {
		t.Fatalf("%v in %q, or an error: %q", err, r.answer, r.failed)
	}
	for name, values := range a.MultiValueHeaders {
		w.Header()[name] = values
	}
	for name, value := range a.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.StatusCode)
	_, _ = io.WriteString(w, a.Body)
}

// call sends a request through the gateway.
func (s *service) call(method, path, key, body string) keytest.Answer {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	return keytest.Answer{Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}
}

// must is call for those who know what will be answered.
func (s *service) must(status int, method, path, key, body string) keytest.Answer {
	s.t.Helper()
	a := s.call(method, path, key, body)
	if a.Status != status {
		s.t.Fatalf("%s %s: %d %s, want %d", method, path, a.Status, a.Body, status)
	}
	return a
}

// issue is must for what hands out a key.
func (s *service) issue(status int, path, body string) keytest.Issued {
	s.t.Helper()
	return s.noted(s.must(status, "POST", path, s.manager, body))
}

// issueAs is issue for a person who creates.
func (s *service) issueAs(token, path, body string) keytest.Issued {
	s.t.Helper()
	return s.noted(s.must(http.StatusCreated, "POST", path, token, body))
}

func (s *service) noted(a keytest.Answer) (k keytest.Issued) {
	s.t.Helper()
	a.Into(s.t, &k)
	s.issued = append(s.issued, k.Plaintext)
	return k
}
