package lifecycle_test

import (
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// What the model test found, as stories of their own.

func TestAGraceCutShortByAnExpiryDoesNotComeBackByALaterOne(t *testing.T) {
	h := newHouse(t, "enterprise")
	first := h.mustCreate(t, basic())
	second, err := h.Rotate(admin(), first.Key.ID, seconds(24*3600))
	if err != nil {
		t.Fatal(err)
	}
	soon := lifecycle.Patch{ExpiresAt: said(lifecycle.Moment{Time: h.clock().Add(time.Hour)})}
	k, err := h.Update(admin(), first.Key.ID, 0, soon)
	if err != nil || !k.GraceExpiresAt.Equal(*k.ExpiresAt) {
		t.Fatalf("the grace ends at %v, after the expiry %v, %v", k.GraceExpiresAt, k.ExpiresAt, err)
	}
	h.advance(2 * time.Hour)
	third, err := h.Rotate(admin(), second.New.Key.ID, seconds(24*3600))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Update(admin(), first.Key.ID, 0, lifecycle.Patch{ExpiresAt: null[lifecycle.Moment]()}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []struct {
		issued apikey.Issued
		want   apikey.Code
	}{{first, apikey.ExpiredKey}, {second.New, apikey.Valid}, {third.New, apikey.Valid}} {
		if got := h.verify(line.issued); got != line.want {
			t.Errorf("a key of the line is %s, want %s", got, line.want)
		}
	}
}

func TestAMemberToldOfAWrongFilterIsToldSoWhateverElseItSays(t *testing.T) {
	h := newHouse(t, "enterprise")
	member := as(caller.Caller{OrganizationID: "acme", Kind: caller.User, ID: "max", Own: true, Scopes: []string{apikey.KeysRead}})
	_, _, err := h.List(member, lifecycle.Filter{CreatedBy: "ada", Limit: lifecycle.MaxPage + 1})
	wantCode(t, err, apikey.InvalidFields)
}
