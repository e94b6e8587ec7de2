package lifecycle

import (
	"context"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

// Get returns a key, after finishing what a crash may have left closing. It needs keys:read.
func (s *Service) Get(ctx context.Context, id apikey.ID) (apikey.Key, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysRead); err != nil {
		return apikey.Key{}, err
	}
	r, err := s.peek(ctx, by, id)
	if err != nil {
		return apikey.Key{}, err
	}
	return s.settled(ctx, r), nil
}

// Describe returns a key whose secret was shown to the caller. It needs keys:verify. It changes nothing, so that whoever
// verifies needs no right to.
func (s *Service) Describe(ctx context.Context, id apikey.ID) (apikey.Key, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysVerify); err != nil {
		return apikey.Key{}, err
	}
	return s.look(ctx, by, id)
}

// MayVerify refuses a caller who may not ask about presented keys: it needs keys:verify.
func (s *Service) MayVerify(ctx context.Context) error {
	return need(caller.From(ctx), apikey.KeysVerify)
}

// Confirm says with NotFound that the organization has no key of that public prefix, whole: also when it has one of the
// same id with another brand or environment. Whoever may neither read nor write keys is told nothing: every verb refuses
// them.
func (s *Service) Confirm(ctx context.Context, prefix string) error {
	by := caller.From(ctx)
	if !by.Holds(apikey.KeysRead) && !by.Holds(apikey.KeysWrite) {
		return nil
	}
	id, err := s.Format.ParsePrefix(prefix)
	if err == nil {
		var r apikey.Record
		if r, err = s.peek(ctx, by, id); apikey.CodeOf(err) == apikey.Unavailable {
			return err
		}
		if err == nil && r.KeyPrefix == prefix {
			return nil
		}
	}
	return apikey.Errorf(apikey.NotFound, "There is no such key.")
}

// Self returns the key that asks. It needs no scope.
func (s *Service) Self(ctx context.Context) (apikey.Key, error) {
	by := caller.From(ctx)
	id, err := apikey.ParseID(by.ID)
	if by.Kind != caller.Key || err != nil {
		return apikey.Key{}, apikey.Errorf(apikey.NotFound, "You did not present a key.")
	}
	return s.look(ctx, by, id)
}

// look is a key of the caller's organization as it is shown. It changes nothing.
func (s *Service) look(ctx context.Context, by caller.Caller, id apikey.ID) (apikey.Key, error) {
	r, err := s.peek(ctx, by, id)
	if err != nil {
		return apikey.Key{}, err
	}
	return s.shown(r), nil
}

// settled is r as it is shown, after finishing what a crash may have left closing, if that can be finished now.
func (s *Service) settled(ctx context.Context, r apikey.Record) apikey.Key {
	if r.Closing != nil {
		if finished, err := s.read(ctx, owner(&r), r.ID); err == nil {
			r = finished
		}
	}
	return s.shown(r)
}

// shown is r as it is shown: a closing key as what it is about to be, since verify refuses it already.
func (s *Service) shown(r apikey.Record) apikey.Key {
	if r.Closing != nil {
		r, _ = promised(r, s.now())
	}
	return r.Key.At(s.now())
}
