package lifecycle_test

import (
	"context"
	"errors"
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

// verb is one, what it needs, and what it leaves when it is acknowledged.
type verb struct {
	name    string
	plan    string
	prepare func(*testing.T, *scene) []apikey.Issued
	// do performs the verb on the prepared keys. It returns the key that it made, if any.
	do    func(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error)
	entry audit.Action  // that it leaves; "" for none
	leave []apikey.Code // what the prepared keys and the made one are then
}

var verbs = []verb{
	{"create", "trial", none, create, audit.Created, codes(apikey.Valid)},
	{"create on a full plan that ends an expired key", "trial", expired, create, audit.Expired, codes(apikey.ExpiredKey, apikey.Valid)},
	{"rotate with grace", "trial", single, rotate(nil), audit.Rotated, codes(apikey.Valid, apikey.Valid)},
	{"rotate without grace", "trial", single, rotate(seconds(0)), audit.Rotated, codes(apikey.ExpiredKey, apikey.Valid)},
	{"rotate without grace while a predecessor is in grace", "trial", inGrace, rotate(seconds(0)), audit.Rotated,
		codes(apikey.ExpiredKey, apikey.ExpiredKey, apikey.Valid)},
	{"end", "trial", inGrace, end, audit.GraceEnded, codes(apikey.ExpiredKey, apikey.Valid)},
	{"extend", "trial", inGrace, extend, audit.GraceMoved, codes(apikey.Valid, apikey.Valid)},
	{"revoke", "trial", single, revoke, audit.Revoked, codes(apikey.RevokedKey)},
	{"revoke with a kept answer", "trial", kept, revoke, audit.Revoked, codes(apikey.RevokedKey)},
	{"create once", "trial", none, createdOnce, audit.Created, codes(apikey.Valid)},
	{"rotate once", "trial", single, rotatedOnce, audit.Rotated, codes(apikey.Valid, apikey.Valid)},
	{"update", "trial", single, update(lifecycle.Patch{Name: new("other"), DailyLimit: said(int64(5))}), audit.Updated, codes(apikey.Valid)},
	{"disable", "trial", single, update(disable), audit.Disabled, codes(apikey.DisabledKey)},
	{"enable", "trial", after("disable"), update(enable), audit.Enabled, codes(apikey.Valid)},
	{"revive an expired key whose place was freed", "trial", freed, update(lifecycle.Patch{ExpiresAt: null[lifecycle.Moment]()}), audit.Updated,
		codes(apikey.Valid, apikey.RevokedKey)},
	{"take a place with fewer scopes", "trial", runsTheService, update(lifecycle.Patch{Scopes: &[]string{}}), audit.Updated, codes(apikey.Valid)},
	{"leave a place with more scopes", "trial", single, update(lifecycle.Patch{Scopes: &[]string{apikey.OrgAdmin, "orders:read"}}), audit.Updated, codes(apikey.Valid)},
	{"archive", "trial", single, archive, audit.Archived, codes(apikey.ArchivedKey)},
	{"archive in grace", "trial", inGrace, archive, audit.Archived, codes(apikey.ArchivedKey, apikey.Valid)},
	{"reactivate", "trial", after("archive"), reactivate, audit.Reactivated, codes(apikey.Valid)},
	{"reactivate on a full plan that ends an expired key", "trial", awayAndExpired, reactivate, audit.Reactivated, codes(apikey.Valid, apikey.ExpiredKey)},
	{"get", "trial", single, get, "", codes(apikey.Valid)},
	{"list", "trial", inGrace, list, "", codes(apikey.Valid, apikey.Valid)},
	{"read the trail", "trial", inGrace, readTrail, "", codes(apikey.Valid, apikey.Valid)},
	{"read the chain", "trial", inGrace, readChain, "", codes(apikey.Valid, apikey.Valid)},
}

// twins make the same calls of a store as another verb, so they are run in memory alone.
var twins = []string{"revoke with a kept answer", "update", "disable", "enable", "revive an expired key whose place was freed",
	"leave a place with more scopes", "archive in grace"}

func codes(c ...apikey.Code) []apikey.Code { return c }

func none(*testing.T, *scene) []apikey.Issued { return nil }

func single(t *testing.T, s *scene) []apikey.Issued { return []apikey.Issued{s.creates(t, basic())} }

func inGrace(t *testing.T, s *scene) []apikey.Issued { return s.line(t, seconds(60)) }

func expired(t *testing.T, s *scene) []apikey.Issued {
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: s.clock().Add(time.Hour)}
	k := s.creates(t, n)
	s.advance(2 * time.Hour)
	return []apikey.Issued{k}
}

