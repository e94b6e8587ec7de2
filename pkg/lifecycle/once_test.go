package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// token asks for a create once.
func token(name string) lifecycle.Once {
	return lifecycle.Once{Token: name, Method: http.MethodPost, Path: "/v1/api-keys", Body: []byte(`{"name":"basic"}`)}
}

// onceVerb is a change that can be asked for once. Its answers are compared whole.
type onceVerb struct {
	name    string
	prepare func(*testing.T, *scene) []apikey.Issued
	do      func(ctx context.Context, on *lifecycle.Service, once lifecycle.Once, keys []apikey.Issued) (lifecycle.Rotated, error)
}

var onceVerbs = []onceVerb{
	{"create", none, createOnce},
	{"rotate", wholeKey, rotateOnce(nil)},
	{"rotate without grace", wholeKey, rotateOnce(seconds(0))},
}

// wholeKey is a key with every field but networks, so that a verify without an address passes.
func wholeKey(t *testing.T, s *scene) []apikey.Issued {
	n := everything(s)
	n.AllowedCIDRs = nil
	return []apikey.Issued{s.creates(t, n)}
}

func createOnce(ctx context.Context, on *lifecycle.Service, once lifecycle.Once, _ []apikey.Issued) (lifecycle.Rotated, error) {
	n := basic()
	n.Scopes, n.Metadata = []string{"orders:write", "orders:read"}, []byte(`{"z": "<b> & c\u2028", "a": {"c": 1.0}}`)
	issued, err := on.CreateOnce(ctx, once, n)
	return lifecycle.Rotated{New: issued}, err
}

func rotateOnce(grace *time.Duration) func(context.Context, *lifecycle.Service, lifecycle.Once, []apikey.Issued) (lifecycle.Rotated, error) {
	return func(ctx context.Context, on *lifecycle.Service, once lifecycle.Once, keys []apikey.Issued) (lifecycle.Rotated, error) {
		once.Path += "/" + keys[0].Key.ID.String() + "/rotate"
		return on.RotateOnce(ctx, once, keys[0].Key.ID, grace)
	}
}

// everyOnce runs a test for every onceVerb on both stores. fresh prepares a scene for the verb, on a plan with one key.
func everyOnce(t *testing.T, test func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued))) {
	t.Helper()
	for _, v := range onceVerbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
				test(t, v, func() (*scene, []apikey.Issued) {
					s := newScene(t, open(t), "trial")
					return s, v.prepare(t, s)
				})
			})
		})
	}
}

// wantSame demands that an answer is the one given before, to the byte, with the same secret.
func wantSame(t *testing.T, got, given lifecycle.Rotated) {
	t.Helper()
	if got.New.Plaintext.Reveal() != given.New.Plaintext.Reveal() || got.New.Plaintext.Reveal() == "" {
		t.Error("the secrets differ")
	}
	if !reflect.DeepEqual(got.New.Key, given.New.Key) || !reflect.DeepEqual(got.Old, given.Old) {
		t.Errorf("the answer is %s %s,\nwas %s %s", asJSON(got.Old), asJSON(got.New.Key), asJSON(given.Old), asJSON(given.New.Key))
	}
}

func (s *scene) asks(t *testing.T, v onceVerb, ctx context.Context, once lifecycle.Once, keys []apikey.Issued) lifecycle.Rotated {
	t.Helper()
	given, err := v.do(ctx, s.Service, once, keys)
	if err != nil {
		t.Fatal(err)
	}
	return given
}

func TestWhoAsksAgainWithinADayIsGivenTheSameAnswerWithTheSameSecret(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		given := s.asks(t, v, s.admin(), token("a"), keys)
		_, before := s.trail(t)
		for _, later := range []time.Duration{0, time.Hour, 23*time.Hour - time.Millisecond} {
			s.advance(later)
			wantSame(t, s.asks(t, v, s.admin(), token("a"), keys), given)
		}
		if _, after := s.trail(t); !reflect.DeepEqual(after, before) {
			t.Errorf("the trail tells of %v, before %v", after, before)
		}
		if got := s.verify(given.New); got != apikey.Valid {
			t.Errorf("the key is %s", got)
		}
		s.sound(t)

		s.advance(time.Millisecond) // a day
		if v.name == "create" {
			_, err := v.do(s.admin(), s.Service, token("a"), keys)
			wantCode(t, err, apikey.PlanRefused) // it is a new request, and the plan is full
			return
		}
		_, err := v.do(s.admin(), s.Service, token("a"), keys)
		wantCode(t, err, apikey.AlreadyRotated)
	})
}

