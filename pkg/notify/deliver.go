package notify

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/webhook"
	"github.com/latchkey/latchkey/pkg/work"
)

const (
	duePage   = 500              // deliveries of one part that are taken in one go: what the index says of each is short
	turn      = 50               // deliveries of one subscription in one pass
	turnTime  = 5 * time.Second  // after which a subscription's turn is over
	passTime  = time.Second      // after which a pass waits no longer for turns that last
	claimTime = time.Minute      // after which an attempt that nobody spoke of again is over
	enough    = 20 * time.Second // that must be left of a run for another attempt
	tellings  = 3                // how often it is tried to write down how an attempt ended
	perOne    = 1                // attempts at once at one subscription, of one Deliver: so they are made in order
	oldAge    = 80 * time.Hour   // of a delivery that is not tried any more once its receiver does not answer: the schedule is over by then
)

// Deliver attempts what is due, until ctx nears its end or about limit were looked at, and remembers how it went. An attempt is
// claimed before it is made, so that of several who deliver at once one tries; one that nobody spoke of again is
// made again.
//
// Subscriptions take turns. Each has one attempt under way, and the earliest event first. One that is slow is not waited for
// by the others, who have their next turns meanwhile. One that does not answer, or asks for
// patience, is left alone for the rest of the run: what is due of it stays due.
func (s *Service) Deliver(ctx context.Context, limit int) (total work.Done, err error) {
	r := &run{Service: s, resting: map[string]bool{}, secrets: map[string][]webhook.Secret{}, busy: map[string]int{},
		room: work.NewLanes[Ref](s.Senders, perOne), freed: make(chan struct{}, 1)}
	defer func() {
		for _, lanes := range r.lanes {
			failed, _ := lanes.Wait()
			total.Failed += failed
		}
	}()
	for {
		done, goOn, err := r.pass(ctx, limit-total.Count)
		total.Count += done.Count
		total.Failed += done.Failed
		total.More = done.More || goOn
		if err != nil {
			return total, unavailable(err)
		}
		if !goOn || total.Count >= limit || ctx.Err() != nil || work.NearlyOver(ctx, enough) {
			return total, nil
		}
	}
}

// run is one Deliver.
type run struct {
	*Service

	mu      sync.Mutex
	resting map[string]bool // subscriptions that are left alone
	secrets map[string][]webhook.Secret
	did     int            // deliveries that were tried, or ended without that, in this pass
	busy    map[string]int // turns under way, by subscription
	freed   chan struct{}  // holds one when a turn has ended

	// Of the walk alone.
	room  *work.Lanes[Ref]
	lanes []*work.Lanes[Ref] // of each pass
	turns map[string]int     // deliveries of this pass, by subscription
	held  map[string]int     // subscriptions that had a turn since an earlier pass when this one began
	left  bool               // some had no turn any more in this pass
}

