// Package apikey holds the nouns of Latchkey: a key, what is stored of it, how it is spelt, what state it is in, and the
// errors that everything else answers with.
//
// Its types are split by secrecy, not by layer. A [Key] is public metadata, and what every client sees of a key.
// A [Record] is a Key with its hash and counters, and never leaves the service. An [Issued] is a Key with its plaintext,
// and exists only in the answer that hands the key out. [Plaintext] and [Hash] cannot be printed.
//
// It imports the standard library alone and asks nobody anything.
package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Key is what may be known of a key by whoever may manage it. Every field is always present in its JSON: null when
// unset, collections empty. Times are UTC with milliseconds.
type Key struct {
	ID                       ID              `json:"id"`
	OrganizationID           string          `json:"organization_id"`
	ProjectID                string          `json:"project_id"`
	EnvironmentID            *string         `json:"environment_id"`
	ExternalID               *string         `json:"external_id"`
	Name                     string          `json:"name"`
	KeyPrefix                string          `json:"key_prefix"`
	Scopes                   []string        `json:"scopes"`
	Enabled                  bool            `json:"enabled"`
	Status                   Status          `json:"status"`                // as of the moment of the answer
	RateLimitPerMinute       *int64          `json:"rate_limit_per_minute"` // null: unlimited
	DailyLimit               *int64          `json:"daily_limit"`           // null: unlimited
	AllowedCIDRs             []string        `json:"allowed_cidrs"`         // empty: from anywhere
	Metadata                 json.RawMessage `json:"metadata"`              // a JSON object
	CreatedBy                string          `json:"created_by"`
	CreatedAt                time.Time       `json:"created_at"`
	UpdatedAt                time.Time       `json:"updated_at"`
	ExpiresAt                *time.Time      `json:"expires_at"`
	LastUsedAt               *time.Time      `json:"last_used_at"`
	ArchivedAt               *time.Time      `json:"archived_at"`
	RevokedAt                *time.Time      `json:"revoked_at"`
	RevokedReason            *string         `json:"revoked_reason"`
	ReplacedByKeyID          *ID             `json:"replaced_by_key_id"`
	GraceExpiresAt           *time.Time      `json:"grace_expires_at"`
	RotationIntervalDays     *int            `json:"rotation_interval_days"`
	NextRotationAt           *time.Time      `json:"next_rotation_at"`
	RotationWebhookURL       *string         `json:"rotation_webhook_url"`
	RotationToSecretsManager bool            `json:"rotation_to_secrets_manager"`
	Version                  int64           `json:"-"` // of the last management change, for the ETag; a verify leaves it alone
}

// Issued is a key together with its plaintext, as create and rotate return it once.
type Issued struct {
	Key       Key
	Plaintext Plaintext
}

// Record is all that a store holds of a key. It is never marshalled to a client.
type Record struct {
	Key
	Hash        Hash
	Counted     bool             // takes a place in its organization's plan
	Predecessor *ID              // the key that this one replaced
	First       ID               // the key that its line began with; 0: itself. See Line
	Lone        bool             // the key that replaced this one takes no place: in its grace this one does
	Counts      map[Window]int64 // what was debited in each window still remembered
	Closing     *Closing         // an ending of the key that has begun and is not yet committed
	Sealed      *Sealed          // where its secret still rests, sealed
	Handover    *Handover        // of a key made by schedule that its owner does not have yet
	Told        Told             // what the sweep has told of it
	Due         *Due             // when somebody must look at it next; nil: never
	LastChange  string           // id of the audit entry of the last management change
}

// Sealed names an answer that was kept because it holds a key's secret.
type Sealed struct {
	ID    string
	Until time.Time
}

// Handover is the delivery of a key that was made by schedule. Until it is acknowledged the predecessor's end is untouched.
type Handover struct {
	Gone     bool       `json:"g,omitempty"` // its receiver wants no more attempts: there are none until it has another address
	Fetched  bool       `json:"f,omitempty"` // Secrets Manager has it brought itself: nobody else tries to
	Until    time.Time  `json:"u"`           // when it is given up
	Next     time.Time  `json:"n"`           // when it is tried next
	Attempts int        `json:"a"`           // that were begun
	Claimed  *time.Time `json:"c,omitempty"` // an attempt is under way, and over by then
	Doubt    bool       `json:"d,omitempty"` // an attempt may have arrived although nobody acknowledged it
}

