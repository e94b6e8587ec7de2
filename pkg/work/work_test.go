package work_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/work"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// parts are numbers that are due, by shard: each is its own place, from 1 on.
type parts [work.Shards][]int

func (p *parts) due(_ context.Context, q work.Query[int]) ([]int, error) {
	list := slices.DeleteFunc(slices.Clone(p[q.Shard]), func(n int) bool { return n <= q.After })
	if q.Latest {
		slices.Reverse(list)
	}
	return list[:min(len(list), q.Limit)], nil
}

// walk is one of the parts that notes what it did.
func (p *parts) walk(did *[]int) work.Walk[int, int] {
	return work.Walk[int, int]{Due: p.due, Of: func(n int) int { return n }, Until: noon, Page: 2, Limit: 1000,
		Do: func(_ context.Context, n int) error { *did = append(*did, n); return nil }}
}

func TestPartsTakeTurnsAndEachIsWorkedOffInOrder(t *testing.T) {
	var p parts
	p[3], p[7] = []int{1, 2, 3, 4, 5, 6, 7}, []int{11, 12}
	var did []int
	w := p.walk(&did)
	done, err := w.Go(t.Context())
	if err != nil || done != (work.Done{Count: 9}) || !slices.Equal(did, []int{1, 2, 11, 12, 3, 4, 5, 6, 7}) {
		t.Errorf("%+v, %v: %v", done, err, did)
	}
}

func TestTheLatestOfAPartDoNotWaitForItsBacklog(t *testing.T) {
	var p parts
	p[3], p[7] = []int{1, 2, 3, 4, 5, 6, 7}, []int{11, 12, 13}
	var did []int
	w := p.walk(&did)
	w.Latest = true
	done, err := w.Go(t.Context())
	if err != nil || done.Count != 10 || !slices.Equal(did, []int{1, 2, 7, 6, 11, 12, 13, 3, 4, 5}) {
		t.Errorf("%+v, %v: %v", done, err, did)
	}
}

func TestAWalkStopsAtItsLimitAndSaysThatThereIsMore(t *testing.T) {
	var p parts
	p[0] = []int{1, 2, 3}
	for limit, want := range map[int]work.Done{2: {Count: 2, More: true}, 3: {Count: 3}} {
		var did []int
		w := p.walk(&did)
		w.Limit = limit
		if done, err := w.Go(t.Context()); err != nil || done != want {
			t.Errorf("%d: %+v, %v", limit, done, err)
		}
	}
}

func TestAWalkBeginsNothingThatItHasNoTimeFor(t *testing.T) {
	var p parts
	p[0] = []int{1, 2, 3}
	var did []int
	w := p.walk(&did)
	short, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	w.Enough = 2 * time.Hour
	if done, err := w.Go(short); err != nil || done != (work.Done{More: true}) {
		t.Errorf("%+v, %v", done, err)
	}
	w.Enough = time.Minute
	w.Do = func(context.Context, int) error { did = append(did, 0); cancel(); return nil }
	if done, err := w.Go(short); err != nil || done != (work.Done{Count: 1, More: true}) {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestWhatIsSkippedDoesNotCountAndWhatFailsDoes(t *testing.T) {
	var p parts
	p[0] = []int{1, 2, 3, 4, 5}
	var did []int
	w := p.walk(&did)
	w.Limit, w.Skip = 3, func(n int) bool { return n%2 == 0 }
	w.Do = func(_ context.Context, n int) error {
		if n == 3 {
			return errors.New("three")
		}
		return nil
	}
	if done, err := w.Go(t.Context()); err != nil || done != (work.Done{Count: 3, Failed: 1}) {
		t.Errorf("%+v, %v", done, err)
	}
	w.Due = func(context.Context, work.Query[int]) ([]int, error) { return nil, errors.New("no answer") }
	if _, err := w.Go(t.Context()); err == nil {
		t.Error("a store that does not answer is no end of a walk")
	}
}

func TestOneReceiverHasFewLanesAndThoseWhoWaitForItTakeNone(t *testing.T) {
	const most, per = 8, 2
	l := work.NewLanes[int](most, per)
	var now, top, quick atomic.Int32
	hold, told, all := make(chan struct{}), make(chan struct{}), sync.WaitGroup{}
	visit := func(receiver string, n int) error {
		for goOn := l.Enter(receiver, n); goOn; _, goOn = l.Leave(receiver, true) {
			if receiver == "slow" {
				top.Store(max(top.Load(), now.Add(1)))
				<-hold
				now.Add(-1)
			} else {
				if quick.Add(1) == 100 {
					close(told)
				}
			}
		}
		return nil
	}
	all.Go(func() {
		for n := range 100 {
			_ = l.Take(func() error { return visit("slow", n) })
			_ = l.Take(func() error { return visit("quick", n) })
		}
	})
	all.Wait() // nobody has let go of the slow receiver
	<-told
	close(hold)
	if failed, waiting := l.Wait(); failed > 0 || waiting || top.Load() > per {
		t.Errorf("%d failed, waiting: %t, %d at once", failed, waiting, top.Load())
	}
}

func TestThoseWhoWaitForAReceiverThatIsNotWellGoOnWaiting(t *testing.T) {
	l := work.NewLanes[int](1, 1)
	if !l.Enter("a", 1) || l.Enter("a", 2) {
		t.Fatal("there is room for one")
	}
	if _, goOn := l.Leave("a", false); goOn {
		t.Error("the next went on")
	}
	if _, waiting := l.Wait(); !waiting {
		t.Error("nobody waits")
	}
	if !l.Enter("a", 3) {
		t.Error("there is no room any more")
	}
	if next, goOn := l.Leave("a", true); !goOn || next != 2 {
		t.Errorf("%d, %t is next", next, goOn)
	}
}

func TestTheWaitsAreThePublishedOnesWithUpToATenthMore(t *testing.T) {
	total := time.Duration(0)
	for n, least := range []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
		20 * time.Hour, 24 * time.Hour, 24 * time.Hour} {
		differ := map[time.Duration]bool{}
		for seed := range uint64(100) {
			d := work.Wait(seed, n)
			if d < least || d > least+least/10 {
				t.Errorf("the wait after the attempt %d is %v", n, d)
			}
			differ[d] = true
		}
		if n > 0 && len(differ) < 50 {
			t.Errorf("of 100 waits after the attempt %d %d differ", n, len(differ))
		}
		if n < work.Attempts {
			total += least
		}
	}
	if total.Round(time.Minute) != 75*time.Hour+35*time.Minute {
		t.Errorf("the schedule takes %v", total)
	}
}
