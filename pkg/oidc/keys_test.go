package oidc_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/oidc"
)

// hang answers nothing until the client gives up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// drip answers a byte at a time, for ever: as fast as it is read, so that the end is the reader's doing.
func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(" ")); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// The ways in which an issuer fails to say its keys.
var failures = map[string]http.HandlerFunc{
	"hangs":     hang,
	"drips":     drip,
	"is broken": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, usual(), http.StatusInternalServerError) },
	"is gone":   http.NotFound,
	"redirects": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
	"redirects and answers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
		_, _ = w.Write([]byte(usual()))
	},
	"answers 50 MB": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(usual()[:len(usual())-1]))
		for range 50 {
			if _, err := w.Write([]byte(strings.Repeat(" ", 1<<20))); err != nil {
				return
			}
		}
		_, _ = w.Write([]byte("}"))
	},
	"breaks off": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write([]byte(usual()))
	},
	"hangs up":            func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"answers 201":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); _, _ = w.Write([]byte(usual())) },
	"answers HTML":        say("<html>"),
	"answers nothing":     say(""),
	"answers a list":      say("[]"),
	"answers null":        say("null"),
	"answers no set":      say(`{"key":[]}`),
	"has keys in a map":   say(`{"keys":{}}`),
	"has no keys":         say(set()),
	"has members twice":   say(`{"keys":[],` + usual()[1:]),
	"has one of a secret": say(set(`{"kty":"oct","kid":"ec","alg":"ES256","k":"AAAA"}`)),
	"has a small RSA key": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(set(public("ec", &smallRSA().PublicKey, nil))))
	},
	"has another curve": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(set(public("ec", &p384Key().PublicKey, nil))))
	},
	"has 101 keys": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(set(strings.Split(strings.Repeat("{} ", 100)+public("ec", &ecKey().PublicKey, members{}), " ")...)))
	},
	"tells a private key": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(set(public("ec", &ecKey().PublicKey, members{"d": "AAAA"}))))
	},
	"has a point that is not on its curve": say(set(`{"kty":"EC","crv":"P-256","kid":"ec","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`)),
}

func say(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) }
}

func TestAnIssuerThatFailsMakesNewPeopleWaitAndKeepsNobodyOutWhoWasIn(t *testing.T) {
	for name, serve := range failures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			token := a.token(members{"exp": a.now().Add(100 * 24 * time.Hour).Unix()})
			known, unknown := a.verifier(t), a.verifier(t)
			if _, err := known.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			a.serve.Store(serve)
			unavailable(t, unknown, token)
			for range 10 { // not even asked for, for a few seconds
				unavailable(t, unknown, token)
			}
			if n := a.fetches.Load(); n != 2 && name != "hangs up" { // then net/http asks again by itself
				t.Errorf("the keys were fetched %d times", n)
			}
			for range 5 {
				a.advance(3 * time.Hour)
				if _, err := known.Verify(t.Context(), token); err != nil {
					t.Fatalf("with keys that are known: %v", err)
				}
			}
			refused(t, known, sign(members{"alg": "ES256", "kid": "unknown"}, a.claims(nil), ecKey()))
			a.serve.Store(http.HandlerFunc(nil))
			if _, err := unknown.Verify(t.Context(), token); err != nil {
				t.Errorf("once the issuer answers: %v", err)
			}
		})
	}
}

func unavailable(t *testing.T, v *oidc.Verifier, token string) {
	t.Helper()
	began := time.Now()
	_, err := v.Verify(t.Context(), token)
	if code := apikey.CodeOf(err); code != apikey.Unavailable || code.Status() != http.StatusServiceUnavailable {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Our own client is bounded too, discovery and keys together.
func TestNobodyWaitsLongerThanThreeSecondsForAnIssuer(t *testing.T) {
	for path, serve := range map[string]http.HandlerFunc{"/.well-known/openid-configuration": hang, "/jwks": drip} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == path {
					serve(w, r)
					return
				}
				fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://%[1]s/jwks"}`, r.Host)
			}))
			defer server.Close()
			v, err := oidc.New([]oidc.Issuer{{Issuer: server.URL, Audiences: []string{"latchkey"}}}, a.now, nil)
			if err != nil {
				t.Fatal(err)
			}
			unavailable(t, v, a.token(members{"iss": server.URL}))
		})
	}
}

