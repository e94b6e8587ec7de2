package storetest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

var chainTests = []test{
	{"the first link begins at the root, and each next one at the hash before", func(s *suite) {
		entries := s.happened(3)
		first := s.appends(entries[:2])
		next := s.appends(entries[2:])
		links := append(first, next...)
		if links[0].Previous != audit.Root {
			s.Errorf("the first begins at %s", links[0].Previous)
		}
		s.chained(entries...)
		if got := s.links(); !slices.Equal(got, links) {
			s.Errorf("the chain reads\n%v, and was told as\n%v", got, links)
		}
	}},
	{"the order given is kept, whatever the ids say", func(s *suite) {
		entries := s.happened(90)
		slices.Reverse(entries)
		s.appends(entries)
		s.chained(entries...)
	}},
	{"an entry is linked once: given again, it comes back with the link that it has", func(s *suite) {
		entries := s.happened(5)
		links := s.appends(entries[:3])
		if again := s.appends(entries[:3]); !slices.Equal(again, links) {
			s.Errorf("again it is %v, want %v", again, links)
		}
		// Old and new ones, twice, in another order: what comes back has the order of what was given.
		mixed := []audit.Entry{entries[4], entries[1], entries[4], entries[3], entries[0]}
		got := s.appends(mixed)
		if sequences := []int64{4, 2, 4, 5, 1}; !slices.EqualFunc(got, sequences, func(l audit.Link, n int64) bool { return l.Sequence == n }) {
			s.Errorf("got %v", got)
		}
		s.chained(entries[0], entries[1], entries[2], entries[4], entries[3])
	}},
	{"nothing is linked for nothing", func(s *suite) {
		if got, err := s.Append(s.Context(), s.organization, nil); err != nil || len(got) != 0 {
			s.Errorf("got %v, %v", got, err)
		}
		s.chained()
	}},
	{"an entry of another organization is refused, and nothing is linked", func(s *suite) {
		entries := s.happened(2)
		entries[1].OrganizationID += "+2"
		if _, err := s.Append(s.Context(), s.organization, entries[1:]); err == nil {
			s.Error("it was linked")
		}
		s.chained()
	}},
	{"organizations have chains of their own", func(s *suite) {
		other := &suite{s.T, s.Store, s.organization + "+2"}
		mine, theirs := s.happened(3), other.happened(2)
		theirs[0].ID = mine[0].ID // two that are alike but for whose they are
		s.appends(mine[:1])
		other.appends(theirs)
		s.appends(mine[1:])
		s.chained(mine...)
		other.chained(theirs...)
		for _, l := range other.links() {
			if l.OrganizationID != other.organization {
				s.Errorf("got %+v", l)
			}
		}
	}},
	{"the link of an entry that was read back is that of the entry as it was written", func(s *suite) {
		r := s.create(s.full())
		e := audit.Entry{ID: audit.NewID(base.Add(time.Hour)), OrganizationID: s.organization, At: base.Add(time.Millisecond), Action: audit.Rotated,
			ActorKind: "key", ActorID: "key_1", Address: "2001:db8::1", RequestID: "req_1", KeyID: &r.ID,
			Changes: []audit.Change{{Field: "name", To: json.RawMessage(`"ü<&> "`)}, {Field: "metadata", From: json.RawMessage(`{"b": 1e3, "a": 9007199254740993}`), To: json.RawMessage("{}")}}}
		s.must(s.Commit(s.Context(), lifecycle.Change{Entry: e}))
		want, err := audit.Next(audit.Link{}, e)
		s.must(err)
		entries, _, err := s.Entries(s.Context(), lifecycle.EntryQuery{OrganizationID: s.organization, Limit: 1})
		s.must(err)
		if got := s.appends(entries); got[0] != want {
			s.Errorf("got %+v, want %+v", got[0], want)
		}
	}},
	{"many who link at once leave no gap, no number twice, and every entry linked once", func(s *suite) {
		const many, at = 100, 8
		entries := s.happened(many)
		told := make([][]audit.Linked, at)
		s.won(race(at, func(i int) error {
			for start := i; start < many; start += 10 { // each batch overlaps with those of the others
				batch := entries[start:min(start+25, many)]
				linked, err := s.Append(s.Context(), s.organization, batch)
				if err != nil {
					return err
				}
				told[i] = append(told[i], linked...)
			}
			return nil
		}), nil)
		links := s.links()
		if len(links) != many {
			s.Fatalf("there are %d links, want %d", len(links), many)
		}
		by := s.whole(links, entries)
		for _, all := range told {
			for _, l := range all {
				if by[l.Entry.ID] != l.Link {
					s.Fatalf("somebody was told %+v, and the chain has %+v", l.Link, by[l.Entry.ID])
				}
			}
		}
	}},
	{"who stops on the way leaves a chain that the next one goes on with", func(s *suite) {
		entries := s.happened(130)
		for _, n := range []int{1, 40, 41, 85} {
			s.appends(entries[:n])
			s.chained(entries[:n]...)
		}
		s.appends(entries)
		s.chained(entries...)
	}},
	{"the chain is read in pages that know exactly whether there is more", func(s *suite) {
		entries := s.happened(7)
		all := s.appends(entries)
		for limit := 1; limit <= 8; limit++ {
			for after := int64(-1); after <= 9; after++ {
				page, more, err := s.Links(s.Context(), s.organization, after, limit)
				s.must(err)
				want := all[min(max(after, 0), 7):]
				if !slices.Equal(page, want[:min(limit, len(want))]) || more != (len(want) > limit) {
					s.Fatalf("after %d by %d: %d links, more: %v", after, limit, len(page), more)
				}
			}
		}
		if page, more, err := s.Links(s.Context(), s.organization, 1<<63-1, 1); err != nil || len(page) != 0 || more {
			s.Errorf("after the last number there is: %v, %v, %v", page, more, err)
		}
	}},
	{"a long chain is read whole", func(s *suite) {
		entries := s.happened(1100)
		links := s.appends(entries)
		for _, limit := range []int{1101, 1100, 1000} {
			page, more, err := s.Links(s.Context(), s.organization, 0, limit)
			s.must(err)
			if !reflect.DeepEqual(page, links[:min(limit, 1100)]) || more != (limit < 1100) {
				s.Fatalf("by %d: %d links, more: %v", limit, len(page), more)
			}
		}
	}},
}

