package lifecycle_test

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// stateTable is the whole life of a key: in which state which verb answers with what, in which status it leaves the key,
// how many keys the plan counts then, its successor included, and what a verify says of it.
var stateTable = []struct {
	from, verb, answer, status string
	count                      int64
	verify                     apikey.Code
}{
	{"active", "archive", "ok", "archived", 0, "archived"},
	{"active", "reactivate", "wrong_state", "active", 1, "valid"},
	{"active", "disable", "ok", "disabled", 1, "disabled"},
	{"active", "enable", "ok", "active", 1, "valid"},
	{"active", "rotate", "ok", "rotated", 1, "valid"},
	{"active", "rotate without grace", "ok", "expired", 1, "expired"},
	{"active", "end", "not_in_grace", "active", 1, "valid"},
	{"active", "revoke", "ok", "revoked", 0, "revoked"},

	{"disabled", "archive", "ok", "archived", 0, "archived"},
	{"disabled", "reactivate", "wrong_state", "disabled", 1, "disabled"},
	{"disabled", "disable", "ok", "disabled", 1, "disabled"},
	{"disabled", "enable", "ok", "active", 1, "valid"},
	{"disabled", "rotate", "ok", "disabled", 1, "disabled"},
	{"disabled", "revoke", "ok", "revoked", 0, "revoked"},

	{"in grace", "archive", "ok", "archived", 1, "archived"},
	{"in grace", "reactivate", "wrong_state", "rotated", 1, "valid"},
	{"in grace", "disable", "ok", "disabled", 1, "disabled"},
	{"in grace", "enable", "ok", "rotated", 1, "valid"},
	{"in grace", "rotate", "already_rotated", "rotated", 1, "valid"},
	{"in grace", "end", "ok", "expired", 1, "expired"},
	{"in grace", "revoke", "ok", "revoked", 1, "revoked"},

	{"in grace, disabled", "archive", "ok", "archived", 1, "archived"},
	{"in grace, disabled", "reactivate", "wrong_state", "disabled", 1, "disabled"},
	{"in grace, disabled", "disable", "ok", "disabled", 1, "disabled"},
	{"in grace, disabled", "enable", "ok", "rotated", 1, "valid"},
	{"in grace, disabled", "rotate", "already_rotated", "disabled", 1, "disabled"},
	{"in grace, disabled", "end", "ok", "disabled", 1, "disabled"},
	{"in grace, disabled", "revoke", "ok", "revoked", 1, "revoked"},

	{"archived", "archive", "ok", "archived", 0, "archived"},
	{"archived", "reactivate", "ok", "active", 1, "valid"},
	{"archived", "disable", "wrong_state", "archived", 0, "archived"},
	{"archived", "enable", "ok", "archived", 0, "archived"}, // as it was: nothing changes
	{"archived", "rotate", "wrong_state", "archived", 0, "archived"},
	{"archived", "revoke", "ok", "revoked", 0, "revoked"},

	{"archived, disabled", "archive", "ok", "archived", 0, "archived"},
	{"archived, disabled", "reactivate", "ok", "disabled", 1, "disabled"},
	{"archived, disabled", "disable", "ok", "archived", 0, "archived"}, // as it was: nothing changes
	{"archived, disabled", "enable", "wrong_state", "archived", 0, "archived"},
	{"archived, disabled", "rotate", "wrong_state", "archived", 0, "archived"},
	{"archived, disabled", "revoke", "ok", "revoked", 0, "revoked"},

	{"archived in grace", "archive", "ok", "archived", 1, "archived"},
	{"archived in grace", "reactivate", "ok", "rotated", 1, "valid"},
	{"archived in grace", "disable", "wrong_state", "archived", 1, "archived"},
	{"archived in grace", "rotate", "already_rotated", "archived", 1, "archived"},
	{"archived in grace", "end", "ok", "archived", 1, "archived"},
	{"archived in grace", "revoke", "ok", "revoked", 1, "revoked"},

	{"expired", "archive", "ok", "archived", 0, "archived"},
	{"expired", "reactivate", "wrong_state", "expired", 1, "expired"}, // it counts until somebody needs its place
	{"expired", "disable", "ok", "disabled", 0, "disabled"},
	{"expired", "enable", "ok", "expired", 1, "expired"},
	{"expired", "rotate", "wrong_state", "expired", 1, "expired"},
	{"expired", "revoke", "ok", "revoked", 0, "revoked"},

	{"expired, archived", "archive", "ok", "archived", 0, "archived"},
	{"expired, archived", "reactivate", "wrong_state", "archived", 0, "archived"},
	{"expired, archived", "disable", "wrong_state", "archived", 0, "archived"},
	{"expired, archived", "rotate", "wrong_state", "archived", 0, "archived"},
	{"expired, archived", "revoke", "ok", "revoked", 0, "revoked"},

	{"grace over", "archive", "ok", "archived", 1, "archived"},
	{"grace over", "reactivate", "wrong_state", "expired", 1, "expired"},
	{"grace over", "disable", "ok", "disabled", 1, "disabled"},
	{"grace over", "enable", "ok", "expired", 1, "expired"},
	{"grace over", "rotate", "already_rotated", "expired", 1, "expired"},
	{"grace over", "end", "not_in_grace", "expired", 1, "expired"},
	{"grace over", "revoke", "ok", "revoked", 1, "revoked"},

	{"grace over, archived", "archive", "ok", "archived", 1, "archived"},
	{"grace over, archived", "reactivate", "wrong_state", "archived", 1, "archived"},
	{"grace over, archived", "rotate", "already_rotated", "archived", 1, "archived"},
	{"grace over, archived", "revoke", "ok", "revoked", 1, "revoked"},

	{"revoked", "archive", "wrong_state", "revoked", 0, "revoked"},
	{"revoked", "reactivate", "wrong_state", "revoked", 0, "revoked"},
	{"revoked", "disable", "wrong_state", "revoked", 0, "revoked"},
	{"revoked", "enable", "wrong_state", "revoked", 0, "revoked"},
	{"revoked", "rotate", "wrong_state", "revoked", 0, "revoked"},
	{"revoked", "revoke", "ok", "revoked", 0, "revoked"},

	{"archived, revoked", "archive", "wrong_state", "revoked", 0, "revoked"},
	{"archived, revoked", "reactivate", "wrong_state", "revoked", 0, "revoked"},
	{"archived, revoked", "enable", "wrong_state", "revoked", 0, "revoked"},
	{"archived, revoked", "revoke", "ok", "revoked", 0, "revoked"},
}

