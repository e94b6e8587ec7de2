package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// onBothStores runs a walk through a document's examples, in an organization of its own on the largest plan, with a
// management key.
func onBothStores(t *testing.T, walk func(*testing.T, *visitor)) {
	t.Helper()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		d := newDoorOn(t, open(t))
		v := &visitor{door: d, organization: d.organization(t, "enterprise")}
		v.key = d.mustCreate(t, v.organization, lifecycle.New{Name: "manager", ProjectID: "default",
			Scopes: []string{"keys:read", "keys:write", "audit:read"}})
		d.advance(time.Second) // lists are by age
		walk(t, v)
	})
}

// visitor is a client who has a management key of an organization.
type visitor struct {
	*door
	organization string
	key          apikey.Issued
}

// ask sends a request with the key.
func (v *visitor) ask(method, target, body string) *httptest.ResponseRecorder {
	return v.send(request(method, target, v.key.Plaintext.Reveal(), body))
}

// as sends a request as a person of the organization.
func (v *visitor) as(t *testing.T, user, role, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	return v.send(request(method, target, v.person(t, v.organization, user, role), body))
}

// words stand for what no test can know beforehand.
var words = map[string]string{
	"UUID":   `([0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})`,
	"PREFIX": `(lk_live_[0-9A-Za-z]{8})`,
	"SECRET": `(lk_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{36})`,
	"NUMBER": `([1-9][0-9]{0,15})`,
	"TIME":   `([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)`,
}

// spelt demands an answer that is to the letter as the example, in which words stand for values and white space does not
// count. It gives the values.
func spelt(t *testing.T, w *httptest.ResponseRecorder, status int, example string) []string {
	t.Helper()
	body := has(t, w, status)
	if w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("the type is %s", w.Header().Get("Content-Type"))
	}
	pattern := regexp.QuoteMeta(regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(example, ""))
	for word, value := range words {
		pattern = strings.ReplaceAll(pattern, word, value)
	}
	m := regexp.MustCompile("^" + pattern + "\n$").FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("got\n%s\nwhich is not spelt\n%s", body, example)
	}
	return m[1:]
}

// A key made in one shape is a key of the organization in all of them, and every address takes every shape's id that it
// should, the native one and the prefix.
func TestAKeyMadeInOneShapeIsThereInAll(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		makers := map[string]func() *httptest.ResponseRecorder{
			"/v1/api-keys": func() *httptest.ResponseRecorder {
				return v.as(t, "jane", "admin", "POST", "/v1/api-keys", `{"project_id":"default","name":"n"}`)
			},
			"/v1/keys": func() *httptest.ResponseRecorder {
				return v.as(t, "jane", "admin", "POST", "/v1/keys", `{"name":"n"}`)
			},
			"/envelope/v1/api-keys": func() *httptest.ResponseRecorder {
				return v.as(t, "jane", "admin", "POST", "/envelope/v1/api-keys", `{"name":"n"}`)
			},
			"/organizations/api-keys": func() *httptest.ResponseRecorder {
				return v.as(t, "jane", "admin", "POST", "/organizations/api-keys", `{"name":"n"}`)
			},
		}
		for shape, create := range makers {
			prefix := regexp.MustCompile(words["PREFIX"]).FindString(has(t, create(), 201))
			k := read[apikey.Key](t, v.ask("GET", "/v1/api-keys/"+prefix, ""))
			if k.ProjectID != "default" || k.CreatedBy != "jane" || k.OrganizationID != v.organization || len(k.Scopes) > 0 {
				t.Errorf("%s made %+v", shape, k)
			}
			for list := range makers {
				if body := has(t, v.as(t, "jane", "admin", "GET", list, ""), 200); !strings.Contains(body, prefix) {
					t.Errorf("the key made at %s is not in the list at %s: %s", shape, list, body)
				}
			}
			number := fmt.Sprint(k.ID.Number())
			for _, address := range []string{"/organizations/api-keys/" + number, "/organizations/api-keys/" + k.ID.String(), "/organizations/api-keys/" + prefix} {
				has(t, v.ask("DELETE", address, ""), 200)
				has(t, v.ask("PUT", address+"/reactivate", ""), 200)
			}
			for _, address := range []string{"/v1/api-keys/" + k.ID.String(), "/v1/api-keys/" + prefix, "/v1/keys/" + k.ID.UUID(), "/v1/keys/" + k.ID.String(),
				"/v1/keys/" + prefix, "/envelope/v1/api-keys/" + prefix, "/envelope/v1/api-keys/" + k.ID.String()} {
				if w := v.as(t, "jane", "admin", "DELETE", address, ""); w.Code >= 300 {
					t.Errorf("DELETE %s: %d %s", address, w.Code, w.Body)
				}
			}
			for _, address := range []string{"/v1/api-keys/" + number, "/v1/api-keys/" + k.ID.UUID(), "/v1/keys/" + number, "/organizations/api-keys/" + k.ID.UUID(),
				"/envelope/v1/api-keys/" + number, "/v1/keys/" + strings.ToUpper(k.ID.UUID()), "/organizations/api-keys/0" + number,
				"/v1/keys/" + strings.Replace(prefix, "_live_", "_test_", 1), "/envelope/v1/api-keys/" + strings.Replace(prefix, "_live_", "_test_", 1)} {
				has(t, v.as(t, "jane", "admin", "DELETE", address, ""), 404)
			}
		}
	})
}

