package audit_test

import (
	"encoding/json"
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

func TestOfAnAddressOnlyItsReceiverIsTold(t *testing.T) {
	for address, want := range map[string]string{
		"https://hooks.example.com":                   "https://hooks.example.com",
		"https://hooks.example.com/":                  "https://hooks.example.com/",
		"https://hooks.example.com:8443/T0/B0/s3cret": "https://hooks.example.com:8443/…",
		"https://hooks.example.com?sig=s3cret":        "https://hooks.example.com/…",
		"https://hooks.example.com/?sig=s3cret":       "https://hooks.example.com/…",
		"https://me:s3cret@hooks.example.com/":        "https://hooks.example.com/…",
		"https://[2001:db8::1]/s3cret":                "https://[2001:db8::1]/…",
		"s3cret":                                      "…",
		"https:s3cret":                                "…",
		"%s3cret":                                     "…",
	} {
		if got := audit.Receiver(address); got != want {
			t.Errorf("of %s it tells %s, want %s", address, got, want)
		}
	}
	before := apikey.Key{ID: 1, RotationWebhookURL: new("https://hooks.example.com/s3cret")}
	after := before
	after.RotationWebhookURL = new("https://hooks.example.com/another")
	for _, row := range []struct {
		before   *apikey.Key
		after    apikey.Key
		from, to string
	}{{nil, before, "", `"https://hooks.example.com/…"`}, {&before, after, `"https://hooks.example.com/…"`, `"https://hooks.example.com/…"`},
		{&before, apikey.Key{ID: 1}, `"https://hooks.example.com/…"`, "null"}} {
		changes, err := audit.Diff(row.before, row.after)
		at := slices.IndexFunc(changes, func(c audit.Change) bool { return c.Field == "rotation_webhook_url" })
		if err != nil || at < 0 || string(changes[at].From) != row.from || string(changes[at].To) != row.to {
			t.Errorf("told is %s, %v", changes, err)
		}
	}
}

func TestEntriesSortByTime(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ids := []string{audit.NewID(now), audit.NewID(now), audit.NewID(now.Add(time.Millisecond)), audit.NewID(now.Add(time.Hour))}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 4 {
		t.Errorf("got %v", ids)
	}
}

func TestAChangeThatCouldNotBeLinkedIsNoneThatIsMade(t *testing.T) {
	for metadata, fit := range map[string]bool{`{"a":1,"b":[1e400,{}]}`: true, `{"a":1,"a":2}`: false, `{"a":"\ud800"}`: false, "{\"a\":\"\xff\"}": false} {
		after := apikey.Key{ID: 1, Metadata: json.RawMessage(metadata)}
		changes, err := audit.Diff(nil, after)
		if (err == nil) != fit {
			t.Errorf("%q: %v", metadata, err)
		}
		if err != nil {
			continue
		}
		if _, err := audit.Next(audit.Link{}, audit.Entry{ID: audit.NewID(time.Now()), Changes: changes}); err != nil {
			t.Errorf("%q cannot be linked: %v", metadata, err)
		}
	}
}
