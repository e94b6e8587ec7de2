package memory

import (
	"context"
	"strconv"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/publish"
)

// perPage is how many records a Feed brings at once.
const perPage = 100

// ref says where an entry is.
type ref struct{ organizationID, id string }

// Feed is a publish.Feed of all that was and will be committed, from the beginning. It is for one goroutine; there may be
// others.
type Feed struct {
	store *Store
	at    int // how many entries it has brought
}

var _ publish.Feed = (*Feed)(nil)

// Feed makes a Feed.
func (s *Store) Feed() *Feed { return &Feed{store: s} }

// Next returns the next records as soon as there are any: see publish.Feed.
func (f *Feed) Next(ctx context.Context, wait time.Duration) ([]publish.Record, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		records, grown := f.page()
		if len(records) > 0 {
			return records, nil
		}
		select {
		case <-grown:
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// page is the next records, and what is closed once there are more.
func (f *Feed) page() (records []publish.Record, grown <-chan struct{}) {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.order[f.at:min(len(s.order), f.at+perPage)] {
		f.at++
		trail := s.entries[r.organizationID]
		at, _ := place(trail, r.id)
		records = append(records, publish.Record{ID: strconv.Itoa(f.at), Change: "INSERT", OrganizationID: r.organizationID, EntryID: r.id, Entry: trail[at]})
	}
	if s.grown == nil {
		s.grown = make(chan struct{})
	}
	return records, s.grown
}

// Done has nothing to write down: the Feed goes with the process.
func (f *Feed) Done(context.Context, []publish.Record) error { return nil }

// committed notes an entry behind all others, and wakes whoever waits for it.
func (s *Store) committed(e audit.Entry) {
	s.order = append(s.order, ref{e.OrganizationID, e.ID})
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
}
