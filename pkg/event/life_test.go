package event_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/deliver"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/publish"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/verify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

const aDay = 24 * time.Hour

// life is an organization to which everything happens that there is an event of.
type life struct {
	*testing.T
	*lifecycle.Service
	hooks     *notify.Service
	deliverer *deliver.Deliverer
	verifier  *verify.Verifier
	store     *memory.Store
	receiver  *httptest.Server
	now       time.Time

	mu       sync.Mutex
	received map[string][][]byte // by path
	secrets  []string            // what no event may hold, as it would be written
}

func newLife(t *testing.T) *life {
	format, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	l := &life{T: t, store: memory.New(), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), received: map[string][][]byte{}}
	clock, log := func() time.Time { return l.now }, slog.New(slog.DiscardHandler)
	l.Service = &lifecycle.Service{Store: l.store, Plans: plan.Default(), Format: format, Now: clock, Seal: seal.NewLocal([32]byte{1}),
		StaleAfter: 200 * aDay, LoopbackWebhooks: true}
	l.verifier = &verify.Verifier{Store: l.store, Format: format, Now: clock}
	l.deliverer = &deliver.Deliverer{Keys: l.Service, Sender: &webhook.Sender{Loopback: true}, Log: log}
	l.hooks = &notify.Service{Store: l.store, Sender: l.deliverer.Sender, Secrets: l.deliverer.Secrets, Now: clock, Log: log}
	l.receiver = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.received[r.URL.Path] = append(l.received[r.URL.Path], body)
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
		}
	}))
	t.Cleanup(l.receiver.Close)
	return l
}

// by is the organization's operator, at an address.
func (l *life) by() context.Context {
	return caller.With(l.Context(), caller.Caller{OrganizationID: "acme", Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes(),
		Address: netip.MustParseAddr("203.0.113.7"), RequestID: "req_1"})
}

// must ends the test when a verb fails.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (l *life) creates(n lifecycle.New) apikey.Issued {
	n.ProjectID, n.Name = "shop", "Production"
	return l.hides(must(l.Create(l.by(), n)))
}

// hides notes what of a key may be in no event.
func (l *life) hides(k apikey.Issued) apikey.Issued {
	text := k.Plaintext.Reveal()
	l.secret([]byte(text), k.Plaintext.Hash().Bytes())
	l.secrets = append(l.secrets, text[strings.LastIndexByte(text, '_')+1:])
	r := must(l.store.Key(l.Context(), k.Key.ID))
	if r.Sealed != nil {
		l.secret(must(l.store.Replay(l.Context(), r.Sealed.ID)).Sealed)
	}
	return k
}

// secret notes bytes that may be in no event, in any spelling.
func (l *life) secret(all ...[]byte) {
	for _, b := range all {
		l.secrets = append(l.secrets, string(b), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b))
	}
}

func (l *life) rotates(id apikey.ID, grace time.Duration) apikey.Issued {
	return l.hides(must(l.Rotate(l.by(), id, &grace)).New)
}

func (l *life) patches(id apikey.ID, p lifecycle.Patch) { must(l.Update(l.by(), id, 0, p)) }

func (l *life) uses(k apikey.Issued, n int) {
	for range n {
		l.verifier.Verify(l.Context(), verify.Request{Key: k.Plaintext.Reveal()})
	}
}

// passes lets time go by, with a sweep every hour.
func (l *life) passes(d time.Duration) {
	for ; d > 0; d -= time.Hour {
		l.now = l.now.Add(min(d, time.Hour))
		l.sweeps()
	}
}

func (l *life) sweeps() { must(l.Sweep(l.Context(), 1000)) }

// begins has the schedule begin the rotation of a key whose successor goes to a path of the receiver.
func (l *life) begins(path string) (old apikey.Issued, successor apikey.ID) {
	old = l.creates(lifecycle.New{RotationIntervalDays: new(1), RotationWebhookURL: new(l.receiver.URL + path)})
	l.passes(aDay)
	return old, *must(l.Get(l.by(), old.Key.ID)).ReplacedByKeyID
}

