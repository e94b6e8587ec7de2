package memory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/publish"
)

func organization(t *testing.T, s *memory.Store, id string, version int64, at time.Time) audit.Entry {
	t.Helper()
	e := audit.Entry{ID: audit.NewID(at), OrganizationID: id, At: at, Action: audit.OrgUpdated}
	if err := s.PutOrganization(t.Context(), lifecycle.Organization{ID: id, Version: version}, e); err != nil {
		t.Error(err)
	}
	return e
}

func TestAFeedBringsEntriesInTheOrderOfTheirCommit(t *testing.T) {
	s := memory.New()
	var want []string
	for i := range 130 { // clocks go backwards
		want = append(want, organization(t, s, fmt.Sprint("org", i%3), int64(i/3+1), noon.Add(time.Duration(-i)*time.Second)).ID)
	}
	first, second := s.Feed(), s.Feed()
	for _, feed := range []*memory.Feed{first, second} {
		var got []string
		for range 2 {
			records, err := feed.Next(t.Context(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				if got = append(got, r.EntryID); r.Kind != publish.Written || r.Entry.ID != r.EntryID || r.Entry.OrganizationID != r.OrganizationID {
					t.Errorf("got %+v", r)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, not %v", got, want)
		}
	}
	if records, err := first.Next(t.Context(), 0); len(records) > 0 || err != nil {
		t.Errorf("at the end: %v, %v", records, err)
	}
}

func TestAFeedThatWaitsIsWokenByACommit(t *testing.T) {
	s := memory.New()
	feed, got := s.Feed(), make(chan []publish.Record)
	for version := range int64(50) {
		go func() {
			records, err := feed.Next(t.Context(), time.Hour)
			if err != nil {
				t.Error(err)
			}
			got <- records
		}()
		e := organization(t, s, "org", version+1, noon)
		if records := <-got; len(records) != 1 || records[0].EntryID != e.ID {
			t.Fatalf("got %v", records)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := feed.Next(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
