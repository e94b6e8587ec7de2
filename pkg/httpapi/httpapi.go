// Package httpapi is the HTTP door: it turns a request into one call of a verb, and what comes of it into an answer.
//
// It promises that every route stands in one table, that every answer carries an X-Request-Id of the service's own
// making, that every refusal is problem details (RFC 9457) with a stable code (below /envelope, an envelope), and that a
// request is read strictly: a query parameter or a body's member that the route does not know is refused, and all invalid fields are answered at once.
// (A body sent to a route that takes none is left unread.) It refuses to
// decide anything about keys, to redirect, to take a caller's word for who they are, and to log what could be a secret.
package httpapi

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/verify"
)

// API is the service's HTTP face. Its fields are set once, before the first request.
type API struct {
	Keys        *lifecycle.Service
	Notify      *notify.Service
	Verifier    *verify.Verifier
	Log         *slog.Logger
	Now         func() time.Time
	TrustedHops int // proxies of one's own that append to X-Forwarded-For; 0: the client is the connection's peer

	// AllowedOrigins are those whose pages may call from a browser (CORS), as browsers write them: https://example.com.
	AllowedOrigins []string

	// People says who a person's token is, with apikey.InvalidToken for nobody, and apikey.Unavailable when that cannot be
	// said now. nil: keys alone sign in.
	People func(ctx context.Context, token string) (caller.Caller, error)

	// Gate is asked in place of the Verifier and of People, where an authorizer before the service has decided already.
	// nil: the API asks by itself.
	Gate Gate

	PeopleOnly      bool     // keys are managed by people alone: see admission
	KeysShapeScopes []string // management scopes that keys made at /v1/keys are given, as far as their maker holds them
}

// Any is the Method of a route that takes every method.
const Any = "ANY"

// Route is one row of the service's table.
type Route struct {
	Function string // the Lambda that owns it
	Method   string // or Any
	Pattern  string // as net/http.ServeMux reads it, without a method

	serve handler
}

// handler answers one request itself, or returns the error to answer it with.
type handler func(*response, *http.Request) error

// Routes is the table, or only the rows that the named functions own. Where two patterns fit, as for /v1/api-keys/me, the
// more literal one serves, and of two that are not comparable the one whose literal comes first, as with API Gateway.
func (a *API) Routes(functions ...string) []Route {
	table := []Route{
		{"create", "POST", "/v1/api-keys", endpoint(a, http.StatusCreated, readNew, a.create)},
		{"list", "GET", "/v1/api-keys", endpoint(a, http.StatusOK, readListing, a.list)},
		{"get", "GET", "/v1/api-keys/{id}", endpoint(a, http.StatusOK, (*request).keyID, a.get)},
		{"update", "PATCH", "/v1/api-keys/{id}", endpoint(a, http.StatusOK, readPatch, a.update)},
		{"revoke", "DELETE", "/v1/api-keys/{id}", endpoint(a, http.StatusNoContent, (*request).keyID, a.revoke)},
		{"archive", "POST", "/v1/api-keys/{id}/archive", endpoint(a, http.StatusOK, readAct, a.archive)},
		{"reactivate", "PUT", "/v1/api-keys/{id}/reactivate", endpoint(a, http.StatusOK, (*request).keyID, a.reactivate)},
		{"rotate", "POST", "/v1/api-keys/{id}/rotate", endpoint(a, http.StatusOK, readRotation, a.rotate)},
		{"rotate", "POST", "/v1/api-keys/{id}/rotate/end", endpoint(a, http.StatusOK, readAct, a.endGrace)},
		{"rotate", "POST", "/v1/api-keys/{id}/rotate/extend", endpoint(a, http.StatusOK, readExtension, a.extendGrace)},
		{"audit", "GET", "/v1/audit", endpoint(a, http.StatusOK, readTrail, a.trail)},
		{"audit", "GET", "/v1/audit/chain", endpoint(a, http.StatusOK, readChain, a.chain)},
		{"webhooks", "POST", "/v1/webhooks", endpoint(a, http.StatusCreated, a.readNewWebhook, a.createWebhook)},
		{"webhooks", "GET", "/v1/webhooks", endpoint(a, http.StatusOK, readNothing, a.listWebhooks)},
		{"webhooks", "GET", "/v1/webhooks/{id}", endpoint(a, http.StatusOK, pathID, a.webhook)},
		{"webhooks", "PATCH", "/v1/webhooks/{id}", endpoint(a, http.StatusOK, a.readWebhookPatch, a.updateWebhook)},
		{"webhooks", "DELETE", "/v1/webhooks/{id}", endpoint(a, http.StatusNoContent, pathID, a.deleteWebhook)},
		{"webhooks", "POST", "/v1/webhooks/{id}/test", endpoint(a, http.StatusOK, readActOn, a.testWebhook)},
		{"webhooks", "GET", "/v1/webhooks/deliveries", endpoint(a, http.StatusOK, readDeliveries, a.deliveries)},
		{"webhooks", "GET", "/v1/webhooks/deliveries/{id}", endpoint(a, http.StatusOK, pathID, a.delivery)},
		{"webhooks", "POST", "/v1/webhooks/deliveries/{id}/redeliver", endpoint(a, http.StatusAccepted, readActOn, a.redeliver)},
		{"webhooks", "GET", "/v1/webhooks/secret", endpoint(a, http.StatusOK, readNothing, a.signingSecret)},
		{"webhooks", "POST", "/v1/webhooks/secret/rotate", endpoint(a, http.StatusOK, readNothing, a.rotateSigningSecret)},
		{"organization", "GET", "/v1/organization", endpoint(a, http.StatusOK, readNothing, a.ownOrganization)},
		{"organization", "GET", "/v1/organizations/{id}", endpointFor(a, (*API).keysToo, http.StatusOK, readOrganization, a.organization)},
		{"organization", "PUT", "/v1/organizations/{id}", endpointFor(a, (*API).keysToo, http.StatusOK, readPlacing, a.setOrganization)},

		{"create", "POST", "/v1/keys", endpoint(a, http.StatusCreated, readNewInKeys, a.createInKeys)},
		{"list", "GET", "/v1/keys", endpoint(a, http.StatusOK, readNothing, a.listInKeys)},
		{"revoke", "DELETE", "/v1/keys/{id}", endpoint(a, http.StatusOK, byUUID, a.revokeInKeys)},

		{"create", "POST", "/envelope/v1/api-keys", endpointFor(a, (*API).personAlone, http.StatusCreated, readNamed, a.createInEnvelope)},
		{"list", "GET", "/envelope/v1/api-keys", endpointFor(a, (*API).personAlone, http.StatusOK, readNothing, a.listInEnvelope)},
		{"revoke", "DELETE", "/envelope/v1/api-keys/{id}", endpointFor(a, (*API).personAlone, http.StatusOK, readOwn, a.revokeInEnvelope)},

		{"create", "POST", "/organizations/api-keys", endpoint(a, http.StatusCreated, readNamed, a.createInOrganization)},
		{"list", "GET", "/organizations/api-keys", endpoint(a, http.StatusOK, readWithArchived, a.listInOrganization)},
		{"archive", "DELETE", "/organizations/api-keys/{id}", endpoint(a, http.StatusOK, byNumber, a.archiveInOrganization)},
		{"reactivate", "PUT", "/organizations/api-keys/{id}/reactivate", endpoint(a, http.StatusOK, byNumber, a.reactivateInOrganization)},

		{"verify", "POST", "/v1/api-keys/verify", endpointFor(a, (*API).keysToo, http.StatusOK, readQuestion, a.verify)},
		{"verify", "GET", "/v1/api-keys/me", endpointFor(a, (*API).keysToo, http.StatusOK, readNothing, a.me)},
		{"verify", Any, "/v1/authorize", a.authorize},
	}
	return slices.DeleteFunc(table, func(r Route) bool {
		return len(functions) > 0 && !slices.Contains(functions, r.Function)
	})
}

