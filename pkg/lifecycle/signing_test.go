package lifecycle_test

import (
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/seal"
)

func TestAnOrganizationOfWhichNothingIsStoredYetGetsItsSigningSecret(t *testing.T) {
	h := newHouse(t, "pro")
	h.Seal = seal.NewLocal([32]byte{1})
	ctx := as(caller.Caller{OrganizationID: "newcomer", Kind: caller.User, ID: "user_1", Scopes: []string{apikey.KeysWrite}})
	first, err := h.SigningSecret(ctx)
	if err != nil || !strings.HasPrefix(first.Reveal(), "whsec_") {
		t.Fatal(err)
	}
	if again, err := h.SigningSecret(ctx); err != nil || again.Reveal() != first.Reveal() {
		t.Errorf("it is another the second time: %v", err)
	}
}
