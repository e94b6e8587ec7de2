package httpapi_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

// codes are all that package apikey has.
func codes(t *testing.T) (list []apikey.Code) {
	t.Helper()
	source, err := os.ReadFile("../apikey/error.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Code = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		list = append(list, apikey.Code(m[1]))
	}
	if len(list) < 30 {
		t.Fatalf("found %d codes", len(list))
	}
	return list
}

func TestEveryCodeHasAStatusAndATitleOfItsOwn(t *testing.T) {
	titles := map[string]apikey.Code{}
	for _, code := range codes(t) {
		if (code.Status() == 500) != (code == apikey.Internal) || code.Title() == "" {
			t.Errorf("%s has the status %d and the title %q", code, code.Status(), code.Title())
		}
		if other, taken := titles[code.Title()]; taken {
			t.Errorf("%s has the title of %s", code, other)
		}
		titles[code.Title()] = code
	}
}

func TestAWrongMethodIsToldTheRightOnes(t *testing.T) {
	d := newDoor(t)
	allowed := map[string][]string{}
	for _, r := range d.Routes() {
		allowed[r.Pattern] = append(allowed[r.Pattern], r.Method)
		if r.Method == "GET" {
			allowed[r.Pattern] = append(allowed[r.Pattern], "HEAD")
		}
	}
	for pattern, methods := range allowed {
		if slices.Contains(methods, httpapi.Any) {
			continue
		}
		slices.Sort(methods)
		d := newDoor(t)
		hook, delivery := d.subscribed(t, "acme")
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"} {
			id := d.manager.Key.ID.String()
			switch {
			case strings.HasPrefix(pattern, "/v1/organizations/"):
				id = "acme"
			case strings.HasPrefix(pattern, "/v1/webhooks/deliveries/"):
				id = delivery
			case strings.HasPrefix(pattern, "/v1/webhooks/"):
				id = hook
			}
			w := d.do(method, strings.Replace(pattern, "{id}", id, 1), "")
			if slices.Contains(methods, method) {
				if w.Code == 405 || w.Code == 404 {
					t.Errorf("%s %s is answered %d", method, pattern, w.Code)
				}
				continue
			}
			switch {
			case strings.HasPrefix(pattern, "/envelope/"):
				has(t, w, 405)
			case method != "HEAD" || w.Code != 405:
				want(t, w, 405, apikey.MethodNotAllowed)
			}
			if got := w.Header().Get("Allow"); got != strings.Join(methods, ", ") {
				t.Errorf("%s %s allows %q, want %q", method, pattern, got, methods)
			}
		}
	}
}

// ServeMux would redirect some of these, to absolute paths that lose a stage or a base path.
func TestAPathThatIsNoRouteIsAProblemAndNeverARedirect(t *testing.T) {
	d := newDoor(t)
	for _, target := range []string{"/", "/v1", "/v1/", "/v1/api-keys/", "//v1/api-keys", "/v1//api-keys", "/v1/./api-keys", "/v1/api-keys/../api-keys",
		"/v1/api-keys/%2e%2e/api-keys", "/v1/%2e/api-keys", "/v1/api-keys/key_00000001/", "/v1/api-keys/key_00000001/rotate/", "/V1/API-KEYS", "/v1/authorize/",
		"/v1/authorize/x", "/v1/api-keys/a/b/c/d", "/v1/keys/", "/v1/keys/a/b", "/envelop/v1/api-keys", "/organizations", "/organizations/api-keys/1/archive", "/%00", "/%ff", "/v1/api-keys%2F", "/v1%2Fapi-keys", "/healthz", "/..", "/v1/api-keys/key_00000001/rotate/start"} {
		for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS"} {
			w := d.do(method, target, "")
			if method == "HEAD" && w.Code == 404 {
				continue
			}
			want(t, w, 404, apikey.NotFound)
		}
	}
	for _, target := range []string{"*", "", "v1/api-keys"} {
		r := request("GET", "/", "", "")
		r.URL.Path, r.RequestURI = target, target
		want(t, d.send(r), 404, apikey.NotFound)
	}
}

