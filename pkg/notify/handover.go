package notify

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// late is how long after its next attempt a handover of which nothing was heard counts as ended.
const late = 24 * time.Hour

// NoteHandover adds to the log what came of an attempt to bring a successor to its key's own address. It holds nothing of
// what was sent. A note that cannot be made is lost, and nothing else: what the attempt means for the key is lifecycle's.
func (s *Service) NoteHandover(ctx context.Context, p lifecycle.Parcel, came webhook.Result) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var err error
	a := attemptOf(s.now(), came)
	for range tellings {
		if err = s.noteHandover(ctx, &p, a, came); err == nil || s.pause(ctx) != nil {
			break
		}
	}
	if err != nil {
		s.Log.WarnContext(ctx, "a delivery is not in the log", "id", p.ID, "attempt", p.Attempt, "error", err)
	}
}

func (s *Service) noteHandover(ctx context.Context, p *lifecycle.Parcel, a Attempt, came webhook.Result) error {
	now := a.At
	id := deliveryID(audit.FirstID(p.StartedAt), strings.TrimPrefix(p.New.Key.ID.String(), "key_"))
	r, err := s.Store.Delivery(ctx, p.Old.OrganizationID, id)
	switch {
	case errors.Is(err, lifecycle.ErrNotFound):
		r = Record{Delivery: Delivery{ID: id, KeyID: &p.Old.ID, EventID: p.ID, EventType: audit.Rotated, Status: Pending, CreatedAt: now},
			OrganizationID: p.Old.OrganizationID}
	case err != nil || r.noted(a): // and only the answer was lost
		return err
	}
	r.note(a)
	r.Tries, r.Until = max(r.Tries, p.Attempt), now.Add(Keep)
	switch {
	case came.Outcome == webhook.Delivered || r.Status == Delivered:
		r.Status, r.NextAttemptAt = Delivered, nil
	case came.Outcome == webhook.Gone:
		r.Status, r.NextAttemptAt = Failed, nil
	default:
		r.Status, r.NextAttemptAt = Pending, &p.Next
		if asked := now.Add(came.RetryAfter); asked.After(p.Next) {
			r.NextAttemptAt = &asked
		}
	}
	if r.Version++; r.Version == 1 {
		return s.Store.AddDelivery(ctx, r)
	}
	return s.Store.UpdateDelivery(ctx, r)
}
