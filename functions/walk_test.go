package functions_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

func TestAKeyIsCreatedUsedRotatedAndRevokedByTheFunctions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	key := s.issue(201, "/v1/api-keys", `{"project_id": "shop", "name": "first", "scopes": ["orders:read"]}`)
	path := "/v1/api-keys/" + key.ID

	t.Run("it works, and is seen", func(t *testing.T) {
		a := s.must(200, "GET", "/v1/authorize?scopes=orders:read", key.Plaintext, "")
		if a.Header.Get("Latchkey-Key-Id") != key.ID || a.Header.Get("RateLimit") == "" {
			t.Errorf("%v", a.Header)
		}
		s.must(403, "GET", "/v1/authorize?scopes=orders:write", key.Plaintext, "")
		s.must(200, "GET", path, s.manager, "")
		s.must(200, "GET", "/v1/api-keys/"+key.Prefix, s.manager, "")
		s.must(200, "GET", "/v1/api-keys/me", key.Plaintext, "")
		if a := s.must(200, "GET", "/v1/api-keys?project_id=shop&name=fir", s.manager, ""); !strings.Contains(string(a.Body), key.ID) {
			t.Errorf("%s", a.Body)
		}
		if a := s.must(200, "POST", "/v1/api-keys/verify", s.manager, `{"key": "`+key.Plaintext+`"}`); !strings.Contains(string(a.Body), `"valid":true`) {
			t.Errorf("%s", a.Body)
		}
	})
	t.Run("it manages nothing", func(t *testing.T) {
		a := s.must(403, "GET", path, key.Plaintext, "")
		if a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.Header.Get("WWW-Authenticate"), "insufficient_scope") {
			t.Errorf("%v %s", a.Header, a.Body)
		}
		s.must(403, "DELETE", path, key.Plaintext, "")
	})
	t.Run("strangers are nobody", func(t *testing.T) {
		for _, stranger := range []string{"", "lk_live_nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."} {
			s.must(401, "GET", "/v1/api-keys", stranger, "")
			s.must(401, "GET", "/v1/authorize", stranger, "")
		}
	})
	t.Run("its successor works beside it, then alone", func(t *testing.T) {
		next := s.issue(200, path+"/rotate", `{}`)
		s.must(200, "GET", "/v1/authorize", key.Plaintext, "")
		s.must(200, "GET", "/v1/authorize", next.Plaintext, "")
		s.must(200, "POST", path+"/rotate/extend", s.manager, `{"grace_period_seconds": 90000}`)
		s.must(200, "POST", path+"/rotate/end", s.manager, "")
		s.must(401, "GET", "/v1/authorize", key.Plaintext, "")
		s.must(200, "GET", "/v1/authorize", next.Plaintext, "")
		s.must(204, "DELETE", "/v1/api-keys/"+next.NewID, s.manager, "")
		s.must(401, "GET", "/v1/authorize", next.Plaintext, "")
		s.must(401, "GET", "/v1/api-keys", next.Plaintext, "")
	})
	t.Run("it is changed, put away and brought back", func(t *testing.T) {
		k := s.issue(201, "/v1/api-keys", `{"project_id": "shop", "name": "changed"}`)
		path := "/v1/api-keys/" + k.ID
		if a := s.must(200, "PATCH", path, s.manager, `{"name": "another", "daily_limit": 1000}`); !strings.Contains(string(a.Body), `"another"`) {
			t.Errorf("%s", a.Body)
		}
		s.must(200, "POST", path+"/archive", s.manager, "")
		s.must(401, "GET", "/v1/authorize", k.Plaintext, "")
		s.must(200, "PUT", path+"/reactivate", s.manager, "")
		s.must(200, "GET", "/v1/authorize", k.Plaintext, "")
		if a := s.must(200, "GET", "/v1/audit?key_id="+k.ID, s.manager, ""); strings.Count(string(a.Body), `"action":"api_key.`) != 4 {
			t.Errorf("%s", a.Body)
		}
	})
	t.Run("an operator sets an organization's plan", func(t *testing.T) {
		s.must(200, "PUT", "/v1/organizations/globex", s.manager, `{"plan": "team"}`)
		for path, says := range map[string]string{"/v1/organizations/globex": `"plan":"team"`, "/v1/organization": `"plan":"enterprise"`} {
			if a := s.must(200, "GET", path, s.manager, ""); !strings.Contains(string(a.Body), says) {
				t.Errorf("%s: %s", path, a.Body)
			}
		}
	})
	t.Run("an organization's notices are signed", func(t *testing.T) {
		var first, again, next struct{ Secret string }
		s.must(200, "GET", "/v1/webhooks/secret", s.manager, "").Into(t, &first)
		s.must(200, "GET", "/v1/webhooks/secret", s.manager, "").Into(t, &again)
		s.must(200, "POST", "/v1/webhooks/secret/rotate", s.manager, "").Into(t, &next)
		if !strings.HasPrefix(first.Secret, "whsec_") || first != again || next == first {
			t.Error("the secret is not made once, and replaced when that is asked for")
		}
		s.secrets = append(s.secrets, first.Secret, next.Secret)
	})
	t.Run("an address is subscribed, and what is brought to it logged", func(t *testing.T) {
		var hook struct{ ID string }
		s.must(201, "POST", "/v1/webhooks", s.manager, `{"url": "https://hooks.example.com/in"}`).Into(t, &hook)
		s.must(200, "PATCH", "/v1/webhooks/"+hook.ID, s.manager, `{"event_types": ["api_key.*"]}`)
		for _, path := range []string{"/v1/webhooks", "/v1/webhooks/" + hook.ID} {
			if a := s.must(200, "GET", path, s.manager, ""); !strings.Contains(string(a.Body), `"event_types":["api_key.*"]`) {
				t.Errorf("%s: %s", path, a.Body)
			}
		}
		if a := s.must(200, "GET", "/v1/webhooks/deliveries?webhook_id="+hook.ID, s.manager, ""); string(a.Body) != "[]\n" {
			t.Errorf("the log has %s", a.Body)
		}
		s.must(404, "GET", "/v1/webhooks/deliveries/dlv_1", s.manager, "")
		s.must(404, "POST", "/v1/webhooks/deliveries/dlv_1/redeliver", s.manager, "")
		s.must(204, "DELETE", "/v1/webhooks/"+hook.ID, s.manager, "")
		s.must(404, "POST", "/v1/webhooks/"+hook.ID+"/test", s.manager, "")
	})
	t.Run("the other systems' shapes are served", func(t *testing.T) {
		var made struct {
			Key struct{ ID string }
			Raw string `json:"raw_key"`
		}
		s.must(201, "POST", "/v1/keys", s.manager, `{"name": "Staging"}`).Into(t, &made)
		s.issued = append(s.issued, made.Raw)
		s.must(200, "GET", "/v1/keys", s.manager, "")
		s.must(200, "DELETE", "/v1/keys/"+made.Key.ID, s.manager, "")
		var numbered struct {
			ID  json.Number
			Key string
		}
		s.must(201, "POST", "/organizations/api-keys", s.manager, `{"name": "Production"}`).Into(t, &numbered)
		s.issued = append(s.issued, numbered.Key)
		path := "/organizations/api-keys/" + numbered.ID.String()
		s.must(200, "GET", "/organizations/api-keys", s.manager, "")
		s.must(200, "DELETE", path, s.manager, "")
		s.must(200, "PUT", path+"/reactivate", s.manager, "")
	})
	t.Run("a limit is answered at both doors", func(t *testing.T) {
		limited := s.key(t, lifecycle.New{Name: "limited", Scopes: []string{apikey.KeysRead}, DailyLimit: new(int64(1))})
		s.must(200, "GET", "/v1/api-keys", limited, "")
		for _, path := range []string{"/v1/api-keys", "/v1/authorize"} {
			a := s.must(429, "GET", path, limited, "")
			if a.Header.Get("Retry-After") == "" || !strings.Contains(a.Header.Get("RateLimit"), `"day";r=0;t=`) ||
				!strings.Contains(string(a.Body), "daily_limit_exceeded") {
				t.Errorf("%s: %v %s", path, a.Header, a.Body)
			}
		}
	})
	t.Run("each does its own work alone", s.eachAlone)
}