// steps is what a key has been through in each state of the table.
var steps = map[string][]string{
	"active":               {},
	"disabled":             {"disable"},
	"in grace":             {"rotate"},
	"in grace, disabled":   {"rotate", "disable"},
	"archived":             {"archive"},
	"archived, disabled":   {"disable", "archive"},
	"archived in grace":    {"rotate", "archive"},
	"expired":              {"expire"},
	"expired, archived":    {"archive", "expire"},
	"grace over":           {"rotate", "wait"},
	"grace over, archived": {"rotate", "archive", "wait"},
	"revoked":              {"revoke"},
	"archived, revoked":    {"archive", "revoke"},
}

// try does one verb of the table.
func (s *scene) try(id apikey.ID, verb string) (err error) {
	switch verb {
	case "archive":
		_, err = s.Archive(s.admin(), id)
	case "reactivate":
		_, err = s.Reactivate(s.admin(), id)
	case "disable":
		_, err = s.Update(s.admin(), id, 0, disable)
	case "enable":
		_, err = s.Update(s.admin(), id, 0, enable)
	case "rotate":
		_, err = s.Rotate(s.admin(), id, seconds(3600))
	case "rotate without grace":
		_, err = s.Rotate(s.admin(), id, seconds(0))
	case "end":
		_, err = s.EndGrace(s.admin(), id)
	case "revoke":
		err = s.Revoke(s.admin(), id, "")
	case "expire":
		_, err = s.Update(s.admin(), id, 0, until(s.clock().Add(time.Minute)))
		s.advance(time.Minute)
	case "wait":
		s.advance(time.Hour)
	default:
		panic("there is no verb " + verb)
	}
	return err
}

func TestTheLifeOfAKey(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, row := range stateTable {
			_, inMemory := open(t).(*memory.Store)
			if !inMemory && (row.answer != "ok" || row.verb == "enable") {
				continue // what is refused before anything is written is the same on every store
			}
			t.Run(row.from+": "+row.verb, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, open(t), "enterprise")
				k := s.creates(t, basic())
				for _, step := range steps[row.from] {
					if err := s.try(k.Key.ID, step); err != nil {
						t.Fatalf("to %s: %v", step, err)
					}
				}
				before := s.record(t, k.Key.ID)

				err := s.try(k.Key.ID, row.verb)
				if row.answer == "ok" && err != nil || row.answer != "ok" && string(apikey.CodeOf(err)) != row.answer {
					t.Errorf("it answers %v, want %s", err, row.answer)
				}
				if row.answer != "ok" && !reflect.DeepEqual(s.record(t, k.Key.ID), before) {
					t.Error("a refused verb changed it")
				}
				after, err := s.Get(s.admin(), k.Key.ID)
				if err != nil || string(after.Status) != row.status {
					t.Errorf("it is %s, want %s, %v", after.Status, row.status, err)
				}
				if n := s.count(t); n != row.count {
					t.Errorf("the plan counts %d, want %d", n, row.count)
				}
				s.wantCodes(t, []apikey.Issued{k}, row.verify)
				if inMemory {
					s.sound(t)
				}
			})
		}
	})
}

