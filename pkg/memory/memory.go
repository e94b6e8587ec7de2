// Package memory keeps keys in a map, under the same contracts as the DynamoDB store and the same test suite. It is what
// `latchkeyd` runs on when it is given no database: complete, exact, safe for many goroutines, and gone with the process.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/verify"
	"github.com/latchkey/latchkey/pkg/work"
)

var (
	_ lifecycle.Store = (*Store)(nil)
	_ notify.Store    = (*Store)(nil)
	_ verify.Store    = (*Store)(nil)
)

// Store is a lifecycle.Store, a verify.Store and a notify.Store.
type Store struct {
	mu            sync.Mutex
	organizations map[string]lifecycle.Organization
	keys          map[apikey.ID]*apikey.Record
	entries       map[string][]audit.Entry // by organization, oldest first
	order         []ref                    // of the entries of all organizations, as they were committed
	grown         chan struct{}            // closed when there is one more; nil while nobody waits
	chains        map[string]*chain        // by organization
	replays       map[string]lifecycle.Replay
	due           map[part][]lifecycle.DueKey // the longest due first
	subscriptions map[string]notify.Subscriptions
	deliveries    map[string][]*notify.Record // by organization, in the order of their ids
	dueEvents     [work.Shards][]notify.Due   // the longest due first
	crowded       int                         // how many replays there may be before those that are over are looked for
}

// New makes an empty Store.
func New() *Store {
	return &Store{
		organizations: map[string]lifecycle.Organization{},
		keys:          map[apikey.ID]*apikey.Record{},
		entries:       map[string][]audit.Entry{},
		chains:        map[string]*chain{},
		replays:       map[string]lifecycle.Replay{},
		due:           map[part][]lifecycle.DueKey{},
		subscriptions: map[string]notify.Subscriptions{},
		deliveries:    map[string][]*notify.Record{},
	}
}

