package lifecycle

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// What time makes due of a key. A key's agenda follows from its record alone, so whoever changes the key writes down when
// it is due next, and nobody has to remember anything.

// errand is what the sweep does at an appointment.
type errand int

const (
	nothing  errand = iota
	handOver        // try to deliver the key, or give it up
	finish          // the key's end has come
	start           // begin a rotation
	remind          // a rotation is due, and there is nobody to give the successor to
	warn            // the key's end comes near
	confirm         // see whether the grace is still needed
	inspect         // see whether the key is used at all
	ration          // tell how much of its daily limit is used
)

type appointment struct {
	at time.Time
	do errand
}

// leads are how many days before its expiry a key's organization is told.
var leads = []int{30, 14, 7, 1}

// agenda is what will become due of r as it is at now, the earliest first.
func (s *Service) agenda(r *apikey.Record, now time.Time) (a []appointment) {
	switch {
	case r.Ended():
		return nil
	case r.Handover != nil:
		a = []appointment{{handoverDue(r), handOver}}
	case r.Told.Over:
		return nil
	default:
		a = s.ofALife(r, now)
	}
	if day, percent := untold(r, now); percent > 0 {
		a = append(a, appointment{later(now, apikey.StartOf(day)), ration})
	}
	slices.SortStableFunc(a, func(a, b appointment) int { return a.at.Compare(b.at) })
	return a
}

// ofALife is what becomes due of a key that its owner has.
func (s *Service) ofALife(r *apikey.Record, now time.Time) (a []appointment) {
	note := func(at *time.Time, do errand) {
		if at != nil {
			a = append(a, appointment{*at, do})
		}
	}
	note(r.End(), finish)
	note(warning(r), warn)
	if r.ReplacedByKeyID == nil {
		return append(a, s.ofItsOwn(r, now)...)
	}
	note(r.Told.Confirm, confirm)
	return a
}

// ofItsOwn is what becomes due of a key without a successor: its rotation, and whether it is used at all. One that was told
// of as unused is looked at from time to time, since no verify says that it is used again.
func (s *Service) ofItsOwn(r *apikey.Record, now time.Time) (a []appointment) {
	if at := r.NextRotationAt; at != nil && r.Enabled {
		switch {
		case s.hasReceiver(r) && s.Seal != nil:
			a = append(a, appointment{*at, start})
		case !equal(r.Told.RotationDue, at):
			a = append(a, appointment{*at, remind})
		}
	}
	switch used := lastUse(&r.Key); {
	case s.StaleAfter == 0:
	case r.Told.Unused == nil || used.After(*r.Told.Unused):
		a = append(a, appointment{used.Add(s.StaleAfter), inspect})
	default:
		a = append(a, appointment{now.Add(s.StaleAfter), inspect})
	}
	return a
}

// handoverDue is when a successor's handover must be seen to: when the attempt under way is over, or else the next is due,
// or there is no time for one.
func handoverDue(r *apikey.Record) time.Time {
	switch h := r.Handover; {
	case h.Claimed != nil:
		return *h.Claimed
	case h.Gone:
		return handoverEnd(r)
	}
	return earlier(r.Handover.Next, handoverEnd(r))
}

