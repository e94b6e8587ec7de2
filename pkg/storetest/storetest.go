// Package storetest is the contract of a store, as tests. Every store passes the same suite ([Run]), so that what holds
// in memory holds in DynamoDB. It also brings a store that fails on demand ([Faulty]) and DynamoDB Local ([DynamoDBLocal]).
//
// The suite promises that a store which passes it may stand under lifecycle and verify. It refuses to look inside: it
// asks and tells only what those two do.
package storetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/verify"
)

// Store is everything that the service asks of a store.
type Store interface {
	lifecycle.Store
	verify.Store
	notify.Store
	Chain
}

// Chain is who links entries of the audit trail. Append links those entries of an organization that have no link yet, in
// the order given, and returns every one of them with its link, in that order. An error may leave the first of them linked.
type Chain interface {
	Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error)
}

// Run holds the store that open gives against the contract. open may give the same store again and again: every test
// keeps to organizations and keys of its own.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Organizations", organizationTests}, {"Keys", keyTests}, {"Commit", commitTests}, {"Close", closeTests},
		{"List", listTests}, {"Replays", replayTests}, {"Due", dueTests}, {"Debit", debitTests}, {"Audit", auditTests}, {"Chain", chainTests}, {"Webhooks", webhookTests}, {"Deliveries", deliveryTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.guarantee, func(t *testing.T) {
					t.Parallel()
					test.run(newSuite(t, open(t)))
				})
			}
		})
	}
}

// test is one guarantee.
type test struct {
	guarantee string
	run       func(*suite)
}

// base is when everything in the suite happens: 12:00:00 of a day, far from the ends of minutes and days.
var base = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// suite is one test with an organization of its own.
type suite struct {
	*testing.T
	Store
	organization string
}

func newSuite(t *testing.T, s Store) *suite {
	u := &suite{t, s, "org_" + strings.ToLower(rand.Text())}
	u.addOrganization(u.organization)
	return u
}

func (s *suite) addOrganization(id string) {
	s.Helper()
	o := lifecycle.Organization{ID: id, Plan: "pro", AllowedScopes: []string{"orders:*"}, CreatedAt: base, Version: 1}
	s.must(s.PutOrganization(s.Context(), o, s.entry(nil, audit.OrgCreated)))
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) wants(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("got the error %v, want %v", err, want)
	}
}

// entry is a new audit entry of the test's organization.
func (s *suite) entry(id *apikey.ID, action audit.Action) audit.Entry {
	return audit.Entry{ID: audit.NewID(base), OrganizationID: s.organization, At: base, Action: action, KeyID: id}
}

// minimal is a new key with nothing that it need not have.
func (s *suite) minimal() apikey.Record {
	id := apikey.NewID()
	return apikey.Record{
		Key: apikey.Key{ID: id, OrganizationID: s.organization, ProjectID: "default", Name: "minimal",
			KeyPrefix: "lk_live_" + strings.TrimPrefix(id.String(), "key_"), Scopes: []string{}, AllowedCIDRs: []string{}, Enabled: true,
			Metadata: json.RawMessage("{}"), CreatedBy: "user_1", CreatedAt: base, UpdatedAt: base, Version: 1},
		Hash: hashOf(id), LastChange: audit.NewID(base),
	}
}

// hashOf is the hash that the suite gives a key.
func hashOf(id apikey.ID) apikey.Hash { return apikey.NewPlaintext("secret of " + id.String()).Hash() }

// full is a new key with everything set, as no key ever is.
func (s *suite) full() apikey.Record {
	r := s.minimal()
	r.ProjectID, r.EnvironmentID, r.ExternalID = "project", new("test-1"), new("customer|7")
	r.Name, r.Metadata = "Schlüssel für \"<Kassen>\"", json.RawMessage(`{"b": 1, "a": ["<&>", null, 1e3]}`)
	r.Scopes = []string{"orders:write", "invoices:read", "orders:read", "keys:read"}
	r.AllowedCIDRs = []string{"203.0.113.0/24", "2001:db8::/32", "192.0.2.7/32", "203.0.113.0/24"}
	r.RateLimitPerMinute, r.DailyLimit = new(int64(60)), new(int64(1_000_000_000))
	at := func(n int) *time.Time {
		return new(base.Add(time.Duration(n)*time.Hour + time.Duration(n)*time.Millisecond))
	}
	r.ExpiresAt, r.LastUsedAt, r.ArchivedAt, r.RevokedAt = at(1), at(2), at(3), at(4)
	r.GraceExpiresAt, r.NextRotationAt = at(5), at(6)
	r.UpdatedAt = *at(7)
	r.RevokedReason, r.RotationWebhookURL = new("leaked"), new("https://example.com/hook?a=b#")
	r.ReplacedByKeyID, r.Predecessor, r.First = new(apikey.NewID()), new(apikey.NewID()), apikey.NewID()
	r.RotationIntervalDays, r.RotationToSecretsManager = new(90), true
	r.Version, r.Counted = 1, true
	r.Sealed = &apikey.Sealed{ID: "once", Until: *at(8)}
	r.Handover = &apikey.Handover{Gone: true, Fetched: true, Until: *at(9), Next: *at(10), Attempts: 3, Claimed: at(11), Doubt: true}
	r.Told = apikey.Told{Expiring: 14, Over: true, RotationDue: at(12), Unused: at(13), Confirm: at(14), Day: 20412, Percent: 80}
	r.Due = &apikey.Due{Work: apikey.Deliver, At: *at(15)}
	r.Counts = map[apikey.Window]int64{"m29391234": 7, "m29391235": 0, "d20412": 1_000_000_000}
	r.Closing = &apikey.Closing{Verb: apikey.CloseRevoke, ActorKind: "user", ActorID: "user_9", RequestID: "req_1"}
	return r
}

