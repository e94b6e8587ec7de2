package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// row is one fact about one endpoint: this request is answered so. In target and body, $id is a key of acme, $prefix its
// public prefix, and $other a key of another organization; $hook a webhook of acme, $delivery one to it, and $theirs another
// organization's webhook.
type row struct {
	guarantee    string
	scopes       string // of the key that asks; "-": no key at all
	method       string
	target, body string
	status       int
	code         apikey.Code
}

const everything = "keys:read keys:write keys:verify audit:read org:admin"

func (d *door) ask(t *testing.T, r row) *httptest.ResponseRecorder {
	t.Helper()
	own := d.mustCreate(t, "acme", lifecycle.New{Scopes: []string{"orders:read"}})
	hook, delivery := d.subscribed(t, "acme")
	theirs, _ := d.subscribed(t, "other")
	other := d.mustCreate(t, "other", lifecycle.New{})
	fill := strings.NewReplacer("$id", own.Key.ID.String(), "$prefix", own.Key.KeyPrefix, "$other", other.Key.ID.String(),
		"$key", own.Plaintext.Reveal(), "$hook", hook, "$delivery", delivery, "$theirs", theirs)
	key := ""
	if r.scopes != "-" {
		key = d.with(t, strings.Fields(r.scopes)...)
	}
	return d.send(request(r.method, fill.Replace(r.target), key, fill.Replace(r.body)))
}

