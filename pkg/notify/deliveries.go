package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/webhook"
	"github.com/latchkey/latchkey/pkg/work"
)

const (
	deliveryPrefix = "dlv_"
	pageSize       = 100              // of one question to the store
	maxPages       = 100              // looked through for one list; a filter that finds little goes on by the cursor
	defaultPage    = 100              // of a list that does not say
	early          = 5 * time.Minute  // that an event's clock may be behind the one by which its subscription was made
	testTime       = 10 * time.Second // for the attempt of a test: whoever asked waits for it
)

// deliveryID follows from what is delivered and where, so that the same is delivered once. Ids sort by the event's time.
func deliveryID(eventID, subscriptionID string) string {
	return deliveryPrefix + eventID + "_" + strings.TrimPrefix(subscriptionID, subscriptionPrefix)
}

// webhookOf is the subscription whose the delivery of that id is, as far as its id tells.
func webhookOf(id string) string { return subscriptionPrefix + id[strings.LastIndexByte(id, '_')+1:] }

// Announce makes a delivery of each event for each subscription that wants it, due now. The events are of one organization
// and in the order of its chain. To announce an event again changes nothing. After an error some are made: announce all again.
func (s *Service) Announce(ctx context.Context, organizationID string, events []event.Event) error {
	all, err := s.Store.Subscriptions(ctx, organizationID)
	if err != nil {
		return fmt.Errorf("reading who is to be told: %w", err)
	}
	now := s.now()
	for i := range events {
		if err := s.announce(ctx, all.List, &events[i], now); err != nil {
			return fmt.Errorf("announcing %s: %w", events[i].ID, err)
		}
	}
	return nil
}

// announce makes the deliveries of one event. Those of an earlier one are there, so that nobody is told of this one first.
func (s *Service) announce(ctx context.Context, list []Subscription, e *event.Event, now time.Time) error {
	body, err := printEvent(e)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, len(list))
	for i := range list {
		sub := &list[i]
		if !sub.wants(e.Type) || e.Timestamp.Before(sub.CreatedAt.Add(-early)) {
			continue
		}
		all.Go(func() {
			if err := s.Store.AddDelivery(ctx, newDelivery(sub, e, body, now)); !errors.Is(err, lifecycle.ErrChanged) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// newDelivery is one that is due at once, unless the event is too long for any receiver.
func newDelivery(sub *Subscription, e *event.Event, body []byte, now time.Time) Record {
	r := Record{Delivery: Delivery{ID: deliveryID(e.ID, sub.ID), WebhookID: &sub.ID, KeyID: e.Data.KeyID, EventID: e.ID, EventType: e.Type,
		Status: Pending, Attempts: []Attempt{}, NextAttemptAt: &now, CreatedAt: now},
		OrganizationID: sub.OrganizationID, Sequence: e.Data.Chain.Sequence, Body: body, Until: now.Add(Keep), Version: 1}
	if len(body) > webhook.MaxBody {
		r.Status, r.NextAttemptAt, r.Body = Failed, nil, nil
		r.Attempts = []Attempt{{At: now, Outcome: webhook.Refused, Error: fmt.Sprintf("the event has %d bytes, above %d", len(body), webhook.MaxBody)}}
	}
	return r
}

// printEvent is an event as JSON.
func printEvent(e *event.Event) ([]byte, error) {
	var b bytes.Buffer
	p := json.NewEncoder(&b)
	p.SetEscapeHTML(false)
	err := p.Encode(e)
	return bytes.TrimSpace(b.Bytes()), err
}

// DeliveryFilter says which deliveries a list has. Empty fields do not filter.
type DeliveryFilter struct {
	WebhookID string
	KeyID     apikey.ID
	Status    Status
	Limit     int    // 1 to MaxPage; 0: 100
	Cursor    string // where an earlier page ended
}

// Deliveries returns the organization's deliveries of the last 30 days, newest first, and a cursor when there may be more.
func (s *Service) Deliveries(ctx context.Context, f DeliveryFilter) (list []Delivery, next string, err error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return nil, "", err
	}
	if err := f.check(); err != nil {
		return nil, "", err
	}
	want, at := cmp.Or(f.Limit, defaultPage), f.Cursor
	list = []Delivery{}
	pages := 0
	for more := true; more; pages++ {
		if pages == maxPages {
			return list, at, nil
		}
		var page []Record
		if page, more, err = s.Store.Deliveries(ctx, by.OrganizationID, at, pageSize); err != nil {
			return nil, "", unavailable(err)
		}
		for i := range page {
			if len(list) == want {
				return list, at, nil
			}
			at = page[i].ID
			if d, there := s.shown(page[i]); there && f.matches(&d) {
				list = append(list, d)
			}
		}
	}
	return list, "", nil
}

func (f *DeliveryFilter) check() error {
	var wrong fieldErrors
	wrong.need(f.Limit >= 0 && f.Limit <= MaxPage, "/limit", "must be 1 to 1000")
	wrong.need(f.Cursor == "" || validDelivery(f.Cursor), "/cursor", "must be the cursor of an earlier answer")
	return apikey.Invalid(wrong)
}

func (f *DeliveryFilter) matches(d *Delivery) bool {
	return (f.WebhookID == "" || orEmpty(d.WebhookID) == f.WebhookID) &&
		(f.KeyID == 0 || d.KeyID != nil && *d.KeyID == f.KeyID) &&
		(f.Status == "" || d.Status == f.Status)
}

// shown is a delivery as it is shown now, and whether it is still to be.
func (s *Service) shown(r Record) (Delivery, bool) {
	now := s.now()
	if r.Status == Pending && r.WebhookID == nil && !orEmpty(r.NextAttemptAt).After(now.Add(-late)) {
		r.Status, r.NextAttemptAt = Failed, nil // nobody tried again: the handover ended otherwise
	}
	return r.Delivery, r.Until.After(now)
}

// validDelivery says whether a delivery may have the id.
func validDelivery(id string) bool {
	rest, ours := strings.CutPrefix(id, deliveryPrefix)
	return ours && len(rest) <= 64 && !strings.ContainsFunc(rest, func(c rune) bool {
		return !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c == '_')
	})
}

// Delivery returns one with its event.
func (s *Service) Delivery(ctx context.Context, id string) (Detail, error) {
	r, err := s.delivery(ctx, id)
	if err != nil {
		return Detail{}, err
	}
	d, _ := s.shown(r)
	return Detail{d, r.Body}, nil
}

// delivery is one that exists for the caller.
func (s *Service) delivery(ctx context.Context, id string) (Record, error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return Record{}, err
	}
	r, err := Record{}, lifecycle.ErrNotFound
	if validDelivery(id) {
		r, err = s.Store.Delivery(ctx, by.OrganizationID, id)
	}
	switch {
	case errors.Is(err, lifecycle.ErrNotFound), err == nil && !r.Until.After(s.now()):
		return r, apikey.Errorf(apikey.NotFound, "There is no such delivery. Deliveries are remembered for 30 days.")
	case err != nil:
		return r, unavailable(err)
	}
	return r, nil
}

