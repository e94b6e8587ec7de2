package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/work"
)

var (
	// ErrNotFound is what a Store returns for what it does not hold.
	ErrNotFound = errors.New("not found")
	// ErrChanged is what a Store returns when something was not, or no longer, as the change requires: read it again.
	ErrChanged = errors.New("changed by someone else meanwhile")
	// ErrCount is what a Store returns when an organization's plan is not the one seen or has no room.
	ErrCount = errors.New("the organization's plan changed or is full")
)

// Store keeps organizations, keys and the audit trail. All reads of single things are consistent: they see every change
// that was acknowledged before they began. A method that returns an error other than those named may have taken effect.
type Store interface {
	// Organization returns one, or ErrNotFound.
	Organization(ctx context.Context, id string) (Organization, error)

	// PutOrganization writes o together with its audit entry, where the stored one is at o.Version-1, or at Version 1 where
	// there is none: else ErrChanged, as when the entry exists. ActiveKeys of one that exists are left alone.
	PutOrganization(ctx context.Context, o Organization, entry audit.Entry) error

	// Key returns one with everything known of it, or ErrNotFound.
	Key(ctx context.Context, id apikey.ID) (apikey.Record, error)

	// Keys returns up to q.Limit keys that come after q.Before, newest first, and whether there may be more. It may
	// miss changes of the last moments, except that state, limits and last use are always those of now.
	Keys(ctx context.Context, q Query) (page []apikey.Record, more bool, err error)

	// Commit makes a Change whole or not at all: ErrChanged when its entry, its Replay or a key that it creates exists, or
	// one that it updates is not at the version seen, else ErrCount when its Count does not hold, apikey.ErrConflict when
	// another change of the same things was under way.
	Commit(ctx context.Context, c Change) error

	// Close marks a key at the version seen as closing, by one plain write that a storm of verifies cannot push aside.
	// ErrChanged when the key is not at that version or is closing already.
	Close(ctx context.Context, id apikey.ID, version int64, c apikey.Closing) error

	// Due returns up to q.Limit keys that are due, in the order that q asks for. It may miss changes of the last moments.
	Due(ctx context.Context, q DueQuery) ([]DueKey, error)

	// Postpone sets when a key that is as it was read is due, and nothing else. ErrChanged when it is at another version, or
	// due at another time, as after a hint.
	Postpone(ctx context.Context, r apikey.Record, due *apikey.Due) error

	// Replay returns an answer that was kept, also one whose time is over, or ErrNotFound.
	Replay(ctx context.Context, id string) (Replay, error)

	// Entries returns up to q.Limit entries of an organization's audit trail, newest first, and whether there may be more.
	Entries(ctx context.Context, q EntryQuery) (page []audit.Entry, more bool, err error)

	// Links returns up to limit links, at least 1, of an organization's chain that come after the one numbered after, in the
	// order of their numbers, and whether there may be more.
	Links(ctx context.Context, organizationID string, after int64, limit int) (page []audit.Link, more bool, err error)
}

// Organization owns keys.
type Organization struct {
	ID            string
	Plan          string    // as operators set it; "": they did not
	ClaimedPlan   string    // as a verified token named it last; "": none did
	ClaimedAt     time.Time // when that token was issued
	Signing       []Signing // secrets that its notices are signed with, the present one first
	AllowedScopes []string  // service scopes that its keys may have, "*" ends a prefix; nil: the deployment's default
	ActiveKeys    int64     // keys that take a place in the plan
	CreatedAt     time.Time
	Version       int64 // of the last change of anything but ActiveKeys; 0: it is not stored yet
}

// Query asks for keys of one organization.
type Query struct {
	OrganizationID string
	ProjectID      string // "": of every project
	Side           Side
	Before         Position // zero: from the newest on
	Limit          int      // at least 1
}

// Side says which keys a Query is about.
type Side int

// The sides. A key that changes sides while Both are read is found.
const (
	Living Side = iota // neither revoked nor archived
	Ended              // revoked or archived
	Both
)

// Position is a key's place in the order of lists: newest first, ties by falling id.
type Position struct {
	CreatedAt time.Time
	ID        apikey.ID
}

// PositionOf is r's place.
func PositionOf(r *apikey.Record) Position { return Position{r.CreatedAt, r.ID} }

// Compare is negative when p comes before q in a list, positive when it comes after it, 0 when they are the same.
func (p Position) Compare(q Position) int {
	return cmp.Or(q.CreatedAt.Compare(p.CreatedAt), cmp.Compare(q.ID, p.ID))
}

// After says whether p comes after q in a list. Everything comes after the zero Position.
func (p Position) After(q Position) bool { return q == (Position{}) || p.Compare(q) > 0 }

// Change is what one transaction does.
type Change struct {
	Create  *apikey.Record // a new key; its Counts are stored too
	Update  []Update
	Count   *Count
	Replay  *Replay         // an answer to keep, where none is kept under its id that is not over by Entry.At
	Destroy []apikey.Sealed // kept answers whose Sealed is to go; any that was dropped or replaced meanwhile is left alone
	Entry   audit.Entry
	Silent  bool // the entry is not written: nothing changes that anybody sees
}

// Update replaces everything that management knows of a key. It leaves alone what verifies write: counters and last use.
// The stored key must be at Record.Version-1, closing or not as Closing says, the counters of Frozen must be what the
// record's Counts say, and others as Below says.
type Update struct {
	Record  apikey.Record
	Closing bool // the key was read as closing
	Frozen  []apikey.Window
}

// Below is what counters of the stored key must be below, at the time of the change: when the key is due follows from how much of its
// daily limit is used, so a debit that came to a part which is told of must be known to whoever writes that down.
func (u *Update) Below(now time.Time) map[apikey.Window]int64 {
	r := &u.Record
	if r.DailyLimit == nil || r.Ended() {
		return nil
	}
	below := map[apikey.Window]int64{}
	for day := apikey.Day(now) - 1; day <= apikey.Day(now)+1; day++ {
		w := apikey.WindowOf(day)
		for _, percent := range apikey.UseTold {
			if n := apikey.Threshold(*r.DailyLimit, percent); r.Counts[w] < n {
				below[w] = n
				break
			}
		}
	}
	return below
}

// Count moves an organization's ActiveKeys. A positive Delta needs the organization to be at Version, and ActiveKeys+Delta
// to be at most Max.
type Count struct {
	OrganizationID string
	Delta          int64
	Version        int64
	Max            int64
}

// Replay is the answer of a change that was to be made once, kept for whoever lost it.
type Replay struct {
	ID          string    // of what was asked, and by whom: see Once
	Fingerprint []byte    // of the request's body
	KeyID       apikey.ID // the key whose secret the answer holds
	Sealed      []byte    // the answer; nil once it was destroyed
	Until       time.Time // when it may be forgotten
}

// DueQuery asks for keys that are due.
type DueQuery struct {
	Work apikey.Work
	work.Query[DueKey]
}

// DueKey is a key that is due.
type DueKey struct {
	At time.Time
	ID apikey.ID
}

// Compare is negative when d is due before e, ties by rising id.
func (d DueKey) Compare(e DueKey) int { return cmp.Or(d.At.Compare(e.At), cmp.Compare(d.ID, e.ID)) }

// EntryQuery asks for entries of one organization's audit trail, by their ids.
type EntryQuery struct {
	OrganizationID string
	After, Before  string // only entries between, both ends excluded; "": without an end
	Limit          int    // at least 1
}
