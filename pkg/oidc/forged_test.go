package oidc_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math"
	"strings"
	"testing"
	"time"
)

// Every way to forge a token that has a name. Each is InvalidToken, and an issuer is asked for its keys twice at most: at
// first, and for the first key that it does not know.
func TestNoForgedTokenIsAPerson(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	if _, err := v.Verify(t.Context(), a.token(nil)); err != nil {
		t.Fatal(err)
	}
	for _, forge := range []func(*testing.T, *authority) map[string]string{unsigned, confused, headers, claimed, spelled} {
		for name, token := range forge(t, a) {
			t.Run(name, func(t *testing.T) { refused(t, v, token) })
		}
	}
	if n := a.fetches.Load(); n > 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	if _, err := v.Verify(t.Context(), a.token(nil)); err != nil {
		t.Errorf("and then the good one: %v", err)
	}
}

// unsigned tokens have no signature, or another's.
func unsigned(_ *testing.T, a *authority) map[string]string {
	good := a.token(nil)
	body, _, _ := cutLast(good)
	tokens := map[string]string{
		"no signature":          body + ".",
		"no third part":         body,
		"another's EC key":      sign(members{"alg": "ES256", "kid": "ec"}, a.claims(nil), otherEC()),
		"another's RSA key":     sign(members{"alg": "RS256", "kid": "rsa"}, a.claims(nil), otherRSA()),
		"another's PSS key":     sign(members{"alg": "PS256", "kid": "rsa"}, a.claims(nil), otherRSA()),
		"another's Ed key":      sign(members{"alg": "EdDSA", "kid": "ed"}, a.claims(nil), otherEd()),
		"another's key, no kid": sign(members{"alg": "ES256"}, a.claims(nil), otherEC()),
		"zero signature (ES)":   body + "." + b64(make([]byte, 64)),
		"r and s the order":     body + "." + b64(append(elliptic.P256().Params().N.Bytes(), elliptic.P256().Params().N.Bytes()...)),
		"zero signature (Ed)":   resigned(a, "EdDSA", "ed", make([]byte, 64)),
		"zero signature (RSA)":  resigned(a, "RS256", "rsa", make([]byte, 256)),
		"one signature (RSA)":   resigned(a, "RS256", "rsa", append(make([]byte, 255), 1)),
		"signature in DER":      resigned(a, "ES256", "ec", []byte{0x30, 6, 2, 1, 1, 2, 1, 1}),
		"signature twice":       good + strings.TrimPrefix(good, body)[1:],
		"signature of another":  body + "." + lastPart(a.token(members{"sub": "bob"})),
	}
	for _, none := range []string{"none", "None", "NONE", "nOnE", "none ", ""} {
		tokens["alg "+none+" without a signature"] = sign(members{"alg": none, "kid": "ec"}, a.claims(nil), nil)
		tokens["alg "+none+" with a signature"] = sign(members{"alg": none, "kid": "ec"}, a.claims(nil), ecKey())
	}
	return tokens
}

// resigned is a good token with another signature.
func resigned(a *authority, algorithm, kid string, signature []byte) string {
	body, _, _ := cutLast(sign(members{"alg": algorithm, "kid": kid}, a.claims(nil), nil))
	return body + "." + b64(signature)
}

func cutLast(token string) (body, last string, ok bool) {
	at := strings.LastIndex(token, ".")
	return token[:at], token[at+1:], at > 0
}

func lastPart(token string) string {
	_, last, _ := cutLast(token)
	return last
}

