package lifecycle

import (
	"cmp"
	"context"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
)

// defaultEntries is how many entries a page of the trail has when nobody says otherwise.
const defaultEntries = 100

// AuditFilter says which entries of the audit trail are wanted. Empty fields do not filter.
type AuditFilter struct {
	KeyID   apikey.ID
	ActorID string
	Action  audit.Action
	Since   time.Time // from then on
	Until   time.Time // before then
	Limit   int       // 1 to MaxPage; 0: 100
	Cursor  string    // where an earlier page ended
}

// Audit returns entries of the organization's audit trail, newest first, and a cursor when there may be more. It needs
// audit:read.
func (s *Service) Audit(ctx context.Context, f AuditFilter) (list []audit.Entry, next string, err error) {
	by := caller.From(ctx)
	if err := need(by, apikey.AuditRead); err != nil {
		return nil, "", err
	}
	if err := f.check(); err != nil {
		return nil, "", err
	}
	q := EntryQuery{OrganizationID: by.OrganizationID, After: audit.FirstID(f.Since), Before: cmp.Or(f.Cursor, audit.FirstID(f.Until)), Limit: pageSize}
	if before := audit.FirstID(f.Until); before != "" && before < q.Before {
		q.Before = before
	}
	want := cmp.Or(f.Limit, defaultEntries)
	list = []audit.Entry{}
	pages := 0
	for more := true; more; pages++ {
		if pages == maxPages {
			return list, q.Before, nil
		}
		var page []audit.Entry
		if page, more, err = s.Store.Entries(ctx, q); err != nil {
			return nil, "", unavailable(err)
		}
		for _, e := range page {
			if len(list) == want {
				return list, q.Before, nil
			}
			if q.Before = e.ID; f.matches(&e) {
				list = append(list, e)
			}
		}
	}
	return list, "", nil
}

// AuditChain returns up to limit links (1 to MaxPage; 0: 100) of the organization's chain that come after the one numbered
// after, in the order of their numbers, and after which one to go on when there may be more, else 0. It needs audit:read.
func (s *Service) AuditChain(ctx context.Context, after int64, limit int) (list []audit.Link, next int64, err error) {
	by := caller.From(ctx)
	if err := need(by, apikey.AuditRead); err != nil {
		return nil, 0, err
	}
	var wrong fieldErrors
	wrong.need(after >= 0, "/after", "must be the number of a link, or 0")
	wrong.need(limit >= 0 && limit <= MaxPage, "/limit", "must be 1 to 1000")
	if err := apikey.Invalid(wrong); err != nil {
		return nil, 0, err
	}
	page, more, err := s.Store.Links(ctx, by.OrganizationID, after, cmp.Or(limit, defaultEntries))
	if err != nil {
		return nil, 0, unavailable(err)
	}
	if more {
		next = page[len(page)-1].Sequence
	}
	return append([]audit.Link{}, page...), next, nil
}

func (f *AuditFilter) check() error {
	var wrong fieldErrors
	wrong.need(f.Limit >= 0 && f.Limit <= MaxPage, "/limit", "must be 1 to 1000")
	wrong.need(f.Cursor == "" || audit.ValidID(f.Cursor), "/cursor", "must be the cursor of an earlier answer")
	wrong.need(f.Since.IsZero() || audit.FirstID(f.Since) != "", "/since", "must be a time from 1970 on")
	wrong.need(f.Until.IsZero() || audit.FirstID(f.Until) != "", "/until", "must be a time from 1970 on")
	return apikey.Invalid(wrong)
}

func (f *AuditFilter) matches(e *audit.Entry) bool {
	return (f.KeyID == 0 || e.KeyID != nil && *e.KeyID == f.KeyID) &&
		(f.ActorID == "" || e.ActorID == f.ActorID) &&
		(f.Action == "" || e.Action == f.Action)
}