func TestAHandlerServesItsOwnRowsAlone(t *testing.T) {
	d := newDoor(t)
	d.Handler = d.API.Handler(d.Routes("get", "revoke")...)
	want(t, d.do("GET", "/v1/api-keys/"+d.manager.Key.ID.String(), ""), 200, "")
	want(t, d.do("GET", "/v1/api-keys", ""), 404, apikey.NotFound)
	want(t, d.do("GET", "/v1/api-keys/me", ""), 404, apikey.NotFound) // "me" is no id
	if rows := d.Routes("nobody"); len(rows) != 0 {
		t.Errorf("nobody owns %v", rows)
	}
}

// A row from elsewhere has the id, the log line, the rescue and the 405 that every route has.
func TestARowFromElsewhereIsServedAsAllOthersAre(t *testing.T) {
	d := newDoor(t)
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpapi.Note(r.Context(), verify.Decision{Code: apikey.Valid, KeyPrefix: "lk_live_00000001"})
		if r.URL.Query().Has("panic") {
			panic("at the disco")
		}
		if r.URL.Query().Has("body") {
			_, _ = io.WriteString(w, "hello")
		}
	})
	d.Handler = d.API.Handler(append(d.Routes(), httpapi.Row("demo", "GET", "/demo", guarded))...)
	want(t, d.do("GET", "/demo", ""), 200, "")
	if w := d.do("GET", "/demo?body", ""); w.Body.String() != "hello" {
		t.Errorf("the body is %s", w.Body)
	}
	want(t, d.do("GET", "/demo?panic", ""), 500, apikey.Internal)
	want(t, d.do("POST", "/demo", ""), 405, apikey.MethodNotAllowed)
	log := d.logged()
	for _, part := range []string{`"route":"/demo","status":200,"duration_ms":0,"key_prefix":"lk_live_00000001","code":"valid"`, `"route":"/demo","status":500`, `"route":"/demo","status":405`} {
		if !strings.Contains(log, part) {
			t.Errorf("the log lacks %s: %s", part, log)
		}
	}
	httpapi.Note(context.Background(), verify.Decision{}) // elsewhere it does nothing
}

func TestTheRequestIDIsTheServicesOwn(t *testing.T) {
	d := newDoor(t)
	seen := map[string]bool{}
	for range 100 {
		r := request("GET", "/v1/api-keys/me", d.manager.Plaintext.Reveal(), "")
		r.Header.Set("X-Request-Id", "req_00000000000000000000000000")
		w := d.send(r)
		id := w.Header().Get("X-Request-Id")
		if want(t, w, 200, ""); seen[id] || id == r.Header.Get("X-Request-Id") || !strings.Contains(d.logged(), id) {
			t.Fatalf("the id %q: seen %v", id, seen[id])
		}
		seen[id] = true
	}
}

// ServeMux takes no two patterns that fit the same path when neither is the more literal.
func TestOfTwoPatternsThatFitTheOneWhoseLiteralComesFirstServes(t *testing.T) {
	d := newDoor(t)
	said := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, what+" "+r.PathValue("id")) })
	}
	d.Handler = d.API.Handler(httpapi.Row("f", "POST", "/x/{id}/test", said("test")), httpapi.Row("f", "GET", "/x/parcels/{id}", said("parcel")),
		httpapi.Row("f", "GET", "/x/{id}", said("one")), httpapi.Row("f", "GET", "/x/parcels", said("parcels")))
	for asked, want := range map[string]string{"POST /x/7/test": "test 7", "GET /x/parcels/7": "parcel 7", "GET /x/parcels/test": "parcel test", "GET /x/7": "one 7", "GET /x/parcels": "parcels "} {
		method, path, _ := strings.Cut(asked, " ")
		if body := has(t, d.do(method, path, ""), 200); body != want {
			t.Errorf("%s: %q, not %q", asked, body, want)
		}
	}
	want(t, d.do("POST", "/x/parcels/test", ""), 405, apikey.MethodNotAllowed)
	want(t, d.do("GET", "/x/7/test", ""), 405, apikey.MethodNotAllowed)
	want(t, d.do("POST", "/x/7/other", ""), 404, apikey.NotFound)
	want(t, d.do("POST", "/x/7/test/", ""), 404, apikey.NotFound)
	if log := d.logged(); !strings.Contains(log, `"route":"/x/{id}/test","status":200`) || !strings.Contains(log, `"route":"/x/parcels/{id}","status":200`) {
		t.Errorf("the log has other routes: %s", log)
	}
}

