package storetest

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

var organizationTests = []test{
	{"an organization comes back as it was", func(s *suite) {
		for n, o := range []lifecycle.Organization{
			{},
			{Plan: "team", ClaimedPlan: "pro", AllowedScopes: []string{"b:*", "a:read", "b:*"}, ActiveKeys: 3},
			{Plan: "team", AllowedScopes: []string{}},
			{ClaimedPlan: "pro", ActiveKeys: math.MaxInt64},
		} {
			o.ID, o.CreatedAt, o.Version = fmt.Sprint(s.organization, "+", n), base.Add(time.Millisecond), 1
			s.must(s.put(o))
			s.is(o)
		}
	}},
	{"an unknown organization is not found", func(s *suite) {
		_, err := s.Organization(s.Context(), s.organization+"+2")
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"every field can be set, changed and unset again", func(s *suite) {
		o := s.owner()
		for _, next := range []lifecycle.Organization{
			{}, {Plan: "team"}, {AllowedScopes: []string{}}, {ClaimedPlan: "pro", AllowedScopes: []string{"orders:*"}}, {},
		} {
			next.ID, next.CreatedAt, next.Version = o.ID, o.CreatedAt.Add(time.Second), o.Version+1
			s.must(s.put(next))
			s.is(next)
			o = next
		}
	}},
	{"an organization is put at the version after the one that is stored, or at 1, and at no other", func(s *suite) {
		o, trail := s.owner(), s.trail()
		for _, version := range []int64{-1, 0, 1, 3} {
			wrong := lifecycle.Organization{ID: o.ID, Plan: "other", CreatedAt: base, Version: version}
			s.wants(s.put(wrong), lifecycle.ErrChanged)
			s.is(o)
		}
		for _, version := range []int64{-1, 0, 2} {
			unknown := lifecycle.Organization{ID: o.ID + "+2", Plan: "other", CreatedAt: base, Version: version}
			s.wants(s.put(unknown), lifecycle.ErrChanged)
			_, err := s.Organization(s.Context(), unknown.ID)
			s.wants(err, lifecycle.ErrNotFound)
		}
		if now := s.trail(); !slices.Equal(now, trail) {
			s.Fatalf("the trail is %v, want %v as before", now, trail)
		}
		o.Version, o.Plan = 2, "team"
		s.must(s.put(o))
		s.wants(s.put(o), lifecycle.ErrChanged)
		s.is(o)
		if now := s.trail(); len(now) != len(trail)+1 {
			s.Fatalf("one put left %d entries", len(now)-len(trail))
		}
	}},
	{"a put under an entry that exists changes nothing", func(s *suite) {
		o, e := s.owner(), s.entry(nil, audit.OrgCreated)
		s.must(s.Commit(s.Context(), lifecycle.Change{Entry: e}))
		next := o
		next.Version, next.Plan = 2, "other"
		s.wants(s.PutOrganization(s.Context(), next, e), lifecycle.ErrChanged)
		s.is(o)
	}},
	{"a put leaves the count of active keys alone", func(s *suite) {
		r := s.minimal()
		s.must(s.Commit(s.Context(), s.counting(r, 1)))
		o := s.owner()
		for _, claimed := range []int64{0, 99} {
			o.Version, o.ActiveKeys = o.Version+1, claimed
			s.must(s.put(o))
			if n := s.activeKeys(); n != 1 {
				s.Fatalf("a put with %d active keys left %d, want 1 as before", claimed, n)
			}
		}
	}},
	{"of racing puts at one version exactly one wins", func(s *suite) {
		for version, id := range map[int64]string{1: s.organization + "+2", 2: s.organization} {
			errs := race(8, func(i int) error {
				o := lifecycle.Organization{ID: id, Plan: fmt.Sprint(i), CreatedAt: base, Version: version}
				return settled(func() error { return s.put(o) })
			})
			if n := s.won(errs, lifecycle.ErrChanged); n != 1 {
				s.Fatalf("%d puts at version %d won", n, version)
			}
			o, err := s.Organization(s.Context(), id)
			s.must(err)
			if o.Version != version || errs[o.Plan[0]-'0'] != nil {
				s.Fatalf("the organization is that of put %s, which lost", o.Plan)
			}
		}
	}},
	{"a key is counted at the organization's version alone", func(s *suite) {
		r := s.minimal()
		s.must(s.put(lifecycle.Organization{ID: s.organization, Plan: "other", CreatedAt: base, Version: 2}))
		s.changesNothing(lifecycle.ErrCount, s.counting(r, 1))
		s.changesNothing(lifecycle.ErrCount, s.counting(r, 3))
		s.must(s.Commit(s.Context(), s.counting(r, 2)))
		s.must(s.Commit(s.Context(), s.counting(s.minimal(), 2))) // counting is no change of version
		if n := s.activeKeys(); n != 2 {
			s.Fatalf("%d keys are counted, want 2", n)
		}
	}},
	{"no count is lost while the organization is put again and again", func(s *suite) {
		const each = 12
		errs := race(4, func(i int) error {
			for range each {
				if err := s.countOrPut(i%2 == 0); err != nil {
					return err
				}
			}
			return nil
		})
		s.won(errs, nil)
		if o := s.owner(); o.ActiveKeys != 2*each || o.Version != 1+2*each {
			s.Fatalf("after %d counts and %d puts: %d active keys, version %d", 2*each, 2*each, o.ActiveKeys, o.Version)
		}
	}},
	{"a stored organization does not change with the caller's copy", func(s *suite) {
		o := s.owner()
		o.Version, o.AllowedScopes = 2, []string{"a", "b"}
		s.must(s.put(o))
		o.AllowedScopes[0], s.owner().AllowedScopes[1] = "changed", "changed"
		if got := s.owner().AllowedScopes; !slices.Equal(got, []string{"a", "b"}) {
			s.Fatalf("a caller's copy changed the stored scopes: %v", got)
		}
	}},
}

func (s *suite) put(o lifecycle.Organization) error {
	return s.PutOrganization(s.Context(), o, s.entry(nil, audit.OrgCreated))
}

// is demands that an organization is exactly this; no scopes are not the deployment's default.
func (s *suite) is(want lifecycle.Organization) {
	s.Helper()
	got, err := s.Organization(s.Context(), want.ID)
	s.must(err)
	if !reflect.DeepEqual(got, want) {
		s.Fatalf("got %#v, want %#v", got, want)
	}
}

// counting is the Change that creates r and counts it in the organization at a version.
func (s *suite) counting(r apikey.Record, version int64) lifecycle.Change {
	return lifecycle.Change{Create: &r, Entry: s.entry(&r.ID, audit.Created),
		Count: &lifecycle.Count{OrganizationID: s.organization, Delta: 1, Version: version, Max: math.MaxInt64}}
}

// countOrPut does one of them, reading the organization again until it wins.
func (s *suite) countOrPut(count bool) error {
	r := s.minimal()
	for {
		o, err := s.Organization(s.Context(), s.organization)
		if err != nil {
			return err
		}
		if count {
			err = s.Commit(s.Context(), s.counting(r, o.Version))
		} else {
			o.Version++
			err = s.put(o)
		}
		if !lost(err) {
			return err
		}
	}
}
