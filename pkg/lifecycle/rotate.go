package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
)

// Rotated is what a rotation leaves: the old key in its grace, and its successor with the plaintext.
type Rotated struct {
	Old apikey.Key
	New apikey.Issued
}

// RotatedKey is a rotation as it is told to whoever is to have the successor, and to nobody else: it holds the plaintext.
// Project, name, scopes and times are the new key's, the end of the grace is the old one's.
type RotatedKey struct {
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

// Reveal is r with the plaintext in the open.
func (r Rotated) Reveal() RotatedKey {
	k := &r.New.Key
	return RotatedKey{r.Old.ID, k.ID, k.ProjectID, k.Name, r.New.Plaintext.Reveal(), k.KeyPrefix, k.Scopes, k.ExpiresAt, k.CreatedAt,
		r.Old.GraceExpiresAt}
}

// Rotate gives a key a successor with the same scopes, limits, networks, expiry and today's count. The old key goes on
// working for the grace, 0 to MaxGrace; nil means the Service's. It needs keys:write and all of the key's management
// scopes.
//
// Of several who rotate one key at once exactly one wins; the others get AlreadyRotated. While the key's own
// predecessor is in its grace a rotation is refused with RotationInProgress, except one without grace: that one ends the
// whole line, because a leak must always be answerable. It refuses with WrongState a key that is not active or disabled.
func (s *Service) Rotate(ctx context.Context, id apikey.ID, grace *time.Duration) (Rotated, error) {
	return s.RotateOnce(ctx, Once{}, id, grace)
}

// RotateOnce is Rotate, made once: see Once.
func (s *Service) RotateOnce(ctx context.Context, once Once, id apikey.ID, grace *time.Duration) (Rotated, error) {
	by, period, err := s.graceAsked(ctx, grace, 0)
	if err != nil {
		return Rotated{}, err
	}
	var rotated Rotated
	closeAs := ""
	if period == 0 {
		closeAs = apikey.CloseDisable
	}
	again := func(a *answer) { rotated = Rotated{a.Old.key(), a.issued()} }
	err = s.change(ctx, closeAs, func(ctx context.Context) (Change, error) {
		return once.attempt(ctx, s, by, again, func() (c Change, err error) {
			rotated, c, err = s.rotation(ctx, by, id, period)
			if err == nil {
				err = once.keep(ctx, s, by, &c, &rotated.Old, rotated.New)
			}
			return c, err
		})
	})
	if err != nil {
		return Rotated{}, err
	}
	return rotated, nil
}

// graceAsked is the caller, if it may write keys, and the grace that it asks for, the Service's for nil, if that is at
// least the least and at most MaxGrace.
func (s *Service) graceAsked(ctx context.Context, grace *time.Duration, least time.Duration) (caller.Caller, time.Duration, error) {
	by, period := caller.From(ctx), DefaultGrace
	if err := need(by, apikey.KeysWrite); err != nil {
		return by, 0, err
	}
	if s.Grace > 0 {
		period = s.Grace
	}
	if grace != nil {
		period = *grace
	}
	if period < least || period > MaxGrace {
		return by, 0, apikey.Invalid([]apikey.FieldError{{Pointer: "/grace_period_seconds",
			Detail: fmt.Sprintf("must be %d to %d", int(least.Seconds()), int(MaxGrace.Seconds()))}})
	}
	return by, period, nil
}

// rotation decides one attempt.
func (s *Service) rotation(ctx context.Context, by caller.Caller, id apikey.ID, grace time.Duration) (Rotated, Change, error) {
	old, err := s.read(ctx, by, id)
	if err != nil {
		return Rotated{}, Change{}, err
	}
	if err := notItself(by, &old); err != nil {
		return Rotated{}, Change{}, err
	}
	now := s.now()
	if err := mayRotate(by, &old, now); err != nil {
		return Rotated{}, Change{}, err
	}
	before, err := s.inGraceBefore(ctx, &old, now)
	if err != nil {
		return Rotated{}, Change{}, err
	}
	if before != nil && grace > 0 {
		return Rotated{}, Change{}, apikey.Errorf(apikey.RotationInProgress,
			"The key's predecessor %s is still in its grace. End that first (rotate/end), or rotate with grace_period_seconds 0.", before.ID)
	}
	minted := s.Format.Mint(orEmpty(old.EnvironmentID))
	next, kept := successor(&old, minted, now, grace == 0)
	was := old
	old.ReplacedByKeyID, old.NextRotationAt, old.Counted = &next.ID, nil, false
	endGrace(&old.Key, now.Add(grace))
	e, err := entry(by, now, audit.Rotated, &was.Key, old.Key)
	if err != nil {
		return Rotated{}, Change{}, err
	}
	destroy := endHandover(&old)
	next, old = s.stamp(next, e), s.stamp(old, e)
	c := Change{Create: &next, Update: []Update{{Record: old}}, Destroy: destroy, Entry: e}
	if grace == 0 {
		c.Update[0].Frozen = kept // so that not one request more passes on both keys together than on one
	}
	if before != nil {
		change := audit.Change{Field: before.ID.String() + ".grace_expires_at", From: moment(before.GraceExpiresAt)}
		endGrace(&before.Key, now)
		change.To = moment(before.GraceExpiresAt)
		c.Entry.Changes = append(c.Entry.Changes, change)
		c.Update = append(c.Update, Update{Record: s.stamp(*before, e)})
	}
	return Rotated{old.Key.At(now), apikey.Issued{Key: next.Key.At(now), Plaintext: minted.Plaintext}}, c, nil
}

func mayRotate(by caller.Caller, old *apikey.Record, now time.Time) error {
	if err := mayGrant(by, &old.Key); err != nil {
		return err
	}
	switch status := old.StatusAt(now); {
	case status == apikey.Revoked:
		return apikey.Errorf(apikey.WrongState, "The key is revoked. Create a new one.")
	case old.ReplacedByKeyID != nil:
		return apikey.Errorf(apikey.AlreadyRotated, "The key was rotated already: act on its successor %s.", *old.ReplacedByKeyID)
	case old.Over(now): // a successor would be dead from the start
		return apikey.Errorf(apikey.WrongState, "The key is expired and cannot be rotated.")
	case status != apikey.Active && status != apikey.Disabled:
		return apikey.Errorf(apikey.WrongState, "The key is %s and cannot be rotated.", status)
	}
	return nil
}

// inGraceBefore is the key's predecessor if it is in its grace, else nil.
func (s *Service) inGraceBefore(ctx context.Context, r *apikey.Record, now time.Time) (*apikey.Record, error) {
	if r.Predecessor == nil {
		return nil, nil
	}
	p, err := s.read(ctx, owner(r), *r.Predecessor)
	if err != nil || !p.InGrace(now) {
		return nil, err
	}
	return &p, nil
}

// successor is the record that takes old's place, and the windows whose counts it inherits: today's, when it takes the
// place at once also this minute's, and those beside them, where a process with a slow or a fast clock may be counting.
func successor(old *apikey.Record, minted apikey.Minted, now time.Time, atOnce bool) (apikey.Record, []apikey.Window) {
	k := old.Key
	k.ID, k.KeyPrefix, k.Version = minted.ID, minted.Prefix, 0
	k.Enabled, k.LastUsedAt = true, nil
	k.CreatedAt, k.UpdatedAt = now, now
	k.NextRotationAt = nextRotation(now, k.RotationIntervalDays)
	r := apikey.Record{Key: k, Hash: minted.Plaintext.Hash(), Counted: old.Counted, Predecessor: &old.ID, First: old.Line(),
		Counts: map[apikey.Window]int64{}}
	kept := []apikey.Window{apikey.DayWindow(now, 0), apikey.DayWindow(now, -1), apikey.DayWindow(now, 1)}
	if atOnce {
		kept = append(kept, apikey.MinuteWindow(now, 0), apikey.MinuteWindow(now, -1), apikey.MinuteWindow(now, 1))
	}
	r.Told = told(nil, &r.Key, r.Told, now)
	for _, w := range kept {
		if n := old.Counts[w]; n > 0 {
			r.Counts[w] = n
		}
	}
	r.Told.Day, r.Told.Percent = old.Told.Day, old.Told.Percent
	for !atOnce { // what is still to be told of the inherited count, the old key tells
		day, percent := untold(&r, now)
		if percent == 0 {
			break
		}
		r.Told.Day, r.Told.Percent = day, percent
	}
	return r, kept
}

// endGrace sets the end of the key's grace; a grace does not outlast the key's own expiry.
func endGrace(k *apikey.Key, at time.Time) {
	if k.ExpiresAt != nil && k.ExpiresAt.Before(at) {
		at = *k.ExpiresAt
	}
	k.GraceExpiresAt = &at
}

// moment is a time as the audit tells it.
func moment(at *time.Time) json.RawMessage {
	b, _ := json.Marshal(at) // of a year that its own writer accepted
	return b
}

// EndGrace ends, now, the grace of a rotated key, which may be named by itself or by its successor. It needs
// keys:write. It refuses with NotInGrace when there is no grace, and with OwnKey the key in grace itself.
func (s *Service) EndGrace(ctx context.Context, id apikey.ID) (apikey.Key, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return apikey.Key{}, err
	}
	return s.moveGrace(ctx, by, id, audit.GraceEnded, func(r *apikey.Record, now time.Time) error {
		endGrace(&r.Key, now)
		return notItself(by, r)
	})
}