func TestATokenIsGoodForOneRequestOfOneCaller(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		store := open(t)
		s, other := newScene(t, store, "enterprise"), newScene(t, store, "enterprise")
		other.sealer = s.sealer
		ask := func(by caller.Caller, once lifecycle.Once) apikey.Issued {
			t.Helper()
			k, err := s.on(store).CreateOnce(as(by), once, basic())
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		admin := caller.From(s.admin())
		first := ask(admin, token("a"))

		body := token("a")
		body.Body = []byte(`{"name": "basic"}`)
		_, err := s.CreateOnce(s.admin(), body, basic())
		wantCode(t, err, apikey.OtherRequest)
		body.Body = nil
		_, err = s.CreateOnce(s.admin(), body, basic())
		wantCode(t, err, apikey.OtherRequest)

		seen := map[apikey.ID]string{first.Key.ID: "the first"}
		path, method, shifted := token("a"), token("a"), token("a")
		path.Path, method.Method = "/v1/keys", http.MethodPut
		shifted.Method, shifted.Path = "POST/", "v1/api-keys"
		stranger := caller.From(other.admin())
		asKey, asUser := admin, admin
		asKey.Kind, asUser.Kind = caller.Key, caller.User
		for name, k := range map[string]apikey.Issued{
			"another token":               ask(admin, token("b")),
			"another path":                ask(admin, path),
			"another method":              ask(admin, method),
			"method and path run in one":  ask(admin, shifted),
			"another organization":        ask(stranger, token("a")),
			"a key with the same id":      ask(asKey, token("a")),
			"a person with the same id":   ask(asUser, token("a")),
			"no token":                    ask(admin, lifecycle.Once{}),
			"no token, for a second time": ask(admin, lifecycle.Once{}),
		} {
			if was, ok := seen[k.Key.ID]; ok {
				t.Errorf("%s is given the answer of %s", name, was)
			}
			seen[k.Key.ID] = name
		}
		again := admin
		again.RequestID, again.Until = "another", s.clock().Add(time.Hour)
		if ask(again, token("a")).Key.ID != first.Key.ID {
			t.Error("the same caller with another request is another")
		}
		s.sound(t)
	})
}

// kept is the answer that rests for a key, as stored.
func (s *scene) kept(t *testing.T, id apikey.ID) (at string, answer lifecycle.Replay) {
	t.Helper()
	sealed := s.record(t, id).Sealed
	if sealed == nil {
		t.Fatal("no answer rests for the key")
	}
	answer, err := s.store.Replay(t.Context(), sealed.ID)
	if err != nil || answer.KeyID != id || len(answer.Sealed) == 0 || !answer.Until.Equal(sealed.Until) {
		t.Fatalf("for %s rests the answer of %s, %d bytes until %s, %v", id, answer.KeyID, len(answer.Sealed), answer.Until, err)
	}
	return sealed.ID, answer
}

// wantDestroyed demands that no sealed copy of a key's secret is left.
func (s *scene) wantDestroyed(t *testing.T, at string, id apikey.ID) {
	t.Helper()
	answer, err := s.store.Replay(t.Context(), at)
	if err != nil || answer.Sealed != nil || answer.KeyID != id {
		t.Errorf("the answer of %s has %d bytes, %v", answer.KeyID, len(answer.Sealed), err)
	}
	if s.record(t, id).Sealed != nil {
		t.Error("the key still says where its secret rests")
	}
}

func TestRevokingAKeyDestroysItsSealedSecret(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		k := s.asks(t, v, s.admin(), token("a"), keys).New
		at, _ := s.kept(t, k.Key.ID)
		s.archives(t, k.Key.ID)
		s.asks(t, v, s.admin(), token("a"), keys) // it may come back, and whoever lost its secret may have it
		s.reactivates(t, k.Key.ID)

		s.revokes(t, k.Key.ID)
		s.wantDestroyed(t, at, k.Key.ID)
		_, err := v.do(s.admin(), s.Service, token("a"), keys)
		wantCode(t, err, apikey.SecretDestroyed)
		wantTold(t, err, k.Key.ID.String(), "new Idempotency-Key")
		s.sound(t)
	})
}

