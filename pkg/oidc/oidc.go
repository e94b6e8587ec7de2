// Package oidc turns a person's token into a [caller.Caller].
//
// The token is a JWT (RFC 7519) that an OpenID Connect issuer of the deployment's settings has signed. The room promises
// that a caller comes of it only if one of that issuer's present keys signed it with an algorithm allowed to the key, it
// is in time, it is for this service, and every claim that is read is there in the right form. Whatever is in doubt is
// refused: a claim that is there but empty or of another type counts as wrong, never as missing.
//
// The issuer's keys are fetched when first needed and kept. While the issuer is down, the keys that were had go on being
// used; where there are none, the answer is Unavailable in bounded time. Nothing in a token says where keys are to be
// had, and no symmetric key is ever used.
//
// What a person may do follows from a role: a viewer reads the organization's keys, a member reads and changes the keys
// that it made, an admin reads, changes and verifies all of them and reads the audit trail. No role holds org:admin.
//
// Neither a token, nor what it claims, nor what an issuer answers ever stands in an error.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

const (
	maxToken = 8 << 10 // bytes
	leeway   = time.Minute
)

// Verifier decides about tokens. Its methods may be called at once from many goroutines.
type Verifier struct {
	now     func() time.Time
	issuers map[string]*issuer // by their iss
}

// issuer is one issuer with what is known of its keys.
type issuer struct {
	Issuer
	keys *keySet
}

// New makes a Verifier for the issuers, which it checks as Parse does. With none it refuses every token. It calls nobody
// yet. now decides about tokens and paces the fetches of keys. client may be nil; of another one, redirects and times
// above our own bound are not used.
func New(issuers []Issuer, now func() time.Time, client *http.Client) (*Verifier, error) {
	all, err := settled(issuers)
	if err != nil {
		return nil, err
	}
	v := &Verifier{now: now, issuers: map[string]*issuer{}}
	for _, i := range all {
		v.issuers[i.Issuer] = &issuer{i, &keySet{issuer: i.Issuer, address: i.JWKS, algorithms: i.allowed(), now: now, client: bounded(client)}}
	}
	return v, nil
}

// Looks says whether a bearer credential is meant as a token. Keys hold no dot, and tokens always do.
func Looks(bearer string) bool { return strings.Contains(bearer, ".") }

// Verify says who the token is. Every error is an *apikey.Error: Unavailable if the issuer's keys could not be had in time
// and none were known, otherwise InvalidToken. Times are allowed to be off by 60 seconds.
func (v *Verifier) Verify(ctx context.Context, text string) (caller.Caller, error) {
	if len(v.issuers) == 0 {
		return caller.Caller{}, refuse("This service takes no tokens: use an API key.", nil)
	}
	t, err := parse(text)
	if err != nil {
		return caller.Caller{}, refuse("The token is malformed: send a JWT as its issuer gave it.", err)
	}
	i, ok := v.issuers[t.claims.text("iss")]
	if !ok {
		return caller.Caller{}, refuse("The token is not from an issuer that this service trusts.", nil)
	}
	c, err := i.person(t.claims, v.now())
	if err != nil {
		return caller.Caller{}, err
	}
	// Until here nothing is proved: c is what the token claims.
	if err := i.prove(ctx, t); err != nil {
		return caller.Caller{}, err
	}
	return c, nil
}

// prove says that one of the issuer's keys signed the token.
func (i *issuer) prove(ctx context.Context, t *token) error {
	err := i.keys.verify(ctx, t)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoKeys):
		e := apikey.Errorf(apikey.Unavailable, "The keys of the token's issuer cannot be had at the moment: try again in a few seconds.")
		e.Cause = fmt.Errorf("issuer %s: %w", i.Issuer.Issuer, err)
		return e
	}
	return refuse("The token is not signed by a key of its issuer: sign in again.", fmt.Errorf("issuer %s: %w", i.Issuer.Issuer, err))
}

// refuse makes the error for a token. Neither text may hold anything of the token.
func refuse(message string, cause error) error {
	e := apikey.Errorf(apikey.InvalidToken, "%s", message)
	e.Cause = cause
	return e
}