// Whoever may nothing learns from the answers no more of keys that exist than of those that do not.
func TestWhoMayNothingLearnsOfNoKey(t *testing.T) {
	d := newDoor(t)
	service := d.with(t, "orders:read")
	for _, address := range []string{d.manager.Key.KeyPrefix, d.manager.Key.ID.String(), "lk_live_00000001", "lk_test_00000001", "key_00000001"} {
		for _, method := range []string{"GET", "DELETE"} {
			want(t, d.send(request(method, "/v1/api-keys/"+address, service, "")), 403, apikey.InsufficientScope)
		}
	}
}

// The caller is whoever the key says, whatever else the request claims.
func TestACallerCannotBeForgedByHeaders(t *testing.T) {
	d := newDoor(t)
	bound := d.mustCreate(t, "acme", lifecycle.New{Scopes: []string{"orders:read"}, AllowedCIDRs: []string{"203.0.113.7"}})
	forged := func(key string) *http.Request {
		r := request("GET", "/v1/api-keys", key, "")
		for _, name := range []string{"Latchkey-Organization-Id", "Latchkey-Scopes", "X-Organization-Id", "X-Scopes", "X-User", "X-Api-Key", "Cookie"} {
			r.Header.Set(name, "keys:read")
		}
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip", "Cf-Connecting-Ip", "X-Amzn-Source-Ip"} {
			r.Header.Set(name, "203.0.113.7")
		}
		return r
	}
	want(t, d.send(forged("")), 401, apikey.MissingKey)
	want(t, d.send(forged(d.with(t, "orders:read"))), 403, apikey.InsufficientScope)
	want(t, d.send(forged(bound.Plaintext.Reveal())), 403, apikey.AddressNotAllowed)

	d.TrustedHops = 1
	spoof := forged(bound.Plaintext.Reveal())
	spoof.URL.Path = "/v1/api-keys/me"
	spoof.Header.Set("X-Forwarded-For", "203.0.113.7, 198.51.100.1") // the proxy saw the latter
	want(t, d.send(spoof), 403, apikey.AddressNotAllowed)
	spoof.Header.Set("X-Forwarded-For", "198.51.100.1, 203.0.113.7")
	want(t, d.send(spoof), 200, "")

	two := request("GET", "/v1/api-keys", d.manager.Plaintext.Reveal(), "")
	two.Header.Add("Authorization", "Bearer "+d.manager.Plaintext.Reveal())
	want(t, d.send(two), 401, apikey.MalformedKey)
	basic := request("GET", "/v1/api-keys", "", "")
	basic.SetBasicAuth("key", d.manager.Plaintext.Reveal())
	want(t, d.send(basic), 401, apikey.MissingKey)
	want(t, d.send(request("GET", "/v1/api-keys?access_token="+d.manager.Plaintext.Reveal(), "", "")), 401, apikey.MissingKey)
}