// A process died between closing a key and revoking it.
func TestAClosingKeysSecretIsNotGivenAndDestroyedByWhateverFinishesIt(t *testing.T) {
	t.Parallel()
	finishes := map[string]func(*scene, apikey.ID) error{
		"get":     func(s *scene, id apikey.ID) error { _, err := s.Get(s.admin(), id); return err },
		"list":    func(s *scene, _ apikey.ID) error { _, _, err := s.List(s.admin(), lifecycle.Filter{}); return err },
		"rotate":  func(s *scene, id apikey.ID) error { _, err := s.Rotate(s.admin(), id, nil); return err },
		"update":  func(s *scene, id apikey.ID) error { _, err := s.Update(s.admin(), id, 0, disable); return err },
		"archive": func(s *scene, id apikey.ID) error { _, err := s.Archive(s.admin(), id); return err },
		"revoke":  func(s *scene, id apikey.ID) error { return s.Revoke(s.admin(), id, "") },
	}
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for name, finish := range finishes {
			s := newScene(t, open(t), "trial")
			k, err := s.CreateOnce(s.admin(), token("a"), basic())
			if err != nil {
				t.Fatal(err)
			}
			at, _ := s.kept(t, k.Key.ID)
			if err := s.store.Close(t.Context(), k.Key.ID, 1, apikey.Closing{Verb: apikey.CloseRevoke, ActorID: "someone"}); err != nil {
				t.Fatal(err)
			}
			_, err = s.CreateOnce(s.admin(), token("a"), basic())
			wantCode(t, err, apikey.SecretDestroyed)
			if err := finish(s, k.Key.ID); err != nil && apikey.CodeOf(err) != apikey.WrongState {
				t.Errorf("%s: %v", name, err)
			}
			s.wantDestroyed(t, at, k.Key.ID)
			s.sound(t)
		}
	})
}

func TestARotationThatFinishesItsPredecessorsRevocationDestroysItsSecret(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, grace := range []*time.Duration{nil, seconds(0)} {
			s := newScene(t, open(t), "trial")
			old, err := s.CreateOnce(s.admin(), token("a"), basic())
			if err != nil {
				t.Fatal(err)
			}
			at, _ := s.kept(t, old.Key.ID)
			next := s.rotates(t, old.Key.ID, seconds(60))
			if s.record(t, next.Key.ID).Sealed != nil {
				t.Error("the successor has its predecessor's sealed copy")
			}
			if err := s.store.Close(t.Context(), old.Key.ID, 2, apikey.Closing{Verb: apikey.CloseRevoke, ActorID: "someone"}); err != nil {
				t.Fatal(err)
			}
			third := s.rotates(t, next.Key.ID, grace)
			s.wantDestroyed(t, at, old.Key.ID)
			if code := s.verify(third); code != apikey.Valid {
				t.Errorf("the third is %s", code)
			}
			s.sound(t)
		}
	})
}

func TestAReplayIsAuthorizedAfresh(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		s.puts(t, onPlan("enterprise"))
		by := caller.From(s.admin())
		if v.name == "create" {
			v.do = func(ctx context.Context, on *lifecycle.Service, once lifecycle.Once, _ []apikey.Issued) (lifecycle.Rotated, error) {
				issued, err := on.CreateOnce(ctx, once, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.AuditRead}})
				return lifecycle.Rotated{New: issued}, err
			}
		} else {
			s.updates(t, keys[0].Key.ID, lifecycle.Patch{Scopes: &[]string{apikey.AuditRead}})
		}
		given := s.asks(t, v, as(by), token("a"), keys)
		for want, lost := range map[apikey.Code]func(*caller.Caller){
			apikey.InsufficientScope: func(c *caller.Caller) { c.Scopes = []string{apikey.KeysRead, apikey.AuditRead} },
			apikey.ScopeNotHeld:      func(c *caller.Caller) { c.Scopes = []string{apikey.KeysWrite} },
			apikey.Escalation:        func(c *caller.Caller) { c.Until = s.clock().Add(time.Minute) },
		} {
			less := by
			lost(&less)
			_, err := v.do(as(less), s.Service, token("a"), keys)
			wantCode(t, err, want)
		}
		member := by
		member.Own = true
		_, err := v.do(as(member), s.Service, token("a"), keys)
		wantCode(t, err, apikey.Escalation)
		wantSame(t, s.asks(t, v, as(by), token("a"), keys), given)
	})
}

// sealer seals, or fails, as told.
type sealer struct {
	lifecycle.Sealer
	sealing, opening error
}

func (s *sealer) Seal(ctx context.Context, plaintext []byte, bound string) ([]byte, error) {
	if s.sealing != nil {
		return nil, s.sealing
	}
	return s.Sealer.Seal(ctx, plaintext, bound)
}

func (s *sealer) Open(ctx context.Context, sealed []byte, bound string) ([]byte, error) {
	if s.opening != nil {
		return nil, s.opening
	}
	return s.Sealer.Open(ctx, sealed, bound)
}

