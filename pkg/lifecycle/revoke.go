package lifecycle

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
)

// Revoke ends a key for good; a revoked key stays revoked and that is no error. It needs keys:write. It refuses with
// OwnKey the key that asks and its successor. A key under fire is closed first, so that the revocation is never kept waiting by those who
// hammer the key.
func (s *Service) Revoke(ctx context.Context, id apikey.ID, reason string) error {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return err
	}
	return s.change(ctx, apikey.CloseRevoke, func(ctx context.Context) (Change, error) {
		r, err := s.peek(ctx, by, id) // a closing one too: it is to end anyway
		if err != nil {
			return Change{}, err
		}
		if err := notItself(by, &r); err != nil {
			return Change{}, err
		}
		if r.RevokedAt != nil {
			return Change{}, errNothingToDo
		}
		now, next := s.now(), r
		revoke(&next, now, reason)
		return s.update(ctx, by, now, audit.Revoked, r, next)
	})
}

// revoke makes r a revoked key.
func revoke(r *apikey.Record, now time.Time, reason string) {
	r.RevokedAt, r.NextRotationAt, r.Counted = &now, nil, false
	if reason != "" {
		r.RevokedReason = &reason
	}
}
