package lifecycle_test

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/storetest"
)

const day = 24 * time.Hour

// news sweeps every hour for a time, twice each hour, and returns what it tells: the actions, with the days left of those
// that have some.
func (h *house) news(t *testing.T, d time.Duration) (list []string) {
	t.Helper()
	before := len(h.actions(t))
	for ; d > 0; d -= time.Hour {
		h.advance(min(d, time.Hour))
		h.sweep(t)
		h.sweep(t)
	}
	entries, _, err := h.Audit(admin(), lifecycle.AuditFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(entries)
	for _, e := range entries[before:] {
		text := strings.TrimPrefix(string(e.Action), "api_key.")
		if e.Action == audit.Expiring {
			text += " " + string(e.Changes[0].To)
		}
		list = append(list, text)
	}
	return list
}

func (h *house) wantNews(t *testing.T, d time.Duration, want ...string) {
	t.Helper()
	if got := h.news(t, d); !slices.Equal(got, want) {
		t.Fatalf("told %q, want %q", got, want)
	}
}

func expiring(h *house, after time.Duration) lifecycle.New {
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: h.clock().Add(after)}
	return n
}

func TestAnOrganizationIsToldOfAnExpiryAtEachLeadOnceAndOfTheEnd(t *testing.T) {
	for life, want := range map[time.Duration][]string{
		40 * day:  {"expiring 30", "expiring 14", "expiring 7", "expiring 1", "expired"},
		30 * day:  {"expiring 14", "expiring 7", "expiring 1", "expired"},
		10 * day:  {"expiring 7", "expiring 1", "expired"},
		day:       {"expired"},
		time.Hour: {"expired"},
	} {
		h := newHouse(t, "trial")
		k := h.mustCreate(t, expiring(h, life))
		h.wantNews(t, life+3*day, want...)
		if h.activeKeys(t) != 0 || h.verify(k) != apikey.ExpiredKey {
			t.Errorf("%v: %d keys are counted", life, h.activeKeys(t))
		}
	}
}

func TestAChangedExpiryIsToldOfAnew(t *testing.T) {
	h := newHouse(t, "trial")
	k := h.mustCreate(t, expiring(h, 40*day)).Key
	h.wantNews(t, 11*day, "expiring 30")
	end := func(after time.Duration) {
		t.Helper()
		m := lifecycle.Moment{Time: h.clock().Add(after)}
		if _, err := h.Update(admin(), k.ID, 0, lifecycle.Patch{ExpiresAt: lifecycle.Maybe[lifecycle.Moment]{Said: true, V: &m}}); err != nil {
			t.Fatal(err)
		}
	}
	end(5 * day)
	h.wantNews(t, 3*day)
	end(45 * day)
	h.wantNews(t, 20*day, "expiring 30")
	if _, err := h.Update(admin(), k.ID, 0, lifecycle.Patch{ExpiresAt: lifecycle.Maybe[lifecycle.Moment]{Said: true}}); err != nil {
		t.Fatal(err)
	}
	h.wantNews(t, 60*day)
	end(2 * day)
	h.wantNews(t, 3*day, "expiring 1", "expired")
	end(2 * day)
	h.wantNews(t, 3*day, "expiring 1", "expired")
}

func TestASweepThatComesLateTellsHowItIsNow(t *testing.T) {
	h := newHouse(t, "trial")
	h.mustCreate(t, expiring(h, 40*day))
	h.advance(37 * day)
	h.wantNews(t, time.Hour, "expiring 3")
	h.advance(7 * day)
	h.wantNews(t, 3*day, "expired")
}

func TestAKeyThatEndedBeforeItsRotationCouldBeginIsNotRotated(t *testing.T) {
	h := newHouse(t, "trial")
	h.Seal = seal.NewLocal([32]byte{1})
	n := expiring(h, 2*day)
	n.RotationIntervalDays, n.RotationWebhookURL = new(1), new("https://example.com/rotated")
	h.mustCreate(t, n)
	h.advance(5 * day)
	h.wantNews(t, 5*day, "expired")
}

