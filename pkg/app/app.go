// Package app wires the rooms together: settings to stores, stores to verbs, verbs to doors. It decides nothing about a
// key. It also holds what only a running process has: latchkeyd, its development mode, and the demo that shows it.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/verify"
)

// Store is what the rooms need of one.
type Store interface {
	lifecycle.Store
	verify.Store
}

// Settings are what a deployment chooses. The zero value of each is its default.
type Settings struct {
	Brand          string        // of new keys; default "lk"
	RetiredBrands  []string      // of older keys that still work
	Grace          time.Duration // of a rotation that does not say; default 24 h
	TrustedHops    int           // proxies of one's own in front, each adding to X-Forwarded-For
	AllowedOrigins []string      // whose pages may call from a browser; default none
	KeysTable      string        // default "latchkey-keys"
	AuditTable     string        // default "latchkey-audit"
	Scopes         []string      // that a key needs at a protected API which does not say
	PolicyAnswers  bool          // of the authorizer, to HTTP APIs which do not say
	LogLevel       slog.Level    // from which on lines are written; default INFO
}

// ReadSettings reads LATCHKEY_BRAND, LATCHKEY_RETIRED_BRANDS (comma separated), LATCHKEY_GRACE_SECONDS,
// LATCHKEY_TRUSTED_HOPS, LATCHKEY_ALLOWED_ORIGINS (comma separated), LATCHKEY_KEYS_TABLE, LATCHKEY_AUDIT_TABLE, LATCHKEY_LOG_LEVEL, and for the authorizer
// LATCHKEY_SCOPES (comma separated) and LATCHKEY_ANSWER ("simple" or "policy"). What is ill-formed is an error that names it.
func ReadSettings(getenv func(string) string) (Settings, error) {
	s := Settings{
		Brand:      cmp.Or(getenv("LATCHKEY_BRAND"), "lk"),
		KeysTable:  cmp.Or(getenv("LATCHKEY_KEYS_TABLE"), "latchkey-keys"),
		AuditTable: cmp.Or(getenv("LATCHKEY_AUDIT_TABLE"), "latchkey-audit"),
	}
	s.RetiredBrands = list(getenv("LATCHKEY_RETIRED_BRANDS"))
	s.AllowedOrigins = list(getenv("LATCHKEY_ALLOWED_ORIGINS"))
	for _, origin := range s.AllowedOrigins {
		if u, err := url.Parse(origin); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+strings.ToLower(u.Host) != origin {
			return s, fmt.Errorf("LATCHKEY_ALLOWED_ORIGINS has %q: an origin is written https://example.com", origin)
		}
	}
	grace, err := wholeNumber(getenv, "LATCHKEY_GRACE_SECONDS", int(lifecycle.DefaultGrace.Seconds()), 1, int(lifecycle.MaxGrace.Seconds()))
	if err != nil {
		return s, err
	}
	s.Grace = time.Duration(grace) * time.Second
	if s.TrustedHops, err = wholeNumber(getenv, "LATCHKEY_TRUSTED_HOPS", 0, 0, 10); err != nil {
		return s, err
	}
	if level := getenv("LATCHKEY_LOG_LEVEL"); level != "" && s.LogLevel.UnmarshalText([]byte(level)) != nil {
		return s, fmt.Errorf("LATCHKEY_LOG_LEVEL is %q: it must be debug, info, warn or error", level)
	}
	err = s.readAuthorizer(getenv)
	return s, err
}

func (s *Settings) readAuthorizer(getenv func(string) string) (err error) {
	if scopes := getenv("LATCHKEY_SCOPES"); scopes != "" {
		if s.Scopes, err = apikey.ParseScopes(scopes); err != nil {
			return fmt.Errorf("LATCHKEY_SCOPES: %w", err)
		}
	}
	answer := getenv("LATCHKEY_ANSWER")
	s.PolicyAnswers = answer == "policy"
	if !s.PolicyAnswers && answer != "" && answer != "simple" {
		return fmt.Errorf("LATCHKEY_ANSWER is %q: it must be simple or policy", answer)
	}
	return nil
}

// list splits at commas.
func list(text string) (items []string) {
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func wholeNumber(getenv func(string) string, name string, otherwise, least, most int) (int, error) {
	text := getenv(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is %q: it must be a whole number from %d to %d", name, text, least, most)
	}
	return n, nil
}

// App is the rooms, wired.
type App struct {
	Keys     *lifecycle.Service
	Verifier *verify.Verifier
	API      *httpapi.API
	Store    Store
	Settings Settings
	Log      *slog.Logger
}

// Ready says whether the store answers, by asking it for something that it need not have.
func (a *App) Ready(ctx context.Context) error {
	_, err := a.Store.Organization(ctx, "latchkey")
	if err == nil || errors.Is(err, lifecycle.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("is there a table %s, and may it be read? %w", a.Settings.KeysTable, err)
}

// New wires the rooms to a store.
func New(store Store, s Settings, now func() time.Time, log *slog.Logger) (*App, error) {
	format, err := apikey.NewFormat(s.Brand, s.RetiredBrands...)
	if err != nil {
		return nil, err
	}
	keys := &lifecycle.Service{Store: store, Plans: plan.Default(), Format: format, Now: now, Grace: s.Grace}
	verifier := &verify.Verifier{Store: store, Format: format, Now: now}
	api := &httpapi.API{Keys: keys, Verifier: verifier, Log: log, Now: now, TrustedHops: s.TrustedHops, AllowedOrigins: s.AllowedOrigins}
	return &App{keys, verifier, api, store, s, log}, nil
}
