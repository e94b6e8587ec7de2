package storetest

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/work"
)

var dueTests = []test{
	{"keys that are due are found, the longest due first, ties by their ids", func(s *suite) {
		want := s.becomesDue(apikey.Sweep, 5, 1, 3, 3, 3, 0)
		s.dues(s.dueFrom(want), want...)
	}},
	{"what is not due yet is not found, what is due at that moment is", func(s *suite) {
		want := s.becomesDue(apikey.Sweep, 0, 1, 2)
		q := s.dueFrom(want)
		q.Until = want[1].At
		s.dues(q, want[:2]...)
		q.Until = want[1].At.Add(-time.Millisecond)
		s.dues(q, want[:1]...)
	}},
	{"pages hold each key once", func(s *suite) {
		want := s.becomesDue(apikey.Deliver, 4, 4, 4, 4, 4, 1, 9)
		q, found := s.dueFrom(want), []lifecycle.DueKey(nil)
		q.Work, q.Limit = apikey.Deliver, 2
		for {
			page := s.page(q)
			if found = append(found, page...); len(page) < q.Limit {
				break
			}
			q.After = page[len(page)-1]
		}
		if !slices.Equal(found, want) {
			s.Fatalf("found %v, want %v", found, want)
		}
	}},
	{"the latest due are found first when they are asked for", func(s *suite) {
		want := s.becomesDue(apikey.Sweep, 0, 1, 2, 2, 3)
		q := s.dueFrom(want)
		q.After, q.Latest, q.Limit, q.Until = lifecycle.DueKey{}, true, 3, want[3].At
		s.dues(q, want[3], want[2], want[1])
	}},
	{"each kind of work and each part has its own keys", func(s *suite) {
		want := s.becomesDue(apikey.Sweep, 0, 1)
		q := s.dueFrom(want)
		q.Work = apikey.Deliver
		s.dues(q)
		q = s.dueFrom(want)
		q.Shard = (q.Shard + 1) % work.Shards
		s.dues(q)
	}},
	{"a key due at any time that it may end is found in its order", func(s *suite) {
		r := s.create(s.minimal())
		far := time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
		for _, at := range []time.Time{far, time.Date(2286, 11, 20, 17, 46, 40, 0, time.UTC), time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)} {
			r = s.update(r, func(r *apikey.Record) { r.Due = &apikey.Due{Work: apikey.Sweep, At: at} })
			s.holds(r)
			q := lifecycle.DueQuery{Work: apikey.Sweep, Query: work.Query[lifecycle.DueKey]{Shard: work.ShardOf(s.organization), Until: at, Limit: 1000,
				After: lifecycle.DueKey{At: at.Add(-time.Millisecond), ID: r.ID}}}
			s.dues(q, lifecycle.DueKey{At: at, ID: r.ID})
			q.Until = at.Add(-time.Millisecond)
			q.After.At = q.Until.Add(-time.Millisecond)
			s.dues(q)
		}
	}},
	{"a change moves a key to when it is due next, or takes it away", func(s *suite) {
		was := s.becomesDue(apikey.Sweep, 0)
		r := s.update(s.key(was[0].ID), func(r *apikey.Record) { r.Due = &apikey.Due{Work: apikey.Sweep, At: r.Due.At.Add(time.Second)} })
		s.dues(s.dueFrom(was), lifecycle.DueKey{At: r.Due.At, ID: r.ID})
		s.holds(s.update(r, func(r *apikey.Record) { r.Due = nil }))
		s.dues(s.dueFrom(was))
	}},
	{"to postpone a key changes nothing but when it is due", func(s *suite) {
		was := s.becomesDue(apikey.Sweep, 0)
		r := s.key(was[0].ID)
		postpone := func(due *apikey.Due) {
			s.must(s.Postpone(s.Context(), r, due))
			r.Due = due
			s.holds(r)
		}
		postpone(&apikey.Due{Work: apikey.Deliver, At: was[0].At.Add(2 * time.Second)})
		s.dues(s.dueFrom(was))
		q := s.dueFrom(was)
		q.Work = apikey.Deliver
		s.dues(q, lifecycle.DueKey{At: r.Due.At, ID: r.ID})
		postpone(nil)
		s.dues(q)
		postpone(&apikey.Due{Work: apikey.Sweep, At: was[0].At})
		s.dues(s.dueFrom(was), was...)
	}},
	{"a key that was changed since, or never was, is not postponed", func(s *suite) {
		was := s.becomesDue(apikey.Sweep, 0)
		r := s.key(was[0].ID)
		next := s.update(r, func(r *apikey.Record) { r.Name = "changed" })
		s.wants(s.Postpone(s.Context(), r, nil), lifecycle.ErrChanged)
		s.holds(next)
		unknown := s.minimal()
		s.wants(s.Postpone(s.Context(), unknown, &apikey.Due{Work: apikey.Sweep, At: base}), lifecycle.ErrChanged)
		_, err := s.Key(s.Context(), unknown.ID)
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"a key that is due at another time than was read is not postponed", func(s *suite) {
		was := s.becomesDue(apikey.Sweep, 9)
		r := s.key(was[0].ID)
		hinted := was[0].At.Add(-time.Second)
		s.must(s.Hint(s.Context(), r.ID, r.OrganizationID, hinted))
		s.wants(s.Postpone(s.Context(), r, nil), lifecycle.ErrChanged)
		s.wants(s.Postpone(s.Context(), r, &apikey.Due{Work: apikey.Sweep, At: base}), lifecycle.ErrChanged)
		never := s.create(s.minimal())
		s.must(s.Hint(s.Context(), never.ID, never.OrganizationID, hinted))
		s.wants(s.Postpone(s.Context(), never, nil), lifecycle.ErrChanged)
		r = s.key(r.ID)
		s.must(s.Postpone(s.Context(), r, nil))
	}},
	{"a hint makes a key due for the sweep, and changes nothing else", func(s *suite) {
		for _, due := range []*apikey.Due{nil, {Work: apikey.Sweep, At: base.Add(-time.Hour)}, {Work: apikey.Deliver, At: base.AddDate(9, 0, 0)}} {
			r := s.minimal()
			r.Due = due
			s.create(r)
			s.must(s.Hint(s.Context(), r.ID, r.OrganizationID, base.Add(time.Microsecond)))
			r.Due = &apikey.Due{Work: apikey.Sweep, At: base}
			s.holds(r)
			s.dues(lifecycle.DueQuery{Work: apikey.Sweep, Query: work.Query[lifecycle.DueKey]{Shard: work.ShardOf(s.organization), Limit: 1, Until: base,
				After: lifecycle.DueKey{At: base, ID: r.ID - 1}}}, lifecycle.DueKey{At: base, ID: r.ID})
			s.holds(s.update(r, func(r *apikey.Record) { r.Name = "changed" }))
		}
	}},
	{"a hint at a key that is not there makes none", func(s *suite) {
		id := apikey.NewID()
		s.must(s.Hint(s.Context(), id, s.organization, base))
		_, err := s.Key(s.Context(), id)
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"a change of a key that has used a part of its limit meanwhile which is told of is refused", func(s *suite) {
		for _, day := range []time.Duration{-24 * time.Hour, 0, 24 * time.Hour} { // clocks differ
			r := s.minimal()
			r.DailyLimit = new(int64(5))
			s.create(r)
			for used := range int64(6) { // 4 of 5 are 80 percent
				if used > 0 {
					s.admits(debitOf(&r, base.Add(day)))
				}
				next := r
				next.Version++
				if c := s.updating(next); used == 4 || used == 5 {
					s.changesNothing(lifecycle.ErrChanged, c, s.key(r.ID))
					next.Counts = s.key(r.ID).Counts
				}
				s.must(s.Commit(s.Context(), s.updating(next)))
				if r = s.key(r.ID); r.Counts[apikey.WindowOf(apikey.Day(base.Add(day)))] != used {
					s.Fatalf("the counts are %v, want %d", r.Counts, used)
				}
				if used < 4 {
					r.Counts = nil // as long ago
				}
			}
		}
	}},
	{"a change that is postponed against another version is made all the same", func(s *suite) {
		r := s.key(s.becomesDue(apikey.Sweep, 0)[0].ID)
		s.must(s.Postpone(s.Context(), r, nil))
		s.holds(s.update(r, func(r *apikey.Record) { r.Name = "changed" }))
	}},
	{"a use of a key leaves alone when it is due", func(s *suite) {
		was := s.becomesDue(apikey.Sweep, 0)
		r := s.key(was[0].ID)
		s.admits(debitOf(&r, base))
		s.dues(s.dueFrom(was), was...)
	}},
	{"a silent change leaves no entry, and everything else is made of it", func(s *suite) {
		r, trail := s.create(s.minimal()), s.trail()
		next := r
		next.Version, next.Told.Expiring = 2, 7
		c := s.updating(next)
		c.Silent = true
		s.must(s.Commit(s.Context(), c))
		s.holds(next)
		if now := s.trail(); !slices.Equal(now, trail) {
			s.Fatalf("the trail is %v, want %v", now, trail)
		}
		s.changesNothing(lifecycle.ErrChanged, c, next)
	}},
}

// becomesDue makes keys that are due that many seconds after a time at which nothing else is, and returns them in order.
func (s *suite) becomesDue(work apikey.Work, seconds ...int) (list []lifecycle.DueKey) {
	s.Helper()
	from := time.UnixMilli(rand.Int64N(8e12) + 1e10).UTC()
	for _, n := range seconds {
		r := s.minimal()
		r.Due = &apikey.Due{Work: work, At: from.Add(time.Duration(n) * time.Second)}
		s.must(s.Commit(s.Context(), lifecycle.Change{Create: &r, Entry: s.entry(&r.ID, audit.Created)}))
		list = append(list, lifecycle.DueKey{At: r.Due.At, ID: r.ID})
	}
	slices.SortFunc(list, lifecycle.DueKey.Compare)
	return list
}

// dueFrom asks the part of the test's organization for all that is due from the first of them to an hour later.
func (s *suite) dueFrom(list []lifecycle.DueKey) lifecycle.DueQuery {
	return lifecycle.DueQuery{Work: apikey.Sweep, Query: work.Query[lifecycle.DueKey]{Shard: work.ShardOf(s.organization), Limit: 1000,
		After: lifecycle.DueKey{At: list[0].At.Add(-time.Millisecond)}, Until: list[0].At.Add(time.Hour)}}
}

func (s *suite) page(q lifecycle.DueQuery) []lifecycle.DueKey {
	s.Helper()
	page, err := s.Due(s.Context(), q)
	s.must(err)
	return page
}

func (s *suite) dues(q lifecycle.DueQuery, want ...lifecycle.DueKey) {
	s.Helper()
	if got := s.page(q); !slices.Equal(got, want) {
		s.Fatalf("due are %v, want %v", got, want)
	}
}
