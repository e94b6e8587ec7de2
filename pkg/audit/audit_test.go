package audit_test

import (
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
)

func TestAnEntryTellsWhatManagementChangedAndNothingElse(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	before := apikey.Key{ID: 1, Name: "old", Enabled: true}
	after := before
	after.Name, after.RevokedAt = "new", &now
	after.LastUsedAt, after.UpdatedAt, after.Status = &now, now, apikey.Revoked
	changes, err := audit.Diff(&before, after)
	if err != nil || len(changes) != 2 {
		t.Fatalf("got %v, %v", changes, err)
	}
	if c := changes[0]; c.Field != "name" || string(c.From) != `"old"` || string(c.To) != `"new"` {
		t.Errorf("got %s from %s to %s", c.Field, c.From, c.To)
	}
	if c := changes[1]; c.Field != "revoked_at" || string(c.From) != "null" || string(c.To) != `"2026-11-22T12:00:00Z"` {
		t.Errorf("got %s from %s to %s", c.Field, c.From, c.To)
	}
	created, err := audit.Diff(nil, before)
	if err != nil || !slices.ContainsFunc(created, func(c audit.Change) bool { return c.Field == "name" && c.From == nil }) {
		t.Errorf("a new key: %v, %v", created, err)
	}
	if slices.ContainsFunc(created, func(c audit.Change) bool { return string(c.To) == "null" }) {
		t.Errorf("of a new key it tells what is not set: %s", created)
	}
}

func TestEntriesSortByTime(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ids := []string{audit.NewID(now), audit.NewID(now), audit.NewID(now.Add(time.Millisecond)), audit.NewID(now.Add(time.Hour))}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 4 {
		t.Errorf("got %v", ids)
	}
}
