package httpapi

import (
	"context"
	"net/http"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// The secret that an organization's notices are signed with.

type signingSecret struct {
	Secret string `json:"secret"`
}

func (a *API) signingSecret(ctx context.Context, _ nothing, h http.Header) (signingSecret, error) {
	return shownSecret(h)(a.Keys.SigningSecret(ctx))
}

func (a *API) rotateSigningSecret(ctx context.Context, _ nothing, h http.Header) (signingSecret, error) {
	return shownSecret(h)(a.Keys.RotateSigningSecret(ctx))
}

func shownSecret(h http.Header) func(apikey.Plaintext, error) (signingSecret, error) {
	return func(secret apikey.Plaintext, err error) (signingSecret, error) {
		h.Set("Cache-Control", "no-store")
		return signingSecret{secret.Reveal()}, err
	}
}
