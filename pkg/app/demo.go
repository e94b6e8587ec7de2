package app

import (
	"encoding/json"
	"net/http"

	"github.com/latchkey/latchkey/pkg/guard"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/verify"
)

// demoPath is where the demo lists its orders.
const demoPath = "/demo/orders"

// demoScope is what a key needs for it.
const demoScope = "orders:read"

type order struct {
	ID    int    `json:"id"`
	Item  string `json:"item"`
	Count int    `json:"count"`
}

// demo is a small API of the kind that Latchkey protects: a list of orders for keys with the scope orders:read.
func (a *App) demo(hops int) http.Handler {
	orders := []order{{1, "padlock", 2}, {2, "hinge", 12}, {3, "door", 1}}
	list := func(w http.ResponseWriter, r *http.Request) {
		d, _ := guard.From(r.Context())
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"orders": orders, "for_key": d.KeyPrefix})
	}
	note := func(r *http.Request, d verify.Decision) { httpapi.Note(r.Context(), d) }
	protect := guard.New(a.Verifier, guard.Scopes(demoScope), guard.TrustedHops(hops), guard.Observe(note))
	return protect(http.HandlerFunc(list))
}
