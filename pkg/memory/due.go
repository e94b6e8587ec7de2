package memory

import (
	"context"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/work"
)

// part is one part of the keys that are due.
type part struct {
	work  apikey.Work
	shard int
}

func partOf(r *apikey.Record) part { return part{r.Due.Work, work.ShardOf(r.OrganizationID)} }

// put stores r under its id, and where it is looked for when it is due.
func (s *Store) put(r *apikey.Record) {
	if old := s.keys[r.ID]; old != nil && old.Due != nil {
		list := s.due[partOf(old)]
		if at, there := slices.BinarySearchFunc(list, dueKey(old), lifecycle.DueKey.Compare); there {
			s.due[partOf(old)] = slices.Delete(list, at, at+1)
		}
	}
	if r.Due != nil {
		list := s.due[partOf(r)]
		at, _ := slices.BinarySearchFunc(list, dueKey(r), lifecycle.DueKey.Compare)
		s.due[partOf(r)] = slices.Insert(list, at, dueKey(r))
	}
	s.keys[r.ID] = r
}

func dueKey(r *apikey.Record) lifecycle.DueKey { return lifecycle.DueKey{At: r.Due.At, ID: r.ID} }

// Due returns keys that are due: see lifecycle.Store.
func (s *Store) Due(_ context.Context, q lifecycle.DueQuery) ([]lifecycle.DueKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return page(s.due[part{q.Work, q.Shard}], q.Query, func(d lifecycle.DueKey) time.Time { return d.At }, lifecycle.DueKey.Compare), nil
}

// page is what q asks for of a list that begins with the longest due.
func page[T comparable](list []T, q work.Query[T], at func(T) time.Time, compare func(T, T) int) []T {
	late, _ := slices.BinarySearchFunc(list, q.Until, func(d T, until time.Time) int {
		if at(d).After(until) {
			return 1
		}
		return -1
	})
	list = list[:late]
	if q.Latest {
		list = slices.Clone(list[max(0, len(list)-q.Limit):])
		slices.Reverse(list)
		return list
	}
	from, there := slices.BinarySearchFunc(list, q.After, compare)
	if there {
		from++
	}
	list = list[from:]
	return slices.Clone(list[:min(len(list), q.Limit)])
}

// Postpone sets when a key is due: see lifecycle.Store.
func (s *Store) Postpone(_ context.Context, r apikey.Record, due *apikey.Due) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.keys[r.ID]
	if !ok || old.Version != r.Version || !sameDue(old.Due, r.Due) {
		return lifecycle.ErrChanged
	}
	s.postpone(old, due)
	return nil
}

func sameDue(a, b *apikey.Due) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Work == b.Work && a.At.Equal(b.At)
}

func (s *Store) postpone(r *apikey.Record, due *apikey.Due) {
	next := clone(r)
	next.Due = due
	s.put(next)
}

// Hint makes a key due for the sweep: see verify.Store.
func (s *Store) Hint(ctx context.Context, id apikey.ID, _ string, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.keys[id]; ok {
		s.postpone(r, &apikey.Due{Work: apikey.Sweep, At: at.UTC().Truncate(time.Millisecond)})
	}
	return nil
}
