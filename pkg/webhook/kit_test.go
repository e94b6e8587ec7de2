package webhook

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	notice = Message{ID: "evt_01KAPQ5Z6B3X", At: noon, Body: []byte(`{"type":"api_key.rotated","data":{"key":"lk_live_SECRET"}}`)}
)

// names is a Resolver that tests write. It counts what it is asked, and answers each time with the next list; the last stays.
type names struct {
	mu      sync.Mutex
	asked   []string
	answers [][]netip.Addr
	err     error
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	if n.err != nil || len(n.answers) == 0 {
		return nil, n.err
	}
	answer := n.answers[0]
	if len(n.answers) > 1 {
		n.answers = n.answers[1:]
	}
	return answer, nil
}

// at is a resolver that always answers with these addresses.
func at(texts ...string) *names {
	addresses := make([]netip.Addr, len(texts))
	for i, text := range texts {
		addresses[i] = netip.MustParseAddr(text)
	}
	return &names{answers: [][]netip.Addr{addresses}}
}

// here is a sender for the tests' receivers, which are on this machine and called example.com too.
func here() *Sender {
	return &Sender{Loopback: true, Roots: roots(), Resolver: at("127.0.0.1"), Timeout: 30 * time.Second}
}

// identity is the certificate of the tests' receivers: for example.com, 127.0.0.1 and ::1.
var identity = sync.OnceValue(func() tls.Certificate {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return server.TLS.Certificates[0]
})

func roots() *x509.CertPool {
	leaf, err := x509.ParseCertificate(identity().Certificate[0])
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return pool
}

// receive starts a receiver and returns its address.
func receive(t *testing.T, http2 bool, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handle)
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// answers is a receiver that reads the whole notice and answers with a status.
func answers(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
	}
}

// listen starts a receiver that does what it likes with each connection, and returns its address. The connections are
// closed at the test's end, or when behave returns.
func listen(t *testing.T, behave func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		_ = listener.Close()
		cancel()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			running.Go(func() {
				defer conn.Close()
				behave(conn)
			})
		}
	})
	return "https://" + listener.Addr().String()
}

// secured is what a receiver does after TLS and after it has read the whole request.
func secured(protocol string, behave func(*tls.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{identity()}, NextProtos: []string{protocol}})
		if c.Handshake() != nil {
			return
		}
		if protocol == "http/1.1" && !readRequest(c) {
			return
		}
		behave(c)
	}
}

func readRequest(conn net.Conn) bool {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	return err == nil
}

// says is a receiver that answers with these very bytes and then holds the line until it is cut.
func says(format string, args ...any) func(net.Conn) {
	return secured("http/1.1", func(c *tls.Conn) {
		if _, err := fmt.Fprintf(c, format, args...); err == nil {
			hold(c)
		}
	})
}

// hold reads until the other side ends.
func hold(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// drip writes a text over and over, a byte each millisecond, until the other side ends.
func drip(conn net.Conn, text string) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for at := 0; ; at++ {
		<-pace.C
		if _, err := io.WriteString(conn, text[at%len(text):at%len(text)+1]); err != nil {
			return
		}
	}
}

// flood writes a text over and over, as fast as it is taken.
func flood(conn net.Conn, text string) {
	text = strings.Repeat(text, 1+1000/len(text))
	for {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}
