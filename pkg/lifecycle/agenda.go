package lifecycle

import (
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// What time makes due of a key. A key's agenda follows from its record alone, so whoever changes the key writes down when
// it is due next, and nobody has to remember anything.

// errand is what the sweep does at an appointment.
type errand int

const (
	handOver errand = iota // try to deliver the key, or give it up
	finish                 // the key's end has come
	start                  // begin a rotation
	remind                 // a rotation is due, and there is nobody to give the successor to
	warn                   // the key's end comes near
	confirm                // see whether the grace is still needed
	inspect                // see whether the key is used at all
)

type appointment struct {
	at time.Time
	do errand
}

// leads are how many days before its expiry a key's organization is told.
var leads = []int{30, 14, 7, 1}

// agenda is what will become due of r, the earliest first.
func (s *Service) agenda(r *apikey.Record) []appointment {
	var a []appointment
	note := func(at *time.Time, do errand) {
		if at != nil {
			a = append(a, appointment{*at, do})
		}
	}
	switch h := r.Handover; {
	case r.RevokedAt != nil:
		return nil
	case h != nil && h.Claimed != nil:
		note(h.Claimed, handOver)
	case h != nil && h.Next.Before(h.Until):
		note(&h.Next, handOver)
	case h != nil:
		note(&h.Until, handOver)
	}
	if r.Handover != nil || r.ArchivedAt != nil {
		return a
	}
	if !r.Told.Over {
		note(r.End(), finish)
		note(warning(r), warn)
	}
	if at := r.NextRotationAt; at != nil && r.ReplacedByKeyID == nil && r.Enabled {
		switch {
		case hasReceiver(r) && s.Seal != nil:
			note(at, start)
		case r.Told.RotationDue == nil || !r.Told.RotationDue.Equal(*at):
			note(at, remind)
		}
	}
	if r.Told.Confirm != nil && !r.Told.Over {
		note(r.Told.Confirm, confirm)
	}
	if used := lastUse(&r.Key); s.StaleAfter > 0 && r.ReplacedByKeyID == nil && !r.Told.Over && (r.Told.Unused == nil || used.After(*r.Told.Unused)) {
		note(new(used.Add(s.StaleAfter)), inspect)
	}
	slices.SortStableFunc(a, func(a, b appointment) int { return a.at.Compare(b.at) })
	return a
}

// hasReceiver says whether a successor made by schedule can be brought to someone.
func hasReceiver(r *apikey.Record) bool {
	return r.RotationWebhookURL != nil || r.RotationToSecretsManager
}

// lastUse is when a key was used last, or made.
func lastUse(k *apikey.Key) time.Time {
	if k.LastUsedAt != nil {
		return *k.LastUsedAt
	}
	return k.CreatedAt
}

// warning is when the next notice of r's expiry is due.
func warning(r *apikey.Record) *time.Time {
	if r.ExpiresAt == nil || r.ReplacedByKeyID != nil {
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

// due is when somebody must look at r next.
func (s *Service) due(r *apikey.Record) *apikey.Due {
	a := s.agenda(r)
	if len(a) == 0 {
		return nil
	}
	work := apikey.Sweep
	if a[0].do == handOver {
		work = apikey.Deliver
	}
	return &apikey.Due{Work: work, At: a[0].at.Truncate(time.Millisecond)}
}

// told is what has been told of a key that is changed at now. Of an expiry that was just set, what would have been due
// before needs no telling.
func told(was, is *apikey.Key, t apikey.Told, now time.Time) apikey.Told {
	t.Over = t.Over && is.Over(now)
	if was != nil && equal(was.ExpiresAt, is.ExpiresAt) {
		return t
	}
	if t.Expiring = 0; is.ExpiresAt != nil {
		t.Expiring = lead(*is.ExpiresAt, now)
	}
	return t
}

func equal(a, b *time.Time) bool { return a == nil && b == nil || a != nil && b != nil && a.Equal(*b) }
