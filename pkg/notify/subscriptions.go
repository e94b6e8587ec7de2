package notify

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// patience is how long a change is tried against others under way.
const patience = 5 * time.Second

const subscriptionPrefix = "wh_"

// errNothingToDo ends a change that finds its goal reached.
var errNothingToDo = errors.New("nothing to do")

// All the verbs need what lifecycle.MayUseWebhooks asks for. What belongs to another organization does not exist.

// List returns the organization's subscriptions, the oldest first.
func (s *Service) List(ctx context.Context) ([]Subscription, error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return nil, err
	}
	all, err := s.Store.Subscriptions(ctx, by.OrganizationID)
	if err != nil {
		return nil, unavailable(err)
	}
	return append([]Subscription{}, all.List...), nil
}

// Get returns a subscription.
func (s *Service) Get(ctx context.Context, id string) (Subscription, error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return Subscription{}, err
	}
	return s.get(ctx, by.OrganizationID, id)
}

func (s *Service) get(ctx context.Context, organizationID, id string) (Subscription, error) {
	all, err := s.Store.Subscriptions(ctx, organizationID)
	if err != nil {
		return Subscription{}, unavailable(err)
	}
	if sub := all.find(id); sub != nil {
		return *sub, nil
	}
	return Subscription{}, noWebhook()
}

func noWebhook() error {
	return apikey.Errorf(apikey.NotFound, "There is no such webhook.")
}

func (s *Subscriptions) find(id string) *Subscription {
	if at := slices.IndexFunc(s.List, func(sub Subscription) bool { return sub.ID == id }); at >= 0 {
		return &s.List[at]
	}
	return nil
}

// Create makes a subscription. It refuses with TooMany one beyond MaxSubscriptions, and with NoSealingKey any where nothing
// can be signed.
func (s *Service) Create(ctx context.Context, n New) (Subscription, error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return Subscription{}, err
	}
	if err := apikey.Invalid(s.Validate(n)); err != nil {
		return Subscription{}, err
	}
	if _, err := s.Secrets(ctx, by.OrganizationID); err != nil {
		return Subscription{}, err
	}
	now := s.now()
	sub := Subscription{ID: subscriptionPrefix + audit.NewID(now), OrganizationID: by.OrganizationID, URL: n.URL, EventTypes: n.EventTypes,
		Description: n.Description, Enabled: n.Enabled == nil || *n.Enabled, CreatedBy: by.ID, CreatedAt: now, UpdatedAt: now}
	err = s.change(ctx, by, func(all *Subscriptions, _ time.Time) (audit.Action, []audit.Change, error) {
		switch {
		case all.find(sub.ID) != nil:
			return "", nil, errNothingToDo
		case len(all.List) >= MaxSubscriptions:
			return "", nil, apikey.Errorf(apikey.TooMany, "An organization has at most %d webhooks. Delete one that is not needed any more.", MaxSubscriptions)
		}
		all.List = append(all.List, sub)
		return audit.WebhookCreated, changes(Subscription{}, sub), nil
	})
	return sub, err
}

// Update changes what a Patch says of a subscription, and returns it; when nothing is to change it is left as it was.
func (s *Service) Update(ctx context.Context, id string, p Patch) (Subscription, error) {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return Subscription{}, err
	}
	if err := apikey.Invalid(s.ValidatePatch(p)); err != nil {
		return Subscription{}, err
	}
	var after Subscription
	err = s.change(ctx, by, func(all *Subscriptions, now time.Time) (audit.Action, []audit.Change, error) {
		sub := all.find(id)
		if sub == nil {
			return "", nil, noWebhook()
		}
		before := *sub
		p.apply(sub)
		if after = *sub; reflect.DeepEqual(before, after) {
			return "", nil, errNothingToDo
		}
		sub.UpdatedAt = now
		after = *sub
		return audit.WebhookUpdated, changes(before, after), nil
	})
	return after, err
}

func (p *Patch) apply(sub *Subscription) {
	if p.URL != nil {
		sub.URL = *p.URL
	}
	if p.EventTypes != nil {
		sub.EventTypes = slices.Clone(*p.EventTypes)
	}
	if p.Description.Said {
		sub.Description = p.Description.V
	}
	if p.Enabled != nil {
		sub.Enabled = *p.Enabled
	}
	if sub.Enabled {
		sub.DisabledReason = nil
	}
}

// Delete ends a subscription for good. What is still to be delivered to it is canceled.
func (s *Service) Delete(ctx context.Context, id string) error {
	by, err := lifecycle.MayUseWebhooks(ctx)
	if err != nil {
		return err
	}
	tried := false
	return s.change(ctx, by, func(all *Subscriptions, _ time.Time) (audit.Action, []audit.Change, error) {
		sub := all.find(id)
		switch {
		case sub == nil && tried: // and the answer was lost, or someone else did it
			return "", nil, errNothingToDo
		case sub == nil:
			return "", nil, noWebhook()
		}
		before := *sub
		all.List = slices.DeleteFunc(all.List, func(sub Subscription) bool { return sub.ID == id })
		tried = true
		return audit.WebhookDeleted, changes(before, Subscription{}), nil
	})
}

