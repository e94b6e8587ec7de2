package lifecycle

import (
	"context"
	"errors"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/plan"
)

// AddOrganization creates the caller's organization on a plan of the table, and says whether it did: one that exists
// is left as it is. It needs org:admin.
func (s *Service) AddOrganization(ctx context.Context, planName string, allowedScopes []string) (added bool, err error) {
	by := caller.From(ctx)
	if err := need(by, apikey.OrgAdmin); err != nil {
		return false, err
	}
	if _, ok := s.Plans[planName]; !ok || !ValidID(by.OrganizationID) {
		return false, apikey.Errorf(apikey.InvalidFields, "There is no plan %q, or %q is not an organization's id.", planName, by.OrganizationID)
	}
	for _, scope := range allowedScopes {
		if prefix, all := strings.CutSuffix(scope, "*"); !apikey.ValidScope(prefix) && !(all && prefix == "") {
			return false, apikey.Errorf(apikey.InvalidFields, "%q is neither a scope nor the beginning of scopes, ending in *.", scope)
		}
	}
	now := s.now()
	o := Organization{ID: by.OrganizationID, Plan: planName, AllowedScopes: allowedScopes, CreatedAt: now, Version: 1}
	return s.addOrganization(ctx, o, audit.Entry{ID: audit.NewID(now), OrganizationID: o.ID, At: now,
		Action: audit.OrgCreated, ActorKind: string(by.Kind), ActorID: by.ID, RequestID: by.RequestID})
}

// addOrganization tries until it is certain whether o is there, and whether it is this one.
func (s *Service) addOrganization(ctx context.Context, o Organization, e audit.Entry) (added bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for inDoubt := false; ; inDoubt = inDoubt || !again(err) {
		err = s.Store.PutOrganization(ctx, o, e)
		if err == nil || errors.Is(err, ErrChanged) && !inDoubt {
			return err == nil, nil
		}
		if errors.Is(err, ErrChanged) { // by the attempt whose answer was lost, or by someone else
			there, err := s.Store.Organization(ctx, o.ID)
			if err == nil {
				return there.Plan == o.Plan && there.CreatedAt.Equal(o.CreatedAt), nil
			}
		}
		if pause(ctx) != nil {
			return false, unavailable(err)
		}
	}
}

// organization is the caller's organization and its plan.
func (s *Service) organization(ctx context.Context, by caller.Caller) (Organization, plan.Plan, error) {
	o, err := s.Store.Organization(ctx, by.OrganizationID)
	switch {
	case errors.Is(err, ErrNotFound):
		return o, plan.Plan{}, apikey.Errorf(apikey.NotFound, "There is no organization %s.", by.OrganizationID)
	case err != nil:
		return o, plan.Plan{}, unavailable(err)
	}
	p, ok := s.Plans[o.Plan]
	if !ok {
		return o, p, apikey.Errorf(apikey.PlanRefused, "The plan %q of your organization is not offered here. Ask whoever runs this service.", o.Plan)
	}
	return o, p, nil
}

// room is the caller's organization, if its plan has keys and, when a place is needed, one is free.
func (s *Service) room(ctx context.Context, by caller.Caller, place bool) (Organization, plan.Plan, error) {
	o, p, err := s.organization(ctx, by)
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

// endExpired frees the places of keys whose end has passed.
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
			if !r.Counted || !r.Over(s.now()) {
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
		r, err := s.read(ctx, by.OrganizationID, id)
		if err != nil {
			return Change{}, err
		}
		now := s.now()
		if !r.Counted || !r.Over(now) {
			return Change{}, errNothingToDo
		}
		next := r
		next.Counted = false
		return s.update(by, now, audit.Expired, r, next)
	})
}