// confused tokens are signed with one algorithm and named by another, or keyed with what is public.
func confused(t *testing.T, a *authority) map[string]string {
	tokens := map[string]string{}
	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ecKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"PKIX DER": der, "PKCS1 DER": x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey), "modulus": rsaKey().N.Bytes(),
		"PEM":           pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"PEM trimmed":   []byte(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))),
		"PKCS1 PEM":     pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)}),
		"JWK":           []byte(public("rsa", &rsaKey().PublicKey, nil)),
		"EC PEM":        pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ecDER}),
		"the oct key":   []byte("secret-secret-secret-secret-secret"),
		"nothing":       {},
		"Ed25519 key":   edKey().Public().(ed25519.PublicKey),
		"the whole set": []byte(usual()),
	} {
		for _, algorithm := range []string{"HS256", "HS384", "hs256"} {
			for _, kid := range []string{"rsa", "ec", "ed", "oct"} {
				tokens[algorithm+" with "+name+" as "+kid] = sign(members{"alg": algorithm, "kid": kid}, a.claims(nil), secret)
			}
		}
		tokens["RS256 named, HMAC with "+name] = sign(members{"alg": "RS256", "kid": "rsa"}, a.claims(nil), secret)
	}
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA", "RS384", "RS512", "PS384", "PS512", "ES384", "ES512", "ES256K", "Ed25519", "Ed448", "RS1", "rs256", "es256", "eddsa", "dir", "RSA-OAEP", "A256KW"} {
		for kid, key := range map[string]any{"rsa": rsaKey(), "ec": ecKey(), "ed": edKey()} {
			right := map[string]string{"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[kid]
			if algorithm != right {
				tokens[algorithm+" named, signed as "+right+" as "+kid] = signRaw(must(json.Marshal(members{"alg": algorithm, "kid": kid})), a.claims(nil), key, right)
			}
		}
	}
	for kid, key := range map[string]any{"p384": p384Key(), "small": smallRSA(), "enc": otherRSA(), "wrap": otherEC()} {
		for _, algorithm := range []string{"RS256", "ES256", "ES384"} {
			tokens[algorithm+" by the key "+kid+", which is not to be used"] = sign(members{"alg": algorithm, "kid": kid}, a.claims(nil), key)
			tokens[algorithm+" by the key "+kid+", unnamed"] = sign(members{"alg": algorithm}, a.claims(nil), key)
		}
	}
	return tokens
}

