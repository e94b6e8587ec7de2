package lifecycle_test

import (
	"context"
	"crypto/rand"
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

// TestMain lets many tests wait at once: most of their time is the patience of verbs.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(storetest.Main(m))
}

// scene is a house on any store, with an organization of its own. What it asks itself, it asks the bare store: faults
// befall only the Services that on gives.
type scene struct {
	*house
	store        storetest.Store
	organization string
	sealer       lifecycle.Sealer
}

// newScene makes a scene whose organization is on the plan named and may use scopes that begin with "orders:".
func newScene(t *testing.T, store storetest.Store, planName string) *scene {
	t.Helper()
	h := &house{now: time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC)}
	s := &scene{house: h, store: store, organization: "org_" + strings.ToLower(rand.Text()), sealer: newSealer()}
	s.Service = s.on(store)
	s.verifier = &verify.Verifier{Store: store, Format: s.Format, Now: s.clock, Timeout: time.Minute}
	if _, err := s.AddOrganization(s.admin(), planName, []string{"orders:*"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// on is another Service for the scene, on its store or what wraps it.
func (s *scene) on(store lifecycle.Store) *lifecycle.Service {
	format, err := apikey.NewFormat("lk")
	if err != nil {
		panic(err)
	}
	return &lifecycle.Service{Store: store, Plans: plan.Default(), Format: format, Now: s.clock, Seal: s.sealer}
}

// newSealer is one with a key of its own.
func newSealer() *seal.Sealer {
	var key [32]byte
	_, _ = rand.Read(key[:])
	return seal.NewLocal(key)
}

// faulty is a Service for the scene whose calls fail as chosen.
func (s *scene) faulty(choose func(storetest.Call) storetest.Fault) *lifecycle.Service {
	return s.on(storetest.NewFaulty(s.store, choose))
}

// admin is whoever runs the service, acting in the scene's organization.
func (s *scene) admin() context.Context {
	by := caller.From(admin())
	by.OrganizationID = s.organization
	return as(by)
}

func (s *scene) creates(t *testing.T, n lifecycle.New) apikey.Issued {
	t.Helper()
	issued, err := s.Create(s.admin(), n)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// member is a person of the scene's organization who may touch their own keys alone.
func (s *scene) member(id string) context.Context {
	return as(caller.Caller{OrganizationID: s.organization, Kind: caller.User, ID: id, Own: true,
		Scopes: []string{apikey.KeysRead, apikey.KeysWrite}})
}

// key is the caller that a management key is, with the bounds that it has.
func (s *scene) key(k apikey.Key) caller.Caller {
	by := caller.Caller{OrganizationID: s.organization, Kind: caller.Key, ID: k.ID.String(), Scopes: k.Scopes}
	if end := k.End(); end != nil {
		by.Until = *end
	}
	for _, text := range k.AllowedCIDRs {
		by.CIDRs = append(by.CIDRs, netip.MustParsePrefix(text))
	}
	return by
}

// manager is a key with the management scopes, as a caller.
func (s *scene) manager(t *testing.T, scopes ...string) caller.Caller {
	t.Helper()
	return s.key(s.creates(t, lifecycle.New{ProjectID: "shop", Name: "manager", Scopes: scopes}).Key)
}

func (s *scene) updates(t *testing.T, id apikey.ID, p lifecycle.Patch) apikey.Key {
	t.Helper()
	k, err := s.Update(s.admin(), id, 0, p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *scene) archives(t *testing.T, id apikey.ID) apikey.Key {
	t.Helper()
	k, err := s.Archive(s.admin(), id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *scene) reactivates(t *testing.T, id apikey.ID) apikey.Key {
	t.Helper()
	k, err := s.Reactivate(s.admin(), id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *scene) revokes(t *testing.T, id apikey.ID) {
	t.Helper()
	if err := s.Revoke(s.admin(), id, ""); err != nil {
		t.Fatal(err)
	}
}

// puts has operators change the scene's organization.
func (s *scene) puts(t *testing.T, p lifecycle.OrganizationPatch) lifecycle.Standing {
	t.Helper()
	o, err := s.SetOrganization(s.admin(), s.organization, p)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// onPlan says nothing of an organization but its plan.
func onPlan(name string) lifecycle.OrganizationPatch {
	return lifecycle.OrganizationPatch{Plan: lifecycle.Maybe[string]{Said: true, V: &name}}
}

// count is the organization's count of live keys, as stored.
func (s *scene) count(t *testing.T) int64 {
	t.Helper()
	o, err := s.store.Organization(t.Context(), s.organization)
	if err != nil {
		t.Fatal(err)
	}
	return o.ActiveKeys
}

func (s *scene) rotates(t *testing.T, id apikey.ID, grace *time.Duration) apikey.Issued {
	t.Helper()
	rotated, err := s.Rotate(s.admin(), id, grace)
	if err != nil {
		t.Fatal(err)
	}
	return rotated.New
}

// line is a key and its successor, with the grace between them.
func (s *scene) line(t *testing.T, grace *time.Duration) []apikey.Issued {
	t.Helper()
	first := s.creates(t, basic())
	return []apikey.Issued{first, s.rotates(t, first.Key.ID, grace)}
}

// codes is what a verify says of each key.
func (s *scene) codes(keys ...apikey.Issued) (codes []apikey.Code) {
	for _, k := range keys {
		codes = append(codes, s.verify(k))
	}
	return codes
}

func (s *scene) wantCodes(t *testing.T, keys []apikey.Issued, want ...apikey.Code) {
	t.Helper()
	if got := s.codes(keys...); !slices.Equal(got, want) {
		t.Fatalf("the keys are %v, want %v", got, want)
	}
}

// records is every key of the organization, after one reading by List, whole.
func (s *scene) records(t *testing.T) []apikey.Record {
	t.Helper()
	list, _, err := s.List(s.admin(), lifecycle.Filter{IncludeArchived: true, IncludeRevoked: true})
	if err != nil {
		t.Fatal(err)
	}
	records := make([]apikey.Record, len(list))
	for i, k := range list {
		if records[i], err = s.store.Key(t.Context(), k.ID); err != nil {
			t.Fatalf("half a key: %v", err)
		}
	}
	return records
}

// record is one key as stored.
func (s *scene) record(t *testing.T, id apikey.ID) apikey.Record {
	t.Helper()
	r, err := s.store.Key(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// trail is the organization's audit entries by id, and how many there are of each action.
func (s *scene) trail(t *testing.T) (entries map[string]audit.Entry, actions map[audit.Action]int) {
	t.Helper()
	page, more, err := s.store.Entries(t.Context(), lifecycle.EntryQuery{OrganizationID: s.organization, Limit: 1000})
	if err != nil || more {
		t.Fatalf("reading the trail: more %v, %v", more, err)
	}
	entries, actions = map[string]audit.Entry{}, map[audit.Action]int{}
	for _, e := range page {
		entries[e.ID] = e
		actions[e.Action]++
	}
	return entries, actions
}

// sound demands what holds whatever happened: whole keys, none of them closing, one audit entry for each change, and a
// plan that counts the keys that there are.
func (s *scene) sound(t *testing.T) {
	t.Helper()
	records := s.records(t)
	entries, actions := s.trail(t)
	counted, changes := int64(0), map[audit.Action]int{}
	actions[audit.Archived] -= actions[audit.Reactivated]
	actions[audit.Disabled] -= actions[audit.Enabled]
	for _, r := range records {
		if r.Closing != nil {
			t.Errorf("%s is still closing after it was read", r.ID)
		}
		if _, ok := entries[r.LastChange]; !ok {
			t.Errorf("the last change of %s has no audit entry", r.ID)
		}
		if r.Counted {
			counted++
		}
		for action, happened := range map[audit.Action]bool{audit.Created: r.Predecessor == nil, audit.Rotated: r.Predecessor != nil,
			audit.Revoked: r.RevokedAt != nil, audit.Disabled: !r.Enabled, audit.Archived: r.ArchivedAt != nil} {
			if happened {
				changes[action]++
			}
		}
	}
	for action, n := range changes {
		if actions[action] != n {
			t.Errorf("%d keys are %s, with %d audit entries", n, action, actions[action])
		}
	}
	o, err := s.store.Organization(t.Context(), s.organization)
	if err != nil || o.ActiveKeys != counted {
		t.Errorf("the plan counts %d keys, there are %d, %v", o.ActiveKeys, counted, err)
	}
}

// endsAll demands that the caller finds every key in the list and can revoke it, and that nothing is left then.
func (s *scene) endsAll(t *testing.T, known ...apikey.Issued) {
	t.Helper()
	for _, r := range s.records(t) {
		if err := s.Revoke(s.admin(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := s.store.Organization(t.Context(), s.organization); err != nil || o.ActiveKeys != 0 {
		t.Fatalf("with every key revoked the plan counts %d, %v", o.ActiveKeys, err)
	}
	for _, code := range s.codes(known...) {
		if code != apikey.RevokedKey {
			t.Fatalf("a key that was revoked is %s", code)
		}
	}
}