func TestAKeyCannotMakeOneThatOutlivesItOrReachesFurther(t *testing.T) {
	d := newDoor(t)
	end := lifecycle.Moment{Time: d.clock().Add(time.Hour)}
	bounded := d.mustCreate(t, "acme", lifecycle.New{Scopes: []string{"keys:read", "keys:write"}, ExpiresAt: &end, AllowedCIDRs: []string{"192.0.2.0/24"}})
	for body, status := range map[string]int{
		`{"project_id":"shop","name":"n","scopes":["keys:read"]}`:                                                                                              403,
		`{"project_id":"shop","name":"n","scopes":["keys:read"],"expires_at":"2026-11-22T10:30:00Z"}`:                                                          403,
		`{"project_id":"shop","name":"n","scopes":["keys:read"],"expires_at":"2026-11-22T10:30:00Z","allowed_cidrs":["0.0.0.0/0"]}`:                            403,
		`{"project_id":"shop","name":"n","scopes":["keys:read"],"expires_at":"2026-11-22T10:30:00Z","allowed_cidrs":["192.0.2.128/25"]}`:                       201,
		`{"project_id":"shop","name":"n","scopes":["keys:read"],"allowed_cidrs":["192.0.2.128/25"]}`:                                                           403,
		`{"project_id":"shop","name":"n","scopes":["orders:read"],"expires_at":"2027-11-22T10:30:00Z","allowed_cidrs":["0.0.0.0/0"],"daily_limit":1000000000}`: 201,
	} {
		r := request("POST", "/v1/api-keys", bounded.Plaintext.Reveal(), body)
		r.RemoteAddr = "192.0.2.9:1234"
		code := apikey.Code("")
		if status == 403 {
			code = apikey.Escalation
		}
		want(t, d.send(r), status, code)
	}
}

func TestLimitsOfTheAskingKeyAreInEveryAnswer(t *testing.T) {
	d := newDoor(t)
	n := lifecycle.New{ProjectID: "shop", Name: "limited", Scopes: []string{"keys:read"}}
	n.RateLimitPerMinute = lifecycle.Limit{Said: true, V: new(int64(3))}
	issued, err := d.Keys.Create(operator("acme"), n)
	if err != nil {
		t.Fatal(err)
	}
	for i, target := range []string{"/v1/api-keys/me", "/v1/api-keys/key_00000001", "/v1/api-keys?limit=0"} {
		w := d.send(request("GET", target, issued.Plaintext.Reveal(), ""))
		if got := w.Header().Get("RateLimit"); got != `"minute";r=`+string(rune('2'-i))+`;t=30` || w.Header().Get("RateLimit-Policy") != `"minute";q=3;w=60` {
			t.Errorf("%s is answered %d with RateLimit: %s", target, w.Code, got)
		}
	}
	w := d.send(request("GET", "/v1/api-keys/me", issued.Plaintext.Reveal(), ""))
	want(t, w, 429, apikey.RateLimited)
	if w.Header().Get("Retry-After") != "30" || w.Header().Get("RateLimit") != `"minute";r=0;t=30` {
		t.Errorf("the headers are %v", w.Header())
	}
	d.advance(30 * time.Second)
	want(t, d.send(request("GET", "/v1/api-keys/me", issued.Plaintext.Reveal(), "")), 200, "")
}

func TestARefusedKeyIsChallenged(t *testing.T) {
	d := newDoor(t)
	stranger := newDoor(t).manager.Plaintext.Reveal()
	for key, row := range map[string]struct {
		code  apikey.Code
		error string
	}{
		"":         {apikey.MissingKey, ""},
		"nonsense": {apikey.MalformedKey, "invalid_token"},
		stranger:   {apikey.UnknownKey, "invalid_token"},
	} {
		w := d.send(request("GET", "/v1/api-keys", key, ""))
		want(t, w, 401, row.code)
		challenge := w.Header().Get("WWW-Authenticate")
		if !strings.HasPrefix(challenge, `Bearer realm="latchkey"`) || strings.Contains(challenge, `error="`+row.error+`"`) != (row.error != "") {
			t.Errorf("%s is challenged with %s", row.code, challenge)
		}
	}
}

// deaf is a store that answers nobody, with a cause that is for the log alone.
type deaf struct{ storetest.Store }

var errDeaf = errors.New("dynamo: dial tcp 10.0.0.1: i/o timeout")

func (deaf) Debit(context.Context, verify.Debit) (verify.Hot, bool, error) {
	return verify.Hot{}, false, errDeaf
}

func (deaf) Key(context.Context, apikey.ID) (apikey.Record, error) {
	return apikey.Record{}, errDeaf
}