// headers say what must not count, and are signed by a key that they bring, or hold what cannot be understood.
func headers(_ *testing.T, a *authority) map[string]string {
	jwk := json.RawMessage(public("ec", &otherEC().PublicKey, nil))
	tokens := map[string]string{}
	for name, more := range map[string]members{
		"jwk": {"jwk": jwk}, "jku": {"jku": "https://evil.example/jwks"}, "jku of its own": {"jku": a.URL + "/jwks"}, "x5u": {"x5u": "https://evil.example/x5u"},
		"x5c": {"x5c": []string{"MIIB"}}, "x5c empty": {"x5c": []string{}}, "x5t": {"x5t": "AAAA"}, "iss in the header": {"iss": a.URL},
		"kid a path": {"kid": "../../../../dev/null"}, "kid a file": {"kid": "/proc/self/environ"}, "kid SQL": {"kid": "ec' UNION SELECT 'x"}, "kid a command": {"kid": "ec|id"},
		"kid an address": {"kid": "https://evil.example/jwks"}, "kid of NUL": {"kid": "ec\x00"}, "kid in capitals": {"kid": "EC"}, "kid with a space": {"kid": "ec "},
		"kid huge": {"kid": strings.Repeat("k", 5000)}, "kid unknown": {"kid": "unknown"},
	} {
		header := members{"alg": "ES256", "kid": "ec"}
		for k, v := range more {
			header[k] = v
		}
		tokens[name+", another's signature"] = sign(header, a.claims(nil), otherEC())
	}
	for name, more := range map[string]members{
		"kid empty": {"kid": ""}, "kid null": {"kid": nil}, "kid a number": {"kid": 1}, "kid a list": {"kid": []string{"ec"}}, "kid an object": {"kid": members{}},
		"crit": {"crit": []string{"exp"}}, "crit of its own": {"crit": []string{"acme"}, "acme": true}, "crit empty": {"crit": []string{}}, "crit null": {"crit": nil},
		"b64 false": {"b64": false, "crit": []string{"b64"}}, "b64 false, not critical": {"b64": false}, "b64 true": {"b64": true},
		"typ of a logout": {"typ": "logout+jwt"}, "typ of an event": {"typ": "secevent+jwt"}, "typ of a proof": {"typ": "dpop+jwt"}, "typ a number": {"typ": 1}, "typ empty": {"typ": ""},
		"alg null": {"alg": nil}, "alg a list": {"alg": []string{"ES256"}}, "alg a number": {"alg": 256}, "jwk of no sense": {"jwk": "x"},
	} {
		header := members{"alg": "ES256", "kid": "ec"}
		for k, v := range more {
			header[k] = v
		}
		tokens[name+", its own signature"] = sign(header, a.claims(nil), ecKey())
	}
	for name, header := range map[string]string{
		"alg twice": `{"alg":"ES256","alg":"none","kid":"ec"}`, "alg twice, the other way": `{"alg":"none","alg":"ES256","kid":"ec"}`, "kid twice": `{"alg":"ES256","kid":"x","kid":"ec"}`,
		"Alg": `{"Alg":"ES256","kid":"ec"}`, "alg escaped twice": `{"alg":"ES256","\u0061lg":"none","kid":"ec"}`, "no alg": `{"kid":"ec"}`, "a list": `["ES256"]`, "null": `null`, "empty": ``, "a string": `"ES256"`,
		"more after it": `{"alg":"ES256","kid":"ec"}{}`, "no end": `{"alg":"ES256","kid":"ec"`, "a comma at its end": `{"alg":"ES256","kid":"ec",}`, "not UTF-8": "{\"alg\":\"ES256\",\"kid\":\"ec\",\"x\":\"\xff\"}",
		"half a surrogate": `{"alg":"ES256","kid":"ec","x":"\ud800"}`, "twice inside": `{"alg":"ES256","kid":"ec","x":{"y":1,"y":2}}`, "a byte order mark": "\ufeff" + `{"alg":"ES256","kid":"ec"}`,
	} {
		tokens["header: "+name] = signRaw([]byte(header), a.claims(nil), ecKey(), "ES256")
	}
	return tokens
}