// Redeliver has a delivery attempted again, whatever came of it: at once, and by the schedule from its beginning if it
// had ended. It is the same event under the same id, so that a receiver which has it knows. One whose attempt is under way is
// left to it. It refuses with WrongState a handover, whose secret rests nowhere here, what is not kept, and one
// whose subscription is deleted or disabled.
func (s *Service) Redeliver(ctx context.Context, id string) (Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		r, err := s.delivery(ctx, id)
		if err != nil {
			return Delivery{}, err
		}
		if err := s.mayRedeliver(ctx, &r); err != nil {
			return Delivery{}, err
		}
		next, changed := r.again(s.now())
		if !changed {
			return r.Delivery, nil
		}
		if err = s.Store.UpdateDelivery(ctx, next); err == nil {
			return next.Delivery, nil
		}
		if s.pause(ctx) != nil {
			return Delivery{}, unavailable(err)
		}
	}
}

func (s *Service) mayRedeliver(ctx context.Context, r *Record) error {
	switch {
	case r.WebhookID == nil:
		return apikey.Errorf(apikey.WrongState, "A successor on its way to its key's own address is not sent from here: its secret rests nowhere. Rotate the key, or wait for the next attempt.")
	case r.EventType == TestEvent:
		return apikey.Errorf(apikey.WrongState, "A test is one attempt. Make another: POST /v1/webhooks/%s/test.", *r.WebhookID)
	case r.Body == nil:
		return apikey.Errorf(apikey.WrongState, "This event is too long to be delivered. Read it at /v1/audit.")
	}
	sub, err := s.get(ctx, r.OrganizationID, *r.WebhookID)
	switch {
	case apikey.CodeOf(err) == apikey.NotFound:
		return apikey.Errorf(apikey.WrongState, "The webhook of this delivery is deleted. Subscribe again; what happened is at /v1/audit.")
	case err == nil && !sub.Enabled:
		return apikey.Errorf(apikey.WrongState, "The webhook of this delivery is disabled. Enable it first.")
	}
	return err
}

// again is r due at now, and whether that changes anything.
func (r Record) again(now time.Time) (Record, bool) {
	if r.Status == Pending && (r.underWay(now) || !r.NextAttemptAt.After(now)) {
		return r, false
	}
	if r.unspoken(); r.Status != Pending || r.Tries >= work.Attempts {
		r.Status, r.Round, r.Tries = Pending, r.Round+1, 0
	}
	r.NextAttemptAt, r.Until = &now, now.Add(Keep)
	r.Version++
	return r, true
}

// underWay says whether somebody is attempting r.
func (r *Record) underWay(now time.Time) bool { return r.Claimed != nil && r.Claimed.After(now) }

// Test sends an event of type webhook.test to a subscription, once and now, also to one that is disabled, and returns what
// came of it. It is in the log like any delivery.
func (s *Service) Test(ctx context.Context, id string) (Delivery, error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return Delivery{}, err
	}
	sub, err := s.get(ctx, by.OrganizationID, id)
	if err != nil {
		return Delivery{}, err
	}
	secrets, err := s.Secrets(ctx, by.OrganizationID)
	if err != nil {
		return Delivery{}, err
	}
	now := s.now()
	e := event.Event{Version: event.Version, ID: audit.NewID(now), Type: TestEvent, Timestamp: now, Data: event.Data{OrganizationID: by.OrganizationID,
		Actor: event.Actor{Kind: string(by.Kind), ID: by.ID}, RequestID: by.RequestID, Changes: []audit.Change{}}}
	body, err := printEvent(&e)
	if err != nil {
		return Delivery{}, err
	}
	r := newDelivery(&sub, &e, body, now)
	sending, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	came := s.Sender.Send(sending, sub.URL, webhook.Message{ID: e.ID, At: s.clock(), Body: body}, secrets...)
	r.Tries, r.Status, r.NextAttemptAt = 1, Failed, nil
	if came.Outcome == webhook.Delivered {
		r.Status = Delivered
	}
	r.Attempts = []Attempt{attemptOf(now, came)}
	s.log(ctx, &r, came)
	if err := s.Store.AddDelivery(context.WithoutCancel(ctx), r); err != nil {
		return Delivery{}, unavailable(fmt.Errorf("noting a test: %w", err))
	}
	return r.Delivery, nil
}
