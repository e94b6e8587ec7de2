package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// The walk through the document of the shape at /organizations/api-keys.
func TestTheExamplesAtOrganizations(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		const listed = `{"id":NUMBER,"name":"Production","prefix":"PREFIX","created_at":"TIME","last_used_at":null,"archived_at":null}`
		const manager = `{"id":NUMBER,"name":"manager","prefix":"PREFIX","created_at":"TIME","last_used_at":"TIME","archived_at":null}`
		created := spelt(t, v.ask("POST", "/organizations/api-keys", `{ "name": "Production" }`), 201, `{
			"id":NUMBER,
			"name":"Production",
			"prefix":"PREFIX",
			"key":"SECRET",
			"created_at":"TIME",
			"last_used_at":null
		}`)
		id, secret := created[0], created[2]
		spelt(t, v.ask("GET", "/organizations/api-keys", ""), 200, `{"api_keys":[`+listed+`,`+manager+`]}`)

		for range 2 {
			spelt(t, v.ask("DELETE", "/organizations/api-keys/"+id, ""), 200, strings.Replace(listed, `"archived_at":null`, `"archived_at":"TIME"`, 1))
		}
		want(t, v.send(request("GET", "/v1/authorize", secret, "")), 401, apikey.ArchivedKey)
		spelt(t, v.ask("GET", "/organizations/api-keys", ""), 200, `{"api_keys":[`+manager+`]}`)
		spelt(t, v.ask("GET", "/organizations/api-keys?include_archived=false", ""), 200, `{"api_keys":[`+manager+`]}`)
		spelt(t, v.ask("GET", "/organizations/api-keys?include_archived=true", ""), 200,
			`{"api_keys":[`+strings.Replace(listed, `"archived_at":null`, `"archived_at":"TIME"`, 1)+`,`+manager+`]}`)

		spelt(t, v.ask("PUT", "/organizations/api-keys/"+id+"/reactivate", ""), 200, listed)
		want(t, v.send(request("GET", "/v1/authorize", secret, "")), 200, "")
		want(t, v.ask("PUT", "/organizations/api-keys/"+id+"/reactivate", ""), 409, apikey.WrongState)
		want(t, v.ask("DELETE", "/organizations/api-keys/"+v.key.Key.ID.String(), ""), 409, apikey.OwnKey)
	})
}

// That document's best practices: stale keys are found by last_used_at, which an archive keeps.
func TestTheLastUseOutlivesArchiveAndBack(t *testing.T) {
	d := newDoor(t)
	created := read[map[string]any](t, d.do("POST", "/organizations/api-keys", `{"name":"n8n Production"}`))
	want(t, d.send(request("GET", "/v1/authorize", created["key"].(string), "")), 200, "")
	used := d.clock().Format(time.RFC3339)
	d.advance(31 * 24 * time.Hour)
	address := "/organizations/api-keys/" + created["prefix"].(string)
	for _, w := range []string{has(t, d.do("DELETE", address, ""), 200), has(t, d.do("PUT", address+"/reactivate", ""), 200)} {
		if !strings.Contains(w, `"last_used_at":"`+used+`"`) {
			t.Errorf("the last use at %s became %s", used, w)
		}
	}
	if list := read[[]apikey.Key](t, d.do("GET", "/v1/api-keys?stale_days=30", "")); len(list) != 1 || list[0].Name != "n8n Production" {
		t.Errorf("stale are %+v", list)
	}
	want(t, d.do("GET", "/organizations/api-keys?include_archived=1", ""), 422, apikey.InvalidFields)
}

func TestARevokedKeyIsGoneAtOrganizations(t *testing.T) {
	d := newDoor(t)
	created := read[map[string]any](t, d.do("POST", "/organizations/api-keys", `{"name":"n"}`))
	prefix := created["prefix"].(string)
	want(t, d.do("DELETE", "/v1/api-keys/"+prefix, ""), 204, "")
	if body := has(t, d.do("GET", "/organizations/api-keys?include_archived=true", ""), 200); strings.Contains(body, prefix) {
		t.Errorf("it is listed: %s", body)
	}
	want(t, d.do("DELETE", "/organizations/api-keys/"+prefix, ""), 409, apikey.WrongState)
	want(t, d.do("PUT", "/organizations/api-keys/"+prefix+"/reactivate", ""), 409, apikey.WrongState)
}
