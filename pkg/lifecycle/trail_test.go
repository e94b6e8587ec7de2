package lifecycle_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// story is an organization to which something happens every second, and what the trail should tell of it, newest first.
func story(t *testing.T, store storetest.Store) (s *scene, ids []apikey.ID, all []audit.Entry) {
	t.Helper()
	s = newScene(t, store, "enterprise")
	ann := caller.From(s.person(""))
	ann.Address, ann.RequestID = netip.MustParseAddr("192.0.2.7"), "request-1"
	for i := range 3 {
		s.advance(time.Second)
		by := s.admin()
		if i == 1 {
			by = as(ann)
		}
		k, err := s.Create(by, basic())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, k.Key.ID)
	}
	s.advance(time.Second)
	s.archives(t, ids[0])
	s.advance(time.Second)
	if _, err := s.Update(as(ann), ids[1], 0, lifecycle.Patch{Name: new("other")}); err != nil {
		t.Fatal(err)
	}
	s.advance(time.Second)
	s.revokes(t, ids[2])
	all, next, err := s.Audit(s.admin(), lifecycle.AuditFilter{})
	if err != nil || next != "" || len(all) != 7 {
		t.Fatalf("the trail has %d entries, %q, %v", len(all), next, err)
	}
	return s, ids, all
}

func TestTheTrailTellsWhoDidWhatToWhichKeyNewestFirst(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s, ids, all := story(t, open(t))
		want := []audit.Action{audit.Revoked, audit.Updated, audit.Archived, audit.Created, audit.Created, audit.Created, audit.OrgCreated}
		for i, e := range all {
			if e.Action != want[i] || e.OrganizationID != s.organization || i > 0 && !e.At.Before(all[i-1].At) {
				t.Errorf("entry %d is %s", i, asJSON(e))
			}
		}
		got := string(asJSON(all[1]))
		told := fmt.Sprintf(`{"id":%q,"organization_id":%q,"at":"2026-11-22T10:00:35Z","action":"api_key.updated",`+
			`"actor":{"kind":"user","id":"ann"},"address":"192.0.2.7","request_id":"request-1","key_id":%q,`+
			`"changes":[{"field":"name","from":"basic","to":"other"}]}`, all[1].ID, s.organization, ids[1])
		if got != told {
			t.Errorf("got %s,\nwant %s", got, told)
		}
	})
}

func TestTheTrailIsFilteredAndBounded(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s, ids, all := story(t, open(t))
		at := func(i int) time.Time { return all[i].At }
		for name, c := range map[string]struct {
			f    lifecycle.AuditFilter
			want []audit.Entry
		}{
			"a key":                      {lifecycle.AuditFilter{KeyID: ids[1]}, []audit.Entry{all[1], all[4]}},
			"a key that is none":         {lifecycle.AuditFilter{KeyID: 7}, nil},
			"an actor":                   {lifecycle.AuditFilter{ActorID: "ann"}, []audit.Entry{all[1], all[4]}},
			"an action":                  {lifecycle.AuditFilter{Action: audit.Created}, all[3:6]},
			"all of these":               {lifecycle.AuditFilter{KeyID: ids[1], ActorID: "ann", Action: audit.Created, Since: at(4), Until: at(3)}, all[4:5]},
			"from a moment on":           {lifecycle.AuditFilter{Since: at(2)}, all[:3]},
			"from just after it":         {lifecycle.AuditFilter{Since: at(2).Add(time.Millisecond)}, all[:2]},
			"before a moment":            {lifecycle.AuditFilter{Until: at(2)}, all[3:]},
			"before just after it":       {lifecycle.AuditFilter{Until: at(2).Add(time.Millisecond)}, all[2:]},
			"between":                    {lifecycle.AuditFilter{Since: at(4), Until: at(2)}, all[3:5]},
			"between, in another zone":   {lifecycle.AuditFilter{Since: at(4).In(time.FixedZone("", 3600)), Until: at(2)}, all[3:5]},
			"no time at all":             {lifecycle.AuditFilter{Since: at(2), Until: at(2)}, nil},
			"until before since":         {lifecycle.AuditFilter{Since: at(2), Until: at(4)}, nil},
			"a cursor":                   {lifecycle.AuditFilter{Cursor: all[2].ID}, all[3:]},
			"a cursor and a later until": {lifecycle.AuditFilter{Cursor: all[4].ID, Until: at(2)}, all[5:]},
			"a cursor and an earlier":    {lifecycle.AuditFilter{Cursor: all[1].ID, Until: at(3)}, all[4:]},
			"the years to come":          {lifecycle.AuditFilter{Since: at(0).AddDate(100, 0, 0)}, nil},
		} {
			for _, limit := range []int{0, 1, 2, 1000} {
				c.f.Limit = limit
				if got := s.trailed(t, c.f); !reflect.DeepEqual(got, c.want) && len(got)+len(c.want) > 0 {
					t.Errorf("%s by %d: got %s,\nwant %s", name, limit, asJSON(got), asJSON(c.want))
				}
			}
		}
		for _, f := range []lifecycle.AuditFilter{{Limit: -1}, {Limit: 1001}, {Cursor: "x"}, {Cursor: strings.ToLower(all[0].ID)},
			{Cursor: all[0].ID + "0"}, {Since: time.Unix(-1, 0)}, {Until: time.Unix(-1, 0)}} {
			_, _, err := s.Audit(s.admin(), f)
			wantCode(t, err, apikey.InvalidFields)
		}
	})
}