func TestAStoreThatDoesNotAnswerLetsNobodyIn(t *testing.T) {
	d := newDoor(t)
	id := d.manager.Key.ID.String()
	ask := func(method, target, body string) {
		t.Helper()
		w := d.do(method, target, body)
		want(t, w, 503, apikey.Unavailable)
		if w.Header().Get("Retry-After") != "1" || strings.Contains(w.Body.String(), "10.0.0.1") {
			t.Errorf("%s: %v %s", target, w.Header(), w.Body)
		}
		if !strings.Contains(d.logged(), "10.0.0.1") || strings.Count(d.logged(), `"level":"ERROR"`) != 1 {
			t.Errorf("%s: the log has %s", target, d.logged())
		}
		d.log.Reset()
	}
	d.Keys.Store = deaf{d.store}
	ask("GET", "/v1/api-keys/"+id, "")
	ask("GET", "/v1/api-keys/me", "")
	ask("POST", "/v1/api-keys/verify", `{"key":"`+d.with(t, "orders:read")+`"}`)
	d.Verifier.Store = deaf{d.store}
	ask("GET", "/v1/api-keys/"+id, "")
	ask("GET", "/v1/authorize", "")
}

// unwell is a store that panics with what must not be told.
type unwell struct {
	storetest.Store
	cause any
}

func (u unwell) Key(context.Context, apikey.ID) (apikey.Record, error) {
	if u.cause == nil {
		return apikey.Record{}, *(*error)(nil) // a nil dereference
	}
	panic(u.cause)
}

func TestAPanicIsAnsweredAndTellsNoSecret(t *testing.T) {
	d := newDoor(t)
	secret := d.manager.Plaintext.Reveal()
	for _, cause := range []any{secret, errors.New(secret), []string{secret}, nil} {
		d.log.Reset()
		d.Keys.Store = unwell{d.store, cause}
		w := d.do("GET", "/v1/api-keys/"+d.manager.Key.ID.String(), "")
		want(t, w, 500, apikey.Internal)
		log := d.logged()
		if strings.Contains(log+w.Body.String(), secret[20:]) || !strings.Contains(log, "door_test.go") || !strings.Contains(log, `"status":500`) {
			t.Errorf("the log has %s", log)
		}
	}
	d.Keys.Store = d.store
	want(t, d.do("GET", "/v1/api-keys/me", ""), 200, "")
}

