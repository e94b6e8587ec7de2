package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/verify"
)

// endpoint makes the handler of one verb: it takes the body, authenticates, reads the request, calls, and answers with
// status and what came back. call finds its caller in the context and sets headers only when it succeeds.
//
// The body is there before the key is asked about: who could hold it back until the key was revoked would act with a key
// that was good when it was last looked at.
func endpoint[In, Out any](a *API, status int, read func(*request) In,
	call func(context.Context, In, http.Header) (Out, error)) handler {
	return func(w *response, r *http.Request) error {
		bodyErr := a.takeBody(w, r)
		if apikey.CodeOf(bodyErr) == apikey.InvalidJSON { // whoever sent it has gone
			return bodyErr
		}
		d, ok := a.admit(w, r, verify.Request{Door: verify.Management})
		if !ok {
			return nil
		}
		if bodyErr != nil {
			return bodyErr
		}
		in, err := readRequest(a, r, read)
		if err != nil {
			return err
		}
		ctx := caller.With(r.Context(), a.callerOf(w, r, &d))
		if err := a.confirm(ctx, r); err != nil {
			return err
		}
		out, err := call(ctx, in, w.Header())
		if err != nil {
			return err
		}
		return w.send(status, out)
	}
}

// takeBody takes the whole body into memory, for whoever may have a key: others are refused unread.
func (a *API) takeBody(w *response, r *http.Request) error {
	if _, err := a.Verifier.Format.Parse(verify.Bearer(r.Header)); err != nil && a.Admit == nil {
		return nil
	}
	b, err := io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, maxBody))
	r.Body = io.NopCloser(bytes.NewReader(b))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return apikey.Errorf(apikey.BodyTooLarge, "The body may have at most 65536 bytes.")
	case err != nil:
		return apikey.Errorf(apikey.InvalidJSON, "The body did not arrive whole.")
	}
	return nil
}

// confirm refuses a path that names a key by a prefix that is not the key's own: another brand's or environment's.
func (a *API) confirm(ctx context.Context, r *http.Request) error {
	text := r.PathValue("id")
	if _, err := apikey.ParseID(text); text == "" || err == nil {
		return nil
	}
	return a.Keys.Confirm(ctx, text)
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
