// Package lifecycle holds the verbs of a key's life: create, list, get, update, rotate, end or extend a grace, archive,
// reactivate, revoke, and what goes with them: an organization's plan and its audit trail. Each
// verb decides, where the data is touched, whether the caller may; each change is one transaction of everything it
// touches, the plan's count and the audit entry included, so a crash leaves all of it or nothing.
//
// A change is made on what was read. If someone else changed it meanwhile, it is read, authorized and decided again. If
// the store's answer is lost, the Service looks whether its change took effect before it says anything. What belongs to
// another organization does not exist. Every error that a client may see is an *apikey.Error.
package lifecycle

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/plan"
)

const (
	// DefaultGrace is how long a rotated key goes on working when nobody says otherwise.
	DefaultGrace = 24 * time.Hour
	// patience is how long a change is tried against others under way.
	patience = 5 * time.Second
	// underFire is how long a change that ends a key is tried before the key is closed first.
	underFire = 500 * time.Millisecond
)

// Service performs the verbs. Its fields are set once, before the first use; its methods may be called from many
// goroutines. They find who is asking in their context (package caller).
type Service struct {
	Store  Store
	Plans  plan.Table
	Format apikey.Format
	Now    func() time.Time
	Grace  time.Duration // of a rotation that does not say; 0: DefaultGrace

	DefaultPlan   string   // of organizations for which neither operators nor tokens name one; "": plan.Free
	AllowedScopes []string // service scopes of organizations for which operators named none
	Seal          Sealer   // nil: changes are not kept for being asked for once, and no key is rotated by schedule

	Senders    int           // deliveries that are under way at once in one Deliver; 0: 1
	Window     time.Duration // in which a key made by schedule must be delivered; 0: 3 days
	Cap        time.Duration // for which an old key lives on after its successor was delivered; 0: 7 days
	Quiet      time.Duration // without use, after which it lives no longer; 0: 1 hour
	StaleAfter time.Duration // without use, after which a key is told of; 0: never

	Secrets          bool // whoever delivers reaches Secrets Manager; else keys that are to go there alone are reminders
	LoopbackWebhooks bool // development: notices may go to this machine

	rest  func(context.Context) error   // instead of pause, for tests that step through what meets
	since func(time.Time) time.Duration // instead of time.Since, for tests in which a key is under fire, or is not
}

// now is the moment as it is stored: UTC, whole milliseconds.
func (s *Service) now() time.Time { return s.Now().UTC().Truncate(time.Millisecond) }

// errNothingToDo ends a change that finds its goal reached.
var errNothingToDo = errors.New("nothing to do")

