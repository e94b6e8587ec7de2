package memory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/work"
)

// Subscriptions returns an organization's: see notify.Store.
func (s *Store) Subscriptions(_ context.Context, organizationID string) (notify.Subscriptions, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.subscriptions[organizationID]
	all.OrganizationID = organizationID
	return cloneSubscriptions(all), nil
}

// PutSubscriptions replaces them: see notify.Store.
func (s *Store) PutSubscriptions(_ context.Context, all notify.Subscriptions, entry audit.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written(entry) || s.subscriptions[all.OrganizationID].Version != all.Version-1 {
		return lifecycle.ErrChanged
	}
	s.subscriptions[all.OrganizationID] = cloneSubscriptions(all)
	s.write(entry)
	return nil
}

func cloneSubscriptions(all notify.Subscriptions) notify.Subscriptions {
	all.List = slices.Clone(all.List)
	for i := range all.List {
		all.List[i].EventTypes = slices.Clone(all.List[i].EventTypes)
	}
	return all
}

// AddDelivery stores a new one, and drops the organization's oldest whose time is over: see notify.Store.
func (s *Store) AddDelivery(_ context.Context, r notify.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.delivery(r.OrganizationID, r.ID); there {
		return lifecycle.ErrChanged
	}
	for list := s.deliveries[r.OrganizationID]; len(list) > 0 && !list[0].Until.After(r.CreatedAt); list = s.deliveries[r.OrganizationID] {
		s.notDue(list[0])
		s.deliveries[r.OrganizationID] = list[1:]
	}
	at, _ := s.delivery(r.OrganizationID, r.ID)
	s.deliveries[r.OrganizationID] = slices.Insert(s.deliveries[r.OrganizationID], at, nil)
	s.set(at, r)
	return nil
}

// delivery is where one is among its organization's, or would be.
func (s *Store) delivery(organizationID, id string) (at int, there bool) {
	return slices.BinarySearchFunc(s.deliveries[organizationID], id, func(r *notify.Record, id string) int { return cmp.Compare(r.ID, id) })
}

// set puts r at its place, and where it is looked for when it is due.
func (s *Store) set(at int, r notify.Record) {
	r.Attempts = slices.Clone(r.Attempts)
	s.deliveries[r.OrganizationID][at] = &r
	if d, due := notify.DueOf(&r); due {
		list := &s.dueEvents[work.ShardOf(r.OrganizationID)]
		i, _ := slices.BinarySearchFunc(*list, d, comparePlaces)
		*list = slices.Insert(*list, i, d)
	}
}

// notDue takes r away from what is due.
func (s *Store) notDue(r *notify.Record) {
	d, due := notify.DueOf(r)
	list := &s.dueEvents[work.ShardOf(r.OrganizationID)]
	if i, there := slices.BinarySearchFunc(*list, d, comparePlaces); due && there {
		*list = slices.Delete(*list, i, i+1)
	}
}

func comparePlaces(a, b notify.Due) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Ref.ID, b.Ref.ID))
}

// Delivery returns one: see notify.Store.
func (s *Store) Delivery(_ context.Context, organizationID, id string) (notify.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, there := s.delivery(organizationID, id)
	if !there {
		return notify.Record{}, lifecycle.ErrNotFound
	}
	r := *s.deliveries[organizationID][at]
	r.Attempts = slices.Clone(r.Attempts)
	return r, nil
}

// UpdateDelivery replaces one: see notify.Store.
func (s *Store) UpdateDelivery(_ context.Context, r notify.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, there := s.delivery(r.OrganizationID, r.ID)
	if !there || s.deliveries[r.OrganizationID][at].Version != r.Version-1 {
		return lifecycle.ErrChanged
	}
	s.notDue(s.deliveries[r.OrganizationID][at])
	s.set(at, r)
	return nil
}

// Deliveries returns a page: see notify.Store.
func (s *Store) Deliveries(_ context.Context, organizationID, before string, limit int) (page []notify.Record, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := len(s.deliveries[organizationID])
	if before != "" {
		end, _ = s.delivery(organizationID, before)
	}
	for ; end > 0; end-- {
		if len(page) == limit {
			return page, true, nil
		}
		r := *s.deliveries[organizationID][end-1]
		r.Attempts, r.Body = slices.Clone(r.Attempts), nil
		page = append(page, r)
	}
	return page, false, nil
}

// DueDeliveries returns those that are due: see notify.Store.
func (s *Store) DueDeliveries(_ context.Context, q work.Query[notify.Due]) ([]notify.Due, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return page(s.dueEvents[q.Shard], q, func(d notify.Due) time.Time { return d.At }, comparePlaces), nil
}
