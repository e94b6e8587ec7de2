package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	fetchTimeout = 3 * time.Second // for discovery and keys together
	fresh        = time.Hour       // after which keys are fetched again, while they are used
	calm         = time.Minute     // between fetches while there are keys
	retry        = 5 * time.Second // between fetches while there are none
	maxAnswer    = 1 << 20         // bytes
	maxKeys      = 100
	handful      = 8    // keys that are tried for one token
	minRSA       = 2048 // bits
)

// errNoKeys says that nothing can be decided about any token of the issuer.
var errNoKeys = errors.New("no keys")

// key is one public key of an issuer.
type key struct {
	kid        string
	algorithms []jose.SignatureAlgorithm // that it may sign with
	public     any
}

// keySet is an issuer's keys, fetched when needed and kept.
type keySet struct {
	issuer     string
	address    string // of the keys; "": the issuer's discovery document tells
	algorithms []jose.SignatureAlgorithm
	now        func() time.Time
	client     *http.Client

	mu      sync.Mutex
	keys    []key     // nil: never had any
	got     time.Time // when keys were had
	tried   time.Time // when the last fetch began
	failed  error     // what came of it
	stopped bool      // it failed, and took longer than any fetch may: the process did not run meanwhile
	running chan struct{}
}

// verify says that one of the keys signed the token. The error is errNoKeys when there are none, and something else when
// the token is to be refused.
func (s *keySet) verify(ctx context.Context, t *token) error {
	if !slices.Contains(s.algorithms, t.algorithm) {
		return errAlgorithm
	}
	keys, err := s.known(ctx)
	if err != nil {
		return err
	}
	err = t.signedByOne(keys)
	if !errors.Is(err, errUnknown) {
		return err
	}
	// The issuer may have new keys.
	keys, fetched := s.newer(ctx)
	if !fetched {
		return err
	}
	return t.signedByOne(keys)
}

// signedByOne says that one of the keys signed the token, errUnknown if none could have, and errSignature if the key that
// the token names did not. A token that names no key and is signed by none may be signed by one not known yet.
func (t *token) signedByOne(keys []key) error {
	fitting := slices.DeleteFunc(slices.Clone(keys), func(k key) bool {
		return t.kid != "" && k.kid != t.kid || !slices.Contains(k.algorithms, t.algorithm)
	})
	if len(fitting) > handful {
		return errSignature
	}
	if slices.ContainsFunc(fitting, t.signedBy) {
		return nil
	}
	if t.kid != "" && len(fitting) > 0 {
		return errSignature
	}
	return errUnknown
}

// known returns the keys that are there. Where there are none it waits for a fetch. Where there are, it renews them in the
// background; it waits for that only if the process was stopped during the last try, as Lambda stops it between requests.
func (s *keySet) known(ctx context.Context) ([]key, error) {
	s.mu.Lock()
	now := s.now()
	due := passed(now, s.tried, retry)
	if s.keys != nil {
		due = passed(now, s.got, fresh) && passed(now, s.tried, calm)
	}
	must := s.keys == nil || due && s.stopped && s.running == nil
	if due && s.running == nil {
		s.begin(now)
	}
	done := s.running
	s.mu.Unlock()
	if must && done != nil {
		wait(ctx, done)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return nil, fmt.Errorf("%w: %w", errNoKeys, s.whyNone())
	}
	return s.keys, nil
}

func (s *keySet) whyNone() error {
	if s.running != nil || s.failed == nil {
		return errors.New("they were not had in time")
	}
	return s.failed
}

// newer waits for the fetch that is under way, or for one of its own if the last began over a minute ago, and returns the
// keys then known. false: there was neither, and what was known a moment ago is all there is.
func (s *keySet) newer(ctx context.Context) ([]key, bool) {
	s.mu.Lock()
	if now := s.now(); s.running == nil && passed(now, s.tried, calm) {
		s.begin(now)
	}
	done := s.running
	s.mu.Unlock()
	if done == nil {
		return nil, false
	}
	wait(ctx, done)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, true
}

// passed says whether a time lies at least so far back. One in the future does: the clock was set back since.
func passed(now, then time.Time, least time.Duration) bool {
	since := now.Sub(then)
	return since < 0 || since >= least
}

func wait(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// begin starts a fetch, which no request's end stops. s.mu is held.
func (s *keySet) begin(now time.Time) {
	s.tried, s.running = now, make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		keys, err := s.fetch(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.keys, s.got = keys, now
		}
		s.failed, s.stopped = err, err != nil && s.now().Sub(now) > 2*fetchTimeout
		close(s.running)
		s.running = nil
	}()
}

