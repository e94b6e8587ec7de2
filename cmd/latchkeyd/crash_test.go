package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// acknowledged is what clients were told before the process died.
type acknowledged struct {
	mu      sync.Mutex
	changes int
	live    map[string]string // id to key: created or rotated, and nobody asked to revoke it since
	revoked map[string]string
	killAt  int // so many changes
	kill    func()
}

// note notes a change that was acknowledged, and kills the process when it is time.
func (a *acknowledged) note(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	if a.changes++; a.changes == a.killAt {
		go a.kill()
	}
}

// work creates, rotates and revokes keys until the process stops answering.
func (a *acknowledged) work(t *testing.T, d *keytest.Daemon, random *rand.Rand) {
	for {
		made, err := d.Try("POST", "/v1/api-keys", d.ManagementKey, map[string]any{"project_id": "shop", "name": "n"})
		if err != nil || made.Status != http.StatusCreated {
			return
		}
		var k, next keytest.Issued
		made.Into(t, &k)
		a.note(func() { a.live[k.ID] = k.Plaintext })
		if random.IntN(2) == 0 {
			turned, err := d.Try("POST", "/v1/api-keys/"+k.ID+"/rotate", d.ManagementKey, nil)
			if err != nil || turned.Status != http.StatusOK {
				return
			}
			turned.Into(t, &next)
			a.note(func() { a.live[next.NewID] = next.Plaintext })
		}
		if random.IntN(2) == 0 {
			a.mu.Lock()
			delete(a.live, k.ID) // from here on nobody can say whether it lives
			a.mu.Unlock()
			gone, err := d.Try("DELETE", "/v1/api-keys/"+k.ID, d.ManagementKey, nil)
			if err != nil || gone.Status != http.StatusNoContent {
				return
			}
			a.note(func() { a.revoked[k.ID] = k.Plaintext })
		}
	}
}

func TestAProcessKilledAmidChangesLosesNothingItAcknowledged(t *testing.T) {
	t.Parallel()
	s := newTables(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	told := &acknowledged{live: map[string]string{}, revoked: map[string]string{}}
	for round := uint64(0); told.changes < 500; round++ {
		d := s.start(t)
		random := rand.New(rand.NewPCG(seed, round))
		told.killAt, told.kill = told.changes+60+random.IntN(80), d.Kill
		var workers sync.WaitGroup
		for i := range uint64(8) {
			workers.Go(func() { told.work(t, d, rand.New(rand.NewPCG(seed, round<<8+i+1))) })
		}
		workers.Wait()
	}
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: s.endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	consistent(t, dynamo.New(client, s.names()))
	d := s.start(t)
	for id, key := range told.live {
		if got := d.Authorize(key); got != http.StatusOK {
			t.Errorf("%s was handed out and gets %d", id, got)
		}
	}
	for id, key := range told.revoked {
		if got := d.Authorize(key); got != http.StatusUnauthorized {
			t.Errorf("%s was revoked and gets %d", id, got)
		}
	}
	t.Logf("%d acknowledged changes: %d keys live, %d revoked", told.changes, len(told.live), len(told.revoked))
}

// books is everything that the store holds of the organization.
type books struct {
	entries map[string]bool
	keys    []apikey.Record
	counted int64 // by the plan
}

// settled reads the books once they are the same twice in a row: the database may still be at work on what the dead
// process had sent it.
func settled(t *testing.T, store *dynamo.Store) books {
	t.Helper()
	for before := read(t, store); ; {
		now := read(t, store)
		if len(now.entries) == len(before.entries) && len(now.keys) == len(before.keys) && now.counted == before.counted {
			return now
		}
		before = now
	}
}

func read(t *testing.T, store *dynamo.Store) books {
	t.Helper()
	o, err := store.Organization(context.Background(), "org_dev")
	if err != nil {
		t.Fatal(err)
	}
	b := books{entries: map[string]bool{}, counted: o.ActiveKeys}
	for before, more := "", true; more; {
		page, next, err := store.Entries(context.Background(), lifecycle.EntryQuery{OrganizationID: "org_dev", Before: before, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			b.entries[e.ID], before = true, e.ID
		}
		more = next
	}
	b.keys = append(allKeys(t, store, lifecycle.Living), allKeys(t, store, lifecycle.Ended)...)
	return b
}

// consistent checks that every key has both its items and its audit entry, and that the plan's count is the number of
// keys counted.
func consistent(t *testing.T, store *dynamo.Store) {
	t.Helper()
	b := settled(t, store)
	counted := int64(0)
	for _, listed := range b.keys {
		r, err := store.Key(context.Background(), listed.ID) // fails when one of the two items is missing
		if err != nil {
			t.Errorf("%s: %v", listed.ID, err)
		}
		if !b.entries[r.LastChange] {
			t.Errorf("%s was changed without an audit entry", r.ID)
		}
		if r.Counted {
			counted++
		}
	}
	if b.counted != counted {
		t.Errorf("the plan counts %d keys, there are %d", b.counted, counted)
	}
}

func allKeys(t *testing.T, store *dynamo.Store, side lifecycle.Side) (all []apikey.Record) {
	t.Helper()
	q := lifecycle.Query{OrganizationID: "org_dev", Side: side, Limit: 1000}
	for more := true; more; {
		page, next, err := store.Keys(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		if all, more = append(all, page...), next; more {
			q.Before = lifecycle.PositionOf(&page[len(page)-1])
		}
	}
	return all
}

func TestAResponseLostAfterTheCommitLeavesAKeyThatCanBeFoundAndRevoked(t *testing.T) {
	onBothStores(t, func(t *testing.T, d *keytest.Daemon) {
		name := fmt.Sprintf("retried %d", rand.Uint64())
		for range 2 { // the first answer was lost, so its caller tries again
			d.Create(map[string]any{"name": name})
		}
		var found []keytest.Issued
		d.Call("GET", "/v1/api-keys?name="+name[:7]+"%20"+name[8:], d.ManagementKey, nil).Into(t, &found)
		if len(found) != 2 {
			t.Fatalf("%d keys are found", len(found))
		}
		if a := d.Call("DELETE", "/v1/api-keys/"+found[1].Prefix, d.ManagementKey, nil); a.Status != http.StatusNoContent {
			t.Errorf("revoking the lost one by its prefix: %d %s", a.Status, a.Body)
		}
	})
}