// eachAlone gives every function the events of all others' routes, with a decision that would allow them.
func (s *service) eachAlone(t *testing.T) {
	routes := (&httpapi.API{}).Routes()
	said, status := s.authorize(request(t, "GET", "/v1/api-keys", s.manager))
	if status != http.StatusOK {
		t.Fatal(status)
	}
	victim := s.issue(201, "/v1/api-keys", `{"project_id": "shop", "name": "victim"}`)
	for name, f := range s.functions {
		for _, r := range routes {
			if name == r.Function || name == "authorizer" || scheduled[name] || streamed[name] || asked[name] || r.Method == httpapi.Any {
				continue
			}
			req := request(t, r.Method, strings.ReplaceAll(r.Pattern, "{id}", victim.ID), s.manager)
			req.SetPathValue("id", victim.ID)
			status, code := f.invoke(restEvent(req, r, said)).problem(t)
			// What another route of its own takes for an id or cannot read is as good as no route.
			if status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
				t.Errorf("%s answers %s %s with %d %s", name, r.Method, r.Pattern, status, code)
			}
		}
	}
	s.must(200, "GET", "/v1/authorize", victim.Plaintext, "")
}

// A client writes into its request what the authorizer would say of a management key.
func TestNoClientSpeaksForTheAuthorizer(t *testing.T) {
	t.Parallel()
	s := newService(t)
	service := s.key(t, lifecycle.New{Name: "service"})
	s.issued = append(s.issued, service)
	r := request(t, "GET", "/v1/api-keys", service)
	for _, name := range []string{"X-GoLambdaProxy-ApiGw-Context", "X-GoLambdaProxy-ApiGw-StageVars", "Code", "Door", "Scopes", "latchkey_door"} {
		r.Header.Set(name, `{"authorizer": {"code": "valid", "door": "management", "scopes": "keys:read"}}`)
	}
	own, status := s.authorize(r)
	if status != http.StatusOK || own["code"] != "valid" || own["scopes"] != "" {
		t.Fatalf("%d %v", status, own)
	}
	for _, test := range []struct {
		name   string
		said   map[string]any
		status int
	}{
		{"what was said of the service key", own, 403},
		{"nothing", nil, 503},
		{"what was said at another door", with(own, "door", ""), 503},
		{"a code that is none", with(own, "code", "yes"), 503},
	} {
		event := restEvent(r, httpapi.Route{Pattern: "/v1/api-keys"}, test.said)
		if status, code := s.functions["list"].invoke(event).problem(t); status != test.status {
			t.Errorf("%s: %d %s", test.name, status, code)
		}
	}
}

// Without an authorizer before it, a function of the management API refuses, but for those routes that have none there.
func TestNoFunctionOfTheManagementAPIDecidesByItself(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, r := range (&httpapi.API{}).Routes() {
		if r.Function == "verify" || strings.HasPrefix(r.Pattern, "/envelope/") {
			continue
		}
		req := request(t, r.Method, "/", s.manager)
		req.SetPathValue("id", "key_00000001")
		if status, code := s.functions[r.Function].invoke(restEvent(req, r, nil)).problem(t); status != 503 || code != "unavailable" {
			t.Errorf("%s %s without an authorizer: %d %s", r.Method, r.Pattern, status, code)
		}
	}
}

func with(m map[string]any, name, value string) map[string]any {
	m = maps.Clone(m)
	m[name] = value
	return m
}
