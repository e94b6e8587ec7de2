package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/verify"
)

// response is the one way out. It knows what the request's log line will say, and drops the body of an answer to HEAD.
type response struct {
	http.ResponseWriter
	requestID string
	started   time.Time
	head      bool
	status    int         // 0 until the answer has begun
	kind      caller.Kind // of who was let in; "" for nobody
	keyPrefix string      // of the key that was presented, if it was one
	code      apikey.Code // why the request was refused, or what was found of its key
}

type responseKey struct{}

// Note tells the log line of the request that ctx belongs to whose key it carried, and what was found of it.
func Note(ctx context.Context, d verify.Decision) {
	if w, ok := ctx.Value(responseKey{}).(*response); ok {
		w.keyPrefix, w.code = d.KeyPrefix, d.Code
		if d.Allowed() {
			w.kind = caller.Key
		}
	}
}

func (a *API) newResponse(w http.ResponseWriter, r *http.Request) *response {
	now := a.Now()
	id := "req_" + audit.NewID(now)
	w.Header().Set("X-Request-Id", id)
	return &response{ResponseWriter: w, requestID: id, started: now, head: r.Method == http.MethodHead}
}

// WriteHeader begins the answer.
func (w *response) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body, and before it the status 200 if nobody chose another.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.head {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// send answers with body as JSON, or with none where the status allows none.
func (w *response) send(status int, body any) error {
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return fmt.Errorf("printing the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that has gone needs no answer
	return nil
}

// fail answers with err: as it is when it holds an apikey.Error, else as Internal, its text in the log alone.
func (a *API) fail(w *response, r *http.Request, err error) {
	e := *asError(err)
	e.RequestID, w.code = w.requestID, e.Code
	if text := challenge(&e); text != "" && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", text)
	}
	if e.Code == apikey.Unavailable {
		w.Header().Set("Retry-After", "1")
	}
	if e.Cause != nil {
		err = e.Cause
	}
	if e.Code.Status() >= http.StatusInternalServerError {
		a.logCause(w, r, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	if enveloped(r.URL.Path) {
		writeEnveloped(w, &e)
	} else {
		verify.WriteError(w, &e)
	}
}

// challenge is the WWW-Authenticate value that an error needs (RFC 6750, section 3), "" for none.
func challenge(e *apikey.Error) string {
	switch {
	case e.Code == apikey.InsufficientScope:
		return verify.Challenge(e.Scope)
	case e.Code == apikey.MissingKey:
		return `Bearer realm="latchkey"`
	case e.Code.Status() == http.StatusUnauthorized:
		return `Bearer realm="latchkey", error="invalid_token"`
	}
	return ""
}

// rescue turns a panic into an answer. What panicked is logged by its type, as its text might hold anything; the
// runtime's own errors tell of the code alone.
func (a *API) rescue(w *response, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	err := fmt.Errorf("panic: %T", cause)
	if runtimeError, ok := cause.(runtime.Error); ok {
		err = fmt.Errorf("panic: %w", runtimeError)
	}
	err = fmt.Errorf("%w\n%s", err, debug.Stack())
	if w.status == 0 {
		a.fail(w, r, err)
	} else {
		a.logCause(w, r, err)
	}
}

// logCause says what lies behind an answer of 500 or more.
func (a *API) logCause(w *response, r *http.Request, err error) {
	a.Log.LogAttrs(r.Context(), slog.LevelError, "failed", slog.String("request_id", w.requestID), slog.String("error", err.Error()))
}

// logRequest says what was asked, by whom and how it ended, in words of our own and the key's public prefix: never the
// path, the query, a header, a body, or what a token says of a person.
func (a *API) logRequest(w *response, r *http.Request) {
	a.Log.LogAttrs(r.Context(), slog.LevelInfo, "request",
		slog.String("request_id", w.requestID),
		slog.String("method", known(r.Method)),
		slog.String("route", r.Pattern),
		slog.Int("status", w.status),
		slog.Float64("duration_ms", float64(a.Now().Sub(w.started).Microseconds())/1000),
		slog.String("key_prefix", w.keyPrefix),
		slog.String("code", string(w.code)),
		slog.String("caller", string(w.kind)),
		slog.String("client", verify.ClientAddress(r, a.TrustedHops).String()))
}

// known is the method if it is one of HTTP's: others are the client's own words.
func known(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE":
		return method
	}
	return "other"
}
