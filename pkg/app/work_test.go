package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/seal"
)

// hanging starts a receiver that takes everything and never answers, and returns its address.
func hanging(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn) // until the other side has had enough
			})
		}
	})
	return "http://" + listener.Addr().String()
}

// Both ways: the receivers of the one, more than it may have under way at once, hang for as long as an attempt may take.
func TestNeitherSuccessorsNorEventsWaitForTheOthersReceivers(t *testing.T) {
	for _, keysHang := range []bool{true, false} {
		const patience = time.Second
		now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		a, err := New(memory.New(), Settings{Brand: "lk"}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		a.Keys.Seal, a.Keys.LoopbackWebhooks = seal.NewLocal([32]byte{1}), true
		a.Deliverer.Sender.Loopback, a.Deliverer.Sender.Timeout = true, patience
		var arrived atomic.Int32
		var last atomic.Int64
		began := time.Time{}
		well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1); last.Store(int64(time.Since(began))) }))
		t.Cleanup(well.Close)
		bad := make([]string, 20)
		for i := range bad {
			bad[i] = hanging(t)
		}
		ctx := caller.With(t.Context(), caller.Caller{OrganizationID: "acme", Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()})
		if _, err := a.Keys.AddOrganization(ctx, plan.Default().Largest(), nil); err != nil {
			t.Fatal(err)
		}
		keys, events := bad, []string{well.URL}
		if !keysHang {
			keys, events = []string{well.URL}, bad
		}
		for i, address := range slices.Concat(keys, keys)[:min(2*len(keys), 40)] {
			if _, err := a.Keys.Create(ctx, lifecycle.New{ProjectID: "shop", Name: fmt.Sprint(i), RotationIntervalDays: new(1), RotationWebhookURL: &address}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 80 {
			organization := fmt.Sprint("org_", i%len(events)*80+i)
			in := caller.With(t.Context(), caller.Caller{OrganizationID: organization, Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()})
			if _, err := a.Notify.Create(in, notify.New{URL: events[i%len(events)], EventTypes: []string{"*"}}); err != nil {
				t.Fatal(err)
			}
			e := audit.Entry{ID: audit.NewID(now), OrganizationID: organization, At: now, Action: audit.Created}
			link := audit.Link{OrganizationID: organization, Sequence: 1, EntryID: e.ID, Previous: audit.Root, Hash: strings.Repeat("a", 64)}
			if err := a.Notify.Announce(ctx, organization, []event.Event{event.Of(audit.Linked{Entry: e, Link: link})}); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(25 * time.Hour)
		if err := a.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		want := int32(80)
		if !keysHang {
			want = 2
		}
		began = time.Now()
		run, cancel := context.WithTimeout(t.Context(), 55*time.Second)
		err = a.Deliver(run)
		cancel()
		took, slowest := time.Since(began), time.Duration(last.Load())
		if err != nil || arrived.Load() != want || slowest >= 2*patience || took < 2*patience || took > 10*patience {
			t.Errorf("keys hang: %t: %d of %d arrived, the last after %v; the run took %v: %v", keysHang, arrived.Load(), want, slowest, took, err)
		}
	}
}

// Time that ran out is a failure; the end of the process is none.
func TestARunThatIsStoppedWithItsProcessIsLoggedAsNoError(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	late, cancel := context.WithDeadline(t.Context(), time.Time{})
	defer cancel()
	for want, ctx := range map[string]context.Context{"INFO": stopped, "ERROR": late} {
		var said strings.Builder
		a := &App{Log: slog.New(slog.NewJSONHandler(&said, nil))}
		a.ran(ctx, "deliver", "events", 0, 0, false, ctx.Err())
		if !strings.Contains(said.String(), `"level":"`+want+`"`) {
			t.Errorf("want %s, got %s", want, said.String())
		}
	}
}
