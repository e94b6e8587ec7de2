package lifecycle

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

const (
	// MaxPage is the most keys that a caller may ask for at once.
	MaxPage = 1000
	// MaxList is the most keys of a list without a limit.
	MaxList  = 5000
	pageSize = 100 // of one question to the store
	maxPages = 100 // looked through for one list; a filter that finds little goes on by the cursor
)

// Filter says which keys a list has. Empty fields do not filter. Revoked and archived keys are left out unless asked
// for.
type Filter struct {
	ProjectID       string
	EnvironmentID   string
	ExternalID      string
	Name            string // its beginning
	IncludeArchived bool
	IncludeRevoked  bool
	CreatedBy       string
	StaleDays       int    // only keys not used, or made, for so many days
	Limit           int    // 1 to MaxPage; 0: MaxList
	Cursor          string // where an earlier page ended
}

// List returns the organization's keys, newest first, and a cursor when there may be more. It needs keys:read. Keys that
// come or go between two pages make no other key appear twice or not at all.
func (s *Service) List(ctx context.Context, f Filter) (list []apikey.Key, next string, err error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysRead); err != nil {
		return nil, "", err
	}
	at, err := f.check()
	if err != nil {
		return nil, "", err
	}
	if by.Own {
		if f.CreatedBy != "" && f.CreatedBy != by.ID {
			return []apikey.Key{}, "", nil
		}
		f.CreatedBy = by.ID
	}
	want := cmp.Or(f.Limit, MaxList)
	list = []apikey.Key{}
	pages := 0
	for more := true; more; pages++ {
		if pages == maxPages {
			return list, at.cursor(), nil
		}
		var page []apikey.Record
		if page, more, err = s.page(ctx, by.OrganizationID, f, at); err != nil {
			return nil, "", err
		}
		for i := range page {
			if len(list) == want {
				return list, at.cursor(), nil
			}
			at = PositionOf(&page[i])
			if k := s.settled(ctx, page[i]); f.matches(&k, s.now()) {
				list = append(list, k)
			}
		}
	}
	return list, "", nil
}

// page returns the next keys after a position, from the living and, if wanted, the ended ones.
func (s *Service) page(ctx context.Context, organizationID string, f Filter, at Position) ([]apikey.Record, bool, error) {
	q := Query{OrganizationID: organizationID, ProjectID: f.ProjectID, Before: at, Limit: pageSize}
	if f.IncludeArchived || f.IncludeRevoked {
		q.Side = Both
	}
	page, more, err := s.Store.Keys(ctx, q)
	if err != nil {
		return nil, false, unavailable(err)
	}
	return page, more, nil
}

func (f *Filter) check() (at Position, err error) {
	var wrong fieldErrors
	wrong.need(f.Limit >= 0 && f.Limit <= MaxPage, "/limit", "must be 1 to 1000")
	wrong.need(f.StaleDays >= 0 && f.StaleDays <= MaxIntervalDays, "/stale_days", "must be 1 to 3650")
	if f.Cursor != "" {
		at, err = parseCursor(f.Cursor)
		wrong.need(err == nil, "/cursor", "must be the cursor of an earlier answer")
	}
	return at, apikey.Invalid(wrong)
}

func (f *Filter) matches(k *apikey.Key, now time.Time) bool {
	used := k.CreatedAt
	if k.LastUsedAt != nil {
		used = *k.LastUsedAt
	}
	return (f.EnvironmentID == "" || orEmpty(k.EnvironmentID) == f.EnvironmentID) &&
		(f.CreatedBy == "" || k.CreatedBy == f.CreatedBy) &&
		(f.ExternalID == "" || orEmpty(k.ExternalID) == f.ExternalID) &&
		strings.HasPrefix(k.Name, f.Name) &&
		(f.IncludeArchived || k.Status != apikey.Archived) &&
		(f.IncludeRevoked || k.Status != apikey.Revoked) &&
		(f.StaleDays == 0 || !used.After(now.AddDate(0, 0, -f.StaleDays)))
}

// cursor prints p. It tells nothing but a time and an id that its reader was shown.
func (p Position) cursor() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d", p.CreatedAt.UnixMilli(), p.ID))
}

func parseCursor(text string) (Position, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Position{}, fmt.Errorf("reading a cursor: %w", err)
	}
	var ms int64
	var id uint64
	if _, err := fmt.Sscanf(string(b), "%d %d", &ms, &id); err != nil {
		return Position{}, fmt.Errorf("reading a cursor: %w", err)
	}
	p := Position{time.UnixMilli(ms).UTC(), apikey.ID(id)}
	if p.cursor() != text {
		return Position{}, errors.New("a cursor spelt otherwise")
	}
	return p, nil
}
