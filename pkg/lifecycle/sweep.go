package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/work"
)

const (
	duePage  = 25               // keys of one part that are taken in one go, at most
	confirms = 10 * time.Minute // between two looks whether a grace is still needed, at least
	setback  = 10 * time.Minute // after which a key is tried again with which something went wrong
	maxSteps = 8                // of one key in one go
	enough   = 2 * time.Second  // that must be left of a run for another key
)

// Done says what a Sweep or a Deliver did.
type Done struct {
	Keys   int // looked at
	Failed int // of them: left for a later time
	More   bool
}

// Sweep does what time has made due: it begins rotations, ends graces that nobody needs any more, tells of keys that
// expire, have expired, wait for their rotation, are not used or have used much of a day's limit. It looks at up to limit keys and stops early when ctx
// nears its end. Several may sweep at once, and any may be stopped anywhere: each step is one transaction that is
// made only if it is still due.
//
// Organizations are spread over parts, and the parts take turns, so that one organization's backlog holds up few others.
// Of a part with more than a page the latest are taken too, so that what becomes due now does not wait for all that has
// been waiting.
func (s *Service) Sweep(ctx context.Context, limit int) (Done, error) {
	return s.turns(ctx, apikey.Sweep, limit, enough, s.sweepKey)
}

// turns gives the keys that are due to do, a page of each part at a time, until what is left of ctx is less than enough.
func (s *Service) turns(ctx context.Context, kind apikey.Work, limit int, enough time.Duration, do func(context.Context, apikey.ID) error) (Done, error) {
	w := work.Walk[DueKey, apikey.ID]{Due: func(ctx context.Context, q work.Query[DueKey]) ([]DueKey, error) {
		return s.Store.Due(ctx, DueQuery{Work: kind, Query: q})
	}, Of: func(d DueKey) apikey.ID { return d.ID }, Do: do, Until: s.now(), Latest: true, Enough: enough,
		Limit: limit, Page: min(duePage, max(1, limit/work.Shards/2))} // so that each part has its turn
	did, err := w.Go(ctx)
	if err != nil {
		err = unavailable(err)
	}
	return Done{Keys: did.Count, Failed: did.Failed, More: did.More}, err
}

// sweepKey does all that is due of one key. When something goes wrong with it, it steps back behind the others.
func (s *Service) sweepKey(ctx context.Context, id apikey.ID) error {
	var r apikey.Record // as it was read last
	for range maxSteps {
		var next *apikey.Due
		do := nothing
		err := s.change(ctx, "", func(ctx context.Context) (c Change, err error) {
			r, do, next, err = s.upNext(ctx, id)
			if err != nil || do == nothing || do == handOver {
				return c, cmp.Or(err, errNothingToDo)
			}
			return s.errand(ctx, r, do, s.now())
		})
		switch {
		case err != nil && r.ID == id:
			_ = s.postpone(ctx, &r, &apikey.Due{Work: apikey.Sweep, At: s.now().Add(setback)})
			return err
		case err != nil, r.ID != id:
			return err
		case do == nothing || do == handOver:
			return s.postpone(ctx, &r, next)
		}
	}
	return nil
}

// postpone writes down when r is due, where it is not written so. If r was changed meanwhile, whoever did that has written it.
func (s *Service) postpone(ctx context.Context, r *apikey.Record, next *apikey.Due) error {
	if a, b := r.Due, next; a == nil && b == nil || a != nil && b != nil && a.Work == b.Work && a.At.Equal(b.At) {
		return nil
	}
	if err := s.Store.Postpone(ctx, *r, next); err != nil && !errors.Is(err, ErrChanged) {
		return unavailable(err)
	}
	return nil
}

// upNext reads a key and says what is first of it. A key that is gone has nothing to do.
func (s *Service) upNext(ctx context.Context, id apikey.ID) (r apikey.Record, do errand, next *apikey.Due, err error) {
	r, err = s.Store.Key(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return r, nothing, nil, errNothingToDo
	case err != nil:
		return r, nothing, nil, unavailable(err)
	case r.Closing != nil:
		if r, err = s.read(ctx, owner(&r), id); err != nil {
			return r, nothing, nil, err
		}
	}
	do, next, err = s.first(ctx, &r, s.now())
	return r, do, next, err
}

