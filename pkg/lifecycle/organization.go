package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/plan"
)

// Standing is what an organization has and may have.
type Standing struct {
	ID                        string     `json:"id"`
	Plan                      string     `json:"plan"`
	KeyLimit                  *int64     `json:"key_limit"` // null: unlimited; 0: the plan has no keys
	ActiveKeys                int64      `json:"active_keys"`
	DefaultRateLimitPerMinute int64      `json:"default_rate_limit_per_minute"`
	HighestRateLimitPerMinute *int64     `json:"highest_rate_limit_per_minute"` // null: unlimited
	HighestDailyLimit         *int64     `json:"highest_daily_limit"`           // null: unlimited
	AllowedScopes             []string   `json:"allowed_scopes"`
	CreatedAt                 *time.Time `json:"created_at"` // null: nothing of it is stored yet
}

// OrganizationPatch is what operators change of an organization. What it does not say stays; null takes back what they
// said before.
type OrganizationPatch struct {
	Plan          Maybe[string]   // null: the plan that tokens claim, or the default
	AllowedScopes Maybe[[]string] // null: the default
}

// OwnOrganization returns the caller's organization. It needs keys:read.
func (s *Service) OwnOrganization(ctx context.Context) (Standing, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysRead); err != nil {
		return Standing{}, err
	}
	o, err := s.claimed(ctx, by)
	if err != nil {
		return Standing{}, err
	}
	return s.standing(&o), nil
}

// OrganizationOf returns any organization. It needs org:admin.
func (s *Service) OrganizationOf(ctx context.Context, id string) (Standing, error) {
	if err := need(caller.From(ctx), apikey.OrgAdmin); err != nil {
		return Standing{}, err
	}
	o, err := s.stored(ctx, id)
	if err != nil {
		return Standing{}, err
	}
	return s.standing(&o), nil
}

// SetOrganization changes an organization, or makes it when there is none, and returns it. It needs org:admin. A lower
// plan leaves every key alive, and refuses new ones until there is room. It refuses with InvalidFields an id that may be none, a
// plan that is not in the table, and scopes that are none.
func (s *Service) SetOrganization(ctx context.Context, id string, p OrganizationPatch) (Standing, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.OrgAdmin); err != nil {
		return Standing{}, err
	}
	if err := apikey.Invalid(s.wrongWith(id, &p)); err != nil {
		return Standing{}, err
	}
	o, err := s.put(ctx, by, id, func(o *Organization) {
		if p.Plan.Said {
			o.Plan = orEmpty(p.Plan.V)
		}
		if p.AllowedScopes.Said {
			o.AllowedScopes = nil
			if list := p.AllowedScopes.V; list != nil {
				o.AllowedScopes = append([]string{}, *list...)
			}
		}
	})
	if err != nil {
		return Standing{}, err
	}
	return s.standing(&o), nil
}

func (s *Service) wrongWith(id string, p *OrganizationPatch) []apikey.FieldError {
	var f fieldErrors
	f.need(ValidID(id), "", "An organization's id must have 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + -")
	if name := p.Plan.V; name != nil {
		_, ok := s.Plans[*name]
		f.need(ok, "/plan", "must be a plan of this service")
	}
	if list := p.AllowedScopes.V; list != nil {
		f.need(len(*list) <= MaxScopes, "/allowed_scopes", "must have at most 100 scopes")
		f.need(!slices.ContainsFunc(*list, func(scope string) bool { return !ValidAllowed(scope) }), "/allowed_scopes",
			"must be scopes, or beginnings of scopes ending in *")
	}
	return f
}

// ValidAllowed says whether an organization may be allowed the text: a scope, or the beginning of some, ending in "*".
func ValidAllowed(scope string) bool {
	prefix, all := strings.CutSuffix(scope, "*")
	return apikey.ValidScope(prefix) || all && prefix == ""
}

// AddOrganization creates the caller's organization on a plan of the table, and says whether it did: one that exists
// is left as it is. It needs org:admin.
func (s *Service) AddOrganization(ctx context.Context, planName string, allowedScopes []string) (added bool, err error) {
	by := caller.From(ctx)
	if err := need(by, apikey.OrgAdmin); err != nil {
		return false, err
	}
	p := OrganizationPatch{Plan: Maybe[string]{true, &planName}, AllowedScopes: Maybe[[]string]{true, &allowedScopes}}
	if err := apikey.Invalid(s.wrongWith(by.OrganizationID, &p)); err != nil {
		return false, err
	}
	now := s.now()
	_, err = s.put(ctx, by, by.OrganizationID, func(o *Organization) {
		switch {
		case o.Version == 0:
			o.Plan, o.AllowedScopes, o.CreatedAt, added = planName, allowedScopes, now, true
		case added: // by an attempt whose answer was lost, or by someone else
			added = o.Plan == planName && o.CreatedAt.Equal(now)
		}
	})
	return added && err == nil, err
}

