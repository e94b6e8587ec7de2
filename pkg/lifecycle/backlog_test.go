package lifecycle_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/work"
)

var backlogKeys = flag.Int("backlog.keys", 4000, "how many due keys TestABacklogIsWorkedOffInOrderAndHoldsUpNobodyNew has to work off")

// sweptAt is a store that notes, in order, which keys were told of.
type sweptAt struct {
	lifecycle.Store
	told []apikey.ID
}

func (s *sweptAt) Commit(ctx context.Context, c lifecycle.Change) error {
	err := s.Store.Commit(ctx, c)
	if err == nil && c.Entry.Action == audit.Expired {
		s.told = append(s.told, *c.Entry.KeyID)
	}
	return err
}

// A fortieth of the keys is one organization's; the others have 20 each. Each run may look at 1,000 keys of 100,000, or as
// many of fewer. Meanwhile, every minute, keys of new organizations become due.
func TestABacklogIsWorkedOffInOrderAndHoldsUpNobodyNew(t *testing.T) {
	const fresh = 5 // that become due each minute
	h := newHouse(t, "enterprise")
	made, part, isFresh := map[apikey.ID]time.Time{}, map[apikey.ID]int{}, map[apikey.ID]bool{}
	expires := func(organization string, at time.Time) apikey.ID {
		n := basic()
		n.ExpiresAt = &lifecycle.Moment{Time: at}
		by := caller.Caller{OrganizationID: organization, Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()}
		if _, err := h.AddOrganization(as(by), "enterprise", nil); err != nil {
			t.Fatal(err)
		}
		issued, err := h.Create(as(by), n)
		if err != nil {
			t.Fatal(err)
		}
		made[issued.Key.ID], part[issued.Key.ID] = at, work.ShardOf(organization)
		return issued.Key.ID
	}
	began := h.clock()
	for n := range *backlogKeys {
		organization := "one_with_many"
		if n%40 > 0 {
			organization = fmt.Sprintf("org_%d", n%(*backlogKeys/20))
		}
		expires(organization, began.Add(time.Hour+time.Duration(n)*time.Millisecond))
	}
	h.advance(day) // nobody swept for a day
	swept := &sweptAt{Store: h.memory}
	on := *h.Service
	on.Store = swept
	limit, runs, longest, busiest := max(400, *backlogKeys/100), 0, time.Duration(0), 0
	for {
		for n := range fresh {
			isFresh[expires(fmt.Sprintf("new_%d_%d", runs, n), h.clock().Add(time.Second))] = true
		}
		h.advance(time.Minute)
		before := len(swept.told)
		if _, err := on.Sweep(context.Background(), limit); err != nil {
			t.Fatal(err)
		}
		runs++
		busiest = max(busiest, len(swept.told)-before)
		left := 0
		for _, id := range swept.told[before:] {
			if isFresh[id] {
				longest = max(longest, h.clock().Sub(made[id]))
			} else {
				left++
			}
		}
		if left == 0 {
			break
		}
	}
	t.Logf("%d keys in %d runs of at most %d; a new organization's key waited for %v at most", *backlogKeys, runs, busiest, longest)
	if len(swept.told) != *backlogKeys+(runs-1)*fresh+fresh || longest >= 2*time.Minute || runs > *backlogKeys/limit*6/5+2 {
		t.Errorf("%d of %d were told in %d runs, new ones after up to %v", len(swept.told), *backlogKeys, runs, longest)
	}
	told := make([][]apikey.ID, work.Shards)
	for _, id := range swept.told {
		if !isFresh[id] {
			told[part[id]] = append(told[part[id]], id)
		}
	}
	for _, one := range told {
		inOrder(t, one, made)
	}
}

// inOrder holds that each key of a part was the longest due when its turn came, or one of the latest.
func inOrder(t *testing.T, told []apikey.ID, at map[apikey.ID]time.Time) {
	t.Helper()
	waiting := slices.Clone(told)
	slices.SortFunc(waiting, func(a, b apikey.ID) int { return at[a].Compare(at[b]) })
	first := 0
	for n, id := range told {
		place, _ := slices.BinarySearchFunc(waiting, id, func(a, b apikey.ID) int { return at[a].Compare(at[b]) })
		waiting = slices.Delete(waiting, place, place+1)
		switch {
		case place == 0:
			first++
		case place < len(waiting)-50:
			t.Fatalf("the %d. to be told of was the %d. of %d", n, place, len(waiting))
		}
	}
	if first < len(told)*2/5 {
		t.Errorf("only %d of %d were told in order", first, len(told))
	}
}