// Debit is the hot path's one write: see verify.Store.
func (s *Store) Debit(ctx context.Context, d verify.Debit) (verify.Hot, bool, error) {
	if err := ctx.Err(); err != nil {
		return verify.Hot{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.keys[d.ID]
	if !ok {
		return verify.Hot{}, false, verify.ErrNoKey
	}
	minute, day := d.Minute(), d.Day()
	hot, err := hotOf(r, &d)
	hot.MinuteCount, hot.DayCount = r.Counts[minute], r.Counts[day]
	if err != nil || verify.Refusal(&hot, &d) != apikey.Valid {
		return hot, false, err
	}
	hot.MinuteCount += d.Cost
	hot.DayCount += d.Cost
	r.Counts[minute], r.Counts[day] = hot.MinuteCount, hot.DayCount
	used := d.At.Truncate(time.Millisecond)
	r.LastUsedAt = &used
	return hot, true, nil
}

// Look is a reading of the same: see verify.Store.
func (s *Store) Look(ctx context.Context, d verify.Debit) (verify.Hot, error) {
	if err := ctx.Err(); err != nil {
		return verify.Hot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.keys[d.ID]
	if !ok {
		return verify.Hot{}, verify.ErrNoKey
	}
	hot, err := hotOf(r, &d)
	hot.MinuteCount, hot.DayCount = r.Counts[d.Minute()], r.Counts[d.Day()]
	return hot, err
}

// hotOf is what a verify is told of r, but for the counts.
func hotOf(r *apikey.Record, d *verify.Debit) (verify.Hot, error) {
	hot := verify.Hot{
		Identity: verify.Identity{
			KeyID: r.ID, OrganizationID: r.OrganizationID, ProjectID: r.ProjectID,
			EnvironmentID: orEmpty(r.EnvironmentID), ExternalID: orEmpty(r.ExternalID), Scopes: r.Scopes,
		},
		Hash:        r.Hash,
		State:       r.State(),
		MinuteLimit: r.RateLimitPerMinute,
		DayLimit:    r.DailyLimit,
	}
	if end := r.Deadline(); end != nil {
		hot.End = *end
	}
	for _, text := range r.AllowedCIDRs {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return verify.Hot{}, fmt.Errorf("reading the networks of %s: %w", r.ID, err)
		}
		hot.CIDRs = append(hot.CIDRs, network)
	}
	for w := range r.Counts {
		if d.Past(w) {
			hot.Past = append(hot.Past, w)
		}
	}
	return hot, nil
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Forget drops counters: see verify.Store.
func (s *Store) Forget(_ context.Context, id apikey.ID, windows []apikey.Window) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.keys[id]; ok {
		for _, w := range windows {
			delete(r.Counts, w)
		}
	}
	return nil
}

// Organization returns one: see lifecycle.Store.
func (s *Store) Organization(_ context.Context, id string) (lifecycle.Organization, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.organizations[id]
	if !ok {
		return o, lifecycle.ErrNotFound
	}
	o.AllowedScopes = slices.Clone(o.AllowedScopes)
	return o, nil
}

// PutOrganization writes one: see lifecycle.Store.
func (s *Store) PutOrganization(_ context.Context, o lifecycle.Organization, entry audit.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.organizations[o.ID]
	if s.written(entry) || old.Version != o.Version-1 {
		return lifecycle.ErrChanged
	}
	if there {
		o.ActiveKeys = old.ActiveKeys
	}
	o.AllowedScopes = slices.Clone(o.AllowedScopes)
	s.organizations[o.ID] = o
	s.write(entry)
	return nil
}

// Key returns one: see lifecycle.Store.
func (s *Store) Key(_ context.Context, id apikey.ID) (apikey.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.keys[id]
	if !ok {
		return apikey.Record{}, lifecycle.ErrNotFound
	}
	return *clone(r), nil
}

// Keys returns a page: see lifecycle.Store.
func (s *Store) Keys(_ context.Context, q lifecycle.Query) ([]apikey.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []apikey.Record
	for _, r := range s.keys {
		if r.OrganizationID == q.OrganizationID && (q.ProjectID == "" || r.ProjectID == q.ProjectID) &&
			(q.Side == lifecycle.Both || r.Ended() == (q.Side == lifecycle.Ended)) && lifecycle.PositionOf(r).After(q.Before) {
			found = append(found, *r)
		}
	}
	slices.SortFunc(found, func(a, b apikey.Record) int { return lifecycle.PositionOf(&a).Compare(lifecycle.PositionOf(&b)) })
	more := len(found) > q.Limit
	found = found[:min(len(found), q.Limit)]
	for i := range found {
		found[i] = *clone(&found[i])
	}
	return found, more, nil
}

// Commit makes a Change: see lifecycle.Store.
func (s *Store) Commit(_ context.Context, c lifecycle.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(c); err != nil {
		return err
	}
	if c.Create != nil {
		s.put(clone(c.Create))
	}
	for _, u := range c.Update {
		r, old := clone(&u.Record), s.keys[u.Record.ID]
		r.Counts, r.LastUsedAt = old.Counts, old.LastUsedAt
		s.put(r)
	}
	if c.Count != nil {
		o := s.organizations[c.Count.OrganizationID]
		o.ActiveKeys += c.Count.Delta
		s.organizations[o.ID] = o
	}
	for _, sealed := range c.Destroy {
		if kept, ok := s.replays[sealed.ID]; ok && kept.Until.Equal(sealed.Until) {
			kept.Sealed = nil
			s.replays[sealed.ID] = kept
		}
	}
	if c.Replay != nil {
		s.keep(*c.Replay, c.Entry.At)
	}
	if !c.Silent {
		s.write(c.Entry)
	}
	return nil
}

// check tells whether all that the Change requires holds.
func (s *Store) check(c lifecycle.Change) error {
	if s.written(c.Entry) || c.Create != nil && s.keys[c.Create.ID] != nil {
		return lifecycle.ErrChanged
	}
	for _, u := range c.Update {
		old := s.keys[u.Record.ID]
		if old == nil || old.Version != u.Record.Version-1 || (old.Closing != nil) != u.Closing {
			return lifecycle.ErrChanged
		}
		for _, w := range u.Frozen {
			if old.Counts[w] != u.Record.Counts[w] {
				return lifecycle.ErrChanged
			}
		}
		for w, n := range u.Below(c.Entry.At) {
			if old.Counts[w] >= n {
				return lifecycle.ErrChanged
			}
		}
	}
	if c.Replay != nil && s.replays[c.Replay.ID].Until.After(c.Entry.At) {
		return lifecycle.ErrChanged
	}
	if c.Count == nil {
		return nil
	}
	o, ok := s.organizations[c.Count.OrganizationID]
	if !ok || c.Count.Delta > 0 && (o.Version != c.Count.Version || o.ActiveKeys > c.Count.Max-c.Count.Delta) {
		return lifecycle.ErrCount
	}
	return nil
}

// keep adds an answer. Those whose time is over at now are dropped each time that their number may have doubled, so that
// at most about half are over and none costs more than a few looks.
func (s *Store) keep(r lifecycle.Replay, now time.Time) {
	if len(s.replays) >= s.crowded {
		maps.DeleteFunc(s.replays, func(_ string, kept lifecycle.Replay) bool { return !kept.Until.After(now) })
		s.crowded = 2*len(s.replays) + 64
	}
	s.replays[r.ID] = cloneReplay(r)
}

func cloneReplay(r lifecycle.Replay) lifecycle.Replay {
	r.Fingerprint, r.Sealed = bytes.Clone(r.Fingerprint), bytes.Clone(r.Sealed)
	return r
}

// Close marks a key as closing: see lifecycle.Store.
func (s *Store) Close(_ context.Context, id apikey.ID, version int64, c apikey.Closing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.keys[id]
	if !ok || r.Version != version || r.Closing != nil {
		return lifecycle.ErrChanged
	}
	r.Closing = &c
	return nil
}

// Replay returns a kept answer: see lifecycle.Store.
func (s *Store) Replay(_ context.Context, id string) (lifecycle.Replay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, ok := s.replays[id]
	if !ok {
		return kept, lifecycle.ErrNotFound
	}
	return cloneReplay(kept), nil
}

// Entries returns a page of the audit trail: see lifecycle.Store.
func (s *Store) Entries(_ context.Context, q lifecycle.EntryQuery) ([]audit.Entry, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.entries[q.OrganizationID]
	if q.Before != "" {
		end, _ := place(found, q.Before)
		found = found[:end]
	}
	first, there := place(found, q.After)
	if there {
		first++
	}
	found = found[first:]
	more := len(found) > q.Limit
	page := slices.Clone(found[len(found)-min(len(found), q.Limit):])
	slices.Reverse(page)
	return page, more, nil
}

// write keeps the entries sorted by id: two made in one millisecond may come in either order.
func (s *Store) write(e audit.Entry) {
	all := s.entries[e.OrganizationID]
	at, _ := place(all, e.ID)
	s.entries[e.OrganizationID] = slices.Insert(all, at, e)
	s.committed(e)
}

// written says whether there is an entry of that id. It is never replaced.
func (s *Store) written(e audit.Entry) bool {
	_, there := place(s.entries[e.OrganizationID], e.ID)
	return there
}

// place is where in a trail an entry is, or would be.
func place(trail []audit.Entry, id string) (at int, there bool) {
	return slices.BinarySearchFunc(trail, id, func(e audit.Entry, id string) int { return cmp.Compare(e.ID, id) })
}

// clone copies what can be changed through a Record. Fields behind other pointers are replaced, never written through.
func clone(r *apikey.Record) *apikey.Record {
	c := *r
	c.Scopes, c.AllowedCIDRs, c.Metadata = slices.Clone(r.Scopes), slices.Clone(r.AllowedCIDRs), slices.Clone(r.Metadata)
	c.Counts = maps.Clone(r.Counts)
	if c.Counts == nil {
		c.Counts = map[apikey.Window]int64{}
	}
	return &c
}