// after is one key that has been through verbs of the state table.
func after(verbs ...string) func(*testing.T, *scene) []apikey.Issued {
	return func(t *testing.T, s *scene) []apikey.Issued {
		k := s.creates(t, basic())
		for _, verb := range verbs {
			if err := s.try(k.Key.ID, verb); err != nil {
				t.Fatal(err)
			}
		}
		return []apikey.Issued{k}
	}
}

// freed is an expired key whose place another took, and that other one, revoked since.
func freed(t *testing.T, s *scene) []apikey.Issued {
	keys := append(expired(t, s), s.creates(t, basic()))
	s.revokes(t, keys[1].Key.ID)
	return keys
}

// awayAndExpired is an archived key, and an expired one in its place.
func awayAndExpired(t *testing.T, s *scene) []apikey.Issued {
	return append(after("archive")(t, s), expired(t, s)...)
}

func runsTheService(t *testing.T, s *scene) []apikey.Issued {
	return []apikey.Issued{s.creates(t, lifecycle.New{ProjectID: "shop", Name: "n", Scopes: []string{apikey.OrgAdmin, "orders:read"}})}
}

func kept(t *testing.T, s *scene) []apikey.Issued {
	k, err := s.CreateOnce(s.admin(), token("a"), basic())
	if err != nil {
		t.Fatal(err)
	}
	return []apikey.Issued{k}
}

func createdOnce(ctx context.Context, on *lifecycle.Service, _ []apikey.Issued) (apikey.Issued, error) {
	return on.CreateOnce(ctx, token("a"), basic())
}

func rotatedOnce(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	rotated, err := on.RotateOnce(ctx, token("a"), keys[0].Key.ID, nil)
	return rotated.New, err
}

func update(p lifecycle.Patch) func(context.Context, *lifecycle.Service, []apikey.Issued) (apikey.Issued, error) {
	return func(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
		_, err := on.Update(ctx, keys[0].Key.ID, 0, p)
		return apikey.Issued{}, err
	}
}

func archive(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	_, err := on.Archive(ctx, keys[0].Key.ID)
	return apikey.Issued{}, err
}

func reactivate(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	_, err := on.Reactivate(ctx, keys[0].Key.ID)
	return apikey.Issued{}, err
}

func readTrail(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	entries, _, err := on.Audit(ctx, lifecycle.AuditFilter{KeyID: keys[0].Key.ID})
	if err == nil && len(entries) != 2 {
		panic("the trail has other entries")
	}
	return apikey.Issued{}, err
}

func readChain(ctx context.Context, on *lifecycle.Service, _ []apikey.Issued) (apikey.Issued, error) {
	_, _, err := on.AuditChain(ctx, 0, 0)
	return apikey.Issued{}, err
}

func create(ctx context.Context, on *lifecycle.Service, _ []apikey.Issued) (apikey.Issued, error) {
	return on.Create(ctx, basic())
}

func rotate(grace *time.Duration) func(context.Context, *lifecycle.Service, []apikey.Issued) (apikey.Issued, error) {
	return func(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
		rotated, err := on.Rotate(ctx, keys[len(keys)-1].Key.ID, grace)
		return rotated.New, err
	}
}

func end(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	_, err := on.EndGrace(ctx, keys[1].Key.ID)
	return apikey.Issued{}, err
}

