package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/deliver"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/publish"
)

// releasePatience is how long a process that ends takes to say how far it published.
const releasePatience = 2 * time.Second

// Clients open those services of AWS that few programs speak to. The SDK's client of a service makes every program larger
// and slower to start that holds it, used or not, so a main hands in those that it needs, and this package imports none.
type Clients struct {
	Bus     func(access amazon.Access, name string) (publish.Bus, error) // see bus.Open
	Secrets func(access amazon.Access) (deliver.Vault, error)            // see secrets.Open
	Streams func(access amazon.Access) (dynamo.Streams, error)           // see stream.Open
}

// publisher tells of the audit trail: the chain, the bus that the settings name, if they do, and the organizations' webhooks.
// What links is asked of the store here, and not in [Store], so that no other Lambda holds its code.
func (a *App) publisher(clients Clients, events amazon.Access) (*publish.Publisher, error) {
	chain, ok := a.Store.(publish.Chain)
	if !ok {
		return nil, errors.New("the store has no chain")
	}
	p := &publish.Publisher{Chain: chain, Announce: a.Notify.Announce, Log: a.Log}
	if a.Settings.EventBus == "" {
		return p, nil
	}
	var err error
	if p.Bus, err = clients.Bus(events, a.Settings.EventBus); err != nil {
		return nil, fmt.Errorf("LATCHKEY_EVENT_BUS or LATCHKEY_EVENTBRIDGE_ENDPOINT: %w", err)
	}
	return p, nil
}

// Publishing is what the Lambda publish does with what Lambda brings of the audit table's stream.
type Publishing struct{ publisher *publish.Publisher }

// LambdaPublishing is what [Lambda] is, for that one function.
func LambdaPublishing(getenv func(string) string, stderr io.Writer, clients Clients) (*Publishing, error) {
	a, err := Lambda(getenv, stderr)
	if err != nil {
		return nil, err
	}
	p, err := a.publisher(clients, access(getenv, getenv("LATCHKEY_EVENTBRIDGE_ENDPOINT")))
	return &Publishing{p}, err
}

// Read reads a record of the stream: see dynamo.ReadRecord.
func (p *Publishing) Read(change, sequence string, at time.Time, keys, image json.RawMessage) publish.Record {
	return dynamo.ReadRecord(change, sequence, at, keys, image)
}

// Take publishes records, and returns the sequence number of the first that is not done, "" if all are.
func (p *Publishing) Take(ctx context.Context, records []publish.Record) (first string) {
	left, _ := p.publisher.Take(ctx, records) // why is in the log
	if len(left) == 0 {
		return ""
	}
	return left[0].ID
}

// follow is what latchkeyd follows to learn what was committed: the memory itself, or the audit table's stream.
func (d *daemon) follow() (publish.Feed, error) {
	switch s := d.app.Store.(type) {
	case *memory.Store:
		return s.Feed(), nil
	case *dynamo.Store:
		streams, err := d.process.Clients.Streams(d.access(d.options.dynamodb))
		return s.Tail(streams), err
	}
	return nil, errors.New("the store does not tell what is committed")
}

// access is how to speak to a service of AWS, which in development is one on this machine.
func (d *daemon) access(endpoint string) amazon.Access {
	if d.options.dev {
		return amazon.Access{Endpoint: endpoint, LoopbackOnly: true}
	}
	return access(d.process.Getenv, endpoint)
}

// publish tells of what is committed, until ctx is done, and wakes who delivers what was announced.
func (d *daemon) publish(ctx context.Context, announced chan<- struct{}) {
	d.publisher.Announce = func(ctx context.Context, organizationID string, events []event.Event) error {
		err := d.app.Notify.Announce(ctx, organizationID, events)
		wake(announced)
		return err
	}
	d.publisher.Follow(ctx, d.feed)
	tail, ok := d.feed.(*dynamo.Tail)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
	defer cancel()
	if err := tail.Release(ctx); err != nil {
		d.log.Warn("how far the audit trail is published is not written down", "error", err)
	}
}

// wake says that there is something to do, to whom it may not have been said yet.
func wake(who chan<- struct{}) {
	select {
	case who <- struct{}{}:
	default: // it was
	}
}
