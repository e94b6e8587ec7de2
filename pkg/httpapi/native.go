package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The native shape: snake_case, every field always present, an id or a public prefix in the path.

const (
	graceKey = "grace_period_seconds"
	maxGrace = int64(lifecycle.MaxGrace / time.Second)
)

// createdKey is the answer that hands a new key out: the Key and its plaintext.
type createdKey struct {
	apikey.Key
	Plaintext string `json:"key"`
}

func readNew(r *request) (n lifecycle.New) {
	r.body()
	r.required("project_id", &n.ProjectID)
	r.nullable("environment_id", &n.EnvironmentID)
	r.nullable("external_id", &n.ExternalID)
	r.required("name", &n.Name)
	r.optional("scopes", &n.Scopes)
	r.nullable("rate_limit_per_minute", &n.RateLimitPerMinute)
	r.nullable("daily_limit", &n.DailyLimit)
	r.optional("allowed_cidrs", &n.AllowedCIDRs)
	r.nullable("metadata", &n.Metadata)
	r.nullable("expires_at", &n.ExpiresAt)
	r.nullable("rotation_interval_days", &n.RotationIntervalDays)
	r.nullable("rotation_webhook_url", &n.RotationWebhookURL)
	r.optional("rotation_to_secrets_manager", &n.RotationToSecretsManager)
	if strings.ContainsFunc(n.Name, unicode.IsControl) {
		r.refuse(apikey.InvalidJSON, "The name holds a control character.")
	}
	if n.ProjectID == "" {
		r.fault("/project_id", "must not be empty")
	}
	r.merge(n.Validate(r.now))
	return n
}

func (a *API) create(ctx context.Context, n lifecycle.New, h http.Header) (createdKey, error) {
	issued, err := a.Keys.Create(ctx, n)
	if err != nil {
		return createdKey{}, err
	}
	h.Set("Location", "api-keys/"+issued.Key.ID.String())
	h.Set("Cache-Control", "no-store")
	k, err := tagged(h, issued.Key, nil)
	return createdKey{k, issued.Plaintext.Reveal()}, err
}

// listing is what a list is asked for, and the query that the next page's keeps.
type listing struct {
	filter lifecycle.Filter
	query  url.Values
}

func readListing(r *request) listing {
	const idRule = "must have 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + -"
	isName := func(s string) bool { return s != "" && utf8.RuneCountInString(s) <= lifecycle.MaxName }
	return listing{lifecycle.Filter{
		ProjectID:       r.checked("project_id", lifecycle.ValidID, idRule),
		EnvironmentID:   r.checked("environment_id", lifecycle.ValidID, idRule),
		ExternalID:      r.checked("external_id", lifecycle.ValidID, idRule),
		Name:            r.checked("name", isName, "must have 1 to 200 characters"),
		IncludeArchived: r.flag("include_archived"),
		IncludeRevoked:  r.flag("include_revoked"),
		StaleDays:       int(r.number("stale_days", 1, lifecycle.MaxIntervalDays, 0)),
		Limit:           int(r.number("limit", 1, lifecycle.MaxPage, 0)),
		Cursor:          r.checked("cursor", func(s string) bool { return s != "" }, "must be the cursor of a Link"),
	}, r.URL.Query()}
}

func (a *API) list(ctx context.Context, in listing, h http.Header) ([]apikey.Key, error) {
	keys, next, err := a.Keys.List(ctx, in.filter)
	if err != nil {
		return nil, err
	}
	if next != "" {
		in.query.Set("cursor", next)
		h.Set("Link", "<?"+in.query.Encode()+`>; rel="next"`)
	}
	return keys, nil
}

func (a *API) get(ctx context.Context, id apikey.ID, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.Get(ctx, id)
	return tagged(h, k, err)
}

// nothing is the answer without a body.
type nothing struct{}

func (a *API) revoke(ctx context.Context, id apikey.ID, _ http.Header) (nothing, error) {
	return nothing{}, a.Keys.Revoke(ctx, id, "")
}

// rotatedKey is the answer that hands a successor out: project, name, scopes and times are the new key's, the end of the
// grace is the old one's.
type rotatedKey struct {
	OldKeyID       apikey.ID  `json:"old_key_id"`
	NewKeyID       apikey.ID  `json:"new_key_id"`
	ProjectID      string     `json:"project_id"`
	Name           string     `json:"name"`
	Plaintext      string     `json:"key"`
	KeyPrefix      string     `json:"key_prefix"`
	Scopes         []string   `json:"scopes"`
	ExpiresAt      *time.Time `json:"expires_at"`
	CreatedAt      time.Time  `json:"created_at"`
	GraceExpiresAt *time.Time `json:"grace_expires_at"`
}

// rotation names a key and how long it, or its predecessor, lives on; nil: as the service sees fit.
type rotation struct {
	id    apikey.ID
	grace *time.Duration
}

func readRotation(r *request) (in rotation) {
	in.id = r.keyID()
	r.optionalBody()
	if r.has(graceKey) {
		in.grace = new(r.grace(0))
	}
	return in
}

func (a *API) rotate(ctx context.Context, in rotation, h http.Header) (rotatedKey, error) {
	rotated, err := a.Keys.Rotate(ctx, in.id, in.grace)
	if err != nil {
		return rotatedKey{}, err
	}
	h.Set("Cache-Control", "no-store")
	old, k := rotated.Old, rotated.New.Key
	return rotatedKey{old.ID, k.ID, k.ProjectID, k.Name, rotated.New.Plaintext.Reveal(), k.KeyPrefix, k.Scopes,
		k.ExpiresAt, k.CreatedAt, old.GraceExpiresAt}, nil
}

func readEnding(r *request) apikey.ID {
	id := r.keyID()
	r.optionalBody()
	return id
}

func (a *API) endGrace(ctx context.Context, id apikey.ID, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.EndGrace(ctx, id)
	return tagged(h, k, err)
}

func readExtension(r *request) rotation {
	id := r.keyID()
	r.body()
	return rotation{id, new(r.grace(1))}
}

func (a *API) extendGrace(ctx context.Context, in rotation, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.ExtendGrace(ctx, in.id, *in.grace)
	return tagged(h, k, err)
}

// grace takes the body's grace period, of shortest seconds at least.
func (r *request) grace(shortest int64) time.Duration {
	var seconds int64
	r.required(graceKey, &seconds)
	r.within(graceKey, seconds, shortest, maxGrace)
	return time.Duration(seconds) * time.Second
}

// tagged passes a key on with its version as the ETag.
func tagged(h http.Header, k apikey.Key, err error) (apikey.Key, error) {
	if err == nil {
		h.Set("ETag", `"`+strconv.FormatInt(k.Version, 10)+`"`)
	}
	return k, err
}
