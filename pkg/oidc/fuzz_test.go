package oidc_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/oidc"
)

// No text is a person but what the issuer signed, and none makes anything fall over.
func FuzzVerify(f *testing.F) {
	a := newAuthority(f)
	good := a.token(nil)
	v := a.verifier(f)
	if _, err := v.Verify(f.Context(), good); err != nil {
		f.Fatal(err)
	}
	f.Add(good[:len(good)-1])
	f.Add(sign(members{"alg": "none"}, a.claims(nil), nil))
	f.Add(sign(members{"alg": "ES256", "kid": "ec"}, a.claims(members{"aud": []string{"latchkey"}, "exp": 1.5e9}), otherEC()))
	f.Add(sign(members{"alg": "EdDSA", "jwk": members{"kty": "OKP"}, "x5c": []string{"MIIB"}}, a.claims(members{"org_id": nil}), otherEd()))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if token == good {
			return
		}
		if c, err := v.Verify(t.Context(), token); err == nil || apikey.CodeOf(err) != apikey.InvalidToken {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

// No claims, signed by the issuer, make a caller that may do what no role may, or whose ids are none.
func FuzzClaims(f *testing.F) {
	a := newAuthority(f)
	// The issuer has the same name in every process that fuzzes, whatever its port is.
	const name = "https://issuer.example"
	v := a.verifier(f, func(i *oidc.Issuer) { i.Issuer, i.JWKS = name, a.URL+"/jwks" })
	f.Add(string(a.claims(members{"iss": name})))
	f.Add(string(a.claims(members{"iss": name, "org_id": nil, "role": []string{"viewer"}, "plan": "pro"})))
	f.Add(strings.Replace(string(a.claims(members{"iss": name})), "{", `{"sub":"bob",`, 1))
	f.Fuzz(func(t *testing.T, claims string) {
		c, err := v.Verify(t.Context(), sign(members{"alg": "EdDSA", "kid": "ed"}, []byte(claims), edKey()))
		if err != nil {
			if apikey.CodeOf(err) != apikey.InvalidToken {
				t.Error(err)
			}
			return
		}
		if c.Holds(apikey.OrgAdmin) || !apikey.ValidID(c.ID) || !apikey.ValidID(c.OrganizationID) || strings.HasPrefix(c.ID, "key_") || len(c.Scopes) == 0 {
			t.Errorf("%s makes %+v", claims, c)
		}
	})
}

// Whatever an issuer answers, nothing falls over: it has keys, or it has none.
func FuzzKeys(f *testing.F) {
	a := newAuthority(f)
	f.Add(usual())
	f.Add(set(public("ec", &ecKey().PublicKey, members{"x5c": []string{"MIIB"}, "x": "AAAA"})))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQAB","e":""}]}`)
	token := a.token(nil)
	f.Fuzz(func(t *testing.T, answer string) {
		a.serve.Store(http.HandlerFunc(say(answer)))
		if _, err := a.verifier(t).Verify(t.Context(), token); err != nil && apikey.CodeOf(err) != apikey.Unavailable && apikey.CodeOf(err) != apikey.InvalidToken {
			t.Error(err)
		}
	})
}