func TestTheEndOfAGraceIsTold(t *testing.T) {
	h := newHouse(t, "trial")
	k := h.mustCreate(t, basic())
	if _, err := h.Rotate(admin(), k.Key.ID, new(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	h.wantNews(t, day, "rotation_completed")
	if h.activeKeys(t) != 1 {
		t.Fatalf("%d keys are counted", h.activeKeys(t))
	}
}

func TestARotationWithNobodyToGiveItToIsRememberedOnceUntilThereIsSomeone(t *testing.T) {
	for _, lacks := range []string{"receiver", "sealer"} {
		h := newHouse(t, "trial")
		n := basic()
		n.RotationIntervalDays = new(3)
		if lacks == "sealer" {
			n.RotationWebhookURL = new("https://example.com/rotated")
		} else {
			h.Seal = seal.NewLocal([32]byte{1})
		}
		k := h.mustCreate(t, n)
		h.wantNews(t, 9*day, "rotation_due")
		if got := h.shown(t, k.Key.ID); got.NextRotationAt == nil || got.NextRotationAt.After(h.clock()) || got.ReplacedByKeyID != nil {
			t.Fatalf("without a %s: %+v", lacks, got)
		}
		h.Seal = seal.NewLocal([32]byte{1})
		if _, err := h.Update(admin(), k.Key.ID, 0, lifecycle.Patch{RotationWebhookURL: lifecycle.Maybe[string]{Said: true, V: new("https://example.com/rotated")}, Name: new("somebody")}); err != nil {
			t.Fatal(err)
		}
		h.wantNews(t, time.Hour, "rotation_started")
	}
}

func TestADisabledKeyIsRotatedWhenItIsEnabled(t *testing.T) {
	h, k := scheduled(t)
	patch := func(enabled bool) {
		t.Helper()
		if _, err := h.Update(admin(), k.Key.ID, 0, lifecycle.Patch{Enabled: &enabled}); err != nil {
			t.Fatal(err)
		}
	}
	patch(false)
	h.wantNews(t, 9*day)
	patch(true)
	h.wantNews(t, time.Hour, "rotation_started")
}

func TestAKeyThatIsNotUsedIsToldOfEachTimeItWasUsedInBetween(t *testing.T) {
	h := newHouse(t, "trial")
	h.StaleAfter = 30 * day
	k := h.mustCreate(t, basic())
	h.news(t, 20*day)
	h.verify(k)
	h.wantNews(t, 29*day)
	h.wantNews(t, 2*day, "stale")
	h.wantNews(t, 100*day)
	h.verify(k)
	h.wantNews(t, 20*day)
	h.wantNews(t, 41*day, "stale") // it is looked at once in so many days
	h.wantNews(t, 100*day)
}

func TestAGraceThatSomebodySetIsNotShortened(t *testing.T) {
	h, old := scheduled(t)
	h.advance(day)
	h.sweep(t)
	successor := h.deliver(t, lifecycle.Delivered)[0].New
	h.advance(5 * day)
	if _, err := h.ExtendGrace(admin(), old.Key.ID, 6*day); err != nil {
		t.Fatal(err)
	}
	h.verify(successor)
	h.wantNews(t, 5*day)
	if h.verify(old) != apikey.Valid {
		t.Fatal("the old key ended before its time")
	}
	h.wantNews(t, 2*day, "rotation_completed", "rotation_started")
}

// handing is a house whose key's successor waits to be delivered, and both.
func handing(t *testing.T) (h *house, old apikey.Issued, successor apikey.ID) {
	t.Helper()
	h, old = scheduled(t)
	h.advance(day)
	h.sweep(t)
	next := h.shown(t, old.Key.ID).ReplacedByKeyID
	if next == nil {
		t.Fatal("no rotation has begun")
	}
	return h, old, *next
}

// sealed says whether a copy of a successor's secret rests.
func (h *house) sealed(t *testing.T, id apikey.ID) bool {
	t.Helper()
	r, err := h.memory.Key(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := h.memory.Replay(context.Background(), "handover-"+id.String())
	if err != nil || (kept.Sealed != nil) != (r.Sealed != nil) || (r.Sealed != nil) != (r.Handover != nil) {
		t.Fatalf("a copy rests: %v; the key knows of %v in %v; %v", kept.Sealed != nil, r.Sealed, r.Handover, err)
	}
	return kept.Sealed != nil
}

// untaken lets the window go by, with nobody there.
func (h *house) untaken(t *testing.T) {
	t.Helper()
	for range 80 {
		h.deliver(t, lifecycle.Missed)
		h.advance(time.Hour)
		h.sweep(t)
	}
}

func TestARevokedSuccessorGivesItsPlaceBack(t *testing.T) {
	h, old, id := handing(t)
	if err := h.Revoke(admin(), id, "not now"); err != nil {
		t.Fatal(err)
	}
	k := h.shown(t, old.Key.ID)
	if k.ReplacedByKeyID != nil || k.NextRotationAt == nil || h.verify(old) != apikey.Valid || h.activeKeys(t) != 1 || h.sealed(t, id) {
		t.Fatalf("the old key is %+v, %d are counted", k, h.activeKeys(t))
	}
	if got := h.deliver(t, lifecycle.Delivered); len(got) > 0 {
		t.Fatal("a revoked key was delivered")
	}
	entries, _, err := h.Audit(admin(), lifecycle.AuditFilter{KeyID: id})
	if err != nil || !strings.Contains(fmt.Sprint(entries[0].Changes), old.Key.ID.String()+".replaced_by_key_id") {
		t.Fatalf("the trail tells nothing of the old key: %v, %v", entries, err)
	}
	h.wantNews(t, day, "rotation_started")
}

func TestARevokedPredecessorStaysRevokedWhateverBecomesOfItsSuccessor(t *testing.T) {
	for _, how := range []lifecycle.Attempt{lifecycle.Delivered, lifecycle.Missed} {
		h, old, id := handing(t)
		if err := h.Revoke(admin(), old.Key.ID, "leaked"); err != nil {
			t.Fatal(err)
		}
		want, places := apikey.Active, int64(1)
		if parcels := h.deliver(t, how); len(parcels) != 1 {
			t.Fatal("the successor is not brought to anybody")
		}
		if how == lifecycle.Missed {
			h.untaken(t)
			want, places = apikey.Revoked, 0
		}
		if got := h.shown(t, id).Status; got != want || h.verify(old) != apikey.RevokedKey || h.activeKeys(t) != places || h.sealed(t, id) {
			t.Fatalf("the successor is %s, %d are counted", got, h.activeKeys(t))
		}
	}
}

func TestWhatIsDoneToAKeyWhileItsSuccessorIsOnItsWayHoldsWhenThatIsAbandoned(t *testing.T) {
	h, old, _ := handing(t)
	if _, err := h.Archive(admin(), old.Key.ID); err != nil {
		t.Fatal(err)
	}
	h.untaken(t)
	if h.activeKeys(t) != 0 || h.verify(old) != apikey.ArchivedKey {
		t.Fatalf("archived: %d are counted", h.activeKeys(t))
	}
	if k, err := h.Reactivate(admin(), old.Key.ID); err != nil || k.Status != apikey.Active || h.activeKeys(t) != 1 {
		t.Fatalf("reactivated: %+v, %v, %d are counted", k, err, h.activeKeys(t))
	}

	h, old, _ = handing(t)
	if _, err := h.Update(admin(), old.Key.ID, 0, lifecycle.Patch{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	h.untaken(t)
	if h.activeKeys(t) != 1 || h.verify(old) != apikey.DisabledKey || h.shown(t, old.Key.ID).ReplacedByKeyID != nil {
		t.Fatalf("disabled: %d are counted", h.activeKeys(t))
	}
}

func TestThePlanCountsAKeyThatGetsItsPlaceBackFromOneThatHadNone(t *testing.T) {
	h, old, id := handing(t)
	if _, err := h.Update(admin(), id, 0, lifecycle.Patch{Scopes: &[]string{apikey.OrgAdmin}}); err != nil {
		t.Fatal(err)
	}
	if h.activeKeys(t) != 1 { // the old key's
		t.Fatalf("%d are counted", h.activeKeys(t))
	}
	if _, err := h.SetOrganization(admin(), "acme", onPlan("free")); err != nil { // which has no keys
		t.Fatal(err)
	}
	h.untaken(t)
	if h.activeKeys(t) != 1 || h.verify(old) != apikey.Valid {
		t.Fatalf("%d are counted", h.activeKeys(t))
	}
}

func TestASuccessorOnItsWayCannotBeArchivedNorAGraceMovedThatHasNotBegun(t *testing.T) {
	h, old, id := handing(t)
	_, err := h.Archive(admin(), id)
	wantCode(t, err, apikey.WrongState)
	for _, of := range []apikey.ID{old.Key.ID, id} {
		_, err = h.EndGrace(admin(), of)
		wantCode(t, err, apikey.RotationInProgress)
		_, err = h.ExtendGrace(admin(), of, time.Hour)
		wantCode(t, err, apikey.RotationInProgress)
	}
	_, err = h.Rotate(admin(), old.Key.ID, nil)
	wantCode(t, err, apikey.AlreadyRotated)
	_, err = h.Rotate(admin(), id, nil)
	wantCode(t, err, apikey.RotationInProgress)
	if h.verify(old) != apikey.Valid || !h.sealed(t, id) {
		t.Fatal("a refusal changed something")
	}
}

func TestALeakWhileASuccessorIsOnItsWayIsAnsweredByARotationWithoutGrace(t *testing.T) {
	h, old, id := handing(t)
	rotated, err := h.Rotate(admin(), id, new(time.Duration(0)))
	if err != nil {
		t.Fatal(err)
	}
	if h.verify(old) != apikey.ExpiredKey || h.verify(rotated.New) != apikey.Valid || h.activeKeys(t) != 1 || h.sealed(t, id) {
		t.Fatalf("%d are counted", h.activeKeys(t))
	}
	if got := h.deliver(t, lifecycle.Delivered); len(got) > 0 {
		t.Fatal("an ended key was delivered")
	}
	h.wantNews(t, time.Hour, "rotation_completed", "rotation_completed")
}

func TestAHandoverIsOverWhenTheKeyIs(t *testing.T) {
	for _, how := range []lifecycle.Attempt{lifecycle.Missed, lifecycle.Doubtful} {
		h := newHouse(t, "trial")
		h.Seal = seal.NewLocal([32]byte{1})
		n := expiring(h, 2*day)
		n.RotationIntervalDays, n.RotationWebhookURL = new(1), new("https://example.com/rotated")
		old := h.mustCreate(t, n)
		h.wantNews(t, day, "expiring 1", "rotation_started")
		id := *h.shown(t, old.Key.ID).ReplacedByKeyID
		h.deliver(t, how)
		h.advance(day)
		h.deliver(t, how)
		h.wantNews(t, 5*day, "expired")
		if h.activeKeys(t) != 0 || h.sealed(t, id) || h.shown(t, id).Status != apikey.Revoked {
			t.Fatalf("%v: %d are counted", how, h.activeKeys(t))
		}
	}
}

func TestASuccessorThatMayHaveArrivedIsHeldAndToldOfUntilItIsUsed(t *testing.T) {
	h, old, id := handing(t)
	successor := h.deliver(t, lifecycle.Doubtful)[0].New
	for range 30 * 24 {
		h.deliver(t, lifecycle.Missed)
		h.advance(time.Hour)
		h.sweep(t)
	}
	if h.verify(old) != apikey.Valid || h.shown(t, old.Key.ID).GraceExpiresAt != nil || h.shown(t, id).Status != apikey.Active || h.activeKeys(t) != 1 {
		t.Fatalf("held: the old key is %+v", h.shown(t, old.Key.ID))
	}
	told := 0
	for _, a := range h.actions(t) {
		if a == audit.RotationDue {
			told++
		}
	}
	if told != 9 { // once in three days and at most an hour
		t.Fatalf("it was told of %d times", told)
	}
	h.verify(successor)
	for range 80 {
		h.deliver(t, lifecycle.Missed)
		h.advance(time.Hour)
	}
	if h.shown(t, old.Key.ID).GraceExpiresAt == nil || h.sealed(t, id) {
		t.Fatal("a successor in use counts as undelivered")
	}
}

func TestASealedCopyThatIsGoneIsNotLookedForAgain(t *testing.T) {
	h, old, id := handing(t)
	h.deliver(t, lifecycle.Doubtful)
	for range 50 {
		h.deliver(t, lifecycle.Missed)
		h.advance(day)
	}
	if got := h.deliver(t, lifecycle.Missed); len(got) > 0 {
		t.Fatal("a copy was opened after its time")
	}
	if h.verify(old) != apikey.Valid || h.shown(t, id).Status != apikey.Active {
		t.Fatal("its owner may be locked out")
	}
}

func TestOfSeveralWhoDeliverAtOnceOneTries(t *testing.T) {
	h, _, _ := handing(t)
	tries := 0
	send := func(context.Context, lifecycle.Parcel) lifecycle.Attempt {
		tries++
		h.advance(50 * time.Second) // as long as a claim holds
		if again := h.deliver(t, lifecycle.Delivered); len(again) > 0 {
			t.Error("another tries meanwhile")
		}
		return lifecycle.Missed
	}
	if _, err := h.Deliver(context.Background(), 100, send); err != nil || tries != 1 {
		t.Fatalf("%d tries, %v", tries, err)
	}
}

func TestAnAttemptWhoseEndNobodyKnowsLeavesDoubtForGood(t *testing.T) {
	h, old, id := handing(t)
	func() {
		defer func() { _ = recover() }()
		_, _ = h.Deliver(context.Background(), 100, func(context.Context, lifecycle.Parcel) lifecycle.Attempt { panic("killed") })
	}()
	if got := h.deliver(t, lifecycle.Missed); len(got) > 0 {
		t.Fatal("another tries while the claim holds")
	}
	h.advance(2 * time.Minute)
	if got := h.deliver(t, lifecycle.Missed); len(got) != 1 || got[0].Attempt != 2 {
		t.Fatalf("nobody tries after the claim: %v", got)
	}
	h.untaken(t)
	if h.shown(t, id).Status != apikey.Active || h.verify(old) != apikey.Valid {
		t.Fatal("a key that may have arrived was taken away")
	}
}

// stopped is a store on which a process is asked to stop while it writes, and which answers nobody whose time is over.
type stopped struct {
	storetest.Store
	stop func()
}

func (s *stopped) Commit(ctx context.Context, c lifecycle.Change) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := s.Store.Commit(ctx, c)
	s.stop()
	return cmp.Or(err, ctx.Err())
}

func (s *stopped) Entries(ctx context.Context, q lifecycle.EntryQuery) ([]audit.Entry, bool, error) {
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	return s.Store.Entries(ctx, q)
}

func (s *stopped) Key(ctx context.Context, id apikey.ID) (apikey.Record, error) {
	if ctx.Err() != nil {
		return apikey.Record{}, ctx.Err()
	}
	return s.Store.Key(ctx, id)
}

func TestAProcessThatIsAskedToStopAmidAClaimLeavesNoDoubt(t *testing.T) {
	h, old, id := handing(t)
	ctx, stop := context.WithCancel(context.Background())
	h.Store = &stopped{h.memory, stop}
	done, err := h.Deliver(ctx, 100, func(ctx context.Context, _ lifecycle.Parcel) lifecycle.Attempt {
		if ctx.Err() == nil {
			t.Error("an attempt goes on")
		}
		return lifecycle.Missed // as webhook's does then
	})
	if err != nil || done.Failed > 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	h.Store = h.memory
	h.untaken(t)
	if h.shown(t, id).Status != apikey.Revoked || h.shown(t, old.Key.ID).ReplacedByKeyID != nil {
		t.Fatal("the rotation is held, though nothing was sent")
	}
}

func TestAnAcknowledgementThatComesLateCounts(t *testing.T) {
	h, old, id := handing(t)
	_, err := h.Deliver(context.Background(), 100, func(context.Context, lifecycle.Parcel) lifecycle.Attempt {
		h.advance(time.Hour)
		h.deliver(t, lifecycle.Missed) // by another, since the claim is over
		return lifecycle.Delivered
	})
	if err != nil || h.shown(t, old.Key.ID).GraceExpiresAt == nil || h.sealed(t, id) {
		t.Fatalf("it was forgotten: %v", err)
	}
}

func TestNoAttemptBeginsThatItsRunCannotWaitFor(t *testing.T) {
	h, _, _ := handing(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done, err := h.Deliver(ctx, 100, func(context.Context, lifecycle.Parcel) lifecycle.Attempt {
		t.Error("an attempt begins")
		return lifecycle.Missed
	})
	if err != nil || !done.More {
		t.Fatalf("%+v, %v", done, err)
	}
}

func TestASlowReceiverHoldsUpItsOwnKeysAlone(t *testing.T) {
	h := newHouse(t, "enterprise")
	h.Seal, h.Senders = seal.NewLocal([32]byte{1}), 8
	for i := range 40 {
		n := basic()
		n.RotationIntervalDays, n.RotationWebhookURL = new(1), new("https://slow.example.com/")
		if i >= 30 { // behind all the slow ones
			n.RotationWebhookURL = new(fmt.Sprintf("https://host%d.example.com/", i))
		}
		h.mustCreate(t, n)
		h.advance(time.Second)
	}
	h.advance(2 * day)
	h.sweep(t)
	others, slow := make(chan string, 40), make(chan struct{})
	go func() {
		for range 10 {
			<-others
		}
		close(slow) // only now does the slow one answer
	}()
	done, err := h.Deliver(context.Background(), 1000, func(_ context.Context, p lifecycle.Parcel) lifecycle.Attempt {
		if strings.Contains(*p.New.Key.RotationWebhookURL, "slow") {
			<-slow
		} else {
			others <- *p.New.Key.RotationWebhookURL
		}
		return lifecycle.Delivered
	})
	if err != nil || done.Failed > 0 || done.More { // what waited for it was brought as soon as it answered
		t.Fatalf("%+v, %v", done, err)
	}
}

func TestAReceiverThatAcknowledgesNothingIsTriedByFewAtOnce(t *testing.T) {
	h := newHouse(t, "enterprise")
	h.Seal, h.Senders = seal.NewLocal([32]byte{1}), 8
	for range 30 {
		n := basic()
		n.RotationIntervalDays, n.RotationWebhookURL = new(1), new("https://down.example.com/")
		h.mustCreate(t, n)
	}
	h.advance(2 * day)
	h.sweep(t)
	var at, most atomic.Int64
	done, err := h.Deliver(context.Background(), 1000, func(context.Context, lifecycle.Parcel) lifecycle.Attempt {
		most.Store(max(most.Load(), at.Add(1)))
		runtime.Gosched()
		at.Add(-1)
		return lifecycle.Missed
	})
	if err != nil || done.Failed > 0 || most.Load() > 2 {
		t.Fatalf("%+v, %v, %d at once", done, err, most.Load())
	}
}

func TestRevokingASuccessorUnderFireDoesNotCloseItsPredecessor(t *testing.T) {
	h, old, id := handing(t)
	fired := &firedOn{Store: h.memory, key: id}
	fired.onClose = func() {
		if code := h.verify(old); code != apikey.Valid {
			t.Errorf("the old key is %s while its successor is revoked", code)
		}
	}
	on := *h.Service
	on.Store = fired
	if err := on.Revoke(admin(), id, "not now"); err != nil {
		t.Fatal(err)
	}
	if r, err := h.memory.Key(context.Background(), old.Key.ID); err != nil || r.Closing != nil || h.verify(old) != apikey.Valid || h.activeKeys(t) != 1 {
		t.Fatalf("the old key: closing %v, %v", r.Closing, err)
	}
}

func TestAKeyWithWhichSomethingGoesWrongStepsBackBehindTheOthers(t *testing.T) {
	h := newHouse(t, "enterprise")
	broken := &brokenSeal{Sealer: seal.NewLocal([32]byte{1}), broken: true}
	h.Seal = broken
	for range 30 {
		n := basic()
		n.RotationIntervalDays, n.RotationWebhookURL = new(1), new("https://example.com/rotated")
		h.mustCreate(t, n)
	}
	h.advance(day + time.Minute)
	first, err := h.Sweep(context.Background(), 10)
	if err != nil || first.Failed != first.Keys || first.Keys != 10 {
		t.Fatalf("%+v, %v", first, err)
	}
	h.advance(time.Minute)
	k := h.mustCreate(t, expiring(h, time.Second))
	h.advance(time.Minute)
	for range 3 {
		if _, err := h.Sweep(context.Background(), 10); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := h.memory.Key(context.Background(), k.Key.ID); err != nil || !r.Told.Over {
		t.Fatalf("an end waits for what cannot be done: %v", err)
	}
	broken.broken = false
	h.news(t, time.Hour)
	if n := h.count(audit.RotationStarted); n != 30 {
		t.Fatalf("%d rotations began when it was possible again", n)
	}
}

func (h *house) count(action audit.Action) (n int) {
	entries, _, _ := h.Audit(admin(), lifecycle.AuditFilter{Action: action, Limit: 1000})
	return len(entries)
}

// brokenSeal may not seal.
type brokenSeal struct {
	lifecycle.Sealer
	broken bool
}

func (b *brokenSeal) Seal(ctx context.Context, plaintext []byte, bound string) ([]byte, error) {
	if b.broken {
		return nil, storetest.ErrLost
	}
	return b.Sealer.Seal(ctx, plaintext, bound)
}

func TestASuccessorThatNobodyTriedToDeliverInTimeIsTriedBeforeItIsGivenUp(t *testing.T) {
	for _, how := range []lifecycle.Attempt{lifecycle.Delivered, lifecycle.Missed} {
		h, old, _ := handing(t)
		h.advance(20 * day)
		if got := h.deliver(t, how); len(got) != 1 {
			t.Fatal("nobody tried")
		}
		h.advance(time.Hour)
		h.deliver(t, how)
		if k := h.shown(t, old.Key.ID); (k.GraceExpiresAt != nil) != (how == lifecycle.Delivered) || (k.ReplacedByKeyID != nil) != (how == lifecycle.Delivered) {
			t.Fatalf("the old key is %+v", k)
		}
	}
}

// staleList is a store whose list of what is to be delivered lags behind.
type staleList struct {
	lifecycle.Store
	id apikey.ID
}

func (s staleList) Due(ctx context.Context, q lifecycle.DueQuery) ([]lifecycle.DueKey, error) {
	if q.Work == apikey.Deliver {
		return []lifecycle.DueKey{{At: q.Until, ID: s.id}}, nil
	}
	return s.Store.Due(ctx, q)
}

func TestADeliveryThatComesTooLateLeavesTheSweepItsWork(t *testing.T) {
	h := newHouse(t, "trial")
	h.Seal = seal.NewLocal([32]byte{1})
	n := expiring(h, 2*day)
	n.RotationIntervalDays, n.RotationWebhookURL = new(1), new("https://example.com/rotated")
	old := h.mustCreate(t, n)
	h.wantNews(t, day, "expiring 1", "rotation_started")
	id := *h.shown(t, old.Key.ID).ReplacedByKeyID
	h.deliver(t, lifecycle.Delivered)
	h.advance(2 * day)
	on := *h.Service
	on.Store = staleList{h.memory, id}
	if done, err := on.Deliver(context.Background(), 100, nil); err != nil || done.Failed > 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	h.wantNews(t, time.Hour, "rotation_completed", "expired")
}
