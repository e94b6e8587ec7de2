package verify

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// Bearer reads the key from an Authorization header (RFC 6750, section 2.1). It is "" when there is none or another
// scheme. Two Authorization headers, or white space within the credentials, are kept as they stand: no such text is a
// key, so it is refused as malformed rather than guessed at.
func Bearer(h http.Header) string {
	value := strings.Join(h["Authorization"], ",")
	scheme, credentials, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return credentials
}

// ClientAddress is where a request came from: the peer of its connection when hops is 0, otherwise the hops-th entry of
// X-Forwarded-For from the right, each written by a proxy that is trusted. It is the zero Addr when there is no such
// entry or it is not an address.
func ClientAddress(r *http.Request, hops int) netip.Addr {
	text := r.RemoteAddr
	if hops > 0 {
		list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if len(list) < hops {
			return netip.Addr{}
		}
		text = strings.TrimSpace(list[len(list)-hops])
	}
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return address.Unmap()
}

// SetHeaders adds what a client should know of the Decision: RateLimit and RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-11), Retry-After (RFC 9110), and WWW-Authenticate (RFC 6750, section 3).
func (d Decision) SetHeaders(h http.Header) {
	if len(d.Limits) > 0 {
		h.Set("RateLimit-Policy", limitField(d.Limits, func(l Limit, p *httpsfv.Params) {
			p.Add("q", l.Quota)
			p.Add("w", Seconds(l.Window))
		}))
		h.Set("RateLimit", limitField(d.Limits, func(l Limit, p *httpsfv.Params) {
			p.Add("r", l.Remaining)
			p.Add("t", Seconds(l.Reset))
		}))
	}
	if d.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(Seconds(d.RetryAfter), 10))
	}
	if challenge := d.challenge(); challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
}

// Refuse answers a request whose key was refused: status, headers, and problem details that name the X-Request-Id, if w
// has one.
func (d Decision) Refuse(w http.ResponseWriter) {
	d.SetHeaders(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	WriteError(w, &apikey.Error{Code: d.Code, Message: d.Message(), Scope: d.NeededScope,
		RequestID: w.Header().Get("X-Request-Id")})
}

// WriteError answers with an Error as problem details (RFC 9457).
func WriteError(w http.ResponseWriter, e *apikey.Error) {
	body, err := json.Marshal(e)
	if err != nil { // an Error is made of strings and always marshals
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Code.Status())
	_, _ = w.Write(append(body, '\n'))
}

// Challenge is the WWW-Authenticate value for a request that lacks a scope (RFC 6750, section 3.1).
func Challenge(scope string) string {
	return `Bearer realm="latchkey", error="insufficient_scope", scope="` + scope + `"`
}

func (d Decision) challenge() string {
	switch {
	case d.Code == apikey.MissingKey:
		return `Bearer realm="latchkey"`
	case d.Code == apikey.InsufficientScope:
		return Challenge(d.NeededScope)
	case d.Code.Status() == http.StatusUnauthorized:
		return `Bearer realm="latchkey", error="invalid_token", error_description="` + d.Message() + `"`
	}
	return ""
}

func limitField(limits []Limit, params func(Limit, *httpsfv.Params)) string {
	list := make(httpsfv.List, 0, len(limits))
	for _, l := range limits {
		item := httpsfv.NewItem(l.Name)
		params(l, item.Params)
		list = append(list, item)
	}
	text, err := httpsfv.Marshal(list)
	if err != nil { // names and whole numbers below 10^15 always marshal
		panic(err)
	}
	return text
}

// Seconds is d in whole seconds, rounded up, so that nobody comes back too early.
func Seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
