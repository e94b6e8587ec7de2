package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// The shape at /envelope: people alone manage keys, each their own, named by their prefixes. Whatever is answered below
// that path, errors included, stands in an envelope.

const envelopeBase = "/envelope"

// enveloped says whether a path is answered in envelopes.
func enveloped(path string) bool {
	return path == envelopeBase || strings.HasPrefix(path, envelopeBase+"/")
}

// envelope is an answer: Data of a success, Error otherwise.
type envelope[T any] struct {
	Success bool           `json:"success"`
	Data    *T             `json:"data,omitempty"`
	Error   *envelopeError `json:"error,omitempty"`
}

type envelopeError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// envelopeCodes name the statuses of errors.
var envelopeCodes = map[int]string{
	http.StatusBadRequest:            "BadRequest",
	http.StatusUnauthorized:          "Unauthorized",
	http.StatusForbidden:             "Forbidden",
	http.StatusNotFound:              "NotFound",
	http.StatusMethodNotAllowed:      "MethodNotAllowed",
	http.StatusConflict:              "Conflict",
	http.StatusPreconditionFailed:    "PreconditionFailed",
	http.StatusRequestEntityTooLarge: "PayloadTooLarge",
	http.StatusUnsupportedMediaType:  "UnsupportedMediaType",
	http.StatusUnprocessableEntity:   "ValidationError",
	http.StatusTooManyRequests:       "TooManyRequests",
	http.StatusInternalServerError:   "InternalError",
	http.StatusServiceUnavailable:    "ServiceUnavailable",
}

// writeEnveloped answers with an Error. What is wrong with which field stands in the message, as there is no other place.
func writeEnveloped(w http.ResponseWriter, e *apikey.Error) {
	message := e.Message
	for i, f := range e.Fields {
		message += []string{" ", "; "}[min(i, 1)] + strings.TrimPrefix(f.Pointer, "/") + " " + f.Detail
	}
	if len(e.Fields) > 0 {
		message = strings.Replace(message, ": see errors.", ":", 1) + "."
	}
	body, err := json.Marshal(envelope[nothing]{Error: &envelopeError{envelopeCodes[e.Code.Status()], message}})
	if err != nil { // strings always marshal
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(append(body, '\n'))
}

// personAlone lets people in, as the makers of their own keys, whatever else they may do elsewhere. It asks by itself,
// behind a Gate too, so that its refusals have their envelope.
func (a *API) personAlone(w *response, r *http.Request) (caller.Caller, error) {
	bearer := verify.Bearer(r.Header)
	_, notAKey := a.Verifier.Format.Parse(bearer)
	switch {
	case bearer == "":
		return caller.Caller{}, apikey.Errorf(apikey.MissingKey, "Sign in, and send your token (a JWT) in the header Authorization: Bearer …")
	case notAKey == nil:
		return caller.Caller{}, apikey.Errorf(apikey.KeyNotAllowed, "API keys cannot manage API keys here: sign in, and send your token (a JWT).")
	case a.People == nil:
		return caller.Caller{}, apikey.Errorf(apikey.InvalidToken, "This service takes no tokens.")
	}
	c, err := a.person(w, r, func(ctx context.Context) (caller.Caller, error) { return a.People(ctx, bearer) })
	c.Own = true
	return c, err
}

// tier refuses people whose plan has no keys.
func (a *API) tier(ctx context.Context) error {
	o, err := a.Keys.OwnOrganization(ctx)
	if err == nil && o.KeyLimit != nil && *o.KeyLimit == 0 {
		err = apikey.Errorf(apikey.PlanRefused, "The plan %s has no API keys. Change the plan.", o.Plan)
	}
	return err
}

type createdInEnvelope struct {
	Key       string    `json:"key"`
	Prefix    string    `json:"prefix"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
}

func (a *API) createInEnvelope(ctx context.Context, n creation, h http.Header) (envelope[createdInEnvelope], error) {
	issued, err := a.issue(ctx, n, h, func(k *apikey.Key) string { return "api-keys/" + k.KeyPrefix })
	k := &issued.Key
	return success(createdInEnvelope{issued.Plaintext.Reveal(), k.KeyPrefix, k.Name, k.CreatedAt}), err
}

func success[T any](data T) envelope[T] { return envelope[T]{Success: true, Data: &data} }

type keyInEnvelope struct {
	Prefix     string     `json:"prefix"`
	Name       string     `json:"name"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"`
}

type listInEnvelope struct {
	Keys []keyInEnvelope `json:"keys"`
}

func (a *API) listInEnvelope(ctx context.Context, _ nothing, _ http.Header) (envelope[listInEnvelope], error) {
	if err := a.tier(ctx); err != nil {
		return envelope[listInEnvelope]{}, err
	}
	list, err := listAs(ctx, a, lifecycle.Filter{}, func(k *apikey.Key) keyInEnvelope {
		return keyInEnvelope{k.KeyPrefix, k.Name, k.CreatedAt, k.LastUsedAt}
	})
	return success(listInEnvelope{list}), err
}

// addressed is a key that may be there.
type addressed struct {
	id      apikey.ID
	missing error // NotFound, if there is certainly no such key
}

func readOwn(r *request) (in addressed) {
	in.id = r.keyID()
	if apikey.CodeOf(r.err) == apikey.NotFound {
		in.missing, r.err = r.err, nil
	}
	return in
}

type revokedInEnvelope struct {
	Message string `json:"message"`
}

// revokeInEnvelope revokes whatever the plan: a leak must always be answerable. People whose plan has no keys are told so
// about every key that is not theirs.
func (a *API) revokeInEnvelope(ctx context.Context, in addressed, _ http.Header) (envelope[revokedInEnvelope], error) {
	err := in.missing
	if err == nil {
		err = a.Keys.Revoke(ctx, in.id, "")
	}
	if apikey.CodeOf(err) == apikey.NotFound {
		if refused := a.tier(ctx); refused != nil {
			err = refused
		}
	}
	return success(revokedInEnvelope{"API key revoked"}), err
}
