package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
)

// How a rotation goes that nobody asked for by hand:
//
//	             begin                    delivered                     completed
//	  active ─────────────► handing over ───────────► in grace ───────────────────► ended
//	    ▲    the successor   │  the old key's end      │  the old key ends after the cap, or once
//	    │    lives already   │  is untouched           │  its successor is used and it is not
//	    └────────────────────┘ abandoned: nobody took the successor within the window, and none may have: it is revoked
//
// A dead scheduler, a crash or a lost webhook lengthens lives and never cuts one.

const (
	defaultCap    = 7 * 24 * time.Hour // of an old key's life after its successor was delivered
	defaultQuiet  = time.Hour          // without use after which an old key is not needed any more
	defaultWindow = 3 * 24 * time.Hour // in which a successor must be delivered
	claimTime     = time.Minute        // after which an attempt that nobody spoke of again is over
	keepMargin    = 24 * time.Hour     // for which a sealed successor outlives its window
)

// attempts are the waits between attempts of a delivery (Standard Webhooks, "Retry Schedule"), each with up to a tenth more.
var attempts = []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

func (s *Service) quiet() time.Duration  { return cmp.Or(s.Quiet, defaultQuiet) }
func (s *Service) window() time.Duration { return cmp.Or(s.Window, defaultWindow) }
func (s *Service) cap() time.Duration    { return cmp.Or(s.Cap, defaultCap) }

// begin starts the rotation of a key by its schedule: it makes a successor and seals its secret, and leaves the key's end
// alone. A line has at most two live keys: while the key's own predecessor lives, it waits.
func (s *Service) begin(ctx context.Context, r apikey.Record, now time.Time) (Change, error) {
	before, err := s.inGraceBefore(ctx, &r, now)
	if err != nil {
		return Change{}, err
	}
	if before != nil {
		return Change{}, s.later(ctx, r, now.Add(confirms))
	}
	minted := s.Format.Mint(orEmpty(r.EnvironmentID))
	next, _ := successor(&r, minted, now, false)
	until := now.Add(s.window())
	next.Handover = &apikey.Handover{Until: until, Next: now}
	old := r
	old.ReplacedByKeyID, old.NextRotationAt, old.Counted = &next.ID, nil, false
	e, err := entry(owner(&r), now, audit.RotationStarted, &r.Key, old.Key)
	if err != nil {
		return Change{}, err
	}
	c := Change{Entry: e, Update: []Update{{Record: s.stamp(old, e)}}}
	id := handoverID(next.ID)
	sealed, err := s.Seal.Seal(ctx, []byte(minted.Plaintext.Reveal()), id)
	if err != nil {
		return Change{}, unavailable(fmt.Errorf("sealing a successor: %w", err))
	}
	keep := until.Add(keepMargin)
	next.Sealed = &apikey.Sealed{ID: id, Until: keep}
	next = s.stamp(next, e)
	c.Create, c.Replay = &next, &Replay{ID: id, KeyID: next.ID, Sealed: sealed, Until: keep}
	return c, nil
}

// later has a key looked at again at a time.
func (s *Service) later(ctx context.Context, r apikey.Record, at time.Time) error {
	if err := s.Store.Postpone(ctx, r, &apikey.Due{Work: apikey.Sweep, At: at}); err != nil {
		return unavailable(err)
	}
	return errNothingToDo
}

func handoverID(id apikey.ID) string { return "handover-" + id.String() }

// Parcel is a successor on its way to the owner of its predecessor.
type Parcel struct {
	ID        string // the same for every attempt
	Old       apikey.Key
	New       apikey.Issued
	Attempt   int       // from 1 on
	StartedAt time.Time // of the rotation
}

// Attempt is how an attempt to deliver ended.
type Attempt int

// The ends of an attempt.
const (
	Delivered Attempt = iota // acknowledged
	Missed                   // certainly not arrived
	Doubtful                 // not acknowledged, but it may have arrived
)

