package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// house is a Service on a store in memory, with a clock that tests move and receivers that they play.
type house struct {
	*notify.Service
	memory *memory.Store
	logs   *bytes.Buffer // of the service

	mu       sync.Mutex
	now      time.Time
	sequence map[string]int64 // by organization
	sent     []sent
	answer   func(sent) webhook.Result // nil: everything is delivered
	secrets  []webhook.Secret
}

// sent is one attempt, as its receiver saw it.
type sent struct {
	url, id string
	event   event.Event
	header  http.Header
	body    []byte
}

var delivered = webhook.Result{Outcome: webhook.Delivered, Status: 204, Duration: 12 * time.Millisecond, Landed: true}

// says is a receiver's answer with a status that is no success.
func says(status int) webhook.Result {
	r := webhook.Result{Outcome: webhook.Retry, Status: status, Err: fmt.Sprint("answered ", status), Landed: true}
	if status == http.StatusGone {
		r.Outcome = webhook.Gone
	}
	return r
}

// silent is a receiver's that does not answer.
var silent = webhook.Result{Outcome: webhook.Retry, Err: "timed out: no answer", Duration: 15 * time.Second, Landed: true}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{memory: memory.New(), logs: &bytes.Buffer{}, now: noon, sequence: map[string]int64{}, secrets: []webhook.Secret{webhook.NewSecret()}}
	h.Service = &notify.Service{Store: h.memory, Sender: h, Now: h.clock, Clock: h.clock, Senders: 8,
		Log: slog.New(slog.NewJSONHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Secrets: func(context.Context, string) ([]webhook.Secret, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Clone(h.secrets), nil
		}}
	h.Rest(func(ctx context.Context) error { return ctx.Err() })
	return h
}

// Check is the real sender's.
func (h *house) Check(address string) error { return (&webhook.Sender{}).Check(address) }

// Send plays the receiver.
func (h *house) Send(_ context.Context, address string, m webhook.Message, secrets ...webhook.Secret) webhook.Result {
	s := sent{url: address, id: m.ID, body: slices.Clone(m.Body)}
	header, err := m.Sign(secrets...)
	if err != nil {
		return webhook.Result{Outcome: webhook.Refused, Err: err.Error()}
	}
	if s.header = header; json.Unmarshal(m.Body, &s.event) != nil {
		return webhook.Result{Outcome: webhook.Refused, Err: "no event"}
	}
	h.mu.Lock()
	h.sent = append(h.sent, s)
	answer := h.answer
	h.mu.Unlock()
	if answer == nil {
		return delivered
	}
	return answer(s)
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// answers has receivers answer so.
func (h *house) answers(answer func(sent) webhook.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// got is the sequences of what was sent to a URL, in the order of the attempts, and forgets them.
func (h *house) got(url string) (sequences []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = slices.DeleteFunc(h.sent, func(s sent) bool {
		if s.url != url {
			return false
		}
		sequences = append(sequences, s.event.Data.Chain.Sequence)
		return true
	})
	return sequences
}

// as is whoever runs the service, acting in an organization.
func as(organization string) context.Context {
	return caller.With(context.Background(), caller.Caller{OrganizationID: organization, Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()})
}

func acme() context.Context { return as("acme") }

const hook = "https://hooks.example.com/in"

// subscribe makes a webhook of acme for all events.
func (h *house) subscribe(t *testing.T, url string, types ...string) notify.Subscription {
	t.Helper()
	return h.subscribeIn(t, "acme", url, types...)
}

func (h *house) subscribeIn(t *testing.T, organization, url string, types ...string) notify.Subscription {
	t.Helper()
	if types == nil {
		types = []string{"*"}
	}
	sub, err := h.Create(as(organization), notify.New{URL: url, EventTypes: types})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// happen makes events of an organization, the next in its chain.
func (h *house) happen(organization string, actions ...audit.Action) []event.Event {
	var list []event.Event
	for _, action := range actions {
		h.mu.Lock()
		h.sequence[organization]++
		sequence := h.sequence[organization]
		h.mu.Unlock()
		e := audit.Entry{ID: audit.NewID(h.clock()), OrganizationID: organization, At: h.clock(), Action: action, ActorKind: "user", ActorID: "user_1",
			KeyID: new(apikey.ID(7)), Changes: []audit.Change{{Field: "name", To: json.RawMessage(`"<first & last>"`)}}}
		list = append(list, event.Of(audit.Linked{Entry: e, Link: audit.Link{OrganizationID: organization, Sequence: sequence, EntryID: e.ID,
			Previous: audit.Root, Hash: strings.Repeat("a", 64)}}))
	}
	return list
}

// announce lets so many things happen in an organization, and announces them.
func (h *house) announce(t *testing.T, organization string, n int) []event.Event {
	t.Helper()
	events := h.happen(organization, slices.Repeat([]audit.Action{audit.Created}, n)...)
	if err := h.Announce(context.Background(), organization, events); err != nil {
		t.Fatal(err)
	}
	return events
}

// deliver runs once.
func (h *house) deliver(t *testing.T) {
	t.Helper()
	if _, err := h.Deliver(context.Background(), 5000); err != nil {
		t.Fatal(err)
	}
}

// log is acme's deliveries, newest first.
func (h *house) list(t *testing.T, f notify.DeliveryFilter) []notify.Delivery {
	t.Helper()
	f.Limit = notify.MaxPage
	list, next, err := h.Deliveries(acme(), f)
	if err != nil || next != "" {
		t.Fatalf("%v, next: %q", err, next)
	}
	return list
}

// only is acme's one delivery of a type.
func (h *house) only(t *testing.T, action audit.Action) notify.Delivery {
	t.Helper()
	list := slices.DeleteFunc(h.list(t, notify.DeliveryFilter{}), func(d notify.Delivery) bool { return d.EventType != action })
	if len(list) != 1 {
		t.Fatalf("there are %d deliveries of %s", len(list), action)
	}
	return list[0]
}

// trail is the actions of an organization's audit trail, oldest first.
func (h *house) trail(t *testing.T, organization string) (actions []audit.Action) {
	t.Helper()
	entries, _, err := h.memory.Entries(context.Background(), lifecycle.EntryQuery{OrganizationID: organization, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(entries) {
		actions = append(actions, e.Action)
	}
	return actions
}

func wantCode(t *testing.T, err error, code apikey.Code) {
	t.Helper()
	if err == nil || apikey.CodeOf(err) != code {
		t.Fatalf("got %v, want the code %s", err, code)
	}
}
