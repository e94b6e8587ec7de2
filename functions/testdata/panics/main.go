// Command panics is a Lambda for tests: it panics when it is told to, in its handler or before one is asked.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/latchkey/latchkey/pkg/gateway"
)

func main() {
	serve := gateway.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("a secret")
		}
		_, _ = io.WriteString(w, "fine")
	}), slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	gateway.Start(func(ctx context.Context, event json.RawMessage) (any, error) {
		if bytes.Contains(event, []byte("outside")) {
			panic("a secret")
		}
		return serve(ctx, event)
	})
}
