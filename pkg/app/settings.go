package app

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/oidc"
	"github.com/latchkey/latchkey/pkg/plan"
)

// Settings are what a deployment chooses. The zero value of each is its default.
type Settings struct {
	Brand          string        // of new keys; default "lk"
	RetiredBrands  []string      // of older keys that still work
	Grace          time.Duration // of a rotation that does not say; default 24 h
	TrustedHops    int           // proxies of one's own in front, each adding to X-Forwarded-For
	AllowedOrigins []string      // whose pages may call from a browser; default none
	KeysTable      string        // default "latchkey-keys"
	AuditTable     string        // default "latchkey-audit"
	ChainTable     string        // default "latchkey-chain"
	EventBus       string        // of EventBridge, for what happens to keys; default none
	Scopes         []string      // that a key needs at a protected API which does not say
	PolicyAnswers  bool          // of the authorizer, to HTTP APIs which do not say
	LogLevel       slog.Level    // from which on lines are written; default INFO

	Issuers                        []oidc.Issuer // of people's tokens; default none
	PeopleOnly                     bool          // keys cannot manage keys
	Plans                          plan.Table    // default plan.Default
	DefaultPlan                    string        // of organizations for which nobody names one; default plan.Free
	AllowedScopes                  []string      // service scopes of organizations for which operators name none; default none
	KeysShapeScopes                []string      // management scopes of keys made at /v1/keys, as far as their maker holds them; default none
	Window, Cap, Quiet, StaleAfter time.Duration // of scheduled rotations and notices: see lifecycle.Service

	SecretsManager bool // keys may be brought to AWS Secrets Manager; default no

	SealingKeyID string // of KMS, for what an Idempotency-Key keeps; default none, and then none is taken
}

