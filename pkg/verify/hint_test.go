package verify_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/verify"
)

// hints counts the hints of a door, and has each end as answer says; nil: well.
func (d *door) hints(answer func(context.Context) error) *atomic.Int64 {
	var n atomic.Int64
	d.store.hint = func(ctx context.Context) error {
		n.Add(1)
		if answer == nil {
			return nil
		}
		return answer(ctx)
	}
	return &n
}

func TestTheDebitsThatComeToAPartOfTheDaysLimitHintAndNoOthers(t *testing.T) {
	d := newDoor(t, limit(1000, 10))
	n := d.hints(nil)
	for _, want := range []int64{0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2} {
		if d.ask(verify.Request{}); n.Load() != want {
			t.Fatalf("%d hints at a use of %d, want %d", n.Load(), d.used(t), want)
		}
	}
	d.now = d.now.AddDate(0, 0, 1)
	for range 8 {
		d.ask(verify.Request{})
	}
	if n.Load() != 3 {
		t.Errorf("%d hints, want one more on the next day", n.Load())
	}
}

func TestALimitThatIsPassedInOneGoIsHintedAtOnce(t *testing.T) {
	d := newDoor(t, limit(1000, 10))
	n := d.hints(nil)
	for _, row := range []struct{ cost, want int64 }{{11, 0}, {7, 0}, {4, 1}, {1, 1}, {11, 1}} { // 11 of 10 debit nothing
		if d.ask(verify.Request{Cost: row.cost}); n.Load() != row.want {
			t.Errorf("%d hints after a cost of %d, want %d", n.Load(), row.cost, row.want)
		}
	}
}

func TestAKeyWithoutADailyLimitIsNeverHintedAt(t *testing.T) {
	d := newDoor(t, limit(3, 0))
	n := d.hints(nil)
	for range 10 {
		d.ask(verify.Request{})
	}
	if n.Load() != 0 {
		t.Errorf("%d hints", n.Load())
	}
}

// A debit whose answer is lost may be made twice, and then none is seen to come to the limit.
func TestWhereNoDebitWasSeenToUseUpTheDayItsFirstRefusalHints(t *testing.T) {
	d := newDoor(t, limit(1000, 11))
	n := d.hints(nil)
	d.store.debit = func(ctx context.Context, x verify.Debit) (verify.Hot, bool, error) {
		_, _, _ = d.store.Store.Debit(ctx, x)
		return d.store.Store.Debit(ctx, x)
	}
	for range 5 {
		d.ask(verify.Request{})
	}
	if n.Load() != 0 {
		t.Fatalf("%d hints: the test sees no lost answer", n.Load())
	}
	for range 5 {
		d.ask(verify.Request{})
	}
	if n.Load() != 1 {
		t.Errorf("%d hints", n.Load())
	}
	d.now = d.now.AddDate(0, 0, 1)
	for range 10 {
		d.ask(verify.Request{})
	}
	if n.Load() != 2 {
		t.Errorf("%d hints after the next day's refusals", n.Load())
	}
}

func TestHoweverAHintEndsTheDecisionIsTheSameAndSoon(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	slow := func(context.Context) error { time.Sleep(100 * time.Millisecond); return nil }
	fail := func(context.Context) error { return errors.New("broken") }
	for name, row := range map[string]struct {
		answer func(context.Context) error
		hints  int64 // one for each part; one that failed is made up for by the first refusal
		most   time.Duration
	}{"well": {nil, 2, 0}, "fails": {fail, 3, 0}, "slow": {slow, 2, 100 * time.Millisecond}, "hangs": {hang, 3, 250 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(t, limit(1000, 5))
				n := d.hints(row.answer)
				for i := range 8 {
					began, want := time.Now(), apikey.Valid
					if i >= 5 {
						want = apikey.DailyLimitExceeded
					}
					if got := d.ask(verify.Request{}); got.Code != want || len(got.Limits) != 2 {
						t.Errorf("request %d: %s, want %s", i, got.Code, want)
					}
					if took := time.Since(began); took > row.most {
						t.Errorf("request %d took %s, want at most %s", i, took, row.most)
					}
				}
				if n.Load() != row.hints {
					t.Errorf("%d hints, want %d", n.Load(), row.hints)
				}
			})
		})
	}
}

func TestAClientThatHangsUpDoesNotTakeTheHintWithIt(t *testing.T) {
	d := newDoor(t, limit(1000, 1))
	ctx, hangUp := context.WithCancel(context.Background())
	d.store.debit = func(ctx context.Context, x verify.Debit) (verify.Hot, bool, error) {
		defer hangUp()
		return d.store.Store.Debit(ctx, x)
	}
	n := d.hints(func(ctx context.Context) error { return ctx.Err() })
	if d.Verify(ctx, verify.Request{Key: d.key}); n.Load() != 1 {
		t.Fatalf("%d hints", n.Load())
	}
	if d.ask(verify.Request{}); n.Load() != 1 {
		t.Error("the hint was not made")
	}
}

func TestTwoHundredAtOnceHintOnceForEachPart(t *testing.T) {
	d := newDoor(t, limit(1000, 100))
	n := d.hints(nil)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() { d.ask(verify.Request{}) })
	}
	all.Wait()
	if got := n.Load(); got < 2 || got > 3 { // a refusal may come before the last debit has hinted
		t.Errorf("%d hints", got)
	}
}
