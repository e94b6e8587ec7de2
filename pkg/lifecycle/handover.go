package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/work"
)

// How a rotation goes that nobody asked for by hand:
//
//	             begin                    delivered                     completed
//	  active ─────────────► handing over ───────────► in grace ───────────────────► ended
//	    ▲    the successor   │  the old key's end      │  the old key ends after the cap, or once
//	    │    lives already   │  is untouched           │  its successor is used and it is not
//	    └────────────────────┘ abandoned: nobody took the successor within the window, and none may have: it is revoked
//
// A successor that may have arrived, though nobody said so, is neither taken away nor relied upon: both keys live on, the
// organization is told that the rotation waits for someone, and the handover goes on for another window.
//
// A dead scheduler, a crash or a lost webhook lengthens lives and never cuts one.

const (
	defaultCap    = 7 * 24 * time.Hour  // of an old key's life after its successor was delivered
	defaultQuiet  = time.Hour           // without use after which an old key is not needed any more
	defaultWindow = 3 * 24 * time.Hour  // in which a successor must be delivered
	claimTime     = time.Minute         // after which an attempt that nobody spoke of again is over
	attemptTime   = 20 * time.Second    // that must be left of a run for another attempt
	keepMargin    = 30 * 24 * time.Hour // for which a sealed successor may outlive its window
	clocksApart   = 2 * time.Minute     // that a clock may be behind another
	tellings      = 3                   // how often it is tried to write down how an attempt ended
	perReceiver   = 2                   // attempts at once at one receiver, of one Deliver
)

func (s *Service) quiet() time.Duration  { return cmp.Or(s.Quiet, defaultQuiet) }
func (s *Service) window() time.Duration { return cmp.Or(s.Window, defaultWindow) }
func (s *Service) cap() time.Duration    { return cmp.Or(s.Cap, defaultCap) }

// begin starts the rotation of a key by its schedule: it makes a successor and seals its secret, and leaves the key's end
// alone.
func (s *Service) begin(ctx context.Context, r apikey.Record, now time.Time) (Change, error) {
	c, _, err := s.beginning(ctx, r, now, apikey.Handover{Until: now.Add(s.window()), Next: now})
	return c, err
}

// beginning is the Change that makes a successor and begins to hand it over, and the successor's secret.
func (s *Service) beginning(ctx context.Context, r apikey.Record, now time.Time, h apikey.Handover) (Change, apikey.Plaintext, error) {
	minted := s.Format.Mint(orEmpty(r.EnvironmentID))
	next, _ := successor(&r, minted, now, false)
	next.Handover = &h
	old := r
	old.ReplacedByKeyID, old.NextRotationAt, old.Counted = &next.ID, nil, false
	e, err := entry(owner(&r), now, audit.RotationStarted, &r.Key, old.Key)
	if err != nil {
		return Change{}, minted.Plaintext, err
	}
	c := Change{Entry: e, Update: []Update{{Record: s.stamp(old, e)}}}
	id := handoverID(next.ID)
	sealed, err := s.Seal.Seal(ctx, []byte(minted.Plaintext.Reveal()), id)
	if err != nil {
		return Change{}, minted.Plaintext, unavailable(fmt.Errorf("sealing a successor: %w", err))
	}
	keep := h.Until.Add(keepMargin)
	next.Sealed = &apikey.Sealed{ID: id, Until: keep}
	next = s.stamp(next, e)
	c.Create, c.Replay = &next, &Replay{ID: id, KeyID: next.ID, Sealed: sealed, Until: keep}
	return c, minted.Plaintext, nil
}

func handoverID(id apikey.ID) string { return "handover-" + id.String() }

// Parcel is a successor on its way to the owner of its predecessor.
type Parcel struct {
	ID        string // the same for every attempt
	Old       apikey.Key
	New       apikey.Issued
	Line      apikey.ID // the first of the keys that replaced one another
	Attempt   int       // from 1 on
	StartedAt time.Time // of the rotation
	Next      time.Time // when the next attempt is due, if this one is not acknowledged
}

// Attempt is how an attempt to deliver ended.
type Attempt struct {
	how  int
	wait time.Duration // that the receiver asks for before the next
	part bool          // another receiver has it
}

// The ends of an attempt.
var (
	Delivered = Attempt{how: 1} // acknowledged
	Missed    = Attempt{how: 2} // certainly not arrived
	Doubtful  = Attempt{how: 3} // not acknowledged, but it may have arrived
	Gone      = Attempt{how: 4} // not arrived, and the receiver wants no more attempts
)

// String names the end.
func (a Attempt) String() string {
	return [...]string{"none", "delivered", "missed", "doubtful", "gone"}[a.how]
}

// After is an attempt whose receiver asks for so much time before the next.
func (a Attempt) After(wait time.Duration) Attempt { return Attempt{a.how, wait, a.part} }

