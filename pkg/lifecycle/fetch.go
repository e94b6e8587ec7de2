package lifecycle

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
)

// Held is a key as it stands in the secret of Secrets Manager that is named after an organization and a line of keys.
// Whoever has it there has shown that it is theirs, so these verbs need no caller.
type Held struct {
	OrganizationID string
	Line           apikey.ID
	Key            apikey.Plaintext
}

// HandOver begins a rotation that Secrets Manager asks for, of the key that its secret gives to everybody who reads it, and
// returns the successor, for that secret alone. Asked again it returns the same successor, until HandedOver. Nobody else
// tries to deliver it, and the old key's end is untouched.
//
// From the moment that this returns the successor may be anywhere, so the handover is in doubt from its beginning: it is
// held and told of, never given up. That a successor is used says nothing here: the secret may still give out the old key.
//
// It refuses with MalformedKey or UnknownKey what is no key of the organization, with WrongState a key that does not belong
// into this secret, was not meant for one (rotation_to_secrets_manager) or does not live, with RotationInProgress while
// another rotation of the line is not over, with AlreadyRotated a key that was rotated otherwise, with SecretDestroyed when
// the successor was kept for so long that its secret is gone, and with NoSealingKey where nothing can be sealed.
func (s *Service) HandOver(ctx context.Context, held Held) (apikey.Issued, error) {
	if err := s.HandedOver(ctx, held); err != nil { // the rotation that made it, if its end was not told
		return apikey.Issued{}, err
	}
	var issued apikey.Issued
	err := s.change(ctx, "", func(ctx context.Context) (c Change, err error) {
		issued, c, err = s.fetch(ctx, held)
		return c, err
	})
	if err != nil {
		return apikey.Issued{}, err
	}
	return issued, nil
}

// HandedOver ends the rotation that HandOver began: the secret now gives the successor, which is what held tells, to
// everybody who reads it. From now on the old key has as long to live as the cap allows. It may be said again, and of a key
// that was not made by HandOver it means nothing; one that is revoked, or on its way to another receiver, is refused.
func (s *Service) HandedOver(ctx context.Context, held Held) error {
	return s.change(ctx, "", func(ctx context.Context) (Change, error) {
		r, err := s.held(ctx, held)
		switch {
		case err != nil:
			return Change{}, err
		case r.RevokedAt != nil:
			return Change{}, apikey.Errorf(apikey.WrongState, "The key %s in the secret is revoked. Put a key of its line there that lives.", r.ID)
		case r.Handover == nil:
			return Change{}, errNothingToDo
		case !r.Handover.Fetched:
			return Change{}, onItsWay(&r)
		}
		old, err := s.read(ctx, owner(&r), *r.Predecessor)
		if err != nil {
			return Change{}, err
		}
		return s.delivered(r, old, s.now(), audit.Rotated)
	})
}

// MayBeHandedOver refuses a key that should not become what the secret gives to everybody who reads it: one that does not
// belong there, that does not live, that was replaced itself, or that is on its way to another receiver.
func (s *Service) MayBeHandedOver(ctx context.Context, held Held) error {
	r, err := s.held(ctx, held)
	switch status := r.StatusAt(s.now()); {
	case err != nil:
		return err
	case status != apikey.Active:
		return apikey.Errorf(apikey.WrongState, "The key %s that the rotation prepared is %s. Take AWSPENDING off its version, and rotate again.", r.ID, status)
	case r.Handover != nil && !r.Handover.Fetched:
		return onItsWay(&r)
	}
	return nil
}

func onItsWay(r *apikey.Record) error {
	return apikey.Errorf(apikey.RotationInProgress, "The key %s is still being delivered by Latchkey itself. Try again once that is over.", r.ID)
}