// ReadSettings reads LATCHKEY_BRAND, LATCHKEY_RETIRED_BRANDS (comma separated), LATCHKEY_GRACE_SECONDS,
// LATCHKEY_TRUSTED_HOPS, LATCHKEY_ALLOWED_ORIGINS (comma separated), LATCHKEY_KEYS_TABLE, LATCHKEY_AUDIT_TABLE, LATCHKEY_CHAIN_TABLE, LATCHKEY_EVENT_BUS,
// LATCHKEY_SECRETS_MANAGER ("true" or "false"), LATCHKEY_LOG_LEVEL, and for the authorizer
// LATCHKEY_SCOPES (comma separated) and LATCHKEY_ANSWER ("simple" or "policy"). Of who may do what it reads LATCHKEY_ISSUERS
// (see oidc.Parse), LATCHKEY_MANAGEMENT_AUTH ("any" or "jwt"), LATCHKEY_PLANS (see plan.Parse), LATCHKEY_DEFAULT_PLAN,
// LATCHKEY_ALLOWED_SCOPES and LATCHKEY_KEYS_SHAPE_SCOPES (comma separated), and LATCHKEY_SEALING_KEY_ID. What is ill-formed is an error
// that names it.
func ReadSettings(getenv func(string) string) (Settings, error) {
	s := Settings{
		Brand:      cmp.Or(getenv("LATCHKEY_BRAND"), "lk"),
		KeysTable:  cmp.Or(getenv("LATCHKEY_KEYS_TABLE"), "latchkey-keys"),
		AuditTable: cmp.Or(getenv("LATCHKEY_AUDIT_TABLE"), "latchkey-audit"),
		ChainTable: cmp.Or(getenv("LATCHKEY_CHAIN_TABLE"), "latchkey-chain"),
		EventBus:   getenv("LATCHKEY_EVENT_BUS"),

		SealingKeyID: getenv("LATCHKEY_SEALING_KEY_ID"),
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
	if s.SecretsManager, err = yesOrNo(getenv, "LATCHKEY_SECRETS_MANAGER"); err != nil {
		return s, err
	}
	if err := s.readAuthorizer(getenv); err != nil {
		return s, err
	}
	if err := s.readPeople(getenv); err != nil {
		return s, err
	}
	if err := s.readTimes(getenv); err != nil {
		return s, err
	}
	return s, s.readPlans(getenv)
}

func (s *Settings) tables() dynamo.Tables {
	return dynamo.Tables{Keys: s.KeysTable, Audit: s.AuditTable, Chain: s.ChainTable}
}

// readTimes reads LATCHKEY_DELIVERY_WINDOW_SECONDS, LATCHKEY_ROTATION_CAP_SECONDS, LATCHKEY_QUIET_SECONDS and
// LATCHKEY_STALE_DAYS (0: nobody is told of keys that are not used).
func (s *Settings) readTimes(getenv func(string) string) error {
	const day = 24 * 60 * 60
	for _, t := range []struct {
		name                   string
		into                   *time.Duration
		unit                   time.Duration
		otherwise, least, most int
	}{
		{"LATCHKEY_DELIVERY_WINDOW_SECONDS", &s.Window, time.Second, 3 * day, 60, 14 * day},
		{"LATCHKEY_ROTATION_CAP_SECONDS", &s.Cap, time.Second, 7 * day, 60, 90 * day},
		{"LATCHKEY_QUIET_SECONDS", &s.Quiet, time.Second, 60 * 60, 1, 7 * day},
		{"LATCHKEY_STALE_DAYS", &s.StaleAfter, 24 * time.Hour, 90, 0, lifecycle.MaxIntervalDays},
	} {
		n, err := wholeNumber(getenv, t.name, t.otherwise, t.least, t.most)
		if err != nil {
			return err
		}
		*t.into = time.Duration(n) * t.unit
	}
	return nil
}

func (s *Settings) readPeople(getenv func(string) string) (err error) {
	if s.Issuers, err = oidc.Parse(getenv("LATCHKEY_ISSUERS")); err != nil {
		return fmt.Errorf("LATCHKEY_ISSUERS: %w", err)
	}
	auth := getenv("LATCHKEY_MANAGEMENT_AUTH")
	s.PeopleOnly = auth == "jwt"
	if !s.PeopleOnly && auth != "" && auth != "any" {
		return fmt.Errorf("LATCHKEY_MANAGEMENT_AUTH is %q: it must be any or jwt", auth)
	}
	s.KeysShapeScopes = list(getenv("LATCHKEY_KEYS_SHAPE_SCOPES"))
	for _, scope := range s.KeysShapeScopes {
		if !apikey.IsManagement(scope) {
			return fmt.Errorf("LATCHKEY_KEYS_SHAPE_SCOPES has %q: it may hold %s", scope, strings.Join(apikey.ManagementScopes(), ", "))
		}
	}
	return nil
}

func (s *Settings) readPlans(getenv func(string) string) (err error) {
	if s.Plans, err = plan.Parse(getenv("LATCHKEY_PLANS")); err != nil {
		return fmt.Errorf("LATCHKEY_PLANS: %w", err)
	}
	s.DefaultPlan = cmp.Or(getenv("LATCHKEY_DEFAULT_PLAN"), plan.Free)
	if _, ok := s.Plans[s.DefaultPlan]; !ok {
		return fmt.Errorf("LATCHKEY_DEFAULT_PLAN is %q, which is none of the plans", s.DefaultPlan)
	}
	s.AllowedScopes = list(getenv("LATCHKEY_ALLOWED_SCOPES"))
	for _, scope := range s.AllowedScopes {
		if !lifecycle.ValidAllowed(scope) {
			return fmt.Errorf("LATCHKEY_ALLOWED_SCOPES has %q: it may hold scopes, and beginnings of scopes ending in *", scope)
		}
	}
	return nil
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

func yesOrNo(getenv func(string) string, name string) (bool, error) {
	switch text := getenv(name); text {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	default:
		return false, fmt.Errorf("%s is %q: it must be true or false", name, text)
	}
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