func TestEveryEndpointAnswersWithTheStatusOfItsTable(t *testing.T) {
	const create = `{"project_id":"shop","name":"n"}`
	for _, r := range []row{
		{"a key is created", everything, "POST", "/v1/api-keys", create, 201, ""},
		{"creating needs a key", "-", "POST", "/v1/api-keys", create, 401, apikey.MissingKey},
		{"creating needs keys:write", "keys:read", "POST", "/v1/api-keys", create, 403, apikey.InsufficientScope},
		{"a service key creates nothing", "orders:read", "POST", "/v1/api-keys", create, 403, apikey.InsufficientScope},
		{"nobody grants what they do not hold", "keys:write", "POST", "/v1/api-keys", `{"project_id":"shop","name":"n","scopes":["org:admin"]}`, 403, apikey.ScopeNotHeld},
		{"service scopes lie within the organization's", everything, "POST", "/v1/api-keys", `{"project_id":"shop","name":"n","scopes":["billing:read"]}`, 403, apikey.ScopeNotAllowed},
		{"creating needs a body", everything, "POST", "/v1/api-keys", "", 415, apikey.UnsupportedMedia},
		{"creating needs a project", everything, "POST", "/v1/api-keys", `{"name":"n"}`, 422, apikey.InvalidFields},
		{"creating takes no query", everything, "POST", "/v1/api-keys?project_id=shop", create, 422, apikey.InvalidFields},

		{"keys are listed", everything, "GET", "/v1/api-keys", "", 200, ""},
		{"listing needs keys:read", "keys:write", "GET", "/v1/api-keys", "", 403, apikey.InsufficientScope},
		{"listing needs a key", "-", "GET", "/v1/api-keys", "", 401, apikey.MissingKey},

		{"a key is shown by its id", everything, "GET", "/v1/api-keys/$id", "", 200, ""},
		{"a key is shown by its prefix", everything, "GET", "/v1/api-keys/$prefix", "", 200, ""},
		{"HEAD goes where GET goes", everything, "HEAD", "/v1/api-keys/$id", "", 200, ""},
		{"showing needs keys:read", "keys:write", "GET", "/v1/api-keys/$id", "", 403, apikey.InsufficientScope},
		{"another organization's key does not exist", everything, "GET", "/v1/api-keys/$other", "", 404, apikey.NotFound},
		{"an unknown key does not exist", everything, "GET", "/v1/api-keys/key_00000001", "", 404, apikey.NotFound},
		{"what cannot be an id is no key", everything, "GET", "/v1/api-keys/17", "", 404, apikey.NotFound},
		{"a whole key is no address", everything, "GET", "/v1/api-keys/$key", "", 404, apikey.NotFound},
		{"an encoded slash is no address", everything, "GET", "/v1/api-keys/$id%2Frotate", "", 404, apikey.NotFound},
		{"showing takes no query", everything, "GET", "/v1/api-keys/$id?fields=name", "", 422, apikey.InvalidFields},

		{"a key is revoked", everything, "DELETE", "/v1/api-keys/$id", "", 204, ""},
		{"revoking needs keys:write", "keys:read", "DELETE", "/v1/api-keys/$id", "", 403, apikey.InsufficientScope},
		{"another organization's key is not revoked", everything, "DELETE", "/v1/api-keys/$other", "", 404, apikey.NotFound},

		{"a key is rotated without a body", everything, "POST", "/v1/api-keys/$id/rotate", "", 200, ""},
		{"a key is rotated by its prefix", everything, "POST", "/v1/api-keys/$prefix/rotate", "{}", 200, ""},
		{"a grace may be as short as nothing", everything, "POST", "/v1/api-keys/$id/rotate", `{"grace_period_seconds":0}`, 200, ""},
		{"a grace may be a week long", everything, "POST", "/v1/api-keys/$id/rotate", `{"grace_period_seconds":604800}`, 200, ""},
		{"a grace is not longer", everything, "POST", "/v1/api-keys/$id/rotate", `{"grace_period_seconds":604801}`, 422, apikey.InvalidFields},
		{"a grace is not negative", everything, "POST", "/v1/api-keys/$id/rotate", `{"grace_period_seconds":-1}`, 422, apikey.InvalidFields},
		{"a grace is not null", everything, "POST", "/v1/api-keys/$id/rotate", `{"grace_period_seconds":null}`, 422, apikey.InvalidFields},
		{"a grace stands in the body", everything, "POST", "/v1/api-keys/$id/rotate?grace_period_seconds=0", "", 422, apikey.InvalidFields},
		{"rotating needs keys:write", "keys:read", "POST", "/v1/api-keys/$id/rotate", "", 403, apikey.InsufficientScope},
		{"another organization's key is not rotated", everything, "POST", "/v1/api-keys/$other/rotate", "", 404, apikey.NotFound},

		{"no grace, nothing to end", everything, "POST", "/v1/api-keys/$id/rotate/end", "", 409, apikey.NotInGrace},
		{"ending a grace needs keys:write", "keys:read", "POST", "/v1/api-keys/$id/rotate/end", "", 403, apikey.InsufficientScope},
		{"ending a grace takes no fields", everything, "POST", "/v1/api-keys/$id/rotate/end", `{"now":true}`, 422, apikey.InvalidFields},
		{"no grace, nothing to extend", everything, "POST", "/v1/api-keys/$id/rotate/extend", `{"grace_period_seconds":60}`, 409, apikey.NotInGrace},
		{"extending says by how much", everything, "POST", "/v1/api-keys/$id/rotate/extend", `{}`, 422, apikey.InvalidFields},
		{"extending by nothing is refused", everything, "POST", "/v1/api-keys/$id/rotate/extend", `{"grace_period_seconds":0}`, 422, apikey.InvalidFields},

		{"a key is verified", everything, "POST", "/v1/api-keys/verify", `{"key":"$key"}`, 200, ""},
		{"a bad key is verified too", everything, "POST", "/v1/api-keys/verify", `{"key":"nonsense"}`, 200, ""},
		{"verifying needs keys:verify", "keys:read keys:write", "POST", "/v1/api-keys/verify", `{"key":"$key"}`, 403, apikey.InsufficientScope},
		{"verifying needs keys:verify whatever the key", "keys:read keys:write", "POST", "/v1/api-keys/verify", `{"key":"nonsense"}`, 403, apikey.InsufficientScope},
		{"verifying needs a key that asks", "-", "POST", "/v1/api-keys/verify", `{"key":"$key"}`, 401, apikey.MissingKey},
		{"verifying needs a key to ask about", everything, "POST", "/v1/api-keys/verify", `{}`, 422, apikey.InvalidFields},

		{"a key is changed", everything, "PATCH", "/v1/api-keys/$id", `{"name":"m"}`, 200, ""},
		{"a key is changed by its prefix", everything, "PATCH", "/v1/api-keys/$prefix", `{"enabled":false}`, 200, ""},
		{"nothing is a change too", everything, "PATCH", "/v1/api-keys/$id", `{}`, 200, ""},
		{"changing needs a key", "-", "PATCH", "/v1/api-keys/$id", `{}`, 401, apikey.MissingKey},
		{"changing needs keys:write", "keys:read", "PATCH", "/v1/api-keys/$id", `{}`, 403, apikey.InsufficientScope},
		{"nobody adds what they do not hold", "keys:write", "PATCH", "/v1/api-keys/$id", `{"scopes":["org:admin"]}`, 403, apikey.ScopeNotHeld},
		{"nor what the organization may not have", everything, "PATCH", "/v1/api-keys/$id", `{"scopes":["billing:read"]}`, 403, apikey.ScopeNotAllowed},
		{"another organization's key is not changed", everything, "PATCH", "/v1/api-keys/$other", `{"name":"m"}`, 404, apikey.NotFound},
		{"a change is told in a body", everything, "PATCH", "/v1/api-keys/$id", "", 415, apikey.UnsupportedMedia},
		{"a change is an object", everything, "PATCH", "/v1/api-keys/$id", `[{"op":"remove","path":"/scopes"}]`, 400, apikey.InvalidJSON},
		{"a name holds no control character", everything, "PATCH", "/v1/api-keys/$id", `{"name":"a\u0000"}`, 400, apikey.InvalidJSON},
		{"a name is not taken away", everything, "PATCH", "/v1/api-keys/$id", `{"name":null}`, 422, apikey.InvalidFields},
		{"an id is for good", everything, "PATCH", "/v1/api-keys/$id", `{"id":"key_00000001"}`, 422, apikey.InvalidFields},
		{"a project is for good", everything, "PATCH", "/v1/api-keys/$id", `{"project_id":"shop"}`, 422, apikey.InvalidFields},
		{"a change takes no query", everything, "PATCH", "/v1/api-keys/$id?name=m", `{}`, 422, apikey.InvalidFields},

		{"a key is archived", everything, "POST", "/v1/api-keys/$id/archive", "", 200, ""},
		{"a key is archived by its prefix", everything, "POST", "/v1/api-keys/$prefix/archive", "{}", 200, ""},
		{"archiving needs keys:write", "keys:read", "POST", "/v1/api-keys/$id/archive", "", 403, apikey.InsufficientScope},
		{"archiving needs a key", "-", "POST", "/v1/api-keys/$id/archive", "", 401, apikey.MissingKey},
		{"archiving takes no fields", everything, "POST", "/v1/api-keys/$id/archive", `{"until":"2027-01-01"}`, 422, apikey.InvalidFields},
		{"another organization's key is not archived", everything, "POST", "/v1/api-keys/$other/archive", "", 404, apikey.NotFound},
		{"what is not archived does not come back", everything, "PUT", "/v1/api-keys/$id/reactivate", "", 409, apikey.WrongState},
		{"bringing back needs keys:write", "keys:read", "PUT", "/v1/api-keys/$id/reactivate", "", 403, apikey.InsufficientScope},
		{"another organization's key does not come back", everything, "PUT", "/v1/api-keys/$other/reactivate", "", 404, apikey.NotFound},

		{"the trail is shown", everything, "GET", "/v1/audit", "", 200, ""},
		{"the trail needs audit:read", "keys:read", "GET", "/v1/audit", "", 403, apikey.InsufficientScope},
		{"the trail needs a key", "-", "GET", "/v1/audit", "", 401, apikey.MissingKey},
		{"the trail takes known filters alone", everything, "GET", "/v1/audit?user=me", "", 422, apikey.InvalidFields},

		{"the chain is shown", everything, "GET", "/v1/audit/chain", "", 200, ""},
		{"the chain needs audit:read", "keys:read", "GET", "/v1/audit/chain", "", 403, apikey.InsufficientScope},
		{"the chain needs a key", "-", "GET", "/v1/audit/chain", "", 401, apikey.MissingKey},
		{"the chain takes known parameters alone", everything, "GET", "/v1/audit/chain?cursor=1", "", 422, apikey.InvalidFields},

		{"an address is subscribed", "keys:write", "POST", "/v1/webhooks", `{"url":"https://example.com/in"}`, 201, ""},
		{"to some events, with words of its own", everything, "POST", "/v1/webhooks", `{"url":"https://example.com/in","event_types":["api_key.*","webhook.disabled"],"description":"prod","enabled":false}`, 201, ""},
		{"without words of its own", everything, "POST", "/v1/webhooks", `{"url":"https://example.com/in","description":null}`, 201, ""},
		{"subscribing needs a key", "-", "POST", "/v1/webhooks", `{"url":"https://example.com/in"}`, 401, apikey.MissingKey},
		{"subscribing needs keys:write", "keys:read", "POST", "/v1/webhooks", `{"url":"https://example.com/in"}`, 403, apikey.InsufficientScope},
		{"subscribing needs a body", everything, "POST", "/v1/webhooks", "", 415, apikey.UnsupportedMedia},
		{"subscribing needs an address", everything, "POST", "/v1/webhooks", `{}`, 422, apikey.InvalidFields},
		{"that is public", everything, "POST", "/v1/webhooks", `{"url":"https://169.254.169.254/"}`, 422, apikey.InvalidFields},
		{"and https", everything, "POST", "/v1/webhooks", `{"url":"http://example.com/in"}`, 422, apikey.InvalidFields},
		{"what signs is not the subscriber's to say", everything, "POST", "/v1/webhooks", `{"url":"https://example.com/in","secret":"s"}`, 422, apikey.InvalidFields},
		{"webhooks are listed", "keys:write", "GET", "/v1/webhooks", "", 200, ""},
		{"listing webhooks needs keys:write", "keys:read", "GET", "/v1/webhooks", "", 403, apikey.InsufficientScope},
		{"listing webhooks takes no query", everything, "GET", "/v1/webhooks?url=x", "", 422, apikey.InvalidFields},
		{"a webhook is shown", "keys:write", "GET", "/v1/webhooks/$hook", "", 200, ""},
		{"HEAD goes where GET goes, of webhooks too", "keys:write", "HEAD", "/v1/webhooks/$hook", "", 200, ""},
		{"another organization's webhook does not exist", everything, "GET", "/v1/webhooks/$theirs", "", 404, apikey.NotFound},
		{"an unknown webhook does not exist", everything, "GET", "/v1/webhooks/wh_00000000000000000000000000", "", 404, apikey.NotFound},
		{"what can be no webhook does not exist", everything, "GET", "/v1/webhooks/a%23b", "", 404, apikey.NotFound},
		{"a webhook is changed", everything, "PATCH", "/v1/webhooks/$hook", `{"enabled":false}`, 200, ""},
		{"nothing is a change of a webhook too", everything, "PATCH", "/v1/webhooks/$hook", `{}`, 200, ""},
		{"changing a webhook needs keys:write", "keys:read", "PATCH", "/v1/webhooks/$hook", `{}`, 403, apikey.InsufficientScope},
		{"another organization's webhook is not changed", everything, "PATCH", "/v1/webhooks/$theirs", `{"enabled":false}`, 404, apikey.NotFound},
		{"an address is not taken away", everything, "PATCH", "/v1/webhooks/$hook", `{"url":null}`, 422, apikey.InvalidFields},
		{"why a webhook is disabled is not said from outside", everything, "PATCH", "/v1/webhooks/$hook", `{"disabled_reason":"gone"}`, 422, apikey.InvalidFields},
		{"a webhook is deleted", "keys:write", "DELETE", "/v1/webhooks/$hook", "", 204, ""},
		{"deleting a webhook needs keys:write", "keys:read", "DELETE", "/v1/webhooks/$hook", "", 403, apikey.InsufficientScope},
		{"another organization's webhook is not deleted", everything, "DELETE", "/v1/webhooks/$theirs", "", 404, apikey.NotFound},
		{"a webhook is tested", "keys:write", "POST", "/v1/webhooks/$hook/test", "", 200, ""},
		{"a webhook is tested with an empty body", "keys:write", "POST", "/v1/webhooks/$hook/test", "{}", 200, ""},
		{"testing takes no fields", everything, "POST", "/v1/webhooks/$hook/test", `{"url":"https://example.com"}`, 422, apikey.InvalidFields},
		{"testing needs keys:write", "keys:read", "POST", "/v1/webhooks/$hook/test", "", 403, apikey.InsufficientScope},
		{"another organization's webhook is not tested", everything, "POST", "/v1/webhooks/$theirs/test", "", 404, apikey.NotFound},
		{"the delivery log is shown", "keys:write", "GET", "/v1/webhooks/deliveries", "", 200, ""},
		{"the delivery log needs keys:write", "keys:read", "GET", "/v1/webhooks/deliveries", "", 403, apikey.InsufficientScope},
		{"a delivery is shown", "keys:write", "GET", "/v1/webhooks/deliveries/$delivery", "", 200, ""},
		{"an unknown delivery does not exist", everything, "GET", "/v1/webhooks/deliveries/dlv_1", "", 404, apikey.NotFound},
		{"what can be no delivery does not exist", everything, "GET", "/v1/webhooks/deliveries/test", "", 404, apikey.NotFound},
		{"a delivery needs keys:write", "keys:read", "GET", "/v1/webhooks/deliveries/$delivery", "", 403, apikey.InsufficientScope},
		{"a delivery is made again", "keys:write", "POST", "/v1/webhooks/deliveries/$delivery/redeliver", "", 202, ""},
		{"making it again takes no fields", everything, "POST", "/v1/webhooks/deliveries/$delivery/redeliver", `{"now":true}`, 422, apikey.InvalidFields},
		{"making it again needs keys:write", "keys:read", "POST", "/v1/webhooks/deliveries/$delivery/redeliver", "", 403, apikey.InsufficientScope},
		{"a delivery is not changed", everything, "DELETE", "/v1/webhooks/deliveries/$delivery", "", 405, apikey.MethodNotAllowed},

		{"the own organization is shown", "keys:read", "GET", "/v1/organization", "", 200, ""},
		{"the own organization needs keys:read", "keys:write", "GET", "/v1/organization", "", 403, apikey.InsufficientScope},
		{"the own organization needs a key", "-", "GET", "/v1/organization", "", 401, apikey.MissingKey},
		{"operators see every organization", "org:admin", "GET", "/v1/organizations/other", "", 200, ""},
		{"others see none by its id", "keys:read keys:write keys:verify audit:read", "GET", "/v1/organizations/acme", "", 403, apikey.InsufficientScope},
		{"an organization that is not there", "org:admin", "GET", "/v1/organizations/nobody", "", 404, apikey.NotFound},
		{"what can be no organization", "org:admin", "GET", "/v1/organizations/a%23b", "", 422, apikey.InvalidFields},
		{"operators change an organization", "org:admin", "PUT", "/v1/organizations/other", `{"plan":"team"}`, 200, ""},
		{"operators make an organization", "org:admin", "PUT", "/v1/organizations/new", `{"plan":null,"allowed_scopes":["a:*","b"]}`, 200, ""},
		{"others change none", "keys:read keys:write keys:verify audit:read", "PUT", "/v1/organizations/acme", `{}`, 403, apikey.InsufficientScope},
		{"others learn nothing of organizations", "keys:write", "PUT", "/v1/organizations/nobody", `{}`, 403, apikey.InsufficientScope},
		{"a plan is one of the table", "org:admin", "PUT", "/v1/organizations/acme", `{"plan":"gold"}`, 422, apikey.InvalidFields},
		{"a plan is a string", "org:admin", "PUT", "/v1/organizations/acme", `{"plan":7}`, 422, apikey.InvalidFields},
		{"scopes are a list", "org:admin", "PUT", "/v1/organizations/acme", `{"allowed_scopes":"a"}`, 422, apikey.InvalidFields},
		{"scopes are scopes", "org:admin", "PUT", "/v1/organizations/acme", `{"allowed_scopes":["a b"]}`, 422, apikey.InvalidFields},
		{"an organization's count is its own", "org:admin", "PUT", "/v1/organizations/acme", `{"active_keys":0}`, 422, apikey.InvalidFields},
		{"an organization is told in a body", "org:admin", "PUT", "/v1/organizations/acme", "", 415, apikey.UnsupportedMedia},

		{"at /v1/keys a key is created", everything, "POST", "/v1/keys", `{"name":"n"}`, 201, ""},
		{"at /v1/keys creating needs keys:write", "keys:read", "POST", "/v1/keys", `{"name":"n"}`, 403, apikey.InsufficientScope},
		{"at /v1/keys listing needs keys:read", "keys:write", "GET", "/v1/keys", "", 403, apikey.InsufficientScope},
		{"at /v1/keys a key is revoked", everything, "DELETE", "/v1/keys/$id", "", 200, ""},
		{"at /v1/keys another organization's is not", everything, "DELETE", "/v1/keys/$other", "", 404, apikey.NotFound},
		{"at /v1/keys nobody asks", "-", "GET", "/v1/keys", "", 401, apikey.MissingKey},
		{"at /organizations a key is created", everything, "POST", "/organizations/api-keys", `{"name":"n"}`, 201, ""},
		{"at /organizations creating needs keys:write", "keys:read", "POST", "/organizations/api-keys", `{"name":"n"}`, 403, apikey.InsufficientScope},
		{"at /organizations listing needs keys:read", "keys:write", "GET", "/organizations/api-keys", "", 403, apikey.InsufficientScope},
		{"at /organizations a key is archived", everything, "DELETE", "/organizations/api-keys/$id", "", 200, ""},
		{"at /organizations another organization's is not", everything, "DELETE", "/organizations/api-keys/$other", "", 404, apikey.NotFound},
		{"at /organizations what is not archived does not come back", everything, "PUT", "/organizations/api-keys/$id/reactivate", "", 409, apikey.WrongState},
		{"at /organizations nobody asks", "-", "GET", "/organizations/api-keys", "", 401, apikey.MissingKey},

		{"a service key may ask what it is", "orders:read", "GET", "/v1/api-keys/me", "", 200, ""},
		{"no key is nobody", "-", "GET", "/v1/api-keys/me", "", 401, apikey.MissingKey},
	} {
		t.Run(r.guarantee, func(t *testing.T) {
			w := newDoor(t).ask(t, r)
			if r.method == "HEAD" && w.Body.Len() > 0 {
				t.Errorf("HEAD has the body %s", w.Body)
			}
			problem := want(t, w, r.status, r.code)
			if r.code == apikey.InsufficientScope && !strings.Contains(w.Header().Get("WWW-Authenticate"), `scope="`+problem.Scope+`"`) {
				t.Errorf("the challenge is %q", w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}

func TestCreateHandsOutTheWholeKeyOnce(t *testing.T) {
	d := newDoor(t)
	w := d.do("POST", "/v1/api-keys", `{"project_id":"shop","name":"Läden & Co","scopes":["orders:read"],"metadata":{"a":[1,"<b>"]},"expires_at":"2027-01-01"}`)
	want(t, w, 201, "")
	var created struct {
		apikey.Key
		Plaintext string `json:"key"`
	}
	created.Plaintext = read[map[string]any](t, w)["key"].(string)
	created.Key = read[apikey.Key](t, w)
	k := created.Key
	if loc := w.Header().Get("Location"); loc != "api-keys/"+k.ID.String() {
		t.Errorf("Location is %q", loc)
	}
	if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("ETag") != `"1"` {
		t.Errorf("the headers are %v", w.Header())
	}
	if k.Name != "Läden & Co" || string(k.Metadata) != `{"a":[1,"<b>"]}` || k.ExpiresAt.Format(time.RFC3339) != "2027-01-01T00:00:00Z" || *k.RateLimitPerMinute != 60 {
		t.Errorf("the key is %+v", k)
	}
	if me := d.send(request("GET", "/v1/api-keys/me", created.Plaintext, "")); me.Code != 200 {
		t.Errorf("the new key is answered with %d %s", me.Code, me.Body)
	}
	for _, w := range []*httptest.ResponseRecorder{d.do("GET", "/v1/api-keys", ""), d.do("GET", "/v1/api-keys/"+k.ID.String(), "")} {
		if strings.Contains(w.Body.String(), created.Plaintext[20:]) {
			t.Error("the secret is shown again")
		}
	}
}

// Every field is there, null or empty when unset, and the answer to create has one more.
func TestEveryFieldOfAKeyIsAlwaysPresent(t *testing.T) {
	d := newDoor(t)
	var fields []string
	for f := range reflect.TypeFor[apikey.Key]().Fields() {
		if name := f.Tag.Get("json"); name != "-" {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	created := read[map[string]json.RawMessage](t, d.do("POST", "/v1/api-keys", `{"project_id":"shop","name":"n"}`))
	if created["key"] == nil || string(created["scopes"]) != "[]" || string(created["metadata"]) != "{}" || string(created["expires_at"]) != "null" {
		t.Errorf("created is %s", created)
	}
	delete(created, "key")
	var id string
	if err := json.Unmarshal(created["id"], &id); err != nil {
		t.Fatal(err)
	}
	shown := read[map[string]json.RawMessage](t, d.do("GET", "/v1/api-keys/"+id, ""))
	for _, m := range []map[string]json.RawMessage{created, shown} {
		if got := names(m); !slices.Equal(got, fields) {
			t.Errorf("the fields are %v, want %v", got, fields)
		}
	}
}

func names(m map[string]json.RawMessage) (list []string) {
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// Whatever lifecycle.New has, the body of create takes.
func TestCreateTakesEveryFieldOfANewKey(t *testing.T) {
	d := newDoor(t)
	body := map[string]any{
		"project_id": "shop", "environment_id": "test-1", "external_id": "customer@7", "name": "all", "scopes": []string{"orders:read", "keys:read"},
		"rate_limit_per_minute": nil, "daily_limit": 1000, "allowed_cidrs": []string{"192.0.2.0/24"}, "metadata": map[string]any{"team": "a"},
		"expires_at": "2027-01-01T12:00:00+02:00", "rotation_interval_days": 30, "rotation_webhook_url": "https://example.com/hook",
		"rotation_to_secrets_manager": true,
	}
	for f := range reflect.TypeFor[lifecycle.New]().Fields() {
		if _, ok := body[f.Tag.Get("json")]; !ok {
			t.Errorf("%s is not in this test", f.Name)
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w := d.do("POST", "/v1/api-keys", string(text))
	want(t, w, 201, "")
	body["expires_at"], body["daily_limit"], body["rotation_interval_days"] = "2027-01-01T10:00:00Z", 1000.0, 30.0
	body["scopes"] = []string{"keys:read", "orders:read"}
	got := read[map[string]any](t, w)
	for name, v := range body {
		if fmt.Sprint(got[name]) != fmt.Sprint(v) {
			t.Errorf("%s is %v, want %v", name, got[name], v)
		}
	}
}

func TestRotateAnswersWithTenFields(t *testing.T) {
	d := newDoor(t)
	old := d.mustCreate(t, "acme", lifecycle.New{Scopes: []string{"orders:read"}})
	d.advance(time.Hour)
	w := d.do("POST", "/v1/api-keys/"+old.Key.ID.String()+"/rotate", `{"grace_period_seconds":60}`)
	want(t, w, 200, "")
	fields := read[map[string]json.RawMessage](t, w)
	ten := []string{"created_at", "expires_at", "grace_expires_at", "key", "key_prefix", "name", "new_key_id", "old_key_id", "project_id", "scopes"}
	if got := names(fields); !slices.Equal(got, ten) {
		t.Errorf("the fields are %v", got)
	}
	if string(fields["created_at"]) != `"2026-11-22T11:00:30Z"` || string(fields["grace_expires_at"]) != `"2026-11-22T11:01:30Z"` ||
		string(fields["old_key_id"]) != `"`+old.Key.ID.String()+`"` || string(fields["scopes"]) != `["orders:read"]` {
		t.Errorf("rotated is %s", w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("the new secret may be kept by caches")
	}
	want(t, d.do("POST", "/v1/api-keys/"+old.Key.ID.String()+"/rotate", ""), 409, apikey.AlreadyRotated)
	newID := strings.Trim(string(fields["new_key_id"]), `"`)
	want(t, d.do("POST", "/v1/api-keys/"+newID+"/rotate", ""), 409, apikey.RotationInProgress)
	extended := d.do("POST", "/v1/api-keys/"+newID+"/rotate/extend", `{"grace_period_seconds":604800}`)
	want(t, extended, 200, "")
	if k := read[apikey.Key](t, extended); k.ID != old.Key.ID || k.Status != apikey.Rotated || extended.Header().Get("ETag") != `"3"` {
		t.Errorf("extended is %s with ETag %s", extended.Body, extended.Header().Get("ETag"))
	}
	ended := d.do("POST", "/v1/api-keys/"+old.Key.ID.String()+"/rotate/end", "")
	want(t, ended, 200, "")
	if k := read[apikey.Key](t, ended); k.Status != apikey.Expired {
		t.Errorf("ended is %s", ended.Body)
	}
}

func TestRevokingIsForGoodAndMayBeRepeated(t *testing.T) {
	d := newDoor(t)
	issued := d.mustCreate(t, "acme", lifecycle.New{})
	for range 2 {
		w := d.do("DELETE", "/v1/api-keys/"+issued.Key.ID.String(), "")
		want(t, w, 204, "")
		if w.Body.Len() > 0 || w.Header().Get("Content-Type") != "" {
			t.Errorf("204 has a body: %s", w.Body)
		}
	}
	want(t, d.send(request("GET", "/v1/api-keys/me", issued.Plaintext.Reveal(), "")), 401, apikey.RevokedKey)
	want(t, d.do("DELETE", "/v1/api-keys/"+d.manager.Key.ID.String(), ""), 409, apikey.OwnKey)
	want(t, d.do("POST", "/v1/api-keys/"+d.manager.Key.ID.String()+"/rotate", ""), 409, apikey.OwnKey)
}

// RFC 7396: what is absent stays, null takes away, and metadata are merged.
func TestAPatchChangesWhatItSaysAndNothingElse(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		k := read[apikey.Key](t, v.ask("POST", "/v1/api-keys", `{"project_id":"shop","name":"n","scopes":["orders:read"],"daily_limit":9,"allowed_cidrs":["192.0.2.0/24"],
			"metadata":{"team":"a","tags":{"x":1,"y":2}},"expires_at":"2027-01-01","rotation_interval_days":30,"rotation_webhook_url":"https://example.com/hook"}`))
		for _, row := range []struct{ patch, field, value string }{
			{`{"name":"m"}`, "name", `"m"`},
			{`{"scopes":["orders:write"]}`, "scopes", `["orders:write"]`},
			{`{"scopes":null}`, "scopes", `[]`},
			{`{"allowed_cidrs":null}`, "allowed_cidrs", `[]`},
			{`{"rate_limit_per_minute":7}`, "rate_limit_per_minute", `7`},
			{`{"rate_limit_per_minute":null}`, "rate_limit_per_minute", `null`},
			{`{"daily_limit":null}`, "daily_limit", `null`},
			{`{"metadata":{"team":null,"tags":{"x":3}}}`, "metadata", `{"tags":{"x":3,"y":2}}`},
			{`{"metadata":null}`, "metadata", `{}`},
			{`{"expires_at":"2028-01-01T00:00:00Z"}`, "expires_at", `"2028-01-01T00:00:00Z"`},
			{`{"expires_at":null}`, "expires_at", `null`},
			{`{"rotation_webhook_url":null}`, "rotation_webhook_url", `null`},
			{`{"rotation_interval_days":null}`, "rotation_interval_days", `null`},
			{`{"rotation_to_secrets_manager":true}`, "rotation_to_secrets_manager", `true`},
			{`{"enabled":false}`, "enabled", `false`},
			{`{"enabled":true}`, "enabled", `true`},
		} {
			before := read[map[string]json.RawMessage](t, v.ask("GET", "/v1/api-keys/"+k.ID.String(), ""))
			r := request("PATCH", "/v1/api-keys/"+k.ID.String(), v.key.Plaintext.Reveal(), row.patch)
			r.Header.Set("Content-Type", "application/merge-patch+json")
			w := v.send(r)
			want(t, w, 200, "")
			after := read[map[string]json.RawMessage](t, w)
			if string(after[row.field]) != row.value {
				t.Errorf("%s: %s is %s, want %s", row.patch, row.field, after[row.field], row.value)
			}
			for name := range after {
				same := string(before[name]) == string(after[name])
				if !same && !slices.Contains([]string{row.field, "updated_at", "status", "next_rotation_at"}, name) {
					t.Errorf("%s: %s became %s", row.patch, name, after[name])
				}
			}
		}
		for body, wrong := range map[string][]string{
			`{"name":7,"enabled":null,"scopes":[1],"daily_limit":0,"colour":1}`:                            {"/colour", "/daily_limit", "/enabled", "/name", "/scopes/0"},
			`{"allowed_cidrs":"all","metadata":[],"expires_at":"2020-01-01"}`:                              {"/allowed_cidrs", "/expires_at", "/metadata"},
			`{"rotation_interval_days":1.5,"rotation_webhook_url":7,"rotation_to_secrets_manager":null}`:   {"/rotation_interval_days", "/rotation_to_secrets_manager", "/rotation_webhook_url"},
			`{"rotation_webhook_url":"http://example.com","rate_limit_per_minute":"60","expires_at":true}`: {"/expires_at", "/rate_limit_per_minute", "/rotation_webhook_url"},
		} {
			if got := pointers(want(t, v.ask("PATCH", "/v1/api-keys/"+k.ID.String(), body), 422, apikey.InvalidFields)); !slices.Equal(got, wrong) {
				t.Errorf("%s: %v, want %v", body, got, wrong)
			}
		}
	})
}

func TestTheTrailShowsWhatItsFiltersAskFor(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		k := v.mustCreate(t, v.organization, lifecycle.New{Name: "traced"}).Key
		v.advance(time.Hour)
		since := v.clock().Format(time.RFC3339)
		want(t, v.as(t, "jane", "admin", "PATCH", "/v1/api-keys/"+k.ID.String(), `{"name":"m"}`), 200, "")
		v.advance(time.Hour)
		want(t, v.ask("DELETE", "/v1/api-keys/"+k.ID.String(), ""), 204, "")
		actions := func(query string) (list []string) {
			t.Helper()
			for _, e := range read[[]struct{ Action string }](t, v.ask("GET", "/v1/audit?"+query, "")) {
				list = append(list, e.Action)
			}
			return list
		}
		id := k.ID.String()
		for query, want := range map[string][]string{
			"":                                  {"api_key.revoked", "api_key.updated", "api_key.created", "api_key.created", "organization.created"},
			"key_id=" + id:                      {"api_key.revoked", "api_key.updated", "api_key.created"},
			"key_id=" + k.KeyPrefix:             {"api_key.revoked", "api_key.updated", "api_key.created"},
			"key_id=" + id + "&actor_id=jane":   {"api_key.updated"},
			"action=api_key.created&limit=1":    {"api_key.created"},
			"since=" + since:                    {"api_key.revoked", "api_key.updated"},
			"until=" + since + "&key_id=" + id:  {"api_key.created"},
			"key_id=" + v.manager.Key.KeyPrefix: nil,
			"since=2026-11-23":                  nil,
			"until=2026-11-22&since=2026-11-01": nil,
		} {
			if got := actions(query); !slices.Equal(got, want) {
				t.Errorf("?%s: %v, want %v", query, got, want)
			}
		}
		w := v.ask("GET", "/v1/audit?actor_id=jane&limit=1", "")
		example := `[{"id":"` + read[[]struct{ ID string }](t, w)[0].ID + `","organization_id":"` + v.organization + `","at":"TIME","action":"api_key.updated","actor":{"kind":"user","id":"jane"},` +
			`"address":"192.0.2.1","request_id":"` + read[[]struct {
			ID string `json:"request_id"`
		}](t, w)[0].ID + `","key_id":"` + id + `","changes":[{"field":"name","from":"traced","to":"m"}]}]`
		spelt(t, w, 200, example)

		at, err := url.Parse("/v1/audit?limit=2")
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for pages := 0; at != nil && pages < 9; pages++ {
			w := v.ask("GET", at.String(), "")
			seen += len(read[[]json.RawMessage](t, w))
			at = follow(t, at, w.Header().Get("Link"))
		}
		if seen != 5 {
			t.Errorf("the pages have %d entries", seen)
		}
	})
}

func TestTheTrailTakesOnlyWellFormedFilters(t *testing.T) {
	d := newDoor(t)
	for query, wrong := range map[string]string{
		"key_id=17": "/key_id", "key_id=": "/key_id", "actor_id=": "/actor_id", "actor_id=a%23": "/actor_id", "action=": "/action", "action=api_key.eaten": "/action",
		"since=": "/since", "since=yesterday": "/since", "since=1969-01-01": "/since", "until=2026-13-01": "/until", "until=1": "/until", "limit=0": "/limit", "limit=1001": "/limit",
		"cursor=": "/cursor", "cursor=nonsense": "/cursor", "order=asc": "/order",
	} {
		if got := pointers(want(t, d.do("GET", "/v1/audit?"+query, ""), 422, apikey.InvalidFields)); !slices.Equal(got, []string{wrong}) {
			t.Errorf("?%s: %v, want %s", query, got, wrong)
		}
	}
	want(t, d.do("GET", "/v1/audit?since=2026-11-22T10:00:00%2B02:00&until=2026-11-23&limit=1000", ""), 200, "")
}

func TestTheChainIsReadInPagesOfItsOrder(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		if w := v.ask("GET", "/v1/audit/chain", ""); strings.TrimSpace(w.Body.String()) != "[]" || w.Header().Get("Link") != "" {
			t.Errorf("before the first link: %s", w.Body)
		}
		v.mustCreate(t, v.organization, lifecycle.New{Name: "linked"})
		entries, _, err := v.store.Entries(t.Context(), lifecycle.EntryQuery{OrganizationID: v.organization, Limit: 10})
		if err != nil || len(entries) != 3 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		slices.Reverse(entries)
		linked, err := v.store.Append(t.Context(), v.organization, entries)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]audit.Link, len(linked))
		for i := range linked {
			want[i] = linked[i].Link
		}
		for _, limit := range []string{"1", "2", "3"} {
			var all []audit.Link
			for at, err := url.Parse("/v1/audit/chain?limit=" + limit); at != nil; {
				if err != nil || len(all) > len(want) {
					t.Fatal(len(all), err)
				}
				w := v.ask("GET", at.String(), "")
				all = append(all, read[[]audit.Link](t, w)...)
				at = follow(t, at, w.Header().Get("Link"))
			}
			if !slices.Equal(all, want) {
				t.Errorf("by %s the chain is %v, want %v", limit, all, want)
			}
		}
		spelt(t, v.ask("GET", "/v1/audit/chain?after=1&limit=1", ""), 200, fmt.Sprintf(`[{"organization_id":%q,"sequence":2,"entry_id":%q,"previous":%q,"hash":%q}]`,
			v.organization, entries[1].ID, want[0].Hash, want[1].Hash))
		if w := v.ask("GET", "/v1/audit/chain?after=9223372036854775807", ""); strings.TrimSpace(w.Body.String()) != "[]" {
			t.Errorf("behind the end: %s", w.Body)
		}
	})
}

func TestTheChainTakesOnlyWholeNumbers(t *testing.T) {
	d := newDoor(t)
	for query, wrong := range map[string]string{"after=-1": "/after", "after=x": "/after", "after=": "/after", "after=9223372036854775808": "/after",
		"after=01": "/after", "limit=0": "/limit", "limit=1001": "/limit"} {
		if got := pointers(want(t, d.do("GET", "/v1/audit/chain?"+query, ""), 422, apikey.InvalidFields)); !slices.Equal(got, []string{wrong}) {
			t.Errorf("?%s: %v, want %s", query, got, wrong)
		}
	}
}

func TestOperatorsPlaceAnOrganization(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		id := v.organization
		set := func(body string) lifecycle.Standing {
			t.Helper()
			w := v.do("PUT", "/v1/organizations/"+id, body)
			want(t, w, 200, "")
			if shown := v.do("GET", "/v1/organizations/"+id, ""); shown.Body.String() != w.Body.String() {
				t.Errorf("set to %s, shown as %s", w.Body, shown.Body)
			}
			return read[lifecycle.Standing](t, v.ask("GET", "/v1/organization", ""))
		}
		if o := set(`{}`); o.Plan != "enterprise" || o.KeyLimit != nil || o.ActiveKeys != 1 || o.DefaultRateLimitPerMinute != 60 || !slices.Equal(o.AllowedScopes, []string{"orders:*"}) || o.CreatedAt == nil {
			t.Errorf("the organization is %+v", o)
		}
		if o := set(`{"plan":"starter"}`); o.Plan != "starter" || *o.KeyLimit != 3 || *o.HighestRateLimitPerMinute != 600 || !slices.Equal(o.AllowedScopes, []string{"orders:*"}) {
			t.Errorf("the organization is %+v", o)
		}
		if o := set(`{"allowed_scopes":[]}`); o.Plan != "starter" || len(o.AllowedScopes) > 0 {
			t.Errorf("the organization is %+v", o)
		}
		want(t, v.ask("POST", "/v1/api-keys", `{"project_id":"shop","name":"n","scopes":["orders:read"]}`), 403, apikey.ScopeNotAllowed)
		if o := set(`{"plan":null,"allowed_scopes":null}`); o.Plan != "free" || *o.KeyLimit != 0 || len(o.AllowedScopes) > 0 {
			t.Errorf("the organization is %+v", o)
		}
		want(t, v.ask("POST", "/v1/api-keys", `{"project_id":"shop","name":"n"}`), 403, apikey.PlanRefused)
	})
}

// A viewer's list by maker is what a member's own list is.
func TestAListByItsMaker(t *testing.T) {
	d := newDoor(t)
	want(t, d.send(request("POST", "/v1/api-keys", d.person(t, "acme", "jane", "member"), `{"project_id":"shop","name":"n"}`)), 201, "")
	for query, n := range map[string]int{"created_by=jane": 1, "created_by=joe": 0, "created_by=operator": 1, "": 2} {
		if list := read[[]apikey.Key](t, d.send(request("GET", "/v1/api-keys?"+query, d.person(t, "acme", "joe", "viewer"), ""))); len(list) != n {
			t.Errorf("?%s has %d keys, want %d", query, len(list), n)
		}
	}
	if got := pointers(want(t, d.do("GET", "/v1/api-keys?created_by=", ""), 422, apikey.InvalidFields)); !slices.Equal(got, []string{"/created_by"}) {
		t.Errorf("got %v", got)
	}
}

// The Link is relative and keeps the filters, so that whoever follows it sees each key once.
func TestPagingKeepsTheFiltersAndShowsEachKeyOnce(t *testing.T) {
	d := newDoor(t)
	for i := range 25 {
		d.mustCreate(t, "acme", lifecycle.New{ProjectID: "paged", Name: fmt.Sprintf("ab & c %d", i)})
		d.mustCreate(t, "acme", lifecycle.New{ProjectID: "else", Name: "ab & c"})
		d.mustCreate(t, "other", lifecycle.New{ProjectID: "paged", Name: "ab & c"})
		d.advance(time.Second)
	}
	base, err := url.Parse("/prod/v1/api-keys?project_id=paged&name=ab+%26+c&limit=10")
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	seen := map[apikey.ID]bool{}
	for at := base; at != nil; {
		w := d.do("GET", strings.TrimPrefix(at.String(), "/prod"), "")
		want(t, w, 200, "")
		keys := read[[]apikey.Key](t, w)
		for _, k := range keys {
			if seen[k.ID] || k.ProjectID != "paged" || k.OrganizationID != "acme" {
				t.Errorf("%s of %s in %s: seen %v", k.ID, k.OrganizationID, k.ProjectID, seen[k.ID])
			}
			seen[k.ID] = true
		}
		sizes = append(sizes, len(keys))
		at = follow(t, at, w.Header().Get("Link"))
	}
	if !slices.Equal(sizes, []int{10, 10, 5}) || len(seen) != 25 {
		t.Errorf("pages of %v with %d keys", sizes, len(seen))
	}
	if w := d.do("GET", "/v1/api-keys?project_id=none", ""); w.Body.String() != "[]\n" {
		t.Errorf("no keys are %s", w.Body)
	}
}

func follow(t *testing.T, from *url.URL, link string) *url.URL {
	t.Helper()
	if link == "" {
		return nil
	}
	target, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if !ok || !strings.HasPrefix(target, "?") {
		t.Fatalf("the link is %s", link)
	}
	next, err := from.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestAListTakesOnlyWellFormedFilters(t *testing.T) {
	d := newDoor(t)
	for query, wrong := range map[string][]string{
		"limit=1": nil, "limit=1000": nil, "stale_days=30": nil, "include_revoked=true&include_archived=false": nil, "": nil, "&": nil,
		"name=%C3%A4": nil, "environment_id=live&external_id=customer@7": nil,
		"limit=0": {"/limit"}, "limit=1001": {"/limit"}, "limit=": {"/limit"}, "limit=ten": {"/limit"}, "limit=+1": {"/limit"},
		"limit=01": {"/limit"}, "limit=1;x=2": {"/limit"}, "limit=99999999999999999999": {"/limit"},
		"limit=1&limit=1": {"/limit"}, "limit": {"/limit"}, "Limit=1": {"/Limit"},
		"stale_days=0": {"/stale_days"}, "stale_days=3651": {"/stale_days"},
		"include_revoked=1": {"/include_revoked"}, "include_archived=TRUE": {"/include_archived"},
		"project_id=": {"/project_id"}, "project_id=a%23b": {"/project_id"}, "external_id=a%00": {"/external_id"},
		"environment_id=" + strings.Repeat("a", 129): {"/environment_id"},
		"name=": {"/name"}, "name=%ff": {"/name"}, "name=%zz": {"/name"}, "name=" + strings.Repeat("a", 201): {"/name"},
		"cursor=": {"/cursor"}, "cursor=nonsense": {"/cursor"}, "cursor=%zz": {"/cursor"},
		"colour=red&a%2Fb~=1&limit=0": {"/a~1b~0", "/colour", "/limit"}, "%zz=1": {"/%zz"}, "%ff=1": {"/%ff"},
	} {
		w := d.do("GET", "/v1/api-keys?"+query, "")
		if wrong == nil {
			want(t, w, 200, "")
			continue
		}
		if got := pointers(want(t, w, 422, apikey.InvalidFields)); !slices.Equal(got, wrong) {
			t.Errorf("?%s: %v, want %v", query, got, wrong)
		}
	}
}

func TestAListHasWhatItsFiltersAskFor(t *testing.T) {
	d := newDoor(t)
	revoked := d.mustCreate(t, "acme", lifecycle.New{Name: "gone"})
	want(t, d.do("DELETE", "/v1/api-keys/"+revoked.Key.ID.String(), ""), 204, "")
	d.mustCreate(t, "acme", lifecycle.New{Name: "tested", EnvironmentID: new("test-1"), ExternalID: new("customer")})
	for query, want := range map[string][]string{
		"": {"manager", "tested"}, "include_revoked=true": {"gone", "manager", "tested"}, "environment_id=test-1": {"tested"},
		"external_id=customer": {"tested"}, "name=te": {"tested"}, "name=x": nil, "stale_days=1": nil,
	} {
		var got []string
		for _, k := range read[[]apikey.Key](t, d.do("GET", "/v1/api-keys?"+query, "")) {
			got = append(got, k.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("?%s has %v, want %v", query, got, want)
		}
	}
}
