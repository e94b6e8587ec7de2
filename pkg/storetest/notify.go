package storetest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/webhook"
	"github.com/latchkey/latchkey/pkg/work"
)

var webhookTests = []test{
	{"an organization without webhooks has none, at version 0", func(s *suite) {
		s.subscribed(notify.Subscriptions{OrganizationID: s.organization})
	}},
	{"webhooks come back as they were put, with their entry", func(s *suite) {
		all := s.subscribes(1, s.subscription(), s.emptySubscription())
		s.subscribed(all)
		if trail := s.trail(); len(trail) != 2 {
			s.Errorf("the trail has %d entries, want the organization's and one", len(trail))
		}
		all = s.subscribes(2, all.List[1])
		s.subscribed(all)
		s.subscribed(s.subscribes(3))
	}},
	{"webhooks at another version are left alone, and nothing is told", func(s *suite) {
		all := s.subscribes(1, s.subscription())
		trail := s.trail()
		for _, version := range []int64{1, 3, 4} {
			next := notify.Subscriptions{OrganizationID: s.organization, Version: version}
			s.wants(s.PutSubscriptions(s.Context(), next, s.entry(nil, audit.WebhookDeleted)), lifecycle.ErrChanged)
		}
		s.subscribed(all)
		if now := s.trail(); !slices.Equal(now, trail) {
			s.Errorf("the trail is %v, want %v", now, trail)
		}
	}},
	{"an entry that exists is not replaced, and then the webhooks are left alone too", func(s *suite) {
		e := s.entry(nil, audit.WebhookCreated)
		all := notify.Subscriptions{OrganizationID: s.organization, List: []notify.Subscription{s.subscription()}, Version: 1}
		s.must(s.PutSubscriptions(s.Context(), all, e))
		s.wants(s.PutSubscriptions(s.Context(), notify.Subscriptions{OrganizationID: s.organization, Version: 2}, e), lifecycle.ErrChanged)
		s.subscribed(all)
	}},
	{"of many who put at once one does", func(s *suite) {
		errs := race(8, func(int) error {
			return settled(func() error {
				return s.PutSubscriptions(s.Context(), notify.Subscriptions{OrganizationID: s.organization, List: []notify.Subscription{s.subscription()}, Version: 1},
					s.entry(nil, audit.WebhookCreated))
			})
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 {
			s.Errorf("%d did", n)
		}
	}},
}

var deliveryTests = []test{
	{"a delivery comes back as it was put", func(s *suite) {
		s.delivers(s.fullDelivery())
		s.delivers(s.emptyDelivery())
	}},
	{"a delivery that exists is not added again", func(s *suite) {
		r := s.delivers(s.pending(base, 1))
		other := r
		other.Status, other.NextAttemptAt = notify.Canceled, nil
		s.wants(s.AddDelivery(s.Context(), other), lifecycle.ErrChanged)
		s.isDelivery(r)
	}},
	{"a delivery is replaced at the version that was seen alone", func(s *suite) {
		r := s.delivers(s.pending(base, 1))
		for _, version := range []int64{1, 3} {
			other := r
			other.Status, other.Version = notify.Failed, version
			s.wants(s.UpdateDelivery(s.Context(), other), lifecycle.ErrChanged)
		}
		s.isDelivery(r)
		next := s.fullDelivery()
		next.ID, next.Version = r.ID, 2
		s.must(s.UpdateDelivery(s.Context(), next))
		s.isDelivery(next)
	}},
	{"a delivery that is not there is neither found nor replaced", func(s *suite) {
		r := s.pending(base, 1)
		_, err := s.Delivery(s.Context(), s.organization, r.ID)
		s.wants(err, lifecycle.ErrNotFound)
		r.Version = 2
		s.wants(s.UpdateDelivery(s.Context(), r), lifecycle.ErrChanged)
		r.Version = 1
		s.delivers(r)
		_, err = s.Delivery(s.Context(), "another", r.ID)
		s.wants(err, lifecycle.ErrNotFound)
	}},
	{"of many who claim a delivery at once one does", func(s *suite) {
		r := s.delivers(s.pending(base, 1))
		errs := race(8, func(int) error {
			next := r
			next.Tries, next.Version = 1, 2
			return settled(func() error { return s.UpdateDelivery(s.Context(), next) })
		})
		if n := s.won(errs, lifecycle.ErrChanged); n != 1 {
			s.Errorf("%d did", n)
		}
	}},
	{"an organization's deliveries are listed by falling ids, in pages, without their bodies", func(s *suite) {
		var want []notify.Record
		for n := range 7 {
			r := s.fullDelivery()
			r.ID = fmt.Sprintf("dlv_%s_%d", audit.NewID(base.Add(time.Duration(n)*time.Second)), n)
			s.delivers(r)
			r.Body = nil
			want = append([]notify.Record{r}, want...)
		}
		before, got := "", []notify.Record(nil)
		for {
			page, more, err := s.Deliveries(s.Context(), s.organization, before, 3)
			s.must(err)
			if got = append(got, page...); !more {
				break
			}
			before = page[len(page)-1].ID
		}
		if !reflect.DeepEqual(normalDeliveries(got), normalDeliveries(want)) {
			s.Errorf("listed are\n%+v\nwant\n%+v", got, want)
		}
		if page, more, err := s.Deliveries(s.Context(), s.organization, want[6].ID, 3); err != nil || more || len(page) > 0 {
			s.Errorf("after the last come %d, more: %t, %v", len(page), more, err)
		}
	}},
	{"deliveries are due by their time, then by the sequence of their events", func(s *suite) {
		at := s.someTime()
		late, second, first, third := s.pending(at.Add(time.Second), 1), s.pending(at, 9), s.pending(at, 2), s.pending(at, 10)
		for _, r := range []notify.Record{late, third, second, first} {
			s.delivers(r)
		}
		s.dueDeliveries(s.dueDeliveriesFrom(at), first, second, third, late)
		q := s.dueDeliveriesFrom(at)
		q.Until = at
		s.dueDeliveries(q, first, second, third)
		q.Until = at.Add(-time.Millisecond)
		q.After.At = q.Until.Add(-time.Millisecond)
		s.dueDeliveries(q)
		q = s.dueDeliveriesFrom(at)
		q.After, q.Latest, q.Limit, q.Until = notify.Due{}, true, 2, at
		s.dueDeliveries(q, third, second)
	}},
	{"pages of due deliveries hold each once", func(s *suite) {
		at := s.someTime()
		var want []notify.Record
		for n := range 7 {
			want = append(want, s.delivers(s.pending(at, int64(n/3))))
		}
		slices.SortFunc(want, func(a, b notify.Record) int {
			d, _ := notify.DueOf(&a)
			e, _ := notify.DueOf(&b)
			return slices.Compare([]byte(d.Place()), []byte(e.Place()))
		})
		q, found := s.dueDeliveriesFrom(at), []notify.Due(nil)
		q.Limit = 2
		for {
			page, err := s.DueDeliveries(s.Context(), q)
			s.must(err)
			if found = append(found, page...); len(page) < q.Limit {
				break
			}
			q.After = page[len(page)-1]
		}
		if want := duesOf(want); !slices.Equal(found, want) {
			s.Errorf("found %v, want %v", found, want)
		}
	}},
	{"what is not pending, has no next attempt or no webhook is not due", func(s *suite) {
		at := s.someTime()
		r := s.delivers(s.pending(at, 1))
		handover := s.pending(at, 2)
		handover.WebhookID = nil
		s.delivers(handover)
		s.dueDeliveries(s.dueDeliveriesFrom(at), r)
		r.NextAttemptAt, r.Version = new(at.Add(time.Minute)), 2
		s.must(s.UpdateDelivery(s.Context(), r))
		s.dueDeliveries(s.dueDeliveriesFrom(at), r)
		r.Status, r.NextAttemptAt, r.Version = notify.Delivered, nil, 3
		s.must(s.UpdateDelivery(s.Context(), r))
		s.isDelivery(r)
		s.dueDeliveries(s.dueDeliveriesFrom(at))
	}},
	{"deliveries are due in their organization's part, and apart from keys", func(s *suite) {
		at := s.someTime()
		r := s.delivers(s.pending(at, 1))
		q := s.dueDeliveriesFrom(at)
		q.Shard = (q.Shard + 1) % work.Shards
		s.dueDeliveries(q)
		for _, kind := range []apikey.Work{apikey.Sweep, apikey.Deliver} {
			s.dues(lifecycle.DueQuery{Work: kind, Query: work.Query[lifecycle.DueKey]{Shard: work.ShardOf(s.organization), Limit: 1000, After: lifecycle.DueKey{At: at.Add(-time.Millisecond)}, Until: at.Add(time.Minute)}})
		}
		s.dueDeliveries(s.dueDeliveriesFrom(at), r)
	}},
}

func (s *suite) subscription() notify.Subscription {
	return notify.Subscription{ID: "wh_" + audit.NewID(base), OrganizationID: s.organization, URL: "https://example.com/hook?a=b&c=<d>", EventTypes: []string{"api_key.*", "organization.updated"},
		Description: new("für \"alle\""), Enabled: false, DisabledReason: new(notify.Gone), CreatedBy: "user_1", CreatedAt: base, UpdatedAt: base.Add(time.Millisecond)}
}

func (s *suite) emptySubscription() notify.Subscription {
	return notify.Subscription{ID: "wh_" + audit.NewID(base), OrganizationID: s.organization, URL: "https://example.com/", EventTypes: []string{"*"}, Enabled: true, CreatedBy: "key_1",
		CreatedAt: base, UpdatedAt: base}
}

// subscribes puts webhooks at a version.
func (s *suite) subscribes(version int64, list ...notify.Subscription) notify.Subscriptions {
	s.Helper()
	all := notify.Subscriptions{OrganizationID: s.organization, List: list, Version: version}
	s.must(s.PutSubscriptions(s.Context(), all, s.entry(nil, audit.WebhookUpdated)))
	return all
}

// subscribed demands that the organization's webhooks are these.
func (s *suite) subscribed(want notify.Subscriptions) {
	s.Helper()
	got, err := s.Subscriptions(s.Context(), s.organization)
	s.must(err)
	if len(got.List) == 0 && len(want.List) == 0 {
		got.List, want.List = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		s.Fatalf("the webhooks are\n%+v\nwant\n%+v", got, want)
	}
}

// someTime is one at which nothing else is due.
func (s *suite) someTime() time.Time { return time.UnixMilli(rand.Int64N(8e12) + 1e10).UTC() }

// pending is a delivery that is due.
func (s *suite) pending(at time.Time, sequence int64) notify.Record {
	event := audit.NewID(base)
	return notify.Record{Delivery: notify.Delivery{ID: "dlv_" + event + "_" + audit.NewID(base)[10:], WebhookID: new("wh_1"), EventID: event, EventType: audit.Created, Status: notify.Pending,
		Attempts: []notify.Attempt{}, NextAttemptAt: &at, CreatedAt: base},
		OrganizationID: s.organization, Sequence: sequence, Body: []byte(`{"id":"1"}`), Until: base.Add(time.Hour), Version: 1}
}

// emptyDelivery has nothing that it need not have.
func (s *suite) emptyDelivery() notify.Record {
	r := s.pending(base, 0)
	r.Status, r.NextAttemptAt, r.WebhookID, r.Body = notify.Failed, nil, nil, nil
	return r
}

// fullDelivery has everything.
func (s *suite) fullDelivery() notify.Record {
	r := s.pending(base.Add(time.Minute), 1<<62)
	r.KeyID, r.Body = new(apikey.NewID()), []byte("{\"für\": \"<&>\", \"n\": 1e3, \"z\": \"\xff\"}")
	r.Attempts = []notify.Attempt{{At: base, Outcome: webhook.Retry, Status: 500, DurationMS: 12, Error: "answered 500"}, {At: base.Add(time.Second), Outcome: webhook.Delivered, Status: 204}}
	r.Round, r.Tries, r.Claimed = 2, 3, new(base.Add(time.Minute))
	return r
}

// delivers adds one that is then there as it was put.
func (s *suite) delivers(r notify.Record) notify.Record {
	s.Helper()
	s.must(s.AddDelivery(s.Context(), r))
	s.isDelivery(r)
	return r
}

func (s *suite) isDelivery(want notify.Record) {
	s.Helper()
	got, err := s.Delivery(s.Context(), s.organization, want.ID)
	s.must(err)
	if !reflect.DeepEqual(normalDeliveries([]notify.Record{got}), normalDeliveries([]notify.Record{want})) {
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		s.Fatalf("the delivery is\n%s\nwant\n%s", a, b)
	}
}

func normalDeliveries(list []notify.Record) []notify.Record {
	list = slices.Clone(list)
	for i := range list {
		list[i].Attempts = append([]notify.Attempt{}, list[i].Attempts...)
	}
	return list
}

// dueDeliveriesFrom asks the part of the test's organization for all that is due from a time to an hour later.
func (s *suite) dueDeliveriesFrom(at time.Time) work.Query[notify.Due] {
	return work.Query[notify.Due]{Shard: work.ShardOf(s.organization), Limit: 1000, After: notify.Due{At: at.Add(-time.Millisecond)}, Until: at.Add(time.Hour)}
}

func (s *suite) dueDeliveries(q work.Query[notify.Due], want ...notify.Record) {
	s.Helper()
	got, err := s.DueDeliveries(s.Context(), q)
	s.must(err)
	if want := duesOf(want); !slices.Equal(got, want) {
		s.Fatalf("due are %v, want %v", got, want)
	}
}

func duesOf(list []notify.Record) []notify.Due {
	dues := make([]notify.Due, 0, len(list))
	for i := range list {
		d, _ := notify.DueOf(&list[i])
		dues = append(dues, d)
	}
	return dues
}
