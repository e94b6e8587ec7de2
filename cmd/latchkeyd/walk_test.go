package main_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// The native shape keeps the four calls, field for field, of an API for project keys that teams have clients for: create,
// list, rotate, revoke. The walk makes these calls as that API documents them, then does what its users do with the keys. With LATCHKEY_READY=path it walks through the service that wrote that ready file too.
func TestTheFourDocumentedCallsForProjectKeysAreAnsweredToTheLetter(t *testing.T) {
	onBothStores(t, walk)
	if path := os.Getenv("LATCHKEY_READY"); path != "" {
		t.Run("attached", func(t *testing.T) { walk(t, keytest.Attach(t, path)) })
	}
}

// listed are the fields of a key in the document, with the JSON types they may have.
var listed = map[string]string{
	"id": "string", "project_id": "string", "name": "string", "key_prefix": "string", "scopes": "list",
	"expires_at": "time null", "last_used_at": "time null", "created_at": "time", "revoked_at": "time null",
	"replaced_by_key_id": "string null", "grace_expires_at": "time null", "environment_id": "string null",
	"rotation_interval_days": "number null", "next_rotation_at": "time null", "rotation_webhook_url": "string null",
}

// rotated are the fields of the document's answer to a rotation: those and no others.
var rotated = map[string]string{
	"old_key_id": "string", "new_key_id": "string", "project_id": "string", "name": "string", "key": "string",
	"key_prefix": "string", "scopes": "list", "expires_at": "time null", "created_at": "time", "grace_expires_at": "time null",
}

func walk(t *testing.T, d *keytest.Daemon) {
	admin := d.ManagementKey
	created := want(t, d.Call("POST", "/v1/api-keys", admin, map[string]any{"project_id": "string", "name": "string"}), http.StatusCreated)
	fields(t, created, listed)
	id, key := created["id"].(string), created["key"].(string)
	if !strings.HasPrefix(key, created["key_prefix"].(string)+"_") {
		t.Errorf("the key does not begin with its prefix")
	}

	list := d.Call("GET", "/v1/api-keys?project_id=string", admin, nil)
	var keys []map[string]any
	list.Into(t, &keys)
	if list.Status != http.StatusOK || len(keys) == 0 || keys[0]["id"] != id {
		t.Fatalf("list: %d, %d keys", list.Status, len(keys))
	}
	fields(t, keys[0], listed)
	if _, shown := keys[0]["key"]; shown {
		t.Error("a list shows a key")
	}

	if status := d.Authorize(key); status != http.StatusOK {
		t.Errorf("a new key gets %d", status)
	}
	successor := want(t, d.Call("POST", "/v1/api-keys/"+id+"/rotate", admin, map[string]any{}), http.StatusOK)
	fields(t, successor, rotated)
	if len(successor) != len(rotated) || successor["old_key_id"] != id {
		t.Errorf("a rotation answers %v", names(successor))
	}
	next := successor["key"].(string)
	if old, new := d.Authorize(key), d.Authorize(next); old != http.StatusOK || new != http.StatusOK {
		t.Errorf("within the grace the old key gets %d, the new one %d", old, new)
	}

	for range 2 { // the second time it is gone already
		gone := d.Call("DELETE", fmt.Sprintf("/v1/api-keys/%s", successor["new_key_id"]), admin, nil)
		if gone.Status != http.StatusNoContent || len(gone.Body) != 0 {
			t.Errorf("delete: %d %q", gone.Status, gone.Body)
		}
	}
	if old, new := d.Authorize(key), d.Authorize(next); old != http.StatusOK || new != http.StatusUnauthorized {
		t.Errorf("after the delete the old key gets %d, the new one %d", old, new)
	}
	refusals(t, d, id)
}

// refusals are the answers of the walk's doors to those who may not.
func refusals(t *testing.T, d *keytest.Daemon, id string) {
	service := d.Create(map[string]any{"scopes": []string{"orders:read"}, "rate_limit_per_minute": 4})
	path := "/v1/api-keys/" + id
	for name, c := range map[string]struct {
		method, path, key string
		body              any
		want              int
	}{
		"no key":             {"GET", path, "", nil, http.StatusUnauthorized},
		"no such key":        {"GET", path, service.Plaintext + "0", nil, http.StatusUnauthorized},
		"a service key":      {"GET", path, service.Plaintext, nil, http.StatusForbidden},
		"a missing scope":    {"GET", "/v1/authorize?scopes=orders:write", service.Plaintext, nil, http.StatusForbidden},
		"a management key":   {"GET", "/v1/authorize", d.ManagementKey, nil, http.StatusForbidden},
		"no such thing":      {"GET", "/v1/api-keys/key_zzzzzzzz", d.ManagementKey, nil, http.StatusNotFound},
		"no such route":      {"GET", "/v1/nothing", d.ManagementKey, nil, http.StatusNotFound},
		"no project":         {"POST", "/v1/api-keys", d.ManagementKey, map[string]any{"name": "n"}, http.StatusUnprocessableEntity},
		"rotated twice":      {"POST", path + "/rotate", d.ManagementKey, map[string]any{}, http.StatusConflict},
		"too long a grace":   {"POST", path + "/rotate", d.ManagementKey, map[string]any{"grace_period_seconds": 604801}, http.StatusUnprocessableEntity},
		"a revoked key's id": {"GET", path, d.ManagementKey, nil, http.StatusOK},
	} {
		a := d.Call(c.method, c.path, c.key, c.body)
		if a.Status != c.want {
			t.Errorf("%s: %d, want %d: %s", name, a.Status, c.want, a.Body)
		}
		if a.Header.Get("X-Request-Id") == "" && a.Header.Get("Apigw-Requestid") == "" {
			t.Errorf("%s: no request id", name)
		}
		if c.want >= 400 && !strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: %s", name, a.Header.Get("Content-Type"))
		}
		if c.want == http.StatusUnauthorized && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: no challenge", name)
		}
	}
	limited(t, d, service.Plaintext)
}

// limited runs a key with 4 requests a minute, some of them used, into its limit.
func limited(t *testing.T, d *keytest.Daemon, key string) {
	var a keytest.Answer
	for range 10 { // at most twice its limit, should a minute begin meanwhile
		if a = d.Call("GET", "/v1/authorize", key, nil); a.Status != http.StatusOK {
			break
		}
	}
	if a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" ||
		a.Header.Get("RateLimit-Policy") != `"minute";q=4;w=60` || !strings.HasPrefix(a.Header.Get("RateLimit"), `"minute";r=0;t=`) {
		t.Errorf("at the limit: %d %v", a.Status, a.Header)
	}
}

func want(t *testing.T, a keytest.Answer, status int) map[string]any {
	t.Helper()
	if a.Status != status {
		t.Fatalf("got %d, want %d: %s", a.Status, status, a.Body)
	}
	var body map[string]any
	a.Into(t, &body)
	return body
}

// fields checks that every field of the document is there with a type it may have.
func fields(t *testing.T, got map[string]any, want map[string]string) {
	t.Helper()
	for name, types := range want {
		value, there := got[name]
		if kind := kindOf(value); !there || !slices.Contains(strings.Fields(types), kind) {
			t.Errorf("%s is %v (%s), the document has %s", name, value, kind, types)
		}
	}
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	case float64:
		return "number"
	case bool:
		return "bool"
	case string:
		if at, err := time.Parse(time.RFC3339, v); err == nil && at.Location() == time.UTC {
			return "time"
		}
		return "string"
	}
	return fmt.Sprintf("%T", v)
}

func names(m map[string]any) (list []string) {
	for name := range m {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}
