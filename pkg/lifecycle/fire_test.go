package lifecycle_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

// soon is how long a verb that ends a key may take under fire, with all the other tests beside it on one database: well
// before it would give up. The second that is promised is held against the built binary, in cmd/latchkeyd.
const soon = 3 * time.Second

// fault is what a call of a method meets.
type fault = func(storetest.Call) storetest.Fault

var conflict = storetest.Fault{Err: apikey.ErrConflict}

// untilClosed keeps every commit off with f until a key was closed, then does as told.
func untilClosed(f storetest.Fault, then fault) fault {
	closed := false
	return func(c storetest.Call) storetest.Fault {
		switch {
		case closed:
			return then(c)
		case c.Method == "Close":
			closed = true
		case c.Method == "Commit":
			return f
		}
		return storetest.Fault{}
	}
}

// endings are the verbs that must get through to a key under fire, and what they leave of the old key.
var endings = []struct {
	name string
	do   func(context.Context, *lifecycle.Service, []apikey.Issued) (apikey.Issued, error)
	want apikey.Code
}{
	{"revoke", revoke, apikey.RevokedKey},
	{"rotate without grace", rotate(seconds(0)), apikey.DisabledKey},
	{"archive", archive, apikey.ArchivedKey},
	{"disable", update(disable), apikey.DisabledKey},
	{"disable a version and more", disableVersion, apikey.DisabledKey},
}

// disableVersion disables a key, as If-Match demands, and changes its name.
func disableVersion(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
	k, err := on.Update(ctx, keys[0].Key.ID, keys[0].Key.Version, lifecycle.Patch{Enabled: new(false), Name: new("leaked")})
	if err == nil && (k.Enabled || k.Name != "leaked" || k.Version != keys[0].Key.Version+1) {
		err = errors.New("the answer is of another key")
	}
	return apikey.Issued{}, err
}

func TestAKeyUnderFireIsClosedFirstAndThenEnded(t *testing.T) {
	for _, storm := range []storetest.Fault{conflict, {Err: storetest.ErrLost}, {Err: context.DeadlineExceeded}} {
		for _, verb := range endings {
			t.Run(verb.name+" "+storm.String(), func(t *testing.T) {
				t.Parallel()
				keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
					t.Parallel()
					s := newScene(t, open(t), "trial")
					keys := single(t, s)
					inBetween := func(storetest.Call) storetest.Fault {
						if s.verify(keys[0]) == apikey.Valid {
							t.Error("a closed key is valid")
						}
						return storetest.Fault{}
					}
					began := time.Now()
					k, err := verb.do(s.admin(), s.faulty(untilClosed(storm, inBetween)), keys)
					if took := time.Since(began); err != nil || took > soon {
						t.Fatalf("after %v: %v", took, err)
					}
					if got := s.verify(keys[0]); got != verb.want && got != apikey.ExpiredKey {
						t.Errorf("the old key is %s", got)
					}
					if k.Key.ID != 0 {
						s.wantCodes(t, []apikey.Issued{k}, apikey.Valid)
					}
					s.sound(t)
				})
			})
		}
	}
}

func TestACrashAfterTheClosingLeavesAKeyThatIsRefusedAndTheNextReadEnds(t *testing.T) {
	reads := map[string]func(*scene, apikey.ID) error{
		"get":    func(s *scene, id apikey.ID) error { _, err := s.Get(s.admin(), id); return err },
		"list":   func(s *scene, _ apikey.ID) error { _, _, err := s.List(s.admin(), lifecycle.Filter{}); return err },
		"rotate": func(s *scene, id apikey.ID) error { _, err := s.Rotate(s.admin(), id, nil); return err },
		"revoke": func(s *scene, id apikey.ID) error { return s.Revoke(s.admin(), id, "") },
		"update": func(s *scene, id apikey.ID) error {
			_, err := s.Update(s.admin(), id, 0, lifecycle.Patch{})
			return err
		},
	}
	crash := func(storetest.Call) storetest.Fault { return storetest.Fault{Err: storetest.ErrLost} }
	for _, verb := range endings {
		for name, read := range reads {
			t.Run(verb.name+", then "+name, func(t *testing.T) {
				t.Parallel()
				keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
					t.Parallel()
					s := newScene(t, open(t), "trial")
					keys := single(t, s)
					id := keys[0].Key.ID
					_, err := verb.do(s.admin(), s.faulty(untilClosed(conflict, crash)), keys)
					wantCode(t, err, apikey.Unavailable)
					s.wantCodes(t, keys, verb.want)
					if s.record(t, id).Closing == nil {
						t.Fatal("the key is not closing")
					}
					described, err := s.Describe(s.admin(), id)
					if err != nil || string(described.Status) != string(verb.want) || s.record(t, id).Closing == nil {
						t.Errorf("verify describes it as %s, or changes it: %v", described.Status, err)
					}

					err = read(s, id)
					r := s.record(t, id)
					switch {
					case r.Closing != nil:
						t.Fatal("the key is still closing")
					case name == "rotate" && verb.want != apikey.DisabledKey, name == "update" && verb.want == apikey.RevokedKey:
						wantCode(t, err, apikey.WrongState)
					case err != nil:
						t.Fatal(err)
					}
					s.sound(t)
					if verb.want == apikey.DisabledKey && r.ReplacedByKeyID == nil && r.RevokedAt == nil {
						s.wantCodes(t, []apikey.Issued{s.rotates(t, id, nil)}, apikey.Valid)
					}
					s.endsAll(t, keys...)
				})
			})
		}
	}
}

