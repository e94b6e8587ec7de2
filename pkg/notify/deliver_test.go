package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/webhook"
	"github.com/latchkey/latchkey/pkg/work"
)

func TestAnEventReachesEveryWebhookThatWantsItAndNoOther(t *testing.T) {
	h := newHouse(t)
	all, keys, exact, off := h.subscribe(t, hook+"1"), h.subscribe(t, hook+"2", "api_key.*"), h.subscribe(t, hook+"3", "webhook.deleted"), h.subscribe(t, hook+"4")
	if _, err := h.Update(acme(), off.ID, notify.Patch{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	h.subscribeIn(t, "other", hook+"5")
	events := h.happen("acme", audit.Created, audit.OrgUpdated, audit.WebhookDeleted)
	if err := h.Announce(t.Context(), "acme", events); err != nil {
		t.Fatal(err)
	}
	h.deliver(t)
	for url, want := range map[string][]int64{all.URL: {1, 2, 3}, keys.URL: {1}, exact.URL: {3}, off.URL: nil, hook + "5": nil} {
		if got := h.got(url); !slices.Equal(got, want) {
			t.Errorf("%s got %v, want %v", url, got, want)
		}
	}
}

func TestWhatIsSentIsTheEventItselfUnderItsOwnIDAndSigned(t *testing.T) {
	h := newHouse(t)
	h.secrets = append(h.secrets, webhook.NewSecret()) // one is being replaced
	h.subscribe(t, hook)
	e := h.announce(t, "acme", 1)[0]
	h.deliver(t)
	s := h.sent[0]
	var want, got any
	b, _ := json.Marshal(e)
	if json.Unmarshal(b, &want) != nil || json.Unmarshal(s.body, &got) != nil || !reflect.DeepEqual(got, want) || s.id != e.ID {
		t.Errorf("sent was %s as %s, want %s", s.body, s.id, b)
	}
	if strings.Contains(string(s.body), `\u003c`) {
		t.Errorf("%s is spelt for web pages", s.body)
	}
	for _, secret := range h.secrets {
		if err := webhook.Verify(s.header, s.body, noon, secret); err != nil {
			t.Error(err)
		}
	}
	if err := webhook.Verify(s.header, s.body, noon, webhook.NewSecret()); err == nil {
		t.Error("a stranger's secret verifies it")
	}
}

func TestWhatIsDeliveredIsLoggedAndNotSentAgain(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	e := h.announce(t, "acme", 1)[0]
	d := h.only(t, audit.Created)
	want := notify.Delivery{ID: "dlv_" + e.ID + "_" + sub.ID[3:], WebhookID: &sub.ID, KeyID: new(apikey.ID(7)), EventID: e.ID, EventType: audit.Created, Status: notify.Pending,
		Attempts: []notify.Attempt{}, NextAttemptAt: &noon, CreatedAt: noon}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("before: %+v, want %+v", d, want)
	}
	h.advance(time.Second)
	h.deliver(t)
	want.Status, want.NextAttemptAt = notify.Delivered, nil
	want.Attempts = []notify.Attempt{{At: noon.Add(time.Second), Outcome: webhook.Delivered, Status: 204, DurationMS: 12}}
	if d = h.only(t, audit.Created); !reflect.DeepEqual(d, want) {
		t.Errorf("after: %+v, want %+v", d, want)
	}
	detail, err := h.Delivery(acme(), d.ID)
	if err != nil || string(detail.Event) != string(h.sent[0].body) || !reflect.DeepEqual(detail.Delivery, want) {
		t.Errorf("%+v, %v", detail, err)
	}
	h.advance(100 * time.Hour)
	h.deliver(t)
	if got := h.got(hook); len(got) != 1 {
		t.Errorf("it was sent %d times", len(got))
	}
}

func TestAnEventThatIsAnnouncedAgainIsDeliveredOnce(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	events := h.happen("acme", audit.Created, audit.Revoked)
	for n := range 3 {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := h.Announce(context.Background(), "acme", events[:min(n+1, 2)]); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		h.deliver(t)
	}
	if got := h.got(hook); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("got %v", got)
	}
}

func TestAWebhookIsNotToldOfWhatWasLongBeforeIt(t *testing.T) {
	h := newHouse(t)
	old := h.happen("acme", audit.Created)
	h.advance(4 * time.Minute)
	late := h.happen("acme", audit.Revoked) // by a clock that is behind
	h.advance(4 * time.Minute)
	h.subscribe(t, hook)
	if err := h.Announce(t.Context(), "acme", append(old, late...)); err != nil {
		t.Fatal(err)
	}
	h.deliver(t)
	if got := h.got(hook); !slices.Equal(got, []int64{2}) {
		t.Errorf("got %v", got)
	}
}

