package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

func nested(levels int) string {
	return `{"project_id":"shop","name":"n","metadata":` + strings.Repeat(`{"a":`, levels-1) + "1" + strings.Repeat("}", levels-1) + "}"
}

func TestABodyIsOneStrictJSONObject(t *testing.T) {
	d := newDoor(t)
	for _, row := range []struct{ guarantee, body string }{
		{"nothing is no object", " "},
		{"a list is no object", `[]`},
		{"null is no object", `null`},
		{"a string is no object", `"a"`},
		{"the object ends", `{"name":"n"`},
		{"nothing follows it", `{"name":"n"} x`},
		{"no second object follows it", `{"name":"n"}{}`},
		{"no byte order mark precedes it", "\ufeff{}"},
		{"no comments", `{"name":"n" /* why */}`},
		{"no trailing comma", `{"name":"n",}`},
		{"no single quotes", `{'name':'n'}`},
		{"no bare names", `{name:"n"}`},
		{"no NaN", `{"daily_limit":NaN}`},
		{"no leading zeros", `{"daily_limit":01}`},
		{"names are strings", `{1:2}`},
		{"UTF-8 alone", "{\"name\":\"\xff\"}"},
		{"UTF-8 in names", "{\"\xc3\":1}"},
		{"no overlong UTF-8", "{\"name\":\"\xc0\xaf\"}"},
		{"no lone high surrogate", `{"name":"\ud800"}`},
		{"no lone low surrogate", `{"name":"\udc00"}`},
		{"no surrogates the wrong way round", `{"metadata":{"a":"\udc00\ud800"}}`},
		{"no lone surrogate in a name", `{"metadata":{"\ud800":1}}`},
		{"no raw control character", "{\"name\":\"a\nb\"}"},
		{"no control character in the name", `{"name":"a\u0000b"}`},
		{"no C1 control character in the name", `{"name":"a\u0085b"}`},
		{"no control character in a member's name", `{"a\u0007":1}`},
		{"nor in a nested member's name", `{"metadata":{"a":[{"b\u007f":1}]}}`},
		{"17 levels are too many", nested(17)},
		{"17 levels of lists are too many", `{"metadata":{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}}`},
		{"a thousand levels are too many", nested(1000)},
	} {
		t.Run(row.guarantee, func(t *testing.T) {
			want(t, d.do("POST", "/v1/api-keys", row.body), 400, apikey.InvalidJSON)
		})
	}
	want(t, d.do("POST", "/v1/api-keys", nested(16)), 201, "")
	want(t, d.do("POST", "/v1/api-keys", ` {"project_id" : "shop" , "name" : "😀 \ud83d\ude00"} `+"\r\n"), 201, "")
	whole := d.do("POST", "/v1/api-keys", `{"project_id":"shop","name":"n","daily_limit":60.0,"rate_limit_per_minute":6e1}`)
	want(t, whole, 201, "")
	if k := read[apikey.Key](t, whole); *k.DailyLimit != 60 || *k.RateLimitPerMinute != 60 {
		t.Errorf("60.0 and 6e1 are %d and %d", *k.DailyLimit, *k.RateLimitPerMinute)
	}
	if n := d.count(t, "acme"); n != 4 {
		t.Errorf("there are %d keys, want the manager and three", n)
	}
}