// claimed tokens are signed by their issuer, and claim what may not be.
func claimed(_ *testing.T, a *authority) map[string]string {
	tokens := map[string]string{}
	at := func(d time.Duration) int64 { return a.now().Add(d).Unix() }
	for name, change := range map[string]members{
		"expired": {"exp": at(-2 * time.Minute)}, "no exp": {"exp": nil}, "exp a string": {"exp": "9999999999"}, "exp true": {"exp": true}, "exp a list": {"exp": []int64{at(time.Hour)}},
		"exp beyond the year 9999": {"exp": 253402300800}, "exp huge": {"exp": 1e300}, "exp the highest": {"exp": int64(math.MaxInt64)}, "exp below 0": {"exp": -1}, "exp 0": {"exp": 0},
		"exp in milliseconds": {"exp": at(time.Hour) * 1000}, "exp beyond any number": {"exp": json.Number("1" + strings.Repeat("0", 400))},
		"not yet valid": {"nbf": at(2 * time.Minute)}, "nbf a string": {"nbf": "0"}, "nbf huge": {"nbf": 1e300}, "iat in the future": {"iat": at(time.Hour)}, "iat an object": {"iat": members{}},
		"no issuer": {"iss": nil}, "another issuer": {"iss": "https://evil.example"}, "the issuer with a slash": {"iss": a.URL + "/"}, "the issuer in capitals": {"iss": strings.ToUpper(a.URL)},
		"the issuer and more": {"iss": a.URL + ".evil.example"}, "two issuers": {"iss": []string{a.URL}}, "an empty issuer": {"iss": ""}, "the issuer with a space": {"iss": " " + a.URL},
		"no audience": {"aud": nil}, "another audience": {"aud": "other"}, "other audiences": {"aud": []string{"other", "more"}}, "no audience in a list": {"aud": []string{}}, "an empty audience": {"aud": ""},
		"an audience that is longer": {"aud": "latchkey2"}, "an audience in capitals": {"aud": "Latchkey"}, "an audience in an object": {"aud": members{"latchkey": 1}}, "a number among audiences": {"aud": []any{"latchkey", 1}}, "a list in audiences": {"aud": []any{[]string{"latchkey"}}},
		"no user": {"sub": nil}, "an empty user": {"sub": ""}, "the user a number": {"sub": 42}, "the user a list": {"sub": []string{"ada"}}, "the user true": {"sub": true},
		"a user with #": {"sub": "a#b"}, "a user with a space": {"sub": "a b"}, "a user with a line break": {"sub": "a\nb"}, "a user with a NUL": {"sub": "a\x00"}, "a user beyond ASCII": {"sub": "ådå"}, "a long user": {"sub": strings.Repeat("a", 129)},
		"a user like a key": {"sub": "key_8fK2m9Qx"}, "a user like the service": {"sub": "latchkeyd"},
		"an empty organization": {"org_id": ""}, "an organization of a number": {"org_id": 7}, "organizations": {"org_id": []string{"acme"}}, "an organization false": {"org_id": false}, "an organization with #": {"org_id": "acme#x"},
		"a person's organization": {"org_id": "user_0123456789abcdef0123456789abcdef"}, "a long organization": {"org_id": strings.Repeat("o", 129)}, "an organization in an object": {"org_id": members{"id": "acme"}},
		"an empty plan": {"plan": ""}, "a plan of a number": {"plan": 1}, "plans": {"plan": []string{"pro"}},
		"an empty role": {"role": ""}, "a role of a number": {"role": 3}, "a role true": {"role": true}, "a role in an object": {"role": members{"admin": true}}, "a number among roles": {"role": []any{"viewer", 1}}, "an empty role among roles": {"role": []string{"viewer", ""}},
		"huge": {"x": strings.Repeat("x", 8<<10)},
	} {
		tokens[name] = a.token(change)
	}
	for _, name := range []string{"exp", "nbf", "iat", "iss", "aud", "sub", "org_id", "plan", "role"} {
		tokens[name+" null"] = a.token(members{name: json.RawMessage("null")})
	}
	good := string(a.claims(nil))
	for name, payload := range map[string]string{
		"claims: nothing": "", "claims: a list": "[]", "claims: null": "null", "claims: a string": `"ada"`, "claims: a token in a token": a.token(nil),
		"claims: sub twice": strings.Replace(good, "{", `{"sub":"bob",`, 1), "claims: exp twice": strings.Replace(good, "{", `{"exp":99999999999,`, 1),
		"claims: org_id twice, escaped": strings.Replace(good, "{", `{"org\u005fid":"globex",`, 1), "claims: twice inside": strings.Replace(good, "{", `{"x":{"y":1,"y":1},`, 1),
		"claims: more after them": good + "{}", "claims: no end": good[:len(good)-1], "claims: not UTF-8": strings.Replace(good, "{", "{\"x\":\"\xff\",", 1), "claims: half a surrogate": strings.Replace(good, "{", `{"x":"\udc00",`, 1),
		"claims: deep, unbalanced": strings.Repeat(`{"a":`, 1000), "claims: NaN": strings.Replace(good, "{", `{"x":NaN,`, 1), "claims: a comment": good + "/**/", "claims: a name in capitals": strings.Replace(good, `"exp"`, `"EXP"`, 1),
	} {
		tokens[name] = signRaw([]byte(`{"alg":"ES256","kid":"ec"}`), []byte(payload), ecKey(), "ES256")
	}
	return tokens
}

