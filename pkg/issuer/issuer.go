// Package issuer is development's own issuer of tokens: whoever reaches it is whoever they say.
//
// It plays the part that Cognito, Auth0, Keycloak, Entra or Google have in a deployment, so that people can sign in where
// there is none of them: it has a discovery document, keys, a sign-in page and a token endpoint, and asks for no
// password. So it serves on this machine alone (it refuses an address that is not a loopback one, and requests that name
// another host), its key is made when the process starts and dies with it, and no page of another site can make it sign.
package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Audience is whom the tokens are for, unless the claims say otherwise.
const Audience = "latchkey"

// Lifetime is how long a token works, unless the claims say otherwise.
const Lifetime = 12 * time.Hour

// Issuer signs tokens with a key of its own. Its methods may be called at once from many goroutines.
type Issuer struct {
	base   *url.URL
	now    func() time.Time
	key    jose.JSONWebKey // public
	signer jose.Signer
}

// New makes an issuer, with a fresh key, whose iss claim and address is base: http or https, a loopback host, a path
// without a slash at its end.
func New(base string, now func() time.Time) (*Issuer, error) {
	u, err := url.Parse(base)
	if err != nil || !loopback(u.Hostname()) || u.Scheme != "http" && u.Scheme != "https" || strings.HasSuffix(base, "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q: development's issuer must be on a loopback host, at a path without a slash at its end", base)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's key: %w", err)
	}
	key := jose.JSONWebKey{Key: private, KeyID: "dev-" + rand.Text(), Algorithm: string(jose.ES256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("preparing the issuer's key: %w", err)
	}
	return &Issuer{u, now, key.Public(), signer}, nil
}

// loopback says whether a host is this machine.
func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// URL is the issuer's address, which is its iss claim.
func (i *Issuer) URL() string { return i.base.String() }

// Sign makes a token of the claims. Where they say nothing, iss is the issuer's address, aud is Audience, iat is now, exp
// is Lifetime later, and jti is random. It does not change claims.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	now := i.now()
	all := map[string]any{"iss": i.URL(), "aud": Audience, "iat": now.Unix(), "exp": now.Add(Lifetime).Unix(), "jti": rand.Text()}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		return "", fmt.Errorf("printing the claims: %w", err)
	}
	signed, err := i.signer.Sign(payload)
	if err != nil {
		return "", errors.New("signing the claims failed")
	}
	return signed.CompactSerialize()
}