func TestAnArchivedKeyComesBackAsItWas(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, prepare := range map[string][]string{"active": {}, "disabled": {"disable"}, "in its grace": {"rotate"}} {
			s := newScene(t, open(t), "trial")
			n := everything(s)
			n.AllowedCIDRs = nil
			k := s.creates(t, n)
			s.advance(time.Second)
			s.wantCodes(t, []apikey.Issued{k}, apikey.Valid)
			for _, step := range prepare {
				if err := s.try(k.Key.ID, step); err != nil {
					t.Fatal(err)
				}
			}
			before := s.record(t, k.Key.ID)
			s.advance(time.Minute)
			away := s.archives(t, k.Key.ID)
			if away.Status != apikey.Archived || !away.ArchivedAt.Equal(s.clock()) || !away.LastUsedAt.Equal(*before.LastUsedAt) {
				t.Errorf("archived it is %s", asJSON(away))
			}
			if again := s.archives(t, k.Key.ID); !reflect.DeepEqual(again, away) {
				t.Errorf("archived again it is %s", asJSON(again))
			}
			s.wantCodes(t, []apikey.Issued{k}, apikey.ArchivedKey)
			s.advance(time.Minute)
			back := s.reactivates(t, k.Key.ID)

			want := before.Key.At(s.clock())
			want.UpdatedAt, want.Version = s.clock(), before.Version+2
			if !reflect.DeepEqual(back, want) {
				t.Errorf("it comes back as %s,\nwant %s", asJSON(back), asJSON(want))
			}
			after := s.record(t, k.Key.ID)
			if !reflect.DeepEqual(after.Counts, before.Counts) || after.Counted != before.Counted {
				t.Errorf("it counts %v and %v, before %v and %v", after.Counts, after.Counted, before.Counts, before.Counted)
			}
			if e := s.lastEntry(t, k.Key.ID); e.Action != audit.Reactivated || names(e.Changes) != "archived_at" {
				t.Errorf("the audit tells of %s, %s", e.Action, names(e.Changes))
			}
			s.sound(t)
		}
	})
}

func TestAFullPlanTakesNoKeyBackAndSaysWhy(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "starter") // 3 keys
		away := s.creates(t, basic())
		s.archives(t, away.Key.ID)
		expiring := basic()
		expiring.ExpiresAt = moment(s.clock().Add(time.Hour))
		others := []apikey.Issued{s.creates(t, expiring), s.creates(t, basic()), s.creates(t, basic())}
		_, err := s.Reactivate(s.admin(), away.Key.ID)
		wantCode(t, err, apikey.PlanFull)
		wantTold(t, err, "plan starter", "limited to 3", "Revoke one, or change the plan")
		s.wantCodes(t, []apikey.Issued{away}, apikey.ArchivedKey)

		s.puts(t, onPlan("free"))
		_, err = s.Reactivate(s.admin(), away.Key.ID)
		wantCode(t, err, apikey.PlanFull)
		wantTold(t, err, "plan free", "has no API keys", "Change the plan")
		s.wantCodes(t, others, apikey.Valid, apikey.Valid, apikey.Valid)

		s.puts(t, onPlan("starter"))
		s.advance(time.Hour) // one expires and makes room
		s.reactivates(t, away.Key.ID)
		s.wantCodes(t, append(others, away), apikey.ExpiredKey, apikey.Valid, apikey.Valid, apikey.Valid)
		if n := s.count(t); n != 3 {
			t.Errorf("the plan counts %d", n)
		}
		s.sound(t)
	})
}

func TestAKeyInGraceComesBackOnAFullPlan(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		keys := inGrace(t, s)
		s.archives(t, keys[0].Key.ID)
		s.puts(t, onPlan("free"))
		s.reactivates(t, keys[0].Key.ID)
		s.wantCodes(t, keys, apikey.Valid, apikey.Valid)
		s.sound(t)
	})
}