// Told is what a key's organization was told, so that it is told once.
type Told struct {
	Expiring    int        `json:"e,omitempty"` // how many days before its end, the last time; 0: not yet
	Over        bool       `json:"o,omitempty"` // that it is over
	RotationDue *time.Time `json:"r,omitempty"` // that the rotation of then waits for someone
	Unused      *time.Time `json:"u,omitempty"` // that it is unused since then
	Confirm     *time.Time `json:"c,omitempty"` // of a scheduled rotation: when its grace may be found to be needed no more
	Day         int64      `json:"d,omitempty"` // the last Day whose use of the daily limit needs no more telling than
	Percent     int        `json:"p,omitempty"` // this, of UseTold; of earlier days nothing is told any more
}

// Due says when a key must be looked at, and by whom.
type Due struct {
	Work Work
	At   time.Time
}

// Work is a kind of work that time makes due.
type Work string

// The kinds of work.
const (
	Sweep   Work = "sweep"   // rotations, ends and notices
	Deliver Work = "deliver" // handovers
)

// MarshalJSON always fails: a Record does not leave the service.
func (Record) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a key's record is never marshalled: send its Key")
}

// Line names the keys that replaced one another, for ever: it is the id of the first of them.
func (r *Record) Line() ID {
	if r.First == 0 {
		return r.ID
	}
	return r.First
}

// Ended says whether the key was revoked or archived, so that lists leave it out unless asked.
func (r *Record) Ended() bool { return r.RevokedAt != nil || r.ArchivedAt != nil }

// State is what the key is whatever the clock says: Revoked, Archived, Disabled or Active. A closing key already has the
// state that it will be left in.
func (r *Record) State() Status {
	switch {
	case r.RevokedAt != nil:
		return Revoked
	case r.Closing != nil && r.Closing.Verb == CloseRevoke:
		return Revoked
	case r.ArchivedAt != nil, r.Closing != nil && r.Closing.Verb == CloseArchive:
		return Archived
	case !r.Enabled, r.Closing != nil:
		return Disabled
	}
	return Active
}

// Deadline is the moment from which a verify refuses the key: its End, or the Unix epoch when it is Over for every clock.
func (r *Record) Deadline() *time.Time {
	if epoch := time.Unix(0, 0).UTC(); r.Over(epoch) {
		return &epoch
	}
	return r.End()
}

// What a closing key is to become. A rotation without grace that was cut short leaves the old key disabled: refused, and
// still there to be rotated, enabled or revoked.
const (
	CloseRevoke  = "revoke"
	CloseArchive = "archive"
	CloseDisable = "disable"
)

// Closing marks a key under fire: its ending could not be committed at once, so the key was first closed by one plain
// write. Verify refuses a closing key. Whoever reads one finishes Verb on behalf of those named here.
type Closing struct {
	Verb      string `json:"v"`
	ActorKind string `json:"k"`
	ActorID   string `json:"a"`
	Address   string `json:"i,omitempty"`
	RequestID string `json:"r"`
	Reason    string `json:"n,omitempty"`
}

// Status is a key's state as of one moment.
type Status string

// The states, the strongest first: a key has the first that applies.
const (
	Revoked  Status = "revoked"  // ended for good
	Archived Status = "archived" // put away, may come back
	Disabled Status = "disabled" // switched off, may be switched on
	Expired  Status = "expired"  // its End has passed
	Rotated  Status = "rotated"  // has a successor and is in its grace
	Active   Status = "active"
)

// StatusAt derives the state at now.
func (k *Key) StatusAt(now time.Time) Status {
	switch {
	case k.RevokedAt != nil:
		return Revoked
	case k.ArchivedAt != nil:
		return Archived
	case !k.Enabled:
		return Disabled
	case k.Over(now):
		return Expired
	case k.ReplacedByKeyID != nil:
		return Rotated
	}
	return Active
}

