package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/plan"
)

// Patch says what is to change of a key, as a JSON merge patch (RFC 7396) does. What it does not say stays.
type Patch struct {
	Name                     *string
	Scopes                   *[]string
	RateLimitPerMinute       Limit
	DailyLimit               Limit
	AllowedCIDRs             *[]string
	Metadata                 json.RawMessage // a merge patch of the metadata; null: empties them; nil: not said
	ExpiresAt                Maybe[Moment]
	Enabled                  *bool
	RotationIntervalDays     Maybe[int]
	RotationWebhookURL       Maybe[string]
	RotationToSecretsManager *bool
}

// Validate lists every field that is out of bounds at now.
func (p *Patch) Validate(now time.Time) []apikey.FieldError {
	n := New{Name: "unchanged", RateLimitPerMinute: p.RateLimitPerMinute, DailyLimit: p.DailyLimit.V, Metadata: p.Metadata,
		ExpiresAt: p.ExpiresAt.V, RotationIntervalDays: p.RotationIntervalDays.V, RotationWebhookURL: p.RotationWebhookURL.V}
	if p.Name != nil {
		n.Name = *p.Name
	}
	if p.Scopes != nil {
		n.Scopes = *p.Scopes
	}
	if p.AllowedCIDRs != nil {
		n.AllowedCIDRs = *p.AllowedCIDRs
	}
	return n.Validate(now)
}

// Update changes what a Patch says of a key that is at the version, or at any when that is 0, and returns the key; when
// nothing is to change it is left as it was. It needs keys:write, and of a key with management scopes all of them; what
// gives such a key more than a name, or takes it out of use, is refused as its creation would be.
//
// It refuses with VersionMismatch another version, unless someone else makes the key what is asked for while it is at work
// (RFC 9110, section 13.1.1), with WrongState a revoked key and one that is archived and would be enabled or disabled, with
// PlanRefused a limit above the plan's, with PlanFull a key that would live again where no place is free, and a key that
// would disable itself (OwnKey) or change its own rights (Escalation).
func (s *Service) Update(ctx context.Context, id apikey.ID, version int64, p Patch) (apikey.Key, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return apikey.Key{}, err
	}
	if err := apikey.Invalid(p.Validate(s.now())); err != nil {
		return apikey.Key{}, err
	}
	end := ""
	if p.Enabled != nil && !*p.Enabled {
		end = apikey.CloseDisable
	}
	var updated apikey.Key
	begun := false // on the version asked for: whoever finishes a closing may be first, and leaves the key as it is to be
	err := s.change(ctx, end, func(ctx context.Context) (Change, error) {
		r, err := s.readToEnd(ctx, by, id, end)
		if err != nil {
			return Change{}, err
		}
		updated = r.Key
		if version != 0 && version != r.Version && !(begun && p.madeOf(r.Key)) {
			return Change{}, apikey.Errorf(apikey.VersionMismatch, "The key is at version %d: read it again.", r.Version)
		}
		begun = true
		c, err := s.patch(ctx, by, r, &p)
		if err == nil {
			updated = c.Update[0].Record.Key
		}
		return c, err
	})
	if err != nil {
		return apikey.Key{}, err
	}
	return updated.At(s.now()), nil
}

// patch decides one attempt of Update.
func (s *Service) patch(ctx context.Context, by caller.Caller, r apikey.Record, p *Patch) (Change, error) {
	now, next := s.now(), r
	if err := p.apply(&next.Key, now); err != nil {
		return Change{}, err
	}
	if err := mayPatch(by, &r, &next); err != nil {
		return Change{}, err
	}
	if err := s.mayReceive(p.RotationWebhookURL.V); err != nil {
		return Change{}, err
	}
	if r.Closing == nil && reflect.DeepEqual(r.Key, next.Key) {
		return Change{}, errNothingToDo
	}
	if err := s.withinOrganization(ctx, by, &r.Key, &next.Key); err != nil {
		return Change{}, err
	}
	if next.Handover != nil && !reflect.DeepEqual(r.RotationWebhookURL, next.RotationWebhookURL) { // perhaps there it is taken
		h := *next.Handover
		h.Gone, h.Next = false, now
		next.Handover = &h
	}
	next.Counted = takesPlace(&next, now)
	return s.update(ctx, by, now, patched(&r.Key, &next.Key), r, next)
}

// apply writes what p says into k.
func (p *Patch) apply(k *apikey.Key, now time.Time) (err error) {
	set(&k.Name, p.Name)
	set(&k.Enabled, p.Enabled)
	set(&k.RotationToSecretsManager, p.RotationToSecretsManager)
	setMaybe(&k.RateLimitPerMinute, p.RateLimitPerMinute)
	setMaybe(&k.DailyLimit, p.DailyLimit)
	setMaybe(&k.RotationWebhookURL, p.RotationWebhookURL)
	if p.Scopes != nil {
		k.Scopes = sorted(*p.Scopes)
	}
	if p.AllowedCIDRs != nil {
		k.AllowedCIDRs = networks(*p.AllowedCIDRs)
	}
	if p.ExpiresAt.Said {
		k.ExpiresAt = nil
		if m := p.ExpiresAt.V; m != nil {
			k.ExpiresAt = &m.Time
		}
		if k.GraceExpiresAt != nil { // a grace that was cut short does not come back by a later expiry
			endGrace(k, *k.GraceExpiresAt)
		}
	}
	if p.RotationIntervalDays.Said && !reflect.DeepEqual(k.RotationIntervalDays, p.RotationIntervalDays.V) {
		k.RotationIntervalDays = p.RotationIntervalDays.V
		k.NextRotationAt = nextRotation(now, k.RotationIntervalDays)
	}
	if k.ReplacedByKeyID != nil {
		k.NextRotationAt = nil
	}
	if p.Metadata != nil {
		k.Metadata, err = mergeMetadata(k.Metadata, p.Metadata)
	}
	return err
}

