package storetest

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

var auditTests = []test{
	{"an entry comes back as it was", func(s *suite) {
		r := s.minimal()
		e := audit.Entry{ID: audit.NewID(base.Add(time.Hour)), OrganizationID: s.organization, At: base.Add(time.Millisecond),
			Action: audit.Rotated, ActorKind: "key", ActorID: "key_1", Address: "2001:db8::1", RequestID: "req_1", KeyID: &r.ID,
			Changes: []audit.Change{{Field: "name", From: json.RawMessage("null"), To: json.RawMessage(`"ü"`)},
				{Field: "scopes", From: json.RawMessage(`["a"]`), To: json.RawMessage("[]")}}}
		s.must(s.Commit(s.Context(), lifecycle.Change{Create: &r, Entry: e}))
		entries, more, err := s.Entries(s.Context(), lifecycle.EntryQuery{OrganizationID: s.organization, Limit: 2})
		s.must(err)
		if len(entries) != 2 || more || !reflect.DeepEqual(entries[0], e) {
			s.Fatalf("got %+v, more: %v, want %+v first", entries, more, e)
		}
	}},
	{"the trail is read newest first, in pages, by its organization alone", func(s *suite) {
		other := &suite{s.T, s.Store, s.organization + "+2"}
		other.addOrganization(other.organization)
		r := s.create(s.minimal())
		want := s.trail()
		for i := range 6 {
			e := s.entry(&r.ID, audit.Disabled)
			e.ID = audit.NewID(base.Add(time.Duration(10-i) * time.Hour)) // written in the other order
			r.Version++
			s.must(s.Commit(s.Context(), lifecycle.Change{Update: []lifecycle.Update{{Record: r}}, Entry: e}))
			want = append(want, e.ID)
		}
		slices.Sort(want)
		if got := s.trail(); !slices.Equal(got, want) {
			s.Fatalf("the trail is %v, want %v", got, want)
		}
		var paged []string
		for more := true; more; {
			var page []audit.Entry
			var err error
			page, more, err = s.Entries(s.Context(), lifecycle.EntryQuery{OrganizationID: s.organization, Before: last(paged), Limit: 3})
			s.must(err)
			for _, e := range page {
				paged = append(paged, e.ID)
			}
		}
		slices.Reverse(want)
		if !slices.Equal(paged, want) {
			s.Fatalf("in pages the trail is %v, want %v", paged, want)
		}
	}},
	{"a page lies between its ends, which are not in it, and says exactly whether there is more", func(s *suite) {
		for range 5 {
			s.must(s.Commit(s.Context(), lifecycle.Change{Entry: s.entry(nil, audit.Created)}))
		}
		ids := s.trail() // with the one of the organization's creation
		slices.Reverse(ids)
		ends := append([]string{"", "0", "ZZZZ", ids[2] + "x", ids[2][:25]}, ids...)
		for _, after := range ends {
			for _, before := range ends {
				want := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id <= after || before != "" && id >= before })
				for limit := 1; limit <= 7; limit++ {
					s.reads(lifecycle.EntryQuery{OrganizationID: s.organization, After: after, Before: before, Limit: limit}, want)
				}
			}
		}
		s.reads(lifecycle.EntryQuery{OrganizationID: s.organization + "+2", Limit: 1}, nil)
	}},
	{"a long trail is read whole, in few pages or in many", func(s *suite) {
		const many = 2100
		var mu sync.Mutex
		ids := s.trail()
		errs := race(8, func(i int) error {
			for n := i; n < many; n += 8 {
				e := s.entry(nil, audit.Created)
				e.Address = strings.Repeat("x", 500) // so that one answer of DynamoDB, at most a megabyte, holds not all
				if err := s.Commit(s.Context(), lifecycle.Change{Entry: e}); err != nil {
					return err
				}
				mu.Lock()
				ids = append(ids, e.ID)
				mu.Unlock()
			}
			return nil
		})
		s.won(errs, nil)
		slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
		for _, limit := range []int{many + 1, many, 1000, 999} {
			q := lifecycle.EntryQuery{OrganizationID: s.organization, Limit: limit}
			for rest := ids; len(rest) > 0; rest = rest[min(limit, len(rest)):] {
				s.reads(q, rest)
				q.Before = rest[min(limit, len(rest))-1]
			}
			s.reads(q, nil)
		}
	}},
	{"an entry is never replaced: a change under its id changes nothing", func(s *suite) {
		r, e := s.minimal(), s.entry(nil, audit.Created)
		s.must(s.Commit(s.Context(), lifecycle.Change{Create: &r, Entry: e}))
		next := r
		next.Version, next.Name, e.Action = 2, "changed", audit.Revoked
		s.changesNothing(lifecycle.ErrChanged, lifecycle.Change{Update: []lifecycle.Update{{Record: next}}, Entry: e}, r)
		entries, _, err := s.Entries(s.Context(), lifecycle.EntryQuery{OrganizationID: s.organization, Limit: 10})
		s.must(err)
		if slices.ContainsFunc(entries, func(e audit.Entry) bool { return e.Action == audit.Revoked }) {
			s.Fatalf("the trail is now %+v", entries)
		}
	}},
	{"every change leaves exactly one entry, in racing as in peace", func(s *suite) {
		r := s.create(s.minimal())
		errs := race(6, func(int) error {
			mine := r
			mine.Version = 2
			return settled(func() error { return s.Commit(s.Context(), s.updating(mine)) })
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 || len(s.trail()) != 3 {
			s.Fatalf("%d updates won and left %d entries, want 1 and 3", n, len(s.trail()))
		}
	}},
}

// reads demands that the first page of q holds the first of want, and knows whether those are all.
func (s *suite) reads(q lifecycle.EntryQuery, want []string) {
	s.Helper()
	page, more, err := s.Entries(s.Context(), q)
	s.must(err)
	got := make([]string, len(page))
	for i := range page {
		got[i] = page[i].ID
	}
	if !slices.Equal(got, want[:min(len(want), q.Limit)]) || more != (len(want) > q.Limit) {
		s.Fatalf("%+v reads %d entries, more: %v\n%v, want the first of %d\n%v", q, len(got), more, got, len(want), want)
	}
}

func last(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[len(s)-1]
}