// InPart is an attempt after another receiver has acknowledged what this one did not: so it is doubtful, however it ended.
func (a Attempt) InPart() Attempt { return Attempt{a.how, a.wait, true} }

// Deliver gives each successor whose delivery is due to send, until ctx nears its end or limit were tried, and remembers
// how it went. An attempt is claimed before it is made, so that of several who deliver at once one tries; a claim whose
// attempt nobody spoke of again counts as doubtful. A successor that nobody took within the window is given up.
//
// Up to Senders attempts are under way at once, and few of them at one receiver: one that is slow holds up its own keys
// alone. send may be called from several goroutines; it must be done within half a minute.
func (s *Service) Deliver(ctx context.Context, limit int, send func(context.Context, Parcel) Attempt) (Done, error) {
	l := work.NewLanes[apikey.Record](s.Senders, perReceiver)
	done, err := s.turns(ctx, apikey.Deliver, limit, attemptTime, func(ctx context.Context, id apikey.ID) error {
		return l.Take(func() error { return s.deliverKey(ctx, l, id, send) })
	})
	failed, waiting := l.Wait()
	done.Failed += failed
	done.More = done.More || waiting
	return done, err
}

// deliverKey makes one attempt, and as long as the receiver acknowledges them those that had to wait for it.
func (s *Service) deliverKey(ctx context.Context, l *work.Lanes[apikey.Record], id apikey.ID, send func(context.Context, Parcel) Attempt) error {
	r, do, next, err := s.upNext(ctx, id)
	switch {
	case errors.Is(err, errNothingToDo):
		return nil
	case err != nil:
		return err
	case do != handOver:
		return s.postpone(ctx, &r, next)
	}
	at := receiver(&r)
	for goOn := l.Enter(at, r); goOn; {
		how, failed := s.attempt(ctx, r, send)
		err = errors.Join(err, failed)
		r, goOn = l.Leave(at, failed == nil && how == Delivered && !work.NearlyOver(ctx, attemptTime))
	}
	return err
}

// attempt claims an attempt, makes it, and writes down how it ended. If ctx ends meanwhile, both are written all the same:
// an attempt that nobody speaks of leaves doubt.
func (s *Service) attempt(ctx context.Context, r apikey.Record, send func(context.Context, Parcel) Attempt) (Attempt, error) {
	if ctx.Err() != nil {
		return Missed, ctx.Err()
	}
	var parcel *Parcel
	err := s.change(context.WithoutCancel(ctx), "", func(ctx context.Context) (c Change, err error) {
		parcel, c, err = s.claim(ctx, r.ID)
		return c, err
	})
	if err != nil {
		_ = s.postpone(ctx, &r, &apikey.Due{Work: apikey.Deliver, At: s.now().Add(setback)})
	}
	if err != nil || parcel == nil {
		return Missed, err
	}
	how := send(ctx, *parcel)
	ctx = context.WithoutCancel(ctx)
	for range tellings {
		err = s.change(ctx, "", func(ctx context.Context) (Change, error) { return s.attempted(ctx, parcel, how) })
		if err == nil || s.pause(ctx) != nil {
			break
		}
	}
	return how, err
}

