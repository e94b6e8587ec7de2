package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
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

	// CreateOrganization adds one together with its audit entry; ErrChanged when either exists.
	CreateOrganization(ctx context.Context, o Organization, entry audit.Entry) error

	// Key returns one with everything known of it, or ErrNotFound.
	Key(ctx context.Context, id apikey.ID) (apikey.Record, error)

	// Keys returns up to q.Limit keys that come after q.Before, newest first, and whether there may be more. It may
	// miss changes of the last moments, except that state, limits and last use are always those of now.
	Keys(ctx context.Context, q Query) (page []apikey.Record, more bool, err error)

	// Commit makes a Change whole or not at all: ErrChanged when its entry or a key that it creates exists, or one that it
	// updates is not at the version seen, ErrCount when its Count does not hold, apikey.ErrConflict when another change of the same
	// things was under way.
	Commit(ctx context.Context, c Change) error

	// Close marks a key at the version seen as closing, by one plain write that a storm of verifies cannot push aside.
	// ErrChanged when the key is not at that version or is closing already.
	Close(ctx context.Context, id apikey.ID, version int64, c apikey.Closing) error
}

// Organization owns keys.
type Organization struct {
	ID            string
	Plan          string
	AllowedScopes []string // service scopes that its keys may have; "*" ends a prefix
	ActiveKeys    int64    // keys that take a place in the plan
	CreatedAt     time.Time
}

// Query asks for keys of one organization.
type Query struct {
	OrganizationID string
	ProjectID      string   // "": of every project
	Ended          bool     // the revoked and archived keys, instead of all others
	Before         Position // zero: from the newest on
	Limit          int      // at least 1
}

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
	Create *apikey.Record // a new key; its Counts are stored too
	Update []Update
	Count  *Count
	Entry  audit.Entry
}

// Update replaces everything that management knows of a key. It leaves alone what verifies write: counters and last use.
// The stored key must be at Record.Version-1, closing or not as Closing says, and the counters of Frozen must be what the
// record's Counts say.
type Update struct {
	Record  apikey.Record
	Closing bool // the key was read as closing
	Frozen  []apikey.Window
}

// Count moves an organization's ActiveKeys. A positive Delta needs the organization to be on Plan, and ActiveKeys+Delta
// to be at most Max.
type Count struct {
	OrganizationID string
	Delta          int64
	Plan           string
	Max            int64
}
