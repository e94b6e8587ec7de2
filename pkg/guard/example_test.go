package guard_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/guard"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/verify"
)

func ExampleNew() {
	format, err := apikey.NewFormat("lk")
	if err != nil {
		log.Fatal(err)
	}
	verifier := &verify.Verifier{Store: memory.New(), Format: format, Now: time.Now} // or the DynamoDB store

	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := guard.From(r.Context())
		fmt.Fprintf(w, "orders of %s", d.OrganizationID)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", guard.New(verifier, guard.Scopes("orders:read"))(orders))
	mux.Handle("POST /orders", guard.New(verifier, guard.Scopes("orders:write"), guard.Cost(5))(orders))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/orders", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="latchkey"
}
