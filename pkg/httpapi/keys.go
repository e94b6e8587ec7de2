package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The shape at /v1/keys: ids are UUIDs, and ended keys stay listed as not enabled.

const keepSecret = "Store this key securely. It cannot be retrieved again."

// issuedInKeys is a new key in this shape, and listedInKeys one of a list.
type issuedInKeys struct {
	ID                 string     `json:"id"`
	Name               string     `json:"name"`
	KeyPrefix          string     `json:"key_prefix"`
	RateLimitPerMinute *int64     `json:"rate_limit_per_minute"` // null: unlimited
	Enabled            bool       `json:"enabled"`
	CreatedAt          time.Time  `json:"created_at"`
	ExpiresAt          *time.Time `json:"expires_at"`
}

type listedInKeys struct {
	ID                 string     `json:"id"`
	Name               string     `json:"name"`
	KeyPrefix          string     `json:"key_prefix"`
	RateLimitPerMinute *int64     `json:"rate_limit_per_minute"` // null: unlimited
	Enabled            bool       `json:"enabled"`
	LastUsedAt         *time.Time `json:"last_used_at"`
	CreatedAt          time.Time  `json:"created_at"`
	ExpiresAt          *time.Time `json:"expires_at"`
}

func usable(k *apikey.Key) bool { return k.Enabled && k.ArchivedAt == nil && k.RevokedAt == nil }

type createdInKeys struct {
	Key     issuedInKeys `json:"key"`
	RawKey  string       `json:"raw_key"`
	Warning string       `json:"warning"`
}

func byUUID(r *request) apikey.ID { return r.keyNamed(apikey.ParseUUID, apikey.ParseID) }

func readNewInKeys(r *request) (n creation) {
	r.body()
	n.once, n.ProjectID = r.once(), defaultProject
	r.name(&n.Name)
	if r.has("rate_limit_per_minute") { // null would be no limit in an answer, and "as by default" in a request
		n.RateLimitPerMinute = lifecycle.Limit{Said: true, V: new(int64)}
		r.optional("rate_limit_per_minute", n.RateLimitPerMinute.V)
	}
	var end *isoTime
	if r.nullable("expires_at", &end); end != nil {
		n.ExpiresAt = &end.Moment
	}
	r.merge(n.Validate(r.now))
	return n
}

// isoTime is a time in ISO 8601: what a Moment may be, and also without a zone, in UTC, and without seconds.
type isoTime struct{ lifecycle.Moment }

// UnmarshalJSON reads it.
func (t *isoTime) UnmarshalJSON(b []byte) error {
	if t.Moment.UnmarshalJSON(b) == nil {
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02T15:04:05Z0700"} {
		if at, err := time.Parse(layout, s); err == nil {
			t.Time = at.UTC().Truncate(time.Millisecond)
			return nil
		}
	}
	return errors.New("not a time")
}

func (a *API) createInKeys(ctx context.Context, n creation, h http.Header) (createdInKeys, error) {
	n.Scopes = a.scopesInKeys(caller.From(ctx))
	issued, err := a.issue(ctx, n, h, func(k *apikey.Key) string { return "keys/" + k.ID.UUID() })
	k := &issued.Key
	return createdInKeys{
		Key:     issuedInKeys{k.ID.UUID(), k.Name, k.KeyPrefix, k.RateLimitPerMinute, usable(k), k.CreatedAt, k.ExpiresAt},
		RawKey:  issued.Plaintext.Reveal(),
		Warning: keepSecret,
	}, err
}

// scopesInKeys is what a key made here may do to the service: as much of KeysShapeScopes as whoever makes it may give.
func (a *API) scopesInKeys(by caller.Caller) []string {
	held := func(scope string) bool { return !by.Own && by.Holds(scope) }
	return slices.DeleteFunc(slices.Clone(a.KeysShapeScopes), func(scope string) bool { return !held(scope) })
}

type listInKeys struct {
	Keys []listedInKeys `json:"keys"`
}

func (a *API) listInKeys(ctx context.Context, _ nothing, _ http.Header) (listInKeys, error) {
	list, err := listAs(ctx, a, lifecycle.Filter{IncludeArchived: true, IncludeRevoked: true}, func(k *apikey.Key) listedInKeys {
		return listedInKeys{k.ID.UUID(), k.Name, k.KeyPrefix, k.RateLimitPerMinute, usable(k), k.LastUsedAt, k.CreatedAt, k.ExpiresAt}
	})
	return listInKeys{list}, err
}

type revokedInKeys struct {
	Revoked bool `json:"revoked"`
}

func (a *API) revokeInKeys(ctx context.Context, id apikey.ID, _ http.Header) (revokedInKeys, error) {
	return revokedInKeys{true}, a.Keys.Revoke(ctx, id, "")
}