// change makes the Change that decide asks for. decide reads and authorizes; it is called again whenever someone else
// came first. A change whose end is set must not be kept off by verifies of the same keys: after a while these are
// closed, so that verifies are refused and stop, and then the change goes through.
//
// When the answer to a commit is lost, the same Change is sent until it is certain whether it took effect: its conditions
// let it take effect once, while another one in its place would find it done by a stranger.
func (s *Service) change(ctx context.Context, end string, decide func(context.Context) (Change, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var c Change
	began, closed := time.Now(), map[apikey.ID]int64{}
	for inDoubt, first := false, true; ; first = false {
		var err error
		if !inDoubt && !first {
			err = s.alive(ctx)
		}
		if !inDoubt && err == nil {
			c, err = decide(ctx)
		}
		if errors.Is(err, errNothingToDo) {
			return nil
		}
		if err != nil {
			return err
		}
		if err = s.Store.Commit(ctx, c); err == nil {
			return nil
		}
		landed, readErr := s.landed(ctx, c)
		if landed {
			return nil
		}
		// A conflict does not end the doubt: it may be with the very commit whose answer was lost.
		inDoubt = !again(err) || inDoubt && (readErr != nil || errors.Is(err, apikey.ErrConflict))
		if end != "" && s.tried(began) >= underFire {
			s.close(ctx, c, end, closed)
		}
		if s.pause(ctx) != nil {
			return unavailable(err)
		}
	}
}

// alive refuses a caller whose key was ended, or lost a right, after it had been let in.
func (s *Service) alive(ctx context.Context) error {
	by := caller.From(ctx)
	id, err := apikey.ParseID(by.ID)
	if by.Kind != caller.Key || err != nil {
		return nil
	}
	r, err := s.peek(ctx, by, id)
	if err == nil && (r.State() != apikey.Active || r.Over(s.now())) {
		err = apikey.Errorf(apikey.RevokedKey, "The key that asks was ended meanwhile.")
	}
	if err == nil {
		err = asBefore(by, &r.Key)
	}
	return err
}

// asBefore refuses a caller who is not what its key now is: one that lost a scope or was given other bounds since.
func asBefore(by caller.Caller, k *apikey.Key) error {
	for _, scope := range by.Scopes {
		if !slices.Contains(k.Scopes, scope) {
			return need(caller.Caller{}, scope)
		}
	}
	end, same := k.End(), func(p netip.Prefix, text string) bool { return p.String() == text }
	if end != nil && (by.Until.IsZero() || end.Before(by.Until)) || !slices.EqualFunc(by.CIDRs, k.AllowedCIDRs, same) {
		return apikey.Errorf(apikey.Unavailable, "The key that asks was changed meanwhile. Try again.")
	}
	return nil
}

// again says whether a commit failed because of someone else's change, so that deciding anew is right.
func again(err error) bool {
	return errors.Is(err, ErrChanged) || errors.Is(err, ErrCount) || errors.Is(err, apikey.ErrConflict)
}

// landed says whether c took effect.
func (s *Service) landed(ctx context.Context, c Change) (bool, error) {
	if c.Create != nil {
		r, err := s.Store.Key(ctx, c.Create.ID)
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		return err == nil && r.Hash.Equal(c.Create.Hash), err
	}
	r, err := s.Store.Key(ctx, c.Update[0].Record.ID)
	return err == nil && r.LastChange == c.Entry.ID, err
}

// close marks the keys that c would end as closing, and notes at which version: one that was finished since, so that its
// mark is gone, is marked again.
func (s *Service) close(ctx context.Context, c Change, verb string, closed map[apikey.ID]int64) {
	mark := apikey.Closing{Verb: verb, ActorKind: c.Entry.ActorKind, ActorID: c.Entry.ActorID, Address: c.Entry.Address,
		RequestID: c.Entry.RequestID, Reason: orEmpty(c.Update[0].Record.RevokedReason)}
	for _, u := range c.Update {
		id, version := u.Record.ID, u.Record.Version-1
		if ends(&u.Record, verb, c.Entry.At) && closed[id] != version && s.Store.Close(ctx, id, version, mark) == nil {
			closed[id] = version
		}
	}
}

// ends says whether a change of now leaves r as a closing by the verb would, so that a key which the same change leaves
// alive is never closed.
func ends(r *apikey.Record, verb string, now time.Time) bool {
	switch verb {
	case apikey.CloseRevoke:
		return r.RevokedAt != nil && r.RevokedAt.Equal(now)
	case apikey.CloseArchive:
		return r.ArchivedAt != nil && r.ArchivedAt.Equal(now)
	}
	return !r.Enabled || r.Over(now)
}

// pause waits a moment so that two who collided do not collide again.
func (s *Service) pause(ctx context.Context) error {
	if s.rest != nil {
		return s.rest(ctx)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5*time.Millisecond + rand.N(35*time.Millisecond)):
		return nil
	}
}

// tried is for how long a change is under way that began then.
func (s *Service) tried(began time.Time) time.Duration {
	if s.since != nil {
		return s.since(began)
	}
	return time.Since(began)
}

func unavailable(cause error) error {
	return &apikey.Error{Code: apikey.Unavailable, Message: "The store did not answer in time. Look whether the change was made, then try again.",
		Cause: cause}
}

// read returns a key that exists for the caller, after finishing what a crash may have left closing.
func (s *Service) read(ctx context.Context, by caller.Caller, id apikey.ID) (apikey.Record, error) {
	return s.readToEnd(ctx, by, id, "")
}

// readToEnd is read for a change that is to end the key by the verb: a closing that the caller's own request began is left
// for that change to complete.
func (s *Service) readToEnd(ctx context.Context, by caller.Caller, id apikey.ID, verb string) (apikey.Record, error) {
	r, err := s.peek(ctx, by, id)
	for err == nil && r.Closing != nil && !(r.Closing.Verb == verb && r.Closing.ActorID == by.ID && r.Closing.RequestID == by.RequestID) {
		if err = s.finish(ctx, r); err == nil {
			r, err = s.peek(ctx, by, id)
		}
	}
	return r, err
}

// peek returns a key that exists for the caller, as it stands. What belongs to another organization does not exist, nor, for
// whoever may touch their own alone, what another has made.
func (s *Service) peek(ctx context.Context, by caller.Caller, id apikey.ID) (apikey.Record, error) {
	r, err := s.Store.Key(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && (r.OrganizationID != by.OrganizationID || by.Own && r.CreatedBy != by.ID):
		return apikey.Record{}, apikey.Errorf(apikey.NotFound, "There is no key %s.", id)
	case err != nil:
		return apikey.Record{}, unavailable(err)
	}
	return r, nil
}

