// Package notify tells an organization's webhooks what happened: it keeps their subscriptions, makes a delivery of each
// event for each subscription that wants it, attempts what is due, and keeps a log of how it went.
//
// It promises that an event announced is attempted at least once at every webhook that was subscribed to it, until the
// receiver takes it or the schedule of attempts is over, in which one that is silent may be asked with other events alone;
// whoever attempts may crash anywhere. A webhook's first attempts are begun in the order of its organization's chain, as far
// as the clocks of those who announce agree; a retry may come later than newer events. A receiver that is slow or dead holds
// up its own deliveries alone.
//
// It refuses to carry a key: events hold none. Successors of rotated keys are brought by package deliver, which
// has this room note how that went, and nothing of what was brought. What is logged of a receiver is its
// status, never its words.
package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// Bounds.
const (
	MaxSubscriptions = 20  // of an organization
	MaxEventTypes    = 50  // of a subscription
	MaxDescription   = 200 // characters
	MaxPage          = 1000
	MaxLog           = 40 // attempts of one delivery that are remembered, the latest

	Keep = 30 * 24 * time.Hour // for which a delivery is remembered
)

// TestEvent is the type of the event that Test sends. It is in nobody's audit trail, and cannot be subscribed to.
const TestEvent audit.Action = "webhook.test"

// Gone is why a subscription was disabled whose receiver answered 410.
const Gone = "gone"

// Subscription is an organization's wish to be told. Every field is always present in its JSON.
type Subscription struct {
	ID             string    `json:"id"` // "wh_" and a ULID
	OrganizationID string    `json:"organization_id"`
	URL            string    `json:"url"`
	EventTypes     []string  `json:"event_types"` // actions of the audit trail; a "*" at the end stands for any end
	Description    *string   `json:"description"`
	Enabled        bool      `json:"enabled"`
	DisabledReason *string   `json:"disabled_reason"` // null: nobody but its owners disabled it
	CreatedBy      string    `json:"created_by"`
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
}

// New is what may be said of a subscription when it is created.
type New struct {
	URL         string   `json:"url"`
	EventTypes  []string `json:"event_types"`
	Description *string  `json:"description"`
	Enabled     *bool    `json:"enabled"` // absent: true
}

// Patch says what is to change of a subscription. What it does not say stays.
type Patch struct {
	URL         *string
	EventTypes  *[]string
	Description Description
	Enabled     *bool // to enable it forgets why it was disabled
}

// Description is a text, explicitly none, or not said.
type Description struct {
	Said bool
	V    *string
}

// UnmarshalJSON reads a text or null.
func (d *Description) UnmarshalJSON(b []byte) error {
	d.Said, d.V = true, nil
	return json.Unmarshal(b, &d.V)
}

// Status is how far a delivery has come.
type Status string

// The statuses. All but Pending are ends, from which Redeliver alone leads back.
const (
	Pending   Status = "pending"
	Delivered Status = "delivered"
	Failed    Status = "failed"   // every attempt did, or the receiver said that it wants no more
	Canceled  Status = "canceled" // its subscription was deleted or disabled
)

// Statuses lists every status.
func Statuses() []Status { return []Status{Pending, Delivered, Failed, Canceled} }

// Delivery is one event on its way to one webhook, or a successor on its way to its key's own address. Every field is always
// present in its JSON.
type Delivery struct {
	ID            string       `json:"id"`
	WebhookID     *string      `json:"webhook_id"` // null: the address is the key's rotation_webhook_url
	KeyID         *apikey.ID   `json:"key_id"`     // that the event is about; null: none
	EventID       string       `json:"event_id"`   // the header webhook-id of every attempt
	EventType     audit.Action `json:"event_type"`
	Status        Status       `json:"status"`
	Attempts      []Attempt    `json:"attempts"` // the oldest first
	NextAttemptAt *time.Time   `json:"next_attempt_at"`
	CreatedAt     time.Time    `json:"created_at"`
}

// Attempt is what came of one.
type Attempt struct {
	At         time.Time       `json:"at"`
	Outcome    webhook.Outcome `json:"outcome"`
	Status     int             `json:"status"` // HTTP's; 0: there was no answer
	DurationMS int64           `json:"duration_ms"`
	Error      string          `json:"error"` // "": it was delivered
}

// Unknown is the outcome of an attempt of which nobody said how it ended.
const Unknown webhook.Outcome = "unknown"

// Detail is a delivery with what was sent.
type Detail struct {
	Delivery
	Event json.RawMessage `json:"event"` // null: it is not kept
}

// Sender sends one notice. [webhook.Sender] is one.
type Sender interface {
	Check(address string) error
	Send(ctx context.Context, address string, m webhook.Message, secrets ...webhook.Secret) webhook.Result
}

// Service performs the verbs, and delivers. Its fields are set once, before the first use; its methods may be called from
// many goroutines. The verbs find who is asking in their context (package caller).
type Service struct {
	Store   Store
	Sender  Sender
	Secrets func(ctx context.Context, organizationID string) ([]webhook.Secret, error) // that sign for it now
	Now     func() time.Time
	Clock   func() time.Time // the time that receivers share, for the timestamps of signatures; nil: time.Now
	Log     *slog.Logger
	Senders int // deliveries that are under way at once in one Deliver; 0: 1

	rest func(context.Context) error // instead of pause, in tests
}

// now is the moment as it is stored: UTC, whole milliseconds.
func (s *Service) now() time.Time { return s.Now().UTC().Truncate(time.Millisecond) }

func (s *Service) clock() time.Time {
	if s.Clock == nil {
		return time.Now()
	}
	return s.Clock()
}

// pause waits a moment so that two who collided do not collide again.
func (s *Service) pause(ctx context.Context) error {
	if s.rest != nil {
		return s.rest(ctx)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(5+rand.IntN(35)) * time.Millisecond):
		return nil
	}
}

func unavailable(cause error) error {
	return &apikey.Error{Code: apikey.Unavailable, Message: "The store did not answer in time. Look whether the change was made, then try again.",
		Cause: cause}
}

// entry is the audit entry of a change that by makes.
func entry(by caller.Caller, now time.Time, action audit.Action, changes []audit.Change) audit.Entry {
	e := audit.Entry{ID: audit.NewID(now), OrganizationID: by.OrganizationID, At: now, Action: action, ActorKind: string(by.Kind),
		ActorID: by.ID, RequestID: by.RequestID, Changes: changes}
	if by.Address.IsValid() {
		e.Address = by.Address.String()
	}
	return e
}

// nobody is an organization itself, for what is done on nobody's behalf.
func nobody(organizationID string) caller.Caller {
	return caller.Caller{OrganizationID: organizationID, Kind: caller.Operator, ID: "latchkey"}
}

func orEmpty[T any](p *T) T {
	var none T
	return *cmp.Or(p, &none)
}