func TestWhatFailsIsTriedByTheScheduleAndThenFailed(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	h.answers(func(sent) webhook.Result { return says(500) })
	for n := 1; n <= work.Attempts; n++ {
		h.deliver(t)
		h.deliver(t)
		d := h.only(t, audit.Created)
		if len(h.sent) != n || len(d.Attempts) != n || (d.Status == notify.Failed) != (n == work.Attempts) {
			t.Fatalf("after %d attempts: %d, %+v", n, len(h.sent), d)
		}
		if d.Status == notify.Failed {
			if d.NextAttemptAt != nil || h.clock().Sub(noon) < 75*time.Hour || h.clock().Sub(noon) > 84*time.Hour {
				t.Errorf("it ended after %v: %+v", h.clock().Sub(noon), d)
			}
			break
		}
		least, most := work.Wait(0, n)*10/11-time.Millisecond, work.Wait(0, n)*11/10
		wait := d.NextAttemptAt.Sub(h.clock())
		if wait < least || wait > most {
			t.Errorf("the wait after attempt %d is %v, want %v to %v", n, wait, least, most)
		}
		h.advance(wait - time.Millisecond)
		h.deliver(t)
		if len(h.sent) != n {
			t.Fatalf("attempt %d came early", n+1)
		}
		h.advance(time.Millisecond)
	}
	h.advance(500 * time.Hour)
	h.deliver(t)
	if len(h.sent) != work.Attempts {
		t.Errorf("it was sent %d times", len(h.sent))
	}
}

func TestAReceiverThatAsksForPatienceGetsIt(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	h.answers(func(sent) webhook.Result {
		r := says(429)
		r.RetryAfter = 3 * time.Hour
		return r
	})
	h.deliver(t)
	if d := h.only(t, audit.Created); !d.NextAttemptAt.Equal(noon.Add(3 * time.Hour)) {
		t.Errorf("tried again at %v", d.NextAttemptAt)
	}
}

func TestAReceiverThatWantsNoMoreGetsNoMore(t *testing.T) {
	h := newHouse(t)
	sub, other := h.subscribe(t, hook), h.subscribe(t, hook+"2")
	h.announce(t, "acme", 3)
	h.answers(func(s sent) webhook.Result {
		if s.url == hook {
			return says(410)
		}
		return delivered
	})
	h.deliver(t)
	got, err := h.Get(acme(), sub.ID)
	if err != nil || got.Enabled || got.DisabledReason == nil || *got.DisabledReason != notify.Gone {
		t.Fatalf("%+v, %v", got, err)
	}
	if first, others := h.got(hook), h.got(hook+"2"); len(first) != 1 || len(others) != 3 {
		t.Errorf("it got %v, and the other %v", first, others)
	}
	var statuses []notify.Status
	for _, d := range h.list(t, notify.DeliveryFilter{WebhookID: sub.ID}) {
		statuses = append(statuses, d.Status)
	}
	if !slices.Equal(statuses, []notify.Status{notify.Canceled, notify.Canceled, notify.Failed}) {
		t.Errorf("its deliveries are %v", statuses)
	}
	entries, _, err := h.memory.Entries(t.Context(), lifecycle.EntryQuery{OrganizationID: "acme", Limit: 1})
	if b, _ := json.Marshal(entries[0]); err != nil || entries[0].Action != audit.WebhookDisabled || entries[0].ActorID != "latchkey" || !strings.Contains(string(b), `"to":"gone"`) {
		t.Errorf("%s, %v", b, err)
	}
	enabled, err := h.Update(acme(), sub.ID, notify.Patch{Enabled: new(true)})
	if err != nil || !enabled.Enabled || enabled.DisabledReason != nil {
		t.Errorf("%+v, %v", enabled, err)
	}
	h.announce(t, "acme", 1)
	h.deliver(t)
	if len(h.trail(t, "acme")) != 5 || len(h.got(other.URL)) != 1 {
		t.Errorf("the trail has %v", h.trail(t, "acme"))
	}
}