// trailed is all entries that a filter finds, page by page.
func (s *scene) trailed(t *testing.T, f lifecycle.AuditFilter) (all []audit.Entry) {
	t.Helper()
	for {
		page, next, err := s.Audit(s.admin(), f)
		if err != nil || f.Limit > 0 && len(page) > f.Limit || page == nil {
			t.Fatalf("%d entries, %v", len(page), err)
		}
		all = append(all, page...)
		if f.Cursor = next; next == "" {
			return all
		}
	}
}

func TestPagesOfTheTrailLoseAndRepeatNothingWhileMoreHappens(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		k := s.creates(t, basic()).Key.ID
		happens := func(n int) {
			for range n { // all in one millisecond
				s.updates(t, k, disable)
				s.updates(t, k, enable)
			}
		}
		happens(5)
		first := s.trailed(t, lifecycle.AuditFilter{})
		var paged []audit.Entry
		f := lifecycle.AuditFilter{Limit: 3}
		for more := true; more; more = f.Cursor != "" {
			page, next, err := s.Audit(s.admin(), f)
			if err != nil {
				t.Fatal(err)
			}
			paged, f.Cursor = append(paged, page...), next
			happens(1)
		}
		seen := map[string]bool{}
		for _, e := range paged {
			if seen[e.ID] {
				t.Errorf("%s comes twice", e.ID)
			}
			seen[e.ID] = true
		}
		there := map[string]bool{}
		for _, e := range first {
			there[e.ID] = true
		}
		// What happened since, in the same millisecond, may come in between.
		old := slices.DeleteFunc(paged, func(e audit.Entry) bool { return !there[e.ID] })
		if !reflect.DeepEqual(old, first) || len(first) != 12 {
			t.Errorf("page by page there are %d of %d entries", len(old), len(first))
		}
	})
}

func TestALongTrailWithoutAMatchGoesOnByItsCursor(t *testing.T) {
	h := newHouse(t, "enterprise")
	k := h.mustCreate(t, basic()).Key
	o, err := h.memory.Organization(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	for range 10_500 {
		h.advance(time.Millisecond)
		o.Version++
		e := audit.Entry{ID: audit.NewID(h.clock()), OrganizationID: "acme", At: h.clock(), Action: audit.OrgUpdated}
		if err := h.memory.PutOrganization(t.Context(), o, e); err != nil {
			t.Fatal(err)
		}
	}
	f := lifecycle.AuditFilter{KeyID: k.ID}
	page, next, err := h.Audit(admin(), f)
	if err != nil || len(page) != 0 || next == "" {
		t.Fatalf("got %d entries, %q, %v", len(page), next, err)
	}
	f.Cursor = next
	page, next, err = h.Audit(admin(), f)
	if err != nil || len(page) != 1 || *page[0].KeyID != k.ID || next != "" {
		t.Fatalf("got %d entries, %q, %v", len(page), next, err)
	}
}

func TestTheTrailOfAnotherOrganizationIsNotSeen(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		store := open(t)
		s, ids, all := story(t, store)
		other := newScene(t, store, "trial")
		for _, f := range []lifecycle.AuditFilter{{}, {KeyID: ids[0]}, {ActorID: "ann"}, {Cursor: all[0].ID}, {Since: all[6].At}} {
			for _, e := range other.trailed(t, f) {
				if e.OrganizationID != other.organization {
					t.Errorf("%+v shows %s", f, asJSON(e))
				}
			}
		}
		// What an operator does to an organization is told to that organization.
		if _, err := other.SetOrganization(other.admin(), s.organization, onPlan("team")); err != nil {
			t.Fatal(err)
		}
		if got := s.trailed(t, lifecycle.AuditFilter{Action: audit.OrgUpdated}); len(got) != 1 || names(got[0].Changes) != "plan" {
			t.Errorf("got %s", asJSON(got))
		}
		if got := other.trailed(t, lifecycle.AuditFilter{Action: audit.OrgUpdated}); len(got) != 0 {
			t.Errorf("got %s", asJSON(got))
		}
	})
}

func TestTheTrailIsReadWithAuditReadAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t, keytest.OnDynamoDB(t), "enterprise")
	for _, scope := range apikey.ManagementScopes() {
		by := caller.Caller{OrganizationID: s.organization, Kind: caller.User, ID: "ann", Scopes: []string{scope}}
		list, next, err := s.Audit(as(by), lifecycle.AuditFilter{})
		if scope == apikey.AuditRead {
			if err != nil || len(list) != 1 {
				t.Errorf("got %d entries, %v", len(list), err)
			}
			continue
		}
		wantCode(t, err, apikey.InsufficientScope)
		if len(list) != 0 || next != "" {
			t.Errorf("with %s there is an answer", scope)
		}
	}
}

func TestTheChainIsReadWithAuditReadAloneAndByItsOrganization(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		store := open(t)
		s, _, all := story(t, store)
		other := newScene(t, store, "trial")
		if _, err := store.Append(t.Context(), s.organization, all); err != nil {
			t.Fatal(err)
		}
		for _, scope := range apikey.ManagementScopes() {
			by := caller.Caller{OrganizationID: s.organization, Kind: caller.User, ID: "ann", Scopes: []string{scope}}
			list, next, err := s.AuditChain(as(by), 2, 3)
			if scope != apikey.AuditRead {
				wantCode(t, err, apikey.InsufficientScope)
			}
			if want := scope == apikey.AuditRead; (err == nil) != want || (len(list) == 3) != want || (next == 5) != want {
				t.Errorf("with %s: %d links, %d, %v", scope, len(list), next, err)
			}
		}
		if list, next, err := s.AuditChain(s.admin(), 5, 2); err != nil || len(list) != 2 || next != 0 || list[1].EntryID != all[6].ID {
			t.Errorf("the last page has %v, %d, %v", list, next, err)
		}
		if list, next, err := other.AuditChain(other.admin(), 0, 0); err != nil || list == nil || len(list) != 0 || next != 0 {
			t.Errorf("another organization is shown %v, %d, %v", list, next, err)
		}
		for _, wrong := range [][2]int{{-1, 1}, {0, -1}, {0, 1001}} {
			_, _, err := s.AuditChain(s.admin(), int64(wrong[0]), wrong[1])
			wantCode(t, err, apikey.InvalidFields)
		}
	})
}

// secrets is every spelling of a key's secret and hash.
func secrets(k apikey.Issued) []string {
	text := k.Plaintext.Reveal()
	sum := sha256.Sum256([]byte(text))
	return []string{text, text[len(k.Key.KeyPrefix)+1:], hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:])),
		base64.RawStdEncoding.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:])}
}

func TestWhateverHappensNoEntryHoldsASecretOrAHash(t *testing.T) {
	t.Parallel()
	s := newScene(t, memory.New(), "enterprise")
	var keys []apikey.Issued
	for i, v := range onceVerbs {
		of := v.prepare(t, s)
		keys = append(keys, of...)
		keys = append(keys, s.asks(t, v, s.admin(), token(fmt.Sprint(i)), of).New, s.asks(t, v, s.admin(), token(fmt.Sprint(i)), of).New)
	}
	for _, row := range stateTable {
		if row.from != "active" && row.from != "archived" {
			continue
		}
		k := s.creates(t, everything(s))
		keys = append(keys, k)
		for _, verb := range append(slices.Clone(steps[row.from]), row.verb) {
			if err := s.try(k.Key.ID, verb); err != nil && string(apikey.CodeOf(err)) != row.answer {
				t.Fatal(err)
			}
		}
	}
	old := s.creates(t, everything(s))
	keys = append(keys, old)
	for _, m := range members {
		s.updates(t, old.Key.ID, m.patch(s.clock()))
	}
	next := s.rotates(t, old.Key.ID, nil)
	if _, err := s.ExtendGrace(s.admin(), old.Key.ID, lifecycle.MaxGrace); err != nil {
		t.Fatal(err)
	}
	keys = append(keys, next, s.rotates(t, next.Key.ID, seconds(0)))
	s.puts(t, onPlan("team"))

	all := string(asJSON(s.trailed(t, lifecycle.AuditFilter{})))
	for _, action := range []audit.Action{audit.Created, audit.Rotated, audit.GraceEnded, audit.GraceMoved, audit.Revoked, audit.Archived,
		audit.Reactivated, audit.Disabled, audit.Enabled, audit.Updated, audit.OrgCreated, audit.OrgUpdated} {
		if !strings.Contains(all, string(action)) && action != audit.GraceEnded && action != audit.Enabled {
			t.Errorf("nothing tells of %s", action)
		}
	}
	for _, k := range keys {
		for i, secret := range secrets(k) {
			if strings.Contains(all, secret) {
				t.Errorf("an entry holds spelling %d of a secret or its hash", i)
			}
		}
		if !strings.Contains(all, k.Key.ID.String()) {
			t.Errorf("nothing tells of %s", k.Key.ID)
		}
	}
}
