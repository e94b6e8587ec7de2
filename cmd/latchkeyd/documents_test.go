package main_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// Each shape keeps the fields, types, texts and codes of an API that teams have clients for. These walks make the calls that
// the API's document shows, and no others. With LATCHKEY_READY=path they walk through the service that wrote that ready
// file too.

func TestTheClientsOfEachDocumentedSystemAreAnsweredToTheLetter(t *testing.T) {
	walks := map[string]func(*testing.T, *keytest.Daemon){"keys": walkKeys, "envelope": walkEnvelope, "organizations": walkOrganizations}
	all := func(t *testing.T, d *keytest.Daemon) {
		for name, walk := range walks {
			t.Run(name, func(t *testing.T) { walk(t, d) })
		}
	}
	onBothStores(t, all)
	if path := os.Getenv("LATCHKEY_READY"); path != "" {
		t.Run("attached", func(t *testing.T) { all(t, keytest.Attach(t, path)) })
	}
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// walkKeys: /v1/keys, ids are UUIDs, a revoked key stays listed as not enabled.
func walkKeys(t *testing.T, d *keytest.Daemon) {
	shown := map[string]string{"id": "string", "name": "string", "key_prefix": "string", "rate_limit_per_minute": "number", "enabled": "bool",
		"created_at": "time", "expires_at": "time null"}
	manager := d.Create(map[string]any{"scopes": []string{"keys:read", "keys:write"}}) // in that system keys manage keys
	created := want(t, d.Call("POST", "/v1/keys", manager.Plaintext, map[string]any{"name": "Staging", "rate_limit_per_minute": 30}), http.StatusCreated)
	only(t, created, map[string]string{"key": "object", "raw_key": "string", "warning": "string"})
	key, raw := created["key"].(map[string]any), created["raw_key"].(string)
	only(t, key, shown)
	id := key["id"].(string)
	if created["warning"] != "Store this key securely. It cannot be retrieved again." || key["name"] != "Staging" || key["rate_limit_per_minute"] != 30.0 ||
		key["enabled"] != true || key["expires_at"] != nil || !strings.HasPrefix(raw, key["key_prefix"].(string)) || !uuid.MatchString(id) {
		t.Errorf("created %v", key)
	}
	plain := want(t, d.Call("POST", "/v1/keys", manager.Plaintext, map[string]any{"name": "Production", "expires_at": "2100-01-10T08:00:00Z"}), http.StatusCreated)
	if k := plain["key"].(map[string]any); k["rate_limit_per_minute"] != 60.0 || k["expires_at"] != "2100-01-10T08:00:00Z" {
		t.Errorf("with the defaults: %v", k)
	}

	shown["last_used_at"] = "time null"
	listedKey := func() map[string]any {
		list := want(t, d.Call("GET", "/v1/keys", manager.Plaintext, nil), http.StatusOK)
		only(t, list, map[string]string{"keys": "list"})
		return find(t, list["keys"], "id", id)
	}
	only(t, listedKey(), shown)
	if status := d.Authorize(raw); status != http.StatusOK || listedKey()["last_used_at"] == nil {
		t.Errorf("in use: %d, last used %v", status, listedKey()["last_used_at"])
	}
	for range 2 {
		gone := d.Call("DELETE", "/v1/keys/"+id, manager.Plaintext, nil)
		if strings.TrimSpace(string(gone.Body)) != `{"revoked":true}` || gone.Status != http.StatusOK {
			t.Errorf("delete: %d %s", gone.Status, gone.Body)
		}
	}
	if status := d.Authorize(raw); status != http.StatusUnauthorized || listedKey()["enabled"] != false {
		t.Errorf("revoked: %d, enabled %v", status, listedKey()["enabled"])
	}
	own := find(t, want(t, d.Call("GET", "/v1/keys", manager.Plaintext, nil), http.StatusOK)["keys"], "key_prefix", manager.Prefix)
	if a := d.Call("DELETE", "/v1/keys/"+own["id"].(string), manager.Plaintext, nil); a.Status != http.StatusConflict {
		t.Errorf("its own key: %d %s", a.Status, a.Body)
	}
}

// walkEnvelope: /envelope/v1/api-keys, people alone, and each their own keys.
func walkEnvelope(t *testing.T, d *keytest.Daemon) {
	const path = "/envelope/v1/api-keys"
	me := d.Token(keytest.Person{User: "ada", Organization: "org_envelope", Role: "member", Plan: "team"})
	other := d.Token(keytest.Person{User: "bob", Organization: "org_envelope", Role: "admin", Plan: "team"})
	data := func(a keytest.Answer, status int) map[string]any {
		body := want(t, a, status)
		only(t, body, map[string]string{"success": "bool", "data": "object"})
		return body["data"].(map[string]any)
	}
	created := data(d.Call("POST", path, me, map[string]any{"name": "CI Pipeline"}), http.StatusCreated)
	only(t, created, map[string]string{"key": "string", "prefix": "string", "name": "string", "createdAt": "time"})
	key, prefix := created["key"].(string), created["prefix"].(string)
	if !strings.HasPrefix(key, prefix) || created["name"] != "CI Pipeline" {
		t.Errorf("created %s, %v", prefix, created["name"])
	}
	list := data(d.Call("GET", path, me, nil), http.StatusOK)
	only(t, list, map[string]string{"keys": "list"})
	only(t, find(t, list["keys"], "prefix", prefix), map[string]string{"prefix": "string", "name": "string", "createdAt": "time", "lastUsedAt": "time null"})
	if theirs := data(d.Call("GET", path, other, nil), http.StatusOK)["keys"].([]any); len(theirs) != 0 {
		t.Errorf("another user is shown %d keys", len(theirs))
	}
	free := d.Token(keytest.Person{User: "eve", Organization: "org_free", Plan: "free", Role: "admin"})
	for name, c := range map[string]struct {
		method, path, bearer string
		status               int
		code                 string
	}{
		"no token":         {"GET", path, "", 401, "Unauthorized"},
		"a bad token":      {"GET", path, me[:len(me)-4] + "AAAA", 401, "Unauthorized"},
		"no credential":    {"DELETE", path + "/" + prefix, "nonsense", 401, "Unauthorized"},
		"a key":            {"GET", path, d.ManagementKey, 403, "Forbidden"},
		"a key creates":    {"POST", path, d.ManagementKey, 403, "Forbidden"},
		"a key revokes":    {"DELETE", path + "/" + prefix, key, 403, "Forbidden"},
		"a free tier":      {"POST", path, free, 403, "Forbidden"},
		"a free tier asks": {"GET", path, free, 403, "Forbidden"},
		"unknown prefix":   {"DELETE", path + "/lk_live_zzzzzzzz", me, 404, "NotFound"},
		"another's prefix": {"DELETE", path + "/" + prefix, other, 404, "NotFound"},
	} {
		var body any
		if c.method == "POST" {
			body = map[string]any{"name": "CI Pipeline"}
		}
		refused := want(t, d.Call(c.method, c.path, c.bearer, body), c.status)
		only(t, refused, map[string]string{"success": "bool", "error": "object"})
		if e, _ := refused["error"].(map[string]any); refused["success"] != false || e["code"] != c.code || e["message"] == "" {
			t.Errorf("%s: %v", name, refused)
		}
	}
	if status := d.Authorize(key); status != http.StatusOK {
		t.Errorf("in use: %d", status)
	}
	if gone := data(d.Call("DELETE", path+"/"+prefix, me, nil), http.StatusOK); len(gone) != 1 || gone["message"] != "API key revoked" {
		t.Errorf("delete: %v", gone)
	}
	if status := d.Authorize(key); status != http.StatusUnauthorized {
		t.Errorf("revoked: %d", status)
	}
}

// walkOrganizations: /organizations/api-keys, ids are numbers, keys are archived and brought back.
func walkOrganizations(t *testing.T, d *keytest.Daemon) {
	const path = "/organizations/api-keys"
	shown := map[string]string{"id": "number", "name": "string", "prefix": "string", "created_at": "time", "last_used_at": "time null"}
	answer := d.Call("POST", path, d.JWT, map[string]any{"name": "Production"})
	created := want(t, answer, http.StatusCreated)
	key, prefix := created["key"].(string), created["prefix"].(string)
	shown["key"] = "string"
	only(t, created, shown)
	delete(shown, "key")
	if created["last_used_at"] != nil || !strings.HasPrefix(key, prefix) {
		t.Errorf("created %v", prefix)
	}
	id := string(regexp.MustCompile(`"id":(\d+)`).FindSubmatch(answer.Body)[1])
	list := func(query string) []any {
		body := want(t, d.Call("GET", path+query, d.JWT, nil), http.StatusOK)
		only(t, body, map[string]string{"api_keys": "list"})
		return body["api_keys"].([]any)
	}
	shown["archived_at"] = "time null"
	only(t, find(t, list(""), "prefix", prefix), shown)
	if status := d.Authorize(key); status != http.StatusOK {
		t.Errorf("in use: %d", status)
	}
	used := find(t, list(""), "prefix", prefix)["last_used_at"]
	for range 2 {
		want(t, d.Call("DELETE", path+"/"+id, d.JWT, nil), http.StatusOK)
	}
	if status := d.Authorize(key); status != http.StatusUnauthorized {
		t.Errorf("archived: %d", status)
	}
	hidden := slices.ContainsFunc(list(""), func(k any) bool { return k.(map[string]any)["prefix"] == prefix })
	archived := find(t, list("?include_archived=true"), "prefix", prefix)
	if hidden || archived["archived_at"] == nil || archived["last_used_at"] != used || used == nil {
		t.Errorf("archived: shown unasked %v, %v, used %v", !hidden, archived, used)
	}
	back := want(t, d.Call("PUT", path+"/"+id+"/reactivate", d.JWT, nil), http.StatusOK)
	if status := d.Authorize(key); status != http.StatusOK || back["archived_at"] != nil {
		t.Errorf("back: %d, %v", status, back)
	}
	if a := d.Call("PUT", path+"/"+id+"/reactivate", d.JWT, nil); a.Status != http.StatusConflict {
		t.Errorf("back again: %d", a.Status)
	}
}

// only checks that the document's fields are there, and no others.
func only(t *testing.T, got map[string]any, want map[string]string) {
	t.Helper()
	fields(t, got, want)
	if len(got) != len(want) {
		t.Errorf("the fields are %v", names(got))
	}
}

// find is the one of a list's objects that has the value.
func find(t *testing.T, list any, name string, value any) map[string]any {
	t.Helper()
	for _, o := range list.([]any) {
		if o := o.(map[string]any); o[name] == value {
			return o
		}
	}
	t.Fatalf("nothing of %d has %s %v", len(list.([]any)), name, value)
	return nil
}