// pass gives each subscription a turn. It says whether another pass may find more to do: also while a turn lasts, as others may
// become due meanwhile.
func (r *run) pass(ctx context.Context, limit int) (done work.Done, goOn bool, err error) {
	lanes := r.begin()
	w := work.Walk[Due, Ref]{Due: r.Store.DueDeliveries, Of: func(d Due) Ref { return d.Ref }, Skip: r.skip, Until: r.now(), Enough: enough,
		Page: duePage, Limit: limit, Do: func(ctx context.Context, ref Ref) error {
			if r.rests(ref) {
				return lanes.Take(func() error { return r.expire(ctx, ref) })
			}
			r.turns[webhookOf(ref.ID)]++
			if !lanes.Enter(webhookOf(ref.ID), ref) { // here, so that they are in order
				return nil
			}
			r.mu.Lock()
			r.busy[webhookOf(ref.ID)]++
			r.mu.Unlock()
			return lanes.Take(func() error { return r.visit(ctx, lanes, ref) })
		}}
	done, err = w.Go(ctx)
	idle := lanes.Idle(passTime)
	left := r.left || !idle || lanes.Waiting()
	if len(r.turns) == 0 && len(r.held) > 0 && err == nil { // nobody but those who have a turn has anything to do
		select {
		case <-r.freed:
		case <-time.After(passTime): // others may have become due
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return done, left && r.did > 0 || len(r.held) > 0 || len(r.busy) > 0, err
}

// begin makes ready for a pass.
func (r *run) begin() *work.Lanes[Ref] {
	select {
	case <-r.freed:
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turns, r.left, r.did, r.held = map[string]int{}, false, 0, maps.Clone(r.busy)
	lanes := r.room.Next()
	r.lanes = append(r.lanes, lanes)
	return lanes
}

// over notes that a subscription's turn has ended.
func (r *run) over(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[id]--; r.busy[id] == 0 {
		delete(r.busy, id)
	}
	select {
	case r.freed <- struct{}{}:
	default: // it is known
	}
}

// skip leaves alone what has had its turn, or rests and is not old.
func (r *run) skip(ref Ref) bool {
	if r.rests(ref) {
		return ref.ID > deliveryPrefix+audit.FirstID(r.now().Add(-oldAge))
	}
	over := r.held[webhookOf(ref.ID)] > 0 || r.turns[webhookOf(ref.ID)] >= turn
	r.left = r.left || over
	return over
}

// rests says whether a delivery's subscription is left alone.
func (r *run) rests(ref Ref) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resting[webhookOf(ref.ID)]
}

// expire ends a delivery that has waited longer than the schedule, of a receiver that does not answer now either.
func (r *run) expire(ctx context.Context, ref Ref) error {
	d, err := r.Store.Delivery(ctx, ref.OrganizationID, ref.ID)
	if errors.Is(err, lifecycle.ErrNotFound) {
		return nil
	}
	now := r.now()
	if err != nil || d.Status != Pending || d.underWay(now) || d.Until.After(now.Add(Keep-oldAge)) {
		return err
	}
	return r.end(ctx, d, Failed)
}

// visit makes one attempt, and for as long as the receiver is well and its turn lasts those that wait for it.
func (r *run) visit(ctx context.Context, lanes *work.Lanes[Ref], ref Ref) (err error) {
	id, began := webhookOf(ref.ID), time.Now()
	defer r.over(id)
	for goOn := true; goOn; {
		if r.rests(ref) { // since it was met by the walk
			lanes.Leave(id, false)
			return err
		}
		well, failed := r.deliver(ctx, ref)
		err = errors.Join(err, failed)
		if !well {
			r.mu.Lock()
			r.resting[id] = true
			r.mu.Unlock()
		}
		ref, goOn = lanes.Leave(id, well && time.Since(began) < turnTime && ctx.Err() == nil && !work.NearlyOver(ctx, enough))
	}
	return err
}

// deliver makes an attempt of one that is due. Its receiver is well if there is none, or it answers.
func (r *run) deliver(ctx context.Context, ref Ref) (well bool, err error) {
	d, err := r.Store.Delivery(ctx, ref.OrganizationID, ref.ID)
	switch {
	case errors.Is(err, lifecycle.ErrNotFound):
		return true, nil
	case err != nil:
		return false, err
	case d.Status != Pending || d.NextAttemptAt.After(r.now()): // the index is late
		return true, nil
	}
	all, err := r.Store.Subscriptions(ctx, ref.OrganizationID)
	if err != nil {
		return false, err
	}
	sub := all.find(*d.WebhookID)
	if sub == nil || !sub.Enabled {
		return true, r.done(r.end(ctx, d, Canceled))
	}
	if d.Tries >= work.Attempts { // and of the last nobody spoke again
		return true, r.done(r.end(ctx, d, Failed))
	}
	secrets, err := r.signWith(ctx, ref.OrganizationID)
	if err != nil {
		return false, err
	}
	return r.attempt(ctx, sub, d, secrets)
}

// done counts what this pass got done, unless it failed: while there is some, another pass may find more.
func (r *run) done(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.did++
	}
	return err
}

// signWith is the organization's secrets, opened once in a run.
func (r *run) signWith(ctx context.Context, organizationID string) ([]webhook.Secret, error) {
	r.mu.Lock()
	secrets := r.secrets[organizationID]
	r.mu.Unlock()
	if secrets != nil {
		return secrets, nil
	}
	secrets, err := r.Secrets(ctx, organizationID)
	if err != nil {
		return nil, fmt.Errorf("what to sign with: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets[organizationID] = secrets
	return secrets, nil
}

// end takes a delivery off the list. If someone changed it meanwhile, whoever did that has decided anew.
func (s *Service) end(ctx context.Context, d Record, status Status) error {
	d.unspoken()
	d.Status, d.NextAttemptAt = status, nil
	d.Version++
	if err := s.Store.UpdateDelivery(ctx, d); err != nil && !errors.Is(err, lifecycle.ErrChanged) {
		return err
	}
	return nil
}

// unspoken notes an attempt of which nobody said how it ended.
func (d *Record) unspoken() {
	if d.Claimed != nil {
		d.note(Attempt{At: d.Claimed.Add(-claimTime), Outcome: Unknown, Error: "nobody said how it ended"})
		d.Claimed = nil
	}
}

// note adds to the log.
func (d *Record) note(a Attempt) {
	d.Attempts = append(slices.Clone(d.Attempts), a)
	d.Attempts = d.Attempts[max(0, len(d.Attempts)-MaxLog):]
}

// noted says whether an attempt is in the log.
func (d *Record) noted(a Attempt) bool {
	return slices.ContainsFunc(d.Attempts, func(b Attempt) bool {
		same := b.At.Equal(a.At)
		b.At = a.At
		return same && b == a
	})
}

// attempt claims an attempt, makes it, and writes down how it ended, also if ctx ends meanwhile.
func (r *run) attempt(ctx context.Context, sub *Subscription, d Record, secrets []webhook.Secret) (well bool, err error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	now := r.now()
	d.unspoken()
	d.Tries++
	d.Claimed, d.NextAttemptAt = new(now.Add(claimTime)), new(now.Add(max(claimTime, d.wait())))
	d.Version++
	switch err := r.Store.UpdateDelivery(ctx, d); {
	case errors.Is(err, lifecycle.ErrChanged): // another tries
		return true, nil
	case err != nil:
		return false, err
	}
	_ = r.done(nil)
	came := r.Sender.Send(ctx, sub.URL, webhook.Message{ID: d.EventID, At: r.clock(), Body: d.Body}, secrets...)
	r.log(ctx, &d, came)
	ctx = context.WithoutCancel(ctx)
	if came.Outcome == webhook.Gone {
		err = r.disable(ctx, d.OrganizationID, sub.ID, sub.URL)
	}
	return answers(came), errors.Join(err, r.tell(ctx, d, attemptOf(now, came), came))
}

// wait is the time until the attempt after this one.
func (d *Record) wait() time.Duration {
	h := fnv.New64a()
	h.Write([]byte(d.ID))
	return work.Wait(h.Sum64(), d.Tries)
}

// answers says whether a receiver is well enough for its next event: it said something of this one, and not that it is busy
// (Standard Webhooks: 429, 502 and 504 ask for fewer).
func answers(came webhook.Result) bool {
	switch came.Status {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return true
}

// tell writes down how the attempt that claimed d ended.
func (s *Service) tell(ctx context.Context, claim Record, a Attempt, came webhook.Result) (err error) {
	d := claim
	for range tellings {
		if err == nil || !errors.Is(err, lifecycle.ErrChanged) {
			err = s.Store.UpdateDelivery(ctx, d.after(&claim, a, came, s.now()))
		}
		if err == nil {
			return nil
		}
		if s.pause(ctx) != nil {
			return err
		}
		var read Record
		if read, err = s.Store.Delivery(ctx, d.OrganizationID, d.ID); errors.Is(err, lifecycle.ErrNotFound) {
			return nil
		} else if err == nil {
			if d = read; d.noted(a) { // and only the answer was lost
				return nil
			}
		}
	}
	return err
}

// after is d when an attempt that began with claim has ended so. If the attempt was given up meanwhile, so that d is
// another's to decide, it is only noted, unless the event has arrived.
func (d Record) after(claim *Record, a Attempt, came webhook.Result, now time.Time) Record {
	ours := d.Status == Pending && d.Round == claim.Round && d.Tries == claim.Tries
	d.Version++
	d.note(a)
	switch {
	case came.Outcome == webhook.Delivered && d.Round == claim.Round:
		d.Status, d.NextAttemptAt, d.Claimed = Delivered, nil, nil
	case ours && (came.Outcome == webhook.Gone || d.Tries >= work.Attempts):
		d.Status, d.NextAttemptAt, d.Claimed = Failed, nil, nil
	case ours:
		d.Claimed, d.NextAttemptAt = nil, new(now.Add(max(d.wait(), came.RetryAfter)))
	}
	return d
}

func attemptOf(at time.Time, came webhook.Result) Attempt {
	return Attempt{At: at, Outcome: came.Outcome, Status: came.Status, DurationMS: came.Duration.Milliseconds(), Error: came.Err}
}

// log says how an attempt went, in words that hold nothing of the notice, nor the address, which may hold a secret.
func (s *Service) log(ctx context.Context, d *Record, came webhook.Result) {
	level := slog.LevelInfo
	if came.Outcome != webhook.Delivered {
		level = slog.LevelWarn
	}
	s.Log.LogAttrs(ctx, level, "event delivery",
		slog.String("id", d.ID),
		slog.String("organization_id", d.OrganizationID),
		slog.String("event_type", string(d.EventType)),
		slog.Int("attempt", d.Tries),
		slog.String("outcome", string(came.Outcome)),
		slog.Int("status", came.Status),
		slog.Float64("duration_ms", float64(came.Duration.Microseconds())/1000),
		slog.String("error", came.Err))
}
