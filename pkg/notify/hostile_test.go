package notify_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// listen starts a receiver that does what it likes with each connection, and returns its address.
func listen(t *testing.T, behave func(context.Context, net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
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
				behave(ctx, conn)
			})
		}
	})
	return "http://" + listener.Addr().String()
}

// drips answers one byte a second, until the other side has had enough.
func drips(ctx context.Context, conn net.Conn) {
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for _, b := range []byte("HTTP/1.1 200 OK\r\nX-Slow: " + strings.Repeat("a", 1000)) {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-second.C:
		}
	}
}

// hangs takes everything and never answers.
func hangs(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, conn)
}

// Ten organizations have two receivers each that drip or hang, and a hundred events for each of them. A hundred others have one that is well.
func TestReceiversThatDripOrHangHoldUpTheirOwnDeliveriesAlone(t *testing.T) {
	const bad, good, patience = 10, 100, 3 * time.Second
	h := newHouse(t)
	h.Sender, h.Senders = &webhook.Sender{Loopback: true, Timeout: patience}, 64
	var arrived, most atomic.Int64
	began := time.Time{}
	var last time.Duration
	var under uint64 // bytes in use while the bad ones are being waited for
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
		if arrived.Add(1) == good {
			last, under = time.Since(began), inUse()
		}
	}))
	defer well.Close()
	dripping, hanging := listen(t, drips), listen(t, hangs)
	for n := range bad {
		name := fmt.Sprint("bad_", n)
		h.subscribeIn(t, name, dripping)
		h.subscribeIn(t, name, hanging)
		h.announce(t, name, 100)
	}
	h.advance(time.Second) // those who are well come behind all of them
	for n := range good {
		name := fmt.Sprint("good_", n)
		h.subscribeIn(t, name, well.URL)
		h.announce(t, name, 1)
	}
	before, held := runtime.NumGoroutine(), inUse()
	began = time.Now()
	h.deliver(t)
	took, grown := time.Since(began), int64(under)-int64(held)
	t.Logf("%d receivers were told within %v, beside %d that drip or hang; the run took %v, with %d goroutines and %d KiB more", good, last, 2*bad, took,
		most.Load()-int64(before), grown>>10)
	if arrived.Load() != good || last >= patience || took > 3*patience {
		t.Errorf("%d of %d arrived, the last after %v; the run took %v", arrived.Load(), good, last, took)
	}
	if grown > 16<<20 {
		t.Errorf("%d bytes more were in use", grown)
	}
	if more := most.Load() - int64(before); more > 64*8 {
		t.Errorf("%d goroutines were added", more)
	}
	list, _, err := h.Deliveries(as("bad_0"), notify.DeliveryFilter{Limit: 1000})
	tried := 0
	for _, d := range list {
		tried += len(d.Attempts)
	}
	if err != nil || len(list) != 200 || tried != 2 {
		t.Errorf("a bad one has %d deliveries with %d attempts, %v", len(list), tried, err)
	}
}

// inUse is how many bytes are in use.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// changing is a DNS whose answer is another each time.
type changing struct {
	mu      sync.Mutex
	answers []netip.Addr
}

func (c *changing) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.answers[0]
	c.answers = append(c.answers[1:], a)
	return []netip.Addr{a}, nil
}

func TestAWebhookWhoseNameTurnsPrivateReachesNothing(t *testing.T) {
	h := newHouse(t)
	var reached atomic.Int32
	inside := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inside.Close()
	inside.Config.ConnState = func(net.Conn, http.ConnState) { reached.Add(1) }
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	h.Sender = &webhook.Sender{Resolver: &changing{answers: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"),
		netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("10.0.0.1")}}}
	sub := h.subscribe(t, "https://hooks.example.com:"+port+"/in") // nobody asks DNS yet
	h.announce(t, "acme", 1)
	for range 5 {
		h.deliver(t)
		h.advance(10 * time.Hour)
	}
	if _, err := h.Test(acme(), sub.ID); err != nil {
		t.Error(err)
	}
	d := h.only(t, audit.Created)
	for _, a := range d.Attempts {
		if a.Outcome != webhook.Refused || a.Status != 0 || a.Error == "" {
			t.Errorf("%+v", a)
		}
	}
	if len(d.Attempts) != 5 || reached.Load() > 0 {
		t.Errorf("%d attempts, and something inside was reached %d times", len(d.Attempts), reached.Load())
	}
}

func TestARealReceiverVerifiesWhatItGets(t *testing.T) {
	h := newHouse(t)
	h.Sender = &webhook.Sender{Loopback: true}
	var mu sync.Mutex
	var errs []error
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(r.Header, body, noon, h.secrets...)
		}
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}))
	defer receiver.Close()
	sub := h.subscribe(t, receiver.URL)
	h.announce(t, "acme", 3)
	h.deliver(t)
	if d, err := h.Test(acme(), sub.ID); err != nil || d.Status != notify.Delivered {
		t.Errorf("%+v, %v", d, err)
	}
	if len(errs) != 4 {
		t.Errorf("it got %d", len(errs))
	}
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}
