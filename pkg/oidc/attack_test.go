package oidc_test

import (
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/oidc"
)

func TestOneWordOfARolesNameIsNotAnotherRole(t *testing.T) {
	a := newAuthority(t)
	v := a.verifier(t, func(i *oidc.Issuer) {
		i.Roles = map[string]string{"Admin": "admin", "Store Admin": "viewer", "Staff": "member"}
		i.DefaultRole = "viewer"
	})
	for role, want := range map[string]string{
		"Store Admin": "keys:read",
		"Admin":       "keys:read keys:write keys:verify audit:read",
		"Staff Admin": "keys:read keys:write keys:verify audit:read", // two values
		"Store":       "keys:read",
		"Chief Admin": "keys:read", // one name that is not known
	} {
		c, err := v.Verify(t.Context(), a.token(members{"role": role}))
		if got := strings.Join(c.Scopes, " "); err != nil || got != want {
			t.Errorf("%q: got %q, %v", role, got, err)
		}
	}
}