func TestWhatWasBegunForAClientIsFinishedWhenItHangsUp(t *testing.T) {
	d := newDoor(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := d.send(request("DELETE", "/v1/api-keys/"+d.mustCreate(t, "acme", lifecycle.New{}).Key.ID.String(), d.manager.Plaintext.Reveal(), "").WithContext(ctx))
	want(t, w, 204, "")
	if log := d.logged(); strings.Contains(log, "ERROR") {
		t.Errorf("the log has %s", log)
	}
}

func TestADeadlineThatHasPassedLetsNobodyIn(t *testing.T) {
	d := newDoor(t)
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	w := d.send(request("GET", "/v1/authorize", d.with(t, "orders:read"), "").WithContext(ctx))
	want(t, w, 503, apikey.Unavailable)
}

// failing is a store whose error is not one that a client may see.
type failing struct{ storetest.Store }

func (failing) Organization(context.Context, string) (lifecycle.Organization, error) {
	return lifecycle.Organization{}, errors.New("table Keys-ABCDEF in eu-west-1")
}

func TestAnErrorOfOurOwnIsNotShown(t *testing.T) {
	d := newDoor(t)
	d.Keys.Store = failing{d.store}
	w := d.do("POST", "/v1/api-keys", `{"project_id":"shop","name":"n"}`)
	if w.Code < 500 || strings.Contains(w.Body.String(), "ABCDEF") || !strings.Contains(d.logged(), "ABCDEF") {
		t.Errorf("answered %d %s; the log has %s", w.Code, w.Body, d.logged())
	}
}

// The whole captured log is searched for everything that must not be in it.
func TestTheLogTellsWhoAskedForWhatAndNoSecret(t *testing.T) {
	d := newDoor(t)
	plain := d.manager.Plaintext.Reveal()
	d.do("GET", "/v1/api-keys?name=findme-in-query", "")
	d.do("GET", "/v1/api-keys/findme-in-path", "")
	d.do("GET", "/findme-in-unknown-path", "")
	d.do("BREW-findme-in-method", "/v1/api-keys", "")
	d.do("GET", "/v1/api-keys/"+plain, "")
	d.do("GET", "/v1/api-keys?cursor="+plain, "")
	d.do("POST", "/v1/api-keys", `{"project_id":"shop","name":"findme-in-body"}`)
	d.do("POST", "/v1/api-keys", `{"findme-in-body":`)
	d.do("POST", "/v1/api-keys/verify", `{"key":"`+plain+`"}`)
	d.send(request("GET", "/v1/authorize?scopes=orders:findme", plain, ""))
	d.send(request("GET", "/v1/api-keys/me", plain[:len(plain)-1]+"!", ""))
	r := request("GET", "/v1/api-keys/me", plain, "")
	r.Header.Set("X-Forwarded-For", "findme-in-header")
	d.TrustedHops = 1
	d.send(r)
	d.TrustedHops = 0
	rotated := d.mustCreate(t, "acme", lifecycle.New{})
	successor := read[map[string]any](t, d.do("POST", "/v1/api-keys/"+rotated.Key.ID.String()+"/rotate", ""))["key"].(string)

	log := d.logged()
	if n := strings.Count(log, `"msg":"request"`); n != 13 {
		t.Errorf("there are %d lines for 13 requests", n)
	}
	hash := d.manager.Plaintext.Hash().Bytes()
	for what, secret := range map[string]string{
		"the key": plain, "its secret": plain[17:47], "its tail": plain[30:], "its hash in hex": hex.EncodeToString(hash), "in base64": base64.StdEncoding.EncodeToString(hash),
		"in base64url": base64.RawURLEncoding.EncodeToString(hash), "the successor's secret": successor[17:], "a client's own words": "findme", "a scheme": "Bearer",
	} {
		if strings.Contains(strings.ToLower(log), strings.ToLower(secret)) {
			t.Errorf("the log has %s: %s", what, log)
		}
	}
	line := regexp.MustCompile(`"msg":"request","request_id":"req_[0-9A-Z]{26}","method":"GET","route":"/v1/api-keys/{id}","status":404,"duration_ms":0,` +
		`"key_prefix":"` + d.manager.Key.KeyPrefix + `","code":"not_found","caller":"key","client":"` + netip.MustParseAddr("192.0.2.1").String() + `"}`)
	if !line.MatchString(log) {
		t.Errorf("no line is as it should be: %s", log)
	}
}

// Over a real connection: HEAD has headers and no body, and a body that is too large ends the connection.
func TestOverTheNetwork(t *testing.T) {
	d := newDoor(t)
	s := httptest.NewServer(d)
	defer s.Close()
	ask := func(method, path string, body io.Reader) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+d.manager.Plaintext.Reveal())
		r.Header.Set("Content-Type", "application/json")
		res, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	head := ask("HEAD", "/v1/api-keys", nil)
	if b, err := io.ReadAll(head.Body); err != nil || len(b) > 0 || head.StatusCode != 200 || head.Header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %d %v %q %v", head.StatusCode, head.Header, b, err)
	}
	if huge := ask("POST", "/v1/api-keys", io.LimitReader(zeros{}, 1<<24)); huge.StatusCode != 413 || !huge.Close {
		t.Errorf("16 MB: %d, connection closed: %v", huge.StatusCode, huge.Close)
	}
	if gone := ask("DELETE", "/v1/api-keys/"+d.mustCreate(t, "acme", lifecycle.New{}).Key.ID.String(), nil); gone.StatusCode != 204 || gone.ContentLength > 0 {
		t.Errorf("DELETE: %d with %d bytes", gone.StatusCode, gone.ContentLength)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