func TestNothingIsMadeThatCannotBeSealedAndNothingGivenThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		broken := errors.New("KMS is out of order")
		failing := &sealer{Sealer: newSealer(), sealing: broken}
		s.Seal = failing
		_, before := s.trail(t)
		_, err := v.do(s.admin(), s.Service, token("a"), keys)
		wantCode(t, err, apikey.Unavailable)
		if !errors.Is(err, broken) || strings.Contains(err.Error(), "KMS") {
			t.Errorf("the log is told %v, the caller %v", errors.Unwrap(err), err)
		}
		if _, after := s.trail(t); !reflect.DeepEqual(after, before) || len(s.records(t)) != len(keys) {
			t.Errorf("the trail tells of %v, before %v", after, before)
		}

		failing.sealing, failing.opening = nil, broken
		given := s.asks(t, v, s.admin(), token("a"), keys)
		_, err = v.do(s.admin(), s.Service, token("a"), keys)
		wantCode(t, err, apikey.Unavailable)
		if strings.Contains(err.Error(), "KMS") {
			t.Error("the caller is told what the sealer said")
		}
		s.Seal = newSealer() // with another key
		_, err = v.do(s.admin(), s.Service, token("a"), keys)
		wantCode(t, err, apikey.Unavailable)

		failing.opening = nil
		s.Seal = failing
		wantSame(t, s.asks(t, v, s.admin(), token("a"), keys), given)
		s.sound(t)

		s.Seal = nil
		_, err = v.do(s.admin(), s.Service, token("a"), keys)
		wantCode(t, err, apikey.NoSealingKey)
	})
}

// A kept answer moved to another place in the store opens nothing there.
func TestAnAnswerIsSealedForItsPlaceAlone(t *testing.T) {
	h := newHouse(t, "enterprise")
	sealed := &sealer{Sealer: newSealer()}
	h.Seal = sealed
	first, err := h.CreateOnce(admin(), token("a"), basic())
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.memory.Key(t.Context(), first.Key.ID)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := h.memory.Replay(t.Context(), r.Sealed.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.Open(t.Context(), answer.Sealed, r.Sealed.ID); err != nil {
		t.Error(err)
	}
	if _, err := sealed.Open(t.Context(), answer.Sealed, r.Sealed.ID[1:]+"0"); err == nil {
		t.Error("it opens in another place")
	}
}

func TestATokenUsedAgainAfterADayMakesAnotherKeyWhoseAnswerIsItsOwn(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		create := onceVerbs[0]
		first := s.asks(t, create, s.admin(), token("a"), nil)
		s.advance(24 * time.Hour)
		second := s.asks(t, create, s.admin(), token("a"), nil)
		if second.New.Key.ID == first.New.Key.ID {
			t.Fatal("the first answer is given after a day")
		}
		s.revokes(t, first.New.Key.ID)
		s.kept(t, second.New.Key.ID)
		wantSame(t, s.asks(t, create, s.admin(), token("a"), nil), second)
		s.revokes(t, second.New.Key.ID)
		_, err := s.CreateOnce(s.admin(), token("a"), basic())
		wantCode(t, err, apikey.SecretDestroyed)
		s.sound(t)
	})
}

func TestTwentyIdenticalRequestsAtOnceMakeOneKeyAndGetOneAnswer(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		var mu sync.Mutex
		var answers []lifecycle.Rotated
		services := []*lifecycle.Service{s.on(s.store), s.on(s.store)}
		services[1].Now = func() time.Time { return s.clock().Add(-time.Second) }
		won := atOnce(20, asClientsDo(func(i int) error {
			given, err := v.do(s.admin(), services[i%2], token("a"), keys)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answers = append(answers, given)
			}
			return err
		}), func(err error) { t.Error(err) })
		if won != 20 {
			t.Fatalf("%d were answered", won)
		}
		for _, a := range answers {
			wantSame(t, a, answers[0])
		}
		if n := len(s.records(t)); n != len(keys)+1 || s.count(t) != 1 {
			t.Errorf("there are %d keys, the plan counts %d", n, s.count(t))
		}
		s.sound(t)
	})
}

// onces asks for a verb once, and, if its answer was lost, again: whoever does so has one key and its secret.
func TestWhateverCallFailsWhoAsksAgainHasOneKeyAndItsSecret(t *testing.T) {
	t.Parallel()
	for _, v := range onceVerbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
				everywhere(t, open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
					s := newScene(t, bare, "trial")
					keys := v.prepare(t, s)
					given, err := v.do(s.admin(), s.on(faulty), token("a"), keys)
					s.sound(t)
					if err != nil {
						wantCode(t, err, apikey.Unavailable)
					}
					s.wantOneAnswer(t, v, keys, given, err == nil)
				})
			})
		})
	}
}

