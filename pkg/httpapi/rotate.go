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

func (a *API) rotate(ctx context.Context, in rotation, h http.Header) (lifecycle.RotatedKey, error) {
	rotated, err := a.Keys.RotateOnce(ctx, in.once, in.id, in.grace)
	if err != nil {
		return lifecycle.RotatedKey{}, err
	}
	h.Set("Cache-Control", "no-store")
	return rotated.Reveal(), nil
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