func TestARequestThatHasNoTimeLeftDoesNotWait(t *testing.T) {
	a := newAuthority(t)
	a.serve.Store(http.HandlerFunc(hang))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.verifier(t).Verify(ctx, a.token(nil)); apikey.CodeOf(err) != apikey.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestADeadIssuerIsAskedAgainEveryFewSecondsAtMost(t *testing.T) {
	a := newAuthority(t)
	a.serve.Store(http.HandlerFunc(http.NotFound))
	v := a.verifier(t)
	for range 60 { // a minute
		unavailable(t, v, a.token(nil))
		a.advance(time.Second)
	}
	if n := a.fetches.Load(); n != 12 {
		t.Errorf("the keys were fetched %d times in a minute", n)
	}
}

func TestANewKeyIsTakenAfterOneFetch(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	if _, err := v.Verify(t.Context(), a.token(nil)); err != nil {
		t.Fatal(err)
	}
	a.advance(2 * time.Minute)
	rotated := sign(members{"alg": "ES256", "kid": "ec2"}, a.claims(nil), otherEC())
	a.keys.Store(set(public("ec", &ecKey().PublicKey, nil), public("ec2", &otherEC().PublicKey, nil)))
	for _, token := range []string{rotated, a.token(nil)} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
	if n := a.fetches.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	// The issuer withdraws its first key. Whatever has the keys fetched ends it.
	a.keys.Store(set(public("ec2", &otherEC().PublicKey, nil)))
	a.advance(2 * time.Minute)
	refused(t, v, sign(members{"alg": "ES256", "kid": "unknown"}, a.claims(nil), ecKey()))
	refused(t, v, a.token(nil))
	if _, err := v.Verify(t.Context(), rotated); err != nil {
		t.Error(err)
	}
}

func TestAnIssuerWhoseKeysHaveNoNamesMayRotateThem(t *testing.T) {
	a := newAuthority(t)
	a.keys.Store(set(public("", &ecKey().PublicKey, nil)))
	v := a.verifier(t)
	unnamed := members{"alg": "ES256"}
	if _, err := v.Verify(t.Context(), sign(unnamed, a.claims(nil), ecKey())); err != nil {
		t.Fatal(err)
	}
	a.keys.Store(set(public("", &otherEC().PublicKey, nil)))
	refused(t, v, sign(unnamed, a.claims(nil), otherEC()))
	a.advance(time.Minute)
	if _, err := v.Verify(t.Context(), sign(unnamed, a.claims(nil), otherEC())); err != nil {
		t.Error(err)
	}
	refused(t, v, sign(unnamed, a.claims(nil), ecKey()))
}

func TestATokenWithoutAKeysNameIsTriedWithAHandfulAtMost(t *testing.T) {
	a := newAuthority(t)
	var keys []string
	for range 8 {
		keys = append(keys, public("other", &otherEC().PublicKey, nil))
	}
	token := sign(members{"alg": "ES256"}, a.claims(nil), ecKey())
	a.keys.Store(set(append(keys[:7:7], public("ec", &ecKey().PublicKey, nil))...))
	if _, err := a.verifier(t).Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	a.keys.Store(set(append(keys, public("ec", &ecKey().PublicKey, nil))...))
	refused(t, a.verifier(t), token)
}

func TestUnknownKeysHaveAnIssuerAskedOnceAMinute(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	if _, err := v.Verify(t.Context(), a.token(nil)); err != nil {
		t.Fatal(err)
	}
	for second := range 300 { // five minutes
		a.advance(time.Second)
		refused(t, v, sign(members{"alg": "ES256", "kid": fmt.Sprint("unknown", second)}, a.claims(nil), ecKey()))
		refused(t, v, sign(members{"alg": "ES256"}, a.claims(nil), otherEC()))
	}
	if n := a.fetches.Load(); n != 1+5 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestManyWhoWaitShareOneFetch(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	good, rotated := a.token(nil), sign(members{"alg": "ES256", "kid": "ec2"}, a.claims(nil), otherEC())
	at := func(tokens ...string) {
		var all sync.WaitGroup
		for range 50 {
			for _, token := range tokens {
				all.Go(func() {
					if _, err := v.Verify(t.Context(), token); err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
	}
	at(good)
	if n := a.fetches.Load(); n != 1 {
		t.Errorf("at first the keys were fetched %d times", n)
	}
	a.keys.Store(set(public("ec", &ecKey().PublicKey, nil), public("ec2", &otherEC().PublicKey, nil)))
	a.advance(time.Minute)
	at(good, rotated)
	if n := a.fetches.Load(); n != 2 {
		t.Errorf("then the keys were fetched %d times in all", n)
	}
}

func TestKeysAreRenewedAfterAnHourAndNobodyWaits(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	token := a.token(members{"exp": a.now().Add(24 * time.Hour).Unix()})
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	a.serve.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		_, _ = w.Write([]byte(set(public("ec2", &otherEC().PublicKey, nil))))
	}))
	a.advance(time.Hour - time.Second)
	for i := range 3 { // the third begins the fetch, which is not answered before they all are
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
		if n := a.fetches.Load(); i < 2 && n != 1 {
			t.Errorf("the keys were fetched %d times within the hour", n)
		}
		a.advance(time.Second / 2)
	}
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	within(t, asked)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	close(answer)
	// A token by the new key waits for the fetch under way, if it still is.
	if _, err := v.Verify(t.Context(), sign(members{"alg": "ES256", "kid": "ec2"}, a.claims(nil), otherEC())); err != nil {
		t.Error(err)
	}
	refused(t, v, token)
}

// within waits for what is about to happen.
func within(t *testing.T, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(10 * time.Second):
		t.Fatal("the issuer was not asked")
	}
}

// Nobody has to ask an issuer to refuse what would be refused anyway.
func TestATokenThatCannotBeRightFetchesNothing(t *testing.T) {
	a := newAuthority(t)
	a.serve.Store(http.HandlerFunc(http.NotFound))
	v := a.verifier(t, func(i *oidc.Issuer) { i.Algorithms = []string{"ES256", "EdDSA"} })
	for _, token := range []string{
		sign(members{"alg": "none"}, a.claims(nil), nil), sign(members{"alg": "HS256", "kid": "ec"}, a.claims(nil), []byte("x")), sign(members{"alg": "RS256", "kid": "rsa"}, a.claims(nil), rsaKey()),
		a.token(members{"exp": 1}), a.token(members{"aud": "other"}), a.token(members{"org_id": 1}), a.token(members{"role": ""}), a.token(members{"iss": "https://evil.example"}),
	} {
		refused(t, v, token)
	}
	if n := a.fetches.Load(); n != 0 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestADiscoveryDocumentThatLiesIsNotBelieved(t *testing.T) {
	a := newAuthority(t)
	for name, document := range map[string]string{
		"of another issuer":         `{"issuer":"https://evil.example","jwks_uri":"` + a.URL + `/jwks"}`,
		"of the issuer and a slash": `{"issuer":"URL/","jwks_uri":"` + a.URL + `/jwks"}`,
		"of nobody":                 `{"jwks_uri":"` + a.URL + `/jwks"}`,
		"without keys":              `{"issuer":"URL"}`,
		"with keys at http":         `{"issuer":"URL","jwks_uri":"http://issuer.example/jwks"}`,
		"with keys in a file":       `{"issuer":"URL","jwks_uri":"file:///etc/passwd"}`,
		"with keys at a password":   `{"issuer":"URL","jwks_uri":"https://u:p@issuer.example/jwks"}`,
		"with keys in a list":       `{"issuer":"URL","jwks_uri":["` + a.URL + `/jwks"]}`,
		"with two issuers":          `{"issuer":"https://evil.example","issuer":"URL","jwks_uri":"` + a.URL + `/jwks"}`,
		"that is no JSON":           `issuer`,
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(strings.ReplaceAll(document, "URL", "http://"+r.Host)))
			}))
			defer server.Close()
			v, err := oidc.New([]oidc.Issuer{{Issuer: server.URL, Audiences: []string{"latchkey"}}}, a.now, nil)
			if err != nil {
				t.Fatal(err)
			}
			unavailable(t, v, a.token(members{"iss": server.URL}))
		})
	}
	if n := a.fetches.Load(); n != 0 {
		t.Errorf("keys were fetched %d times on its word", n)
	}
}