// happened is entries of the test's organization, which only Append is told of.
func (s *suite) happened(n int) []audit.Entry {
	entries := make([]audit.Entry, n)
	for i := range entries {
		at := base.Add(time.Duration(i) * time.Second)
		entries[i] = audit.Entry{ID: audit.NewID(at), OrganizationID: s.organization, At: at, Action: audit.Created, RequestID: fmt.Sprint(i)}
	}
	return entries
}

// appends links entries, and demands that each comes back, in the order given.
func (s *suite) appends(entries []audit.Entry) []audit.Link {
	s.Helper()
	linked, err := s.Append(s.Context(), s.organization, entries)
	s.must(err)
	if len(linked) != len(entries) {
		s.Fatalf("%d of %d came back", len(linked), len(entries))
	}
	links := make([]audit.Link, len(linked))
	for i, l := range linked {
		if links[i] = l.Link; !reflect.DeepEqual(l.Entry, entries[i]) || l.Link.EntryID != l.Entry.ID {
			s.Fatalf("as number %d came %+v", i, l)
		}
	}
	return links
}

// links is the chain of the test's organization.
func (s *suite) links() (all []audit.Link) {
	s.Helper()
	for more := true; more; {
		var page []audit.Link
		var err error
		page, more, err = s.Links(s.Context(), s.organization, int64(len(all)), 300)
		s.must(err)
		all = append(all, page...)
	}
	return all
}

// chained demands that the chain links exactly these entries, in this order.
func (s *suite) chained(entries ...audit.Entry) {
	s.Helper()
	links := s.links()
	s.whole(links, entries)
	if !slices.EqualFunc(links, entries, func(l audit.Link, e audit.Entry) bool { return l.EntryID == e.ID }) {
		s.Fatalf("the chain links %v", links)
	}
}

// whole demands that links are those that Next makes of some of the entries, and returns them by their entries.
func (s *suite) whole(links []audit.Link, entries []audit.Entry) map[string]audit.Link {
	s.Helper()
	of := map[string]audit.Entry{}
	for _, e := range entries {
		of[e.ID] = e
	}
	by := map[string]audit.Link{}
	var head audit.Link
	for _, l := range links {
		next, err := audit.Next(head, of[l.EntryID])
		s.must(err)
		if _, twice := by[l.EntryID]; twice || next != l {
			s.Fatalf("behind %+v stands %+v, want %+v", head, l, next)
		}
		by[l.EntryID], head = l, next
	}
	return by
}