func TestARotationWithGraceNeverClosesTheKeyAndGivesUpAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, memory.New(), "trial")
		if err := gaveUp(t, s); !errors.Is(err, apikey.ErrConflict) {
			t.Errorf("the error does not say what kept it off: %v", errors.Unwrap(err))
		}
	})
	t.Run("dynamodb", func(t *testing.T) {
		s := newScene(t, keytest.OnDynamoDB(t), "trial")
		_ = gaveUp(t, s)
	})
}

// gaveUp demands that a rotation with grace whose commits all meet verifies is tried for five seconds and changes
// nothing. It returns the rotation's error.
func gaveUp(t *testing.T, s *scene) error {
	t.Helper()
	keys := single(t, s)
	on := storetest.NewFaulty(s.store, storetest.Always("Commit", conflict))
	began := time.Now()
	_, err := s.on(on).Rotate(s.admin(), keys[0].Key.ID, nil)
	wantCode(t, err, apikey.Unavailable)
	if took := time.Since(began).Round(time.Second); took != 5*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, c := range on.Calls() {
		if c.Method == "Close" {
			t.Error("the key was closed")
		}
	}
	s.wantCodes(t, keys, apikey.Valid)
	s.sound(t)
	return err
}

func TestAPredecessorUnderFireIsClosedTooByARotationWithoutGrace(t *testing.T) {
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		t.Parallel()
		s := newScene(t, open(t), "trial")
		keys := inGrace(t, s)
		fired := &firedOn{Store: s.store, key: keys[0].Key.ID}
		began := time.Now()
		rotated, err := s.on(fired).Rotate(s.admin(), keys[1].Key.ID, seconds(0))
		if took := time.Since(began); err != nil || took > soon {
			t.Fatalf("after %v: %v", took, err)
		}
		for _, code := range s.codes(keys...) {
			if code == apikey.Valid {
				t.Error("an old key is valid")
			}
		}
		s.wantCodes(t, []apikey.Issued{rotated.New}, apikey.Valid)
		s.sound(t)
	})
}

// firedOn is a store on which one key is under fire: what touches it meets a verify until it is closed.
type firedOn struct {
	storetest.Store
	key     apikey.ID
	closed  bool
	onClose func() // runs once, after the first closing
}

func (f *firedOn) Commit(ctx context.Context, c lifecycle.Change) error {
	for _, u := range c.Update {
		if u.Record.ID == f.key && !f.closed {
			return apikey.ErrConflict
		}
	}
	return f.Store.Commit(ctx, c)
}

func (f *firedOn) Close(ctx context.Context, id apikey.ID, version int64, c apikey.Closing) error {
	err := f.Store.Close(ctx, id, version, c)
	if err != nil || id != f.key {
		return err
	}
	f.closed = true
	if f.onClose != nil {
		f.onClose()
		f.onClose = nil
	}
	return nil
}

// held is a store whose first commit waits, decided but not made.
type held struct {
	storetest.Store
	decided, release chan struct{}
	once             sync.Once
}

func hold(s storetest.Store) *held {
	return &held{Store: s, decided: make(chan struct{}), release: make(chan struct{})}
}

func (h *held) Commit(ctx context.Context, c lifecycle.Change) error {
	h.once.Do(func() {
		close(h.decided)
		<-h.release
	})
	return h.Store.Commit(ctx, c)
}

