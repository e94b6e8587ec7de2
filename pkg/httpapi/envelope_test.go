package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

// envelopeCode demands a refusal in its envelope, with its message and nothing else, and gives its code.
func envelopeCode(t testing.TB, w *httptest.ResponseRecorder, status int) string {
	t.Helper()
	body := has(t, w, status)
	var e struct {
		Success *bool
		Error   map[string]string
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || e.Success == nil || *e.Success || len(e.Error) != 2 || e.Error["message"] == "" {
		t.Fatalf("%v in %s", err, body)
	}
	h := w.Header()
	if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || len(h.Get("X-Request-Id")) != 30 || status == 401 && h.Get("WWW-Authenticate") == "" {
		t.Errorf("%s has the headers %v", body, h)
	}
	return e.Error["code"]
}

// createdPrefix is the prefix of a key that was just made.
func createdPrefix(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	has(t, w, 201)
	return read[struct{ Data struct{ Prefix string } }](t, w).Data.Prefix
}

// The walk through the document of the shape at /envelope, with its own request, by a person.
func TestTheExamplesInEnvelopes(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		jane := func(method, target, body string) *httptest.ResponseRecorder {
			return v.as(t, "jane", "admin", method, "/envelope"+target, body)
		}
		spelt(t, jane("GET", "/v1/api-keys", ""), 200, `{"success":true,"data":{"keys":[]}}`)
		created := spelt(t, jane("POST", "/v1/api-keys", `{"name": "CI Pipeline"}`), 201,
			`{"success":true,"data":{"key":"SECRET","prefix":"PREFIX","name":"CI Pipeline","createdAt":"TIME"}}`)
		secret, prefix := created[0], created[1]
		spelt(t, jane("GET", "/v1/api-keys", ""), 200,
			`{"success":true,"data":{"keys":[{"prefix":"PREFIX","name":"CI Pipeline","createdAt":"TIME","lastUsedAt":null}]}}`)
		want(t, v.send(request("GET", "/v1/authorize", secret, "")), 200, "")
		spelt(t, jane("GET", "/v1/api-keys", ""), 200,
			`{"success":true,"data":{"keys":[{"prefix":"PREFIX","name":"CI Pipeline","createdAt":"TIME","lastUsedAt":"TIME"}]}}`)
		for range 2 {
			spelt(t, jane("DELETE", "/v1/api-keys/"+prefix, ""), 200, `{"success":true,"data":{"message":"API key revoked"}}`)
		}
		want(t, v.send(request("GET", "/v1/authorize", secret, "")), 401, apikey.RevokedKey)
		spelt(t, jane("GET", "/v1/api-keys", ""), 200, `{"success":true,"data":{"keys":[]}}`)

		if code := envelopeCode(t, v.ask("GET", "/envelope/v1/api-keys", ""), 403); code != "Forbidden" {
			t.Errorf("a key is refused as %s", code)
		}
		if code := envelopeCode(t, jane("DELETE", "/v1/api-keys/csk_live_a1b2c3d4", ""), 404); code != "NotFound" {
			t.Errorf("an unknown prefix is %s", code)
		}
	})
}