// held is the key that a secret holds, if it belongs there.
func (s *Service) held(ctx context.Context, held Held) (apikey.Record, error) {
	token, err := s.Format.Parse(held.Key.Reveal())
	if err != nil {
		return apikey.Record{}, apikey.Errorf(apikey.MalformedKey, "The secret holds no key of this service.")
	}
	r, err := s.read(ctx, caller.Caller{OrganizationID: held.OrganizationID, Kind: caller.Operator, ID: "latchkey"}, token.ID())
	if apikey.CodeOf(err) == apikey.NotFound || err == nil && !r.Hash.Equal(token.Hash()) {
		err = apikey.Errorf(apikey.UnknownKey, "The secret holds no key of the organization that it is named after.")
	}
	if err == nil && r.Line() != held.Line {
		err = apikey.Errorf(apikey.WrongState, "The key %s belongs into the secret that is named after %s.", r.ID, r.Line())
	}
	return r, err
}

// fetch decides one attempt of HandOver.
func (s *Service) fetch(ctx context.Context, held Held) (apikey.Issued, Change, error) {
	r, err := s.held(ctx, held)
	if err != nil {
		return apikey.Issued{}, Change{}, err
	}
	now := s.now()
	switch status := r.StatusAt(now); {
	case !r.RotationToSecretsManager:
		return apikey.Issued{}, Change{}, apikey.Errorf(apikey.WrongState, "The key %s is not meant for Secrets Manager: set its rotation_to_secrets_manager.", r.ID)
	case status != apikey.Active && status != apikey.Rotated:
		return apikey.Issued{}, Change{}, apikey.Errorf(apikey.WrongState, "The key %s in the secret is %s and cannot be rotated.", r.ID, status)
	case s.Seal == nil:
		return apikey.Issued{}, Change{}, apikey.Errorf(apikey.NoSealingKey, "This service was set up without a key to seal secrets with, so it rotates nothing by itself.")
	case r.ReplacedByKeyID != nil:
		issued, err := s.fetchAgain(ctx, &r, now)
		return issued, Change{}, err
	}
	before, err := s.inGraceBefore(ctx, &r, now.Add(-clocksApart))
	if err != nil {
		return apikey.Issued{}, Change{}, err
	}
	if before != nil {
		return apikey.Issued{}, Change{}, apikey.Errorf(apikey.RotationInProgress, "The key's predecessor %s is still in its grace. Try again once that is over (grace_expires_at, or rotate/end).", before.ID)
	}
	until := now.Add(s.window())
	c, text, err := s.beginning(ctx, r, now, apikey.Handover{Fetched: true, Until: until, Next: until, Doubt: true})
	if err != nil {
		return apikey.Issued{}, Change{}, err
	}
	return apikey.Issued{Key: c.Create.Key.At(now), Plaintext: text}, c, nil
}

// fetchAgain is the successor that a key has already, if it is for the secret: then there is nothing to do.
func (s *Service) fetchAgain(ctx context.Context, r *apikey.Record, now time.Time) (apikey.Issued, error) {
	next, err := s.read(ctx, owner(r), *r.ReplacedByKeyID)
	switch status := next.StatusAt(now); {
	case err != nil:
	case r.GraceExpiresAt != nil:
		err = apikey.Errorf(apikey.AlreadyRotated, "The key %s was rotated otherwise. Put its successor %s into the secret before %s.", r.ID, next.ID, r.GraceExpiresAt.Format(time.RFC3339))
	case next.Handover == nil || !next.Handover.Fetched:
		err = onItsWay(&next)
	case status != apikey.Active:
		err = apikey.Errorf(apikey.WrongState, "The successor %s is %s. Revoke it, and the rotation begins anew.", next.ID, status)
	case !next.Sealed.Until.After(now):
		err = apikey.Errorf(apikey.SecretDestroyed, "The successor %s was kept for so long that its secret is gone. Revoke it, and the rotation begins anew.", next.ID)
	}
	if err != nil {
		return apikey.Issued{}, err
	}
	text, err := s.unseal(ctx, &next)
	if err != nil {
		return apikey.Issued{}, err
	}
	return apikey.Issued{Key: next.Key.At(now), Plaintext: text}, errNothingToDo
}