// End is the moment from which the key is refused: the earlier of ExpiresAt and GraceExpiresAt, or nil for never.
func (k *Key) End() *time.Time {
	switch {
	case k.ExpiresAt == nil:
		return k.GraceExpiresAt
	case k.GraceExpiresAt == nil || k.ExpiresAt.Before(*k.GraceExpiresAt):
		return k.ExpiresAt
	}
	return k.GraceExpiresAt
}

// Over says whether the key's End has come by now, or had come when the key was last changed: what was ended "now" stays
// ended for every clock, also for one that is slow.
func (k *Key) Over(now time.Time) bool {
	end := k.End()
	return end != nil && (!end.After(now) || !end.After(k.UpdatedAt))
}

// InGrace says whether the key was replaced, has not ended by now, and is not revoked: archived and disabled keys in
// their grace stay their line's grace.
func (k *Key) InGrace(now time.Time) bool {
	return k.ReplacedByKeyID != nil && k.RevokedAt == nil && !k.Over(now)
}

// At is the Key with its Status as of now: what a client is shown.
func (k Key) At(now time.Time) Key {
	k.Status = k.StatusAt(now)
	return k
}

// Management scopes: what a key may do to the service itself. All other scopes are the team's own and called service
// scopes.
const (
	KeysRead   = "keys:read"
	KeysWrite  = "keys:write"
	KeysVerify = "keys:verify"
	AuditRead  = "audit:read"
	OrgAdmin   = "org:admin"
)

// ManagementScopes lists every management scope.
func ManagementScopes() []string {
	return []string{KeysRead, KeysWrite, KeysVerify, AuditRead, OrgAdmin}
}

// IsManagement says whether scope is one of ManagementScopes.
func IsManagement(scope string) bool {
	switch scope {
	case KeysRead, KeysWrite, KeysVerify, AuditRead, OrgAdmin:
		return true
	}
	return false
}

// MaxScope is the most characters of a scope.
const MaxScope = 64

// ValidScope says whether s may be a scope: 1 to MaxScope characters of A-Z a-z 0-9 . _ : / -
func ValidScope(s string) bool {
	ok := len(s) >= 1 && len(s) <= MaxScope
	for i := 0; ok && i < len(s); i++ {
		ok = digit[s[i]] != 255 || strings.IndexByte("._:/-", s[i]) >= 0
	}
	return ok
}

// ParseScopes reads scopes with commas or spaces between them. Text without any, or with what may be no scope, is an
// error: a demand that cannot be read is not the absence of one.
func ParseScopes(s string) ([]string, error) {
	scopes := strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' })
	for _, scope := range scopes {
		if !ValidScope(scope) {
			return nil, fmt.Errorf("%q is not a scope", scope)
		}
	}
	if len(scopes) == 0 {
		return nil, fmt.Errorf("%q names no scope", s)
	}
	return scopes, nil
}

// Window names one window of a counter, "m29391234" for a minute and "d20412" for a day, counted from the Unix epoch in
// UTC. A counter kept under the window's own name starts anew by itself.
type Window string

// MinuteWindow names the minute that now lies in, or the one back minutes earlier.
func MinuteWindow(now time.Time, back int64) Window { return window('m', now.Unix()/60-back) }

// DayWindow names the UTC day that now lies in, or the one back days earlier.
func DayWindow(now time.Time, back int64) Window { return WindowOf(Day(now) - back) }

func window(kind byte, n int64) Window {
	var b [20]byte
	i := len(b)
	for ; n > 0; n /= 10 {
		i--
		b[i] = byte('0' + n%10)
	}
	i--
	b[i] = kind
	return Window(b[i:])
}

// Day says whether w is a day's window.
func (w Window) Day() bool { return strings.HasPrefix(string(w), "d") }

// Past is how many windows of its kind a window lies back that ended so long ago that no clock is still counting in it:
// at least two minutes, or a day.
const (
	PastMinutes = 3
	PastDays    = 2
)

// Past says whether w ended so long before now that no clock is still counting in it. A window yet to come never is: a
// process with a faster clock counts in it.
func (w Window) Past(now time.Time) bool {
	length, back := int64(60), int64(PastMinutes)
	if w.Day() {
		length, back = 86400, PastDays
	}
	n := int64(0)
	for i := 1; i < len(w); i++ {
		n = n*10 + int64(w[i]-'0')
	}
	return n <= now.Unix()/length-back
}