// "The current user" is whoever signed in, also where a role reaches further elsewhere.
func TestInEnvelopesEverybodyHasTheirOwnKeysAlone(t *testing.T) {
	d := newDoor(t)
	create := func(user, role string) string {
		t.Helper()
		return createdPrefix(t, d.send(request("POST", "/envelope/v1/api-keys", d.person(t, "acme", user, role), `{"name":"n"}`)))
	}
	janes, joes := create("jane", "admin"), create("joe", "member")
	for user, row := range map[string]struct{ role, own, others string }{
		"jane": {"admin", janes, joes}, "joe": {"member", joes, janes},
	} {
		as := d.person(t, "acme", user, row.role)
		body := has(t, d.send(request("GET", "/envelope/v1/api-keys", as, "")), 200)
		if !strings.Contains(body, row.own) || strings.Contains(body, row.others) || strings.Contains(body, d.manager.Key.KeyPrefix) {
			t.Errorf("%s sees %s", user, body)
		}
		if code := envelopeCode(t, d.send(request("DELETE", "/envelope/v1/api-keys/"+row.others, as, "")), 404); code != "NotFound" {
			t.Errorf("%s is told %s", user, code)
		}
	}
	viewer := d.person(t, "acme", "jane", "viewer") // jane, with less
	has(t, d.send(request("GET", "/envelope/v1/api-keys", viewer, "")), 200)
	for _, r := range [][3]string{{"POST", "", `{"name":"n"}`}, {"DELETE", "/" + janes, ""}} {
		if code := envelopeCode(t, d.send(request(r[0], "/envelope/v1/api-keys"+r[1], viewer, r[2])), 403); code != "Forbidden" {
			t.Errorf("a viewer's %s is %s", r[0], code)
		}
	}
	want(t, d.do("POST", "/v1/api-keys/"+janes+"/archive", ""), 200, "")
	if body := has(t, d.send(request("GET", "/envelope/v1/api-keys", d.person(t, "acme", "jane", "admin"), "")), 200); strings.Contains(body, janes) {
		t.Errorf("an archived key is listed: %s", body)
	}
}

// A tier without keys is refused everything, except to end a key that it still has: a leak must always be answerable.
func TestInEnvelopesATierWithoutKeysIsForbidden(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		admin := func(method, target, body string) *httptest.ResponseRecorder {
			return v.as(t, "jane", "admin", method, "/envelope/v1/api-keys"+target, body)
		}
		prefix := createdPrefix(t, admin("POST", "", `{"name":"n"}`))
		has(t, v.do("PUT", "/v1/organizations/"+v.organization, `{"plan":"free"}`), 200)
		for _, r := range [][3]string{{"POST", "", `{"name":"n"}`}, {"GET", "", ""}, {"DELETE", "/csk_live_a1b2c3d4", ""}, {"DELETE", "/key_00000001", ""},
			{"DELETE", "/" + v.key.Key.KeyPrefix, ""}, {"DELETE", "/" + strings.Replace(prefix, "live", "test", 1), ""}} {
			if code := envelopeCode(t, admin(r[0], r[1], r[2]), 403); code != "Forbidden" {
				t.Errorf("%s %s is %s", r[0], r[1], code)
			}
		}
		has(t, admin("DELETE", "/"+prefix, ""), 200)

		nobodys := v.token(t, map[string]any{"sub": "personal-" + v.organization}) // an organization of their own, of which nothing is stored
		for plan, status := range map[any]int{"free": 403, "personal": 403, "pro": 200, nil: 403} {
			token := nobodys
			if plan != nil {
				token = v.token(t, map[string]any{"sub": "personal-" + v.organization, "plan": plan})
			}
			if w := v.send(request("GET", "/envelope/v1/api-keys", token, "")); w.Code != status {
				t.Errorf("the plan %v is answered %d %s", plan, w.Code, w.Body)
			}
		}
	})
}