func TestAllInvalidFieldsAreNamedAtOnce(t *testing.T) {
	d := newDoor(t)
	long := strings.Repeat("x", 300)
	for _, row := range []struct {
		guarantee, body string
		pointers        []string
	}{
		{"required fields", `{}`, []string{"/name", "/project_id"}},
		{"empty ones", `{"name":"","project_id":""}`, []string{"/name", "/project_id"}},
		{"null ones", `{"name":null,"project_id":null}`, []string{"/name", "/project_id"}},
		{"wrong types", `{"project_id":1,"environment_id":true,"external_id":[],"name":{},"scopes":"a","rate_limit_per_minute":"60","daily_limit":1.5,
			"allowed_cidrs":{},"metadata":[],"expires_at":1,"rotation_interval_days":"30","rotation_webhook_url":7,"rotation_to_secrets_manager":"yes"}`,
			[]string{"/allowed_cidrs", "/daily_limit", "/environment_id", "/expires_at", "/external_id", "/metadata", "/name", "/project_id",
				"/rate_limit_per_minute", "/rotation_interval_days", "/rotation_to_secrets_manager", "/rotation_webhook_url", "/scopes"}},
		{"null where there is no none", `{"project_id":"shop","name":"n","scopes":null,"allowed_cidrs":null,"rotation_to_secrets_manager":null}`,
			[]string{"/allowed_cidrs", "/rotation_to_secrets_manager", "/scopes"}},
		{"values out of bounds", `{"project_id":"a b","environment_id":"","external_id":"#","name":"` + long + `","scopes":["a","a","b c"],
			"rate_limit_per_minute":0,"daily_limit":-1,"allowed_cidrs":["10.0.0.0/33","10.0.0.0/8"],"expires_at":"2020-01-01",
			"rotation_interval_days":0,"rotation_webhook_url":"http://example.com"}`,
			[]string{"/allowed_cidrs/0", "/daily_limit", "/environment_id", "/expires_at", "/external_id", "/name", "/project_id",
				"/rate_limit_per_minute", "/rotation_interval_days", "/rotation_webhook_url", "/scopes/1", "/scopes/2"}},
		{"wrong types and bounds in one list", `{"project_id":"shop","name":"n","scopes":[1,"orders:read",null,"b c","b c"]}`,
			[]string{"/scopes/0", "/scopes/2", "/scopes/3", "/scopes/4"}},
		{"numbers no number can hold", `{"project_id":"shop","name":"n","rate_limit_per_minute":1e999,"daily_limit":9223372036854775808}`,
			[]string{"/daily_limit", "/rate_limit_per_minute"}},
		{"times that are none", `{"project_id":"shop","name":"n","expires_at":"2027-02-30"}`, []string{"/expires_at"}},
		{"unknown members", `{"project_id":"shop","name":"n","colour":1,"a/b~c":2,"":3}`, []string{"/", "/a~1b~0c", "/colour"}},
		{"members in another case", `{"project_id":"shop","Name":"n","name":"n","SCOPES":[]}`, []string{"/Name", "/SCOPES"}},
		{"what only the service sets", `{"project_id":"shop","name":"n","id":"key_00000001","organization_id":"other","created_by":"me","enabled":false,"status":"active"}`,
			[]string{"/created_by", "/enabled", "/id", "/organization_id", "/status"}},
		{"members that stand twice", `{"project_id":"shop","name":"n","name":"m","\u006eame":"o"}`, []string{"/name"}},
		{"nested members that stand twice", `{"project_id":"shop","name":"n","metadata":{"a":[0,{"b/c":1,"b/c":2}]}}`, []string{"/metadata/a/1/b~1c"}},
		{"all of these together", `{"name":7,"name":"n","scopes":[false],"colour":"red","daily_limit":0}`,
			[]string{"/colour", "/daily_limit", "/name", "/project_id", "/scopes/0"}},
		{"a name too long to be answered is named by what holds it", `{"project_id":"shop","name":"n","metadata":{"` + long + `":1,"` + long + `":2},"` + long + `":1}`,
			[]string{"", "/metadata"}},
	} {
		t.Run(row.guarantee, func(t *testing.T) {
			problem := want(t, d.do("POST", "/v1/api-keys", row.body), 422, apikey.InvalidFields)
			if got := pointers(problem); !slices.Equal(got, row.pointers) {
				t.Errorf("got  %v\nwant %v", got, row.pointers)
			}
			for _, f := range problem.Fields {
				if f.Detail == "" || strings.Contains(f.Detail, "json:") || strings.Contains(f.Detail, "Go ") {
					t.Errorf("%s: %q", f.Pointer, f.Detail)
				}
			}
		})
	}
	if n := d.count(t, "acme"); n != 1 {
		t.Errorf("there are %d keys, want the manager alone", n)
	}
}

func TestAnAnswerIsNotMuchLargerThanItsRequest(t *testing.T) {
	d := newDoor(t)
	var b strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&b, `"x%d":%d,`, i, i)
	}
	problem := want(t, d.do("POST", "/v1/api-keys", "{"+b.String()+`"name":"n"}`), 422, apikey.InvalidFields)
	if len(problem.Fields) != 100 {
		t.Errorf("%d fields are named", len(problem.Fields))
	}
}