// Whatever is created is told once, may not be kept by caches, and is where Location says.
func TestEveryShapeHandsANewKeyOutOnce(t *testing.T) {
	d := newDoor(t)
	jane := d.person(t, "acme", "jane", "admin")
	for target, body := range map[string]string{"/v1/api-keys": `{"project_id":"default","name":"n"}`, "/v1/keys": `{"name":"n"}`,
		"/envelope/v1/api-keys": `{"name":"n"}`, "/organizations/api-keys": `{"name":"n"}`} {
		w := d.send(request("POST", target, jane, body))
		key := regexp.MustCompile(words["SECRET"]).FindString(has(t, w, 201))
		if h := w.Header(); h.Get("Cache-Control") != "no-store" || h.Get("ETag") != `"1"` {
			t.Errorf("%s: the headers are %v", target, h)
		}
		want(t, d.send(request("GET", "/v1/api-keys/me", key, "")), 200, "")
		base := strings.TrimSuffix(target, target[strings.LastIndexByte(target, '/')+1:])
		has(t, d.send(request("DELETE", base+w.Header().Get("Location"), jane, "")), map[bool]int{true: 204, false: 200}[target == "/v1/api-keys"])
		if w := d.send(request("GET", "/v1/api-keys/me", key, "")); w.Code != 401 {
			t.Errorf("%s: the key at its Location is another: %d", target, w.Code)
		}
	}
}

func TestEveryShapeReadsItsBodyStrictly(t *testing.T) {
	d := newDoor(t)
	jane := d.person(t, "acme", "jane", "admin")
	before := d.count(t, "acme")
	for _, target := range []string{"/v1/keys", "/envelope/v1/api-keys", "/organizations/api-keys"} {
		for body, status := range map[string]int{
			``: 415, `[]`: 400, `{"name":`: 400, "{\"name\":\"\xff\"}": 400, `{"name":"a\u0000"}`: 400, `{}`: 422, `{"name":null}`: 422, `{"name":7}`: 422, `{"name":""}`: 422,
			`{"name":"n","name":"m"}`: 422, `{"name":"n","project_id":"shop"}`: 422, `{"name":"n","scopes":["keys:write"]}`: 422, `{"name":"` + strings.Repeat("n", 201) + `"}`: 422,
			`{"name":"` + strings.Repeat("n", 70000) + `"}`: 413,
		} {
			if w := d.send(request("POST", target, jane, body)); w.Code != status {
				t.Errorf("%s %.50s: %d %s, want %d", target, body, w.Code, w.Body, status)
			}
		}
		if w := d.send(request("GET", target+"?limit=7", jane, "")); w.Code != 422 {
			t.Errorf("%s takes a limit: %d", target, w.Code)
		}
	}
	if n := d.count(t, "acme"); n != before {
		t.Errorf("there are %d keys, want %d", n, before)
	}
}

// The other shapes know no pages: their lists are whole, also where few keys of many are shown.
func TestAListWithoutPagesIsWhole(t *testing.T) {
	d := newDoor(t)
	for i := range 450 {
		k := d.mustCreate(t, "acme", lifecycle.New{Name: fmt.Sprint(i)}).Key
		if i%2 == 0 {
			want(t, d.do("POST", "/v1/api-keys/"+k.ID.String()+"/archive", ""), 200, "")
		}
		d.advance(time.Second)
	}
	count := func(target, member string) int {
		t.Helper()
		list := read[map[string][]json.RawMessage](t, d.do("GET", target, ""))
		return len(list[member])
	}
	if n := count("/v1/keys", "keys"); n != 451 {
		t.Errorf("/v1/keys has %d keys", n)
	}
	if n := count("/organizations/api-keys", "api_keys"); n != 226 {
		t.Errorf("/organizations/api-keys has %d keys", n)
	}
	if n := count("/organizations/api-keys?include_archived=true", "api_keys"); n != 451 {
		t.Errorf("with archived ones, %d keys", n)
	}
}

// What is another organization's does not exist, in every shape.
func TestAnotherOrganizationsKeyDoesNotExistInAnyShape(t *testing.T) {
	d := newDoor(t)
	other := d.mustCreate(t, "other", lifecycle.New{}).Key
	jane := d.person(t, "acme", "jane", "admin")
	before := d.count(t, "other")
	for _, r := range d.Routes() {
		if !strings.Contains(r.Pattern, "{id}") || strings.HasPrefix(r.Pattern, "/v1/organizations/") {
			continue
		}
		ids := []string{other.ID.String(), other.KeyPrefix, other.ID.UUID(), fmt.Sprint(other.ID.Number())}
		for _, id := range ids {
			body := map[string]string{"PATCH": "{}", "POST": ""}[r.Method]
			if strings.HasSuffix(r.Pattern, "/extend") {
				body = `{"grace_period_seconds":60}`
			}
			if w := d.send(request(r.Method, strings.Replace(r.Pattern, "{id}", id, 1), jane, body)); w.Code != 404 || strings.Contains(w.Body.String(), "other") {
				t.Errorf("%s %s of %s: %d %s", r.Method, r.Pattern, id, w.Code, w.Body)
			}
		}
	}
	if k, err := d.Keys.Get(operator("other"), other.ID); err != nil || k.Status != apikey.Active || d.count(t, "other") != before {
		t.Errorf("the key is %+v, %v", k, err)
	}
	for _, list := range []string{"/v1/api-keys", "/v1/keys", "/envelope/v1/api-keys", "/organizations/api-keys", "/v1/audit"} {
		if body := has(t, d.send(request("GET", list, jane, "")), 200); strings.Contains(body, other.KeyPrefix) || slices.Contains(strings.Fields(body), other.ID.String()) {
			t.Errorf("%s shows another organization's key: %s", list, body)
		}
	}
}
