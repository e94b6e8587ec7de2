package lifecycle_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
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

// TestAPlanHoldsAtEveryMomentWhateverVerbsRace lets all verbs that take or free a place race, on keys that expire meanwhile,
// and looks at the whole organization all the time.
func TestAPlanHoldsAtEveryMomentWhateverVerbsRace(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "starter")
	const places, racers, steps = 3, 16, 60
	query := lifecycle.Query{OrganizationID: "acme", Side: lifecycle.Both, Limit: 1 << 20}
	all := func() []apikey.Record {
		page, _, err := h.memory.Keys(context.Background(), query)
		if err != nil {
			t.Error(err)
		}
		return page
	}
	look := func() {
		page, live := all(), 0
		now := h.clock() // after the page: what lives now lived then
		for _, r := range page {
			if r.StatusAt(now) == apikey.Active && !slices.Contains(r.Scopes, apikey.OrgAdmin) {
				live++
			}
		}
		if live > places {
			t.Errorf("%d keys live on a plan of %d", live, places)
		}
	}
	var group sync.WaitGroup
	for range racers {
		group.Go(func() {
			for range steps {
				racerStep(h, all())
				look()
			}
		})
	}
	group.Wait()
	counted := int64(0)
	for _, r := range all() {
		if r.Counted {
			counted++
		}
	}
	if n := h.activeKeys(t); n != counted || n > places {
		t.Errorf("the plan counts %d keys, there are %d", n, counted)
	}
}

// racerStep does one thing at random. Most are refused.
func racerStep(h *house, keys []apikey.Record) {
	ctx, soon := admin(), lifecycle.Maybe[lifecycle.Moment]{Said: true, V: &lifecycle.Moment{Time: h.clock().Add(time.Duration(1+rand.IntN(20)) * time.Second)}}
	if len(keys) == 0 || rand.IntN(5) == 0 {
		n := basic()
		if rand.IntN(4) == 0 {
			n.Scopes = []string{apikey.OrgAdmin}
		}
		if rand.IntN(3) == 0 {
			n.ExpiresAt = soon.V
		}
		_, _ = h.Create(ctx, n)
		return
	}
	id := keys[rand.IntN(min(len(keys), 12))].ID
	patch := func(p lifecycle.Patch) { _, _ = h.Update(ctx, id, 0, p) }
	switch rand.IntN(12) {
	case 0, 1:
		_, _ = h.Archive(ctx, id)
	case 2, 3, 4:
		_, _ = h.Reactivate(ctx, id)
	case 5:
		patch(lifecycle.Patch{ExpiresAt: soon})
	case 6:
		patch(lifecycle.Patch{ExpiresAt: lifecycle.Maybe[lifecycle.Moment]{Said: true}})
	case 7:
		patch(lifecycle.Patch{Scopes: &[]string{apikey.OrgAdmin}})
	case 8:
		patch(lifecycle.Patch{Scopes: &[]string{}, Enabled: new(true)})
	case 9:
		_, _ = h.Rotate(ctx, id, seconds(rand.IntN(2)*5))
	case 10:
		_ = h.Revoke(ctx, id, "")
	case 11:
		h.advance(time.Second)
	}
}
