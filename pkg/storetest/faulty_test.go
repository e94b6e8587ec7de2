package storetest_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// counter is a store whose Forget and Close take effect by counting.
type counter struct {
	storetest.Store
	effects atomic.Int64
}

func (c *counter) Forget(context.Context, apikey.ID, []apikey.Window) error {
	c.effects.Add(1)
	return nil
}

func (c *counter) Close(context.Context, apikey.ID, int64, apikey.Closing) error {
	c.effects.Add(1)
	return nil
}

func (c *counter) Key(context.Context, apikey.ID) (apikey.Record, error) {
	return apikey.Record{Counted: true}, nil
}

func TestACallFailsBeforeOrAfterItTookEffect(t *testing.T) {
	for _, fault := range storetest.Faults() {
		store := &counter{}
		faulty := storetest.NewFaulty(store, storetest.Nth(2, fault))
		var errs []error
		for range 3 {
			errs = append(errs, faulty.Forget(t.Context(), 1, nil))
		}
		want := int64(2)
		if fault.After {
			want = 3
		}
		if n := store.effects.Load(); n != want || errs[0] != nil || !errors.Is(errs[1], fault.Err) || errs[2] != nil {
			t.Errorf("%s: %d calls took effect and said %v, want %d", fault, n, errs, want)
		}
	}
}

// Else a verb that a new method serves would be tested without its faults.
func TestEveryMethodOfAStoreIsCountedAndCanFail(t *testing.T) {
	store := reflect.TypeFor[storetest.Store]()
	for m := range store.Methods() {
		faulty := storetest.NewFaulty(&counter{}, storetest.Always(m.Name, storetest.Fault{Err: storetest.ErrLost}))
		in := []reflect.Value{reflect.ValueOf(t.Context())}
		for n := 1; n < m.Type.NumIn(); n++ {
			in = append(in, reflect.Zero(m.Type.In(n)))
		}
		out := reflect.ValueOf(faulty).MethodByName(m.Name).Call(in)
		err, _ := out[len(out)-1].Interface().(error)
		if calls := faulty.Calls(); !errors.Is(err, storetest.ErrLost) || len(calls) != 1 || calls[0].Method != m.Name {
			t.Errorf("%s said %v and was counted as %v", m.Name, err, calls)
		}
	}
}

func TestALostAnswerTellsNothing(t *testing.T) {
	faulty := storetest.NewFaulty(&counter{}, storetest.Always("Key", storetest.Fault{Err: storetest.ErrLost, After: true}))
	if r, err := faulty.Key(t.Context(), 1); !errors.Is(err, storetest.ErrLost) || r.Counted {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestCallsAreCountedFromManyGoroutines(t *testing.T) {
	faulty := storetest.NewFaulty(&counter{}, nil)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { _ = faulty.Forget(t.Context(), 1, nil) })
	}
	all.Wait()
	for i, c := range faulty.Calls() {
		if c != (storetest.Call{N: i + 1, Method: "Forget"}) {
			t.Fatalf("call %d is %+v", i, c)
		}
	}
	if n := len(faulty.Calls()); n != 50 {
		t.Fatalf("%d calls, want 50", n)
	}
}

func TestEverywhereMeetsEveryCallWithEveryFaultAndThenNone(t *testing.T) {
	failed := map[storetest.Call]int{}
	passed := 0
	open := func(*testing.T) storetest.Store { return &counter{} }
	storetest.Everywhere(t, storetest.Faults(), open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
		_ = bare.Forget(t.Context(), 1, nil) // preparing is no call of the verb's
		_, err := faulty.Key(t.Context(), 1)
		if err == nil {
			err = faulty.Close(t.Context(), 1, 1, apikey.Closing{})
		}
		if err == nil {
			passed++
			return
		}
		calls := faulty.Calls()
		failed[calls[len(calls)-1]]++
	})
	every := len(storetest.Faults())
	if failed[storetest.Call{N: 1, Method: "Key"}] != every || failed[storetest.Call{N: 2, Method: "Close"}] != every || len(failed) != 2 || passed != 1 {
		t.Errorf("failed %v, passed %d times", failed, passed)
	}
}
