package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/seal"
)

// scheduled is a house with a key that is to be rotated every day and handed to a receiver.
func scheduled(t *testing.T) (*house, apikey.Issued) {
	h := newHouse(t, "professional")
	h.Seal = seal.NewLocal([32]byte{1})
	url := "https://example.com/rotated"
	n := basic()
	n.RotationIntervalDays, n.RotationWebhookURL = new(1), &url
	return h, h.mustCreate(t, n)
}

func (h *house) sweep(t *testing.T) {
	t.Helper()
	if done, err := h.Sweep(context.Background(), 100); err != nil || done.Failed > 0 {
		t.Fatalf("sweep: %+v, %v", done, err)
	}
}

func (h *house) deliver(t *testing.T, how lifecycle.Attempt) (parcels []lifecycle.Parcel) {
	t.Helper()
	done, err := h.Deliver(context.Background(), 100, func(_ context.Context, p lifecycle.Parcel) lifecycle.Attempt {
		parcels = append(parcels, p)
		return how
	})
	if err != nil || done.Failed > 0 {
		t.Fatalf("deliver: %+v, %v", done, err)
	}
	return parcels
}

func (h *house) shown(t *testing.T, id apikey.ID) apikey.Key {
	t.Helper()
	k, err := h.Get(admin(), id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *house) actions(t *testing.T) (list []audit.Action) {
	t.Helper()
	entries, _, err := h.Audit(admin(), lifecycle.AuditFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := len(entries) - 1; i >= 0; i-- {
		list = append(list, entries[i].Action)
	}
	return list
}

func TestAKeyIsRotatedByItsScheduleHandedOverAndEndsOnceItIsNotNeeded(t *testing.T) {
	h, old := scheduled(t)
	h.sweep(t)
	if got := h.shown(t, old.Key.ID); got.ReplacedByKeyID != nil {
		t.Fatal("rotated too early")
	}
	h.advance(24 * time.Hour)
	h.sweep(t)
	k := h.shown(t, old.Key.ID)
	if k.ReplacedByKeyID == nil || k.GraceExpiresAt != nil || h.verify(old) != apikey.Valid || h.activeKeys(t) != 1 {
		t.Fatalf("begun: %+v, %d keys", k, h.activeKeys(t))
	}
	parcels := h.deliver(t, lifecycle.Missed)
	if len(parcels) != 1 || h.verify(parcels[0].New) != apikey.Valid {
		t.Fatalf("first attempt: %+v", parcels)
	}
	if again := h.deliver(t, lifecycle.Delivered); len(again) != 0 {
		t.Fatal("tried again at once")
	}
	h.advance(6 * time.Minute)
	again := h.deliver(t, lifecycle.Delivered)
	if len(again) != 1 || again[0].ID != parcels[0].ID || again[0].New.Plaintext.Reveal() != parcels[0].New.Plaintext.Reveal() {
		t.Fatal("the second attempt brings another key")
	}
	if k = h.shown(t, old.Key.ID); k.GraceExpiresAt == nil || !k.GraceExpiresAt.Equal(h.clock().Add(7*24*time.Hour)) {
		t.Fatalf("delivered: the grace ends %v", k.GraceExpiresAt)
	}
	for range 6 {
		h.advance(15 * time.Minute)
		h.verify(old) // a slow client
		h.verify(again[0].New)
		h.sweep(t)
	}
	if h.verify(old) != apikey.Valid {
		t.Fatal("the old key was ended while it was in use")
	}
	h.advance(70 * time.Minute)
	h.verify(again[0].New)
	h.sweep(t)
	if h.verify(old) != apikey.ExpiredKey || h.verify(again[0].New) != apikey.Valid {
		t.Fatal("the old key outlived its use")
	}
	t.Log(h.actions(t))
}

func TestARotationThatNobodyTakesIsAbandonedAndTheOldKeyIsAsItWas(t *testing.T) {
	h, old := scheduled(t)
	h.advance(24 * time.Hour)
	h.sweep(t)
	var successor apikey.Issued
	for range 80 {
		for _, p := range h.deliver(t, lifecycle.Missed) {
			successor = p.New
		}
		h.advance(time.Hour)
		h.sweep(t)
	}
	k := h.shown(t, old.Key.ID)
	if k.ReplacedByKeyID != nil || h.verify(old) != apikey.Valid || h.verify(successor) != apikey.RevokedKey || h.activeKeys(t) != 1 {
		t.Fatalf("abandoned: %+v", k)
	}
	t.Log(h.actions(t))
}
