package storetest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"reflect"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

var replayTests = []test{
	{"a kept answer comes back byte for byte", func(s *suite) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		for _, content := range [][]byte{{0}, {0, 0, 0}, every, bytes.Repeat(every, 64), {}} {
			kept := s.answer()
			kept.Fingerprint, kept.Sealed = content, content
			s.keep(kept)
			s.keeps(kept)
		}
		destroyed := s.answer()
		destroyed.Sealed = nil
		s.keep(destroyed)
		s.keeps(destroyed)
	}},
	{"an answer that was not kept is not found", func(s *suite) { s.forgot(s.answer().ID) }},
	{"a kept answer does not change with the caller's copy", func(s *suite) {
		kept := s.answer()
		mine := kept
		mine.Fingerprint, mine.Sealed = bytes.Clone(kept.Fingerprint), bytes.Clone(kept.Sealed)
		s.keep(mine)
		got := s.replay(kept.ID)
		mine.Fingerprint[0], mine.Sealed[0], got.Fingerprint[1], got.Sealed[1] = 'x', 'x', 'x', 'x'
		s.keeps(kept)
	}},
	{"a second answer under one id is refused, and nothing else of its change is done", func(s *suite) {
		other, kept := s.create(s.minimal()), s.answer()
		s.keep(kept)
		second := s.answer()
		second.ID = kept.ID
		for _, now := range []time.Time{base, kept.Until.Add(-time.Millisecond), base.Add(-time.Hour)} {
			next := other
			next.Version, next.Name = 2, "changed"
			c := s.making(second, now)
			c.Update = []lifecycle.Update{{Record: next}}
			s.changesNothing(lifecycle.ErrChanged, c, other)
			_, err := s.Key(s.Context(), second.KeyID)
			s.wants(err, lifecycle.ErrNotFound)
			s.keeps(kept)
		}
	}},
	{"a second answer is told before a plan that is full", func(s *suite) {
		kept := s.answer()
		s.keep(kept)
		c := s.making(kept, base)
		c.Count.Max = 0
		s.changesNothing(lifecycle.ErrChanged, c)
	}},
	{"an answer whose time is over is replaced whole", func(s *suite) {
		kept := s.answer()
		s.keep(kept)
		for _, late := range []time.Duration{0, time.Hour} {
			next, now := s.answer(), kept.Until.Add(late)
			next.ID, next.Until, next.Fingerprint = kept.ID, now.Add(24*time.Hour), []byte{9}
			s.must(s.Commit(s.Context(), s.making(next, now)))
			s.keeps(next)
			kept = next
		}
	}},
	{"an answer is kept in the change's own transaction or not at all", func(s *suite) {
		kept := s.answer()
		c := s.making(kept, base)
		c.Count.Max = 0
		s.changesNothing(lifecycle.ErrCount, c)
		s.forgot(kept.ID)
	}},
	{"of 20 racing changes that keep one answer exactly one wins", func(s *suite) {
		kept := s.answer()
		errs := race(20, func(i int) error {
			mine := kept
			mine.KeyID, mine.Sealed = apikey.NewID(), []byte{byte(i)}
			c := s.making(mine, base)
			return settled(func() error { return s.Commit(s.Context(), c) })
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 || s.activeKeys() != 1 {
			s.Fatalf("%d changes won and %d keys are counted, want 1", n, s.activeKeys())
		}
		got := s.replay(kept.ID)
		if errs[got.Sealed[0]] != nil {
			s.Fatalf("the answer is that of change %d, which lost", got.Sealed[0])
		}
		s.key(got.KeyID)
	}},
	{"of 20 racing changes that replace an answer exactly one wins", func(s *suite) {
		kept := s.answer()
		s.keep(kept)
		now := kept.Until
		errs := race(20, func(int) error {
			mine := kept
			mine.KeyID, mine.Until = apikey.NewID(), now.Add(time.Hour)
			return settled(func() error { return s.Commit(s.Context(), s.making(mine, now)) })
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 {
			s.Fatalf("%d changes won", n)
		}
	}},
	{"a destroyed answer keeps all but its secret, and its id stays taken until its time", func(s *suite) {
		kept := s.answer()
		s.keep(kept)
		for range 2 { // again is no error
			s.must(s.Commit(s.Context(), s.destroying(kept)))
			kept.Sealed = nil
			s.keeps(kept)
		}
		next := s.answer()
		next.ID = kept.ID
		s.changesNothing(lifecycle.ErrChanged, s.making(next, kept.Until.Add(-time.Millisecond)))
		next.Until = kept.Until.Add(time.Hour)
		s.must(s.Commit(s.Context(), s.making(next, kept.Until)))
		s.keeps(next)
	}},
	{"destroying what was dropped meanwhile is no error and leaves nothing in the way", func(s *suite) {
		dropped := s.answer()
		s.must(s.Commit(s.Context(), s.destroying(dropped)))
		s.must(s.Commit(s.Context(), s.destroying(dropped)))
		s.forgot(dropped.ID)
		next := s.answer()
		next.ID = dropped.ID
		s.keep(next)
		s.keeps(next)
	}},
	{"destroying what was replaced meanwhile leaves the later answer alone", func(s *suite) {
		kept := s.answer()
		s.keep(kept)
		later := s.answer()
		later.ID, later.Until = kept.ID, kept.Until.Add(24*time.Hour)
		s.must(s.Commit(s.Context(), s.making(later, kept.Until)))
		s.must(s.Commit(s.Context(), s.destroying(kept)))
		s.keeps(later)
	}},
	{"one change destroys several answers, of one id too, and replaces another", func(s *suite) {
		a, b, over := s.answer(), s.answer(), s.answer()
		for _, kept := range []lifecycle.Replay{a, b, over} {
			s.keep(kept)
		}
		next := s.answer()
		next.ID, next.Until = over.ID, over.Until.Add(time.Hour)
		c := s.making(next, over.Until)
		earlier := apikey.Sealed{ID: a.ID, Until: a.Until.Add(-48 * time.Hour)}
		c.Destroy = []apikey.Sealed{earlier, sealedOf(a), sealedOf(b), sealedOf(b), sealedOf(over)}
		s.must(s.Commit(s.Context(), c))
		a.Sealed, b.Sealed = nil, nil
		for _, want := range []lifecycle.Replay{a, b, next} {
			s.keeps(want)
		}
	}},
	{"a revocation, what it destroys and what it keeps are made whole or not at all", func(s *suite) {
		old, kept := s.answer(), s.answer()
		r := s.keep(old)
		next := r
		next.Version, next.RevokedAt, next.Sealed = 2, &base, nil
		change := func(version int64, kept lifecycle.Replay) lifecycle.Change {
			next := next
			next.Version = version
			return lifecycle.Change{Update: []lifecycle.Update{{Record: next}}, Replay: &kept, Destroy: []apikey.Sealed{sealedOf(old)},
				Count: &lifecycle.Count{OrganizationID: s.organization, Delta: -1}, Entry: s.entry(&r.ID, audit.Revoked)}
		}
		s.changesNothing(lifecycle.ErrChanged, change(3, kept), r)
		s.forgot(kept.ID)
		taken := s.answer()
		s.keep(taken)
		s.changesNothing(lifecycle.ErrChanged, change(2, taken), r)
		s.keeps(old)
		s.must(s.Commit(s.Context(), change(2, kept)))
		s.holds(next)
		old.Sealed = nil
		s.keeps(old)
		s.keeps(kept)
	}},
	{"of a revocation that destroys an answer and others that race with it one wins, and its answer holds", func(s *suite) {
		old := s.answer()
		r := s.keep(old)
		errs := race(8, func(i int) error {
			next := r
			next.Version, next.Sealed = 2, nil
			c := s.updating(next)
			if i%2 == 0 {
				c.Destroy = []apikey.Sealed{sealedOf(old)}
			}
			return settled(func() error { return s.Commit(s.Context(), c) })
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 {
			s.Fatalf("%d changes won", n)
		}
		for i, err := range errs {
			if err == nil && i%2 == 0 {
				old.Sealed = nil
			}
		}
		s.keeps(old)
	}},
}

// answer is one of a new key, to be kept for a day from base.
func (s *suite) answer() lifecycle.Replay {
	return lifecycle.Replay{ID: s.organization + "#" + rand.Text(), Fingerprint: []byte{0, 1, 2, 0}, KeyID: apikey.NewID(),
		Sealed: []byte("\x00sealed\xff\x00"), Until: base.Add(24*time.Hour + time.Millisecond)}
}

func sealedOf(r lifecycle.Replay) apikey.Sealed { return apikey.Sealed{ID: r.ID, Until: r.Until} }

// making is the Change of the key that an answer holds, at a moment.
func (s *suite) making(kept lifecycle.Replay, now time.Time) lifecycle.Change {
	r := s.minimal()
	r.ID, r.Sealed = kept.KeyID, &apikey.Sealed{ID: kept.ID, Until: kept.Until}
	c := s.counting(r, 1)
	c.Replay, c.Entry.At = &kept, now
	return c
}

// keep makes the key of an answer.
func (s *suite) keep(kept lifecycle.Replay) apikey.Record {
	s.Helper()
	c := s.making(kept, base)
	s.must(s.Commit(s.Context(), c))
	return *c.Create
}

func (s *suite) destroying(kept lifecycle.Replay) lifecycle.Change {
	return lifecycle.Change{Destroy: []apikey.Sealed{sealedOf(kept)}, Entry: s.entry(&kept.KeyID, audit.Revoked)}
}

// replay reads an answer that must be there.
func (s *suite) replay(id string) lifecycle.Replay {
	s.Helper()
	got, err := s.Replay(s.Context(), id)
	s.must(err)
	return got
}

// keeps demands exactly this answer: an empty one is not a destroyed one.
func (s *suite) keeps(want lifecycle.Replay) {
	s.Helper()
	if got := s.replay(want.ID); !reflect.DeepEqual(got, want) {
		s.Fatalf("got %+v, want %+v", got, want)
	}
}

// forgot demands that no answer is there.
func (s *suite) forgot(id string) {
	s.Helper()
	_, err := s.Replay(s.Context(), id)
	s.wants(err, lifecycle.ErrNotFound)
}

// lost says whether a change met another and may be made again.
func lost(err error) bool {
	return errors.Is(err, lifecycle.ErrChanged) || errors.Is(err, lifecycle.ErrCount) || errors.Is(err, apikey.ErrConflict)
}
