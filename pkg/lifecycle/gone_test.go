package lifecycle_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// comesBack demands that the old key is as it was before its rotation, and the successor revoked.
func (h *house) comesBack(t *testing.T, old apikey.Issued, id apikey.ID) {
	t.Helper()
	k := h.shown(t, old.Key.ID)
	if k.ReplacedByKeyID != nil || k.NextRotationAt == nil || h.verify(old) != apikey.Valid || h.shown(t, id).Status != apikey.Revoked || h.activeKeys(t) != 1 || h.sealed(t, id) {
		t.Fatalf("the old key is %+v, %d are counted", k, h.activeKeys(t))
	}
}

// times is how often the trail tells of an action.
func (h *house) times(t *testing.T, action audit.Action) (n int) {
	for _, a := range h.actions(t) {
		if a == action {
			n++
		}
	}
	return n
}

// noAttempt demands that nothing is brought to anybody for a time.
func (h *house) noAttempt(t *testing.T, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= time.Hour {
		if got := h.deliver(t, lifecycle.Missed); len(got) > 0 {
			t.Fatalf("attempt %d %s before the end", got[0].Attempt, d)
		}
		h.advance(time.Hour)
		h.sweep(t)
	}
}

func TestAReceiverThatIsGoneEndsTheHandoverAtOnce(t *testing.T) {
	h, old, id := handing(t)
	if len(h.deliver(t, lifecycle.Gone)) != 1 {
		t.Fatal("no attempt")
	}
	h.comesBack(t, old, id)
	entries, _, err := h.Audit(admin(), lifecycle.AuditFilter{KeyID: old.Key.ID})
	if err != nil || entries[0].Action != audit.RotationAbandoned || !strings.Contains(fmt.Sprintf("%s", entries[0].Changes), "it answered 410") {
		t.Fatalf("the trail does not say why: %s, %v", entries, err)
	}
	h.noAttempt(t, 23*time.Hour)
	h.advance(time.Hour)
	if h.sweep(t); h.times(t, audit.RotationAbandoned) != 1 || h.times(t, audit.RotationStarted) != 2 {
		t.Errorf("an interval later it is not asked again: %v", h.actions(t))
	}
}

func TestAReceiverThatIsGoneAfterAnAttemptInDoubtLeavesBothKeysAndIsNotAskedAgain(t *testing.T) {
	for name, doubt := range map[string]func(*testing.T, *house){
		"not answered": func(t *testing.T, h *house) { h.deliver(t, lifecycle.Doubtful) },
		"whoever tried died": func(_ *testing.T, h *house) {
			defer func() { _ = recover() }()
			_, _ = h.Deliver(context.Background(), 100, func(context.Context, lifecycle.Parcel) lifecycle.Attempt { panic("killed") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, old, id := handing(t)
			doubt(t, h)
			h.advance(10 * time.Minute)
			if len(h.deliver(t, lifecycle.Gone)) != 1 || h.verify(old) != apikey.Valid || h.shown(t, id).Status != apikey.Active {
				t.Fatal("one of the keys is no more")
			}
			h.noAttempt(t, 10*day)
			if n := h.times(t, audit.RotationDue); n != 4 {
				t.Errorf("told %d times in 10 days that somebody must look, want at once and every 3 days", n)
			}
			url := "https://example.com/elsewhere"
			if _, err := h.Update(admin(), id, 0, lifecycle.Patch{RotationWebhookURL: lifecycle.Maybe[string]{Said: true, V: &url}}); err != nil {
				t.Fatal(err)
			}
			if got := h.deliver(t, lifecycle.Delivered); len(got) != 1 || got[0].New.Key.ID != id {
				t.Fatal("another address is not asked")
			}
			if h.shown(t, old.Key.ID).GraceExpiresAt == nil {
				t.Error("what another address took is not delivered")
			}
		})
	}
}

func TestAReceiverThatIsGoneHasDeliveredWhatIsInUse(t *testing.T) {
	h, old, id := handing(t)
	h.verify(h.deliver(t, lifecycle.Doubtful)[0].New)
	h.advance(time.Hour)
	h.deliver(t, lifecycle.Gone)
	if h.shown(t, old.Key.ID).GraceExpiresAt == nil || h.shown(t, id).Status != apikey.Active || h.sealed(t, id) {
		t.Fatal("a key in use does not count as delivered")
	}
}

func TestWhoAsksForTimeIsGivenItWithinTheWindow(t *testing.T) {
	for _, how := range []lifecycle.Attempt{lifecycle.Missed, lifecycle.Doubtful} {
		h, _, id := handing(t)
		for _, wait := range []time.Duration{time.Hour, 20 * time.Hour, time.Second} {
			if len(h.deliver(t, how.After(wait))) != 1 {
				t.Fatal("no attempt")
			}
			next := h.memoryOf(t, id).Handover.Next.Sub(h.clock())
			if next < wait {
				t.Fatalf("the next attempt is %s away, want at least %s", next, wait)
			}
			h.noAttempt(t, wait.Truncate(time.Hour))
			h.advance(next)
		}
	}
	h, old, id := handing(t)
	for range 6 {
		h.deliver(t, lifecycle.Missed.After(24*time.Hour))
		h.advance(12 * time.Hour)
	}
	h.deliver(t, lifecycle.Missed)
	h.comesBack(t, old, id)
}

// memoryOf is a key as it is stored.
func (h *house) memoryOf(t *testing.T, id apikey.ID) apikey.Record {
	t.Helper()
	r, err := h.memory.Key(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