// errand decides what is first of a key.
func (s *Service) errand(ctx context.Context, r apikey.Record, do errand, now time.Time) (Change, error) {
	next := r
	switch do {
	case finish:
		return s.over(ctx, r, now)
	case start:
		return s.begin(ctx, r, now)
	case remind:
		next.Told.RotationDue = r.NextRotationAt
		return s.tell(r, next, now, audit.RotationDue), nil
	case warn:
		next.Told.Expiring = lead(*r.ExpiresAt, now)
		return s.tell(r, next, now, audit.Expiring, change("days_left", daysLeft(*r.ExpiresAt, now))), nil
	case confirm:
		return s.confirm(ctx, r, now)
	case inspect:
		next.Told.Unused = new(lastUse(&r.Key))
		return s.tell(r, next, now, audit.Stale, change("unused_since", next.Told.Unused)), nil
	case ration:
		return s.rationed(r, now)
	}
	return Change{}, errNothingToDo
}

// rationed tells how much of a key's daily limit is used.
func (s *Service) rationed(r apikey.Record, now time.Time) (Change, error) {
	day, percent := untold(&r, now)
	if percent == 0 {
		return Change{}, errNothingToDo
	}
	next := r
	next.Told.Day, next.Told.Percent = day, percent
	return s.tell(r, next, now, audit.LimitReached, change("daily_limit", *r.DailyLimit), change("day", apikey.StartOf(day).Format(time.DateOnly)),
		change("percent", percent), change("used", r.Counts[apikey.WindowOf(day)])), nil
}

// daysLeft is how many days there are until a time, begun ones included.
func daysLeft(end, now time.Time) int {
	return int((end.Sub(now) + 24*time.Hour - 1) / (24 * time.Hour))
}

// change is what a notice says beside its key.
func change(field string, value any) audit.Change {
	b, _ := json.Marshal(value) // of numbers and times
	return audit.Change{Field: field, To: b}
}

// tell is the Change of a notice: nothing of the key that anybody sees is another, but what was told of it.
func (s *Service) tell(before, after apikey.Record, now time.Time, action audit.Action, says ...audit.Change) Change {
	e := audit.Entry{ID: audit.NewID(now), OrganizationID: before.OrganizationID, At: now, Action: action,
		ActorKind: string(owner(&before).Kind), ActorID: owner(&before).ID, KeyID: &before.ID, Changes: says}
	after = s.stamp(after, e)
	after.UpdatedAt = before.UpdatedAt
	return Change{Update: []Update{{Record: after}}, Entry: e}
}

// note is a Change that nobody is told of.
func (s *Service) note(before, after apikey.Record, now time.Time) Change {
	c := s.tell(before, after, now, audit.Updated)
	c.Silent = true
	return c
}

// over tells that a key has ended, and frees its place. Only an end that a rotation set is that rotation's.
func (s *Service) over(ctx context.Context, r apikey.Record, now time.Time) (Change, error) {
	next, action := r, audit.Expired
	if r.ReplacedByKeyID != nil && r.GraceExpiresAt != nil {
		action = audit.RotationCompleted
	}
	next.Told.Over, next.Told.Confirm, next.Counted = true, nil, false
	return s.update(ctx, owner(&r), now, action, r, next)
}

// confirm ends the grace of a key whose successor is in use while it is not, and otherwise looks again later.
func (s *Service) confirm(ctx context.Context, r apikey.Record, now time.Time) (Change, error) {
	successor, err := s.read(ctx, owner(&r), *r.ReplacedByKeyID)
	if err != nil {
		return Change{}, err
	}
	next, quietSince := r, lastUse(&r.Key).Add(s.quiet())
	if successor.LastUsedAt != nil && !quietSince.After(now) && successor.StatusAt(now) == apikey.Active {
		endGrace(&next.Key, now)
		next.Told.Over, next.Told.Confirm = true, nil
		return s.update(ctx, owner(&r), now, audit.RotationCompleted, r, next)
	}
	at := lookAgain(now, now.Sub(r.UpdatedAt))
	if quietSince.After(at) {
		at = quietSince
	}
	next.Told.Confirm = &at
	return s.note(r, next, now), nil
}
