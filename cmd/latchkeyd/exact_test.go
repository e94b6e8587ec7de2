package main_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// process is a latchkeyd and how far its clock is ahead.
type process struct {
	*keytest.Daemon
	ahead time.Duration
}

// burst sends n requests with the key at once, spread over the processes, and counts those admitted by the window of
// the process that admitted them. It says whether that can be judged to the last request: every
// clock stayed in one window meanwhile, and the store answered everybody in time.
func burst(t *testing.T, processes []process, key string, n int, window time.Duration) (admitted map[int64]int64, exact bool) {
	t.Helper()
	now := func(p process) int64 { return time.Now().Add(p.ahead).UnixNano() / int64(window) }
	counts, before := make([]atomic.Int64, len(processes)), make([]int64, len(processes))
	for i, p := range processes {
		before[i] = now(p)
	}
	var late atomic.Bool
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			at := i % len(processes)
			switch status := processes[at].Authorize(key); status {
			case http.StatusOK:
				counts[at].Add(1)
			case http.StatusTooManyRequests:
			case http.StatusServiceUnavailable: // refused, and perhaps debited
				late.Store(true)
			default:
				t.Errorf("status %d", status)
			}
		})
	}
	all.Wait()
	admitted, exact = map[int64]int64{}, !late.Load()
	for i, p := range processes {
		admitted[before[i]] += counts[i].Load()
		exact = exact && now(p) == before[i]
	}
	return admitted, exact
}

// exactly sends 200 requests at once with a key limited to 100. It does so again with a new key if that could not be
// judged, or fewer were admitted: on a busy machine an attempt may be sent twice, which debits twice. More never are.
func exactly(t *testing.T, processes []process, limit string, window time.Duration) {
	t.Helper()
	for range 10 {
		key := processes[0].Create(map[string]any{"rate_limit_per_minute": nil, limit: 100})
		admitted, exact := burst(t, processes, key.Plaintext, 200, window)
		fewer := false
		for w, n := range admitted {
			if n > 100 {
				t.Errorf("the window %d admitted %d of 200, not 100", w, n)
			}
			fewer = fewer || n < 100 && len(admitted) == 1
		}
		if exact && !fewer {
			return
		}
	}
	t.Error("no try admitted exactly 100 of 200")
}

func TestOfTwoHundredCallersAtOnceExactlyOneHundredAreAdmitted(t *testing.T) {
	onBothStores(t, func(t *testing.T, d *keytest.Daemon) {
		exactly(t, []process{{d, 0}}, "rate_limit_per_minute", time.Minute)
		exactly(t, []process{{d, 0}}, "daily_limit", 24*time.Hour)
	})
}

func TestThreeProcessesAdmitExactlyTheLimitTogether(t *testing.T) {
	s := newTables(t)
	three := []process{{s.start(t), 0}, {s.start(t), 0}, {s.start(t), 0}}
	exactly(t, three, "rate_limit_per_minute", time.Minute)
	exactly(t, three, "daily_limit", 24*time.Hour)
}

func TestWithOneClockHalfAMinuteAheadNoWindowAdmitsMoreThanTheLimit(t *testing.T) {
	s := newTables(t)
	const ahead = 30 * time.Second
	two := []process{{s.start(t), 0}, {s.start(t, "-clock-offset", ahead.String()), ahead}}
	exactly(t, two, "rate_limit_per_minute", time.Minute)
	exactly(t, two, "daily_limit", 24*time.Hour)
}

func TestWhatOneProcessEndsTheNextRequestToAnotherIsRefused(t *testing.T) {
	t.Parallel()
	s := newTables(t)
	const ahead = time.Hour
	a, b := s.start(t), s.start(t)
	future := s.start(t, "-clock-offset", ahead.String()) // lives an hour later: where time passes between two calls
	post := func(id, what string, body any) {
		t.Helper()
		if r := a.Call("POST", "/v1/api-keys/"+id+what, a.ManagementKey, body); r.Status != http.StatusOK {
			t.Fatalf("%s: %d %s", what, r.Status, r.Body)
		}
	}
	revoke := func(id string) {
		t.Helper()
		if r := a.Call("DELETE", "/v1/api-keys/"+id, a.ManagementKey, nil); r.Status != http.StatusNoContent {
			t.Fatalf("delete: %d %s", r.Status, r.Body)
		}
	}
	passes := func(d *keytest.Daemon, key string, want int, when string) {
		t.Helper()
		if got := d.Authorize(key); got != want {
			t.Fatalf("%s: %d, want %d", when, got, want)
		}
	}
	for round := range 50 {
		for name, end := range map[string]func(id string){
			"revoked":           revoke,
			"revoked in grace":  func(id string) { post(id, "/rotate", nil); revoke(id) },
			"grace ended":       func(id string) { post(id, "/rotate", nil); post(id, "/rotate/end", nil) },
			"rotated, no grace": func(id string) { post(id, "/rotate", map[string]any{"grace_period_seconds": 0}) },
		} {
			key := a.Create(nil)
			passes(b, key.Plaintext, http.StatusOK, "before")
			end(key.ID)
			passes(b, key.Plaintext, http.StatusUnauthorized, fmt.Sprintf("round %d, %s", round, name))
		}
	}
	soon := time.Now().Add(ahead / 2).UTC().Format(time.RFC3339)
	expiring := a.Create(map[string]any{"expires_at": soon})
	passes(b, expiring.Plaintext, http.StatusOK, "before its expiry")
	passes(future, expiring.Plaintext, http.StatusUnauthorized, "after its expiry")
	inGrace := a.Create(nil)
	post(inGrace.ID, "/rotate", map[string]any{"grace_period_seconds": 1800})
	passes(b, inGrace.Plaintext, http.StatusOK, "within its grace")
	passes(future, inGrace.Plaintext, http.StatusUnauthorized, "after its grace")
}

func TestALeakedKeyUnderFireIsRevokedWithinASecond(t *testing.T) {
	onBothStores(t, func(t *testing.T, d *keytest.Daemon) {
		var took time.Duration
		for range 3 { // the machine may be busy with something else
			if took = revokedUnderFire(t, d); took <= time.Second {
				return
			}
		}
		t.Errorf("revoked after %s", took)
	})
}

// revokedUnderFire revokes a key while 64 clients hammer it, demands that it is refused from then on, and says how long
// the revocation took.
func revokedUnderFire(t *testing.T, d *keytest.Daemon) time.Duration {
	t.Helper()
	key := d.Create(map[string]any{"rate_limit_per_minute": nil})
	var revoked atomic.Bool
	var before, after atomic.Int64
	burning, stop := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				over := revoked.Load() // read before the request begins
				if d.Authorize(key.Plaintext) != http.StatusOK {
					continue
				}
				if before.Add(1) == 500 {
					close(burning)
				}
				if over {
					after.Add(1)
				}
			}
		})
	}
	<-burning
	began := time.Now()
	r := d.Call("DELETE", "/v1/api-keys/"+key.ID, d.ManagementKey, nil)
	took := time.Since(began)
	revoked.Store(true)
	for range 20 {
		if got := d.Authorize(key.Plaintext); got != http.StatusUnauthorized {
			t.Errorf("after the revocation: %d", got)
		}
	}
	close(stop)
	clients.Wait()
	if r.Status != http.StatusNoContent || after.Load() > 0 {
		t.Errorf("revoked with %d; %d admitted afterwards", r.Status, after.Load())
	}
	t.Logf("revoked in %s under 64 clients, %d requests admitted before", took, before.Load())
	return took
}
