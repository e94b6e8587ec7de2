package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The native shape: snake_case, every field always present, an id or a public prefix in the path.

const idRule = "must have 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + -"

// createdKey is the answer that hands a new key out: the Key and its plaintext.
type createdKey struct {
	apikey.Key
	Plaintext string `json:"key"`
}

// creation is a new key that is asked for, once.
type creation struct {
	lifecycle.New
	once lifecycle.Once
}

func readNew(r *request) (n creation) {
	r.body()
	n.once = r.once()
	r.required("project_id", &n.ProjectID)
	r.nullable("environment_id", &n.EnvironmentID)
	r.nullable("external_id", &n.ExternalID)
	r.name(&n.Name)
	r.optional("scopes", &n.Scopes)
	r.nullable("rate_limit_per_minute", &n.RateLimitPerMinute)
	r.nullable("daily_limit", &n.DailyLimit)
	r.optional("allowed_cidrs", &n.AllowedCIDRs)
	r.nullable("metadata", &n.Metadata)
	r.nullable("expires_at", &n.ExpiresAt)
	r.nullable("rotation_interval_days", &n.RotationIntervalDays)
	r.nullable("rotation_webhook_url", &n.RotationWebhookURL)
	r.optional("rotation_to_secrets_manager", &n.RotationToSecretsManager)
	if n.ProjectID == "" {
		r.fault("/project_id", "must not be empty")
	}
	r.merge(n.Validate(r.now))
	return n
}

func (a *API) create(ctx context.Context, n creation, h http.Header) (createdKey, error) {
	issued, err := a.issue(ctx, n, h, func(k *apikey.Key) string { return "api-keys/" + k.ID.String() })
	return createdKey{issued.Key, issued.Plaintext.Reveal()}, err
}

// issue makes a key and hands it out, in whatever shape. where is its address, relative to the URL that was asked.
func (a *API) issue(ctx context.Context, n creation, h http.Header, where func(*apikey.Key) string) (apikey.Issued, error) {
	issued, err := a.Keys.CreateOnce(ctx, n.once, n.New)
	if err != nil {
		return apikey.Issued{}, err
	}
	h.Set("Location", where(&issued.Key))
	h.Set("Cache-Control", "no-store")
	issued.Key, err = tagged(h, issued.Key, nil)
	return issued, err
}

// listing is what a list is asked for, and the query that the next page's keeps.
type listing struct {
	filter lifecycle.Filter
	query  url.Values
}

func readListing(r *request) listing {
	isName := func(s string) bool { return s != "" && utf8.RuneCountInString(s) <= lifecycle.MaxName }
	return listing{lifecycle.Filter{
		ProjectID:       r.checked("project_id", lifecycle.ValidID, idRule),
		EnvironmentID:   r.checked("environment_id", lifecycle.ValidID, idRule),
		ExternalID:      r.checked("external_id", lifecycle.ValidID, idRule),
		CreatedBy:       r.checked("created_by", lifecycle.ValidID, idRule),
		Name:            r.checked("name", isName, "must have 1 to 200 characters"),
		IncludeArchived: r.flag("include_archived"),
		IncludeRevoked:  r.flag("include_revoked"),
		StaleDays:       int(r.number("stale_days", 1, lifecycle.MaxIntervalDays, 0)),
		Limit:           int(r.number("limit", 1, lifecycle.MaxPage, 0)),
		Cursor:          r.checked("cursor", func(s string) bool { return s != "" }, "must be the cursor of a Link"),
	}, r.asked}
}

func (a *API) list(ctx context.Context, in listing, h http.Header) ([]apikey.Key, error) {
	keys, next, err := a.Keys.List(ctx, in.filter)
	link(h, in.query, next)
	return keys, err
}

// link tells where the next page of a list is, if there is one: relative, with the filters of this one.
func link(h http.Header, query url.Values, cursor string) {
	if cursor != "" {
		onward(h, query, "cursor", cursor)
	}
}

// onward tells of the page with one parameter more, or another value of it.
func onward(h http.Header, query url.Values, name, value string) {
	query.Set(name, value)
	h.Set("Link", "<?"+query.Encode()+`>; rel="next"`)
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

// patching is a merge patch (RFC 7396) of a key that must be at the version, or at any when that is 0.
type patching struct {
	id      apikey.ID
	version int64
	patch   lifecycle.Patch
}

func readPatch(r *request) (in patching) {
	in.id, in.version = r.keyID(), r.ifMatch()
	p := &in.patch
	r.patchBody()
	if r.has("name") {
		p.Name = new(string)
		r.name(p.Name)
	}
	p.Scopes = emptied(r.listOrNull("scopes"))
	r.nullable("rate_limit_per_minute", &p.RateLimitPerMinute)
	r.nullable("daily_limit", &p.DailyLimit)
	p.AllowedCIDRs = emptied(r.listOrNull("allowed_cidrs"))
	r.nullable("metadata", &p.Metadata)
	r.nullable("expires_at", &p.ExpiresAt)
	r.optional("enabled", &p.Enabled)
	r.nullable("rotation_interval_days", &p.RotationIntervalDays)
	r.nullable("rotation_webhook_url", &p.RotationWebhookURL)
	r.optional("rotation_to_secrets_manager", &p.RotationToSecretsManager)
	r.merge(p.Validate(r.now))
	return in
}

func (a *API) update(ctx context.Context, in patching, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.Update(ctx, in.id, in.version, in.patch)
	return tagged(h, k, err)
}

// readAct reads a request that says nothing but which key it is about.
func readAct(r *request) apikey.ID {
	id := r.keyID()
	r.optionalBody()
	return id
}

func (a *API) archive(ctx context.Context, id apikey.ID, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.Archive(ctx, id)
	return tagged(h, k, err)
}

func (a *API) reactivate(ctx context.Context, id apikey.ID, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.Reactivate(ctx, id)
	return tagged(h, k, err)
}

// tagged passes a key on with its version as the ETag.
func tagged(h http.Header, k apikey.Key, err error) (apikey.Key, error) {
	if err == nil {
		h.Set("ETag", etag(k.Version))
	}
	return k, err
}
