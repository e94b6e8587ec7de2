package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/verify"
)

// Gate is what an authorizer before the service has decided about a request.
type Gate interface {
	Key(*http.Request, verify.Request) verify.Decision
	Person(*http.Request) (caller.Caller, error)
}

// admission establishes who asks at a route, or says why they may not. It notes both for the log.
type admission func(*API, *response, *http.Request) (caller.Caller, error)

// anyone lets people and keys in, but people alone where the deployment wants that.
func (a *API) anyone(w *response, r *http.Request) (caller.Caller, error) {
	c, err := a.keysToo(w, r)
	if err == nil && a.PeopleOnly && c.Kind == caller.Key {
		return caller.Caller{}, apikey.Errorf(apikey.KeyNotAllowed, "Here people alone manage keys: sign in, and send your token in place of a key.")
	}
	return c, err
}

// keysToo lets people and keys in, also where people alone manage keys.
func (a *API) keysToo(w *response, r *http.Request) (caller.Caller, error) {
	if bearer := verify.Bearer(r.Header); a.isPerson(bearer) {
		return a.person(w, r, func(ctx context.Context) (caller.Caller, error) {
			if a.Gate != nil {
				return a.Gate.Person(r)
			}
			return a.People(ctx, bearer)
		})
	}
	d, err := a.admit(w, r, verify.Request{Door: verify.Management})
	if err != nil {
		return caller.Caller{}, err
	}
	return a.callerOf(w, r, &d), nil
}

// isPerson says whether a bearer credential is meant as a person's token, where the deployment takes such: a JWT always
// holds a dot, and a key never does.
func (a *API) isPerson(bearer string) bool {
	return (a.People != nil || a.Gate != nil) && strings.Contains(bearer, ".")
}

// person lets in whom ask finds the token to be.
func (a *API) person(w *response, r *http.Request, ask func(context.Context) (caller.Caller, error)) (caller.Caller, error) {
	c, err := ask(r.Context())
	if err != nil {
		return caller.Caller{}, err
	}
	w.kind, w.code = c.Kind, apikey.Valid
	c.Address, c.RequestID = verify.ClientAddress(r, a.TrustedHops), w.requestID
	return c, nil
}

// admit decides about the request's key, and gives the answer's headers what is left of its limits.
func (a *API) admit(w *response, r *http.Request, ask verify.Request) (verify.Decision, error) {
	ask.Key, ask.Address = verify.Bearer(r.Header), verify.ClientAddress(r, a.TrustedHops)
	d := a.decide(r, ask)
	d.SetHeaders(w.Header())
	w.keyPrefix, w.code = d.KeyPrefix, d.Code
	if !d.Allowed() {
		return d, refusal(&d)
	}
	w.kind = caller.Key
	return d, nil
}

func (a *API) decide(r *http.Request, ask verify.Request) verify.Decision {
	if a.Gate != nil {
		return a.Gate.Key(r, ask)
	}
	return a.Verifier.Verify(r.Context(), ask)
}

// refusal is a Decision that lets nobody in, with its cause for the log.
func refusal(d *verify.Decision) error {
	return &apikey.Error{Code: d.Code, Message: d.Message(), Scope: d.NeededScope, Cause: d.Cause}
}

// callerOf is whom an admitted key makes of a request.
func (a *API) callerOf(w *response, r *http.Request, d *verify.Decision) caller.Caller {
	service := func(scope string) bool { return !apikey.IsManagement(scope) }
	return caller.Caller{
		OrganizationID: d.OrganizationID,
		Kind:           caller.Key,
		ID:             d.KeyID.String(),
		Scopes:         slices.DeleteFunc(slices.Clone(d.Scopes), service),
		Until:          d.End,
		CIDRs:          d.CIDRs,
		Address:        verify.ClientAddress(r, a.TrustedHops),
		RequestID:      w.requestID,
	}
}