// Deliver gives each successor whose delivery is due to send, until ctx nears its end or limit were tried, and remembers
// how it went. An attempt is claimed before it is made, so that of several who deliver at once one tries; a claim whose
// attempt nobody spoke of again counts as doubtful. A successor that nobody took within the window is given up.
func (s *Service) Deliver(ctx context.Context, limit int, send func(context.Context, Parcel) Attempt) (Done, error) {
	return s.turns(ctx, apikey.Deliver, limit, func(ctx context.Context, id apikey.ID) error { return s.deliverKey(ctx, id, send) })
}

func (s *Service) deliverKey(ctx context.Context, id apikey.ID, send func(context.Context, Parcel) Attempt) error {
	var parcel *Parcel
	err := s.change(ctx, "", func(ctx context.Context) (c Change, err error) {
		parcel, c, err = s.claim(ctx, id)
		return c, err
	})
	if err != nil || parcel == nil {
		return err
	}
	how := send(ctx, *parcel)
	return s.change(ctx, "", func(ctx context.Context) (Change, error) { return s.attempted(ctx, parcel, how) })
}

// claim decides what is due of a successor that is being handed over: an attempt, which it claims, or to give it up.
func (s *Service) claim(ctx context.Context, id apikey.ID) (*Parcel, Change, error) {
	r, old, err := s.handing(ctx, id)
	if err != nil {
		return nil, Change{}, err
	}
	now, h := s.now(), *r.Handover
	switch {
	case h.Claimed != nil && h.Claimed.After(now), h.Claimed == nil && h.Next.After(now) && h.Until.After(now):
		return nil, Change{}, errNothingToDo
	case h.Claimed != nil: // whoever tried has died
		h.Claimed, h.Doubt = nil, true
	}
	if !h.Until.After(now) {
		c, err := s.giveUp(ctx, r, old, now, h.Doubt)
		return nil, c, err
	}
	text, err := s.unseal(ctx, &r)
	if err != nil {
		return nil, Change{}, err
	}
	h.Attempts++
	h.Claimed, h.Next = new(now.Add(claimTime)), now.Add(wait(h.Attempts))
	next := r
	next.Handover = &h
	c, err := s.tell(r, next, now, audit.Updated)
	c.Silent = true
	return &Parcel{ID: handoverID(id), Old: old.Key.At(now), New: apikey.Issued{Key: r.Key.At(now), Plaintext: text}, Attempt: h.Attempts,
		StartedAt: r.CreatedAt}, c, err
}

// wait is the time until the attempt after the nth.
func wait(n int) time.Duration {
	d := attempts[min(n, len(attempts)-1)]
	return d + rand.N(d/10+1)
}

// handing returns a successor that is being handed over, and its predecessor.
func (s *Service) handing(ctx context.Context, id apikey.ID) (r, old apikey.Record, err error) {
	if r, err = s.Store.Key(ctx, id); err != nil {
		return r, old, unavailable(err)
	}
	if r, err = s.read(ctx, owner(&r), id); err != nil {
		return r, old, err
	}
	if r.Handover == nil || r.RevokedAt != nil || r.Predecessor == nil {
		return r, old, errNothingToDo
	}
	old, err = s.read(ctx, owner(&r), *r.Predecessor)
	return r, old, err
}

func (s *Service) unseal(ctx context.Context, r *apikey.Record) (apikey.Plaintext, error) {
	kept, err := s.Store.Replay(ctx, handoverID(r.ID))
	if err != nil {
		return apikey.Plaintext{}, unavailable(err)
	}
	b, err := s.Seal.Open(ctx, kept.Sealed, handoverID(r.ID))
	if err != nil {
		return apikey.Plaintext{}, unavailable(fmt.Errorf("opening a successor: %w", err))
	}
	return apikey.NewPlaintext(string(b)), nil
}

