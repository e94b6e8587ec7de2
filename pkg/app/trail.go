package app

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// trailPage is how many links or entries are read at a time.
const trailPage = 1000

// ExportAudit writes an organization's chain and trail as JSON Lines: each link and each entry as the API prints it. With a
// since that is not zero it begins with the first link of an entry from then on, and has all the entries that it and the
// later ones are about. progress is told from time to time how many were written.
//
// The links come first. An entry written meanwhile is one without a link yet, never one that is missing.
func (a *App) ExportAudit(ctx context.Context, organizationID string, since time.Time, w io.Writer, progress func(links, entries int)) error {
	out := bufio.NewWriter(w)
	x := exporting{a, organizationID, json.NewEncoder(out), 0, 0, progress}
	oldest, err := x.writeLinks(ctx, audit.FirstID(since))
	if err == nil {
		err = x.writeEntries(ctx, oldest)
	}
	if err == nil && x.links+x.entries == 0 {
		err = nothing(organizationID, since)
	}
	if err != nil {
		return fmt.Errorf("exporting the audit trail: %w", err)
	}
	return out.Flush()
}

// nothing says that there is none of a trail, as far as it was asked for.
func nothing(organizationID string, since time.Time) error {
	if since.IsZero() {
		return fmt.Errorf("there is nothing of an organization %s", organizationID)
	}
	return fmt.Errorf("there is nothing of an organization %s from %s on", organizationID, since.Format(time.RFC3339))
}

// exporting is one export.
type exporting struct {
	app            *App
	organizationID string
	out            *json.Encoder
	links, entries int
	progress       func(links, entries int)
}

// writeLinks writes those from the first that is about an entry with an id from since on, and returns the lowest id of an
// entry that they are about, or since.
func (x *exporting) writeLinks(ctx context.Context, since string) (oldest string, err error) {
	after, begun := int64(0), since == ""
	oldest = since
	for more := true; more; {
		var page []audit.Link
		if page, more, err = x.app.Store.Links(ctx, x.organizationID, after, trailPage); err != nil {
			return "", err
		}
		for _, l := range page {
			if after, begun = l.Sequence, begun || l.EntryID >= since; !begun {
				continue
			}
			if err := x.out.Encode(l); err != nil {
				return "", err
			}
			oldest = min(oldest, l.EntryID)
			x.links++
		}
		x.progress(x.links, x.entries)
	}
	return oldest, nil
}

// writeEntries writes those from the oldest on, all of them if that is "".
func (x *exporting) writeEntries(ctx context.Context, oldest string) error {
	q := lifecycle.EntryQuery{OrganizationID: x.organizationID, Limit: trailPage}
	if oldest != "" {
		q.After = oldest[:len(oldest)-1] // just before it
	}
	for more := true; more; {
		var page []audit.Entry
		var err error
		if page, more, err = x.app.Store.Entries(ctx, q); err != nil {
			return err
		}
		for _, e := range page {
			if err := x.out.Encode(e); err != nil {
				return err
			}
			q.Before = e.ID
			x.entries++
		}
		x.progress(x.links, x.entries)
	}
	return nil
}

// Untold is the entries of an organization's trail that have no link although they are older than audit.Lag: the younger
// ones are about to get theirs. With a since that is not zero it is also those from then on that have one, since it may be the
// bus that did not take them. They come in the order of the chain, and those without a link behind it, the oldest first.
// An organization without a single link or entry is an error.
func (a *App) Untold(ctx context.Context, organizationID string, since, now time.Time) ([]audit.Entry, error) {
	places, after := map[string]int64{}, int64(0)
	for more := true; more; {
		var page []audit.Link
		var err error
		if page, more, err = a.Store.Links(ctx, organizationID, after, trailPage); err != nil {
			return nil, fmt.Errorf("reading the chain: %w", err)
		}
		for _, l := range page {
			places[l.EntryID], after = l.Sequence, l.Sequence
		}
	}
	var untold []audit.Entry
	there := len(places)
	q := lifecycle.EntryQuery{OrganizationID: organizationID, Before: audit.FirstID(now.Add(-audit.Lag)), Limit: trailPage}
	for more := true; more; {
		var page []audit.Entry
		var err error
		if page, more, err = a.Store.Entries(ctx, q); err != nil {
			return nil, fmt.Errorf("reading the trail: %w", err)
		}
		there += len(page)
		for _, e := range page {
			if q.Before = e.ID; places[e.ID] == 0 || !since.IsZero() && e.ID >= audit.FirstID(since) {
				untold = append(untold, e)
			}
		}
	}
	if there == 0 {
		return nil, nothing(organizationID, time.Time{})
	}
	slices.Reverse(untold)
	slices.SortStableFunc(untold, func(a, b audit.Entry) int {
		return cmp.Compare(uint64(places[a.ID])-1, uint64(places[b.ID])-1) // without a link it is the highest number there is
	})
	return untold, nil
}

// atOnce is how many unlinked entries are published at a time.
const atOnce = 100

// PublishEntries links entries behind all others of their chain, in the order given, and tells of them, as publish does of what
// was just written: to the bus that the environment names, and to webhooks. progress is told how many are done.
func (a *App) PublishEntries(ctx context.Context, getenv func(string) string, clients Clients, entries []audit.Entry, progress func(done int)) error {
	p, err := a.publisher(clients, access(getenv, getenv("LATCHKEY_EVENTBRIDGE_ENDPOINT")))
	if err != nil {
		return err
	}
	done := 0
	for some := range slices.Chunk(entries, atOnce) {
		left, err := p.Publish(ctx, some)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d are left", len(left))
		}
		if err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		done += len(some)
		progress(done)
	}
	return nil
}
