// Package publish tells the world what was written into the audit trail: it links each entry into its organization's chain,
// sends its event to a bus, and announces it to whoever the organization itself has subscribed.
//
// It promises that every entry it is given leaves at least once, with one id and one number however often it comes; that the
// events of one organization leave in the order of its chain, each only once the bus has taken the one before; and that an
// organization with which something goes wrong holds up nobody else's events. It refuses to send what has no link: whoever
// reads an event can prove later where it stood.
//
// A feed brings what was written: see [Publisher.Take] for one that delivers batches and takes back what is left, as Lambda
// does, and [Publisher.Follow] for one that is read in a process of our own.
package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/event"
)

// Chain links entries.
type Chain interface {
	// Append links those entries of an organization that have no link yet, in the order given, and returns every one of
	// them with its link, in that order. Two at once are safe.
	Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error)
}

// Bus takes messages for whoever listens to it.
type Bus interface {
	// Put sends messages, in no order and as few calls as it can, and returns for each of them nil once it was taken. One
	// that is refused, or about which nobody knows, holds up none of the others.
	Put(ctx context.Context, messages []Message) []error
}

// Message is what a bus takes.
type Message struct {
	Type   string // such as api_key.created
	At     time.Time
	Detail []byte // a JSON object
}

const (
	// atOnce is how many organizations are linked, or announced to, at the same time.
	atOnce = 8
	// remembered is how many events that the bus took a Publisher knows, not to send them again when a batch comes again.
	remembered = 10_000
)

// Publisher publishes entries. It may be used by many goroutines, and there may be many of them.
type Publisher struct {
	Chain    Chain
	Bus      Bus                                                                          // nil: none
	Announce func(ctx context.Context, organizationID string, events []event.Event) error // idempotent; nil: nobody
	Log      *slog.Logger

	taken, noted memory
}

// line is what there is to publish of one organization, in the order of its chain.
type line struct {
	organizationID string
	entries        []audit.Entry // each once, in the order in which they came
	events         []event.Event
	next           int   // the first event that the bus has not taken
	err            error // why it did not go on
}

// Publish publishes entries, which come in the order in which they were committed and may be of several organizations. It
// returns those that are not published whole, in that order, and why. They may be given again, alone or with the others.
//
// Where the bus fails, subscribers are told nevertheless: each of the two is for who cannot rely on the other. So that
// there is time for that, whatever hangs, linking gets half of the time that ctx leaves, and the bus half of the rest.
func (p *Publisher) Publish(ctx context.Context, entries []audit.Entry) (left []audit.Entry, err error) {
	lines := sorted(entries)
	linking, cancel := half(ctx)
	each(lines, func(l *line) { l.link(linking, p.Chain) })
	cancel()
	p.note(ctx, lines)
	p.send(ctx, lines)
	if p.Announce != nil {
		each(lines, func(l *line) { l.announce(ctx, p.Announce) })
	}
	behind := map[[2]string]bool{}
	var failures []error
	for _, l := range lines {
		for _, e := range l.events[l.next:] {
			behind[[2]string{l.organizationID, e.ID}] = true
		}
		if l.err == nil {
			continue
		}
		failures = append(failures, fmt.Errorf("of %s: %w", l.organizationID, l.err))
		p.Log.WarnContext(ctx, "not published", "organization_id", l.organizationID, "entries", len(l.events)-l.next, "error", l.err)
	}
	for _, e := range entries {
		if behind[[2]string{e.OrganizationID, e.ID}] {
			left = append(left, e)
		}
	}
	return left, errors.Join(failures...)
}

// sorted gives each organization its line, the one that comes first the first.
func sorted(entries []audit.Entry) (lines []*line) {
	of, seen := map[string]*line{}, map[[2]string]bool{}
	for _, e := range entries {
		if seen[[2]string{e.OrganizationID, e.ID}] {
			continue
		}
		seen[[2]string{e.OrganizationID, e.ID}] = true
		l := of[e.OrganizationID]
		if l == nil {
			l = &line{organizationID: e.OrganizationID}
			of[e.OrganizationID], lines = l, append(lines, l)
		}
		l.entries = append(l.entries, e)
	}
	return lines
}

