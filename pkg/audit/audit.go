// Package audit says what happened, to which key, by whom. An entry is written in the same transaction as the change it
// tells of, so that neither exists without the other, and is never changed afterwards. No entry holds a key or a hash.
package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// Action names what happened.
type Action string

// The actions so far.
const (
	Created     Action = "api_key.created"
	Rotated     Action = "api_key.rotated"
	GraceEnded  Action = "api_key.grace_ended"
	GraceMoved  Action = "api_key.grace_extended"
	Revoked     Action = "api_key.revoked"
	Archived    Action = "api_key.archived"
	Reactivated Action = "api_key.reactivated"
	Disabled    Action = "api_key.disabled"
	Enabled     Action = "api_key.enabled"
	Updated     Action = "api_key.updated"
	Expired     Action = "api_key.expired"

	// What time does.
	RotationDue       Action = "api_key.rotation_due"       // and waits for someone: nobody is named to give the successor to, or nobody said that they have it
	RotationStarted   Action = "api_key.rotation_started"   // a successor waits to be delivered
	RotationCompleted Action = "api_key.rotation_completed" // the replaced key has ended
	RotationAbandoned Action = "api_key.rotation_abandoned" // nobody took the successor, which is revoked
	Expiring          Action = "api_key.expiring"
	Stale             Action = "api_key.stale"
	LimitReached      Action = "api_key.limit_reached" // 80 or 100 percent of a day's limit are used

	OrgCreated Action = "organization.created"
	OrgUpdated Action = "organization.updated"

	WebhookCreated  Action = "webhook.created"
	WebhookUpdated  Action = "webhook.updated"
	WebhookDeleted  Action = "webhook.deleted"
	WebhookDisabled Action = "webhook.disabled" // its receiver wants no more
)

// Actions lists every action.
func Actions() []Action {
	return []Action{Created, Rotated, GraceEnded, GraceMoved, Revoked, Archived, Reactivated, Disabled, Enabled, Updated, Expired,
		RotationDue, RotationStarted, RotationCompleted, RotationAbandoned, Expiring, Stale, LimitReached, OrgCreated, OrgUpdated,
		WebhookCreated, WebhookUpdated, WebhookDeleted, WebhookDisabled}
}

// Entry is one thing that happened.
type Entry struct {
	ID             string // a ULID, so entries sort by time
	OrganizationID string
	At             time.Time
	Action         Action
	ActorKind      string
	ActorID        string
	Address        string // where the request came from; "" if nowhere
	RequestID      string
	KeyID          *apikey.ID
	Changes        []Change
}

// entryJSON is an Entry as clients see it.
type entryJSON struct {
	ID             string     `json:"id"`
	OrganizationID string     `json:"organization_id"`
	At             time.Time  `json:"at"`
	Action         Action     `json:"action"`
	Actor          actorJSON  `json:"actor"`
	Address        *string    `json:"address"`
	RequestID      string     `json:"request_id"`
	KeyID          *apikey.ID `json:"key_id"`
	Changes        []Change   `json:"changes"`
}

type actorJSON struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// MarshalJSON prints an Entry with every field present: null where there is no address or key.
func (e Entry) MarshalJSON() ([]byte, error) {
	out := entryJSON{e.ID, e.OrganizationID, e.At, e.Action, actorJSON{e.ActorKind, e.ActorID}, nil, e.RequestID, e.KeyID, e.Changes}
	if e.Address != "" {
		out.Address = &e.Address
	}
	if out.Changes == nil {
		out.Changes = []Change{}
	}
	return json.Marshal(out)
}

// Change is one field's value before and after, as JSON; null where there was or is none.
type Change struct {
	Field string          `json:"field"`
	From  json.RawMessage `json:"from"`
	To    json.RawMessage `json:"to"`
}

// NewID makes an entry's id for a moment: a ULID, above the last that was made for the same millisecond.
func NewID(at time.Time) string {
	return ulid.MustNew(ulid.Timestamp(at), entropy).String()
}

// entropy is that of ids. It keeps none in stock, so that a test which decides what is random decides all ids too.
var entropy = func() *ulid.LockedMonotonicReader {
	monotonic := ulid.Monotonic(rand.Reader, 0)
	monotonic.Reader = rand.Reader
	return &ulid.LockedMonotonicReader{MonotonicReader: monotonic}
}()

// FirstID is below the id of every entry of that moment and later, and above all earlier ones; "" for a moment that no
// entry can have, as the zero one.
func FirstID(at time.Time) string {
	ms := at.UnixMilli()
	if at.IsZero() || ms < 0 || uint64(ms) > ulid.MaxTime() {
		return ""
	}
	return ulid.MustNew(uint64(ms), nil).String()
}

// ValidID says whether an entry may have the id.
func ValidID(id string) bool {
	u, err := ulid.ParseStrict(id)
	return err == nil && u.String() == id
}

// Diff lists the fields that differ between two states of a key, in the order of their names; before is nil for a new
// key. What verifies change (last_used_at) and what follows from the rest (status, updated_at) is left out.
func Diff(before *apikey.Key, after apikey.Key) ([]Change, error) {
	var changes []Change
	is, was := reflect.ValueOf(after), reflect.Value{}
	if before != nil {
		was = reflect.ValueOf(*before)
	}
	for _, f := range told {
		to, from := is.Field(f.index).Interface(), any(nil)
		if before != nil {
			if from = was.Field(f.index).Interface(); reflect.DeepEqual(from, to) {
				continue
			}
		}
		c, err := changed(f.name, before != nil, from, to)
		if err != nil {
			return nil, fmt.Errorf("printing a key for the audit: %w", err)
		}
		if c != nil {
			changes = append(changes, *c)
		}
	}
	return changes, nil
}

// changed is the Change of one field, or nil when both values are spelt the same, or a new key has none.
func changed(name string, existed bool, from, to any) (*Change, error) {
	c := Change{Field: name}
	var err error
	if c.To, err = json.Marshal(to); err != nil {
		return nil, err
	}
	if !existed {
		if string(c.To) == "null" {
			return nil, nil
		}
	} else if c.From, err = json.Marshal(from); err != nil || bytes.Equal(c.From, c.To) {
		return nil, err
	}
	if !jsontext.Value(c.To).IsValid() {
		return nil, fmt.Errorf("%s is no JSON that could be linked (RFC 8785): a name twice, or half a character", name)
	}
	if name == "rotation_webhook_url" {
		c.From, c.To = receiverIn(c.From), receiverIn(c.To)
	}
	return &c, nil
}

// Receiver is what is told of the address of a webhook: its scheme, host and port. The rest of it may be a secret, as with
// those who give out an address for each sender and ask for nothing else, and who reads the trail or an event is not
// everybody who may know it. A change of the rest alone is told as one, with the same text before and after.
func Receiver(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "…"
	}
	short := u.Scheme + "://" + u.Host
	if address == short || address == short+"/" {
		return address
	}
	return short + "/…"
}

// receiverIn is Receiver of an address as JSON, which may be null or not there.
func receiverIn(address json.RawMessage) json.RawMessage {
	var text *string
	if json.Unmarshal(address, &text) != nil || text == nil {
		return address
	}
	b, _ := json.Marshal(Receiver(*text)) // of a text
	return b
}

// told are the fields of a key that an entry tells of, by their names.
var told = func() (list []field) {
	for f := range reflect.TypeFor[apikey.Key]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch name {
		case "-", "status", "last_used_at", "updated_at":
		default:
			list = append(list, field{name, f.Index[0]})
		}
	}
	slices.SortFunc(list, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return list
}()

type field struct {
	name  string
	index int
}
