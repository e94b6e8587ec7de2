package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/verify"
)

// The adapter (aws-lambda-go-api-proxy, no longer maintained) is trusted with the method, the query, the body and the
// collecting of the answer. The path, the headers, the peer, the rules of a ResponseWriter and panics are seen to here:
// it takes them from where a client can reach, tears them at commas, or does not see to them at all.

// Serve gives the proxy events of REST APIs (and payload format 1.0) and of HTTP APIs (2.0) to h. The request's path is
// that of the route which the gateway matched, without stage and base path; its headers are as they came; its RemoteAddr
// is the peer that the gateway saw. A handler that panics is answered with 500, one that writes nothing with 200.
func Serve(h http.Handler, log *slog.Logger) Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		e, err := readEvent(raw)
		if err != nil {
			return nil, err
		}
		answer, err := e.try(ctx, h)
		if err != nil {
			log.ErrorContext(ctx, "failed", "error", err)
			return e.try(ctx, http.HandlerFunc(failed))
		}
		return answer, nil
	}
}

func failed(w http.ResponseWriter, _ *http.Request) {
	verify.WriteError(w, &apikey.Error{Code: apikey.Internal, Message: "Something went wrong here. Try again."})
}

// event is a proxy event: what the adapter is not trusted with, and the way through the adapter with the rest.
type event struct {
	header  http.Header
	peer    string
	through func(context.Context, http.Handler) (any, error)
}

func readEvent(raw json.RawMessage) (event, error) {
	var rest events.APIGatewayProxyRequest
	var shape struct{ Version string }
	if err := json.Unmarshal(raw, &shape); err != nil {
		return event{}, fmt.Errorf("reading the event: %w", err)
	}
	if shape.Version == "2.0" {
		return readHTTPEvent(raw)
	}
	if err := json.Unmarshal(raw, &rest); err != nil {
		return event{}, fmt.Errorf("reading the event of a REST API: %w", err)
	}
	if rest.HTTPMethod == "" {
		return event{}, errors.New("this is no proxy event of API Gateway")
	}
	peer := rest.RequestContext.Identity.SourceIP
	e := event{header: headers(rest.MultiValueHeaders, rest.Headers, peer), peer: peer}
	rest.Headers, rest.MultiValueHeaders = nil, nil
	rest.Path = routed(rest.Resource, rest.PathParameters, rest.Path, rest.RequestContext.Stage)
	e.through = func(ctx context.Context, h http.Handler) (any, error) {
		return httpadapter.New(h).ProxyWithContext(ctx, rest)
	}
	return e, nil
}

func readHTTPEvent(raw json.RawMessage) (event, error) {
	var in events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(raw, &in); err != nil {
		return event{}, fmt.Errorf("reading the event of an HTTP API: %w", err)
	}
	if in.RequestContext.HTTP.Method == "" {
		return event{}, errors.New("this is no proxy event of API Gateway")
	}
	peer := in.RequestContext.HTTP.SourceIP
	e := event{header: headers(nil, in.Headers, peer), peer: peer}
	if len(in.Cookies) > 0 {
		e.header.Set("Cookie", strings.Join(in.Cookies, "; "))
	}
	in.Headers, in.Cookies = nil, nil
	_, route, _ := strings.Cut(in.RouteKey, " ")
	in.RawPath = routed(route, in.PathParameters, in.RawPath, in.RequestContext.Stage)
	e.through = func(ctx context.Context, h http.Handler) (any, error) {
		return httpadapter.NewV2(h).ProxyWithContext(ctx, in)
	}
	return e, nil
}

// try gives the event's request to h. A panic of h is an error.
func (e event) try(ctx context.Context, h http.Handler) (answer any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %T\n%s", cause, debug.Stack())
		}
	}()
	return e.through(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header, r.RemoteAddr = e.header.Clone(), net.JoinHostPort(e.peer, "0")
		r.Header.Del("Host") // it is r.Host
		r.Header.Del(core.APIGwContextHeader)
		r.Header.Del(core.APIGwStageVarsHeader)
		begun := &response{ResponseWriter: w}
		h.ServeHTTP(begun, r)
		begun.WriteHeader(http.StatusOK)
	}))
}

// response keeps net/http's rules: the first status stands, and is 200 unless the handler says otherwise.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) WriteHeader(status int) {
	if !w.begun && status >= http.StatusOK {
		w.begun = true
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// routed is the path of the route that matched, with its parameters in their places. Only for a route that matches
// everything ("$default") it is the path of the event, without the stage.
func routed(route string, params map[string]string, path, stage string) string {
	if !strings.HasPrefix(route, "/") {
		if rest, ok := strings.CutPrefix(path+"/", "/"+stage+"/"); ok {
			path = "/" + strings.TrimSuffix(rest, "/")
		}
		return spelt(cmp.Or(path, "/"))
	}
	segments := strings.Split(route, "/")
	for i, s := range segments {
		name, isParam := strings.CutPrefix(strings.TrimSuffix(s, "}"), "{")
		if name, greedy := strings.CutSuffix(name, "+"); isParam && greedy {
			segments[i] = spelt(params[name])
		} else if isParam {
			segments[i] = segment(params[name])
		}
	}
	return strings.Join(segments, "/")
}

// spelt is a path with each segment in its one spelling.
func spelt(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = segment(s)
	}
	return strings.Join(segments, "/")
}

// segment is s in its one spelling: AWS hands it over encoded, the SAM CLI decoded.
func segment(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		s = decoded
	}
	return url.PathEscape(s)
}
