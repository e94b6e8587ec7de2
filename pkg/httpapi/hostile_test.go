package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/storetest"
)

const hostileRequests = 2000

// hostile makes requests that no honest client sends, the same ones for the same seed.
type hostile struct {
	*rand.Rand
	keys   []string
	person string // a viewer's token
	id     string

	hook, delivery string
}

func pick[T any](h *hostile, of ...T) T { return of[h.IntN(len(of))] }

func (h *hostile) bytes(most int) string {
	b := make([]byte, h.IntN(most+1))
	for i := range b {
		b[i] = byte(h.IntN(256))
	}
	return string(b)
}

func (h *hostile) method() string {
	return pick(h, "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "X", strings.Repeat("M", 5000))
}

func (h *hostile) path() string {
	p := pick(h, "/v1/api-keys", "/v1/api-keys/"+h.id, "/v1/api-keys/"+h.id+"/rotate", "/v1/api-keys/"+h.id+"/rotate/end", "/v1/api-keys/"+h.id+"/rotate/extend",
		"/v1/api-keys/"+h.id+"/archive", "/v1/api-keys/"+h.id+"/reactivate",
		"/v1/audit", "/v1/audit/chain", "/v1/organization", "/v1/organizations/acme", "/v1/organizations/"+h.bytes(20), "/v1/keys", "/v1/keys/"+h.id, "/envelope/v1/api-keys", "/envelope/v1/api-keys/"+h.id,
		"/envelope", "/organizations/api-keys", "/organizations/api-keys/"+h.id, "/organizations/api-keys/99999999999999999999", "/v1/api-keys/verify", "/v1/api-keys/me", "/v1/authorize", "/", "//", "/v1/../v1/api-keys", "/v1/api-keys/%2e%2e", "/%25%25", "/v1/api-keys/"+strings.Repeat("a", 9000))
	if h.IntN(3) == 0 {
		p += "?" + pick(h, "limit=-1", "limit=1&limit=2", "cursor=%00", "%zz", "&&&&", "scopes=%22", "cost=1e9", "cursor="+strings.Repeat("A", 9000), "name=%ff", "=", ";")
	}
	return p
}

func (h *hostile) body() string {
	valid := `{"project_id":"shop","name":"n","scopes":["orders:read"],"metadata":{"a":[1,2,{"b":null}]}}`
	mutated := []byte(valid)
	for range 1 + h.IntN(4) {
		mutated[h.IntN(len(mutated))] = byte(h.IntN(256))
	}
	return pick(h, "", "{}", "[]", "null", "{", strings.Repeat("[", 60000), strings.Repeat(`{"a":`, 10000), strings.Repeat("x", 70000), valid[:h.IntN(len(valid))], string(mutated),
		h.bytes(300), `{"key":`+strconv.Quote(h.bytes(50))+`}`, `{"grace_period_seconds":1e400}`, `{"name":"\ud800"}`, `{"`+strings.Repeat(`a":1,"`, 3000)+`a":1}`,
		"{\"project_id\":\"\x00\"}", `{"key":"`+strings.Repeat("lk_live_", 5000)+`","cost":-9223372036854775808}`)
}

func (h *hostile) token() string {
	key := []byte(pick(h, h.keys...))
	key[h.IntN(len(key))] ^= byte(1 + h.IntN(255))
	return pick(h, "", "Bearer", "Bearer ", "Bearer "+string(key), "Bearer "+pick(h, h.keys...), "Bearer "+pick(h, h.keys...), "bearer  "+h.keys[0], "Basic "+h.keys[0], h.bytes(40),
		"Bearer "+strings.Repeat("a.", 4000), "Bearer "+h.bytes(20)+"."+h.bytes(20)+"."+h.bytes(20), "Bearer "+h.person, "Bearer "+h.person[:h.IntN(len(h.person))], "Bearer "+strings.Repeat("lk_live_", 4000), "Bearer "+h.bytes(80))
}

func (h *hostile) request() *http.Request {
	r := httptest.NewRequest("GET", "/", strings.NewReader(h.body()))
	r.Method = h.method()
	target := h.path()
	r.RequestURI = target
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
	r.Header["Authorization"] = []string{h.token()}
	r.Header["Content-Type"] = []string{pick(h, "application/json", "application/json", "application/json", "text/html", "application/json;charset=x", h.bytes(20))}
	r.Header["Idempotency-Key"] = pick(h, nil, nil, []string{"a"}, []string{h.bytes(20)}, []string{"a", "b"}, []string{`"` + h.bytes(300)})
	r.Header["If-Match"] = pick(h, nil, nil, []string{`"1"`}, []string{h.bytes(10)}, []string{"*", "*"})
	r.Header["X-Forwarded-For"] = []string{pick(h, "1.2.3.4", "", ",,,,", "::::", h.bytes(30))}
	r.RemoteAddr = pick(h, "192.0.2.1:1", "[::1%eth0]:1", "", "@", "1.2.3.4")
	return r
}

// The keys that hostile requests hold may read, or do nothing; so nothing may change.
func newHostile(t *testing.T, d *door) *hostile {
	t.Helper()
	h := &hostile{Rand: rand.New(rand.NewPCG(2026, 11)), keys: []string{d.with(t, "orders:read"), d.with(t, "keys:read", "keys:verify")}}
	h.id, h.person = d.manager.Key.ID.String(), d.person(t, "acme", "jane", "viewer")
	h.hook, h.delivery = d.subscribed(t, "acme")
	return h
}

func TestHostileRequestsBreakAndChangeNothing(t *testing.T) {
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) { hostileTo(t, newDoorOn(t, open(t))) })
}