func TestKeysAreFetchedFromWhereTheSettingsSay(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t, func(i *oidc.Issuer) { i.Issuer, i.JWKS = "https://issuer.example/", a.URL+"/jwks" })
	if _, err := v.Verify(t.Context(), a.token(members{"iss": "https://issuer.example/"})); err != nil {
		t.Error(err)
	}
	refused(t, v, a.token(members{"iss": "https://issuer.example"}))
}

// A clock that is set back is no reason to wait until it is where it was.
func TestAClockThatIsSetBackHoldsUpNoFetch(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	a.serve.Store(http.HandlerFunc(http.NotFound))
	a.advance(24 * time.Hour)
	unavailable(t, v, a.token(nil))
	a.serve.Store(http.HandlerFunc(nil))
	a.advance(-24 * time.Hour)
	if _, err := v.Verify(t.Context(), a.token(nil)); err != nil {
		t.Error(err)
	}
}

// A Lambda is stopped as soon as it has answered. What it does in the background may never end, so it is waited for then.
func TestAFetchThatWasLostWhileTheProcessStoodStillIsWaitedForOnce(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t)
	token := a.token(members{"exp": a.now().Add(24 * time.Hour).Unix()})
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	a.serve.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.advance(10 * time.Second) // the process stands still
		close(asked)
		http.NotFound(w, r)
	}))
	a.advance(2 * time.Hour)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	within(t, asked)
	refused(t, v, sign(members{"alg": "ES256", "kid": "unknown"}, a.claims(nil), ecKey())) // waits for the fetch, if it still runs
	a.serve.Store(http.HandlerFunc(nil))
	before := a.fetches.Load()
	a.keys.Store(set(public("ec2", &otherEC().PublicKey, nil)))
	a.advance(2 * time.Hour)
	for range 2 {
		refused(t, v, token)
	}
	if n := a.fetches.Load() - before; n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}
