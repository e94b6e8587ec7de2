package verify

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// ErrNoKey is what a Store returns for an id that it does not hold.
var ErrNoKey = errors.New("no such key")

// Store is all that a verify asks of one. But for Hint its methods touch the key's hot item alone.
type Store interface {
	// Debit admits or refuses in one atomic write. When Refusal(hot, d) is Valid it adds d.Cost to both of d's windows,
	// sets the last use to d.At, in whole milliseconds, and returns the key as it is then, admitted. Otherwise it changes nothing and returns
	// the key as it stands, refused. It never creates a key: ErrNoKey for an unknown id. apikey.ErrConflict when a
	// change of the key was under way; every other error means that nobody may be let in.
	Debit(ctx context.Context, d Debit) (hot Hot, admitted bool, err error)

	// Look is what a Debit would be told, in one consistent read that changes nothing: ErrNoKey for an unknown id.
	Look(ctx context.Context, d Debit) (Hot, error)

	// Forget drops the counters of windows that have ended. Of an id that it does not hold it may say ErrNoKey.
	Forget(ctx context.Context, id apikey.ID, windows []apikey.Window) error

	// Hint makes a key of the organization due for the sweep at that time, whatever it was due for: the sweep finds that
	// again. Whoever has read the key before the hint cannot postpone it. It does nothing to an id that it does not hold.
	Hint(ctx context.Context, id apikey.ID, organizationID string, at time.Time) error
}

// Debit is one question to a Store: may this key pass, and if so, count it.
type Debit struct {
	ID             apikey.ID
	Hash           apikey.Hash
	OrganizationID string   // when set, only this organization's keys exist
	Scopes         []string // all needed
	Cost           int64    // at least 1
	At             time.Time
}

// Minute is the window of d's minute.
func (d Debit) Minute() apikey.Window { return apikey.MinuteWindow(d.At, 0) }

// Day is the window of d's UTC day.
func (d Debit) Day() apikey.Window { return apikey.DayWindow(d.At, 0) }

// Past says whether w ended so long before d that its counter may be dropped. No other may: a process with a slower or a
// faster clock may be counting in it, and dropping it would reopen it.
func (d Debit) Past(w apikey.Window) bool { return w.Past(d.At) }

// Hot is what one call to a Store tells of a key: all that a decision needs.
type Hot struct {
	Identity
	Hash        apikey.Hash
	State       apikey.Status // Revoked, Archived, Disabled or Active: what no clock changes
	End         time.Time     // zero: never
	CIDRs       []netip.Prefix
	MinuteLimit *int64 // nil: unlimited
	DayLimit    *int64 // nil: unlimited
	MinuteCount int64  // debited in the Debit's minute
	DayCount    int64  // debited in the Debit's day
	Past        []apikey.Window
}

// Identity is whom a key stands for: what an API behind Latchkey may rely on and pass on.
type Identity struct {
	KeyID          apikey.ID
	OrganizationID string
	ProjectID      string
	EnvironmentID  string // "" for none
	ExternalID     string // "" for none
	Scopes         []string
}
