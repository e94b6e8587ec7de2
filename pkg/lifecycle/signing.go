package lifecycle

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

// overlap is how long a replaced signing secret goes on signing beside its successor.
const overlap = 24 * time.Hour

// Signing is one of an organization's secrets that its notices are signed with.
type Signing struct {
	Sealed []byte     `json:"s"`
	Until  *time.Time `json:"u,omitempty"` // nil: the present one
}

// SigningSecret returns the secret that the organization's notices are signed with, "whsec_…" (Standard Webhooks), and makes
// it first if there is none. Who may have it: see MayUseWebhooks.
func (s *Service) SigningSecret(ctx context.Context) (apikey.Plaintext, error) {
	by, err := MayUseWebhooks(ctx)
	if err != nil {
		return apikey.Plaintext{}, err
	}
	secrets, err := s.signing(ctx, by, false)
	if err != nil {
		return apikey.Plaintext{}, err
	}
	return secrets[0], nil
}

// RotateSigningSecret replaces the secret by a new one. For 24 hours both sign. It needs what SigningSecret needs.
func (s *Service) RotateSigningSecret(ctx context.Context) (apikey.Plaintext, error) {
	by, err := MayUseWebhooks(ctx)
	if err != nil {
		return apikey.Plaintext{}, err
	}
	secrets, err := s.signing(ctx, by, true)
	if err != nil {
		return apikey.Plaintext{}, err
	}
	return secrets[0], nil
}

// MayUseWebhooks refuses whoever has no part in their organization's webhooks, and returns who asks: it needs keys:write, and
// more than one's own keys.
func MayUseWebhooks(ctx context.Context) (caller.Caller, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return by, err
	}
	if by.Own {
		return by, &apikey.Error{Code: apikey.InsufficientScope, Scope: apikey.KeysWrite, Message: "Members have no part in webhooks: ask an admin of your organization."}
	}
	return by, nil
}

// SigningSecrets returns all secrets that an organization's notices are to be signed with now, the present one first.
func (s *Service) SigningSecrets(ctx context.Context, organizationID string) ([]apikey.Plaintext, error) {
	return s.signing(ctx, caller.Caller{OrganizationID: organizationID, Kind: caller.Operator, ID: "latchkey"}, false)
}

func (s *Service) signing(ctx context.Context, by caller.Caller, renew bool) ([]apikey.Plaintext, error) {
	if s.Seal == nil {
		return nil, apikey.Errorf(apikey.NoSealingKey, "This service was set up without a key to seal secrets with, so it signs no notices.")
	}
	now := s.now()
	o, err := s.stored(ctx, by.OrganizationID)
	if apikey.CodeOf(err) == apikey.NotFound { // it is stored with its first secret
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if renew || len(o.Signing) == 0 {
		if o, err = s.renewSigning(ctx, by, now, renew); err != nil {
			return nil, err
		}
	}
	var secrets []apikey.Plaintext
	for _, sig := range o.Signing {
		if sig.Until != nil && !sig.Until.After(now) {
			continue
		}
		text, err := s.Seal.Open(ctx, sig.Sealed, signingBound(o.ID))
		if err != nil {
			return nil, unavailable(fmt.Errorf("opening a signing secret: %w", err))
		}
		secrets = append(secrets, apikey.NewPlaintext(string(text)))
	}
	if len(secrets) == 0 {
		return nil, unavailable(errors.New("the organization has no signing secret"))
	}
	return secrets, nil
}

// renewSigning puts a new secret before the present one, or makes the first.
func (s *Service) renewSigning(ctx context.Context, by caller.Caller, now time.Time, renew bool) (Organization, error) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	text := "whsec_" + base64.StdEncoding.EncodeToString(b)
	sealed, err := s.Seal.Seal(ctx, []byte(text), signingBound(by.OrganizationID))
	if err != nil {
		return Organization{}, unavailable(fmt.Errorf("sealing a signing secret: %w", err))
	}
	done := false
	return s.put(ctx, by, by.OrganizationID, func(o *Organization) {
		if done = done || len(o.Signing) > 0 && (!renew || string(o.Signing[0].Sealed) == string(sealed)); done {
			return
		}
		list := []Signing{{Sealed: sealed}}
		for _, old := range o.Signing {
			if old.Until == nil {
				old.Until = new(now.Add(overlap))
			}
			if old.Until.After(now) {
				list = append(list, old)
			}
		}
		o.Signing = list
	})
}

func signingBound(organizationID string) string { return "signing-" + organizationID }