func TestAnArchivedOrDisabledKeyInGraceStaysTheLinesGrace(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, verb := range []string{"archive", "disable"} {
			s := newScene(t, open(t), "trial")
			keys := inGrace(t, s) // of a minute
			if err := s.try(keys[0].Key.ID, verb); err != nil {
				t.Fatal(err)
			}
			_, err := s.Rotate(s.admin(), keys[1].Key.ID, nil)
			wantCode(t, err, apikey.RotationInProgress)
			if _, err := s.ExtendGrace(s.admin(), keys[1].Key.ID, time.Hour); err != nil {
				t.Fatal(err)
			}
			s.advance(59 * time.Minute)
			_, err = s.Rotate(s.admin(), keys[1].Key.ID, nil)
			wantCode(t, err, apikey.RotationInProgress)
			s.advance(time.Minute)
			third := s.rotates(t, keys[1].Key.ID, nil)
			s.wantCodes(t, []apikey.Issued{keys[1], third}, apikey.Valid, apikey.Valid)
			if verb == "archive" {
				_, err = s.Reactivate(s.admin(), keys[0].Key.ID)
				wantCode(t, err, apikey.WrongState)
				wantTold(t, err, "was replaced by "+keys[1].Key.ID.String(), "its grace is over")
			}
			s.sound(t)
		}
	})
}

func TestALineWithAnArchivedKeyInGraceIsEndedAtOnce(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		keys := inGrace(t, s)
		s.archives(t, keys[0].Key.ID)
		third := s.rotates(t, keys[1].Key.ID, seconds(0))
		_, err := s.Reactivate(s.admin(), keys[0].Key.ID) // it would be a third live key
		wantCode(t, err, apikey.WrongState)
		s.wantCodes(t, append(keys, third), apikey.ArchivedKey, apikey.ExpiredKey, apikey.Valid)
		s.sound(t)
	})
}

func TestAnExpiredArchivedKeyNeedsANewExpiryFirst(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		k := expired(t, s)[0]
		s.archives(t, k.Key.ID)
		_, err := s.Reactivate(s.admin(), k.Key.ID)
		wantCode(t, err, apikey.WrongState)
		wantTold(t, err, "expires_at")
		if got := s.updates(t, k.Key.ID, until(s.clock().Add(time.Hour))); got.Status != apikey.Archived || s.count(t) != 0 {
			t.Errorf("it is %s, the plan counts %d", got.Status, s.count(t))
		}
		s.reactivates(t, k.Key.ID)
		s.wantCodes(t, []apikey.Issued{k}, apikey.Valid)
		s.sound(t)
	})
}

func TestListsLeaveOutWhatEndedUnlessAsked(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		with := func(name string, steps ...string) {
			n := basic()
			n.Name = name
			k := s.creates(t, n)
			s.advance(time.Millisecond)
			for _, step := range steps {
				if err := s.try(k.Key.ID, step); err != nil {
					t.Fatal(err)
				}
			}
		}
		with("active")
		with("disabled", "disable")
		with("archived", "archive")
		with("revoked", "revoke")
		with("archived, revoked", "archive", "revoke")
		for _, c := range []struct {
			f    lifecycle.Filter
			want []string
		}{
			{lifecycle.Filter{}, []string{"disabled", "active"}},
			{lifecycle.Filter{IncludeArchived: true}, []string{"archived", "disabled", "active"}},
			{lifecycle.Filter{IncludeRevoked: true}, []string{"archived, revoked", "revoked", "disabled", "active"}},
			{lifecycle.Filter{IncludeArchived: true, IncludeRevoked: true}, []string{"archived, revoked", "revoked", "archived", "disabled", "active"}},
			{lifecycle.Filter{IncludeArchived: true, Name: "archived"}, []string{"archived"}},
		} {
			for _, limit := range []int{0, 1, 2} {
				c.f.Limit = limit
				if got := s.named(t, c.f); !slices.Equal(got, c.want) {
					t.Errorf("%+v: got %q, want %q", c.f, got, c.want)
				}
			}
		}
	})
}

// named is the names of all keys of a list, page by page.
func (s *scene) named(t *testing.T, f lifecycle.Filter) (names []string) {
	t.Helper()
	for {
		list, next, err := s.List(s.admin(), f)
		if err != nil || f.Limit > 0 && len(list) > f.Limit {
			t.Fatalf("%d keys, %v", len(list), err)
		}
		for _, k := range list {
			names = append(names, k.Name)
		}
		if f.Cursor = next; next == "" {
			return names
		}
	}
}