func TestAChangeDecidedBeforeAKeyWasClosedDoesNotOpenItAgain(t *testing.T) {
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		t.Parallel()
		s := newScene(t, open(t), "trial")
		keys := inGrace(t, s)
		slow, extended := hold(s.store), make(chan error, 1)
		go func() {
			_, err := extend(s.admin(), s.on(slow), keys)
			extended <- err
		}()
		<-slow.decided
		fired := &firedOn{Store: s.store, key: keys[0].Key.ID}
		fired.onClose = func() {
			close(slow.release)
			if err := <-extended; apikey.CodeOf(err) != apikey.NotInGrace {
				t.Errorf("extending the grace meanwhile: %v", err)
			}
		}
		began := time.Now()
		_, err := revoke(s.admin(), s.on(fired), keys)
		if took := time.Since(began); err != nil || took > soon {
			t.Fatalf("after %v: %v", took, err)
		}
		s.wantCodes(t, keys, apikey.RevokedKey, apikey.Valid)
		s.sound(t)
	})
}

// Somebody reads the key after it was closed, and so finishes what was begun before the one who began it does.
func TestAnEndingThatAnotherFinishesIsMadeAllTheSame(t *testing.T) {
	t.Parallel()
	versioned := func(ctx context.Context, on *lifecycle.Service, keys []apikey.Issued) (apikey.Issued, error) {
		k, err := on.Update(ctx, keys[0].Key.ID, keys[0].Key.Version, disable)
		if err == nil && (k.Enabled || k.Version != keys[0].Key.Version+1) {
			err = errors.New("the answer is of another key")
		}
		return apikey.Issued{}, err
	}
	for _, verb := range []struct {
		name string
		do   func(context.Context, *lifecycle.Service, []apikey.Issued) (apikey.Issued, error)
		want apikey.Code
	}{
		{"revoke", revoke, apikey.RevokedKey},
		{"archive", archive, apikey.ArchivedKey},
		{"disable", update(disable), apikey.DisabledKey},
		{"disable and more", update(lifecycle.Patch{Enabled: new(false), Name: new("leaked")}), apikey.DisabledKey},
		{"disable a version", versioned, apikey.DisabledKey},
	} {
		t.Run(verb.name, func(t *testing.T) {
			t.Parallel()
			keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
				t.Parallel()
				s := newScene(t, open(t), "trial")
				keys := single(t, s)
				fired := &firedOn{Store: s.store, key: keys[0].Key.ID}
				fired.onClose = func() {
					if _, err := s.Get(s.admin(), keys[0].Key.ID); err != nil {
						t.Error(err)
					}
				}
				other := caller.From(s.admin()) // so that the read is no part of the same request
				other.RequestID = "another"
				if _, err := verb.do(as(other), s.on(fired), keys); err != nil {
					t.Fatal(err)
				}
				s.wantCodes(t, keys, verb.want)
				if e := s.lastEntry(t, keys[0].Key.ID); e.RequestID != "another" {
					t.Errorf("the trail tells of %s", asJSON(e))
				}
				s.sound(t)
			})
		})
	}
}

// What is refused for its version takes no key out of use, however hard it is fired at.
func TestAPatchOfAnotherVersionClosesNoKeyUnderFire(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		keys := single(t, s)
		on := storetest.NewFaulty(&firedOn{Store: s.store, key: keys[0].Key.ID}, nil)
		_, err := s.on(on).Update(s.admin(), keys[0].Key.ID, 7, disable)
		wantCode(t, err, apikey.VersionMismatch)
		for _, c := range on.Calls() {
			if c.Method != "Key" {
				t.Errorf("it made the call %s", c.Method)
			}
		}
		s.wantCodes(t, keys, apikey.Valid)
	})
}

// late is a store that loses a first commit, answers the next that something is under way, and only then makes the
// first: what a network may do.
type late struct {
	storetest.Store
	commits int
	first   lifecycle.Change
}

func (l *late) Commit(ctx context.Context, c lifecycle.Change) error {
	l.commits++
	switch l.commits {
	case 1:
		l.first = c
		return storetest.ErrLost
	case 2:
		return apikey.ErrConflict
	case 3:
		if err := l.Store.Commit(ctx, l.first); err != nil {
			return err
		}
	}
	return l.Store.Commit(ctx, c)
}

