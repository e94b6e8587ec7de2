package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/verify"
)

// endpoint makes the handler of one verb: it authenticates, reads the request, calls, and answers with status and what
// came back. call finds its caller in the context and sets headers only when it succeeds.
func endpoint[In, Out any](a *API, status int, read func(*request) In,
	call func(context.Context, In, http.Header) (Out, error)) handler {
	return func(w *response, r *http.Request) error {
		d, ok := a.admit(w, r, verify.Request{Door: verify.Management})
		if !ok {
			return nil
		}
		in, err := readRequest(a, w, r, read)
		if err != nil {
			return err
		}
		out, err := call(caller.With(r.Context(), a.callerOf(w, r, &d)), in, w.Header())
		if err != nil {
			return err
		}
		return w.send(status, out)
	}
}

// answer makes a handler one of net/http, behind observe, with every error answered by fail.
func (a *API) answer(serve handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := w.(*response)
		if err := serve(res, r); err != nil {
			a.fail(res, r, err)
		}
	})
}

// admit lets the request's key in, or answers why not.
func (a *API) admit(w *response, r *http.Request, ask verify.Request) (verify.Decision, bool) {
	ask.Key, ask.Address = verify.Bearer(r.Header), verify.ClientAddress(r, a.TrustedHops)
	d := a.decide(r, ask)
	w.keyPrefix, w.code = d.KeyPrefix, d.Code
	switch {
	case d.Allowed():
		d.SetHeaders(w.Header())
	case d.Code == apikey.Unavailable:
		a.fail(w, r, unavailable(&d))
	default:
		d.Refuse(w)
	}
	return d, d.Allowed()
}

func (a *API) decide(r *http.Request, ask verify.Request) verify.Decision {
	if a.Admit != nil {
		return a.Admit(r, ask)
	}
	return a.Verifier.Verify(r.Context(), ask)
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

// unavailable is a Decision that could not be made, with its cause for the log.
func unavailable(d *verify.Decision) error {
	return &apikey.Error{Code: d.Code, Message: d.Message(), Cause: d.Cause}
}

// asError is what a client may see of err.
func asError(err error) *apikey.Error {
	var e *apikey.Error
	if errors.As(err, &e) {
		return e
	}
	return apikey.Errorf(apikey.Internal, "Something went wrong here. Try again, or report the request_id.")
}