// The best practices of a system that Latchkey replaces: find what nobody uses, put it away, see that nobody misses it,
// and take it back if somebody does.
func TestKeysUnusedForSoLongAreFoundPutAwayAndBroughtBackWithTheirLastUse(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		const day = 24 * time.Hour
		keys := map[string]apikey.Issued{}
		for _, name := range []string{"never used", "used at once", "used lately"} {
			n := basic()
			n.Name = name
			keys[name] = s.creates(t, n)
			s.advance(time.Millisecond)
		}
		s.wantCodes(t, []apikey.Issued{keys["used at once"]}, apikey.Valid)
		usedAt := s.clock()
		s.advance(80 * day)
		s.wantCodes(t, []apikey.Issued{keys["used lately"]}, apikey.Valid)
		s.advance(10*day - time.Millisecond)
		wantStale := func(want ...string) {
			t.Helper()
			if got := s.named(t, lifecycle.Filter{StaleDays: 90, IncludeArchived: true}); !slices.Equal(got, want) {
				t.Errorf("stale are %q, want %q", got, want)
			}
		}
		wantStale("never used")
		s.advance(time.Millisecond) // 90 days to the millisecond
		wantStale("used at once", "never used")

		old := keys["used at once"]
		s.archives(t, old.Key.ID)
		wantStale("used at once", "never used") // putting away is no use
		s.advance(day)
		s.wantCodes(t, []apikey.Issued{old}, apikey.ArchivedKey) // and being refused is none
		if back := s.reactivates(t, old.Key.ID); !back.LastUsedAt.Equal(usedAt) {
			t.Errorf("it was last used at %s, want %s", back.LastUsedAt, usedAt)
		}
		wantStale("used at once", "never used")
		s.wantCodes(t, []apikey.Issued{old}, apikey.Valid)
		wantStale("never used")
		for _, days := range []int{-1, lifecycle.MaxIntervalDays + 1} {
			_, _, err := s.List(s.admin(), lifecycle.Filter{StaleDays: days})
			wantCode(t, err, apikey.InvalidFields)
		}
	})
}

func TestNobodyBringsBackAKeyThatCanDoMoreThanTheyButPutsItAway(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		writer, both := s.manager(t, apikey.KeysWrite), s.manager(t, apikey.KeysWrite, apikey.AuditRead)
		auditor := s.creates(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.AuditRead}}).Key.ID
		if _, err := s.Archive(as(writer), auditor); err != nil {
			t.Fatalf("whoever may write keys may put any away: %v", err)
		}
		_, err := s.Reactivate(as(writer), auditor)
		wantCode(t, err, apikey.ScopeNotHeld)
		mortal := both
		mortal.Until = s.clock().Add(time.Hour)
		_, err = s.Reactivate(as(mortal), auditor)
		wantCode(t, err, apikey.Escalation)
		if _, err := s.Reactivate(as(both), auditor); err != nil {
			t.Error(err)
		}
		for _, scope := range []string{apikey.KeysRead, apikey.KeysVerify, apikey.AuditRead, apikey.OrgAdmin} {
			_, err := s.Archive(as(s.manager(t, scope)), auditor)
			wantCode(t, err, apikey.InsufficientScope)
			_, err = s.Reactivate(as(s.manager(t, scope)), auditor)
			wantCode(t, err, apikey.InsufficientScope)
		}
		s.sound(t)
	})
}

func TestAKeyDoesNotPutItselfAwayNorItsSuccessor(t *testing.T) {
	h := newHouse(t, "enterprise")
	old := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}})
	next := h.mustRotate(t, old, nil).New
	me := holder(apikey.KeysWrite)
	me.ID = old.Key.ID.String()
	for _, id := range []apikey.ID{old.Key.ID, next.Key.ID} {
		_, err := h.Archive(as(me), id)
		wantCode(t, err, apikey.OwnKey)
		_, err = h.Reactivate(as(me), id)
		wantCode(t, err, apikey.OwnKey)
	}
}

func TestWhatBelongsToAnotherOrganizationCannotBeChangedOrSeen(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		store := open(t)
		s, other := newScene(t, store, "enterprise"), newScene(t, store, "enterprise")
		id := s.creates(t, basic()).Key.ID
		before := s.record(t, id)
		for name, do := range map[string]func(context.Context) error{
			"update":           func(ctx context.Context) error { _, err := s.Update(ctx, id, 0, disable); return err },
			"update a version": func(ctx context.Context) error { _, err := s.Update(ctx, id, 99, disable); return err },
			"archive":          func(ctx context.Context) error { _, err := s.Archive(ctx, id); return err },
			"reactivate":       func(ctx context.Context) error { _, err := s.Reactivate(ctx, id); return err },
		} {
			if err := do(other.admin()); apikey.CodeOf(err) != apikey.NotFound {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if after := s.record(t, id); !reflect.DeepEqual(after, before) {
			t.Error("it was changed")
		}
	})
}
