package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// Bounds of a key's fields.
const (
	MaxName         = 200  // characters
	MaxMetadata     = 4096 // bytes of JSON
	MaxScopes       = 100  // of one key
	MaxScope        = 64   // characters of one scope
	MaxCIDRs        = 100  // of one key
	MaxLimit        = 1_000_000_000
	MaxIntervalDays = 3650
	MaxURL          = 2048 // bytes
	MaxGrace        = 7 * 24 * time.Hour
)

// New is what may be said of a key when it is created. Its JSON is the native shape's body.
type New struct {
	ProjectID                string          `json:"project_id"`
	EnvironmentID            *string         `json:"environment_id"`
	ExternalID               *string         `json:"external_id"`
	Name                     string          `json:"name"`
	Scopes                   []string        `json:"scopes"`
	RateLimitPerMinute       Limit           `json:"rate_limit_per_minute"` // absent: the plan's default
	DailyLimit               *int64          `json:"daily_limit"`
	AllowedCIDRs             []string        `json:"allowed_cidrs"`
	Metadata                 json.RawMessage `json:"metadata"`
	ExpiresAt                *Moment         `json:"expires_at"`
	RotationIntervalDays     *int            `json:"rotation_interval_days"`
	RotationWebhookURL       *string         `json:"rotation_webhook_url"`
	RotationToSecretsManager bool            `json:"rotation_to_secrets_manager"`
}

// Maybe is a member of a body that may be absent, null, or there.
type Maybe[T any] struct {
	Said bool
	V    *T // nil: null, or absent
}

// UnmarshalJSON reads a value or null.
func (m *Maybe[T]) UnmarshalJSON(b []byte) error {
	m.Said, m.V = true, nil
	return json.Unmarshal(b, &m.V)
}

// Limit is a number, explicitly none, or not said.
type Limit = Maybe[int64]

// Moment is a time given by a client: RFC 3339, or a date alone, which is its 00:00:00 UTC.
type Moment struct{ time.Time }

// UnmarshalJSON reads either form.
func (m *Moment) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t, err = time.Parse(time.DateOnly, s)
	}
	if err != nil {
		return errors.New("must be a time such as 2026-11-22T10:00:00Z, or a date")
	}
	m.Time = t.UTC().Truncate(time.Millisecond)
	return nil
}

// ValidID says whether s may name an organization, user, project, environment or external thing.
func ValidID(s string) bool { return apikey.ValidID(s) }

// fieldErrors collects what is wrong with a request.
type fieldErrors []apikey.FieldError

func (f *fieldErrors) need(ok bool, pointer, detail string) {
	if !ok {
		*f = append(*f, apikey.FieldError{Pointer: pointer, Detail: detail})
	}
}

// Validate lists every field that is out of bounds at now. Whether the caller and the plan allow it is another question.
func (n *New) Validate(now time.Time) []apikey.FieldError {
	var f fieldErrors
	const idRule = "must have 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + -"
	f.need(n.ProjectID == "" || ValidID(n.ProjectID), "/project_id", idRule)
	f.need(n.EnvironmentID == nil || ValidID(*n.EnvironmentID), "/environment_id", idRule)
	f.need(n.ExternalID == nil || ValidID(*n.ExternalID), "/external_id", idRule)
	f.need(n.Name != "" && utf8.RuneCountInString(n.Name) <= MaxName && !strings.ContainsFunc(n.Name, unicode.IsControl),
		"/name", "must have 1 to 200 characters, none of them a control character")
	f = append(f, ValidateScopes(n.Scopes)...)
	f.need(n.RateLimitPerMinute.V == nil || inLimit(*n.RateLimitPerMinute.V), "/rate_limit_per_minute", limitRule)
	f.need(n.DailyLimit == nil || inLimit(*n.DailyLimit), "/daily_limit", limitRule)
	f.cidrs(n.AllowedCIDRs)
	f.metadata(n.Metadata)
	f.need(n.ExpiresAt == nil || n.ExpiresAt.After(now) && n.ExpiresAt.Year() <= 9999, "/expires_at",
		"must be in the future, and not after the year 9999 of UTC")
	f.need(n.RotationIntervalDays == nil || *n.RotationIntervalDays >= 1 && *n.RotationIntervalDays <= MaxIntervalDays,
		"/rotation_interval_days", "must be 1 to 3650")
	f.need(n.RotationWebhookURL == nil || validWebhook(*n.RotationWebhookURL), "/rotation_webhook_url",
		"must be an https URL of at most 2048 ASCII characters, without user information or fragment")
	return f
}

const limitRule = "must be 1 to 1000000000, or null for no limit"

func inLimit(n int64) bool { return n >= 1 && n <= MaxLimit }

// ValidateScopes lists what is wrong with a member "scopes". Of a list too long for any key it says that alone.
func ValidateScopes(scopes []string) []apikey.FieldError {
	var f fieldErrors
	if f.need(len(scopes) <= MaxScopes, "/scopes", "must have at most 100 scopes"); len(f) > 0 {
		return f
	}
	seen := map[string]bool{}
	for i, s := range scopes {
		pointer := "/scopes/" + strconv.Itoa(i)
		f.need(apikey.ValidScope(s), pointer, "must have 1 to 64 characters of A-Z a-z 0-9 . _ : / -")
		f.need(!seen[s], pointer, "stands twice")
		seen[s] = true
	}
	return f
}

func (f *fieldErrors) cidrs(cidrs []string) {
	f.need(len(cidrs) <= MaxCIDRs, "/allowed_cidrs", "must have at most 100 networks")
	for i, s := range cidrs[:min(len(cidrs), MaxCIDRs)] {
		_, err := ParseCIDR(s)
		f.need(err == nil, "/allowed_cidrs/"+strconv.Itoa(i), "must be a network such as 192.0.2.0/24 or 2001:db8::/32")
	}
}

func (f *fieldErrors) metadata(m json.RawMessage) {
	trimmed := bytes.TrimSpace(m)
	object := bytes.HasPrefix(trimmed, []byte("{")) && json.Valid(trimmed)
	f.need(len(m) == 0 || string(trimmed) == "null" || object, "/metadata", "must be an object")
	f.need(len(trimmed) <= MaxMetadata, "/metadata", fmt.Sprintf("must have at most %d bytes", MaxMetadata))
}

func validWebhook(s string) bool {
	u, err := url.Parse(s)
	visible := func(c rune) bool { return c > ' ' && c <= '~' }
	return err == nil && len(s) <= MaxURL && strings.TrimFunc(s, visible) == "" && u.Hostname() != "" && u.User == nil && u.Fragment == "" &&
		(u.Scheme == "https" || u.Scheme == "http" && loopback(u))
}

// loopback says whether a URL names this machine, to which development may deliver, also by http.
func loopback(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && a.IsLoopback()
}

// mayReceive refuses an address on this machine where that is not development's.
func (s *Service) mayReceive(address *string) error {
	if u, err := url.Parse(orEmpty(address)); s.LoopbackWebhooks || err != nil || !loopback(u) {
		return nil
	}
	return apikey.Invalid([]apikey.FieldError{{Pointer: "/rotation_webhook_url", Detail: "must not be on this machine: that is for development (latchkeyd -webhooks-to-loopback)"}})
}

// ParseCIDR reads a network, or a single address as a network of its own. An IPv4 network written as IPv6
// (::ffff:192.0.2.0/120) is that IPv4 network, since addresses are compared in that form. Bits beyond the mask are
// dropped.
func ParseCIDR(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("reading a network: %w", err)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New("an IPv4-mapped network has a mask of at least 96 bits")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
