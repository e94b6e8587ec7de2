package oidc_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/issuer"
	"github.com/latchkey/latchkey/pkg/oidc"
)

func TestWhatDevelopmentsIssuerSignsIsAPerson(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	i, err := issuer.New(server.URL+"/dev/issuer", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for pattern, h := range i.Handlers() {
		mux.Handle(pattern, h)
	}
	v, err := oidc.New([]oidc.Issuer{{Issuer: i.URL(), Audiences: []string{issuer.Audience}}}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := i.Sign(map[string]any{"sub": "ada", "org_id": "org_dev", "role": "admin"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != "ada" || c.OrganizationID != "org_dev" || !c.Holds("keys:verify") || c.Own {
		t.Errorf("got %+v", c)
	}
}
