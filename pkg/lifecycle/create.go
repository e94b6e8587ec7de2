package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/plan"
)

// Create makes a key in the caller's organization. It needs keys:write.
//
// It refuses with InvalidFields what Validate lists, with ScopeNotHeld or Escalation a key that could do more than the
// caller, with ScopeNotAllowed a service scope outside the organization's, and with PlanRefused a limit above the plan's
// or one key too many. A full plan first ends its expired keys.
func (s *Service) Create(ctx context.Context, n New) (apikey.Issued, error) {
	return s.CreateOnce(ctx, Once{}, n)
}

// CreateOnce is Create, made once: see Once.
func (s *Service) CreateOnce(ctx context.Context, once Once, n New) (apikey.Issued, error) {
	by := caller.From(ctx)
	if err := need(by, apikey.KeysWrite); err != nil {
		return apikey.Issued{}, err
	}
	if err := apikey.Invalid(n.Validate(s.now())); err != nil {
		return apikey.Issued{}, err
	}
	var issued apikey.Issued
	again := func(a *answer) { issued = a.issued() }
	err := s.change(ctx, "", func(ctx context.Context) (Change, error) {
		return once.attempt(ctx, s, by, again, func() (c Change, err error) {
			c, issued, err = s.creation(ctx, by, n)
			if err == nil {
				err = once.keep(ctx, s, by, &c, nil, issued)
			}
			return c, err
		})
	})
	if err != nil {
		return apikey.Issued{}, err
	}
	return issued, nil
}

// runsTheService says whether a key with the scopes is one of those that take no place in a plan and are bound by none.
func runsTheService(scopes []string) bool { return slices.Contains(scopes, apikey.OrgAdmin) }

// takesPlace says whether a key counts in its organization's plan: not one that runs the service, is archived, revoked or
// over, or was replaced by one that counts.
func takesPlace(r *apikey.Record, now time.Time) bool {
	return !runsTheService(r.Scopes) && (r.ReplacedByKeyID == nil || r.Lone) && r.ArchivedAt == nil && r.RevokedAt == nil && !r.Over(now)
}

// creation decides one attempt of Create.
func (s *Service) creation(ctx context.Context, by caller.Caller, n New) (Change, apikey.Issued, error) {
	o, p, err := s.room(ctx, by, !runsTheService(n.Scopes))
	if err != nil {
		return Change{}, apikey.Issued{}, err
	}
	r, text, err := s.draft(by, o, p, n)
	if err != nil {
		return Change{}, apikey.Issued{}, err
	}
	e, err := entry(by, r.CreatedAt, audit.Created, nil, r.Key)
	if err != nil {
		return Change{}, apikey.Issued{}, err
	}
	r.Told = told(nil, &r.Key, r.Told, r.CreatedAt)
	r = s.stamp(r, e)
	c := Change{Create: &r, Entry: e}
	if r.Counted {
		c.Count = o.taken(p)
	}
	return c, apikey.Issued{Key: r.Key.At(r.CreatedAt), Plaintext: text}, nil
}

// draft is the record of a new key, if the caller and the plan allow it.
func (s *Service) draft(by caller.Caller, o Organization, p plan.Plan, n New) (apikey.Record, apikey.Plaintext, error) {
	now, minted := s.now(), s.Format.Mint(orEmpty(n.EnvironmentID))
	k := apikey.Key{
		ID: minted.ID, KeyPrefix: minted.Prefix, OrganizationID: o.ID, ProjectID: n.ProjectID,
		EnvironmentID: n.EnvironmentID, ExternalID: n.ExternalID, Name: n.Name, Scopes: sorted(n.Scopes), Enabled: true,
		RateLimitPerMinute: n.RateLimitPerMinute.V, DailyLimit: n.DailyLimit, AllowedCIDRs: networks(n.AllowedCIDRs),
		Metadata: object(n.Metadata), CreatedBy: by.ID, CreatedAt: now, UpdatedAt: now,
		RotationIntervalDays: n.RotationIntervalDays, NextRotationAt: nextRotation(now, n.RotationIntervalDays),
		RotationWebhookURL: n.RotationWebhookURL, RotationToSecretsManager: n.RotationToSecretsManager,
	}
	if n.ExpiresAt != nil {
		k.ExpiresAt = &n.ExpiresAt.Time
	}
	if !n.RateLimitPerMinute.Said {
		k.RateLimitPerMinute = new(p.DefaultPerMinute)
	}
	r := apikey.Record{Key: k, Hash: minted.Plaintext.Hash(), Counted: !runsTheService(n.Scopes)}
	if err := s.mayReceive(k.RotationWebhookURL); err != nil {
		return r, minted.Plaintext, err
	}
	if err := mayGrant(by, &k); err != nil {
		return r, minted.Plaintext, err
	}
	if err := mayServe(s.allowed(o), k.Scopes); err != nil {
		return r, minted.Plaintext, err
	}
	if !r.Counted { // a key that runs the service is bound by no plan
		return r, minted.Plaintext, nil
	}
	return r, minted.Plaintext, withinPlan(p, &k)
}

func withinPlan(p plan.Plan, k *apikey.Key) error {
	if !plan.Allows(p.HighestPerMinute, k.RateLimitPerMinute) {
		return apikey.Errorf(apikey.PlanRefused, "The plan %s allows at most %d requests a minute. Ask for less, or change the plan.",
			p.Name, p.HighestPerMinute)
	}
	if !plan.Allows(p.HighestPerDay, k.DailyLimit) {
		return apikey.Errorf(apikey.PlanRefused, "The plan %s allows at most %d requests a day. Ask for less, or change the plan.",
			p.Name, p.HighestPerDay)
	}
	return nil
}

// nextRotation is when a key made at now is due, or nil.
func nextRotation(now time.Time, days *int) *time.Time {
	if days == nil {
		return nil
	}
	return new(now.AddDate(0, 0, *days))
}

func sorted(scopes []string) []string {
	return append([]string{}, slices.Sorted(slices.Values(scopes))...)
}

// networks are valid CIDRs in their one spelling.
func networks(cidrs []string) []string {
	list := []string{}
	for _, text := range cidrs {
		if p, err := ParseCIDR(text); err == nil && !slices.Contains(list, p.String()) {
			list = append(list, p.String())
		}
	}
	slices.Sort(list)
	return list
}

// object is metadata without white space; {} when there is none.
func object(metadata json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, metadata); err != nil || b.String() == "null" {
		return json.RawMessage("{}")
	}
	return b.Bytes()
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