// disable takes a subscription out of use whose receiver, at that URL, wants no more.
func (s *Service) disable(ctx context.Context, organizationID, id, url string) error {
	return s.change(ctx, nobody(organizationID), func(all *Subscriptions, now time.Time) (audit.Action, []audit.Change, error) {
		sub := all.find(id)
		if sub == nil || !sub.Enabled || sub.URL != url {
			return "", nil, errNothingToDo
		}
		before := *sub
		sub.Enabled, sub.DisabledReason, sub.UpdatedAt = false, new(Gone), now
		return audit.WebhookDisabled, changes(before, *sub), nil
	})
}

// change makes of an organization's subscriptions what edit says, and tells the audit trail. It reads and edits again when
// someone else came first or the store's answer was lost, until nothing is left to change: what edit has done before
// it must find done.
func (s *Service) change(ctx context.Context, by caller.Caller, edit func(*Subscriptions, time.Time) (audit.Action, []audit.Change, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := s.changeOnce(ctx, by, edit)
		if err == nil || errors.Is(err, errNothingToDo) {
			return nil
		}
		if _, refused := errors.AsType[*apikey.Error](err); refused {
			return err
		}
		if s.pause(ctx) != nil {
			return unavailable(err)
		}
	}
}

func (s *Service) changeOnce(ctx context.Context, by caller.Caller, edit func(*Subscriptions, time.Time) (audit.Action, []audit.Change, error)) error {
	all, err := s.Store.Subscriptions(ctx, by.OrganizationID)
	if err != nil {
		return err
	}
	now := s.now()
	action, said, err := edit(&all, now)
	if err != nil {
		return err
	}
	all.Version++
	return s.Store.PutSubscriptions(ctx, all, entry(by, now, action, said))
}

// changes tells what differs between two states of a subscription, the zero Subscription for none, and of which it is told.
func changes(before, after Subscription) []audit.Change {
	list := []audit.Change{{Field: "webhook_id", From: printed(before.ID), To: printed(after.ID)}}
	for _, field := range []struct {
		name     string
		from, to any
	}{
		{"url", before.URL, after.URL},
		{"event_types", before.EventTypes, after.EventTypes},
		{"description", before.Description, after.Description},
		{"enabled", before.Enabled, after.Enabled},
		{"disabled_reason", before.DisabledReason, after.DisabledReason},
	} {
		c := audit.Change{Field: field.name, From: printed(field.from), To: printed(field.to)}
		if before.ID == "" {
			c.From = nil
		}
		if after.ID == "" {
			c.To = nil
		}
		if string(c.From) == string(c.To) {
			continue
		}
		if field.name == "url" {
			c.From, c.To = receiver(before.URL), receiver(after.URL)
		}
		list = append(list, c)
	}
	return list
}

// receiver is what is told of an address, which may hold a secret, as JSON: nil for none.
func receiver(address string) json.RawMessage {
	if address == "" {
		return nil
	}
	return printed(audit.Receiver(address))
}

// printed is a value as JSON, nil for "" and null.
func printed(v any) json.RawMessage {
	b, _ := json.Marshal(v) // of texts and truths alone
	if v == "" || string(b) == "null" {
		return nil
	}
	return b
}

// Validate lists every field that is out of bounds.
func (s *Service) Validate(n New) []apikey.FieldError {
	var f fieldErrors
	err := s.Sender.Check(n.URL)
	if err != nil {
		f.need(false, "/url", err.Error())
	}
	f.eventTypes(n.EventTypes)
	d := orEmpty(n.Description)
	f.need(utf8.RuneCountInString(d) <= MaxDescription && utf8.ValidString(d) && !strings.ContainsFunc(d, unicode.IsControl),
		"/description", "must have at most 200 characters, none of them a control character")
	return f
}

// ValidatePatch lists every field that is out of bounds.
func (s *Service) ValidatePatch(p Patch) []apikey.FieldError {
	n := New{URL: orEmpty(p.URL), EventTypes: orEmpty(p.EventTypes), Description: p.Description.V}
	return slices.DeleteFunc(s.Validate(n), func(f apikey.FieldError) bool {
		return p.URL == nil && f.Pointer == "/url" || p.EventTypes == nil && strings.HasPrefix(f.Pointer, "/event_types")
	})
}

// fieldErrors collects what is wrong with a request.
type fieldErrors []apikey.FieldError

func (f *fieldErrors) need(ok bool, pointer, detail string) {
	if !ok {
		*f = append(*f, apikey.FieldError{Pointer: pointer, Detail: detail})
	}
}

func (f *fieldErrors) eventTypes(types []string) {
	f.need(len(types) >= 1 && len(types) <= MaxEventTypes, "/event_types", "must have 1 to 50 event types")
	seen := map[string]bool{}
	for i, t := range types[:min(len(types), MaxEventTypes)] {
		pointer := "/event_types/" + strconv.Itoa(i)
		known := slices.ContainsFunc(audit.Actions(), func(a audit.Action) bool { return covers(t, a) })
		f.need(known, pointer, `must be an event type such as api_key.created, or the beginning of one ending in "*", such as api_key.*`)
		f.need(!seen[t], pointer, "stands twice")
		seen[t] = true
	}
}

// covers says whether an event type of a subscription, which may end in "*", covers an event's.
func covers(pattern string, action audit.Action) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(string(action), prefix)
	}
	return pattern == string(action)
}

func (sub *Subscription) wants(action audit.Action) bool {
	return sub.Enabled && slices.ContainsFunc(sub.EventTypes, func(t string) bool { return covers(t, action) })
}
