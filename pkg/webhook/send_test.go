package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestAReceiverVerifiesWhatItGets(t *testing.T) {
	for name, protocol := range map[string]int{"HTTP/1.1": 1, "HTTP/2": 2} {
		t.Run(name, func(t *testing.T) {
			current, old := NewSecret(), NewSecret()
			var got atomic.Pointer[http.Request]
			address := receive(t, protocol == 2, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || !bytes.Equal(body, notice.Body) {
					t.Errorf("the body is %q: %v", body, err)
				}
				for _, s := range []Secret{current, old} {
					if err := Verify(r.Header, body, noon, s); err != nil {
						t.Error(err)
					}
				}
				got.Store(r)
				w.Header().Set("Set-Cookie", "a=b")
				w.WriteHeader(http.StatusNoContent)
			})
			sender := here()
			for range 2 {
				r := sender.Send(t.Context(), address+"/hook?x=y", notice, current, old)
				if r.Outcome != Delivered || r.Status != 204 || !r.Landed || r.Err != "" || r.Duration <= 0 {
					t.Fatalf("%+v", r)
				}
			}
			request := got.Load()
			if request.ProtoMajor != protocol || request.Method != "POST" || request.URL.String() != "/hook?x=y" || request.ContentLength != int64(len(notice.Body)) {
				t.Errorf("%s %s %s with %d bytes", request.Proto, request.Method, request.URL, request.ContentLength)
			}
			want := []string{"Content-Length", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Signature", "Webhook-Timestamp"}
			if protocol == 1 {
				want = append(want, "Connection")
			}
			for name := range request.Header {
				if !slices.Contains(want, name) {
					t.Errorf("it has the header %s: %q", name, request.Header[name])
				}
			}
			if request.UserAgent() != "Latchkey-Webhooks/1" || request.Header.Get("Content-Type") != "application/json" {
				t.Errorf("the headers are %v", request.Header)
			}
		})
	}
}

func TestEveryStatusHasItsOutcome(t *testing.T) {
	for status, want := range map[int]Outcome{
		200: Delivered, 201: Delivered, 202: Delivered, 204: Delivered, 299: Delivered, 410: Gone,
		300: Retry, 301: Retry, 302: Retry, 303: Retry, 304: Retry, 307: Retry, 308: Retry, 400: Retry, 401: Retry, 403: Retry, 404: Retry, 405: Retry, 408: Retry, 409: Retry,
		413: Retry, 418: Retry, 422: Retry, 425: Retry, 429: Retry, 451: Retry, 500: Retry, 501: Retry, 502: Retry, 503: Retry, 504: Retry, 599: Retry, 600: Retry, 999: Retry,
	} {
		for _, http2 := range []bool{false, true} {
			r := here().Send(t.Context(), receive(t, http2, answers(status)), notice, NewSecret())
			if r.Outcome != want || r.Status != status || !r.Landed || (r.Err == "") != (want == Delivered) {
				t.Errorf("%d: %+v", status, r)
			}
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Int64
	other := receive(t, false, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for _, location := range []string{other, "https://127.0.0.1:1/", "http://169.254.169.254/", "/again", "//x", "::", ""} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			var asked atomic.Int64
			r := here().Send(t.Context(), receive(t, false, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				w.Header().Set("Location", location)
				answers(status)(w, r)
			}), notice, NewSecret())
			if r.Outcome != Retry || r.Status != status || r.Err != fmt.Sprintf("answered %d: redirects are not followed", status) || asked.Load() != 1 {
				t.Errorf("%d to %q: %+v after %d requests", status, location, r, asked.Load())
			}
		}
	}
	if followed.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

func TestNoProxyIsUsed(t *testing.T) {
	var asked atomic.Int64
	proxy := listen(t, func(net.Conn) { asked.Add(1) })
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, strings.Replace(proxy, "https", "http", 1))
	}
	sender := &Sender{Resolver: at("8.8.8.8"), reached: func(netip.AddrPort) error { return errNotHere }}
	if r := sender.Send(t.Context(), "https://example.com/", notice, NewSecret()); r.Outcome != Retry {
		t.Errorf("%+v", r)
	}
	if r := here().Send(t.Context(), receive(t, false, answers(200)), notice, NewSecret()); r.Outcome != Delivered {
		t.Errorf("%+v", r)
	}
	if asked.Load() > 0 {
		t.Error("a proxy was asked")
	}
}