// Every refusal below the base path stands in the envelope, and says in its message what the problem's fields would.
func TestEveryRefusalBelowTheEnvelopeStandsInIt(t *testing.T) {
	d := newDoor(t)
	jane := d.person(t, "acme", "jane", "admin")
	send := func(bearer, method, target, body string) *httptest.ResponseRecorder {
		return d.send(request(method, "/envelope"+target, bearer, body))
	}
	plain := request("POST", "/envelope/v1/api-keys", jane, `{"name":"n"}`)
	plain.Header.Set("Content-Type", "text/plain")
	for _, row := range []struct {
		guarantee string
		answer    *httptest.ResponseRecorder
		status    int
		code      string
	}{
		{"no token", send("", "GET", "/v1/api-keys", ""), 401, "Unauthorized"},
		{"a bad token", send("a.b.c", "GET", "/v1/api-keys", ""), 401, "Unauthorized"},
		{"nonsense", send("nonsense", "GET", "/v1/api-keys", ""), 401, "Unauthorized"},
		{"a key cut short", send(d.manager.Plaintext.Reveal()[:40], "GET", "/v1/api-keys", ""), 401, "Unauthorized"},
		{"a key", send(d.manager.Plaintext.Reveal(), "POST", "/v1/api-keys", `{"name":"n"}`), 403, "Forbidden"},
		{"a key of nobody", send(newDoor(t).manager.Plaintext.Reveal(), "DELETE", "/v1/api-keys/"+d.manager.Key.KeyPrefix, ""), 403, "Forbidden"},
		{"an unknown prefix", send(jane, "DELETE", "/v1/api-keys/lk_live_00000001", ""), 404, "NotFound"},
		{"an unknown route", send(jane, "GET", "/v1/api-keys/a/b", ""), 404, "NotFound"},
		{"the base path", send("", "GET", "", ""), 404, "NotFound"},
		{"a path that ServeMux would clean", send(jane, "GET", "/v1/../v1/api-keys", ""), 404, "NotFound"},
		{"another method", send(jane, "PUT", "/v1/api-keys", ""), 405, "MethodNotAllowed"},
		{"a body that is too large", send(jane, "POST", "/v1/api-keys", strings.Repeat(" ", 70000)), 413, "PayloadTooLarge"},
		{"another type", d.send(plain), 415, "UnsupportedMediaType"},
		{"no JSON", send(jane, "POST", "/v1/api-keys", "{"), 400, "BadRequest"},
		{"invalid fields", send(jane, "POST", "/v1/api-keys", `{"colour":"red"}`), 422, "ValidationError"},
	} {
		if code := envelopeCode(t, row.answer, row.status); code != row.code {
			t.Errorf("%s: %s, want %s", row.guarantee, code, row.code)
		}
	}
	if body := has(t, send(jane, "POST", "/v1/api-keys", `{"colour":"red"}`), 422); !strings.Contains(body, `"Some fields are invalid: name is required; colour is no member of this body."`) {
		t.Errorf("the message of invalid fields is %s", body)
	}
	d.Keys.Store = deaf{d.store}
	if code := envelopeCode(t, send(jane, "DELETE", "/v1/api-keys/lk_live_00000001", ""), 503); code != "ServiceUnavailable" {
		t.Errorf("a store that does not answer is %s", code)
	}
	d.Keys.Store = unwell{d.store, "x"}
	if code := envelopeCode(t, send(jane, "DELETE", "/v1/api-keys/lk_live_00000001", ""), 500); code != "InternalError" {
		t.Errorf("a panic is %s", code)
	}
}

// A key is refused by its form: no store is asked.
func TestInEnvelopesAKeyIsRefusedWithoutACall(t *testing.T) {
	d := newDoor(t)
	d.Keys.Store, d.Verifier.Store = nil, nil
	if code := envelopeCode(t, d.send(request("GET", "/envelope/v1/api-keys", d.manager.Plaintext.Reveal(), "")), 403); code != "Forbidden" {
		t.Errorf("got %s", code)
	}
}

// Whatever code the service has, its status has a name in the envelope.
func TestEveryCodeHasANameInTheEnvelope(t *testing.T) {
	d := newDoor(t)
	for _, code := range codes(t) {
		if code == apikey.Valid {
			continue
		}
		d.People = func(context.Context, string) (caller.Caller, error) {
			return caller.Caller{}, apikey.Errorf(code, "refused")
		}
		if name := envelopeCode(t, d.send(request("GET", "/envelope/v1/api-keys", "a.b.c", "")), code.Status()); name == "" {
			t.Errorf("%s has no name", code)
		}
	}
}
