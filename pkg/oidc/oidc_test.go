package oidc_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/issuer"
	"github.com/latchkey/latchkey/pkg/oidc"
)

func TestATokenOfEachAlgorithmIsItsPerson(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	for algorithm, by := range map[string]struct {
		kid string
		key any
	}{"RS256": {"rsa", rsaKey()}, "PS256": {"rsa", rsaKey()}, "ES256": {"ec", ecKey()}, "EdDSA": {"ed", edKey()}} {
		for _, header := range []members{
			{"alg": algorithm, "kid": by.kid}, {"alg": algorithm}, {"alg": algorithm, "kid": by.kid, "typ": "JWT"}, {"alg": algorithm, "kid": by.kid, "typ": "application/at+jwt"},
			{"alg": algorithm, "kid": by.kid, "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x5u", "x5t": "AAAA"},
		} {
			c, err := v.Verify(t.Context(), sign(header, a.claims(nil), by.key))
			want := caller.Caller{OrganizationID: "acme", Kind: caller.User, ID: "ada", Scopes: []string{"keys:read", "keys:write", "keys:verify", "audit:read"}}
			if err != nil || !reflect.DeepEqual(c, want) {
				t.Errorf("%v: got %+v, %v", header, c, err)
			}
		}
	}
	if n := a.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestAnIssuerMayBeHeldToFewerAlgorithms(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t, func(i *oidc.Issuer) { i.Algorithms = []string{"RS256"} })
	if _, err := v.Verify(t.Context(), sign(members{"alg": "RS256", "kid": "rsa"}, a.claims(nil), rsaKey())); err != nil {
		t.Error(err)
	}
	refused(t, v, sign(members{"alg": "PS256", "kid": "rsa"}, a.claims(nil), rsaKey()))
	refused(t, v, a.token(nil))
}

func TestAKeyThatNamesItsAlgorithmSignsWithNoOther(t *testing.T) {
	a := newAuthority(t)
	a.keys.Store(set(public("rsa", &rsaKey().PublicKey, members{"alg": "RS256", "use": "sig", "key_ops": []string{"verify"}})))
	v := a.verifier(t)
	if _, err := v.Verify(t.Context(), sign(members{"alg": "RS256", "kid": "rsa"}, a.claims(nil), rsaKey())); err != nil {
		t.Error(err)
	}
	refused(t, v, sign(members{"alg": "PS256", "kid": "rsa"}, a.claims(nil), rsaKey()))
}

// The rights of each role, which are what they may at most ever be: no role has org:admin.
func TestARoleHasTheRightsOfItsRowAndNoMore(t *testing.T) {
	a := newAuthority(t)
	mapped := func(i *oidc.Issuer) {
		i.Roles = map[string]string{"Key Admin": "admin", "dev": "member", "guest": "viewer"}
		i.DefaultRole = "viewer"
	}
	nested := func(i *oidc.Issuer) { i.Claims.Role = "/realm_access/roles" }
	const v, m, d = "keys:read", "keys:read keys:write own", "keys:read keys:write keys:verify audit:read"
	for _, c := range []struct {
		change func(*oidc.Issuer)
		claims members
		want   string
	}{
		{nil, members{"role": "viewer"}, v},
		{nil, members{"role": "member"}, m},
		{nil, members{"role": "admin"}, d},
		{nil, members{"role": "Admin"}, m},
		{nil, members{"role": "org:admin operator"}, m},
		{nil, members{"role": nil}, m},
		{nil, members{"role": "viewer admin member"}, d},
		{nil, members{"role": []string{"viewer", "member"}}, m},
		{nil, members{"role": []string{"viewer admin"}}, m},
		{nil, members{"role": []string{}}, m},
		{nil, members{"role": nil, "org_id": nil}, d},
		{nil, members{"role": "viewer", "org_id": nil}, v},
		{nil, members{"role": "stranger", "org_id": nil}, m},
		{mapped, members{"role": "Key Admin"}, d},
		{mapped, members{"role": []string{"Key Admin", "dev"}}, d},
		{mapped, members{"role": "Key"}, v},
		{mapped, members{"role": "admin"}, v},
		{mapped, members{"role": "dev guest"}, m},
		{mapped, members{"role": nil}, v},
		{mapped, members{"role": nil, "org_id": nil}, d},
		{nested, members{"role": "admin"}, m},
		{nested, members{"realm_access": members{"roles": []string{"offline_access", "admin"}}}, d},
		{nested, members{"realm_access": members{}}, m},
	} {
		if c.change == nil {
			c.change = func(*oidc.Issuer) {}
		}
		got, err := a.verifier(t, c.change).Verify(t.Context(), a.token(c.claims))
		rights := strings.Join(got.Scopes, " ")
		if got.Own {
			rights += " own"
		}
		if err != nil || rights != c.want {
			t.Errorf("%v: got %q, %v", c.claims, rights, err)
		}
		if got.Holds("org:admin") {
			t.Errorf("%v: org:admin", c.claims)
		}
	}
}