// spelled tokens are good ones in another spelling, or another serialization.
func spelled(_ *testing.T, a *authority) map[string]string {
	good := a.token(nil)
	parts := strings.Split(good, ".")
	padded := func(n int) string {
		p := append([]string{}, parts...)
		p[n] += "="
		return strings.Join(p, ".")
	}
	tokens := map[string]string{
		"empty": "", "dots": "..", "more dots": "....", "one part": parts[0], "a part more": good + ".", "a part before": "." + good, "five parts, as encrypted": good + "." + parts[1] + "." + parts[2],
		"encrypted": b64([]byte(`{"alg":"dir","enc":"A256GCM"}`)) + "..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA", "detached": parts[0] + ".." + parts[2],
		"JSON, flattened":       `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`,
		"JSON, general":         `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`,
		"padding in the header": padded(0), "padding in the claims": padded(1), "padding in the signature": padded(2),
		"a line break at its end": good + "\n", "a line break at its start": "\r\n" + good, "a space at its end": good + " ", "a NUL at its end": good + "\x00", "garbage at its end": good + "AAAA", "Bearer before it": "Bearer " + good,
		"a comma and more": good + "," + good, "percent-encoded": strings.ReplaceAll(good, ".", "%2e"), "huge": good + strings.Repeat("A", 9<<10), "a megabyte": strings.Repeat("eyJ.", 1<<18),
		"in standard base64": strings.NewReplacer("-", "+", "_", "/").Replace(standard(a)),
	}
	for n := range parts {
		p := append([]string{}, parts...)
		p[n] = p[n][:4] + "\n" + p[n][4:]
		tokens["a line break in part "+parts[n][:2]+string(rune('0'+n))] = strings.Join(p, ".")
	}
	return tokens
}

// standard is a token in whose signature base64 differs from base64url.
func standard(a *authority) string {
	for {
		if token := a.token(nil); strings.ContainsAny(token, "-_") {
			return token
		}
	}
}

func TestNoTokenWithOneByteChangedIsAPerson(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	for _, good := range []string{a.token(nil), sign(members{"alg": "EdDSA", "kid": "ed"}, a.claims(nil), edKey()), sign(members{"alg": "RS256", "kid": "rsa"}, a.claims(nil), rsaKey())} {
		if _, err := v.Verify(t.Context(), good); err != nil {
			t.Fatal(err)
		}
		for at := range len(good) {
			refused(t, v, good[:at]+good[at+1:])
			for _, by := range []byte{good[at] ^ 1, good[at] ^ 2, good[at] ^ 32, good[at] ^ 128, '.', '=', 'A', '\n'} {
				if by != good[at] {
					refused(t, v, good[:at]+string([]byte{by})+good[at+1:])
				}
			}
			if t.Failed() {
				t.Fatalf("at byte %d of %d", at, len(good))
			}
		}
	}
}

// Every spelling of the last character of each part that decodes to the same bytes would be another token of the same
// content.
func TestATokenHasOneSpelling(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	good, same := a.token(nil), 0
	for n, part := range strings.Split(good, ".") {
		for _, c := range alphabet {
			other := part[:len(part)-1] + string(c)
			x, _ := base64.RawURLEncoding.DecodeString(part)
			y, _ := base64.RawURLEncoding.DecodeString(other)
			if other == part || string(x) != string(y) {
				continue
			}
			same++
			parts := strings.Split(good, ".")
			parts[n] = other
			refused(t, v, strings.Join(parts, "."))
		}
	}
	if same == 0 {
		t.Error("no part had another spelling: the test looked at nothing")
	}
}

// A token of 8 KiB, most of it one deeply nested claim, is read in bounded time, like any other.
func TestADeeplyNestedClaimIsNoHarm(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	deep := strings.Repeat("[", 2500) + strings.Repeat("]", 2500)
	payload := strings.Replace(string(a.claims(nil)), "{", `{"deep":`+deep+`,`, 1)
	if _, err := v.Verify(t.Context(), sign(members{"alg": "ES256", "kid": "ec"}, []byte(payload), ecKey())); err != nil {
		t.Error(err)
	}
	refused(t, a.verifier(t), a.token(members{"role": json.RawMessage(deep)}))
}