func extend(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	_, err := on.ExtendGrace(ctx, keys[1].Key.ID, time.Hour)
	return apikey.Issued{}, err
}

func revoke(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	return apikey.Issued{}, on.Revoke(ctx, keys[0].Key.ID, "leaked")
}

func get(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	k, err := on.Get(ctx, keys[0].Key.ID)
	if err == nil && k.ID != keys[0].Key.ID {
		panic("another key was got")
	}
	return apikey.Issued{}, err
}

func list(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	all, _, err := on.List(ctx, lifecycle.Filter{IncludeRevoked: true})
	if err == nil && len(all) != len(keys) {
		panic("the list has other keys")
	}
	return apikey.Issued{}, err
}

// made adds the key that a verb made, if any.
func made(keys []apikey.Issued, k apikey.Issued) []apikey.Issued {
	if k.Key.ID == 0 {
		return keys
	}
	return append(slices.Clone(keys), k)
}

// everywhere runs a verb with every call failing in every way. On DynamoDB, where that takes time, a deadline is not
// another way than a lost answer.
func everywhere(t *testing.T, open func(*testing.T) storetest.Store, verb func(*testing.T, storetest.Store, *storetest.Faulty)) {
	t.Helper()
	faults := storetest.Faults()
	if _, inMemory := open(t).(*memory.Store); !inMemory {
		faults = slices.DeleteFunc(faults, func(f storetest.Fault) bool { return errors.Is(f.Err, context.DeadlineExceeded) })
	}
	storetest.Everywhere(t, faults, open, verb)
}

func onItsStores(t *testing.T, v verb, test func(t *testing.T, open func(*testing.T) storetest.Store)) {
	t.Helper()
	if slices.Contains(twins, v.name) {
		test(t, func(*testing.T) storetest.Store { return memory.New() })
		return
	}
	keytest.OnBothStores(t, test)
}

// everyChange runs a test for every verb that changes something, on both stores. fresh prepares a scene for the verb.
func everyChange(t *testing.T, test func(t *testing.T, v verb, fresh func() (*scene, []apikey.Issued))) {
	t.Helper()
	for _, v := range verbs {
		if v.entry == "" {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			onItsStores(t, v, func(t *testing.T, open func(*testing.T) storetest.Store) {
				test(t, v, func() (*scene, []apikey.Issued) {
					s := newScene(t, open(t), v.plan)
					return s, v.prepare(t, s)
				})
			})
		})
	}
}

func TestWhateverCallFailsHoweverAVerbDoesAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, verb := range verbs {
		t.Run(verb.name, func(t *testing.T) {
			t.Parallel()
			onItsStores(t, verb, func(t *testing.T, open func(*testing.T) storetest.Store) {
				everywhere(t, open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
					s := newScene(t, bare, verb.plan)
					keys := verb.prepare(t, s)
					before := s.codes(keys...)
					_, entriesBefore := s.trail(t)

					k, err := verb.do(s.admin(), s.on(faulty).Trying(0), keys)
					s.sound(t)
					_, entries := s.trail(t)
					if err == nil {
						s.wantCodes(t, made(keys, k), verb.leave...)
						if verb.entry != "" && entries[verb.entry] != entriesBefore[verb.entry]+1 {
							t.Errorf("%d entries tell of it", entries[verb.entry]-entriesBefore[verb.entry])
						}
						return
					}
					wantCode(t, err, apikey.Unavailable)
					s.wantCodes(t, keys, before...)
					s.endsAll(t, keys...)
				})
			})
		})
	}
}

func TestALostOrRefusedCommitIsTriedUntilTheVerbSucceeds(t *testing.T) {
	t.Parallel()
	everyChange(t, func(t *testing.T, v verb, fresh func() (*scene, []apikey.Issued)) {
		for _, fault := range storetest.Faults() {
			s, keys := fresh()
			k, err := v.do(s.admin(), s.faulty(firstCommits(2, fault)).Trying(0), keys) // a slow machine is no fire
			if err != nil {
				t.Fatalf("%v: %v", fault, err)
			}
			s.wantCodes(t, made(keys, k), v.leave...)
			s.sound(t)
		}
	})
}