// put makes of an organization what edit says, and returns it as it is then stored. It reads and edits again when someone
// else came first or the store's answer was lost, until nothing is left to change.
func (s *Service) put(ctx context.Context, by caller.Caller, id string, edit func(*Organization)) (Organization, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		o, err := s.putOnce(ctx, by, id, edit)
		if err == nil {
			return o, nil
		}
		if s.pause(ctx) != nil {
			return o, unavailable(err)
		}
	}
}

func (s *Service) putOnce(ctx context.Context, by caller.Caller, id string, edit func(*Organization)) (Organization, error) {
	now := s.now()
	before, err := s.Store.Organization(ctx, id)
	if errors.Is(err, ErrNotFound) {
		before, err = Organization{ID: id, CreatedAt: now}, nil
	}
	if err != nil {
		return before, err
	}
	after := before
	if edit(&after); after.Version > 0 && reflect.DeepEqual(before, after) {
		return before, nil
	}
	after.Version++
	return after, s.Store.PutOrganization(ctx, after, organizationEntry(by, now, &before, &after))
}

// organizationEntry tells what a put changes.
func organizationEntry(by caller.Caller, now time.Time, before, after *Organization) audit.Entry {
	e := audit.Entry{ID: audit.NewID(now), OrganizationID: after.ID, At: now, Action: audit.OrgUpdated, ActorKind: string(by.Kind),
		ActorID: by.ID, RequestID: by.RequestID}
	if before.Version == 0 {
		e.Action = audit.OrgCreated
	}
	if by.Address.IsValid() {
		e.Address = by.Address.String()
	}
	for _, field := range []struct {
		name     string
		from, to any
	}{
		{"plan", orNull(before.Plan), orNull(after.Plan)},
		{"claimed_plan", orNull(before.ClaimedPlan), orNull(after.ClaimedPlan)},
		{"allowed_scopes", before.AllowedScopes, after.AllowedScopes},
		{"signing_secrets", len(before.Signing), len(after.Signing)}, // how many: they are in no trail themselves
	} {
		if !reflect.DeepEqual(field.from, field.to) {
			from, _ := json.Marshal(field.from) // strings alone
			to, _ := json.Marshal(field.to)
			e.Changes = append(e.Changes, audit.Change{Field: field.name, From: from, To: to})
		}
	}
	return e
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// stored is an organization as it is stored, or NotFound.
func (s *Service) stored(ctx context.Context, id string) (Organization, error) {
	o, err := s.Store.Organization(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return o, apikey.Errorf(apikey.NotFound, "There is no organization %s.", id)
	case err != nil:
		return o, unavailable(err)
	}
	return o, nil
}

// claimed is the caller's organization as the caller's token speaks of it. A person's need not be stored yet.
func (s *Service) claimed(ctx context.Context, by caller.Caller) (Organization, error) {
	o, err := s.stored(ctx, by.OrganizationID)
	if by.Kind == caller.User {
		if apikey.CodeOf(err) == apikey.NotFound {
			o, err = Organization{ID: by.OrganizationID}, nil
		}
		o.hear(by)
	}
	return o, err
}

// hear takes the plan that a person's token claims, unless a token issued later has claimed one.
func (o *Organization) hear(by caller.Caller) {
	if by.Plan != "" && !by.PlanAt.Before(o.ClaimedAt) {
		o.ClaimedPlan, o.ClaimedAt = by.Plan, by.PlanAt
	}
}

// planOf is the plan that operators gave the organization, or else the one that its tokens claim, or else the default.
func (s *Service) planOf(o *Organization) (plan.Plan, error) {
	name := cmp.Or(o.Plan, o.ClaimedPlan, s.DefaultPlan, plan.Free)
	p, ok := s.Plans[name]
	if !ok {
		return plan.Plan{Name: name}, apikey.Errorf(apikey.PlanRefused, "The plan %q of your organization is not offered here. Ask whoever runs this service.", name)
	}
	return p, nil
}

// allowed is the service scopes that the organization's keys may have.
func (s *Service) allowed(o Organization) []string {
	if o.AllowedScopes == nil {
		return s.AllowedScopes
	}
	return o.AllowedScopes
}

func (s *Service) standing(o *Organization) Standing {
	p, _ := s.planOf(o) // one that is not offered has nothing
	st := Standing{ID: o.ID, Plan: p.Name, KeyLimit: bound(p.Keys), ActiveKeys: o.ActiveKeys, DefaultRateLimitPerMinute: p.DefaultPerMinute,
		HighestRateLimitPerMinute: bound(p.HighestPerMinute), HighestDailyLimit: bound(p.HighestPerDay),
		AllowedScopes: append([]string{}, s.allowed(*o)...)}
	if o.Version > 0 {
		st.CreatedAt = &o.CreatedAt
	}
	return st
}

// bound is a number of a plan as clients see it: null for none.
func bound(n int64) *int64 {
	if n == plan.Unlimited {
		return nil
	}
	return &n
}

// organization is the caller's organization and its plan.
func (s *Service) organization(ctx context.Context, by caller.Caller) (Organization, plan.Plan, error) {
	o, err := s.claimed(ctx, by)
	if err != nil {
		return o, plan.Plan{}, err
	}
	p, err := s.planOf(&o)
	return o, p, err
}

// room is the caller's organization as it is stored, if its plan has keys and, when a place is needed, one is free. What a
// person's token says of it is stored first; of an organization whose plan has no keys nothing is stored.
func (s *Service) room(ctx context.Context, by caller.Caller, place bool) (Organization, plan.Plan, error) {
	o, p, err := s.organization(ctx, by)
	if err == nil && by.Kind == caller.User && (o.Version > 0 || p.Managed()) {
		o, err = s.put(ctx, by, o.ID, func(o *Organization) { o.hear(by) })
		if err == nil { // put read it again: the plan is that of the version which the change will ask for
			p, err = s.planOf(&o)
		}
	}
	if err == nil && place && p.Managed() && o.ActiveKeys >= p.Keys {
		if err = s.endExpired(ctx, o.ID); err == nil {
			o, p, err = s.organization(ctx, by)
		}
	}
	switch {
	case err != nil:
		return o, p, err
	case place && !p.Managed():
		return o, p, apikey.Errorf(apikey.PlanRefused, "The plan %s has no API keys. Change the plan.", p.Name)
	case place && o.ActiveKeys >= p.Keys:
		return o, p, apikey.Errorf(apikey.PlanRefused, "The number of API keys on the plan %s is limited to %d, and all are in use. Revoke one, or change the plan.", p.Name, p.Keys)
	}
	return o, p, nil
}

// taken is the Count of one more key in the organization as it was read.
func (o *Organization) taken(p plan.Plan) *Count {
	return &Count{OrganizationID: o.ID, Delta: 1, Version: o.Version, Max: p.Keys}
}

// comeBack is the Count of a key that takes a place again.
func (s *Service) comeBack(ctx context.Context, by caller.Caller) (*Count, error) {
	o, p, err := s.room(ctx, by, true)
	var refused *apikey.Error
	if errors.As(err, &refused) && refused.Code == apikey.PlanRefused {
		return nil, apikey.Errorf(apikey.PlanFull, "%s", refused.Message)
	}
	return o.taken(p), err
}

// endExpired frees the places of keys whose end has passed, and of those that a crash left closing.
func (s *Service) endExpired(ctx context.Context, organizationID string) error {
	by := caller.Caller{OrganizationID: organizationID, Kind: caller.Operator, ID: "latchkey"}
	q := Query{OrganizationID: organizationID, Limit: pageSize}
	for {
		page, more, err := s.Store.Keys(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for _, r := range page {
			q.Before = PositionOf(&r)
			if !r.Counted || !r.Over(s.now()) && r.Closing == nil {
				continue
			}
			if err := s.endOne(ctx, by, r.ID); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

func (s *Service) endOne(ctx context.Context, by caller.Caller, id apikey.ID) error {
	return s.change(ctx, "", func(ctx context.Context) (Change, error) {
		r, err := s.read(ctx, by, id)
		if err != nil {
			return Change{}, err
		}
		now := s.now()
		if !r.Counted || !r.Over(now) {
			return Change{}, errNothingToDo
		}
		return s.over(ctx, r, now)
	})
}
