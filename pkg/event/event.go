// Package event says what the world is told of an organization's keys: one message for each entry of its audit trail, in
// one versioned shape, for webhooks and for an EventBridge bus alike. docs/events holds its JSON Schemas.
//
// No event holds a key, a hash or a sealed secret. What is brought to a key's own rotation_webhook_url does, is no Event,
// and is another room's: see package deliver.
package event

import (
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
)

// Version is the version of the shape. Members may be added within it; none is taken away or changes its meaning.
const Version = 1

// Event is one message. It prints as JSON with every member present.
type Event struct {
	Version   int          `json:"version"`
	ID        string       `json:"id"` // of the audit entry: the same however often the event is sent
	Type      audit.Action `json:"type"`
	Timestamp time.Time    `json:"timestamp"`
	Data      Data         `json:"data"`
}

// Data is what happened, to which key, by whom, and where it stands in its organization's chain.
type Data struct {
	OrganizationID string         `json:"organization_id"`
	KeyID          *apikey.ID     `json:"key_id"`
	Actor          Actor          `json:"actor"`
	Address        *string        `json:"address"`
	RequestID      string         `json:"request_id"`
	Changes        []audit.Change `json:"changes"`
	Chain          Chain          `json:"chain"`
}

// Actor is who did it.
type Actor struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// Chain is an event's place: events of one organization are numbered without gaps. Whoever keeps the hashes elsewhere can
// prove later that the trail was not cut short or written anew.
type Chain struct {
	Sequence int64  `json:"sequence"`
	Previous string `json:"previous"`
	Hash     string `json:"hash"`
}

// Of is the event of an entry.
func Of(l audit.Linked) Event {
	e := Event{Version: Version, ID: l.Entry.ID, Type: l.Entry.Action, Timestamp: l.Entry.At, Data: Data{
		OrganizationID: l.Entry.OrganizationID, KeyID: l.Entry.KeyID, Actor: Actor{l.Entry.ActorKind, l.Entry.ActorID},
		RequestID: l.Entry.RequestID, Changes: l.Entry.Changes,
		Chain: Chain{l.Link.Sequence, l.Link.Previous, l.Link.Hash}}}
	if l.Entry.Address != "" {
		e.Data.Address = &l.Entry.Address
	}
	if e.Data.Changes == nil {
		e.Data.Changes = []audit.Change{}
	}
	return e
}