// brings delivers what is due, and hides it.
func (l *life) brings(send func(context.Context, lifecycle.Parcel) lifecycle.Attempt) {
	must(l.Deliver(l.Context(), 100, func(ctx context.Context, p lifecycle.Parcel) lifecycle.Attempt {
		l.hides(p.New)
		return send(ctx, p)
	}))
}

// lives does all that there is an event of.
func (l *life) lives() {
	must(l.AddOrganization(l.by(), "pro", []string{"orders:*"}))
	must(l.SetOrganization(l.by(), "acme", lifecycle.OrganizationPatch{Plan: lifecycle.Maybe[string]{Said: true, V: new("enterprise")},
		AllowedScopes: lifecycle.Maybe[[]string]{Said: true}}))
	l.AllowedScopes = []string{"orders:*"}
	l.signs()
	l.manages()
	l.ages()
	l.rotatesItself()
	l.subscribes()
}

func (l *life) signs() {
	l.secret([]byte(must(l.SigningSecret(l.by())).Reveal()), []byte(must(l.RotateSigningSecret(l.by())).Reveal()))
	for _, s := range must(l.store.Organization(l.Context(), "acme")).Signing {
		l.secret(s.Sealed)
	}
}

// manages does what people do.
func (l *life) manages() {
	n := lifecycle.New{ProjectID: "shop", Name: "Production", EnvironmentID: new("live"), ExternalID: new("customer-7"), Scopes: []string{"orders:read"},
		DailyLimit: new(int64(1000)), AllowedCIDRs: []string{"203.0.113.0/24"}, Metadata: json.RawMessage(`{"team": {"name": "shop"}}`),
		ExpiresAt: &lifecycle.Moment{Time: l.now.Add(400 * aDay)}, RotationIntervalDays: new(90), RotationToSecretsManager: true}
	once := lifecycle.Once{Token: "again", Method: "POST", Path: "/v1/api-keys"}
	k := l.hides(must(l.CreateOnce(l.by(), once, n))).Key
	nothing := lifecycle.Limit{Said: true}
	l.patches(k.ID, lifecycle.Patch{Name: new("Staging"), Scopes: &[]string{}, RateLimitPerMinute: nothing, DailyLimit: nothing, AllowedCIDRs: &[]string{},
		Metadata: json.RawMessage("null"), ExpiresAt: lifecycle.Maybe[lifecycle.Moment]{Said: true}, RotationIntervalDays: lifecycle.Maybe[int]{Said: true},
		RotationWebhookURL: lifecycle.Maybe[string]{Said: true, V: new(l.receiver.URL)}, RotationToSecretsManager: new(false)})
	l.patches(k.ID, lifecycle.Patch{Enabled: new(false)})
	l.patches(k.ID, lifecycle.Patch{Enabled: new(true)})
	must(l.Archive(l.by(), k.ID))
	must(l.Reactivate(l.by(), k.ID))
	second := l.rotates(k.ID, time.Hour)
	must(l.ExtendGrace(l.by(), k.ID, 2*time.Hour))
	must(l.EndGrace(l.by(), k.ID))
	third := l.rotates(second.Key.ID, time.Hour)
	fourth := l.rotates(third.Key.ID, 0) // which ends the second too
	if err := l.Revoke(l.by(), fourth.Key.ID, "leaked"); err != nil {
		l.Fatal(err)
	}
}

// ages does what time does.
func (l *life) ages() {
	limited := l.creates(lifecycle.New{DailyLimit: new(int64(5))})
	l.uses(limited, 5)
	l.creates(lifecycle.New{ExpiresAt: &lifecycle.Moment{Time: l.now.Add(31 * aDay)}})
	l.creates(lifecycle.New{RotationIntervalDays: new(30)}) // for whom nobody is named
	l.passes(201 * aDay)
}