// firstCommits chooses the first n commits.
func firstCommits(n int, f storetest.Fault) func(storetest.Call) storetest.Fault {
	return func(c storetest.Call) storetest.Fault {
		if c.Method != "Commit" || n == 0 {
			return storetest.Fault{}
		}
		n--
		return f
	}
}

func TestAnOrganizationIsAddedWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, fault := range append(storetest.Faults(), storetest.Fault{}) {
			bare := open(t)
			s := newScene(t, bare, "trial")
			s.organization += "+2" // not there yet
			added, err := s.faulty(storetest.Nth(1, fault)).AddOrganization(s.admin(), "pro", nil)
			if err != nil || !added {
				t.Fatalf("%v: added %v, %v", fault, added, err)
			}
			s.sound(t)
			if _, actions := s.trail(t); actions[audit.OrgCreated] != 1 {
				t.Fatalf("%v: %d entries tell of it", fault, actions[audit.OrgCreated])
			}
			if added, err := s.AddOrganization(s.admin(), "free", nil); err != nil || added {
				t.Fatalf("%v: added again: %v, %v", fault, added, err)
			}
		}
	})
}

// cutOff is a Service whose store takes one commit and does not answer any more, and the context of a caller who then
// goes away.
func (s *scene) cutOff(t *testing.T) (context.Context, *lifecycle.Service) {
	ctx, leave := context.WithCancel(s.admin())
	t.Cleanup(leave)
	committed := false
	return ctx, s.faulty(func(c storetest.Call) storetest.Fault {
		switch {
		case committed:
			leave()
			return storetest.Fault{Err: storetest.ErrLost}
		case c.Method == "Commit":
			committed = true
			return storetest.Fault{Err: storetest.ErrLost, After: true}
		}
		return storetest.Fault{}
	})
}

func TestACallerWhoGotNoAnswerFindsTheKeyInTheListAndRevokesIt(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "starter")
		ctx, on := s.cutOff(t)
		_, err := on.Create(ctx, basic())
		wantCode(t, err, apikey.Unavailable)
		again := s.creates(t, basic())
		s.sound(t)
		records := s.records(t)
		if len(records) != 2 {
			t.Fatalf("the list has %d keys, want the lost one and the other", len(records))
		}
		for _, r := range records {
			if r.ID != again.Key.ID {
				if err := s.Revoke(s.admin(), r.ID, "its secret was lost"); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.wantCodes(t, []apikey.Issued{again}, apikey.Valid)
		s.sound(t)
	})
}

func TestACallerWhoGotNoAnswerToARotationGoesOnWithItsSuccessor(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, grace := range []*time.Duration{nil, seconds(0)} {
			s := newScene(t, open(t), "trial")
			first := s.creates(t, basic())
			ctx, on := s.cutOff(t)
			_, err := on.Rotate(ctx, first.Key.ID, grace)
			wantCode(t, err, apikey.Unavailable)
			_, err = s.Rotate(s.admin(), first.Key.ID, grace)
			wantCode(t, err, apikey.AlreadyRotated)
			s.sound(t)

			lost := s.record(t, first.Key.ID).ReplacedByKeyID
			known := s.rotates(t, *lost, seconds(0))
			s.wantCodes(t, []apikey.Issued{first, known}, apikey.ExpiredKey, apikey.Valid)
			s.sound(t)
			s.endsAll(t, first, known)
		}
	})
}

func TestAVerbWhoseStoreIsGoneAfterItsCommitLeavesASoundOrganization(t *testing.T) {
	t.Parallel()
	everyChange(t, func(t *testing.T, v verb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		ctx, on := s.cutOff(t)
		_, err := v.do(ctx, on, keys)
		wantCode(t, err, apikey.Unavailable)
		s.sound(t)
		s.endsAll(t, keys...)
	})
}
