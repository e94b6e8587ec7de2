package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/webhook"
)

// notice is the part of a notice that a receiver needs.
type notice struct {
	Version int    `json:"version"` // of an event, which tells of a rotation and brings no key; a notice has none
	Type    string `json:"type"`
	Data    struct {
		NewKeyID string `json:"new_key_id"`
		Key      string `json:"key"`
	} `json:"data"`
}

// receiver takes a new key over. It answers 2xx only once the key is kept: from then on Latchkey counts on it.
type receiver struct {
	secret webhook.Secret
	file   string
	mu     sync.Mutex // one notice at a time
}

func (h *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, webhook.MaxBody))
	if err != nil {
		http.Error(w, "the notice could not be read", http.StatusBadRequest)
		return
	}
	if err := webhook.Verify(r.Header, body, time.Now(), h.secret); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var n notice
	if err := json.Unmarshal(body, &n); err != nil {
		http.Error(w, "the notice is not as expected", http.StatusBadRequest)
		return
	}
	if err := h.take(r.Header.Get("webhook-id"), n); err != nil {
		log.Print(err) // it holds no key
		http.Error(w, "the key could not be kept", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// take keeps the key of a notice that was not taken before. The same notice may come twice, and an old one late: what is
// in the file must not go back.
func (h *receiver) take(id string, n notice) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := read(h.file)
	if err != nil || n.Version > 0 || n.Type != "api_key.rotated" || s.has(id) {
		return err
	}
	if n.Data.Key == "" {
		return errors.New("a notice without a key")
	}
	return write(h.file, s.with(id, n.Data.Key))
}