// fetch asks the issuer for its keys: OpenID Connect Discovery 1.0, section 4, then a JWK Set (RFC 7517, section 5).
func (s *keySet) fetch(ctx context.Context) ([]key, error) {
	address := s.address
	if address == "" {
		var err error
		if address, err = s.discover(ctx); err != nil {
			return nil, fmt.Errorf("its discovery document: %w", err)
		}
	}
	answer, err := s.get(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("its keys: %w", err)
	}
	return usable(answer, s.algorithms)
}

// discover returns the address of the keys.
func (s *keySet) discover(ctx context.Context) (string, error) {
	document, err := s.get(ctx, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	address := document.text("jwks_uri")
	switch {
	case document.text("issuer") != s.issuer:
		return "", errors.New("it is another issuer's")
	case checkAddress(address) != nil || strings.HasPrefix(s.issuer, "https:") && !strings.HasPrefix(address, "https:"):
		return "", errors.New("its jwks_uri must be https")
	}
	return address, nil
}

// get returns the JSON object at an address. Its errors hold nothing of the answer.
func (s *keySet) get(ctx context.Context, address string) (object, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("its address is no URL")
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, why(ctx, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the status is %d, not 200", answer.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, why(ctx, err)
	case len(b) > maxAnswer:
		return nil, errors.New("the answer is above 1 MB")
	}
	o, err := readObject(b)
	if err != nil {
		return nil, errors.New("the answer is no JSON object")
	}
	return o, nil
}

// why says what kept an answer away, without the words of the other side that an error of net/http may quote.
func why(ctx context.Context, err error) error {
	var timeout interface{ Timeout() bool }
	if ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no whole answer came in time")
	}
	return errors.New("the connection failed, or what came was no HTTP")
}

// usable returns the keys of a JWK Set that may sign with one of the algorithms. None is an error.
func usable(set object, algorithms []jose.SignatureAlgorithm) ([]key, error) {
	items, err := readList(set["keys"])
	if err != nil {
		return nil, errors.New("the answer is no JWK Set")
	}
	if len(items) > maxKeys {
		return nil, fmt.Errorf("there are above %d keys", maxKeys)
	}
	var keys []key
	for _, item := range items {
		if k, ok := readKey(item, algorithms); ok {
			keys = append(keys, k)
		}
	}
	if keys == nil {
		return nil, errors.New("none of its keys may sign tokens")
	}
	return keys, nil
}

// readKey reads a public key that is there for signatures (RFC 7517, sections 4.2 to 4.4). Only the members that make the
// key are read; one that tells its private part is of no use.
func readKey(v jsontext.Value, algorithms []jose.SignatureAlgorithm) (k key, ok bool) {
	members, err := readObject(v)
	if err != nil || members["d"] != nil || !forSignatures(members) {
		return k, false
	}
	bare := object{}
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e"} {
		if v := members[name]; v != nil {
			bare[name] = v
		}
	}
	b, err := json.Marshal(bare)
	if err != nil {
		return k, false
	}
	var parsed jose.JSONWebKey
	if parsed.UnmarshalJSON(b) != nil || !parsed.Valid() || !parsed.IsPublic() {
		return k, false
	}
	k = key{members.text("kid"), keyAlgorithms(parsed.Key), parsed.Key}
	k.algorithms = slices.DeleteFunc(k.algorithms, func(a jose.SignatureAlgorithm) bool {
		return !slices.Contains(algorithms, a) || members["alg"] != nil && members.text("alg") != string(a)
	})
	return k, len(k.algorithms) > 0
}

func forSignatures(members object) bool {
	operations, _ := asTexts(members["key_ops"])
	return (members["use"] == nil || members.text("use") == "sig") &&
		(members["key_ops"] == nil || slices.Contains(operations, "verify"))
}

// keyAlgorithms is what a key of this type and size may sign with.
func keyAlgorithms(public any) []jose.SignatureAlgorithm {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSA {
			return []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return []jose.SignatureAlgorithm{jose.ES256}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

// bounded is client, or one of our own, which follows no redirects.
func bounded(client *http.Client) *http.Client {
	var c http.Client
	if client != nil {
		c = *client
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.MaxResponseHeaderBytes = 64 << 10
		c.Transport = t
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.Jar = nil
	return &c
}