func TestAVerbThatMeetsItsOwnLateCommitSucceedsOnce(t *testing.T) {
	t.Parallel()
	everyChange(t, func(t *testing.T, v verb, fresh func() (*scene, []apikey.Issued)) {
		s, keys := fresh()
		k, err := v.do(s.admin(), s.on(&late{Store: s.store}).Trying(0), keys)
		if err != nil {
			t.Fatal(err)
		}
		s.wantCodes(t, made(keys, k), v.leave...)
		if n := len(s.records(t)); n != len(v.leave) {
			t.Errorf("there are %d keys, want %d", n, len(v.leave))
		}
		s.sound(t)
	})
}

// burning is a fire of verifies from 64 goroutines, and what it has admitted.
type burning struct {
	*scene
	admitted atomic.Int64
	late     atomic.Int64  // admitted, of those begun after out was closed
	hot      chan struct{} // closed by the 100th that is admitted
	out      chan struct{} // closed to end it
	all      sync.WaitGroup
}

func (s *scene) burn() *burning {
	return &burning{scene: s, hot: make(chan struct{}), out: make(chan struct{})}
}

// on verifies a key again and again, and thrice after the fire is out.
func (b *burning) on(keys ...apikey.Issued) {
	for i := range 64 {
		b.all.Go(func() {
			for rest := 3; rest > 0; {
				out := b.isOut()
				b.once(keys[i%len(keys)], out)
				if out {
					rest--
				}
			}
		})
	}
}

func (b *burning) isOut() bool {
	select {
	case <-b.out:
		return true
	default:
		return false
	}
}

func (b *burning) once(k apikey.Issued, out bool) {
	if b.verify(k) != apikey.Valid {
		return
	}
	if out {
		b.late.Add(1)
	}
	if b.admitted.Add(1) == 100 {
		close(b.hot)
	}
}

// endedBy puts out the fire once do has returned, which must be in time.
func (b *burning) endedBy(t *testing.T, inTime time.Duration, do func() error) {
	t.Helper()
	<-b.hot
	began := time.Now()
	err := do()
	took := time.Since(began)
	close(b.out)
	b.all.Wait()
	if err != nil || took > inTime {
		t.Fatalf("after %v, with %d admitted: %v", took, b.admitted.Load(), err)
	}
	t.Logf("after %v, with %d admitted", took, b.admitted.Load())
}

// unlimited is a key that no minute's limit keeps from burning.
func unlimited(perDay *int64) lifecycle.New {
	n := basic()
	n.RateLimitPerMinute, n.DailyLimit = lifecycle.Limit{Said: true}, perDay
	return n
}

func TestUnderARealFireNothingIsAdmittedOnceAnEndingReturned(t *testing.T) {
	for _, end := range []func(context.Context, *lifecycle.Service, []apikey.Issued) (apikey.Issued, error){revoke, archive, disableVersion} {
		keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
			s := newScene(t, open(t), "enterprise")
			k := s.creates(t, unlimited(nil))
			b := s.burn()
			b.on(k)
			b.endedBy(t, soon, func() error { _, err := end(s.admin(), s.Service, []apikey.Issued{k}); return err })
			if n := b.late.Load(); n != 0 {
				t.Errorf("%d were admitted after the ending had returned", n)
			}
			s.sound(t)
		})
	}
}

func TestUnderARealFireOldAndNewKeyTogetherKeepToOneDailyLimit(t *testing.T) {
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		const limit = verify.MaxCost
		s := newScene(t, open(t), "enterprise")
		old := s.creates(t, unlimited(new(int64(limit))))
		b := s.burn()
		b.on(old)
		var next apikey.Issued
		b.endedBy(t, soon, func() error { // three changes, each of which waits behind 64 verifies
			rotated, err := s.Rotate(s.admin(), old.Key.ID, seconds(0))
			next = rotated.New
			return err
		})
		if n := b.late.Load(); n != 0 {
			t.Errorf("%d were admitted after the rotation had returned", n)
		}
		used := s.record(t, next.Key.ID).Counts[apikey.DayWindow(s.clock(), 0)]
		if used != b.admitted.Load() {
			t.Errorf("the new key inherits a count of %d, with %d admitted on the old", used, b.admitted.Load())
		}
		if rest := limit - used; rest > 0 {
			d := s.verifier.Verify(t.Context(), verify.Request{Key: next.Plaintext.Reveal(), Cost: rest})
			if !d.Allowed() {
				t.Errorf("what is left of the day is refused as %s", d.Code)
			}
		}
		s.wantCodes(t, []apikey.Issued{next}, apikey.DailyLimitExceeded)
		s.sound(t)
	})
}