// rotatesItself has rotations begun by the schedule and ended in each way.
func (l *life) rotatesItself() {
	_, successor := l.begins("/rotated")
	must(l.deliverer.Run(l.Context(), 100))
	l.uses(l.given(l.received["/rotated"][0]), 1)
	l.passes(3 * time.Hour)
	if k := must(l.Get(l.by(), successor)); k.LastUsedAt == nil {
		l.Error("the successor that was brought is not the one")
	}
	l.begins("/gone")
	must(l.deliverer.Run(l.Context(), 100))
	_, successor = l.begins("/nobody")
	l.brings(func(context.Context, lifecycle.Parcel) lifecycle.Attempt { return lifecycle.Doubtful })
	l.passes(3 * aDay)
	l.brings(func(context.Context, lifecycle.Parcel) lifecycle.Attempt { return lifecycle.Missed }) // and it is held
	if err := l.Revoke(l.by(), successor, "not wanted"); err != nil {
		l.Fatal(err)
	}
	for _, path := range []string{"/rotated", "/gone"} { // those that were rotated again meanwhile too
		for _, notice := range l.received[path] {
			l.given(notice)
		}
	}
}

// given is the key that a receiver was given.
func (l *life) given(message []byte) apikey.Issued {
	var notice struct {
		Data struct {
			Key string `json:"key"`
			ID  string `json:"new_key_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(message, &notice); err != nil {
		l.Fatal(err)
	}
	k := must(l.Get(l.by(), must(apikey.ParseID(notice.Data.ID))))
	return l.hides(apikey.Issued{Key: k, Plaintext: apikey.NewPlaintext(notice.Data.Key)})
}

// subscribes does what is done with webhooks.
func (l *life) subscribes() {
	new1 := notify.New{URL: l.receiver.URL + "/hook", EventTypes: []string{"*"}, Description: new("all there is")}
	one := must(l.hooks.Create(l.by(), new1))
	two := must(l.hooks.Create(l.by(), notify.New{URL: l.receiver.URL + "/gone", EventTypes: []string{"api_key.*"}}))
	must(l.hooks.Update(l.by(), one.ID, notify.Patch{EventTypes: &[]string{"api_key.created"}, Description: notify.Description{Said: true}}))
	must(l.hooks.Test(l.by(), one.ID))
	events := l.events()
	if err := l.hooks.Announce(l.Context(), "acme", events[len(events)-20:]); err != nil {
		l.Fatal(err)
	}
	must(l.hooks.Deliver(l.Context(), 100))
	must(l.hooks.Update(l.by(), two.ID, notify.Patch{Enabled: new(true)}))
	for _, id := range []string{one.ID, two.ID} {
		if err := l.hooks.Delete(l.by(), id); err != nil {
			l.Fatal(err)
		}
	}
}

// events is the events of all that has happened.
func (l *life) events() (list []event.Event) {
	entries, more, err := l.store.Entries(l.Context(), lifecycle.EntryQuery{OrganizationID: "acme", Limit: 10_000})
	if err != nil || more {
		l.Fatalf("more %v, %v", more, err)
	}
	slices.Reverse(entries)
	for _, linked := range must(l.store.Append(l.Context(), "acme", entries)) {
		list = append(list, event.Of(linked))
	}
	return list
}

// messages is every message that leaves, as JSON, by the name of its schema.
func (l *life) messages() map[string][][]byte {
	all := map[string][][]byte{"webhook.test": l.received["/hook"][:1], "delivery-api_key.rotated": l.received["/rotated"]}
	for _, e := range l.events() {
		all[string(e.Type)] = append(all[string(e.Type)], must(json.Marshal(e)))
	}
	bus := &box{}
	p := &publish.Publisher{Bus: bus, Log: slog.New(slog.DiscardHandler)}
	must(p.Take(l.Context(), []publish.Record{{ID: "7", Kind: publish.Tampered, Change: "MODIFY", OrganizationID: "acme", EntryID: audit.NewID(l.now), At: l.now}}))
	for _, m := range bus.messages {
		all[m.Type] = append(all[m.Type], m.Detail)
	}
	return all
}

// box is a bus that keeps what it takes.
type box struct{ messages []publish.Message }

func (b *box) Put(_ context.Context, messages []publish.Message) []error {
	b.messages = append(b.messages, messages...)
	return make([]error, len(messages))
}