func TestAnAddressThatWasChangedMeanwhileIsNotGone(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	h.answers(func(sent) webhook.Result {
		if _, err := h.Update(acme(), sub.ID, notify.Patch{URL: new(hook + "2")}); err != nil {
			t.Error(err)
		}
		return says(410)
	})
	h.deliver(t)
	if got, err := h.Get(acme(), sub.ID); err != nil || !got.Enabled {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatIsPendingForAWebhookThatIsNoMoreIsCanceled(t *testing.T) {
	for name, end := range map[string]func(*house, string) error{
		"deleted": func(h *house, id string) error { return h.Delete(acme(), id) },
		"disabled": func(h *house, id string) error {
			_, err := h.Update(acme(), id, notify.Patch{Enabled: new(false)})
			return err
		},
	} {
		h := newHouse(t)
		sub := h.subscribe(t, hook)
		h.announce(t, "acme", 1)
		if err := end(h, sub.ID); err != nil {
			t.Fatal(err)
		}
		h.deliver(t)
		if d := h.only(t, audit.Created); len(h.sent) > 0 || d.Status != notify.Canceled || d.NextAttemptAt != nil {
			t.Errorf("%s: %+v", name, d)
		}
		_, err := h.Redeliver(acme(), h.only(t, audit.Created).ID)
		wantCode(t, err, apikey.WrongState)
	}
}

func TestABacklogOfAWebhookThatIsNoMoreIsCanceledInOneRun(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	h.announce(t, "acme", 300)
	if err := h.Delete(acme(), sub.ID); err != nil {
		t.Fatal(err)
	}
	h.deliver(t)
	if n := len(h.list(t, notify.DeliveryFilter{Status: notify.Canceled})); n != 300 {
		t.Errorf("%d of 300 are canceled", n)
	}
}

// lostAnswers is a store whose next changes take effect and are not known to have.
type lostAnswers struct {
	notify.Store
	lose func(notify.Record) bool
}

func (s lostAnswers) UpdateDelivery(ctx context.Context, r notify.Record) error {
	err := s.Store.UpdateDelivery(ctx, r)
	if err == nil && s.lose(r) {
		return errors.New("the answer is lost")
	}
	return err
}

func TestAnAttemptWhoseNoteWasLostOnItsWayBackIsInTheLogOnce(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.answers(func(sent) webhook.Result { return says(500) })
	lost := 0
	h.Store = lostAnswers{h.memory, func(r notify.Record) bool {
		if len(r.Attempts) > 0 {
			lost++
		}
		return lost == 1 && len(r.Attempts) > 0
	}}
	h.announce(t, "acme", 1)
	h.deliver(t)
	if d := h.only(t, audit.Created); lost == 0 || len(d.Attempts) != 1 {
		t.Errorf("%d answers were lost; the log has %+v", lost, d.Attempts)
	}
}

func TestAnEventTooLongForAnyReceiverIsToldInTheLog(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	events := h.happen("acme", audit.Created)
	events[0].Data.Changes = []audit.Change{{Field: "name", To: json.RawMessage(`"` + strings.Repeat("a", webhook.MaxBody) + `"`)}}
	if err := h.Announce(t.Context(), "acme", events); err != nil {
		t.Fatal(err)
	}
	h.deliver(t)
	d := h.only(t, audit.Created)
	if d.Status != notify.Failed || len(d.Attempts) != 1 || d.Attempts[0].Outcome != webhook.Refused || len(h.sent) > 0 {
		t.Errorf("%+v", d)
	}
	_, err := h.Redeliver(acme(), d.ID)
	wantCode(t, err, apikey.WrongState)
}

func TestADeliveryIsMadeAgainUnderTheSameID(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	e := h.announce(t, "acme", 1)[0]
	h.deliver(t)
	id := h.only(t, audit.Created).ID
	h.advance(time.Hour)
	d, err := h.Redeliver(acme(), id)
	if err != nil || d.Status != notify.Pending || !d.NextAttemptAt.Equal(h.clock()) {
		t.Fatalf("%+v, %v", d, err)
	}
	h.answers(func(sent) webhook.Result { return says(500) })
	for n := 1; n <= work.Attempts; n++ { // the whole schedule again
		h.deliver(t)
		h.advance(30 * time.Hour)
	}
	d = h.only(t, audit.Created)
	if d.Status != notify.Failed || len(d.Attempts) != 1+work.Attempts || len(h.sent) != 1+work.Attempts || h.sent[5].id != e.ID {
		t.Errorf("%+v", d)
	}
	for range 4 {
		if _, err := h.Redeliver(acme(), id); err != nil {
			t.Fatal(err)
		}
		for range work.Attempts {
			h.deliver(t)
			h.advance(30 * time.Hour)
		}
	}
	if d = h.only(t, audit.Created); len(d.Attempts) != notify.MaxLog {
		t.Errorf("%d attempts are remembered", len(d.Attempts))
	}
}

func TestAPendingDeliveryIsMadeAtOnceWhenAskedFor(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	h.answers(func(sent) webhook.Result { return says(500) })
	h.deliver(t)
	h.answers(nil)
	if d, err := h.Redeliver(acme(), h.only(t, audit.Created).ID); err != nil || !d.NextAttemptAt.Equal(noon) {
		t.Fatalf("%+v, %v", d, err)
	}
	h.deliver(t)
	if d := h.only(t, audit.Created); d.Status != notify.Delivered || len(d.Attempts) != 2 {
		t.Errorf("%+v", d)
	}
}

func TestADeliveryWhoseLastAttemptNobodySpokeOfIsMadeAgainWhenAskedFor(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	r, err := h.memory.Delivery(t.Context(), "acme", h.only(t, audit.Created).ID)
	if err != nil {
		t.Fatal(err)
	}
	claimed, next := noon.Add(time.Minute), noon.Add(24*time.Hour)
	r.Tries, r.Claimed, r.NextAttemptAt, r.Version = work.Attempts, &claimed, &next, r.Version+1
	if err := h.memory.UpdateDelivery(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	h.advance(2 * time.Minute)
	if _, err := h.Redeliver(acme(), r.ID); err != nil {
		t.Fatal(err)
	}
	h.deliver(t)
	d := h.only(t, audit.Created)
	if d.Status != notify.Delivered || len(d.Attempts) != 2 || d.Attempts[0].Outcome != notify.Unknown || len(h.got(hook)) != 1 {
		t.Errorf("it is %+v", d)
	}
}

func TestADeliveryThatIsAskedForDuringItsAttemptIsNotMadeTwice(t *testing.T) {
	for _, came := range []webhook.Result{delivered, says(500)} {
		h := newHouse(t)
		h.subscribe(t, hook)
		h.announce(t, "acme", 1)
		id := h.only(t, audit.Created).ID
		h.answers(func(sent) webhook.Result {
			if d, err := h.Redeliver(acme(), id); err != nil || d.Status != notify.Pending {
				t.Errorf("%+v, %v", d, err)
			}
			h.deliver(t) // another is at work too
			return came
		})
		h.deliver(t)
		if d := h.only(t, audit.Created); len(h.sent) != 1 || len(d.Attempts) != 1 {
			t.Errorf("%+v", d)
		}
	}
}

// An attempt that stands still for longer than its claim is made by another too. What it says when it wakes is noted, and
// decides nothing but that the event has arrived.
func TestAnAttemptThatWakesLateDecidesNothing(t *testing.T) {
	for _, c := range []struct {
		late, other webhook.Result
		want        notify.Status
	}{{says(500), delivered, notify.Delivered}, {delivered, says(500), notify.Delivered}, {says(500), says(500), notify.Pending}} {
		h := newHouse(t)
		h.subscribe(t, hook)
		h.announce(t, "acme", 1)
		first := true
		h.answers(func(sent) webhook.Result {
			if !first {
				return c.other
			}
			first = false
			h.advance(2 * time.Minute)
			h.deliver(t)
			return c.late
		})
		h.deliver(t)
		d := h.only(t, audit.Created)
		if d.Status != c.want || (d.NextAttemptAt != nil) != (c.want == notify.Pending) || len(d.Attempts) != 3 || d.Attempts[0].Outcome != notify.Unknown {
			t.Errorf("%v, then %v: %+v", c.other.Status, c.late.Status, d)
		}
		if c.want == notify.Pending && !d.NextAttemptAt.After(h.clock().Add(4*time.Minute)) {
			t.Errorf("the next attempt is at %v", d.NextAttemptAt)
		}
	}
}

func TestOfSeveralWhoDeliverAtOnceOneMakesEachAttempt(t *testing.T) {
	h := newHouse(t)
	for n := range 5 {
		h.subscribe(t, fmt.Sprint(hook, n))
	}
	h.announce(t, "acme", 40)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := h.Deliver(context.Background(), 5000); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for n := range 5 {
		got := h.got(fmt.Sprint(hook, n))
		slices.Sort(got)
		if len(got) != 40 || got[0] != 1 || len(slices.Compact(got)) != 40 {
			t.Errorf("%d got %v", n, got)
		}
	}
}

// watched is a store that has something happen before a delivery is written, and refuses whoever may not wait any more.
type watched struct {
	notify.Store
	before func(notify.Record)
}

func (w *watched) UpdateDelivery(ctx context.Context, r notify.Record) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.before(r)
	return w.Store.UpdateDelivery(ctx, r)
}

func TestWhoeverComesSecondWithAClaimSendsNothing(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	first := true
	h.Store = &watched{h.memory, func(notify.Record) {
		if first {
			first = false
			h.deliver(t)
		}
	}}
	h.deliver(t)
	if d := h.only(t, audit.Created); len(h.sent) != 1 || d.Status != notify.Delivered {
		t.Errorf("%d were sent: %+v", len(h.sent), d)
	}
}

func TestAnAttemptUnderWayIsNotMadeByAnotherForAMinute(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	h.answers(func(sent) webhook.Result {
		h.advance(59 * time.Second)
		h.deliver(t)
		return delivered
	})
	h.deliver(t)
	if len(h.sent) != 1 {
		t.Errorf("it was sent %d times", len(h.sent))
	}
}

func TestHowAnAttemptEndedIsWrittenDownAlsoWhenItsRunIsOver(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	h.announce(t, "acme", 2)
	ctx, cancel := context.WithCancel(t.Context())
	h.Store = &watched{h.memory, func(notify.Record) {}}
	h.answers(func(sent) webhook.Result { cancel(); return says(410) })
	if _, err := h.Deliver(ctx, 100); err != nil {
		t.Fatal(err)
	}
	got, err := h.Get(acme(), sub.ID)
	if failed := h.list(t, notify.DeliveryFilter{Status: notify.Failed}); err != nil || got.Enabled || len(failed) != 1 || len(h.sent) != 1 {
		t.Errorf("%+v, %+v, %v", got, failed, err)
	}
}

func TestFirstAttemptsAreMadeInTheOrderOfTheChain(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.subscribe(t, hook+"2", "*")
	var want []int64
	for n := range int64(300) { // several turns
		want = append(want, n+1)
	}
	h.answers(func(s sent) webhook.Result {
		if s.event.Data.Chain.Sequence%7 == 0 {
			return says(500)
		}
		return delivered
	})
	h.announce(t, "acme", 100)
	h.advance(time.Second)
	h.announce(t, "acme", 200)
	h.deliver(t)
	for _, url := range []string{hook, hook + "2"} {
		if got := h.got(url); !slices.Equal(got, want) {
			t.Errorf("%s got %v", url, got)
		}
	}
}

func TestABusyOrganizationHoldsUpNobodyInItsPart(t *testing.T) {
	h := newHouse(t)
	h.Senders = 1
	h.subscribe(t, hook)
	mate := ""
	for n := 0; mate == ""; n++ {
		if name := fmt.Sprint("org_", n); work.ShardOf(name) == work.ShardOf("acme") {
			mate = name
		}
	}
	h.subscribeIn(t, mate, hook+"2")
	h.announce(t, "acme", 1000)
	h.advance(time.Second)
	h.announce(t, mate, 3)
	if _, err := h.Deliver(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	if first, others := h.got(hook), h.got(hook+"2"); len(others) != 3 || len(first) < 47 {
		t.Errorf("the busy one got %d, the other %v", len(first), others)
	}
}

func TestAReceiverThatIsSlowDoesNotSlowDownOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = "https://slow.example.com/"
		h := newHouse(t)
		h.subscribeIn(t, "globex", slow)
		h.subscribe(t, hook)
		h.answers(func(s sent) webhook.Result {
			if s.url == slow {
				time.Sleep(14 * time.Second)
			} else {
				time.Sleep(20 * time.Millisecond)
			}
			return delivered
		})
		h.announce(t, "globex", 50)
		h.announce(t, "acme", 900)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := h.Deliver(ctx, 5000); err != nil {
			t.Fatal(err)
		}
		got, late := h.got(hook), h.got(slow)
		if len(got) != 900 || !slices.IsSorted(got) {
			t.Errorf("beside one that is slow %d of 900 arrived, in order: %t", len(got), slices.IsSorted(got))
		}
		if !slices.Equal(late, []int64{1, 2, 3}) {
			t.Errorf("the slow one got %v", late)
		}
	})
}