func TestClaimsAreFoundWhereTheSettingsSay(t *testing.T) {
	a := newAuthority(t)
	c, err := a.verifier(t, func(i *oidc.Issuer) {
		i.AudienceClaim = "client_id"
		i.Claims = oidc.Claims{Organization: "/organization/0", User: "https://example.com/uid", Plan: "/app~1v1/pl~0an", Role: "cognito:groups"}
	}).Verify(t.Context(), a.token(members{"aud": nil, "client_id": "console", "organization": []string{"globex"}, "https://example.com/uid": "auth0|7f",
		"app/v1": members{"pl~an": "pro"}, "cognito:groups": []string{"viewer"}}))
	want := caller.Caller{OrganizationID: "globex", Kind: caller.User, ID: "auth0|7f", Plan: "pro", PlanAt: c.PlanAt, Scopes: []string{"keys:read"}}
	if err != nil || !reflect.DeepEqual(c, want) || c.PlanAt.IsZero() {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestAPersonWithoutAnOrganizationIsTheirOwn(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	only := func(i *oidc.Issuer) { i.Organizations = []string{"acme"} }
	own := func(of *authority, user string) string {
		c, err := of.verifier(t, only).Verify(t.Context(), of.token(members{"org_id": nil, "sub": user}))
		if err != nil {
			t.Fatal(err)
		}
		if len(c.OrganizationID) != len("user_")+32 || !strings.HasPrefix(c.OrganizationID, "user_") || c.ID != user {
			t.Errorf("got %+v", c)
		}
		return c.OrganizationID
	}
	ada := own(a, "ada")
	if again := own(a, "ada"); again != ada {
		t.Error("the same person has two organizations")
	}
	if own(a, "bob") == ada || own(b, "ada") == ada {
		t.Error("two persons share an organization")
	}
	for _, claimed := range []string{own(a, "ada"), "user_", "user_1"} {
		refused(t, a.verifier(t), a.token(members{"org_id": claimed}))
	}
}

func TestAnIssuerNamesOnlyTheOrganizationsOfItsSettings(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	one, two := a.settings(), b.settings()
	one.Organizations, two.Organizations = []string{"acme", "eu-*"}, []string{"globex"}
	v, err := oidc.New([]oidc.Issuer{one, two}, a.now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for organization, of := range map[string]*authority{"acme": a, "eu-": a, "eu-1": a, "globex": b} {
		if c, err := v.Verify(t.Context(), of.token(members{"org_id": organization})); err != nil || c.OrganizationID != organization {
			t.Errorf("%s: got %+v, %v", organization, c, err)
		}
		other := a
		if of == a {
			other = b
		}
		refused(t, v, other.token(members{"org_id": organization}))
	}
	for _, organization := range []string{"acme2", "Acme", "eu", "acme*", "eu-*", "*", ""} {
		refused(t, v, a.token(members{"org_id": organization}))
	}
	// What one issuer says of itself counts for nothing when the other's key signed it.
	refused(t, v, sign(members{"alg": "ES256", "kid": "ec"}, b.claims(members{"org_id": "globex"}), otherEC()))
}

func TestAServiceWithoutIssuersTakesNoToken(t *testing.T) {
	a := newAuthority(t)
	v, err := oidc.New(nil, a.now, nil)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, v, a.token(nil))
	refused(t, v, "")
}

func TestTimesMayBeOffByAMinute(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	at := func(d time.Duration) int64 { return a.now().Add(d).Unix() }
	for _, good := range []members{
		{"exp": at(-59 * time.Second)}, {"exp": float64(at(0)) + .5}, {"nbf": at(time.Minute)}, {"iat": at(time.Minute)}, {"nbf": nil, "iat": nil}, {"nbf": 0}, {"exp": 253402300799},
	} {
		if _, err := v.Verify(t.Context(), a.token(good)); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []members{{"exp": at(-time.Minute)}, {"nbf": at(61 * time.Second)}, {"iat": at(61 * time.Second)}} {
		refused(t, v, a.token(bad))
	}
	token := a.token(nil)
	a.advance(time.Hour + time.Minute)
	refused(t, v, token)
}

func TestAnErrorSaysNothingOfTheToken(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	const secret = "hush-4711"
	for _, token := range []string{
		secret + "." + secret + "." + secret, a.token(members{"sub": secret + "#"}), a.token(members{"iss": secret}), a.token(members{"aud": secret}),
		a.token(members{"org_id": "user_" + secret}), a.token(members{"role": members{secret: 1}}), a.token(members{"exp": secret}), a.token(members{"plan": secret + "!"}),
		sign(members{"alg": "ES256", "kid": secret}, a.claims(nil), ecKey()), sign(members{"alg": secret}, a.claims(nil), ecKey()),
		signRaw([]byte(`{"alg":"ES256","alg":"`+secret+`"}`), a.claims(nil), ecKey(), nil), sign(members{"alg": "ES256"}, []byte(secret), ecKey()),
	} {
		_, err := v.Verify(t.Context(), token)
		var e *apikey.Error
		if !errors.As(err, &e) {
			t.Fatalf("got %v", err)
		}
		public, _ := json.Marshal(e)
		if all := fmt.Sprintf("%v %+v %v %s", err, e, e.Cause, public); strings.Contains(all, secret) || strings.Contains(all, token) {
			t.Errorf("the error tells: %s", all)
		}
	}
}

func TestWhatHoldsADotIsMeantAsAToken(t *testing.T) {
	a := newAuthority(t)
	for credential, want := range map[string]bool{a.token(nil): true, "a.b.c": true, "e30.e30.": true, "a.b.c.d.e": true,
		"lk_live_8fK2m9Qx_0123456789abcdefghijklmnopqrstuvwxyz": false, "": false, "eyJhbGciOiJub25lIn0": false} {
		if oidc.Looks(credential) != want {
			t.Errorf("%q: got %v", credential, !want)
		}
	}
}

func TestWhatDevelopmentsIssuerSignsIsAPerson(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	i, err := issuer.New(server.URL+"/dev/issuer", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for pattern, h := range i.Handlers() {
		mux.Handle(pattern, h)
	}
	v, err := oidc.New([]oidc.Issuer{{Issuer: i.URL(), Audiences: []string{issuer.Audience}}}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := i.Sign(map[string]any{"sub": "ada", "org_id": "org_dev", "role": "admin"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != "ada" || c.OrganizationID != "org_dev" || !c.Holds("keys:verify") || c.Own {
		t.Errorf("got %+v", c)
	}
}
