package webhook

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	timeout       = 15 * time.Second // for one notice in all: DNS, connecting, TLS, sending, answer
	maxHeader     = 64 << 10         // bytes of an answer's headers
	maxAnswer     = 4 << 10          // bytes of an answer's body, read and dropped
	maxRetryAfter = 24 * time.Hour
	userAgent     = "Latchkey-Webhooks/1"
)

// Outcome is what the sender's owner does next.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // a 2xx, after the whole notice was sent
	Gone      Outcome = "gone"      // 410: the receiver wants no more
	Retry     Outcome = "retry"     // any other failure: it may be over at the next attempt
	Refused   Outcome = "refused"   // not attempted: the address is not allowed, or the notice cannot be signed
)

// Result is what came of an attempt. It holds nothing that the receiver wrote.
type Result struct {
	Outcome    Outcome
	Status     int           // HTTP's, 0 without an answer
	Duration   time.Duration // of the attempt
	RetryAfter time.Duration // what the receiver asks for, 0 to 24 h
	Err        string        // why it was not delivered, in words for a delivery log; "" if it was

	// Landed is false when certainly no byte of the notice was sent, so nobody can have it. It may be true of one that
	// never arrived.
	Landed bool
}

// Resolver finds the addresses of a name, which is given with a full stop at its end. [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Sender sends notices. The zero Sender is ready, and may be used by many at once; its fields are set before that.
type Sender struct {
	Loopback bool           // development: this machine too may be a receiver, also by http
	Resolver Resolver       // default: net.DefaultResolver
	Roots    *x509.CertPool // whose certificates receivers may have; default: the system's
	Timeout  time.Duration  // of one attempt in all; default: 15 s

	// reached is asked, in tests, before a connection is made to an address that may be: they make none beyond this machine.
	reached func(netip.AddrPort) error
}

// Send posts a message to an address with a signature of each secret. It tries once and returns within the sender's
// time-out, whatever the receiver does, or when ctx ends.
func (s *Sender) Send(ctx context.Context, address string, m Message, secrets ...Secret) Result {
	began := time.Now()
	r := s.send(ctx, address, m, secrets)
	r.Duration = time.Since(began)
	return r
}

func (s *Sender) send(ctx context.Context, address string, m Message, secrets []Secret) Result {
	t, err := s.parse(address)
	if err != nil {
		return refused("the address " + err.Error())
	}
	header, err := m.Sign(secrets...)
	if err != nil {
		return refused(err.Error())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout(), errTimeout)
	defer cancel() // which also cuts the connection
	conn, err := s.connect(ctx, t)
	switch {
	case errors.Is(err, errNotAllowed):
		return refused(errNotAllowed.Error())
	case err != nil:
		return failed(err)
	}
	return post(ctx, conn, t, m, header)
}

func (s *Sender) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return timeout
}

func refused(why string) Result { return Result{Outcome: Refused, Err: "refused: " + why} }
func failed(why error) Result   { return Result{Outcome: Retry, Err: why.Error()} }

// post sends the message over conn and reads the answer.
func post(ctx context.Context, conn net.Conn, t target, m Message, header http.Header) Result {
	body := &meter{left: bytes.NewReader(m.Body)}
	r := (&http.Request{Method: http.MethodPost, URL: t.url, Header: header, Body: body, ContentLength: int64(len(m.Body))}).WithContext(ctx)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", userAgent)
	answer, err := over(conn).RoundTrip(r)
	if err != nil {
		result := failed(why(ctx, "no answer", "the connection was lost, or what came was no HTTP"))
		result.Landed, _ = body.stop()
		return result
	}
	landed, whole := body.stop()
	result := judge(answer, whole, m.At)
	result.Landed = landed
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // so that the receiver is not cut off while it answers
	_ = answer.Body.Close()
	return result
}

// judge tells what an answer means, as Standard Webhooks has it: a redirect is a failure, and so is every status that it
// does not name. A 2xx that came before the whole notice was sent is none: whoever answered does not have it.
func judge(answer *http.Response, whole bool, now time.Time) Result {
	r := Result{Outcome: Retry, Status: answer.StatusCode, Err: "answered " + strconv.Itoa(answer.StatusCode)}
	switch class := answer.StatusCode / 100; {
	case class == 2 && whole:
		return Result{Outcome: Delivered, Status: answer.StatusCode}
	case class == 2:
		r.Err += " before the notice was sent"
	case class == 3:
		r.Err += ": redirects are not followed"
	case answer.StatusCode == http.StatusGone:
		r.Outcome = Gone
		return r
	}
	r.RetryAfter = retryAfter(answer.Header.Get("Retry-After"), now)
	return r
}

// retryAfter reads the header Retry-After (RFC 9110, section 10.2.3). What it does not understand is 0.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, min(at.Sub(now), maxRetryAfter))
	}
	return 0
}

// over is a transport for one request over one connection, HTTP/2 if its TLS says so. It has no way to make another connection,
// so nothing is sent twice or elsewhere.
func over(conn net.Conn) *http.Transport {
	var used atomic.Bool
	dial := func(context.Context, string, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("one connection is all there is")
		}
		return conn, nil
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext: dial, DialTLSContext: dial, Protocols: &protocols,
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10, MaxReadFrameSize: 16 << 10},
	}
}

// meter is a body that knows how much of it was taken. After stop it gives nothing more, so that what stop said stays true
// although a transport may still be reading when it has returned.
type meter struct {
	mu      sync.Mutex
	left    *bytes.Reader
	taken   bool
	stopped bool
}

// Read gives what is left.
func (m *meter) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return 0, errors.New("the attempt is over")
	}
	m.taken = m.taken || len(p) > 0
	return m.left.Read(p)
}

// Close does nothing: a transport may close a body early.
func (m *meter) Close() error { return nil }

// stop says whether some of the body was taken, and whether all was.
func (m *meter) stop() (some, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	return m.taken, m.left.Len() == 0
}

// why says what kept an answer away, without the words of the other side that an error of net/http may quote.
func why(ctx context.Context, late, otherwise string) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errTimeout):
		return fmt.Errorf("%w: %s", errTimeout, late)
	case cause != nil:
		return errors.New("stopped before its end: " + late)
	}
	return errors.New(otherwise)
}
