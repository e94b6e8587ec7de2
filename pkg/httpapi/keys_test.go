package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The walk through the document of the shape at /v1/keys, with its own requests and to the letter of its answers.
func TestTheExamplesAtV1Keys(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		has(t, v.ask("DELETE", "/v1/keys/"+v.key.Key.ID.UUID(), ""), 409)

		created := spelt(t, v.ask("POST", "/v1/keys", `{"name": "Production", "rate_limit_per_minute": 120}`), 201, `{
			"key":{
				"id":"UUID",
				"name":"Production",
				"key_prefix":"PREFIX",
				"rate_limit_per_minute":120,
				"enabled":true,
				"created_at":"TIME",
				"expires_at":null
			},
			"raw_key":"SECRET",
			"warning":"Store this key securely. It cannot be retrieved again."
		}`)
		id, prefix, secret := created[0], created[1], created[3]
		if !strings.HasPrefix(secret, prefix+"_") {
			t.Errorf("the key is %s, its prefix %s", secret, prefix)
		}
		v.advance(time.Second)
		has(t, v.ask("POST", "/v1/keys", `{"name": "Staging", "rate_limit_per_minute": 30}`), 201)
		want(t, v.send(request("GET", "/v1/authorize", secret, "")), 200, "")

		spelt(t, v.ask("GET", "/v1/keys", ""), 200, `{"keys":[
			{"id":"UUID","name":"Staging","key_prefix":"PREFIX","rate_limit_per_minute":30,"enabled":true,"last_used_at":null,"created_at":"TIME","expires_at":null},
			{"id":"UUID","name":"Production","key_prefix":"PREFIX","rate_limit_per_minute":120,"enabled":true,"last_used_at":"TIME","created_at":"TIME","expires_at":null},
			{"id":"UUID","name":"manager","key_prefix":"PREFIX","rate_limit_per_minute":null,"enabled":true,"last_used_at":"TIME","created_at":"TIME","expires_at":null}
		]}`)

		for range 2 {
			spelt(t, v.ask("DELETE", "/v1/keys/"+id, ""), 200, `{"revoked":true}`)
		}
		want(t, v.send(request("GET", "/v1/authorize", secret, "")), 401, apikey.RevokedKey)
		if body := has(t, v.ask("GET", "/v1/keys", ""), 200); !strings.Contains(body, `"rate_limit_per_minute":120,"enabled":false`) {
			t.Errorf("a revoked key is listed as %s", body)
		}
	})
}

func TestADateAtV1KeysIsISO8601(t *testing.T) {
	d := newDoor(t)
	for given, shown := range map[string]string{
		`"2027-01-15"`: `"2027-01-15T00:00:00Z"`, `"2027-01-15T10:00:00Z"`: `"2027-01-15T10:00:00Z"`, `"2027-01-15T10:00:00"`: `"2027-01-15T10:00:00Z"`,
		`"2027-01-15T10:00"`: `"2027-01-15T10:00:00Z"`, `"2027-01-15T10:00:00.25"`: `"2027-01-15T10:00:00.25Z"`, `"2027-01-15T12:00:00+02:00"`: `"2027-01-15T10:00:00Z"`,
		`"2027-01-15T12:00:00.000+0200"`: `"2027-01-15T10:00:00Z"`, `"2027-01-15T10:00Z"`: `"2027-01-15T10:00:00Z"`, `null`: `null`,
	} {
		if body := has(t, d.do("POST", "/v1/keys", `{"name":"n","expires_at":`+given+`}`), 201); !strings.Contains(body, `"expires_at":`+shown+"}") {
			t.Errorf("%s is %s", given, body)
		}
	}
	for _, given := range []string{`"2027-02-30"`, `"tomorrow"`, `1800000000`, `""`, `"2026-11-22T10:00:30"`, `"20270115"`, `"2027-01-15 10:00:00"`, `{}`} {
		w := d.do("POST", "/v1/keys", `{"name":"n","expires_at":`+given+`}`)
		if problem := want(t, w, 422, apikey.InvalidFields); len(problem.Fields) != 1 || problem.Fields[0].Pointer != "/expires_at" {
			t.Errorf("%s: %s", given, w.Body)
		}
	}
}

func TestALimitAtV1KeysIsANumber(t *testing.T) {
	d := newDoor(t)
	if body := has(t, d.do("POST", "/v1/keys", `{"name":"n"}`), 201); !strings.Contains(body, `"rate_limit_per_minute":60,`) {
		t.Errorf("the default is %s", body)
	}
	for _, given := range []string{"0", "-1", `"60"`, "1.5", "null", "1000000001"} {
		want(t, d.do("POST", "/v1/keys", `{"name":"n","rate_limit_per_minute":`+given+`}`), 422, apikey.InvalidFields)
	}
}

// Keys that were ended in any way stay listed as not enabled; one that has expired is told by its expires_at.
func TestEndedKeysStayListedAtV1Keys(t *testing.T) {
	d := newDoor(t)
	for verb, path := range map[string]string{"revoked": "", "archived": "/archive"} {
		k := d.mustCreate(t, "acme", lifecycle.New{Name: verb}).Key
		if method := map[string]string{"": "DELETE", "/archive": "POST"}[path]; d.do(method, "/v1/api-keys/"+k.ID.String()+path, "").Code >= 300 {
			t.Fatal(verb)
		}
	}
	disabled := d.mustCreate(t, "acme", lifecycle.New{Name: "disabled"}).Key
	has(t, d.do("PATCH", "/v1/api-keys/"+disabled.ID.String(), `{"enabled":false}`), 200)
	type listed struct {
		Name    string
		Enabled bool
	}
	list := read[map[string][]listed](t, d.do("GET", "/v1/keys", ""))["keys"]
	if len(list) != 4 {
		t.Fatalf("the list is %v", list)
	}
	for _, k := range list {
		if k.Enabled != (k.Name == "manager") {
			t.Errorf("%s is enabled: %v", k.Name, k.Enabled)
		}
	}
}

// In that system keys manage keys: the setting gives those made there what their maker holds of it, and no more.
func TestAKeyMadeAtV1KeysMayDoWhatTheSettingAndItsMakerAllow(t *testing.T) {
	d := newDoor(t)
	d.KeysShapeScopes = []string{"keys:read", "keys:write", "keys:verify"}
	scopes := func(bearer string) string {
		t.Helper()
		secret := read[map[string]any](t, d.send(request("POST", "/v1/keys", bearer, `{"name":"n"}`)))["raw_key"].(string)
		return strings.Join(read[apikey.Key](t, d.send(request("GET", "/v1/api-keys/me", secret, ""))).Scopes, " ")
	}
	for who, row := range map[string]struct{ bearer, scopes string }{
		"a key that holds all":  {d.manager.Plaintext.Reveal(), "keys:read keys:verify keys:write"},
		"a key that holds some": {d.with(t, "keys:write", "audit:read"), "keys:write"},
		"an admin":              {d.person(t, "acme", "jane", "admin"), "keys:read keys:verify keys:write"},
		"a member":              {d.person(t, "acme", "joe", "member"), ""},
	} {
		if got := scopes(row.bearer); got != row.scopes {
			t.Errorf("%s makes a key with %q, want %q", who, got, row.scopes)
		}
	}
	d.KeysShapeScopes = nil
	if got := scopes(d.manager.Plaintext.Reveal()); got != "" {
		t.Errorf("without the setting a key has %q", got)
	}
}
