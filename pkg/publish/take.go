package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
)

// Kind says what a record is.
type Kind int

// The kinds of record.
const (
	Written  Kind = iota // a new entry of the trail
	Tampered             // a change of the trail that nobody may make
	Foreign              // nothing of any organization's
)

// Record is one thing that a feed tells of the table of the audit trail.
type Record struct {
	ID             string // its own in the feed
	Kind           Kind
	Change         string // INSERT, MODIFY or REMOVE
	OrganizationID string
	EntryID        string
	At             time.Time   // of a Tampered one, about when; the zero time if nobody knows
	Entry          audit.Entry // of a Written one
	Err            error       // of a Written one: why its entry cannot be read
}

// Take publishes the entries of records, and raises an alarm for whatever else was done to the trail. It returns the records
// that are not done, in their order, and why: the first of them is where a feed that goes on from one record has to begin
// again. A record that cannot be read is one of them, and so is what follows it of its organization.
func (p *Publisher) Take(ctx context.Context, records []Record) (left []Record, err error) {
	var entries []audit.Entry
	var tampered []Record
	var failures []error
	unread := map[string]bool{} // organizations, from the record on that cannot be read
	undone := map[string]bool{} // records
	for _, r := range records {
		switch {
		case r.Kind == Tampered:
			tampered = append(tampered, r)
		case r.Kind == Foreign:
		case r.Err != nil:
			failures = append(failures, fmt.Errorf("the record %s: %w", r.ID, r.Err))
			p.Log.ErrorContext(ctx, "an entry cannot be read", "organization_id", r.OrganizationID, "entry_id", r.EntryID, "error", r.Err)
			unread[r.OrganizationID], undone[r.ID] = true, true
		case unread[r.OrganizationID]:
			undone[r.ID] = true
		default:
			entries = append(entries, r.Entry)
		}
	}
	failures = append(failures, p.alarm(ctx, tampered, undone))
	behind, err := p.Publish(ctx, entries)
	failures = append(failures, err)
	return remaining(records, undone, behind), errors.Join(failures...)
}

// remaining are the records that are undone, or whose entries are behind.
func remaining(records []Record, undone map[string]bool, behind []audit.Entry) (left []Record) {
	entries := map[[2]string]bool{}
	for _, e := range behind {
		entries[[2]string{e.OrganizationID, e.ID}] = true
	}
	for _, r := range records {
		if undone[r.ID] || r.Kind == Written && entries[[2]string{r.OrganizationID, r.EntryID}] {
			left = append(left, r)
		}
	}
	return left
}

// AlarmType is the type of the message that a bus gets when the trail was tampered with. It is no event of the chain: the
// chain holds what happened to keys, and only what was written as it should be.
const AlarmType = "audit.tampered"

// alarmJSON is that message.
type alarmJSON struct {
	Version   int       `json:"version"`
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		OrganizationID string `json:"organization_id"`
		EntryID        string `json:"entry_id"`
		Change         string `json:"change"`
	} `json:"data"`
}

// alarm tells the log and the bus of records. Those that the bus did not take become undone.
func (p *Publisher) alarm(ctx context.Context, records []Record, undone map[string]bool) error {
	var messages []Message
	for _, r := range records {
		// A metric filter of the template reads the words of this line.
		p.Log.ErrorContext(ctx, "audit trail tampered with", "event", r.Change, "organization_id", r.OrganizationID, "entry_id", r.EntryID)
		m := alarmJSON{Version: 1, ID: "tampered-" + r.ID, Type: AlarmType, Timestamp: r.At}
		m.Data.OrganizationID, m.Data.EntryID, m.Data.Change = r.OrganizationID, r.EntryID, r.Change
		detail, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("printing an alarm: %w", err)
		}
		messages = append(messages, Message{AlarmType, r.At, detail})
	}
	if p.Bus == nil || len(messages) == 0 {
		return nil
	}
	ctx, cancel := half(ctx)
	defer cancel()
	var failures []error
	for i, err := range p.Bus.Put(ctx, messages) {
		if err != nil {
			undone[records[i].ID] = true
			failures = append(failures, fmt.Errorf("sending the alarm of %s: %w", records[i].ID, err))
		}
	}
	return errors.Join(failures...)
}
