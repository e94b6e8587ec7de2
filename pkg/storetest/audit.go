package storetest

import (
	"encoding/json"
	"reflect"
	"slices"
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

func last(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[len(s)-1]
}
