package lifecycle_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// chance is random numbers from a seed that the test prints, so that a failure can be looked for again.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// asClientsDo does a thing again, as a client does, when the store was too busy to answer in time.
func asClientsDo(do func(i int) error) func(i int) error {
	return func(i int) (err error) {
		for range 5 {
			if err = do(i); apikey.CodeOf(err) != apikey.Unavailable {
				break
			}
		}
		return err
	}
}

// atOnce does n things at once, and says how many went well. refused is told of the errors of the others, one at a time.
func atOnce(n int, do func(i int) error, refused func(error)) (won int) {
	start := make(chan struct{})
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			err := do(i)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
				return
			}
			refused(err)
		})
	}
	close(start)
	all.Wait()
	return won
}

// lineRace is one key and what several callers try on it and its successors at once.
type lineRace struct {
	*scene
	first apikey.Issued

	mu      sync.Mutex
	line    []apikey.Issued // every key that anybody was given
	won     int             // rotations of first
	revoked bool            // first was to be revoked
}

// newest is the youngest key that anybody was given.
func (l *lineRace) newest() apikey.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line[len(l.line)-1].Key.ID
}

// rotate rotates a key, and notes the one that is given for it.
func (l *lineRace) rotate(on *lifecycle.Service, id apikey.ID, grace *time.Duration) error {
	rotated, err := on.Rotate(l.admin(), id, grace)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.line = append(l.line, rotated.New)
		if id == l.first.Key.ID {
			l.won++
		}
	}
	return err
}

// verb is one thing that a caller may try on the line.
type lineVerb = func(l *lineRace, on *lifecycle.Service) error

var (
	rotateFirst lineVerb = func(l *lineRace, on *lifecycle.Service) error { return l.rotate(on, l.first.Key.ID, seconds(3600)) }
	killFirst   lineVerb = func(l *lineRace, on *lifecycle.Service) error { return l.rotate(on, l.first.Key.ID, seconds(0)) }
	rotateLast  lineVerb = func(l *lineRace, on *lifecycle.Service) error { return l.rotate(on, l.newest(), seconds(3600)) }
	killLast    lineVerb = func(l *lineRace, on *lifecycle.Service) error { return l.rotate(on, l.newest(), seconds(0)) }
	endLast     lineVerb = func(l *lineRace, on *lifecycle.Service) error {
		_, err := on.EndGrace(l.admin(), l.newest())
		return err
	}
	extendFirst lineVerb = func(l *lineRace, on *lifecycle.Service) error {
		_, err := on.ExtendGrace(l.admin(), l.first.Key.ID, 2*time.Hour)
		return err
	}
	revokeFirst lineVerb = func(l *lineRace, on *lifecycle.Service) error {
		l.mu.Lock()
		l.revoked = true
		l.mu.Unlock()
		return on.Revoke(l.admin(), l.first.Key.ID, "")
	}
)

// run tries verbs at once, in turn on two Services of one store, whose clocks differ. Every refusal must be one that
// the rules know.
func (l *lineRace) run(t *testing.T, verbs []lineVerb) {
	services := []*lifecycle.Service{l.on(l.store), l.on(l.store)}
	services[1].Now = func() time.Time { return l.clock().Add(-time.Second) }
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, verb := range verbs {
		all.Go(func() {
			<-start
			switch err := verb(l, services[i%2]); apikey.CodeOf(err) {
			case apikey.AlreadyRotated, apikey.RotationInProgress, apikey.NotInGrace, apikey.WrongState, apikey.InvalidFields:
			default:
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	close(start)
	all.Wait()
}

func TestHoweverVerbsRaceALineStaysSoundWithAtMostTwoLiveKeys(t *testing.T) {
	t.Parallel()
	rounds := map[bool]int{true: 150, false: 15}
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		t.Parallel()
		random, store := chance(t), open(t)
		_, inMemory := store.(*memory.Store)
		s := newScene(t, store, "enterprise")
		for range rounds[inMemory] {
			l := &lineRace{scene: s, first: s.creates(t, basic())}
			l.line = []apikey.Issued{l.first}
			verbs := []lineVerb{rotateFirst, killFirst} // at least these
			for range 4 {
				verbs = append(verbs, []lineVerb{rotateFirst, killFirst, rotateLast, killLast, endLast, extendFirst, revokeFirst}[random.IntN(7)])
			}
			l.run(t, verbs)
			l.settled(t)
		}
		s.sound(t)
	})
}

// settled demands what must hold of the line when all is over.
func (l *lineRace) settled(t *testing.T) {
	t.Helper()
	if l.won > 1 || l.won == 0 && !l.revoked {
		t.Errorf("%d rotations of one key won", l.won)
	}
	live := 0
	for _, code := range l.codes(l.line...) {
		if code == apikey.Valid {
			live++
		}
	}
	if live > 2 || live == 0 && !l.revoked {
		t.Errorf("%d keys of one line are valid", live)
	}
}

func TestOfFortyRacingCreationsOnAFailingStoreNoneIsOneTooMany(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		t.Parallel()
		random := chance(t)
		s := newScene(t, open(t), "professional") // 10 keys
		on := s.faulty(func(storetest.Call) storetest.Fault {
			if faults := storetest.Faults(); random.IntN(5) == 0 {
				return faults[random.IntN(len(faults))]
			}
			return storetest.Fault{}
		})
		var mu sync.Mutex
		var given []apikey.Issued
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				k, err := on.Create(s.admin(), basic())
				mu.Lock()
				defer mu.Unlock()
				switch code := apikey.CodeOf(err); {
				case err == nil:
					given = append(given, k)
				case code != apikey.PlanRefused && code != apikey.Unavailable:
					t.Error(err)
				}
			})
		}
		all.Wait()
		s.sound(t)
		records := s.records(t)
		if len(records) > 10 || len(given) > len(records) {
			t.Errorf("there are %d keys, %d of them given", len(records), len(given))
		}
		for _, code := range s.codes(given...) {
			if code != apikey.Valid {
				t.Errorf("a key that was given is %s", code)
			}
		}
	})
}

