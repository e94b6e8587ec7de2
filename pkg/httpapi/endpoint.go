package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/verify"
)

// endpoint makes the handler of one verb, for anyone: see endpointFor.
func endpoint[In, Out any](a *API, status int, read func(*request) In,
	call func(context.Context, In, http.Header) (Out, error)) handler {
	return endpointFor(a, (*API).anyone, status, read, call)
}

// endpointFor makes the handler of one verb: it takes the body, authenticates, reads the request, calls, and answers with
// status and what came back. call finds its caller in the context and sets headers only when it succeeds.
//
// The body is there before the credential is asked about: who could hold it back until the key was revoked, or the token
// had expired, would act with one that was good when it was last looked at.
func endpointFor[In, Out any](a *API, admit admission, status int, read func(*request) In,
	call func(context.Context, In, http.Header) (Out, error)) handler {
	return func(w *response, r *http.Request) error {
		bodyErr := a.takeBody(w, r)
		if apikey.CodeOf(bodyErr) == apikey.InvalidJSON { // whoever sent it has gone
			return bodyErr
		}
		by, err := admit(a, w, r)
		if err != nil {
			return err
		}
		if bodyErr != nil {
			return bodyErr
		}
		r = r.WithContext(caller.With(r.Context(), by))
		in, err := readRequest(a, r, read)
		if err != nil {
			return err
		}
		out, err := call(r.Context(), in, w.Header())
		if err != nil {
			return err
		}
		return w.send(status, out)
	}
}

// takeBody takes the whole body into memory, for whoever may have a key or a token: others are refused unread.
func (a *API) takeBody(w *response, r *http.Request) error {
	bearer := verify.Bearer(r.Header)
	if _, err := a.Verifier.Format.Parse(bearer); err != nil && a.Gate == nil && !a.isPerson(bearer) {
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

// answer makes a handler one of net/http, behind observe, with every error answered by fail.
func (a *API) answer(serve handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := w.(*response)
		if err := serve(res, r); err != nil {
			a.fail(res, r, err)
		}
	})
}

// asError is what a client may see of err.
func asError(err error) *apikey.Error {
	var e *apikey.Error
	if errors.As(err, &e) {
		return e
	}
	return apikey.Errorf(apikey.Internal, "Something went wrong here. Try again, or report the request_id.")
}