// create commits a new key.
func (s *suite) create(r apikey.Record) apikey.Record {
	s.Helper()
	s.must(s.Commit(s.Context(), lifecycle.Change{Create: &r, Entry: s.entry(&r.ID, audit.Created)}))
	return r
}

// update commits the next version of a key.
func (s *suite) update(r apikey.Record, change func(*apikey.Record)) apikey.Record {
	s.Helper()
	closing := r.Closing != nil
	r.Version++
	change(&r)
	c := s.updating(r)
	c.Update[0].Closing = closing
	s.must(s.Commit(s.Context(), c))
	return r
}

func (s *suite) updating(r apikey.Record, frozen ...apikey.Window) lifecycle.Change {
	return lifecycle.Change{Update: []lifecycle.Update{{Record: r, Frozen: frozen}}, Entry: s.entry(&r.ID, audit.Disabled)}
}

// key reads one that must exist.
func (s *suite) key(id apikey.ID) apikey.Record {
	s.Helper()
	r, err := s.Key(s.Context(), id)
	s.must(err)
	return r
}

// holds demands that the store knows of a key exactly this.
func (s *suite) holds(want apikey.Record) {
	s.Helper()
	s.same(s.key(want.ID), want)
}

// same compares all fields but Status, which is of a moment. Nil and empty are the same.
func (s *suite) same(got, want apikey.Record) {
	s.Helper()
	got, want = normal(got), normal(want)
	if reflect.DeepEqual(got, want) {
		return
	}
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for _, f := range reflect.VisibleFields(g.Type()) {
		a, b := g.FieldByIndex(f.Index).Interface(), w.FieldByIndex(f.Index).Interface()
		if !f.Anonymous && !reflect.DeepEqual(a, b) {
			s.Errorf("%s is %v, want %v", f.Name, show(a), show(b))
		}
	}
	s.FailNow()
}

// show follows pointers, for messages.
func show(v any) any {
	if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() {
		return p.Elem().Interface()
	}
	return v
}

func normal(r apikey.Record) apikey.Record {
	r.Status = ""
	r.Scopes, r.AllowedCIDRs = append([]string{}, r.Scopes...), append([]string{}, r.AllowedCIDRs...)
	r.Metadata = append(json.RawMessage{}, r.Metadata...)
	if len(r.Counts) == 0 {
		r.Counts = nil
	}
	return r
}

// owner is the test's organization.
func (s *suite) owner() lifecycle.Organization {
	s.Helper()
	o, err := s.Organization(s.Context(), s.organization)
	s.must(err)
	return o
}

// activeKeys is the test's organization's count.
func (s *suite) activeKeys() int64 {
	s.Helper()
	return s.owner().ActiveKeys
}

// trail is the ids of all entries of the test's organization, oldest first.
func (s *suite) trail() []string {
	s.Helper()
	entries, more, err := s.Entries(s.Context(), lifecycle.EntryQuery{OrganizationID: s.organization, Limit: 1000})
	s.must(err)
	if more {
		s.Fatal("more than 1000 entries")
	}
	ids := make([]string, len(entries))
	for i := range entries {
		ids[len(ids)-1-i] = entries[i].ID
	}
	return ids
}

// changesNothing demands that the change fails with want, and leaves keys, count and trail as they are.
func (s *suite) changesNothing(want error, change lifecycle.Change, keys ...apikey.Record) {
	s.Helper()
	count, trail := s.activeKeys(), s.trail()
	before := make([]apikey.Record, len(keys))
	for i, k := range keys {
		before[i] = s.key(k.ID)
	}
	s.wants(s.Commit(s.Context(), change), want)
	for i := range before {
		s.holds(before[i])
	}
	if n := s.activeKeys(); n != count {
		s.Errorf("the organization has %d active keys, want %d as before", n, count)
	}
	if now := s.trail(); !slices.Equal(now, trail) {
		s.Errorf("the audit trail is %v, want %v as before", now, trail)
	}
}

// settled tries again for as long as do meets other changes, as lifecycle does.
func settled(do func() error) error {
	for {
		if err := do(); !errors.Is(err, apikey.ErrConflict) {
			return err
		}
	}
}

// race runs do n times at once and returns what each said.
func race(n int, do func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	all.Wait()
	return errs
}

// won counts the nil errors, and demands that every other is want.
func (s *suite) won(errs []error, want error) (n int) {
	s.Helper()
	for _, err := range errs {
		switch {
		case err == nil:
			n++
		case !errors.Is(err, want):
			s.Fatalf("got the error %v, want %v", err, want)
		}
	}
	return n
}
