package httpapi_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/issuer"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/oidc"
	"github.com/latchkey/latchkey/pkg/verify"
)

// signing is the issuer of all tests, which serves its keys on this machine until the process ends.
var signing = sync.OnceValues(func() (*issuer.Issuer, error) {
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	i, err := issuer.New(s.URL, time.Now)
	if err != nil {
		return nil, err
	}
	for pattern, h := range i.Handlers() {
		mux.Handle(pattern, h)
	}
	return i, nil
})

// issuer is what the service knows of the issuer.
func (d *door) issuer(t testing.TB) *oidc.Verifier {
	t.Helper()
	i, err := signing()
	if err != nil {
		t.Fatal(err)
	}
	v, err := oidc.New([]oidc.Issuer{{Issuer: i.URL(), Audiences: []string{issuer.Audience}}}, d.clock, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// token signs claims, for twelve hours from the door's clock on where they say nothing else.
func (d *door) token(t testing.TB, claims map[string]any) string {
	t.Helper()
	i, err := signing()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{"sub": "jane", "iat": d.clock().Unix(), "exp": d.clock().Add(12 * time.Hour).Unix()}
	maps.Copy(all, claims)
	token, err := i.Sign(all)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// person is the token of somebody with a role in an organization.
func (d *door) person(t testing.TB, organization, user, role string) string {
	t.Helper()
	return d.token(t, map[string]any{"org_id": organization, "sub": user, "role": role})
}

// organization makes one of its own for a test, on a plan.
func (d *door) organization(t testing.TB, planName string) (id string) {
	t.Helper()
	id = "org-" + rand.Text()
	if _, err := d.Keys.AddOrganization(operator(id), planName, []string{"orders:*"}); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAPersonSignsInBesideKeys(t *testing.T) {
	d := newDoor(t)
	admin := d.person(t, "acme", "jane", "admin")
	created := d.send(request("POST", "/v1/api-keys", admin, `{"project_id":"shop","name":"n","scopes":["orders:read"]}`))
	want(t, created, 201, "")
	k := read[apikey.Key](t, created)
	if k.CreatedBy != "jane" || k.OrganizationID != "acme" {
		t.Errorf("created is %s", created.Body)
	}
	if created.Header().Get("RateLimit") != "" {
		t.Error("a person has the limits of a key")
	}
	want(t, d.do("GET", "/v1/api-keys/"+k.ID.String(), ""), 200, "")
	want(t, d.send(request("GET", "/v1/api-keys/me", admin, "")), 404, apikey.NotFound)
	key := d.with(t, "orders:read")
	want(t, d.send(request("POST", "/v1/api-keys/verify", admin, `{"key":"`+key+`"}`)), 200, "")
	want(t, d.send(request("POST", "/v1/api-keys/verify", d.person(t, "acme", "joe", "member"), `{"key":"`+key+`"}`)), 403, apikey.InsufficientScope)
}

// RFC 6750, section 3: whoever sent a token that is not valid is told so, and nothing of why it is not.
func TestATokenThatIsNotValidIsChallenged(t *testing.T) {
	d := newDoor(t)
	good := d.person(t, "acme", "jane", "admin")
	for what, authorization := range map[string][]string{
		"no token of anybody":     {"Bearer a.b.c"},
		"a dot":                   {"Bearer ."},
		"one that has expired":    {"Bearer " + d.token(t, map[string]any{"exp": d.clock().Add(-time.Hour).Unix()})},
		"one for someone else":    {"Bearer " + d.token(t, map[string]any{"aud": "another"})},
		"a changed one":           {"Bearer " + good[:len(good)-4] + "AAAA"},
		"one cut short":           {"Bearer " + good[:strings.LastIndexByte(good, '.')+1]},
		"two spaces":              {"Bearer  " + good},
		"a space behind":          {"Bearer " + good + " "},
		"a comma behind":          {"Bearer " + good + ","},
		"two in one header":       {"Bearer " + good + ", Bearer " + good},
		"two headers":             {"Bearer " + good, "Bearer " + good},
		"a key's and its own":     {"Bearer " + d.manager.Plaintext.Reveal(), "Bearer " + good},
		"a key with a dot behind": {"Bearer " + d.manager.Plaintext.Reveal() + "."},
	} {
		r := request("GET", "/v1/api-keys", "", "")
		r.Header["Authorization"] = authorization
		w := d.send(r)
		if want(t, w, 401, apikey.InvalidToken); w.Header().Get("WWW-Authenticate") != `Bearer realm="latchkey", error="invalid_token"` {
			t.Errorf("%s: the challenge is %s", what, w.Header().Get("WWW-Authenticate"))
		}
	}
	for what, authorization := range map[string]string{"another scheme": "Basic " + good, "none": good, "no space": "Bearer" + good, "a tab": "Bearer\t" + good} {
		r := request("GET", "/v1/api-keys", "", "")
		r.Header.Set("Authorization", authorization)
		w := d.send(r)
		if want(t, w, 401, apikey.MissingKey); w.Header().Get("WWW-Authenticate") != `Bearer realm="latchkey"` {
			t.Errorf("%s: the challenge is %s", what, w.Header().Get("WWW-Authenticate"))
		}
	}
	r := request("GET", "/v1/api-keys", "", "")
	r.Header.Set("Authorization", "bearer "+good)
	want(t, d.send(r), 200, "")
}

func TestWithoutAnIssuerATokenIsAMalformedKey(t *testing.T) {
	d := newDoor(t)
	token := d.person(t, "acme", "jane", "admin")
	d.People = nil
	want(t, d.send(request("GET", "/v1/api-keys", token, "")), 401, apikey.MalformedKey)
	if code := envelopeCode(t, d.send(request("GET", "/envelope/v1/api-keys", token, "")), 401); code != "Unauthorized" {
		t.Errorf("the envelope says %s", code)
	}
}

func TestAnIssuerThatDoesNotAnswerLetsNobodyIn(t *testing.T) {
	d := newDoor(t)
	token := d.person(t, "acme", "jane", "admin")
	d.People = func(context.Context, string) (caller.Caller, error) {
		return caller.Caller{}, &apikey.Error{Code: apikey.Unavailable, Message: "Try again.", Cause: errors.New("dial tcp 10.0.0.1")}
	}
	w := d.send(request("GET", "/v1/api-keys", token, ""))
	if want(t, w, 503, apikey.Unavailable); w.Header().Get("Retry-After") != "1" || !strings.Contains(d.logged(), "10.0.0.1") {
		t.Errorf("%v; the log has %s", w.Header(), d.logged())
	}
	if code := envelopeCode(t, d.send(request("GET", "/envelope/v1/api-keys", token, "")), 503); code != "ServiceUnavailable" {
		t.Errorf("the envelope says %s", code)
	}
}

// No issuer's user walks into a protected API.
func TestATokenOpensNoProtectedAPI(t *testing.T) {
	d := newDoor(t)
	token := d.person(t, "acme", "jane", "admin")
	want(t, d.send(request("GET", "/v1/authorize", token, "")), 401, apikey.MalformedKey)
	w := d.do("POST", "/v1/api-keys/verify", `{"key":"`+token+`"}`)
	if want(t, w, 200, ""); read[verdict](t, w).Code != apikey.MalformedKey {
		t.Errorf("a token is verified as %s", w.Body)
	}
}

// Where people alone manage keys, a key that is let in is told so, one that is not learns no more than elsewhere, and
// the doors and the operators' routes go on taking keys.
func TestWherePeopleAloneManageKeysAKeyIsRefused(t *testing.T) {
	d := newDoor(t)
	d.PeopleOnly = true
	id := d.mustCreate(t, "acme", lifecycle.New{}).Key.ID.String()
	for _, route := range d.Routes() {
		target := strings.Replace(route.Pattern, "{id}", id, 1)
		keysToo := route.Function == "verify" || strings.HasPrefix(target, "/v1/organizations/")
		if strings.HasPrefix(target, "/envelope/") || keysToo {
			continue
		}
		want(t, d.do(route.Method, target, ""), 403, apikey.KeyNotAllowed)
		want(t, d.send(request(route.Method, target, newDoor(t).manager.Plaintext.Reveal(), "")), 401, apikey.UnknownKey)
	}
	want(t, d.do("GET", "/v1/api-keys/me", ""), 200, "")
	want(t, d.do("GET", "/v1/organizations/acme", ""), 200, "")
	want(t, d.do("PUT", "/v1/organizations/acme", "{}"), 200, "")
	want(t, d.do("POST", "/v1/api-keys/verify", `{"key":"k"}`), 200, "")
	want(t, d.send(request("GET", "/v1/authorize", d.with(t, "orders:read"), "")), 200, "")
	want(t, d.send(request("GET", "/v1/api-keys", d.person(t, "acme", "jane", "viewer"), "")), 200, "")
}

// decided is a gate that lets everybody in as what it was told.
type decided struct {
	key    verify.Decision
	person caller.Caller
}

func (g decided) Key(*http.Request, verify.Request) verify.Decision   { return g.key }
func (g decided) Person(*http.Request) (caller.Caller, error)         { return g.person, nil }
func (decided) nobody(context.Context, string) (caller.Caller, error) { panic("asked again") }

func TestWhatAGateDecidedIsNotAskedAgain(t *testing.T) {
	d := newDoor(t)
	token := d.person(t, "acme", "jane", "admin")
	ask := d.People
	g := decided{key: verify.Decision{Identity: verify.Identity{OrganizationID: "acme", KeyID: 7, Scopes: []string{apikey.KeysRead}}, Code: apikey.Valid},
		person: caller.Caller{OrganizationID: "other", Kind: caller.User, ID: "joe", Scopes: []string{apikey.KeysRead}}}
	d.Gate, d.People = g, g.nobody
	if list := read[[]apikey.Key](t, d.send(request("GET", "/v1/api-keys", "whatever", ""))); len(list) != 1 {
		t.Errorf("the gate's key of acme sees %d keys", len(list))
	}
	if list := read[[]apikey.Key](t, d.send(request("GET", "/v1/api-keys", "a.b.c", ""))); len(list) != 0 {
		t.Errorf("the gate's person of other sees %d keys", len(list))
	}
	d.People = ask
	if code := envelopeCode(t, d.send(request("GET", "/envelope/v1/api-keys", "a.b.c", "")), 401); code != "Unauthorized" {
		t.Errorf("the envelope trusts the gate: %s", code)
	}
	has(t, d.send(request("GET", "/envelope/v1/api-keys", token, "")), 200)
}

func TestTheLogTellsThatAPersonAskedAndNotWho(t *testing.T) {
	d := newDoor(t)
	token := d.person(t, "acme", "jane@findme.example", "admin")
	want(t, d.send(request("GET", "/v1/api-keys", token, "")), 200, "")
	want(t, d.send(request("GET", "/v1/api-keys", token+"x", "")), 401, apikey.InvalidToken)
	want(t, d.send(request("DELETE", "/v1/api-keys/key_00000001", token, "")), 404, apikey.NotFound)
	log := d.logged()
	if strings.Contains(log, "findme") || strings.Contains(log, token[strings.LastIndexByte(token, '.'):]) || strings.Contains(log, token[:20]) {
		t.Errorf("the log has %s", log)
	}
	for _, part := range []string{`"key_prefix":"","code":"valid","caller":"user"`, `"code":"invalid_token","caller":""`, `"code":"not_found","caller":"user"`} {
		if !strings.Contains(log, part) {
			t.Errorf("the log lacks %s: %s", part, log)
		}
	}
}

// late is a body whose last byte comes when something has happened.
type late struct {
	io.Reader
	happen func()
}

func (l late) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err == io.EOF {
		l.happen()
	}
	return n, err
}

func (late) Close() error { return nil }

// Who holds the body back until the credential has ended is refused.
func TestTheCredentialIsAskedAboutWhenTheBodyIsThere(t *testing.T) {
	d := newDoor(t)
	ends := d.clock().Add(time.Hour)
	key := d.mustCreate(t, "acme", lifecycle.New{Scopes: []string{"keys:write"}, ExpiresAt: &lifecycle.Moment{Time: ends}}).Plaintext.Reveal()
	token := d.token(t, map[string]any{"org_id": "acme", "exp": ends.Unix()})
	for bearer, code := range map[string]apikey.Code{key: apikey.ExpiredKey, token: apikey.InvalidToken} {
		r := request("POST", "/v1/api-keys", bearer, "")
		r.Header.Set("Content-Type", "application/json")
		r.Body = late{strings.NewReader(`{"project_id":"shop","name":"n"}`), func() { d.advance(2 * time.Hour) }}
		want(t, d.send(r), 401, code)
	}
	for _, nobody := range []string{"", "nonsense"} {
		r := request("POST", "/v1/api-keys", nobody, "")
		r.Body = late{nil, nil} // would panic if it was read
		if w := d.send(r); w.Code != 401 {
			t.Errorf("%q is answered %d", nobody, w.Code)
		}
	}
}
