package storetest

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

var keyTests = []test{
	{"a fully populated key comes back as it was", func(s *suite) { s.holds(s.create(s.full())) }},
	{"a minimal key comes back as it was", func(s *suite) { s.holds(s.create(s.minimal())) }},
	{"every field can be set, changed and unset again", func(s *suite) {
		empty, full := s.minimal(), s.full()
		empty.ID, empty.KeyPrefix, empty.Hash = full.ID, full.KeyPrefix, full.Hash
		full.Counts, full.LastUsedAt = nil, nil // verifies own these
		s.create(empty)
		full.Version, empty.Version = 2, 3
		s.must(s.Commit(s.Context(), s.updating(full)))
		s.holds(full)
		back := s.updating(empty)
		back.Update[0].Closing = true // as full is
		s.must(s.Commit(s.Context(), back))
		s.holds(empty)
	}},
	{"an unknown key is not found", func(s *suite) {
		_, err := s.Key(s.Context(), apikey.NewID())
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"a stored key does not change with the caller's copy", func(s *suite) {
		r := s.create(s.full())
		for _, mine := range []apikey.Record{r, s.key(r.ID)} {
			mine.Scopes[0], mine.AllowedCIDRs[0], mine.Metadata[1], mine.Counts["m1"] = "changed", "changed", 'x', 1
		}
		if k := s.key(r.ID); k.Scopes[0] == "changed" || k.AllowedCIDRs[0] == "changed" || k.Metadata[1] == 'x' || k.Counts["m1"] == 1 {
			s.Fatalf("a caller's copy changed the stored key: %+v", k)
		}
	}},
	{"where a key's secret rests is kept with it, through every change, until it is unset", func(s *suite) {
		r := s.minimal()
		r.Sealed = &apikey.Sealed{ID: "once#a|b@c", Until: base.Add(24*time.Hour + time.Millisecond)}
		s.create(r)
		s.holds(r)
		s.admits(debitOf(&r, base))
		s.must(s.Close(s.Context(), r.ID, 1, closing))
		r = s.key(r.ID)
		r = s.update(r, func(r *apikey.Record) { r.Name, r.Closing = "changed", nil })
		s.holds(r)
		page, _, err := s.Keys(s.Context(), lifecycle.Query{OrganizationID: s.organization, Limit: 1})
		s.must(err)
		s.same(page[0], r)
		s.holds(s.update(r, func(r *apikey.Record) { r.Sealed = nil }))
	}},
}

var commitTests = []test{
	{"a key's id is created once", func(s *suite) {
		r := s.create(s.minimal())
		again := s.minimal()
		again.ID, again.Name = r.ID, "another"
		s.changesNothing(lifecycle.ErrChanged, lifecycle.Change{Create: &again, Entry: s.entry(&r.ID, audit.Created)}, r)
	}},
	{"an update at another version than the one seen changes nothing", func(s *suite) {
		r := s.create(s.minimal())
		for _, version := range []int64{0, 1, 3} {
			r.Version, r.Name = version, "changed"
			s.changesNothing(lifecycle.ErrChanged, s.updating(r), r)
		}
	}},
	{"an update of an unknown key creates nothing", func(s *suite) {
		for _, version := range []int64{1, 2} {
			r := s.minimal()
			r.Version = version
			s.changesNothing(lifecycle.ErrChanged, s.updating(r))
			_, err := s.Key(s.Context(), r.ID)
			s.wants(err, lifecycle.ErrNotFound)
		}
	}},
	{"of racing updates at one version exactly one wins", func(s *suite) {
		r := s.create(s.minimal())
		errs := race(8, func(i int) error {
			mine := r
			mine.Version, mine.Name = 2, fmt.Sprint(i)
			return settled(func() error { return s.Commit(s.Context(), s.updating(mine)) })
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 {
			s.Fatalf("%d updates won", n)
		}
		if got := s.key(r.ID); errs[got.Name[0]-'0'] != nil {
			s.Fatalf("the key is that of update %s, which lost", got.Name)
		}
	}},
	{"an update keeps counters and last use", func(s *suite) {
		r := s.create(s.minimal())
		d := debitOf(&r, base)
		s.admits(d)
		r = s.update(r, func(r *apikey.Record) {
			r.Name, r.Counts, r.LastUsedAt = "changed", map[apikey.Window]int64{"m1": 5}, nil
		})
		r.Counts, r.LastUsedAt = map[apikey.Window]int64{d.Minute(): 1, d.Day(): 1}, &base
		s.holds(r)
	}},
	{"an update with frozen counters needs them to be as seen", func(s *suite) {
		r := s.create(s.minimal())
		d := debitOf(&r, base)
		minute, day := d.Minute(), d.Day()
		next := func(counts map[apikey.Window]int64) apikey.Record {
			n := r
			n.Version, n.Counts = 2, counts
			return n
		}
		s.changesNothing(lifecycle.ErrChanged, s.updating(next(map[apikey.Window]int64{day: 1}), day), r)
		s.admits(d)
		s.changesNothing(lifecycle.ErrChanged, s.updating(next(nil), day), r)
		s.changesNothing(lifecycle.ErrChanged, s.updating(next(map[apikey.Window]int64{day: 2}), day), r)
		s.changesNothing(lifecycle.ErrChanged, s.updating(next(map[apikey.Window]int64{day: 1, minute: 2}), day, minute), r)
		s.admits(d)
		s.changesNothing(lifecycle.ErrChanged, s.updating(next(map[apikey.Window]int64{day: 1}), day), r)
		s.must(s.Commit(s.Context(), s.updating(next(map[apikey.Window]int64{day: 2, minute: 2}), day, minute, "m1")))
	}},
	{"a change of several keys is made whole or not at all", func(s *suite) {
		a, b, c := s.create(s.minimal()), s.create(s.minimal()), s.minimal()
		change := func(versionOfB int64) lifecycle.Change {
			a, b := a, b
			a.Version, b.Version, a.Name, b.Name = 2, versionOfB, "changed", "changed"
			return lifecycle.Change{Create: &c, Update: []lifecycle.Update{{Record: a}, {Record: b}},
				Count: &lifecycle.Count{OrganizationID: s.organization, Delta: 1, Version: 1, Max: 10}, Entry: s.entry(&c.ID, audit.Rotated)}
		}
		s.changesNothing(lifecycle.ErrChanged, change(5), a, b)
		_, err := s.Key(s.Context(), c.ID)
		s.wants(err, lifecycle.ErrNotFound)
		s.must(s.Commit(s.Context(), change(2)))
		a.Version, b.Version, a.Name, b.Name = 2, 2, "changed", "changed"
		s.holds(a)
		s.holds(b)
		s.holds(c)
		if n := s.activeKeys(); n != 1 {
			s.Fatalf("the organization has %d active keys, want 1", n)
		}
	}},
	{"a count that does not hold leaves no key and no entry", func(s *suite) {
		r := s.minimal()
		change := func(c lifecycle.Count) lifecycle.Change {
			return lifecycle.Change{Create: &r, Count: &c, Entry: s.entry(&r.ID, audit.Created)}
		}
		for name, c := range map[string]lifecycle.Count{
			"another version":     {OrganizationID: s.organization, Delta: 1, Version: 2, Max: 10},
			"a version before it": {OrganizationID: s.organization, Delta: 1, Version: 0, Max: 10},
			"no room":             {OrganizationID: s.organization, Delta: 1, Version: 1, Max: 0},
			"room for one of two": {OrganizationID: s.organization, Delta: 2, Version: 1, Max: 1},
			"no organization":     {OrganizationID: s.organization + "+2", Delta: 1, Version: 1, Max: 10},
			"none to leave":       {OrganizationID: s.organization + "+2", Delta: -1, Version: 1, Max: 10},
		} {
			s.Log(name)
			s.changesNothing(lifecycle.ErrCount, change(c))
			_, err := s.Key(s.Context(), r.ID)
			s.wants(err, lifecycle.ErrNotFound)
		}
		_, err := s.Organization(s.Context(), s.organization+"+2")
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"what someone else changed is told before a plan that is full", func(s *suite) {
		r := s.create(s.minimal())
		full := &lifecycle.Count{OrganizationID: s.organization, Delta: 1, Version: 1, Max: 0}
		again := lifecycle.Change{Create: &r, Count: full, Entry: s.entry(&r.ID, audit.Created)}
		s.changesNothing(lifecycle.ErrChanged, again, r)
		stale := r
		stale.Version = 3
		c := s.updating(stale)
		c.Count = full
		s.changesNothing(lifecycle.ErrChanged, c, r)
	}},
	{"a count is taken up to its bound, without bound, and given back at any version", func(s *suite) {
		for _, step := range []struct {
			count lifecycle.Count
			want  int64
		}{
			{lifecycle.Count{Delta: 2, Version: 1, Max: 2}, 2},
			{lifecycle.Count{Delta: 1, Version: 1, Max: math.MaxInt64}, 3},
			{lifecycle.Count{Delta: -1, Version: 9, Max: 0}, 2},
			{lifecycle.Count{Delta: 0, Version: 9, Max: 0}, 2},
		} {
			r := s.minimal()
			step.count.OrganizationID = s.organization
			s.must(s.Commit(s.Context(), lifecycle.Change{Create: &r, Count: &step.count, Entry: s.entry(&r.ID, audit.Created)}))
			if n := s.activeKeys(); n != step.want {
				s.Fatalf("after %+v the organization has %d active keys, want %d", step.count, n, step.want)
			}
		}
	}},
	{"of 40 racing creations exactly as many win as the plan has room for", func(s *suite) {
		errs := race(40, func(int) error {
			r := s.minimal()
			return settled(func() error {
				return s.Commit(s.Context(), lifecycle.Change{Create: &r, Entry: s.entry(&r.ID, audit.Created),
					Count: &lifecycle.Count{OrganizationID: s.organization, Delta: 1, Version: 1, Max: 10}})
			})
		})
		if n := s.won(errs, lifecycle.ErrCount); n != 10 || s.activeKeys() != 10 {
			s.Fatalf("%d creations won and %d keys are counted, want 10", n, s.activeKeys())
		}
	}},
}

var closing = apikey.Closing{Verb: apikey.CloseRevoke, ActorKind: "user", ActorID: "user_1", RequestID: "req_1"}

var closeTests = []test{
	{"a closing is kept with the key and changes nothing else", func(s *suite) {
		r := s.create(s.minimal())
		s.must(s.Close(s.Context(), r.ID, 1, closing))
		r.Closing = &closing
		s.holds(r)
	}},
	{"a key at another version, closing already or unknown is not closed", func(s *suite) {
		r := s.create(s.minimal())
		s.wants(s.Close(s.Context(), r.ID, 0, closing), lifecycle.ErrChanged)
		s.wants(s.Close(s.Context(), r.ID, 2, closing), lifecycle.ErrChanged)
		s.holds(r)
		s.must(s.Close(s.Context(), r.ID, 1, closing))
		s.wants(s.Close(s.Context(), r.ID, 1, apikey.Closing{Verb: apikey.CloseArchive}), lifecycle.ErrChanged)
		r.Closing = &closing
		s.holds(r)
		unknown := apikey.NewID()
		s.wants(s.Close(s.Context(), unknown, 1, closing), lifecycle.ErrChanged)
		_, err := s.Key(s.Context(), unknown)
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"a closing key is refused as what it is about to be", func(s *suite) {
		states := []func(*apikey.Record){func(*apikey.Record) {}, func(r *apikey.Record) { r.Enabled = false },
			func(r *apikey.Record) { r.ArchivedAt = &base }, func(r *apikey.Record) { r.RevokedAt = &base }}
		for _, verb := range []string{apikey.CloseRevoke, apikey.CloseArchive, apikey.CloseDisable} {
			for _, state := range states {
				r := s.minimal()
				state(&r)
				s.create(r)
				r.Closing = &apikey.Closing{Verb: verb}
				s.must(s.Close(s.Context(), r.ID, 1, *r.Closing))
				d := debitOf(&r, base)
				hot, admitted := s.debit(d)
				if admitted || hot.State != r.State() || verify.Refusal(&hot, &d) == apikey.Valid {
					s.Fatalf("admitted: %v, and shown as %s, want %s", admitted, hot.State, r.State())
				}
				s.holds(r)
			}
		}
	}},
	{"a change that was decided before the closing, or without it, changes nothing", func(s *suite) {
		r := s.create(s.minimal())
		next := r
		next.Version++
		c := s.updating(next)
		c.Update[0].Closing = true
		s.changesNothing(lifecycle.ErrChanged, c, r)
		s.must(s.Close(s.Context(), r.ID, 1, closing))
		r.Closing = &closing
		s.changesNothing(lifecycle.ErrChanged, s.updating(next), r)
	}},
	{"the next change ends the closing, or sets another", func(s *suite) {
		r := s.create(s.minimal())
		s.must(s.Close(s.Context(), r.ID, 1, closing))
		r.Closing = &closing
		r = s.update(r, func(r *apikey.Record) { r.Closing = &apikey.Closing{Verb: apikey.CloseArchive} })
		s.holds(r)
		s.refuses(debitOf(&r, base), apikey.ArchivedKey)
		r = s.update(r, func(r *apikey.Record) { r.Closing = nil })
		s.holds(r)
		s.admits(debitOf(&r, base))
	}},
}

var listTests = []test{
	{"a list is newest first, ties by falling id, and pages meet without gap or overlap", func(s *suite) {
		var want []lifecycle.Position
		for i := range 12 {
			r := s.minimal()
			r.CreatedAt = base.Add(time.Duration(i/4) * time.Millisecond)
			want = append(want, lifecycle.PositionOf(new(s.create(r))))
		}
		slices.SortFunc(want, inOrder)
		for _, limit := range []int{1, 5, 11, 12, 13, 5000} {
			s.lists(lifecycle.Query{OrganizationID: s.organization, Limit: limit}, want)
		}
	}},
	{"a list has its own organization's and project's keys alone, ended or not", func(s *suite) {
		other := &suite{s.T, s.Store, s.organization + "+2"}
		other.addOrganization(other.organization)
		want := map[string][]lifecycle.Position{}
		for _, owner := range []*suite{s, other} {
			for _, project := range []string{"a", "b", "ended"} {
				for n, end := range []func(*apikey.Record){nil, func(r *apikey.Record) { r.ArchivedAt = &base }, func(r *apikey.Record) { r.RevokedAt = &base }} {
					r := owner.minimal()
					r.ProjectID, r.CreatedAt = project, base.Add(time.Duration(n)*time.Second)
					owner.create(r)
					if end != nil {
						r = owner.update(r, end)
					}
					side := map[bool]lifecycle.Side{false: lifecycle.Living, true: lifecycle.Ended}[r.Ended()]
					for _, list := range []string{owner.organization, owner.organization + "#" + project} {
						for _, side := range []lifecycle.Side{side, lifecycle.Both} {
							name := fmt.Sprint(list, " side ", side)
							want[name] = append(want[name], lifecycle.PositionOf(&r))
						}
					}
				}
			}
		}
		for _, side := range []lifecycle.Side{lifecycle.Living, lifecycle.Ended, lifecycle.Both} {
			for _, owner := range []*suite{s, other} {
				q := lifecycle.Query{OrganizationID: owner.organization, Side: side, Limit: 4}
				s.lists(q, want[fmt.Sprint(q.OrganizationID, " side ", side)])
				for _, q.ProjectID = range []string{"a", "b", "ended"} {
					s.lists(q, want[fmt.Sprint(q.OrganizationID, "#", q.ProjectID, " side ", side)])
				}
				q.ProjectID = "unknown"
				s.lists(q, nil)
			}
		}
	}},
	{"both sides are one list, whatever their mixture and the page's length", func(s *suite) {
		var want []lifecycle.Position
		for i, ended := range []bool{false, true, true, true, false, false, true, false, true, true, true, true} {
			r := s.minimal()
			r.CreatedAt = base.Add(time.Duration(i/2) * time.Millisecond)
			if ended {
				r.ArchivedAt = &base
			}
			want = append(want, lifecycle.PositionOf(new(s.create(r))))
		}
		for limit := 1; limit <= len(want)+1; limit++ {
			s.lists(lifecycle.Query{OrganizationID: s.organization, Side: lifecycle.Both, Limit: limit}, want)
		}
	}},
	{"keys that change sides between pages of both neither repeat nor hide others", func(s *suite) {
		var keys []apikey.Record
		for i := range 8 { // keys[0] is the newest
			r := s.minimal()
			r.CreatedAt = base.Add(-time.Duration(i) * time.Second)
			if i%2 == 1 {
				r.ArchivedAt = &base
			}
			keys = append(keys, s.create(r))
		}
		q := lifecycle.Query{OrganizationID: s.organization, Side: lifecycle.Both, Limit: 3}
		first, more, err := s.Keys(s.Context(), q)
		s.must(err)
		if len(first) != 3 || !more {
			s.Fatalf("got %d keys, more: %v", len(first), more)
		}
		for _, i := range []int{0, 2, 4, 6} {
			s.update(keys[i], func(r *apikey.Record) { r.ArchivedAt = &base })
		}
		for _, i := range []int{1, 3, 5} {
			s.update(keys[i], func(r *apikey.Record) { r.ArchivedAt = nil })
		}
		q.Before = lifecycle.PositionOf(&first[2])
		s.lists(q, positions(keys[3:]...))
	}},
	{"a listed key is all that is known of it", func(s *suite) {
		r := s.full()
		s.create(r)
		page, more, err := s.Keys(s.Context(), lifecycle.Query{OrganizationID: s.organization, Side: lifecycle.Ended, Limit: 1})
		s.must(err)
		if len(page) != 1 || more {
			s.Fatalf("got %d keys, more: %v", len(page), more)
		}
		s.same(page[0], r)
	}},
	{"a list shows state, limits and last use as they are now", func(s *suite) {
		r := s.create(s.minimal())
		s.admits(debitOf(&r, base))
		r = s.update(r, func(r *apikey.Record) { r.Enabled, r.DailyLimit = false, new(int64(3)) })
		s.must(s.Close(s.Context(), r.ID, 2, closing))
		page, _, err := s.Keys(s.Context(), lifecycle.Query{OrganizationID: s.organization, Limit: 10})
		s.must(err)
		if len(page) != 1 {
			s.Fatalf("got %d keys", len(page))
		}
		s.same(page[0], s.key(r.ID))
	}},
	{"keys that come and go between pages neither repeat nor hide others", func(s *suite) {
		var keys []apikey.Record
		for i := range 6 { // keys[0] is the newest
			r := s.minimal()
			r.CreatedAt = base.Add(-time.Duration(i) * time.Second)
			keys = append(keys, s.create(r))
		}
		q := lifecycle.Query{OrganizationID: s.organization, Limit: 2}
		first, more, err := s.Keys(s.Context(), q)
		s.must(err)
		if len(first) != 2 || !more {
			s.Fatalf("got %d keys, more: %v", len(first), more)
		}
		newer := s.minimal()
		newer.CreatedAt = base.Add(time.Second)
		s.create(newer)
		s.update(keys[1], func(r *apikey.Record) { r.RevokedAt = &base }) // the last one of the page that was read
		s.update(keys[3], func(r *apikey.Record) { r.RevokedAt = &base })
		q.Before = lifecycle.PositionOf(&first[1])
		s.lists(q, positions(keys[2], keys[4], keys[5]))
	}},
}

func inOrder(a, b lifecycle.Position) int {
	switch {
	case a.After(b):
		return 1
	case b.After(a):
		return -1
	}
	return 0
}

func positions(records ...apikey.Record) (all []lifecycle.Position) {
	for i := range records {
		all = append(all, lifecycle.PositionOf(&records[i]))
	}
	return all
}

// lists reads all pages of q and demands these places, in the order of lists.
func (s *suite) lists(q lifecycle.Query, want []lifecycle.Position) {
	s.Helper()
	var got []lifecycle.Position
	for more := true; more; {
		page, m, err := s.Keys(s.Context(), q)
		s.must(err)
		if len(page) > q.Limit || m && len(page) == 0 {
			s.Fatalf("a page of %d keys with limit %d, more: %v", len(page), q.Limit, m)
		}
		if len(got) > len(want) {
			s.Fatalf("%+v lists %d keys and more, want %d", q, len(got), len(want))
		}
		if got, more = append(got, positions(page...)...), m; more {
			q.Before = got[len(got)-1]
		}
	}
	want = slices.SortedFunc(slices.Values(want), inOrder)
	if !slices.EqualFunc(got, want, func(a, b lifecycle.Position) bool { return a.ID == b.ID && a.CreatedAt.Equal(b.CreatedAt) }) {
		s.Fatalf("%+v lists\n%v, want\n%v", q, got, want)
	}
}