func TestWhatBecomesDueWhileAReceiverHangsDoesNotWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hangs = "https://hangs.example.com/"
		h := newHouse(t)
		h.subscribeIn(t, "globex", hangs)
		h.subscribe(t, hook)
		brought := make(chan time.Time, 1)
		h.answers(func(s sent) webhook.Result {
			if s.url == hangs {
				time.Sleep(15 * time.Second)
				return silent
			}
			brought <- time.Now()
			return delivered
		})
		h.announce(t, "globex", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := h.Deliver(ctx, 5000); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(5 * time.Second)
		began := time.Now()
		h.announce(t, "acme", 1)
		<-done
		if took := (<-brought).Sub(began); took > 2*time.Second {
			t.Errorf("it was brought after %v", took)
		}
	})
}

func TestAReceiverThatDoesNotAnswerIsAskedOnceInARun(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.subscribe(t, hook+"2")
	h.announce(t, "acme", 200)
	for _, came := range []webhook.Result{silent, says(429), says(503)} {
		h.answers(func(s sent) webhook.Result {
			if s.url == hook {
				return came
			}
			return delivered
		})
		h.deliver(t)
		if got := h.got(hook); len(got) != 1 {
			t.Errorf("it was asked %d times", len(got))
		}
	}
	if got := h.got(hook + "2"); len(got) != 200 {
		t.Errorf("the other got %d", len(got))
	}
	h.answers(nil)
	h.deliver(t)
	if got := h.got(hook); len(got) != 197 { // three wait for their retries
		t.Errorf("when it answers again it gets %d", len(got))
	}
}