// attempted decides what an attempt means.
func (s *Service) attempted(ctx context.Context, p *Parcel, how Attempt) (Change, error) {
	r, old, err := s.handing(ctx, p.New.Key.ID)
	if err != nil {
		return Change{}, err
	}
	now := s.now()
	if how == Delivered {
		return s.delivered(r, old, now, audit.Rotated)
	}
	if r.Handover.Attempts != p.Attempt { // another has tried since
		return Change{}, errNothingToDo
	}
	next, h := r, *r.Handover
	h.Claimed, h.Doubt = nil, h.Doubt || how == Doubtful
	next.Handover = &h
	c, err := s.tell(r, next, now, audit.Updated)
	c.Silent = true
	return c, err
}

// delivered ends a handover: the successor's secret is destroyed, and the old key has as long to live as the cap allows.
func (s *Service) delivered(r, old apikey.Record, now time.Time, action audit.Action) (Change, error) {
	next, last := r, old
	destroy := endHandover(&next)
	if last.GraceExpiresAt == nil && last.RevokedAt == nil {
		endGrace(&last.Key, now.Add(s.cap()))
		last.Told.Over, last.Told.Confirm = false, new(now.Add(confirms))
	}
	e, err := entry(owner(&old), now, action, &old.Key, last.Key)
	if err != nil {
		return Change{}, err
	}
	return Change{Entry: e, Destroy: destroy, Update: []Update{{Record: s.stamp(last, e)}, {Record: s.stamp(next, e)}}}, nil
}

// endHandover takes the handover off a key, and returns where its secret rests.
func endHandover(r *apikey.Record) []apikey.Sealed {
	if r.Handover == nil || r.Sealed == nil {
		return nil
	}
	sealed := *r.Sealed
	r.Handover, r.Sealed = nil, nil
	return []apikey.Sealed{sealed}
}

// giveUp ends a handover whose window is over. A successor that may be in someone's hands stays: taking it away could lock
// them out. Otherwise it is revoked, and the old key is as it was.
func (s *Service) giveUp(ctx context.Context, r, old apikey.Record, now time.Time, doubt bool) (Change, error) {
	if doubt || r.LastUsedAt != nil {
		return s.delivered(r, old, now, audit.Rotated)
	}
	e, err := entry(owner(&old), now, audit.RotationAbandoned, &old.Key, restored(&r, old, now).Key)
	if err != nil {
		return Change{}, err
	}
	next := r
	revoke(&next, now, "nobody took it")
	return s.abandon(&r, next, old, now, e)
}

// withdraw ends the handover of a successor that is revoked for another reason.
func (s *Service) withdraw(ctx context.Context, now time.Time, e audit.Entry, was, revoked apikey.Record) (Change, error) {
	old, err := s.read(ctx, owner(&revoked), *revoked.Predecessor)
	if err != nil {
		return Change{}, err
	}
	return s.abandon(&was, revoked, old, now, e)
}

// abandon gives the place of a revoked successor that nobody has back to the old key.
func (s *Service) abandon(was *apikey.Record, revoked, old apikey.Record, now time.Time, e audit.Entry) (Change, error) {
	back := restored(&revoked, old, now)
	c := Change{Entry: e, Destroy: endHandover(&revoked)}
	c.Update = []Update{{Record: s.stamp(revoked, e), Closing: revoked.Closing != nil}, {Record: s.stamp(back, e)}}
	if was.Counted && !back.Counted {
		c.Count = &Count{OrganizationID: old.OrganizationID, Delta: -1}
	}
	return c, nil
}

// restored is the old key as it was before its rotation began. One that was ended meanwhile stays ended.
func restored(revoked *apikey.Record, old apikey.Record, now time.Time) apikey.Record {
	if old.RevokedAt == nil && old.GraceExpiresAt == nil {
		old.ReplacedByKeyID, old.NextRotationAt = nil, nextRotation(now, old.RotationIntervalDays)
		old.Counted = takesPlace(&old.Key, now)
	}
	return old
}
