package memory

import (
	"context"
	"slices"

	"github.com/latchkey/latchkey/pkg/audit"
)

// chain is the links of one organization, and which entry has which.
type chain struct {
	links []audit.Link
	of    map[string]int // by an entry's id, where among links
}

// Append links the entries that have no link yet, in the order given, and returns all of them with their links.
func (s *Store) Append(_ context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chains[organizationID]
	if c == nil {
		c = &chain{of: map[string]int{}}
		s.chains[organizationID] = c
	}
	linked := make([]audit.Linked, len(entries))
	for i, e := range entries {
		if err := audit.MayLink(organizationID, e); err != nil {
			return nil, err
		}
		if err := c.link(e); err != nil {
			return nil, err
		}
		linked[i] = audit.Linked{Entry: e, Link: c.links[c.of[e.ID]]}
	}
	return linked, nil
}

func (c *chain) link(e audit.Entry) error {
	if _, there := c.of[e.ID]; there {
		return nil
	}
	var head audit.Link
	if n := len(c.links); n > 0 {
		head = c.links[n-1]
	}
	next, err := audit.Next(head, e)
	if err != nil {
		return err
	}
	c.of[e.ID] = len(c.links)
	c.links = append(c.links, next)
	return nil
}

// Links returns a page of an organization's chain: see lifecycle.Store.
func (s *Store) Links(_ context.Context, organizationID string, after int64, limit int) ([]audit.Link, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chains[organizationID]
	if c == nil || after >= int64(len(c.links)) {
		return nil, false, nil
	}
	rest := c.links[max(after, 0):]
	return slices.Clone(rest[:min(limit, len(rest))]), len(rest) > limit, nil
}
