package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/oidc"
)

// The keys of the tests' issuers, made once: RSA ones take a while.
var (
	rsaKey    = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	otherEC   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	edKey     = sync.OnceValue(func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k })
	otherEd   = sync.OnceValue(func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k })
	smallRSA  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	beginning = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// clock is a time that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return beginning.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// authority is an issuer: a discovery document, keys, and a count of what it is asked.
type authority struct {
	*clock
	URL     string
	keys    atomic.Value // string: the JWK Set
	serve   atomic.Value // http.HandlerFunc, in place of the keys
	fetches atomic.Int64 // of keys
}

// newAuthority starts an issuer that has the usual four keys.
func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{clock: &clock{}}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections() // of handlers that hang
		server.Close()
	})
	a.URL = server.URL
	a.keys.Store(usual())
	a.serve.Store(http.HandlerFunc(nil))
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": a.URL, "jwks_uri": a.URL + "/jwks"})
	})
	mux.HandleFunc("GET /elsewhere", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(usual())) })
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, r *http.Request) {
		a.fetches.Add(1)
		if serve := a.serve.Load().(http.HandlerFunc); serve != nil {
			serve(w, r)
			return
		}
		_, _ = w.Write([]byte(a.keys.Load().(string)))
	})
	return a
}

// usual is the four keys by their kid: rsa (no alg: for RS256 and PS256), ec, ed, and others that are of no use.
func usual() string {
	return set(public("rsa", &rsaKey().PublicKey, nil), public("ec", &ecKey().PublicKey, nil), public("ed", edKey().Public(), nil),
		public("p384", &p384Key().PublicKey, nil), public("small", &smallRSA().PublicKey, nil),
		`{"kty":"oct","kid":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}`,
		public("enc", &otherRSA().PublicKey, map[string]any{"use": "enc"}),
		public("wrap", &otherEC().PublicKey, map[string]any{"key_ops": []string{"deriveBits"}}),
		`{"kty":"AKP","kid":"tomorrow","alg":"ML-DSA-65","pub":"AAAA"}`, `{}`, `7`, `null`)
}

func set(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// public prints a public key as a JWK, with more members or others.
func public(kid string, key any, more map[string]any) string {
	members := map[string]any{}
	b := must(jose.JSONWebKey{Key: key, KeyID: kid}.MarshalJSON())
	if err := json.Unmarshal(b, &members); err != nil {
		panic(err)
	}
	maps.Copy(members, more)
	return string(must(json.Marshal(members)))
}

// settings are those of an authority.
func (a *authority) settings() oidc.Issuer {
	return oidc.Issuer{Issuer: a.URL, Audiences: []string{"latchkey", "console"}}
}

// verifier trusts the authority alone.
func (a *authority) verifier(t testing.TB, change ...func(*oidc.Issuer)) *oidc.Verifier {
	t.Helper()
	s := a.settings()
	for _, c := range change {
		c(&s)
	}
	v, err := oidc.New([]oidc.Issuer{s}, a.now, &http.Client{Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type members = map[string]any

// claims are good ones, with others in place of some; a nil one is left out.
func (a *authority) claims(change members) []byte {
	now := a.now()
	claims := members{"iss": a.URL, "aud": "latchkey", "sub": "ada", "org_id": "acme", "role": "admin",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return must(json.Marshal(claims))
}

// token is a good token signed with ES256.
func (a *authority) token(change members) string {
	return sign(members{"alg": "ES256", "kid": "ec"}, a.claims(change), ecKey())
}

// sign makes a compact JWS by hand, so that it can be wrong in any way. What is signed with is told by the key's type
// and the header's algorithm.
func sign(header members, payload []byte, key any) string {
	return signRaw(must(json.Marshal(header)), payload, key, header["alg"])
}

func signRaw(header, payload []byte, key, algorithm any) string {
	signed := b64(header) + "." + b64(payload)
	return signed + "." + b64(signature([]byte(signed), key, algorithm))
}

func signature(signed []byte, key, algorithm any) []byte {
	sum := sha256.Sum256(signed)
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if algorithm == "PS256" {
			return must(rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:]))
	case *ecdsa.PrivateKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, signed)
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write(signed)
		return mac.Sum(nil)
	}
	return nil
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// refused wants the token refused with InvalidToken, by an error that says nothing of it.
func refused(t *testing.T, v *oidc.Verifier, token string) {
	t.Helper()
	c, err := v.Verify(t.Context(), token)
	if code := apikey.CodeOf(err); err == nil || code != apikey.InvalidToken || code.Status() != http.StatusUnauthorized {
		t.Errorf("got %v for %+v, want it refused", err, c)
	}
	if len(c.Scopes) > 0 || c.OrganizationID != "" || c.ID != "" {
		t.Errorf("a refusal came with the caller %+v", c)
	}
}
