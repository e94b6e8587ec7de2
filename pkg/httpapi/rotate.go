package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The native shape of a rotation.

const (
	graceKey = "grace_period_seconds"
	maxGrace = int64(lifecycle.MaxGrace / time.Second)
)

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
	once  lifecycle.Once
}

func readRotation(r *request) (in rotation) {
	in.id = r.keyID()
	r.optionalBody()
	in.once = r.once()
	if r.has(graceKey) {
		in.grace = new(r.grace(0))
	}
	return in
}

func (a *API) rotate(ctx context.Context, in rotation, h http.Header) (rotatedKey, error) {
	rotated, err := a.Keys.RotateOnce(ctx, in.once, in.id, in.grace)
	if err != nil {
		return rotatedKey{}, err
	}
	h.Set("Cache-Control", "no-store")
	old, k := rotated.Old, rotated.New.Key
	return rotatedKey{old.ID, k.ID, k.ProjectID, k.Name, rotated.New.Plaintext.Reveal(), k.KeyPrefix, k.Scopes,
		k.ExpiresAt, k.CreatedAt, old.GraceExpiresAt}, nil
}

func (a *API) endGrace(ctx context.Context, id apikey.ID, h http.Header) (apikey.Key, error) {
	k, err := a.Keys.EndGrace(ctx, id)
	return tagged(h, k, err)
}

func readExtension(r *request) rotation {
	id := r.keyID()
	r.body()
	return rotation{id: id, grace: new(r.grace(1))}
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
