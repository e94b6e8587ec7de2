// Command backend serves two routes: /orders, before which Latchkey's authorizer stands, and
// /reports, which asks about each key itself and so answers 401, 403, 429 and 503 as they are.
package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/gateway"
	"github.com/latchkey/latchkey/pkg/guard"
	"github.com/latchkey/latchkey/pkg/verify"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	protect, err := protection()
	if err != nil {
		log.Error("cannot start", "error", err)
		os.Exit(1)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", orders)
	mux.Handle("GET /reports", protect(http.HandlerFunc(reports)))
	gateway.Start(gateway.Serve(mux, log))
}

// protection is middleware that lets keys with the scope reports:read through.
func protection() (func(http.Handler) http.Handler, error) {
	client, err := dynamo.NewClient(dynamo.Config{
		Region:          os.Getenv("AWS_REGION"),
		AccessKeyID:     os.Getenv("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken:    os.Getenv("AWS_SESSION_TOKEN"),
	})
	if err != nil {
		return nil, err
	}
	format, err := apikey.NewFormat(os.Getenv("LATCHKEY_BRAND"))
	if err != nil {
		return nil, err
	}
	store := dynamo.New(client, dynamo.Tables{Keys: os.Getenv("LATCHKEY_KEYS_TABLE")})
	return guard.New(&verify.Verifier{Store: store, Format: format, Now: time.Now}, guard.Scopes("reports:read")), nil
}

func orders(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"orders": []string{}})
}

func reports(w http.ResponseWriter, r *http.Request) {
	key, _ := guard.From(r.Context())
	answer(w, map[string]any{"organization_id": key.OrganizationID, "reports": []string{}})
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that has gone needs no answer
}