func TestAGraceProlongedByASlowClockMakesNoThirdLiveKey(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		keys := inGrace(t, s)
		slow, extended := hold(s.store), make(chan error, 1)
		go func() {
			_, err := s.on(slow).ExtendGrace(s.admin(), keys[0].Key.ID, time.Hour)
			extended <- err
		}()
		<-slow.decided
		s.advance(2 * time.Minute) // the grace is over, and for all the others the extension comes too late
		third := s.rotates(t, keys[1].Key.ID, nil)
		s.advance(-2 * time.Minute)
		close(slow.release)
		wantCode(t, <-extended, apikey.AlreadyRotated)
		s.advance(2 * time.Minute)
		s.wantCodes(t, append(keys, third), apikey.ExpiredKey, apikey.Valid, apikey.Valid)
		s.sound(t)
	})
}

func TestAKeyEndedNowStaysEndedForSlowClocks(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		keys := s.line(t, seconds(0))
		s.advance(-5 * time.Second)
		for _, verb := range []func(context.Context, *lifecycle.Service, []apikey.Issued) (apikey.Issued, error){extend, end} {
			_, err := verb(s.admin(), s.Service, keys)
			wantCode(t, err, apikey.NotInGrace)
		}
		s.wantCodes(t, keys, apikey.ExpiredKey, apikey.Valid)
		s.rotates(t, keys[1].Key.ID, seconds(60)) // no grace stands in its way
	})
}

func TestAroundMidnightASlowClockFindsTheDaysLimitUsedOnTheNewKeyToo(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		old := s.creates(t, unlimited(new(int64(1))))
		s.advance(14*time.Hour - 35*time.Second) // 23:59:55
		s.wantCodes(t, []apikey.Issued{old}, apikey.Valid)
		s.advance(10 * time.Second)
		next := s.rotates(t, old.Key.ID, seconds(0))
		s.advance(-10 * time.Second)
		s.wantCodes(t, []apikey.Issued{next}, apikey.DailyLimitExceeded)
	})
}

// disabled is a key that a crash left disabled, with an end in an hour.
func disabled(t *testing.T, s *scene) apikey.Issued {
	t.Helper()
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: s.clock().Add(time.Hour)}
	k := s.creates(t, n)
	if err := s.store.Close(t.Context(), k.Key.ID, 1, apikey.Closing{Verb: apikey.CloseDisable}); err != nil {
		t.Fatal(err)
	}
	s.sound(t)
	s.wantCodes(t, []apikey.Issued{k}, apikey.DisabledKey)
	return k
}

func TestADisabledKeyPastItsEndIsNotRotatedAndFreesItsPlace(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		k := disabled(t, s)
		s.advance(2 * time.Hour)
		_, err := s.Rotate(s.admin(), k.Key.ID, nil)
		wantCode(t, err, apikey.WrongState)
		s.creates(t, basic())
		s.sound(t)
	})
}

func TestMetadataIsAnObjectOrNothing(t *testing.T) {
	h := newHouse(t, "enterprise")
	for text, ok := range map[string]bool{"": true, "null": true, " {} ": true, " ": false, "{": false, `{"a":}`: false, "[]": false, "7": false} {
		n := basic()
		n.Metadata = []byte(text)
		if _, err := h.Create(admin(), n); ok != (err == nil) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
