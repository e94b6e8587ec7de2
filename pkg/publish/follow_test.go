package publish_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/publish"
)

// feed brings batches, and begins at the first record that is left when it is opened again.
type feed struct {
	mu       sync.Mutex
	batches  [][]publish.Record
	failures int // of Next, to come
	brought  []publish.Record
	left     []publish.Record // as Done said last
	said     int              // how much was brought then
	idle     func()           // called when there is nothing left
}

func (f *feed) Next(ctx context.Context, wait time.Duration) ([]publish.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failures > 0 {
		f.failures--
		return nil, errors.New("throttled")
	}
	if len(f.batches) > 0 {
		batch := f.batches[0]
		f.batches, f.brought = f.batches[1:], append(f.brought, batch...)
		return batch, nil
	}
	if len(f.left) == 0 && f.said == len(f.brought) {
		f.idle()
	}
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
	return nil, nil
}

func (f *feed) Done(_ context.Context, left []publish.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.said = left, len(f.brought)
	return nil
}

// follow follows the feed until all is done.
func (f *feed) follow(t *testing.T, p *publish.Publisher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan struct{})
	f.idle = func() {
		select {
		case <-ended:
		default:
			close(ended)
			cancel()
		}
	}
	p.Follow(ctx, f)
	select {
	case <-ended:
	default:
		t.Fatalf("left are %v", ids(f.left))
	}
}

func TestAnOrganizationThatFailsWaitsAloneAndKeepsItsOrder(t *testing.T) {
	w := newWorld(t)
	list := entries(9, "acme", "globex", "initech")
	f := &feed{failures: 1}
	all := records(list)
	for from := 0; from < len(all); from += 4 {
		f.batches = append(f.batches, all[from:min(from+4, len(all))])
	}
	failures := map[string]int{}
	w.fault = func(call, o string) (before, after error) {
		if o == "globex" && len(w.announced["acme"]) < 9 {
			failures[call]++
			return errDown, nil // as long as others go on
		}
		if failures[call+o]++; o == "initech" && failures[call+o] == 3 {
			return nil, errDown
		}
		return nil, nil
	}
	f.follow(t, w.publisher())
	w.holds(list)
	if failures["append"] == 0 {
		t.Error("nothing failed")
	}
}

func TestWhatWaitsIsLeftUntilItIsDone(t *testing.T) {
	w := newWorld(t)
	list := entries(2, "acme", "globex")
	f := &feed{batches: [][]publish.Record{records(list)}}
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	w.fault = func(call, o string) (before, after error) {
		if call == "append" && o == "globex" {
			if tries++; tries == 3 {
				cancel() // the process ends
			}
			return errDown, nil
		}
		return nil, nil
	}
	w.publisher().Follow(ctx, f)
	if !slices.Equal(ids(f.left), []string{"2", "4"}) {
		t.Fatalf("left are %v", ids(f.left))
	}
	w.fault = newWorld(t).fault
	again := &feed{batches: [][]publish.Record{f.left}}
	again.follow(t, w.publisher())
	w.holds(list)
}

func TestARecordThatCannotBeReadIsLeftBehind(t *testing.T) {
	w := newWorld(t)
	list := entries(3, "acme")
	batch := records(list)
	batch[1].Err = errors.New("its schema is version 2, not 1")
	f := &feed{batches: [][]publish.Record{batch}}
	f.follow(t, w.publisher())
	w.holds(slices.Delete(list, 1, 2))
}
