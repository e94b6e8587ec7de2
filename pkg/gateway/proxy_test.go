package gateway_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/gateway"
)

// seen is a request as a handler sees it.
type seen struct {
	Method, Path, EscapedPath, Host, RemoteAddr string
	Query                                       map[string][]string
	Header                                      http.Header
	Body                                        []byte
}

func TestARequestArrivesAsTheClientSentIt(t *testing.T) {
	golden(t, "proxy", func(t *testing.T, event json.RawMessage) any {
		var got struct {
			Request *seen `json:"request"`
			Answer  any   `json:"answer"`
		}
		got.Answer = outcome(gateway.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if _, _, err := net.SplitHostPort(r.RemoteAddr); err != nil {
				t.Error(err)
			}
			got.Request = &seen{r.Method, r.URL.Path, r.URL.EscapedPath(), r.Host, r.RemoteAddr, r.URL.Query(), r.Header, body}
			respond(w, r)
		}), slog.New(slog.DiscardHandler)), event)
		return got
	})
}

// respond answers in the ways that an adapter may get wrong, by the last word of the path.
func respond(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/silent":
	case "/panic":
		panic("lk_live_secret")
	case "/panic-late":
		w.Header().Set("X-Half", "done")
		_, _ = io.WriteString(w, "half of it")
		panic("lk_live_secret")
	case "/twice":
		w.WriteHeader(http.StatusTooManyRequests)
		w.WriteHeader(http.StatusOK)
	case "/binary":
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write([]byte{0, 1, 0xff, 0x80})
	case "/cookies":
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1", Path: "/"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		w.Header().Add("Vary", "Origin")
		w.Header().Add("Vary", "Accept")
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "Grüße")
	}
}

// What a client writes into a parameter of the path stays in it: it opens no other route, and is not cleaned away.
func FuzzAParameterStaysInItsPlace(f *testing.F) {
	for _, id := range []string{"key_1", "..", "a/b", "a%2Fb", "%2e%2e%2f", "%", "?a=b", "#", " ", "", "ä", "\x00", "//evil.example/"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		event, err := json.Marshal(map[string]any{"httpMethod": "GET", "resource": "/v1/api-keys/{id}/rotate", "path": "/",
			"pathParameters": map[string]string{"id": id}})
		if err != nil {
			t.Fatal(err)
		}
		served := false
		serve := gateway.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			segments := strings.Split(r.URL.EscapedPath(), "/")
			served = len(segments) == 5 && segments[2] == "api-keys" && segments[4] == "rotate" && r.URL.RawQuery == "" && r.URL.Fragment == ""
		}), slog.New(slog.DiscardHandler))
		if _, err := serve(t.Context(), event); err != nil || !served {
			t.Errorf("%q: %v", id, err)
		}
	})
}
