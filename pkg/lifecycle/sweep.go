package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
)

const (
	duePage  = 25               // keys of one part that are taken in one go
	confirms = 10 * time.Minute // between two looks whether a grace is still needed
	maxSteps = 8                // of one key in one go
)

// Done says what a Sweep did.
type Done struct {
	Keys   int // looked at
	Failed int // of them: left for the next time
	More   bool
}

// Sweep does what time has made due: it begins rotations, ends graces that nobody needs any more, tells of keys that
// expire, have expired, wait for their rotation or are not used. It looks at up to limit keys and stops early when ctx
// nears its end. Several may sweep at once, and any may be stopped anywhere: each step is one transaction that is
// made only if it is still due.
//
// Organizations are spread over parts, and the parts take turns, so that one organization's backlog holds up few others.
func (s *Service) Sweep(ctx context.Context, limit int) (Done, error) {
	return s.turns(ctx, apikey.Sweep, limit, s.sweepKey)
}

// turns gives the keys that are due to do, a page of each part at a time.
func (s *Service) turns(ctx context.Context, work apikey.Work, limit int, do func(context.Context, apikey.ID) error) (done Done, err error) {
	q := DueQuery{Work: work, Until: s.now(), Limit: duePage}
	after := map[int]DueKey{} // by part that may have more
	for shard := range Shards {
		after[shard] = DueKey{}
	}
	for len(after) > 0 {
		for shard := range Shards {
			var there bool
			if q.After, there = after[shard]; !there {
				continue
			}
			q.Shard = shard
			page, err := s.Store.Due(ctx, q)
			if err != nil {
				return done, unavailable(err)
			}
			for _, d := range page {
				if done.Keys == limit || ctx.Err() != nil {
					done.More = true
					return done, nil
				}
				done.Keys++
				if do(ctx, d.ID) != nil {
					done.Failed++
				}
				after[shard] = d
			}
			if len(page) < q.Limit {
				delete(after, shard)
			}
		}
	}
	return done, nil
}

// sweepKey does all that is due of one key.
func (s *Service) sweepKey(ctx context.Context, id apikey.ID) error {
	for range maxSteps {
		r, err := s.Store.Key(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return unavailable(err)
		}
		now, next := s.now(), s.due(&r)
		switch {
		case next == nil || next.At.After(now):
			if sameDue(r.Due, next) {
				return nil
			}
			return s.Store.Postpone(ctx, r, next)
		case next.Work != apikey.Sweep:
			return s.Store.Postpone(ctx, r, next)
		}
		if err := s.change(ctx, "", func(ctx context.Context) (Change, error) { return s.errand(ctx, id) }); err != nil {
			return err
		}
	}
	return nil
}

func sameDue(a, b *apikey.Due) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Work == b.Work && a.At.Equal(b.At)
}

// errand decides the first thing that is due of a key.
func (s *Service) errand(ctx context.Context, id apikey.ID) (Change, error) {
	r, err := s.Store.Key(ctx, id)
	if err != nil {
		return Change{}, unavailable(err)
	}
	if r, err = s.read(ctx, owner(&r), id); err != nil {
		return Change{}, err
	}
	now, agenda := s.now(), s.agenda(&r)
	if len(agenda) == 0 || agenda[0].at.After(now) {
		return Change{}, errNothingToDo
	}
	switch agenda[0].do {
	case finish:
		return s.over(ctx, r, now)
	case start:
		return s.begin(ctx, r, now)
	case remind:
		next := r
		next.Told.RotationDue = r.NextRotationAt
		return s.tell(r, next, now, audit.RotationDue)
	case warn:
		next := r
		next.Told.Expiring = lead(*r.ExpiresAt, now)
		return s.tell(r, next, now, audit.Expiring, change("days_left", next.Told.Expiring))
	case confirm:
		return s.confirm(ctx, r, now)
	case inspect:
		next, used := r, lastUse(&r.Key)
		next.Told.Unused = &used
		return s.tell(r, next, now, audit.Stale, change("unused_since", used))
	}
	return Change{}, errNothingToDo
}

// change is what a notice says beside its key.
func change(field string, value any) audit.Change {
	b, _ := json.Marshal(value) // of numbers and times
	return audit.Change{Field: field, To: b}
}

// tell is the Change of a notice: nothing of the key that anybody sees is another, but what was told of it.
func (s *Service) tell(before, after apikey.Record, now time.Time, action audit.Action, says ...audit.Change) (Change, error) {
	e, err := entry(owner(&before), now, action, &before.Key, after.Key)
	if err != nil {
		return Change{}, err
	}
	e.Changes = append(e.Changes, says...)
	at := before.UpdatedAt
	after = s.stamp(after, e)
	after.UpdatedAt = at
	after.Due = s.due(&after)
	return Change{Update: []Update{{Record: after}}, Entry: e}, nil
}

// over tells that a key has ended, and frees its place.
func (s *Service) over(ctx context.Context, r apikey.Record, now time.Time) (Change, error) {
	next, action := r, audit.Expired
	if r.ReplacedByKeyID != nil {
		action = audit.RotationCompleted
	}
	next.Told.Over, next.Counted = true, false
	return s.update(ctx, owner(&r), now, action, r, next)
}

// confirm ends the grace of a key whose successor is in use while it is not, and otherwise looks again later.
func (s *Service) confirm(ctx context.Context, r apikey.Record, now time.Time) (Change, error) {
	successor, err := s.read(ctx, owner(&r), *r.ReplacedByKeyID)
	if err != nil {
		return Change{}, err
	}
	next, quietSince := r, lastUse(&r.Key).Add(s.quiet())
	if successor.LastUsedAt != nil && !quietSince.After(now) && successor.State() == apikey.Active {
		endGrace(&next.Key, now)
		next.Told.Over, next.Told.Confirm = true, nil
		return s.update(ctx, owner(&r), now, audit.RotationCompleted, r, next)
	}
	next.Told.Confirm = new(now.Add(confirms))
	c, err := s.tell(r, next, now, audit.Updated)
	c.Silent = true
	return c, err
}
