package lifecycle_test

import (
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

func TestGracesAreNoWayAroundThePlan(t *testing.T) {
	for name, leave := range map[string]func(*house, apikey.ID) error{
		"revoked":  func(h *house, id apikey.ID) error { return h.Revoke(admin(), id, "") },
		"archived": func(h *house, id apikey.ID) error { _, err := h.Archive(admin(), id); return err },
	} {
		h := newHouse(t, "trial") // of one key
		a := h.mustCreate(t, basic())
		b := h.mustRotate(t, a, nil).New
		if err := leave(h, b.Key.ID); err != nil || h.activeKeys(t) != 1 || h.verify(a) != apikey.Valid {
			t.Fatalf("%s: %v, %d keys are counted", name, err, h.activeKeys(t))
		}
		_, err := h.Create(admin(), basic())
		wantCode(t, err, apikey.PlanRefused)
		if _, err := h.EndGrace(admin(), a.Key.ID); err != nil || h.activeKeys(t) != 0 {
			t.Fatalf("%s: ended: %v, %d keys are counted", name, err, h.activeKeys(t))
		}
		h.mustCreate(t, basic())
	}
}

func TestASuccessorThatComesBackTakesItsLinesPlaceAgain(t *testing.T) {
	h := newHouse(t, "trial")
	a := h.mustCreate(t, basic())
	b := h.mustRotate(t, a, nil).New
	if _, err := h.Archive(admin(), b.Key.ID); err != nil {
		t.Fatal(err)
	}
	back, err := h.Reactivate(admin(), b.Key.ID)
	if err != nil || back.Status != apikey.Active || h.activeKeys(t) != 1 {
		t.Fatalf("%+v, %v, %d keys are counted", back, err, h.activeKeys(t))
	}
	h.advance(25 * time.Hour)
	if _, err := h.Create(admin(), basic()); apikey.CodeOf(err) != apikey.PlanRefused || h.activeKeys(t) != 1 {
		t.Errorf("after the grace: %v, %d keys are counted", err, h.activeKeys(t))
	}
}

func TestAKeyInGraceThatCountsGoesAndComesBackWithItsPlace(t *testing.T) {
	h := newHouse(t, "trial")
	a := h.mustCreate(t, basic())
	b := h.mustRotate(t, a, nil).New
	if err := h.Revoke(admin(), b.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Archive(admin(), a.Key.ID); err != nil || h.activeKeys(t) != 0 {
		t.Fatalf("archived: %v, %d", err, h.activeKeys(t))
	}
	c := h.mustCreate(t, basic())
	_, err := h.Reactivate(admin(), a.Key.ID)
	wantCode(t, err, apikey.PlanFull)
	if err := h.Revoke(admin(), c.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	k, err := h.Reactivate(admin(), a.Key.ID)
	if err != nil || k.Status != apikey.Rotated || h.activeKeys(t) != 1 {
		t.Fatalf("%+v, %v, %d", k, err, h.activeKeys(t))
	}
	if _, err := h.Update(admin(), a.Key.ID, 0, lifecycle.Patch{Name: new("renamed")}); err != nil || h.activeKeys(t) != 1 {
		t.Fatalf("renamed: %v, %d", err, h.activeKeys(t))
	}
}

func TestEveryKeyOfALineKnowsItsFirst(t *testing.T) {
	h := newHouse(t, "professional")
	first := h.mustCreate(t, basic()).Key.ID
	id := first
	for range 3 {
		rotated, err := h.Rotate(admin(), id, seconds(0))
		if err != nil {
			t.Fatal(err)
		}
		id = rotated.New.Key.ID
		if r, err := h.memory.Key(t.Context(), id); err != nil || r.Line() != first {
			t.Fatalf("%s is of the line %s, not %s; %v", id, r.Line(), first, err)
		}
	}
}