func TestBodiesAreJSONOfAtMost64KB(t *testing.T) {
	d := newDoor(t)
	const good = `{"project_id":"shop","name":"n"}`
	for _, row := range []struct {
		guarantee string
		types     []string
		encoding  string
		body      string
		status    int
		code      apikey.Code
	}{
		{"JSON", []string{"application/json"}, "", good, 201, ""},
		{"the type in capitals", []string{"Application/JSON"}, "", good, 201, ""},
		{"UTF-8 said", []string{"application/json; charset=utf-8"}, "", good, 201, ""},
		{"UTF-8 said loudly", []string{`application/json;charset="UTF-8"`}, "", good, 201, ""},
		{"no type", nil, "", good, 415, apikey.UnsupportedMedia},
		{"an empty type", []string{""}, "", good, 415, apikey.UnsupportedMedia},
		{"two types", []string{"application/json", "application/json"}, "", good, 415, apikey.UnsupportedMedia},
		{"text", []string{"text/plain"}, "", good, 415, apikey.UnsupportedMedia},
		{"a form", []string{"application/x-www-form-urlencoded"}, "", "name=n", 415, apikey.UnsupportedMedia},
		{"another JSON", []string{"application/merge-patch+json"}, "", good, 415, apikey.UnsupportedMedia},
		{"another charset", []string{"application/json; charset=latin1"}, "", good, 415, apikey.UnsupportedMedia},
		{"another parameter", []string{"application/json; version=2"}, "", good, 415, apikey.UnsupportedMedia},
		{"UTF-8 and another parameter", []string{"application/json; charset=utf-8; version=2"}, "", good, 415, apikey.UnsupportedMedia},
		{"a broken type", []string{"application/json;;"}, "", good, 415, apikey.UnsupportedMedia},
		{"compressed", []string{"application/json"}, "gzip", good, 415, apikey.UnsupportedMedia},
		{"nothing at all", []string{"application/json"}, "", "", 400, apikey.InvalidJSON},
		{"64 KB", []string{"application/json"}, "", good + strings.Repeat(" ", 64<<10-len(good)), 201, ""},
		{"a byte more", []string{"application/json"}, "", good + strings.Repeat(" ", 64<<10-len(good)+1), 413, apikey.BodyTooLarge},
		{"a megabyte of nothing", []string{"text/plain"}, "", strings.Repeat(" ", 1<<20), 413, apikey.BodyTooLarge},
	} {
		t.Run(row.guarantee, func(t *testing.T) {
			r := request("POST", "/v1/api-keys", d.manager.Plaintext.Reveal(), "")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(row.body)), int64(len(row.body))
			r.Header["Content-Type"] = row.types
			if row.encoding != "" {
				r.Header.Set("Content-Encoding", row.encoding)
			}
			want(t, d.send(r), row.status, row.code)
		})
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
func (brokenBody) Close() error             { return nil }

func TestABodyThatDoesNotArriveIsTheClientsFault(t *testing.T) {
	d := newDoor(t)
	r := request("POST", "/v1/api-keys", d.manager.Plaintext.Reveal(), "{}")
	r.Body = brokenBody{}
	want(t, d.send(r), 400, apikey.InvalidJSON)
}

// FuzzDecode sends bodies by a key that may not create: a body that is accepted is answered 403, by the verb. Such a
// body must have only known members, each once, in valid UTF-8.
func FuzzDecode(f *testing.F) {
	d := newDoor(f)
	key := d.with(f, "orders:read")
	seeds := []string{`{"project_id":"shop","name":"n"}`, `{"project_id":"shop","name":"n","scopes":["a"],"metadata":{"a":{"b":[1]}}}`,
		`{"project_id":"shop","name":"n","name":"n"}`, `{"project_id":"shop","name":"n","Name":"n"}`, nested(16), nested(17), "{\"name\":\"\xff\"}",
		`{"project_id":"shop","name":"\ud83d\ude00","daily_limit":1e2,"rate_limit_per_minute":null,"expires_at":"2027-01-01"}`, `[]`, `{`, ``}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := request("POST", "/v1/api-keys", key, "{}")
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		w := d.send(r)
		switch w.Code {
		case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		case http.StatusForbidden:
			accepted(t, body)
		default:
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
	})
}

func accepted(t *testing.T, body []byte) {
	t.Helper()
	known := map[string]bool{}
	for f := range reflect.TypeFor[lifecycle.New]().Fields() {
		known[f.Tag.Get("json")] = true
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || !utf8.Valid(body) {
		t.Fatalf("accepted %q: %v", body, err)
	}
	for name := range members {
		if !known[name] {
			t.Fatalf("accepted %q, where %q is not known", body, name)
		}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	var seen []map[string]bool
	for name := false; ; {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("accepted %q: %v", body, err)
		}
		switch token {
		case json.Delim('{'):
			seen, name = append(seen, map[string]bool{}), true
			continue
		case json.Delim('['):
			seen, name = append(seen, nil), false
			continue
		case json.Delim('}'), json.Delim(']'):
			seen = seen[:len(seen)-1]
			name = len(seen) > 0 && seen[len(seen)-1] != nil
			continue
		}
		top := seen[len(seen)-1]
		if name {
			if top[token.(string)] {
				t.Fatalf("accepted %q, where %q stands twice", body, token)
			}
			top[token.(string)] = true
		}
		name = top != nil && !name
	}
}
