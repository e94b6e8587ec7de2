package notify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/work"
)

// Work is the kind of work that deliveries of events are, beside those of package apikey.
const Work apikey.Work = "event"

// Store keeps subscriptions and deliveries. All reads of single things are consistent: they see every change that was
// acknowledged before they began. Its errors are lifecycle's: ErrNotFound for what it does not hold, ErrChanged when something
// was not, or no longer, as the change requires, apikey.ErrConflict when another change of the same things was under way. A method
// that returns another error may have taken effect.
type Store interface {
	// Subscriptions returns an organization's, none at Version 0 where it never had any.
	Subscriptions(ctx context.Context, organizationID string) (Subscriptions, error)

	// PutSubscriptions replaces an organization's subscriptions together with an audit entry, where those stored are at
	// Version-1: else ErrChanged, as when the entry exists.
	PutSubscriptions(ctx context.Context, s Subscriptions, entry audit.Entry) error

	// AddDelivery stores a new one, at Version 1. ErrChanged, and nothing changes, when its id exists.
	AddDelivery(ctx context.Context, r Record) error

	// Delivery returns one with everything known of it, or ErrNotFound. One whose time is over may be returned.
	Delivery(ctx context.Context, organizationID, id string) (Record, error)

	// UpdateDelivery replaces one that is at Version-1: else ErrChanged.
	UpdateDelivery(ctx context.Context, r Record) error

	// Deliveries returns up to limit of an organization's whose ids are below before ("": from the newest on), without their
	// bodies, newest first, and whether there may be more.
	Deliveries(ctx context.Context, organizationID, before string, limit int) (page []Record, more bool, err error)

	// DueDeliveries returns up to q.Limit that are pending and due, in the order that q asks for. It may miss changes of the
	// last moments.
	DueDeliveries(ctx context.Context, q work.Query[Due]) ([]Due, error)
}

// Subscriptions are all of an organization.
type Subscriptions struct {
	OrganizationID string
	List           []Subscription // the oldest first
	Version        int64          // of the last change
}

// Record is all that a store holds of a delivery.
type Record struct {
	Delivery
	OrganizationID string
	Sequence       int64      // of the event in its organization's chain; 0: it is in none
	Body           []byte     // the event as JSON; nil: it is not kept
	Round          int        // how often it was asked for again
	Tries          int        // attempts begun in this round
	Claimed        *time.Time // an attempt is under way, and over by then
	Until          time.Time  // when it may be forgotten; of a handover also when it is over
	Version        int64
}

// Due is a delivery at its place among those that are due: by time, then by the sequence of the event.
type Due struct {
	At       time.Time
	Sequence int64
	Ref      Ref
}

// Ref names a delivery.
type Ref struct{ OrganizationID, ID string }

// DueOf is where r is among those that are due, and whether it is.
func DueOf(r *Record) (Due, bool) {
	if r.Status != Pending || r.NextAttemptAt == nil || r.WebhookID == nil {
		return Due{}, false
	}
	return Due{*r.NextAttemptAt, r.Sequence, Ref{r.OrganizationID, r.ID}}, true
}

// Place is d's in text that sorts as deliveries are due. Times are those of 1970 to the year 9999.
func (d Due) Place() string {
	return fmt.Sprintf("%015d%019d%s", d.At.UnixMilli(), d.Sequence, strings.TrimPrefix(d.Ref.ID, deliveryPrefix))
}
