package httpapi

import (
	"net/http"
	"slices"
)

// What a page of an allowed origin may send and read beyond what every page may (the Fetch standard's CORS protocol).
const (
	corsMethods = "GET, POST, PUT, PATCH, DELETE"
	corsHeaders = "Authorization, Content-Type, Idempotency-Key, If-Match"
	corsExposed = "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"
	corsMaxAge  = "600" // seconds for which a browser may remember a preflight
)

// forwardAuth is left out of CORS: it is asked by a proxy, with the headers of someone else's request.
const forwardAuth = "/v1/authorize"

// cors lets pages of the allowed origins read the answer, and says whether the request was a preflight, which is then
// answered: without a key, since a browser sends none. Without allowed origins it does nothing.
func (a *API) cors(w *response, r *http.Request) (preflight bool) {
	if len(a.AllowedOrigins) == 0 || r.URL.Path == forwardAuth {
		return false
	}
	h, origin := w.Header(), r.Header.Get("Origin")
	h.Add("Vary", "Origin")
	if !slices.Contains(a.AllowedOrigins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", corsExposed)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", corsMaxAge)
	w.WriteHeader(http.StatusNoContent)
	return true
}
