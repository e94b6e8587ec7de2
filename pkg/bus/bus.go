// Package bus sends what happened to keys to an EventBridge bus of the deployment's account, where its owner makes rules for
// whoever wants to know.
//
// It promises to say of each message whether the bus took it. It refuses to keep anybody waiting for a bus that does not
// answer, and to repeat in an error what AWS wrote but its codes.
package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/publish"
)

// Source is what every message has as its source.
const Source = "latchkey"

const (
	// attemptTimeout is for the beginning of each answer; a call may take patience such times, with all its attempts.
	attemptTimeout = 2 * time.Second
	patience       = 4
	// atOnce is how many calls are under way at the same time.
	atOnce = 4
	// MaxMessages and MaxBytes are what EventBridge takes in one call. A message counts its type, its detail, its source and
	// timeBytes.
	MaxMessages = 10
	MaxBytes    = 256 << 10
	timeBytes   = 14
)

// remote is a publish.Bus, for many goroutines.
type remote struct {
	client   *eventbridge.Client
	name     string
	patience time.Duration
}

// Open makes the bus of that name or ARN, to which the process may PutEvents. Nothing is asked of EventBridge yet.
func Open(access amazon.Access, name string) (publish.Bus, error) {
	if name == "" {
		return nil, errors.New("which event bus is not said")
	}
	access.AttemptTimeout = cmp.Or(access.AttemptTimeout, attemptTimeout)
	config, err := access.Config()
	if err != nil {
		return nil, err
	}
	return &remote{eventbridge.NewFromConfig(config), name, patience * access.AttemptTimeout}, nil
}

// Put sends messages: see publish.Bus. A call whose answer was lost may have been taken nevertheless.
func (b *remote) Put(ctx context.Context, messages []publish.Message) []error {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	outcomes := make([]error, len(messages))
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for rest := outcomes; len(messages) > 0; {
		n := fit(messages)
		now, said := messages[:n], rest[:n]
		messages, rest = messages[n:], rest[n:]
		places <- struct{}{}
		all.Go(func() {
			b.call(ctx, now, said)
			<-places
		})
	}
	all.Wait()
	return outcomes
}

// fit is how many of the messages fit into one call, at least one.
func fit(messages []publish.Message) (n int) {
	for bytes := 0; n < min(len(messages), MaxMessages); n++ {
		if bytes += Size(&messages[n]); bytes > MaxBytes && n > 0 {
			break
		}
	}
	return n
}

// Size is what EventBridge counts for a message.
func Size(m *publish.Message) int { return timeBytes + len(Source) + len(m.Type) + len(m.Detail) }

// call sends messages that fit into one call.
func (b *remote) call(ctx context.Context, messages []publish.Message, outcomes []error) {
	in := &eventbridge.PutEventsInput{Entries: make([]types.PutEventsRequestEntry, len(messages))}
	for i, m := range messages {
		in.Entries[i] = types.PutEventsRequestEntry{EventBusName: &b.name, Source: aws.String(Source), DetailType: &m.Type,
			Detail: aws.String(string(m.Detail))}
		if !m.At.IsZero() {
			in.Entries[i].Time = &m.At
		}
	}
	out, err := b.client.PutEvents(ctx, in)
	switch {
	case err != nil:
		err = amazon.Refusal(ctx, "sending to EventBridge", err)
	case len(out.Entries) != len(messages):
		err = errors.New("EventBridge does not say of each event whether it took it")
	}
	for i := range outcomes {
		if outcomes[i] = err; err == nil {
			outcomes[i] = outcome(&out.Entries[i])
		}
	}
}

// outcome is what EventBridge says of one event: its id, or why it has none.
func outcome(e *types.PutEventsResultEntry) error {
	code := aws.ToString(e.ErrorCode)
	switch {
	case amazon.IsCode(code):
		return fmt.Errorf("EventBridge refuses the event: %s", code)
	case code != "" || aws.ToString(e.EventId) == "":
		return errors.New("EventBridge refuses the event")
	}
	return nil
}