// wantOneAnswer asks again, and demands the answer that was given, if one was, and one key that has no more but one.
func (s *scene) wantOneAnswer(t *testing.T, v onceVerb, keys []apikey.Issued, given lifecycle.Rotated, was bool) {
	t.Helper()
	made := len(s.records(t)) - len(keys)
	again := s.asks(t, v, s.admin(), token("a"), keys)
	if was {
		wantSame(t, again, given)
	}
	records := s.records(t)
	if len(records) != len(keys)+1 || was && made != 1 {
		t.Errorf("there were %d new keys and are %d", made, len(records)-len(keys))
	}
	if code := s.verify(again.New); code != apikey.Valid {
		t.Errorf("the key is %s", code)
	}
	s.kept(t, again.New.Key.ID)
	s.sound(t)
}

func TestWhoGotNoAnswerIsGivenItLater(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		ctx, on := s.cutOff(t)
		_, err := v.do(ctx, on, token("a"), keys)
		wantCode(t, err, apikey.Unavailable)
		if n := len(s.records(t)); n != len(keys)+1 {
			t.Fatalf("%d keys were made", n-len(keys))
		}
		s.wantOneAnswer(t, v, keys, lifecycle.Rotated{}, false)
	})
}

func TestALostOrLateCommitMakesNoSecondKeyOfOneToken(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		given, err := v.do(s.admin(), s.on(&late{Store: s.store}), token("a"), keys)
		if err != nil {
			t.Fatal(err)
		}
		s.wantOneAnswer(t, v, keys, given, true)
		for _, fault := range storetest.Faults() {
			s, keys := fresh()
			given, err := v.do(s.admin(), s.faulty(firstCommits(2, fault)), token("a"), keys)
			if err != nil {
				t.Fatalf("%v: %v", fault, err)
			}
			s.wantOneAnswer(t, v, keys, given, true)
		}
	})
}

// recording is a store that keeps all that it is given and gives.
type recording struct {
	storetest.Store
	mu   sync.Mutex
	seen bytes.Buffer
}

func (r *recording) note(things ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, thing := range things {
		fmt.Fprintf(&r.seen, "%+v %#v %s %q\n", thing, thing, thing, thing)
	}
}

func (r *recording) Commit(ctx context.Context, c lifecycle.Change) error {
	r.note(c)
	if c.Replay != nil {
		r.note(*c.Replay, c.Replay.Sealed, c.Replay.Fingerprint)
	}
	if c.Create != nil {
		r.note(*c.Create)
	}
	for _, u := range c.Update {
		r.note(u.Record)
	}
	return r.Store.Commit(ctx, c)
}

func (r *recording) Replay(ctx context.Context, id string) (lifecycle.Replay, error) {
	kept, err := r.Store.Replay(ctx, id)
	r.note(kept, kept.Sealed, err)
	return kept, err
}

// unsealed is a sealer that does not seal.
type unsealed struct{}

func (unsealed) Seal(_ context.Context, plaintext []byte, _ string) ([]byte, error) {
	return bytes.Clone(plaintext), nil
}

func (unsealed) Open(_ context.Context, sealed []byte, _ string) ([]byte, error) { return sealed, nil }

func TestNoSecretIsEverGivenToTheStore(t *testing.T) {
	t.Parallel()
	everyOnce(t, func(t *testing.T, v onceVerb, fresh func() (*scene, []apikey.Issued)) {
		for _, sealing := range []bool{true, false} { // without a seal it must be seen
			s, keys := fresh()
			if !sealing {
				s.sealer = unsealed{}
			}
			store := &recording{Store: s.store}
			on := s.on(store)
			given, err := v.do(s.admin(), on, token("a"), keys)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.do(s.admin(), on, token("a"), keys); err != nil {
				t.Fatal(err)
			}
			store.note(given, given.New, s.records(t))
			seen := false
			for _, k := range made(keys, given.New) {
				text := k.Plaintext.Reveal()
				secret := text[len(k.Key.KeyPrefix)+1:]
				for _, spelling := range []string{secret, strings.Trim(fmt.Sprint([]byte(secret)), "[]")} {
					seen = seen || strings.Contains(store.seen.String(), spelling)
				}
			}
			if seen == sealing {
				t.Errorf("sealing %v: the store was given a secret: %v", sealing, seen)
			}
		}
	})
}