// ExtendGrace makes the grace of a rotated key, named as for EndGrace, end the given time from now: later than it
// would, and at most MaxGrace away. It needs keys:write and all of the key's management scopes. It refuses with
// AlreadyRotated when the successor was itself rotated: a line has at most two live keys.
func (s *Service) ExtendGrace(ctx context.Context, id apikey.ID, grace time.Duration) (apikey.Key, error) {
	by, period, err := s.graceAsked(ctx, &grace, time.Second)
	if err != nil {
		return apikey.Key{}, err
	}
	return s.moveGrace(ctx, by, id, audit.GraceMoved, func(r *apikey.Record, now time.Time) error {
		was := r.End()
		endGrace(&r.Key, now.Add(period))
		r.Told.Confirm = nil // who asks for a time gets it
		if err := mayGrant(by, &r.Key); err != nil {
			return err
		}
		if was == nil || !r.End().After(*was) {
			return apikey.Invalid([]apikey.FieldError{{Pointer: "/grace_period_seconds",
				Detail: "must reach beyond the present end of the key: see its grace_expires_at and expires_at"}})
		}
		return nil
	})
}

// moveGrace changes the end of the grace that id names.
func (s *Service) moveGrace(ctx context.Context, by caller.Caller, id apikey.ID, action audit.Action,
	move func(*apikey.Record, time.Time) error) (apikey.Key, error) {
	var moved apikey.Key
	closeAs := "" // under fire a grace is ended as a rotation without one is
	if action == audit.GraceEnded {
		closeAs = apikey.CloseDisable
	}
	err := s.change(ctx, closeAs, func(ctx context.Context) (Change, error) {
		now := s.now()
		r, err := s.read(ctx, by, id)
		if err == nil && !r.InGrace(now) {
			r, err = s.graceOf(ctx, &r, now)
		}
		if err != nil {
			return Change{}, err
		}
		if r.GraceExpiresAt == nil {
			return Change{}, apikey.Errorf(apikey.RotationInProgress, "The key's successor %s is still being handed to its owner: no grace has begun. Revoke the successor, and the key is as it was; or rotate the successor with grace_period_seconds 0.", *r.ReplacedByKeyID)
		}
		next := r
		if err := move(&next, now); err != nil {
			return Change{}, err
		}
		next.Counted = next.Counted && takesPlace(&next, now)
		c, err := s.update(ctx, by, now, action, r, next)
		if err == nil && action == audit.GraceMoved {
			err = s.withSuccessor(ctx, &r, &c)
		}
		if err == nil {
			moved = c.Update[0].Record.Key
		}
		return c, err
	})
	if err != nil {
		return apikey.Key{}, err
	}
	return moved.At(s.now()), nil
}

// withSuccessor has the Change that prolongs old's grace touch the successor too, so that it and a rotation of the
// successor know of each other, whatever their clocks say.
func (s *Service) withSuccessor(ctx context.Context, old *apikey.Record, c *Change) error {
	next, err := s.read(ctx, owner(old), *old.ReplacedByKeyID)
	switch {
	case err != nil:
		return err
	case next.ReplacedByKeyID != nil:
		return apikey.Errorf(apikey.AlreadyRotated, "The key's successor %s was rotated itself. Act on its successor %s.", next.ID, *next.ReplacedByKeyID)
	}
	touched := s.stamp(next, c.Entry)
	touched.UpdatedAt = next.UpdatedAt // nothing of it is new
	c.Update = append(c.Update, Update{Record: touched})
	return nil
}

// graceOf is the predecessor of r in its grace, or NotInGrace.
func (s *Service) graceOf(ctx context.Context, r *apikey.Record, now time.Time) (apikey.Record, error) {
	before, err := s.inGraceBefore(ctx, r, now)
	if err == nil && before == nil {
		err = apikey.Errorf(apikey.NotInGrace, "Neither the key nor its predecessor is in a grace.")
	}
	if err != nil {
		return apikey.Record{}, err
	}
	return *before, nil
}
