package lifecycle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

// limited is a scene with a key that may be used so often in a day.
type limited struct {
	*scene
	key  apikey.Issued
	bare ours
}

func newLimited(t *testing.T, store storetest.Store, perDay int64) *limited {
	t.Helper()
	s := newScene(t, store, "enterprise")
	s.Seal = s.sealer
	n := basic()
	n.DailyLimit, n.RateLimitPerMinute = &perDay, lifecycle.Limit{Said: true}
	return &limited{s, s.creates(t, n), ours{store, s.organization}}
}

// uses presents a key n times.
func (l *limited) uses(k apikey.Issued, n int) {
	for range n {
		l.verify(k)
	}
}

// sweeps does so once, and demands that it went well.
func (l *limited) sweeps(t *testing.T) {
	t.Helper()
	if done, err := l.on(l.bare).Sweep(context.Background(), 100); err != nil || done.Failed > 0 {
		t.Fatalf("sweep: %+v, %v", done, err)
	}
}

// told is what was told of a key's limit, by day and percent: "2026-11-22: 80% at 8/10".
func (l *limited) told(t *testing.T, id apikey.ID) (list []string) {
	t.Helper()
	entries, _ := l.trail(t)
	for _, e := range entries {
		if e.Action != audit.LimitReached || *e.KeyID != id {
			continue
		}
		says := map[string]json.RawMessage{}
		for _, c := range e.Changes {
			says[c.Field] = c.To
		}
		list = append(list, fmt.Sprintf("%s: %3s%% at %s/%s", strings.Trim(string(says["day"]), `"`), says["percent"], says["used"], says["daily_limit"]))
	}
	slices.Sort(list) // not by their ids: those of one millisecond are in any order
	return list
}

func (l *limited) wants(t *testing.T, k apikey.Issued, want ...string) {
	t.Helper()
	if got := l.told(t, k.Key.ID); !slices.Equal(got, want) {
		t.Fatalf("told were %q, want %q", got, want)
	}
}

func TestWhenEightyAndAHundredPercentOfADaysLimitAreUsedItIsToldOnceADay(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	for day := range 2 {
		date, want := l.clock().Format(time.DateOnly), l.told(t, l.key.Key.ID)
		for used := 1; used <= 12; used++ {
			l.uses(l.key, 1)
			l.sweeps(t)
			l.advance(time.Second)
			l.sweeps(t)
			switch used {
			case 8:
				want = append(want, date+":  80% at 8/10")
			case 10:
				want = append(want, date+": 100% at 10/10")
			}
			l.wants(t, l.key, want...)
		}
		if len(want) != 2*(day+1) {
			t.Fatalf("told were %q", want)
		}
		l.advance(24 * time.Hour)
	}
}

func TestBothPartsAreToldWhenBothWerePassedBetweenTwoLooks(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.uses(l.key, 12)
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-22:  80% at 10/10", "2026-11-22: 100% at 10/10")
}