// Row makes a route of a handler from elsewhere, so that it has its request id and log line from here as all others do.
func Row(function, method, pattern string, h http.Handler) Route {
	return Route{function, method, pattern, func(w *response, r *http.Request) error {
		h.ServeHTTP(w, r)
		if w.status == 0 {
			w.WriteHeader(http.StatusOK)
		}
		return nil
	}}
}

// Handler serves routes, of which a Lambda gives its own and latchkeyd all, and answers everything else with 404 or 405.
func (a *API) Handler(routes ...Route) http.Handler {
	patterns := map[string]methods{}
	for _, r := range routes {
		if patterns[r.Pattern] == nil {
			patterns[r.Pattern] = methods{}
		}
		patterns[r.Pattern].add(r)
	}
	mux, rest := http.NewServeMux(), http.NewServeMux()
	for _, pattern := range slices.Sorted(maps.Keys(patterns)) { // a letter comes before a brace
		if serve := a.answer(patterns[pattern].serve); !takes(mux, pattern, serve) {
			rest.Handle(pattern, serve)
		}
	}
	rest.Handle("/{path...}", a.answer(unknownRoute))
	mux.Handle("/{path...}", rest)
	return a.observe(mux)
}

// takes says whether mux could take a pattern beside those that it has. It panics over two that fit the same path when
// neither is the more literal, such as /webhooks/deliveries/{id} and /webhooks/{id}/test.
func takes(mux *http.ServeMux, pattern string, h http.Handler) (taken bool) {
	defer func() { taken = recover() == nil }()
	mux.Handle(pattern, h)
	return
}

// observe gives every request its id and its log line, and lets nothing reach next that it would redirect.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := a.newResponse(w, r)
		ctx, cancel := steady(r.Context())
		defer cancel()
		r = r.WithContext(context.WithValue(ctx, responseKey{}, res))
		defer a.logRequest(res, r)
		defer a.rescue(res, r)
		switch {
		case a.cors(res, r):
		case clean(r.URL.Path):
			next.ServeHTTP(res, r)
		default:
			a.fail(res, r, unknownRoute(res, r))
		}
	})
}

// steady is ctx without its cancellation, but with its deadline: what was begun for a client is finished, also when the
// client hangs up, so that nothing is left in doubt for whoever asks next. Every step has a bound of its own.
func steady(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline)
}

// clean says whether p is spelt as ServeMux wants it, which redirects other spellings to an absolute path.
func clean(p string) bool { return strings.HasPrefix(p, "/") && path.Clean(p) == p }

func unknownRoute(*response, *http.Request) error {
	return apikey.Errorf(apikey.NotFound, "There is no such route.")
}

// methods is what one pattern serves.
type methods map[string]handler

func (m methods) add(r Route) {
	m[r.Method] = r.serve
	if r.Method == http.MethodGet {
		m[http.MethodHead] = r.serve
	}
}

func (m methods) serve(w *response, r *http.Request) error {
	if serve, ok := m[r.Method]; ok {
		return serve(w, r)
	}
	if serve, ok := m[Any]; ok {
		return serve(w, r)
	}
	allowed := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
	w.Header().Set("Allow", allowed)
	return apikey.Errorf(apikey.MethodNotAllowed, "This route takes %s.", allowed)
}