// each does something with every line, with several at the same time.
func each(lines []*line, do func(*line)) {
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, l := range lines {
		places <- struct{}{}
		all.Go(func() { do(l); <-places })
	}
	all.Wait()
}

// link makes the line's events. Until it has, they are none but their ids.
func (l *line) link(ctx context.Context, chain Chain) {
	for _, e := range l.entries {
		l.events = append(l.events, event.Event{ID: e.ID})
	}
	linked, err := chain.Append(ctx, l.organizationID, l.entries)
	if err == nil && len(linked) != len(l.entries) {
		err = fmt.Errorf("%d of %d entries came back", len(linked), len(l.entries))
	}
	if err != nil {
		l.err = fmt.Errorf("linking: %w", err)
		return
	}
	for i := range linked {
		l.events[i] = event.Of(linked[i])
	}
	slices.SortFunc(l.events, func(a, b event.Event) int { return cmp.Compare(a.Data.Chain.Sequence, b.Data.Chain.Sequence) })
}

// send brings the lines to the bus in waves, of each line one event. A line whose event was not taken stands still.
func (p *Publisher) send(ctx context.Context, lines []*line) {
	ctx, cancel := half(ctx)
	defer cancel()
	for {
		wave, messages := p.wave(lines)
		if len(wave) == 0 {
			return
		}
		for i, err := range p.Bus.Put(ctx, messages) {
			if l := wave[i]; err != nil {
				l.err = fmt.Errorf("sending %s: %w", l.events[l.next].ID, err)
			} else {
				p.taken.add(&l.events[l.next])
				l.next++
			}
		}
	}
}

// note writes into the log what an operator wants to know of, once for each event, whatever becomes of the bus.
func (p *Publisher) note(ctx context.Context, lines []*line) {
	for _, l := range lines {
		for i := range l.events {
			if e := &l.events[i]; e.Type == audit.RotationAbandoned && !p.noted.has(e) {
				p.noted.add(e)
				// A metric filter of the template reads the words of this line.
				p.Log.WarnContext(ctx, "rotation abandoned", "organization_id", l.organizationID, "key_id", e.Data.KeyID, "event_id", e.ID)
			}
		}
	}
}

// half is ctx with half of its time, if that is bounded.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	return ctx, func() {}
}

// wave is the next event of each line that goes on, and these lines. What the bus is known to have is passed over.
func (p *Publisher) wave(lines []*line) (wave []*line, messages []Message) {
	for _, l := range lines {
		for l.err == nil && l.next < len(l.events) && (p.Bus == nil || p.taken.has(&l.events[l.next])) {
			l.next++
		}
		if l.err != nil || l.next == len(l.events) {
			continue
		}
		e := l.events[l.next]
		detail, err := json.Marshal(e)
		if err != nil {
			l.err = fmt.Errorf("printing the event %s: %w", e.ID, err)
			continue
		}
		wave, messages = append(wave, l), append(messages, Message{string(e.Type), e.Timestamp, detail})
	}
	return wave, messages
}

// announce tells of every event that has a link, whatever the bus said.
func (l *line) announce(ctx context.Context, announce func(context.Context, string, []event.Event) error) {
	if l.events[0].Data.Chain.Sequence == 0 {
		return
	}
	if err := announce(ctx, l.organizationID, l.events); err != nil {
		l.next, l.err = 0, errors.Join(l.err, fmt.Errorf("announcing: %w", err))
	}
}

// memory knows the events that were added last, by organization and id.
type memory struct {
	mu   sync.Mutex
	ids  map[[2]string]bool
	ring [][2]string
	at   int
}

func (m *memory) has(e *event.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[[2]string{e.Data.OrganizationID, e.ID}]
}

func (m *memory) add(e *event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids == nil {
		m.ids, m.ring = map[[2]string]bool{}, make([][2]string, remembered)
	}
	id := [2]string{e.Data.OrganizationID, e.ID}
	delete(m.ids, m.ring[m.at])
	m.ids[id], m.ring[m.at] = true, id
	m.at = (m.at + 1) % remembered
}