// madeOf says whether k is as p would have it.
func (p *Patch) madeOf(k apikey.Key) bool {
	next := k
	return p.apply(&next, k.UpdatedAt) == nil && reflect.DeepEqual(next, k)
}

func set[T any](to *T, said *T) {
	if said != nil {
		*to = *said
	}
}

func setMaybe[T any](to **T, said Maybe[T]) {
	if said.Said {
		*to = said.V
	}
}

// mergeMetadata applies a merge patch, and refuses what became too long. Metadata that stay the same are left as they are
// spelt.
func mergeMetadata(metadata, patch json.RawMessage) (json.RawMessage, error) {
	merged, err := merge(object(metadata), object(patch))
	if string(bytes.TrimSpace(patch)) == "null" {
		merged = json.RawMessage("{}")
	}
	if err == nil && sameJSON(metadata, merged) {
		return metadata, nil
	}
	if err == nil && len(merged) > MaxMetadata {
		err = apikey.Invalid([]apikey.FieldError{{Pointer: "/metadata", Detail: fmt.Sprintf("must have at most %d bytes", MaxMetadata)}})
	}
	return merged, err
}

// merge is the MergePatch of RFC 7396, section 2, of two JSON values.
func merge(target, patch json.RawMessage) (json.RawMessage, error) {
	var with, into map[string]json.RawMessage
	if !isObject(patch) {
		return patch, nil
	}
	if err := json.Unmarshal(patch, &with); err != nil {
		return nil, fmt.Errorf("reading a merge patch: %w", err)
	}
	if !isObject(target) || json.Unmarshal(target, &into) != nil {
		into = map[string]json.RawMessage{}
	}
	for name, value := range with {
		if string(value) == "null" {
			delete(into, name)
			continue
		}
		merged, err := merge(into[name], value)
		if err != nil {
			return nil, err
		}
		into[name] = merged
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(into)
	return bytes.TrimSpace(b.Bytes()), err
}

// sameJSON says whether two values differ at most in the order of members, white space and escapes.
func sameJSON(a, b json.RawMessage) bool {
	var values [2]any
	for i, text := range []json.RawMessage{a, b} {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if d.Decode(&values[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

func isObject(value json.RawMessage) bool {
	return bytes.HasPrefix(bytes.TrimSpace(value), []byte("{"))
}

// patched names what a change did.
func patched(before, after *apikey.Key) audit.Action {
	switch {
	case before.Enabled && !after.Enabled:
		return audit.Disabled
	case !before.Enabled && after.Enabled:
		return audit.Enabled
	}
	return audit.Updated
}

// mayPatch refuses a change that the key's state does not take or that its caller may not make.
func mayPatch(by caller.Caller, before, after *apikey.Record) error {
	switch {
	case before.RevokedAt != nil:
		return apikey.Errorf(apikey.WrongState, "The key is revoked: nothing of it can be changed.")
	case before.ArchivedAt != nil && before.Enabled != after.Enabled:
		return apikey.Errorf(apikey.WrongState, "The key is archived. Reactivate it first.")
	}
	rest := after.Key
	rest.Name, rest.Metadata = before.Name, before.Metadata
	named := reflect.DeepEqual(rest, before.Key) // nothing but its name and metadata changes
	rest.Enabled = before.Enabled
	retired := reflect.DeepEqual(rest, before.Key) && !after.Enabled // and at most it is switched off
	if own := notItself(by, before); own != nil && !named {
		if before.Enabled && !after.Enabled {
			return own
		}
		return apikey.Errorf(apikey.Escalation, "A key cannot change its own rights, limits, expiry or rotation, nor its successor's: only the name and the metadata. Use another key of your organization.")
	}
	if named || retired {
		return mayManage(by, &before.Key)
	}
	if err := mayGrant(by, &before.Key); err != nil {
		return err
	}
	return mayGrant(by, &after.Key)
}

// withinOrganization refuses what the organization or its plan does not allow, as far as it is new: what a key has already
// it keeps.
func (s *Service) withinOrganization(ctx context.Context, by caller.Caller, before, after *apikey.Key) error {
	added := slices.DeleteFunc(slices.Clone(after.Scopes), func(scope string) bool { return slices.Contains(before.Scopes, scope) })
	joins := !runsTheService(after.Scopes) && runsTheService(before.Scopes) // from now on it is bound by the plan
	perMinute := joins || raised(before.RateLimitPerMinute, after.RateLimitPerMinute)
	perDay := joins || raised(before.DailyLimit, after.DailyLimit)
	if len(added) == 0 && !perMinute && !perDay {
		return nil
	}
	o, p, err := s.organization(ctx, by)
	if err != nil {
		return err
	}
	if err := mayServe(s.allowed(o), added); err != nil || runsTheService(after.Scopes) {
		return err
	}
	if !perMinute {
		p.HighestPerMinute = plan.Unlimited
	}
	if !perDay {
		p.HighestPerDay = plan.Unlimited
	}
	return withinPlan(p, after)
}

// raised says whether a limit is higher than before, where none is the highest.
func raised(before, after *int64) bool {
	return before != nil && (after == nil || *after > *before)
}