// handoverEnd is when a handover is over: a key that has ended is nothing to hand over.
func handoverEnd(r *apikey.Record) time.Time {
	if end := r.End(); end != nil {
		return earlier(*end, r.Handover.Until)
	}
	return r.Handover.Until
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// untold is the first day of which it is to be told how much of r's daily limit is used, and the part that is told of next; 0
// percent for nothing. Yesterday may have ended before anybody looked; tomorrow has begun for a process with a faster clock.
func untold(r *apikey.Record, now time.Time) (day int64, percent int) {
	today := apikey.Day(now)
	for day = max(today-1, r.Told.Day); day <= today+1; day++ {
		used := apikey.Reached(r.DailyLimit, r.Counts[apikey.WindowOf(day)])
		for _, percent = range apikey.UseTold {
			if percent <= used && (day > r.Told.Day || percent > r.Told.Percent) {
				return day, percent
			}
		}
	}
	return 0, 0
}

// first is what of r comes first at now, and when it is due: nothing, when it is not due yet. What has ended is told
// before what should have been done in time. A line has at most two live keys: while r's own predecessor lives by any
// clock, its rotation waits.
func (s *Service) first(ctx context.Context, r *apikey.Record, now time.Time) (do errand, next *apikey.Due, err error) {
	agenda := s.agenda(r, now)
	if end := r.End(); r.Handover == nil && end != nil && !end.After(now) && len(agenda) > 0 {
		return finish, dueOf(appointment{*end, finish}), nil
	}
	for i, a := range agenda {
		if a.at.After(now) {
			break
		}
		if a.do == start {
			before, err := s.inGraceBefore(ctx, r, now.Add(-clocksApart))
			if err != nil {
				return nothing, nil, err
			}
			if before != nil {
				agenda[i].at = lookAgain(now, now.Sub(a.at))
				if end := before.End(); end != nil {
					agenda[i].at = earlier(end.Add(clocksApart), agenda[i].at)
				}
				continue
			}
		}
		return a.do, dueOf(a), nil
	}
	if len(agenda) == 0 {
		return nothing, nil, nil
	}
	return nothing, dueOf(slices.MinFunc(agenda, func(a, b appointment) int { return a.at.Compare(b.at) })), nil
}

// lookAgain is when to look again for what has been waited for so long: the rarer the longer it lasts.
func lookAgain(now time.Time, waited time.Duration) time.Time {
	return now.Add(max(confirms, waited/4))
}

// hasReceiver says whether a successor made by schedule can be brought to someone.
func (s *Service) hasReceiver(r *apikey.Record) bool {
	return r.RotationWebhookURL != nil || s.reachesSecret(r)
}

// reachesSecret says whether a successor can be put into a secret.
func (s *Service) reachesSecret(r *apikey.Record) bool {
	return s.Secrets && r.RotationToSecretsManager
}

// lastUse is when a key was used last, or made.
func lastUse(k *apikey.Key) time.Time {
	if k.LastUsedAt != nil {
		return *k.LastUsedAt
	}
	return k.CreatedAt
}

// warning is when the next notice of r's expiry is due. A key whose successor nobody has yet is still the one in use.
func warning(r *apikey.Record) *time.Time {
	if r.ExpiresAt == nil || r.ReplacedByKeyID != nil && r.GraceExpiresAt != nil {
		return nil
	}
	for _, days := range leads {
		if r.Told.Expiring == 0 || days < r.Told.Expiring {
			return new(r.ExpiresAt.AddDate(0, 0, -days))
		}
	}
	return nil
}

// lead is the notice that fits the time which is left of a key before its expiry: the last that has become due by now; 0
// when none has.
func lead(expires, now time.Time) int {
	due := 0
	for _, days := range leads {
		if !expires.AddDate(0, 0, -days).After(now) {
			due = days
		}
	}
	return due
}

// due is when somebody must look at r, as it is at now, next.
func (s *Service) due(r *apikey.Record, now time.Time) *apikey.Due {
	a := s.agenda(r, now)
	if len(a) == 0 {
		return nil
	}
	return dueOf(a[0])
}

func dueOf(a appointment) *apikey.Due {
	work := apikey.Sweep
	if a.do == handOver {
		work = apikey.Deliver
	}
	return &apikey.Due{Work: work, At: a.at.Truncate(time.Millisecond)}
}

// told is what has been told of a key that is changed at now. Of an expiry that was just set, what would have been due
// before needs no telling.
func told(was, is *apikey.Key, t apikey.Told, now time.Time) apikey.Told {
	t.Over = t.Over && is.Over(now)
	if today := apikey.Day(now); was != nil && !reflect.DeepEqual(was.DailyLimit, is.DailyLimit) && t.Day < today {
		t.Day, t.Percent = today, 0 // it was no limit of the days before
	}
	if was != nil && equal(was.ExpiresAt, is.ExpiresAt) {
		return t
	}
	if t.Expiring = 0; is.ExpiresAt != nil {
		t.Expiring = lead(*is.ExpiresAt, now)
	}
	return t
}

func equal(a, b *time.Time) bool { return a == nil && b == nil || a != nil && b != nil && a.Equal(*b) }