func TestWhatWaitsForADeadReceiverEndsWithTheSchedule(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	h.announce(t, "acme", 60)
	h.answers(func(sent) webhook.Result { return silent })
	h.deliver(t)
	h.advance(79 * time.Hour)
	h.deliver(t)
	if n := len(h.list(t, notify.DeliveryFilter{Status: notify.Pending})); n != 60 {
		t.Errorf("%d are pending", n)
	}
	h.advance(2 * time.Hour)
	h.deliver(t)
	failed := len(h.list(t, notify.DeliveryFilter{Status: notify.Failed, WebhookID: sub.ID}))
	h.deliver(t)
	again := len(h.list(t, notify.DeliveryFilter{Status: notify.Failed}))
	if failed < 50 || again < 57 || len(h.sent) > 5 {
		t.Errorf("%d and then %d have failed, with %d attempts", failed, again, len(h.sent))
	}
	h.advance(time.Hour)
	d, err := h.Redeliver(acme(), h.list(t, notify.DeliveryFilter{Status: notify.Failed})[0].ID)
	if err != nil || d.Status != notify.Pending {
		t.Fatalf("%+v, %v", d, err)
	}
	h.deliver(t)
	h.deliver(t)
	if got, err := h.Delivery(acme(), d.ID); err != nil || got.Status != notify.Pending {
		t.Errorf("asked for again while the receiver is dead: %+v, %v", got, err)
	}
	h.answers(nil)
	h.advance(10 * time.Minute)
	h.deliver(t)
	if got, err := h.Delivery(acme(), d.ID); err != nil || got.Status != notify.Delivered {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestATestIsSentAtOnceAndLogged(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook, "api_key.created")
	if _, err := h.Update(acme(), sub.ID, notify.Patch{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	for came, want := range map[webhook.Result]notify.Status{delivered: notify.Delivered, says(410): notify.Failed, silent: notify.Failed} {
		h.answers(func(sent) webhook.Result { return came })
		d, err := h.Test(acme(), sub.ID)
		if err != nil || d.Status != want || d.EventType != notify.TestEvent || len(d.Attempts) != 1 || d.Attempts[0].Status != came.Status || d.NextAttemptAt != nil {
			t.Errorf("%+v, %v", d, err)
		}
		logged, err := h.Delivery(acme(), d.ID)
		if err != nil || !reflect.DeepEqual(logged.Delivery, d) || !strings.Contains(string(logged.Event), `"type":"webhook.test"`) {
			t.Errorf("%+v, %v", logged, err)
		}
		if _, err := h.Redeliver(acme(), d.ID); apikey.CodeOf(err) != apikey.WrongState {
			t.Errorf("a test is sent again: %v", err)
		}
	}
	if err := webhook.Verify(h.sent[0].header, h.sent[0].body, noon, h.secrets...); err != nil {
		t.Error(err)
	}
	h.deliver(t)
	if len(h.sent) != 3 || len(h.trail(t, "acme")) != 2 {
		t.Errorf("%d were sent, and the trail has %v", len(h.sent), h.trail(t, "acme"))
	}
}

func TestAHandoverIsInTheLogWithoutWhatItBrought(t *testing.T) {
	h := newHouse(t)
	p := lifecycle.Parcel{ID: "handover-key_8", Attempt: 1, StartedAt: noon.Add(-time.Minute), Next: noon.Add(5 * time.Minute)}
	p.Old.ID, p.Old.OrganizationID, p.New.Key.ID, p.New.Plaintext = 7, "acme", 8, apikey.NewPlaintext("lk_live_secret")
	h.NoteHandover(t.Context(), p, says(500))
	d := h.only(t, audit.Rotated)
	if d.WebhookID != nil || *d.KeyID != 7 || d.EventID != p.ID || d.Status != notify.Pending || !d.NextAttemptAt.Equal(p.Next) || len(d.Attempts) != 1 {
		t.Errorf("%+v", d)
	}
	h.deliver(t)
	h.advance(time.Hour)
	h.deliver(t)
	_, err := h.Redeliver(acme(), d.ID)
	wantCode(t, err, apikey.WrongState)
	h.advance(24 * time.Hour)
	if d = h.only(t, audit.Rotated); d.Status != notify.Failed || d.NextAttemptAt != nil || len(h.sent) > 0 {
		t.Errorf("nobody tried again: %+v", d)
	}
	p.Attempt, p.Next = 2, h.clock().Add(time.Hour)
	busy := says(429)
	busy.RetryAfter = 3 * time.Hour
	h.NoteHandover(t.Context(), p, busy)
	if d = h.only(t, audit.Rotated); d.Status != notify.Pending || !d.NextAttemptAt.Equal(h.clock().Add(3*time.Hour)) {
		t.Errorf("tried again: %+v", d)
	}
	p.Attempt = 3
	h.NoteHandover(t.Context(), p, delivered)
	h.NoteHandover(t.Context(), p, says(500)) // one that came late
	detail, err := h.Delivery(acme(), d.ID)
	if err != nil || detail.Status != notify.Delivered || len(detail.Attempts) != 4 || detail.Event != nil {
		t.Errorf("%+v, %v", detail, err)
	}
	b, _ := json.Marshal(detail)
	if !strings.Contains(string(b), `"event":null`) || strings.Contains(string(b)+h.logs.String(), "secret") {
		t.Errorf("%s", b)
	}
}

func TestTheLogIsFilteredAndReadInPages(t *testing.T) {
	h := newHouse(t)
	one, two := h.subscribe(t, hook), h.subscribe(t, hook+"2")
	h.announce(t, "acme", 120)
	h.answers(func(s sent) webhook.Result {
		if s.url == hook {
			return says(500)
		}
		return delivered
	})
	h.deliver(t)
	for _, c := range []struct {
		f    notify.DeliveryFilter
		want int
	}{
		{notify.DeliveryFilter{}, 240},
		{notify.DeliveryFilter{WebhookID: one.ID}, 120},
		{notify.DeliveryFilter{WebhookID: two.ID, Status: notify.Delivered, KeyID: 7}, 120},
		{notify.DeliveryFilter{WebhookID: two.ID, Status: notify.Pending}, 0},
		{notify.DeliveryFilter{KeyID: 8}, 0},
	} {
		c.f.Limit = 7
		seen := map[string]bool{}
		last := "~"
		for more := true; more; {
			page, next, err := h.Deliveries(acme(), c.f)
			if err != nil || len(page) > 7 {
				t.Fatalf("%d, %v", len(page), err)
			}
			for _, d := range page {
				if d.ID >= last {
					t.Errorf("%s comes after %s", d.ID, last)
				}
				last, seen[d.ID] = d.ID, true
			}
			c.f.Cursor, more = next, next != ""
		}
		if len(seen) != c.want {
			t.Errorf("%+v: %d, want %d", c.f, len(seen), c.want)
		}
	}
	for _, f := range []notify.DeliveryFilter{{Limit: -1}, {Limit: 1001}, {Cursor: "key_1"}, {Cursor: "dlv_#"}} {
		_, _, err := h.Deliveries(acme(), f)
		wantCode(t, err, apikey.InvalidFields)
	}
	h.advance(notify.Keep)
	if list := h.list(t, notify.DeliveryFilter{}); len(list) > 0 {
		t.Errorf("%d are still shown", len(list))
	}
}

func TestNoLogHoldsAnAddressASecretOrAnEvent(t *testing.T) {
	h := newHouse(t)
	const secretive = hook + "/T0KEN?key=T0KEN"
	sub := h.subscribe(t, secretive)
	h.announce(t, "acme", 3)
	answers := []webhook.Result{delivered, silent, says(410)}
	var n atomic.Int32
	h.answers(func(sent) webhook.Result { return answers[n.Add(1)%3] })
	for range 3 {
		h.deliver(t)
		h.advance(time.Hour)
	}
	_, _ = h.Test(acme(), sub.ID)
	logs := h.logs.String()
	list, _ := json.Marshal(h.list(t, notify.DeliveryFilter{}))
	for _, secret := range []string{"T0KEN", "whsec_", h.secrets[0].Reveal(), "first & last", "first \\u0026 last"} {
		if strings.Contains(logs, secret) || strings.Contains(string(list), secret) {
			t.Errorf("%q stands in the log", secret)
		}
	}
	if strings.Count(logs, `"msg":"event delivery"`) != len(h.sent) {
		t.Errorf("%d attempts are logged of %d:\n%s", strings.Count(logs, `"msg":"event delivery"`), len(h.sent), logs)
	}
}

// Whatever call of the store fails, in announcing, claiming, sending or writing down, every event is delivered in the end;
// and only where an answer was lost, or a process died after it had sent, is one sent twice.
func TestWhateverCallFailsEveryEventArrives(t *testing.T) {
	var h *house
	open := func(t *testing.T) storetest.Store { h = newHouse(t); return h.memory }
	storetest.Everywhere(t, storetest.Faults(), open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
		h.Senders = 1
		h.subscribe(t, hook)
		h.subscribe(t, hook+"2")
		h.Store = faulty
		events := h.happen("acme", audit.Created, audit.Revoked)
		if err := h.Announce(t.Context(), "acme", events); err != nil {
			if err := h.Announce(t.Context(), "acme", events); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = h.Deliver(t.Context(), 100)
		h.Store = bare
		for range 3 {
			h.advance(10 * time.Minute)
			h.deliver(t)
		}
		for _, url := range []string{hook, hook + "2"} {
			got := h.got(url)
			if len(got) < 2 || len(got) > 3 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 2 {
				t.Errorf("%s got %v", url, got)
			}
		}
		for _, d := range h.list(t, notify.DeliveryFilter{}) {
			if d.Status != notify.Delivered {
				t.Errorf("%+v", d)
			}
		}
	})
}

// A process may die at any call: nothing that it would have done after it is done.
func TestWhereverAProcessDiesAnotherDelivers(t *testing.T) {
	type death struct{}
	for n := 1; ; n++ {
		h := newHouse(t)
		h.Senders = 1
		h.subscribe(t, hook)
		h.announce(t, "acme", 2)
		died := false
		h.Store = storetest.NewFaulty(h.memory, func(c storetest.Call) storetest.Fault {
			if c.N == n {
				died = true
				panic(death{})
			}
			return storetest.Fault{}
		})
		func() {
			defer func() { _ = recover() }()
			_, _ = h.Deliver(t.Context(), 100)
		}()
		h.Store = h.memory
		h.advance(2 * time.Minute)
		h.deliver(t)
		if got := h.got(hook); len(slices.Compact(slices.Sorted(slices.Values(got)))) != 2 || len(got) > 3 {
			t.Errorf("dead at call %d: got %v", n, got)
		}
		for _, d := range h.list(t, notify.DeliveryFilter{}) {
			if d.Status != notify.Delivered {
				t.Errorf("dead at call %d: %+v", n, d)
			}
		}
		if !died {
			break
		}
	}
}

func TestWithoutWhatToSignWithNothingIsSentAndNothingLost(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 2)
	with := h.Secrets
	h.Secrets = func(context.Context, string) ([]webhook.Secret, error) {
		return nil, apikey.Errorf(apikey.NoSealingKey, "none")
	}
	done, err := h.Deliver(t.Context(), 100)
	if err != nil || done.Failed != 1 || len(h.sent) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	_, err = h.Create(acme(), notify.New{URL: hook, EventTypes: []string{"*"}})
	wantCode(t, err, apikey.NoSealingKey)
	h.Secrets = with
	h.deliver(t)
	if got := h.got(hook); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("got %v", got)
	}
}

func TestARunBeginsNothingThatItHasNoTimeFor(t *testing.T) {
	h := newHouse(t)
	h.subscribe(t, hook)
	h.announce(t, "acme", 2)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	done, err := h.Deliver(ctx, 100)
	if err != nil || !done.More || len(h.sent) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if d := h.list(t, notify.DeliveryFilter{})[0]; d.Status != notify.Pending {
		t.Errorf("%+v", d)
	}
}
