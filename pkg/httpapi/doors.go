package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// The doors at which a key is asked about: by another service, by its holder, and by a proxy in front of an API.

// verdict is what a verify tells of a key. Key is null unless the secret was right and the key is of the asker's own
// organization.
type verdict struct {
	Valid      bool        `json:"valid"`
	Code       apikey.Code `json:"code"`
	Key        *apikey.Key `json:"key"`
	RateLimits []rateLimit `json:"rate_limits"`
}

type rateLimit struct {
	Name          string `json:"name"`
	Limit         int64  `json:"limit"`
	WindowSeconds int64  `json:"window_seconds"`
	Remaining     int64  `json:"remaining"`
	ResetSeconds  int64  `json:"reset_seconds"`
}

func readQuestion(r *request) (ask verify.Request) {
	r.body()
	ask.Cost = 1
	hasAddress := r.has("ip")
	r.required("key", &ask.Key)
	r.optional("scopes", &ask.Scopes)
	r.optional("ip", &ask.Address)
	r.optional("cost", &ask.Cost)
	r.within("cost", ask.Cost, 1, verify.MaxCost)
	if hasAddress && !ask.Address.IsValid() {
		r.fault("/ip", mustBe(&ask.Address))
	}
	r.merge(lifecycle.ValidateScopes(ask.Scopes))
	return ask
}

func (a *API) verify(ctx context.Context, ask verify.Request, h http.Header) (verdict, error) {
	if err := a.Keys.MayVerify(ctx); err != nil {
		return verdict{}, err
	}
	ask.OrganizationID = caller.From(ctx).OrganizationID
	d := a.Verifier.Verify(ctx, ask)
	if d.Code == apikey.Unavailable {
		return verdict{}, refusal(&d)
	}
	h.Set("Cache-Control", "no-store")
	found := verdict{Valid: d.Allowed(), Code: d.Code, RateLimits: rateLimits(d.Limits)}
	if d.KeyID == 0 {
		return found, nil
	}
	k, err := a.Keys.Describe(ctx, d.KeyID)
	found.Key = &k
	return found, err
}

func rateLimits(limits []verify.Limit) []rateLimit {
	list := make([]rateLimit, 0, len(limits))
	for _, l := range limits {
		list = append(list, rateLimit{l.Name, l.Quota, verify.Seconds(l.Window), l.Remaining, verify.Seconds(l.Reset)})
	}
	return list
}

func readNothing(*request) nothing { return nothing{} }

func (a *API) me(ctx context.Context, _ nothing, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.Self(ctx)
	return tagged(h, k, err)
}

// readNeeds reads what a proxy's configuration demands of a key. A demand that cannot be read lets nobody in.
func readNeeds(r *request) (ask verify.Request) {
	ask.Cost = r.number("cost", 1, verify.MaxCost, 1)
	if list, given := r.param("scopes"); given {
		var err error
		if ask.Scopes, err = apikey.ParseScopes(list); err != nil || len(lifecycle.ValidateScopes(ask.Scopes)) > 0 {
			r.fault("/scopes", "must be scopes, with a space or a comma between them")
		}
	}
	return ask
}

// authorize is the door for proxies (forward-auth): 200 and the key's identity, or the refusal itself. It reads no body:
// the request's own goes elsewhere.
func (a *API) authorize(w *response, r *http.Request) error {
	ask, err := readRequest(a, r, readNeeds)
	if err != nil {
		return err
	}
	d, err := a.admit(w, r, ask)
	if err != nil {
		return err
	}
	setIdentity(w.Header(), &d)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

// setIdentity says whom the key stands for. Every header is always there, empty for none: a proxy that copies them
// upstream then never leaves a client's own in place.
func setIdentity(h http.Header, d *verify.Decision) {
	h.Set("Latchkey-Key-Id", d.KeyID.String())
	h.Set("Latchkey-Key-Prefix", d.KeyPrefix)
	h.Set("Latchkey-Organization-Id", d.OrganizationID)
	h.Set("Latchkey-Project-Id", d.ProjectID)
	h.Set("Latchkey-Environment-Id", d.EnvironmentID)
	h.Set("Latchkey-External-Id", d.ExternalID)
	h.Set("Latchkey-Scopes", strings.Join(d.Scopes, " "))
}
