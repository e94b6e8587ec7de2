package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/webhook"
)

// event is the part of an event that is printed.
type event struct {
	Type string `json:"type"`
	Data struct {
		KeyID *string `json:"key_id"` // nil: it is about no key
		Chain struct {
			Sequence int64 `json:"sequence"`
		} `json:"chain"`
	} `json:"data"`
}

// events prints each event that comes to an address, until it is killed. Before it stands whatever ends TLS.
func events(address string) error {
	secret, err := webhook.ParseSecret(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		return fmt.Errorf("WEBHOOK_SECRET: %w", err)
	}
	server := &http.Server{Addr: address, Handler: &watcher{secret: secret, seen: map[string]bool{}}, ReadTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

// watcher answers 2xx to what was signed with the secret, and prints it. A receiver that acts on events keeps the ids that
// it has seen where its work is kept, in one transaction.
type watcher struct {
	secret webhook.Secret
	mu     sync.Mutex
	seen   map[string]bool // ids
}

func (h *watcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, webhook.MaxBody))
	if err != nil {
		http.Error(w, "the event could not be read", http.StatusBadRequest)
		return
	}
	if err := webhook.Verify(r.Header, body, time.Now(), h.secret); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		http.Error(w, "the event is not as expected", http.StatusBadRequest)
		return
	}
	h.print(r.Header.Get("webhook-id"), e)
	w.WriteHeader(http.StatusNoContent)
}

func (h *watcher) print(id string, e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := fmt.Sprint(e.Data.Chain.Sequence, " ", e.Type)
	if e.Data.KeyID != nil {
		line += " " + *e.Data.KeyID
	}
	if h.seen[id] {
		line += " again"
	}
	h.seen[id] = true
	if _, err := fmt.Println(line); err != nil {
		log.Print(err)
	}
}