func TestReceiversAreKnownByTheirCertificates(t *testing.T) {
	address := receive(t, false, answers(200))
	named := strings.Replace(address, "127.0.0.1", "example.com", 1)
	old := listen(t, func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{identity()}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).Handshake()
	})
	for name, row := range map[string]struct {
		address string
		change  func(*Sender)
		err     string
	}{
		"its name":            {named, func(*Sender) {}, ""},
		"its name, absolute":  {strings.Replace(named, ".com", ".com.", 1), func(*Sender) {}, ""},
		"its address":         {address, func(*Sender) {}, ""},
		"another name":        {strings.Replace(address, "127.0.0.1", "example.net", 1), func(*Sender) {}, "TLS failed: its certificate is for another name"},
		"localhost":           {strings.Replace(address, "127.0.0.1", "localhost", 1), func(*Sender) {}, "TLS failed: its certificate is for another name"},
		"an unknown issuer":   {address, func(s *Sender) { s.Roots = nil }, "TLS failed: its certificate is of no known authority"},
		"TLS 1.1":             {old, func(*Sender) {}, "TLS failed"},
		"no TLS":              {listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") }), func(*Sender) {}, "TLS failed"},
		"a plain http server": {"http" + strings.TrimPrefix(address, "https"), func(*Sender) {}, "answered 400"},
	} {
		s := here()
		row.change(s)
		r := s.Send(t.Context(), row.address, notice, NewSecret())
		if r.Err != row.err || (r.Outcome == Delivered) != (row.err == "") || r.Landed && strings.HasPrefix(row.err, "TLS") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Landed decides whether a rotation may be abandoned: a key that its receiver may have must not be.
func TestLandedIsFalseOnlyWhenNothingOfTheNoticeWasSent(t *testing.T) {
	closed := listen(t, func(net.Conn) {})
	for name, row := range map[string]struct {
		address string
		change  func(*Sender)
		err     string
		landed  bool
	}{
		"a name without address": {"https://nowhere.example", func(s *Sender) { s.Resolver = &names{err: &net.DNSError{IsNotFound: true}} }, "its name has no address", false},
		"a name with none":       {"https://nowhere.example", func(s *Sender) { s.Resolver = &names{} }, "its name has no address", false},
		"no DNS":                 {"https://nowhere.example", func(s *Sender) { s.Resolver = &names{err: errors.New("SERVFAIL EVIL")} }, "its name could not be resolved", false},
		"a refused connection":   {"https://127.0.0.1:1", func(*Sender) {}, "no connection could be made", false},
		"cut before TLS":         {closed, func(*Sender) {}, "TLS failed", false},
		"cut in TLS":             {listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), func(*Sender) {}, "TLS failed", false},
		"cut after the request":  {listen(t, secured("http/1.1", func(c *tls.Conn) {})), func(*Sender) {}, "the connection was lost, or what came was no HTTP", true},
		"reset after it":         {listen(t, secured("http/1.1", reset)), func(*Sender) {}, "the connection was lost, or what came was no HTTP", true},
		"half closed":            {listen(t, secured("http/1.1", func(c *tls.Conn) { _ = c.CloseWrite(); hold(c) })), func(*Sender) {}, "the connection was lost, or what came was no HTTP", true},
		"cut in the status line": {listen(t, secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 20") })), func(*Sender) {}, "the connection was lost, or what came was no HTTP", true},
		"cut in the headers":     {listen(t, secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y") })), func(*Sender) {}, "the connection was lost, or what came was no HTTP", true},
	} {
		s := here()
		row.change(s)
		r := s.Send(t.Context(), row.address, notice, NewSecret())
		if r.Outcome != Retry || r.Landed != row.landed || r.Err != row.err || r.Status != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func reset(c *tls.Conn) {
	_ = c.NetConn().(*net.TCPConn).SetLinger(0)
	_ = c.NetConn().Close()
}

func TestAnEarlyAnswerIsNoDelivery(t *testing.T) {
	r := judge(&http.Response{StatusCode: 200, Header: http.Header{}}, false, noon)
	if r.Outcome != Retry || r.Err != "answered 200 before the notice was sent" {
		t.Errorf("%+v", r)
	}
	body := &meter{left: bytes.NewReader(make([]byte, 10))}
	_, _ = body.Read(make([]byte, 9))
	if some, all := body.stop(); !some || all {
		t.Errorf("9 of 10 bytes: %v, %v", some, all)
	}
	if n, err := body.Read(make([]byte, 9)); n != 0 || err == nil {
		t.Errorf("%d bytes were given after the end", n)
	}
}

// Whatever a receiver does, it has its time and no more; and nothing that it wrote is in the result.
func TestAReceiverGetsItsTimeAndNoMore(t *testing.T) {
	before := runtime.NumGoroutine()
	const late = 2 * time.Second // enough to get there on a busy machine
	hello := "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nServer: EVIL\r\n\r\n"
	rows := map[string]behaviour{
		"never speaks TLS":            {hold, Result{Outcome: Retry, Err: "timed out: the TLS handshake did not end"}},
		"stops within TLS":            {func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x03\x00\x7a\x02"); hold(c) }, Result{Outcome: Retry, Err: "timed out: the TLS handshake did not end"}},
		"drips TLS":                   {func(c net.Conn) { drip(c, "\x16\x03\x03\x40\x00\x02\x00\x3f\xf0"+strings.Repeat("\x03", 9000)) }, Result{Outcome: Retry, Err: "timed out: the TLS handshake did not end"}},
		"never answers":               {says(""), Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"never reads":                 {func(c net.Conn) { neverReads(c) }, Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"is silent in HTTP/2":         {secured("h2", func(c *tls.Conn) { hold(c) }), Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"stops in its headers":        {says("HTTP/1.1 200 OK\r\nX: EVIL"), Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"drips its headers":           {secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"); drip(c, "X: EVIL\r\n") }), Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"says go on, for ever":        {secured("http/1.1", func(c *tls.Conn) { drip(c, "HTTP/1.1 100 Continue\r\n\r\n") }), Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"floods with headers":         {secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"); flood(c, "X: EVIL\r\n") }), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
		"floods with one header":      {secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); flood(c, "EVIL") }), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
		"floods with early hints":     {secured("http/1.1", func(c *tls.Conn) { flood(c, "HTTP/1.1 103 EVIL\r\nX: y\r\n\r\n") }), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
		"stops in its body":           {says("%s", hello+"x"), Result{Outcome: Delivered, Status: 200, Landed: true}},
		"drips its body":              {secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, hello); drip(c, "EVIL") }), Result{Outcome: Delivered, Status: 200, Landed: true}},
		"floods with a body":          {secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, hello); flood(c, "EVIL") }), Result{Outcome: Delivered, Status: 200, Landed: true}},
		"floods with an error":        {secured("http/1.1", func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 500 EVIL\r\n\r\n"); flood(c, "EVIL") }), Result{Outcome: Retry, Status: 500, Landed: true, Err: "answered 500"}},
		"switches protocols":          {says("HTTP/1.1 101 EVIL\r\nUpgrade: EVIL\r\nConnection: Upgrade\r\n\r\n"), Result{Outcome: Retry, Status: 101, Landed: true, Err: "answered 101"}},
		"speaks no HTTP":              {says("EVIL\r\n\r\n"), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
		"speaks HTTP/0.9":             {says("<html>EVIL</html>"), Result{Outcome: Retry, Landed: true, Err: "timed out: no answer"}},
		"has an EVIL reason":          {says("HTTP/1.1 404 EVIL\r\nContent-Length: 0\r\n\r\n"), Result{Outcome: Retry, Status: 404, Landed: true, Err: "answered 404"}},
		"has an EVIL header":          {says("HTTP/1.1 200 OK\r\nEVIL\r\n\r\n"), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
		"has two EVIL lengths":        {says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: EVIL\r\n\r\n"), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
		"sends an EVIL goodbye in h2": {secured("h2", func(c *tls.Conn) { goAway(c, "EVIL") }), Result{Outcome: Retry, Landed: true, Err: "the connection was lost, or what came was no HTTP"}},
	}
	t.Run("all at once", func(t *testing.T) {
		var running sync.WaitGroup
		defer running.Wait()
		for name, row := range rows {
			s := here()
			s.Timeout = 20 * time.Second // for what ends by itself
			if strings.HasPrefix(row.want.Err, "timed out") || !strings.HasPrefix(name, "floods") && row.want.Outcome == Delivered || row.want.Status == 101 {
				s.Timeout = late
			}
			address := listen(t, row.behave)
			running.Go(func() {
				r := s.Send(t.Context(), address, row.message(), NewSecret())
				if s.Timeout == late && r.Duration > late+5*time.Second || s.Timeout > late && r.Duration >= s.Timeout {
					t.Errorf("%s: it took %v", name, r.Duration)
				}
				if strings.Contains(fmt.Sprintf("%+v", r), "EVIL") {
					t.Errorf("%s: the receiver's words are in %+v", name, r)
				}
				r.Duration = 0
				if r != row.want {
					t.Errorf("%s: %+v, not %+v", name, r, row.want)
				}
			})
		}
	})
	settle(t, before)
}

// behaviour is what a receiver does with a connection, and what is to come of it.
type behaviour struct {
	behave func(net.Conn)
	want   Result
}

// message is as long as may be.
func (behaviour) message() Message {
	m := notice
	m.Body = []byte(`"` + strings.Repeat("x", MaxBody-2) + `"`)
	return m
}

// neverReads ends its part of the handshake and leaves the rest in the buffers.
func neverReads(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{identity()}, NextProtos: []string{"http/1.1"}})
	if c.Handshake() == nil {
		drip(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
	}
}

// goAway is the frames SETTINGS and GOAWAY, with words in it (RFC 9113, sections 6.5 and 6.8).
func goAway(c *tls.Conn, words string) {
	_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
	readFrames(c, data)
	_, _ = c.Write(append([]byte{0, 0, byte(8 + len(words)), 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11}, words...))
	hold(c)
}

// settle waits until the goroutines of the test have ended.
func settle(t *testing.T, before int) {
	t.Helper()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		<-pace.C
	}
	buffer := make([]byte, 1<<16)
	t.Errorf("%d goroutines are left of %d:\n%s", runtime.NumGoroutine(), before, buffer[:runtime.Stack(buffer, true)])
}

// A server that goes away in HTTP/2 without having read the request may be asked again, says RFC 9113: not by us.
func TestANoticeIsSentOnce(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		var requests atomic.Int64
		address := receive(t, http2, func(http.ResponseWriter, *http.Request) {
			requests.Add(1)
			panic(http.ErrAbortHandler)
		})
		if r := here().Send(t.Context(), address, notice, NewSecret()); r.Outcome != Retry || !r.Landed {
			t.Errorf("%+v", r)
		}
		if n := requests.Load(); n != 1 {
			t.Errorf("it was sent %d times", n)
		}
	}
	var connections atomic.Int64
	refusing := listen(t, secured("h2", func(c *tls.Conn) {
		connections.Add(1)
		_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
		readFrames(c, headers)
		_, _ = c.Write([]byte{0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7}) // RST_STREAM of stream 1: REFUSED_STREAM
		hold(c)
	}))
	if r := here().Send(t.Context(), refusing, notice, NewSecret()); r.Outcome != Retry || connections.Load() != 1 {
		t.Errorf("%+v after %d connections", r, connections.Load())
	}
}

// Types of HTTP/2 frames (RFC 9113, section 6).
const (
	data    = 0
	headers = 1
)

// readFrames reads what a client of HTTP/2 sends up to its first frame of a type.
func readFrames(c *tls.Conn, until byte) {
	_, _ = io.CopyN(io.Discard, c, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, c, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
		if head[3] == until {
			return
		}
	}
}

// stuck is a resolver that never answers.
type stuck struct{}

func (stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDNSHasItsShareOfTheTimeAndACancelledAttemptEnds(t *testing.T) {
	s := &Sender{Resolver: stuck{}, Timeout: 20 * time.Millisecond}
	if r := s.Send(t.Context(), "https://example.com/", notice, NewSecret()); r.Outcome != Retry || r.Landed || r.Err != "timed out: its name was not resolved" {
		t.Errorf("%+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	address := listen(t, secured("http/1.1", func(c *tls.Conn) { cancel(); hold(c) }))
	if r := here().Send(ctx, address, notice, NewSecret()); r.Outcome != Retry || !r.Landed || r.Err != "stopped before its end: no answer" {
		t.Errorf("%+v", r)
	}
	if r := here().Send(ctx, address, notice, NewSecret()); r.Outcome != Retry || r.Landed {
		t.Errorf("%+v", r)
	}
	if d := new(Sender).timeout(); d != 15*time.Second {
		t.Errorf("a receiver has %v by default", d)
	}
}

func TestRetryAfterIsReadAndBounded(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "86400": 24 * time.Hour, "86401": 24 * time.Hour, "2147483647": 24 * time.Hour, "99999999999999999999": 0, "-1": 0, "+5": 0, "1.5": 0, " 5": 0, "soon": 0,
		noon.Add(time.Hour).Format(http.TimeFormat): time.Hour, noon.Add(-time.Hour).Format(http.TimeFormat): 0, noon.AddDate(100, 0, 0).Format(http.TimeFormat): 24 * time.Hour,
	} {
		answer := &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {text}}}
		if got := judge(answer, true, noon).RetryAfter; got != want {
			t.Errorf("%q: %v, not %v", text, got, want)
		}
	}
}

func TestANoticeThatCannotBeSignedIsNotSent(t *testing.T) {
	var asked atomic.Int64
	address := receive(t, false, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	for name, r := range map[string]Result{
		"no secret":      here().Send(t.Context(), address, notice),
		"a zero secret":  here().Send(t.Context(), address, notice, Secret{}),
		"an id of a dot": here().Send(t.Context(), address, Message{ID: ".", At: noon, Body: notice.Body}, NewSecret()),
		"no body":        here().Send(t.Context(), address, Message{ID: "x", At: noon}, NewSecret()),
	} {
		if r.Outcome != Refused || r.Landed {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if asked.Load() > 0 {
		t.Error("it was sent")
	}
}

// Twenty slow receivers take no longer than one, and leave nothing behind.
func TestSlowReceiversDoNotWaitForOneAnother(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("send", func(t *testing.T) {
		s := here()
		s.Timeout = 2 * time.Second
		slow, quick := listen(t, says("")), receive(t, false, answers(200))
		done := make(chan Result)
		for range 20 {
			go func() { done <- s.Send(t.Context(), slow, notice, NewSecret()) }()
		}
		if r := here().Send(t.Context(), quick, notice, NewSecret()); r.Outcome != Delivered {
			t.Errorf("the quick one: %+v", r)
		}
		for range 20 {
			if r := <-done; r.Outcome != Retry || r.Duration > 7*time.Second {
				t.Errorf("a slow one: %+v", r)
			}
		}
	})
	settle(t, before)
}
