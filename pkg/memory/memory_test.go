package memory_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store { return memory.New() })
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func commit(t *testing.T, s *memory.Store, c lifecycle.Change) {
	t.Helper()
	c.Entry.ID, c.Entry.OrganizationID = audit.NewID(noon), "org"
	if err := s.Commit(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestAKeyThatChangesSidesAgainAndAgainIsInEveryListOfBoth(t *testing.T) {
	s := memory.New()
	r := apikey.Record{Key: apikey.Key{ID: 1, OrganizationID: "org", CreatedAt: noon, Version: 1}}
	commit(t, s, lifecycle.Change{Create: &r})
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for change := r; ; {
			select {
			case <-done:
				return
			default:
			}
			if change.Version++; change.ArchivedAt == nil {
				change.ArchivedAt = &noon
			} else {
				change.ArchivedAt = nil
			}
			commit(t, s, lifecycle.Change{Update: []lifecycle.Update{{Record: change}}})
		}
	})
	for n := range 2000 {
		page, more, err := s.Keys(t.Context(), lifecycle.Query{OrganizationID: "org", Side: lifecycle.Both, Limit: 10})
		if err != nil || more || len(page) != 1 {
			t.Errorf("list %d has %d keys, more: %v, %v", n, len(page), more, err)
			break
		}
	}
	close(done)
	all.Wait()
}

func TestAnswersThatAreOverDoNotPileUp(t *testing.T) {
	s := memory.New()
	const many, alive = 20_000, 100
	id := func(n int) string { return fmt.Sprint("once ", n) }
	for n := range many {
		at := noon.Add(time.Duration(n) * time.Minute)
		commit(t, s, lifecycle.Change{Replay: &lifecycle.Replay{ID: id(n), Until: at.Add(alive * time.Minute)}, Entry: audit.Entry{At: at}})
	}
	found := 0
	for n := range many {
		_, err := s.Replay(t.Context(), id(n))
		if err == nil {
			found++
		} else if n >= many-alive {
			t.Fatalf("answer %d of %d is gone before its time", n, many)
		}
	}
	if found > 4*alive {
		t.Errorf("%d answers are kept, of which %d are not over", found, alive)
	}
}
