package lifecycle

import (
	"context"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
)

// Archive puts a key away: it is refused from now on, takes no place in the plan, and can be brought back. An archived
// key stays so and that is no error. It needs keys:write. It refuses with OwnKey the key that asks and its successor, and
// with WrongState a revoked key. A grace runs on while its key is archived. A key under fire is closed first.
func (s *Service) Archive(ctx context.Context, id apikey.ID) (apikey.Key, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return apikey.Key{}, err
	}
	var archived apikey.Key
	err := s.change(ctx, apikey.CloseArchive, func(ctx context.Context) (Change, error) {
		r, err := s.readToEnd(ctx, by, id, apikey.CloseArchive)
		if err == nil {
			err = notItself(by, &r)
		}
		switch {
		case err != nil:
			return Change{}, err
		case r.RevokedAt != nil:
			return Change{}, apikey.Errorf(apikey.WrongState, "The key is revoked: it cannot be archived.")
		case r.Handover != nil:
			return Change{}, apikey.Errorf(apikey.WrongState, "The key is being handed to its owner: it cannot be archived. Revoke it, and its predecessor is as it was.")
		case r.ArchivedAt != nil:
			archived = r.Key
			return Change{}, errNothingToDo
		}
		now, next := s.now(), r
		next.ArchivedAt, next.Counted = &now, false
		c, err := s.update(ctx, by, now, audit.Archived, r, next)
		if err == nil {
			archived = c.Update[0].Record.Key
		}
		return c, err
	})
	if err != nil {
		return apikey.Key{}, err
	}
	return archived.At(s.now()), nil
}

// Reactivate brings an archived key back to what it was before: active, disabled, or in its grace. It needs keys:write and
// all of the key's management scopes. It refuses with WrongState a key that is not archived or whose end has come, and
// with PlanFull one for which the plan has no place.
func (s *Service) Reactivate(ctx context.Context, id apikey.ID) (apikey.Key, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return apikey.Key{}, err
	}
	var back apikey.Key
	err := s.change(ctx, "", func(ctx context.Context) (Change, error) {
		r, err := s.read(ctx, by, id)
		if err != nil {
			return Change{}, err
		}
		now, next := s.now(), r
		if err := mayReactivate(by, &r); err != nil {
			return Change{}, err
		}
		next.ArchivedAt = nil
		if next.Over(now) {
			return Change{}, overAlready(&r)
		}
		next.Counted = takesPlace(&next, now)
		c, err := s.update(ctx, by, now, audit.Reactivated, r, next)
		if err == nil {
			back = c.Update[0].Record.Key
		}
		return c, err
	})
	if err != nil {
		return apikey.Key{}, err
	}
	return back.At(s.now()), nil
}

func mayReactivate(by caller.Caller, r *apikey.Record) error {
	if err := notItself(by, r); err != nil {
		return err
	}
	switch {
	case r.RevokedAt != nil:
		return apikey.Errorf(apikey.WrongState, "The key is revoked for good. Create a new one.")
	case r.ArchivedAt == nil:
		return apikey.Errorf(apikey.WrongState, "The key is not archived.")
	}
	return mayGrant(by, &r.Key)
}

func overAlready(r *apikey.Record) error {
	if r.ReplacedByKeyID != nil {
		return apikey.Errorf(apikey.WrongState, "The key was replaced by %s and its grace is over.", *r.ReplacedByKeyID)
	}
	return apikey.Errorf(apikey.WrongState, "The key has expired. Change its expires_at first.")
}