func TestALimitReachedByTwoHundredAtOnceIsToldOnce(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		t.Parallel()
		l := newLimited(t, open(t), 100)
		var all, sweepers sync.WaitGroup
		done := make(chan struct{})
		for range 3 {
			sweepers.Go(func() {
				for service := l.on(l.bare); ; {
					_, _ = service.Sweep(context.Background(), 100)
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		sweepers.Go(func() { // changes meet with the debits that hint
			for n := range 10 {
				_, _ = l.Update(l.admin(), l.key.Key.ID, 0, lifecycle.Patch{Name: new(fmt.Sprint("name ", n))})
			}
		})
		start := make(chan struct{})
		for range 200 {
			all.Go(func() {
				<-start
				l.verify(l.key)
			})
		}
		close(start)
		all.Wait()
		close(done)
		sweepers.Wait()
		l.sweeps(t)
		if got := l.told(t, l.key.Key.ID); len(got) != 2 || !strings.HasPrefix(got[0], "2026-11-22:  80% at ") || got[1] != "2026-11-22: 100% at 100/100" {
			t.Errorf("told were %q", got)
		}
	})
}

// Nobody is looked at whose limit was not reached.
func TestALookIsAskedForWhenALimitIsReachedAndNotBefore(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.uses(l.key, 7)
	if due := l.record(t, l.key.Key.ID).Due; due != nil {
		t.Fatalf("due %v", due)
	}
	l.uses(l.key, 1)
	if due := l.record(t, l.key.Key.ID).Due; due == nil || !due.At.Equal(l.clock()) {
		t.Fatalf("due %v", due)
	}
	l.sweeps(t)
	if due := l.record(t, l.key.Key.ID).Due; due != nil {
		t.Fatalf("due %v", due)
	}
}

func TestALateLookTellsOfTheDayThatWasAndOfTheDayThatIs(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.advance(time.Date(2026, 11, 22, 23, 59, 50, 0, time.UTC).Sub(l.clock()))
	l.uses(l.key, 9)
	l.advance(20 * time.Second)
	l.uses(l.key, 3)
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-22:  80% at 9/10")
	l.uses(l.key, 6)
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-22:  80% at 9/10", "2026-11-23:  80% at 9/10")
	l.uses(l.key, 1)
	l.advance(20 * time.Hour) // nobody looked all day
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-22:  80% at 9/10", "2026-11-23:  80% at 9/10", "2026-11-23: 100% at 10/10")
}

func TestBothDaysAreToldInTheirOrderByOneLook(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.uses(l.key, 8)
	l.advance(24 * time.Hour)
	l.uses(l.key, 10)
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-22:  80% at 8/10", "2026-11-23:  80% at 10/10", "2026-11-23: 100% at 10/10")
}

// A process with a fast clock counts in tomorrow already.
func TestWhatAFastClockCountsTomorrowIsToldTomorrow(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.advance(time.Date(2026, 11, 22, 23, 59, 50, 0, time.UTC).Sub(l.clock()))
	l.verifier.Now = func() time.Time { return l.clock().Add(30 * time.Second) }
	l.uses(l.key, 8)
	l.sweeps(t)
	l.wants(t, l.key)
	l.advance(30 * time.Second)
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-23:  80% at 8/10")
}

func TestAChangedLimitIsTheLimitOfItsDayAlone(t *testing.T) {
	to := func(limit int64) lifecycle.Patch {
		return lifecycle.Patch{DailyLimit: lifecycle.Limit{Said: true, V: &limit}}
	}
	t.Run("lowered below what is used, it is told of", func(t *testing.T) {
		l := newLimited(t, memory.New(), 10)
		l.uses(l.key, 7)
		l.updates(t, l.key.Key.ID, to(5))
		l.sweeps(t)
		l.wants(t, l.key, "2026-11-22:  80% at 7/5", "2026-11-22: 100% at 7/5")
	})
	t.Run("raised, what was told of the day is not told again", func(t *testing.T) {
		l := newLimited(t, memory.New(), 10)
		l.uses(l.key, 8)
		l.sweeps(t)
		l.updates(t, l.key.Key.ID, to(20))
		l.uses(l.key, 12)
		l.sweeps(t)
		l.wants(t, l.key, "2026-11-22:  80% at 8/10", "2026-11-22: 100% at 20/20")
	})
	t.Run("of the day before nothing is told", func(t *testing.T) {
		l := newLimited(t, memory.New(), 10)
		l.uses(l.key, 7)
		l.advance(24 * time.Hour)
		l.updates(t, l.key.Key.ID, to(5))
		l.sweeps(t)
		l.wants(t, l.key)
		l.uses(l.key, 4)
		l.sweeps(t)
		l.wants(t, l.key, "2026-11-23:  80% at 4/5")
	})
	t.Run("taken away, nothing is told", func(t *testing.T) {
		l := newLimited(t, memory.New(), 10)
		l.uses(l.key, 10)
		l.updates(t, l.key.Key.ID, lifecycle.Patch{DailyLimit: lifecycle.Limit{Said: true}})
		l.sweeps(t)
		l.wants(t, l.key)
	})
}

func TestWhatWasToldOfAKeyIsNotToldAgainOfItsSuccessor(t *testing.T) {
	for _, row := range []struct {
		name     string
		grace    *time.Duration
		sweep    bool // before the rotation
		old, new []string
	}{
		{"with a grace", seconds(3600), true, []string{"2026-11-22:  80% at 8/10", "2026-11-22: 100% at 10/10"}, []string{"2026-11-22: 100% at 10/10"}},
		{"with a grace, when nobody has looked yet", seconds(3600), false, []string{"2026-11-22:  80% at 10/10", "2026-11-22: 100% at 10/10"}, []string{"2026-11-22: 100% at 10/10"}},
		{"at once", seconds(0), true, []string{"2026-11-22:  80% at 8/10"}, []string{"2026-11-22: 100% at 10/10"}},
		{"at once, when nobody has looked yet", seconds(0), false, nil, []string{"2026-11-22:  80% at 10/10", "2026-11-22: 100% at 10/10"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLimited(t, memory.New(), 10)
			l.uses(l.key, 8)
			if row.sweep {
				l.sweeps(t)
			}
			next := l.rotates(t, l.key.Key.ID, row.grace)
			l.uses(l.key, 5)
			l.uses(next, 5)
			l.sweeps(t)
			l.wants(t, l.key, row.old...)
			l.wants(t, next, row.new...)
		})
	}
}

func TestALimitIsToldOfAKeyOnItsWayToItsOwnerToo(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.updates(t, l.key.Key.ID, lifecycle.Patch{RotationIntervalDays: lifecycle.Maybe[int]{Said: true, V: new(1)},
		RotationWebhookURL: lifecycle.Maybe[string]{Said: true, V: new("https://example.com/rotated")}})
	l.advance(24 * time.Hour)
	l.sweeps(t)
	var brought []apikey.Issued
	deliver := func(how lifecycle.Attempt) {
		t.Helper()
		if done, err := l.on(l.bare).Deliver(context.Background(), 100, func(_ context.Context, p lifecycle.Parcel) lifecycle.Attempt {
			brought = append(brought, p.New)
			return how
		}); err != nil || done.Failed > 0 {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	deliver(lifecycle.Doubtful)
	l.uses(brought[0], 8)
	deliver(lifecycle.Doubtful) // has nothing to do with it
	l.sweeps(t)
	l.wants(t, brought[0], "2026-11-23:  80% at 8/10")
	l.advance(time.Hour)
	if deliver(lifecycle.Delivered); len(brought) != 2 {
		t.Errorf("%d attempts: telling has kept the key from its owner", len(brought))
	}
}

func TestOfAKeyThatIsNoMoreNothingIsTold(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	l.uses(l.key, 10)
	l.revokes(t, l.key.Key.ID)
	l.sweeps(t)
	l.wants(t, l.key)
}

// Whatever call of a sweep fails, and however: each part is told once.
func TestWhateverCallOfASweepFailsALimitIsToldOnce(t *testing.T) {
	t.Parallel()
	open := func(*testing.T) storetest.Store { return memory.New() }
	storetest.Everywhere(t, storetest.Faults(), open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
		l := newLimited(t, bare, 10)
		l.uses(l.key, 10)
		_, _ = l.on(ours{faulty, l.organization}).Sweep(context.Background(), 100)
		l.advance(time.Hour)
		l.sweeps(t)
		l.sweeps(t)
		l.wants(t, l.key, "2026-11-22:  80% at 10/10", "2026-11-22: 100% at 10/10")
	})
}

// meeting is a store in which something happens just before a call.
type meeting struct {
	storetest.Store
	method string
	happen func()
}

func (m *meeting) at(method string) {
	if m.method == method {
		m.method = ""
		m.happen()
	}
}

func (m *meeting) Postpone(ctx context.Context, r apikey.Record, due *apikey.Due) error {
	m.at("Postpone")
	return m.Store.Postpone(ctx, r, due)
}

func (m *meeting) Commit(ctx context.Context, c lifecycle.Change) error {
	m.at("Commit")
	return m.Store.Commit(ctx, c)
}

func TestAHintThatMeetsWithAChangeOrALookIsNotLost(t *testing.T) {
	t.Parallel()
	for method, meets := range map[string]func(*testing.T, *limited, *meeting){
		"Postpone": func(t *testing.T, l *limited, m *meeting) {
			if _, err := l.on(ours{m, l.organization}).Sweep(context.Background(), 100); err != nil {
				t.Error(err)
			}
		},
		"Commit": func(t *testing.T, l *limited, m *meeting) {
			if _, err := l.on(m).Update(l.admin(), l.key.Key.ID, 0, lifecycle.Patch{Name: new("another")}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
				l := newLimited(t, open(t), 10)
				l.uses(l.key, 7)
				if err := l.bare.Hint(t.Context(), l.key.Key.ID, l.organization, l.clock().Add(-time.Second)); err != nil { // somebody looks for nothing
					t.Fatal(err)
				}
				happened := false
				meets(t, l, &meeting{l.store, method, func() { l.uses(l.key, 1); happened = true }})
				l.sweeps(t)
				if l.wants(t, l.key, "2026-11-22:  80% at 8/10"); !happened {
					t.Error("nothing was met")
				}
			})
		})
	}
}

func TestALostHintIsMadeUpForByTheNextLook(t *testing.T) {
	l := newLimited(t, memory.New(), 10)
	lost := storetest.NewFaulty(l.store, storetest.Always("Hint", storetest.Fault{Err: storetest.ErrLost}))
	l.verifier = &verify.Verifier{Store: lost, Format: l.Format, Now: l.clock}
	l.uses(l.key, 8)
	l.sweeps(t)
	l.wants(t, l.key)
	l.updates(t, l.key.Key.ID, lifecycle.Patch{Name: new("another")})
	l.sweeps(t)
	l.wants(t, l.key, "2026-11-22:  80% at 8/10")
}
