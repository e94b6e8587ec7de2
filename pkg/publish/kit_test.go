package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/publish"
)

var errDown = errors.New("down")

// world is what a publisher works on: it outlives each of them.
type world struct {
	t testing.TB

	mu        sync.Mutex
	chains    map[string][]audit.Linked // by organization
	sent      []event.Event             // what the bus took, in its order
	alarms    []publish.Message
	puts      int                        // calls of the bus
	announced map[string]map[string]bool // event ids, by organization

	// fault says what becomes of a call, by its name and organization: an error before it takes effect, or after.
	fault func(call, organizationID string) (before, after error)
}

func newWorld(t testing.TB) *world {
	return &world{t: t, chains: map[string][]audit.Linked{}, announced: map[string]map[string]bool{},
		fault: func(string, string) (before, after error) { return nil, nil }}
}

// publisher is a process of its own on the world.
func (w *world) publisher() *publish.Publisher {
	return &publish.Publisher{Chain: chain{w}, Bus: bus{w}, Announce: w.announce, Log: slog.New(slog.DiscardHandler)}
}

type chain struct{ *world }

func (w chain) Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, after := w.fault("append", organizationID)
	if before = errors.Join(before, ctx.Err()); before != nil {
		return nil, before
	}
	var linked []audit.Linked
	for _, e := range entries {
		there := slices.IndexFunc(w.chains[organizationID], func(l audit.Linked) bool { return l.Entry.ID == e.ID })
		if there < 0 {
			var last audit.Link
			if there = len(w.chains[organizationID]); there > 0 {
				last = w.chains[organizationID][there-1].Link
			}
			link, err := audit.Next(last, e)
			if err != nil {
				w.t.Error(err)
			}
			w.chains[organizationID] = append(w.chains[organizationID], audit.Linked{Entry: e, Link: link})
		}
		linked = append(linked, w.chains[organizationID][there])
	}
	if after != nil {
		return nil, after
	}
	return linked, nil
}

type bus struct{ *world }

func (w bus) Put(ctx context.Context, messages []publish.Message) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.puts++
	outcomes := make([]error, len(messages))
	seen := map[string]bool{}
	for i, m := range messages {
		if m.Type == publish.AlarmType {
			before, _ := w.fault("alarm", "")
			if outcomes[i] = before; before == nil {
				w.alarms = append(w.alarms, m)
			}
			continue
		}
		var e event.Event
		if err := json.Unmarshal(m.Detail, &e); err != nil || string(e.Type) != m.Type || !e.Timestamp.Equal(m.At) {
			w.t.Errorf("the bus got %+v, %v", m, err)
		}
		if seen[e.Data.OrganizationID] {
			w.t.Errorf("one call holds two events of %s", e.Data.OrganizationID)
		}
		seen[e.Data.OrganizationID] = true
		before, after := w.fault("put", e.Data.OrganizationID)
		if before = errors.Join(before, ctx.Err()); before == nil {
			w.sent = append(w.sent, e)
		}
		outcomes[i] = errors.Join(before, after)
	}
	return outcomes
}

func (w *world) announce(ctx context.Context, organizationID string, events []event.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, after := w.fault("announce", organizationID)
	if before = errors.Join(before, ctx.Err()); before != nil {
		return before
	}
	if w.announced[organizationID] == nil {
		w.announced[organizationID] = map[string]bool{}
	}
	for _, e := range events {
		if e.Data.OrganizationID != organizationID || e.Data.Chain.Sequence == 0 {
			w.t.Errorf("%s is told of %+v", organizationID, e)
		}
		w.announced[organizationID][e.ID] = true
	}
	return after
}

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// entries are so many of each organization, one of each after another. Their ids are not in their order: clocks differ.
func entries(each int, organizations ...string) (list []audit.Entry) {
	for i := range each {
		for _, o := range organizations {
			at := start.Add(time.Duration(i%3-i) * time.Second)
			list = append(list, audit.Entry{ID: audit.NewID(at), OrganizationID: o, At: at, Action: audit.Updated, RequestID: fmt.Sprint(i)})
		}
	}
	return list
}

func of(list []audit.Entry, organizationID string) (ids []string) {
	for _, e := range list {
		if e.OrganizationID == organizationID {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// holds checks that everything was published: linked once in the order given, taken by the bus at least once in that order,
// always with the same number, and announced.
func (w *world) holds(list []audit.Entry) {
	w.t.Helper()
	for _, e := range list {
		if !w.announced[e.OrganizationID][e.ID] {
			w.t.Errorf("%s of %s was not announced", e.ID, e.OrganizationID)
		}
	}
	for o, links := range w.chains {
		var linked []string
		for i, l := range links {
			if linked = append(linked, l.Entry.ID); l.Link.Sequence != int64(i+1) {
				w.t.Errorf("%s: link %d has the number %d", o, i+1, l.Link.Sequence)
			}
		}
		if want := of(list, o); !slices.Equal(linked, want) {
			w.t.Errorf("the chain of %s is %v, not %v", o, linked, want)
		}
		if taken := w.taken(o); !slices.Equal(taken, linked) {
			w.t.Errorf("the bus first took of %s %v, not %v", o, taken, linked)
		}
	}
}

// taken are the events of an organization in the order in which the bus first took them.
func (w *world) taken(organizationID string) (ids []string) {
	for _, e := range w.sent {
		if e.Data.OrganizationID != organizationID {
			continue
		}
		if at := slices.IndexFunc(w.chains[organizationID], func(l audit.Linked) bool { return l.Entry.ID == e.ID }); e.Data.Chain.Sequence != int64(at+1) {
			w.t.Errorf("%s was sent with the number %d, and is the link %d", e.ID, e.Data.Chain.Sequence, at+1)
		}
		if !slices.Contains(ids, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func organizations(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("org_%02d", i))
	}
	return names
}