// receiver names whom a key's successors are brought to, so that the same is not asked too often at once.
func receiver(r *apikey.Record) string {
	if r.RotationWebhookURL == nil {
		return "secretsmanager" // all of them: AWS bounds how many changes of secrets an account makes in a second
	}
	u, err := url.Parse(*r.RotationWebhookURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// claim decides what is due of a successor that is being handed over: an attempt, which it claims, or to give it up.
func (s *Service) claim(ctx context.Context, id apikey.ID) (*Parcel, Change, error) {
	r, old, err := s.handing(ctx, id)
	if err != nil {
		return nil, Change{}, err
	}
	now, h := s.now(), *r.Handover
	if handoverDue(&r).After(now) {
		return nil, Change{}, errNothingToDo
	}
	if h.Claimed != nil { // whoever tried has died
		h.Claimed, h.Doubt = nil, true
	}
	next := r
	next.Handover = &h
	gone := !r.Sealed.Until.After(now) // nothing is left to be brought
	switch {
	case !handoverEnd(&r).After(now) && (h.Attempts > 0 || h.Fetched || gone || r.Over(now)): // whoever stood still for long still tries once
		c, err := s.giveUp(ctx, r, old, now, h)
		return nil, c, err
	case gone || h.Fetched: // whatever was changed of the key meanwhile, what is prepared in a secret is sent to nobody
		h.Next = h.Until
		return nil, s.note(r, next, now), nil
	}
	text, err := s.unseal(ctx, &r)
	if err != nil {
		return nil, Change{}, err
	}
	h.Attempts++
	h.Claimed, h.Next = new(now.Add(claimTime)), now.Add(work.Wait(uint64(id), h.Attempts))
	return &Parcel{ID: handoverID(id), Old: old.Key.At(now), New: apikey.Issued{Key: r.Key.At(now), Plaintext: text}, Line: r.Line(),
		Attempt: h.Attempts, StartedAt: r.CreatedAt, Next: h.Next}, s.note(r, next, now), nil
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
	h.Claimed, h.Doubt = nil, h.Doubt || how.how == Doubtful.how || how.part
	if h.Gone = how.how == Gone.how; h.Gone {
		return s.giveUp(ctx, r, old, now, h)
	}
	if asked := now.Add(how.wait); asked.After(h.Next) {
		h.Next = asked
	}
	next.Handover = &h
	return s.note(r, next, now), nil
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

// giveUp ends a handover whose window is over, or whose receiver wants no more. A successor that is used is in its owner's hands. One that may be is held:
// taking it away could lock its owner out, and so could relying on it. Otherwise it is revoked, and the old key is as it
// was.
func (s *Service) giveUp(ctx context.Context, r, old apikey.Record, now time.Time, h apikey.Handover) (Change, error) {
	next, used := r, r.LastUsedAt != nil
	switch {
	case used && s.useTells(&r):
		return s.delivered(r, old, now, audit.Rotated)
	case (h.Doubt || used) && !r.Over(now):
		h.Until = now.Add(s.window())
		if h.Fetched {
			h.Next = h.Until
		}
		next.Handover = &h
		c := s.tell(r, next, now, audit.RotationDue, change("unconfirmed_key_id", r.ID))
		c.Entry.KeyID = &old.ID
		return c, nil
	}
	why := "nobody took it"
	if h.Gone {
		why = "its receiver is gone: it answered 410"
	}
	revoke(&next, now, why)
	e, err := entry(owner(&old), now, audit.RotationAbandoned, &old.Key, restored(old, now).Key)
	if err == nil {
		err = alsoTell(&e, &r.Key, &next.Key)
	}
	if err != nil {
		return Change{}, err
	}
	return s.abandon(ctx, &r, next, old, e)
}

// useTells says whether a successor that is used has come to all who are to have it. Not where it is for a secret: whoever
// used it may have read what waits there, or what is there no more since somebody moved AWSCURRENT back, and another receiver
// is one of two. An attempt that comes after it finds what the secret gives.
func (s *Service) useTells(r *apikey.Record) bool {
	return !r.Handover.Fetched && !s.reachesSecret(r)
}

// withdraw ends the handover of a successor that is revoked for another reason.
func (s *Service) withdraw(ctx context.Context, e audit.Entry, was, revoked apikey.Record) (Change, error) {
	old, err := s.read(ctx, owner(&revoked), *revoked.Predecessor)
	if err == nil {
		err = alsoTell(&e, &old.Key, new(restored(old, e.At).Key))
	}
	if err != nil {
		return Change{}, err
	}
	return s.abandon(ctx, &was, revoked, old, e)
}

// alsoTell adds to an entry what changes of another key.
func alsoTell(e *audit.Entry, before, after *apikey.Key) error {
	changes, err := audit.Diff(before, *after)
	for _, c := range changes {
		c.Field = after.ID.String() + "." + c.Field
		e.Changes = append(e.Changes, c)
	}
	return err
}

// abandon gives the place of a revoked successor that nobody has back to the old key. If the successor had none, since it was
// made to run the service meanwhile, a full plan is no reason to keep the old one's: it lives in any case.
func (s *Service) abandon(ctx context.Context, was *apikey.Record, revoked, old apikey.Record, e audit.Entry) (Change, error) {
	back := restored(old, e.At)
	c := Change{Entry: e, Destroy: endHandover(&revoked)}
	c.Update = []Update{{Record: s.stamp(revoked, e), Closing: was.Closing != nil}, {Record: s.stamp(back, e)}}
	switch places(&back) - places(was) - places(&old) {
	case -1:
		c.Count = &Count{OrganizationID: old.OrganizationID, Delta: -1}
	case 1:
		o, err := s.stored(ctx, old.OrganizationID)
		if err != nil {
			return c, err
		}
		c.Count = o.taken(plan.Plan{Keys: plan.Unlimited})
	}
	return c, nil
}

// places is how many places of the plan r takes.
func places(r *apikey.Record) int {
	if r.Counted {
		return 1
	}
	return 0
}

// restored is the old key as it was before its rotation began. One that was ended meanwhile stays ended.
func restored(old apikey.Record, now time.Time) apikey.Record {
	if old.RevokedAt == nil && old.GraceExpiresAt == nil {
		old.Lone, old.ReplacedByKeyID, old.NextRotationAt = false, nil, nextRotation(now, old.RotationIntervalDays)
		old.Counted = takesPlace(&old, now)
	}
	return old
}