func hostileTo(t *testing.T, d *door) {
	h := newHostile(t, d)
	before := d.count(t, "acme")
	statuses := map[int]int{}
	for i := range hostileRequests {
		d.TrustedHops = i % 3
		r := h.request()
		w := d.send(r)
		statuses[w.Code]++
		if w.Code >= 500 || w.Code < 200 || w.Header().Get("X-Request-Id") == "" {
			t.Fatalf("%s %q is answered %d %s", r.Method, r.RequestURI, w.Code, w.Body)
		}
		kind := "application/problem+json"
		if r.URL.Path == "/envelope" || strings.HasPrefix(r.URL.Path, "/envelope/") {
			kind = "application/json"
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != kind || w.Code >= 300 && w.Code < 400 || w.Body.Len() > 1<<17 {
			t.Fatalf("%s %q is answered %d %v with %d bytes", r.Method, r.RequestURI, w.Code, w.Header(), w.Body.Len())
		}
	}
	d.TrustedHops = 0
	for _, status := range []int{200, 400, 401, 403, 404, 405, 413, 415, 422} {
		if statuses[status] == 0 {
			t.Errorf("no hostile request was answered %d: %v", status, statuses)
		}
	}
	d.unharmed(t, before)
}

func (d *door) unharmed(t *testing.T, keys int) {
	t.Helper()
	if n := d.count(t, "acme"); n != keys {
		t.Errorf("there are %d keys, want %d", n, keys)
	}
	if strings.Contains(d.logged(), `"level":"ERROR"`) {
		t.Errorf("the log has errors")
	}
	w := d.do("GET", "/v1/api-keys/"+d.manager.Key.ID.String(), "")
	want(t, w, 200, "")
	if k := read[apikey.Key](t, w); k.Status != apikey.Active || w.Header().Get("ETag") != `"1"` {
		t.Errorf("the manager's key is %s", w.Body)
	}
}

// raw makes HTTP that is hardly any.
func (h *hostile) raw() string {
	auth := "Authorization: Bearer " + h.keys[0] + "\r\n"
	return pick(h,
		h.bytes(400),
		"\r\n\r\n",
		"GET\r\n\r\n",
		"GET / HTTP/9.9\r\n\r\n",
		"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/api-keys HTTP/1.1\r\n\r\n",
		"GET /v1/api-keys HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS /v1/authorize HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/api-keys/\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET //evil.example/v1 HTTP/1.1\r\nHost: a\r\n"+auth+"\r\n",
		"GET http://evil.example/v1/api-keys/../x HTTP/1.1\r\nHost: a\r\n"+auth+"\r\n",
		"POST /v1/api-keys HTTP/1.1\r\nHost: a\r\n"+auth+"Content-Length: -1\r\n\r\n",
		"POST /v1/api-keys HTTP/1.1\r\nHost: a\r\n"+auth+"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
		"POST /v1/api-keys HTTP/1.1\r\nHost: a\r\n"+auth+"Content-Type: application/json\r\nContent-Length: 99999\r\n\r\n{",
		"POST /v1/api-keys HTTP/1.1\r\nHost: a\r\n"+auth+"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /v1/api-keys HTTP/1.1\r\nHost: a\r\n"+auth+"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\n{\r\n0\r\n\r\n",
		"GET /v1/api-keys/me HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+strings.Repeat("a", 1<<16)+"\r\n\r\n",
		"GET /v1/api-keys/me HTTP/1.1\r\nHost: a\r\n Authorization: Bearer folded\r\n\r\n",
		"GET /v1/authorize HTTP/1.1\r\nHost: a\r\nExpect: nonsense\r\n\r\n",
		"GET /"+h.bytes(60)+" HTTP/1.1\r\nHost: a\r\n"+h.bytes(60)+"\r\n\r\n",
	)
}

func TestMalformedHTTPBreaksAndChangesNothing(t *testing.T) {
	d := newDoor(t)
	h := newHostile(t, d)
	before := d.count(t, "acme")
	s := httptest.NewServer(d)
	defer s.Close()
	for range hostileRequests / 4 {
		sent := h.raw()
		for _, status := range exchange(t, s.Listener.Addr().String(), sent) {
			if status >= 500 && status != 501 && status != 505 || status >= 300 && status < 400 { // 501, 505: net/http's own
				t.Fatalf("%q is answered %d", sent, status)
			}
		}
	}
	d.unharmed(t, before)
}

// exchange sends text, says that no more follows, and returns the statuses of all answers.
func exchange(t *testing.T, address, text string) (statuses []int) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(c, strings.NewReader(text)); err != nil {
		return nil // refused before all was read
	}
	_ = c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c) // a reset ends it as well
	lines := bufio.NewScanner(bytes.NewReader(answer))
	for lines.Scan() {
		var minor, status int
		if n, _ := fmt.Sscanf(lines.Text(), "HTTP/1.%d %d", &minor, &status); n == 2 {
			statuses = append(statuses, status)
		}
	}
	return statuses
}
