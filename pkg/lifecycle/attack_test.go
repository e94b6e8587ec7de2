package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
)

// betweenReads does something before an organization is read for the nth time.
type betweenReads struct {
	lifecycle.Store
	left int
	do   func()
}

func (b *betweenReads) Organization(ctx context.Context, id string) (lifecycle.Organization, error) {
	if b.left--; b.left == 0 {
		b.do()
	}
	return b.Store.Organization(ctx, id)
}

func TestAPlanThatIsLoweredWhileAPersonMakesAKeyHolds(t *testing.T) {
	for nth := 1; nth <= 3; nth++ {
		var between *betweenReads
		h := newHouseOn(t, "enterprise", func(m *memory.Store) lifecycle.Store {
			between = &betweenReads{Store: m}
			return between
		})
		h.mustCreate(t, basic())
		operator := *h.Service
		operator.Store = h.memory
		between.left, between.do = nth, func() {
			lower := lifecycle.OrganizationPatch{Plan: lifecycle.Maybe[string]{Said: true, V: new("trial")}}
			if _, err := operator.SetOrganization(admin(), "acme", lower); err != nil {
				t.Error(err)
			}
		}
		person := caller.Caller{OrganizationID: "acme", Kind: caller.User, ID: "ann", Scopes: []string{apikey.KeysWrite}, Plan: "team"}
		_, err := h.Create(as(person), basic())
		if n := h.activeKeys(t); between.left <= 0 && n > 1 {
			t.Errorf("lowered before read %d: the plan trial has %d keys, %v", nth, n, err)
		}
	}
}

func TestAChangeThatIsDecidedAgainIsNotMadeForAKeyThatLostItsRightsMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		patch lifecycle.Patch
		want  apikey.Code
	}{
		"a scope":   {lifecycle.Patch{Scopes: &[]string{apikey.KeysRead}}, apikey.InsufficientScope},
		"its time":  {lifecycle.Patch{ExpiresAt: lifecycle.Maybe[lifecycle.Moment]{Said: true, V: &lifecycle.Moment{Time: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}}}, apikey.Unavailable},
		"addresses": {lifecycle.Patch{AllowedCIDRs: &[]string{"192.0.2.0/24"}}, apikey.Unavailable},
	} {
		var before *beforeCommit
		h := newHouseOn(t, "enterprise", func(m *memory.Store) lifecycle.Store {
			before = &beforeCommit{Store: m}
			return before
		})
		n := basic()
		n.Scopes = []string{apikey.KeysRead, apikey.KeysWrite}
		k := h.mustCreate(t, n)
		operator := *h.Service
		operator.Store = h.memory
		before.do = func() {
			if _, err := operator.Update(admin(), k.Key.ID, 0, test.patch); err != nil {
				t.Error(err)
			}
		}
		by := caller.Caller{OrganizationID: "acme", Kind: caller.Key, ID: k.Key.ID.String(), Scopes: n.Scopes}
		_, err := h.Create(as(by), n)
		if apikey.CodeOf(err) != test.want || h.activeKeys(t) != 1 {
			t.Errorf("%s: got %v, and %d keys", name, err, h.activeKeys(t))
		}
	}
}

// beforeCommit does something once, and has the commit that it came before fail.
type beforeCommit struct {
	lifecycle.Store
	do func()
}

func (b *beforeCommit) Commit(ctx context.Context, c lifecycle.Change) error {
	if do := b.do; do != nil {
		b.do = nil
		do()
		return apikey.ErrConflict
	}
	return b.Store.Commit(ctx, c)
}