// finish commits the ending that a closing key was promised, in the name of whoever asked for it.
func (s *Service) finish(ctx context.Context, closing apikey.Record) error {
	return s.change(ctx, "", func(ctx context.Context) (Change, error) {
		r, err := s.peek(ctx, owner(&closing), closing.ID)
		if err != nil {
			return Change{}, err
		}
		if r.Closing == nil {
			return Change{}, errNothingToDo
		}
		by := caller.Caller{OrganizationID: r.OrganizationID, Kind: caller.Kind(r.Closing.ActorKind), ID: r.Closing.ActorID,
			RequestID: r.Closing.RequestID}
		by.Address, _ = netip.ParseAddr(r.Closing.Address) // the zero Addr for none
		now := s.now()
		next, action := promised(r, now)
		return s.update(ctx, by, now, action, r, next)
	})
}

// owner is a key's organization itself, for what is done on nobody's behalf.
func owner(r *apikey.Record) caller.Caller {
	return caller.Caller{OrganizationID: r.OrganizationID, Kind: caller.Operator, ID: "latchkey"}
}

// promised is what a closing key is to become.
func promised(r apikey.Record, now time.Time) (apikey.Record, audit.Action) {
	switch r.Closing.Verb {
	case apikey.CloseRevoke:
		revoke(&r, now, r.Closing.Reason)
		return r, audit.Revoked
	case apikey.CloseArchive:
		r.ArchivedAt, r.Counted = &now, false
		return r, audit.Archived
	}
	r.Enabled = false
	return r, audit.Disabled
}

// update is the Change that turns before into after, with its audit entry and the plan's count. It refuses with PlanFull a
// key that is to take a place where none is free. A revoked key's secret does not stay sealed anywhere.
func (s *Service) update(ctx context.Context, by caller.Caller, now time.Time, action audit.Action, before, after apikey.Record) (Change, error) {
	entry, err := entry(by, now, action, &before.Key, after.Key)
	if err != nil {
		return Change{}, err
	}
	if after.RevokedAt != nil && after.Handover != nil {
		return s.withdraw(ctx, entry, before, after)
	}
	after.Told = told(&before.Key, &after.Key, after.Told, now)
	c := Change{Entry: entry}
	if after.RevokedAt != nil && after.Sealed != nil {
		c.Destroy, after.Sealed = []apikey.Sealed{*after.Sealed}, nil
	}
	c.Update = []Update{{Record: s.stamp(after, entry), Closing: before.Closing != nil}}
	if before.Counted == after.Counted {
		return c, nil
	}
	places, err := s.line(ctx, &c, &after, now)
	switch {
	case err != nil:
		return c, err
	case places < 0:
		c.Count = &Count{OrganizationID: after.OrganizationID, Delta: -1}
	case places > 0:
		c.Count, err = s.comeBack(ctx, by)
	}
	return c, err
}

// line adds to c what becomes of the predecessor of a key that takes its place or leaves it, and returns by how many
// places the two change the plan's count. While a key lives in its grace its line takes a place, lest graces be a
// way around the plan: that of its successor or, if that takes none, its own.
func (s *Service) line(ctx context.Context, c *Change, r *apikey.Record, now time.Time) (places int, err error) {
	if places = -1; r.Counted {
		places = 1
	}
	before, err := s.inGraceBefore(ctx, r, now)
	if err != nil || before == nil || before.Lone == !r.Counted {
		return places, err
	}
	was := before.Counted
	before.Lone = !r.Counted
	switch before.Counted = takesPlace(before, now); {
	case before.Counted && !was:
		places++
	case was && !before.Counted:
		places--
	}
	at := before.UpdatedAt
	mate := s.stamp(*before, c.Entry)
	mate.UpdatedAt = at // nothing of it that anybody sees is new
	c.Update = append(c.Update, Update{Record: mate})
	return places, nil
}

// stamp makes r the next version, as written by the change that entry tells of. UpdatedAt never goes back, whatever the
// clock says: what was ended stays ended.
func (s *Service) stamp(r apikey.Record, e audit.Entry) apikey.Record {
	r.Version++
	r.LastChange, r.Closing = e.ID, nil
	if e.At.After(r.UpdatedAt) {
		r.UpdatedAt = e.At
	}
	r.Due = s.due(&r, e.At)
	return r
}

func entry(by caller.Caller, now time.Time, action audit.Action, before *apikey.Key, after apikey.Key) (audit.Entry, error) {
	changes, err := audit.Diff(before, after)
	e := audit.Entry{ID: audit.NewID(now), OrganizationID: by.OrganizationID, At: now, Action: action,
		ActorKind: string(by.Kind), ActorID: by.ID, RequestID: by.RequestID, KeyID: &after.ID, Changes: changes}
	if by.Address.IsValid() {
		e.Address = by.Address.String()
	}
	return e, err
}
