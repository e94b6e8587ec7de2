package notify_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/webhook"
)

func TestAWebhookIsMadeReadChangedAndDeleted(t *testing.T) {
	h := newHouse(t)
	made, err := h.Create(acme(), notify.New{URL: hook, EventTypes: []string{"api_key.*", "organization.updated"}, Description: new("prod")})
	if err != nil || !made.Enabled || made.DisabledReason != nil || made.OrganizationID != "acme" || made.CreatedBy != "operator" || !made.CreatedAt.Equal(noon) ||
		!strings.HasPrefix(made.ID, "wh_") || !audit.ValidID(made.ID[3:]) {
		t.Fatalf("%+v, %v", made, err)
	}
	if got, err := h.Get(acme(), made.ID); err != nil || !reflect.DeepEqual(got, made) {
		t.Errorf("%+v, %v, want %+v", got, err, made)
	}
	h.advance(time.Minute)
	changed, err := h.Update(acme(), made.ID, notify.Patch{Enabled: new(false), Description: notify.Description{Said: true}, EventTypes: new([]string{"*"})})
	want := made
	want.Enabled, want.Description, want.EventTypes, want.UpdatedAt = false, nil, []string{"*"}, noon.Add(time.Minute)
	if err != nil || !reflect.DeepEqual(changed, want) {
		t.Errorf("%+v, %v, want %+v", changed, err, want)
	}
	h.advance(time.Minute)
	if same, err := h.Update(acme(), made.ID, notify.Patch{Enabled: new(false)}); err != nil || !reflect.DeepEqual(same, want) {
		t.Errorf("nothing changes: %+v, %v", same, err)
	}
	if list, err := h.List(acme()); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], want) {
		t.Errorf("%+v, %v", list, err)
	}
	if err := h.Delete(acme(), made.ID); err != nil {
		t.Error(err)
	}
	wantCode(t, h.Delete(acme(), made.ID), apikey.NotFound)
	if got := h.trail(t, "acme"); !slices.Equal(got, []audit.Action{audit.WebhookCreated, audit.WebhookUpdated, audit.WebhookDeleted}) {
		t.Errorf("the trail has %v", got)
	}
}

func TestEveryMemberOfAWebhookIsAlwaysThere(t *testing.T) {
	h := newHouse(t)
	for v, want := range map[any]string{
		any(new(h.subscribe(t, hook))): "created_at created_by description disabled_reason enabled event_types id organization_id updated_at url",
		any(&notify.Delivery{}):        "attempts created_at event_id event_type id key_id next_attempt_at status webhook_id",
		any(&notify.Detail{}):          "attempts created_at event event_id event_type id key_id next_attempt_at status webhook_id",
		any(&notify.Attempt{}):         "at duration_ms error outcome status",
	} {
		b, err := json.Marshal(v)
		var members map[string]any
		if err != nil || json.Unmarshal(b, &members) != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range members {
			names = append(names, name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%T has %s, want %s", v, got, want)
		}
	}
}

func TestTheTrailTellsWhatChangedOfAWebhook(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	if _, err := h.Update(acme(), sub.ID, notify.Patch{URL: new(hook + "2")}); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(acme(), sub.ID); err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.memory.Entries(t.Context(), lifecycle.EntryQuery{OrganizationID: "acme", Limit: 10})
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, want := range []string{
		`[{"field":"webhook_id","from":"ID","to":null},{"field":"url","from":"https://hooks.example.com/…","to":null},{"field":"event_types","from":["*"],"to":null},{"field":"enabled","from":true,"to":null}]`,
		`[{"field":"webhook_id","from":"ID","to":"ID"},{"field":"url","from":"https://hooks.example.com/…","to":"https://hooks.example.com/…"}]`,
		`[{"field":"webhook_id","from":null,"to":"ID"},{"field":"url","from":null,"to":"https://hooks.example.com/…"},{"field":"event_types","from":null,"to":["*"]},{"field":"enabled","from":null,"to":true}]`,
	} {
		b, _ := json.Marshal(entries[i].Changes)
		if got := strings.ReplaceAll(string(b), sub.ID, "ID"); got != want {
			t.Errorf("%s tells\n%s\nwant\n%s", entries[i].Action, got, want)
		}
	}
}

func TestWhatIsWrongWithAWebhookIsToldOfEveryField(t *testing.T) {
	h := newHouse(t)
	many := make([]string, notify.MaxEventTypes+1)
	for i := range many {
		many[i] = strings.Repeat("a", i)
	}
	for _, c := range []struct {
		n    notify.New
		want string
	}{
		{notify.New{URL: "http://example.com/", EventTypes: []string{"*"}}, "/url"},
		{notify.New{URL: "https://127.0.0.1/", EventTypes: []string{"*"}}, "/url"},
		{notify.New{URL: "https://169.254.169.254/", EventTypes: []string{"*"}}, "/url"},
		{notify.New{URL: "https://localhost/", EventTypes: []string{"*"}}, "/url"},
		{notify.New{URL: "https://a:b@example.com/", EventTypes: []string{"*"}}, "/url"},
		{notify.New{URL: hook}, "/event_types"},
		{notify.New{URL: hook, EventTypes: []string{"api_key.born"}}, "/event_types/0"},
		{notify.New{URL: hook, EventTypes: []string{"api_key.created", "keys.*"}}, "/event_types/1"},
		{notify.New{URL: hook, EventTypes: []string{"*.created"}}, "/event_types/0"},
		{notify.New{URL: hook, EventTypes: []string{"webhook.test"}}, "/event_types/0"},
		{notify.New{URL: hook, EventTypes: []string{""}}, "/event_types/0"},
		{notify.New{URL: hook, EventTypes: []string{"*", "*"}}, "/event_types/1"},
		{notify.New{URL: hook, EventTypes: []string{"*"}, Description: new("a\nb")}, "/description"},
		{notify.New{URL: hook, EventTypes: []string{"*"}, Description: new(strings.Repeat("ü", 201))}, "/description"},
		{notify.New{URL: "", Description: new("\xff")}, "/url /event_types /description"},
	} {
		_, err := h.Create(acme(), c.n)
		wantCode(t, err, apikey.InvalidFields)
		if got := pointers(err); got != c.want {
			t.Errorf("%+v: %s, want %s", c.n, got, c.want)
		}
	}
	_, err := h.Create(acme(), notify.New{URL: hook, EventTypes: many})
	wantCode(t, err, apikey.InvalidFields)
	if list, err := h.List(acme()); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	sub := h.subscribe(t, hook, "api_key*", "webhook.deleted", "organization.updated")
	_, err = h.Update(acme(), sub.ID, notify.Patch{URL: new("https://10.0.0.1/"), EventTypes: new([]string{})})
	if got := pointers(err); got != "/url /event_types" {
		t.Errorf("a patch: %s", got)
	}
	if got, err := h.Get(acme(), sub.ID); err != nil || !reflect.DeepEqual(got, sub) {
		t.Errorf("%+v, %v", got, err)
	}
}

func pointers(err error) string {
	var list []string
	if e, ok := err.(*apikey.Error); ok {
		for _, f := range e.Fields {
			list = append(list, f.Pointer)
		}
	}
	return strings.Join(list, " ")
}

func TestThisMachineIsAReceiverInDevelopmentAlone(t *testing.T) {
	h := newHouse(t)
	h.Sender = &webhook.Sender{Loopback: true}
	h.subscribe(t, "http://127.0.0.1:9/in")
	h.Sender = &webhook.Sender{}
	_, err := h.Create(acme(), notify.New{URL: "http://127.0.0.1:9/in", EventTypes: []string{"*"}})
	wantCode(t, err, apikey.InvalidFields)
}

func TestOfManyWebhooksThatAreMadeAtOnceNoneIsOneTooMany(t *testing.T) {
	h := newHouse(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	codes := map[apikey.Code]int{}
	for n := range notify.MaxSubscriptions + 10 {
		all.Go(func() {
			_, err := h.Create(acme(), notify.New{URL: fmt.Sprint(hook, n), EventTypes: []string{"*"}})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				codes["made"]++
			} else {
				codes[apikey.CodeOf(err)]++
			}
		})
	}
	all.Wait()
	list, err := h.List(acme())
	if err != nil || len(list) != notify.MaxSubscriptions || codes["made"] != notify.MaxSubscriptions || codes[apikey.TooMany] != 10 {
		t.Errorf("%d webhooks, %v, %v", len(list), codes, err)
	}
	if n := len(h.trail(t, "acme")); n != notify.MaxSubscriptions {
		t.Errorf("the trail tells of %d", n)
	}
}

func TestOthersWebhooksAndDeliveriesDoNotExist(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	h.answers(func(sent) webhook.Result { return says(500) })
	h.deliver(t)
	d := h.only(t, audit.Created)
	before := h.got(hook)
	other := as("other")
	for name, do := range map[string]func() error{
		"get":       func() error { _, err := h.Get(other, sub.ID); return err },
		"update":    func() error { _, err := h.Update(other, sub.ID, notify.Patch{Enabled: new(false)}); return err },
		"delete":    func() error { return h.Delete(other, sub.ID) },
		"test":      func() error { _, err := h.Test(other, sub.ID); return err },
		"delivery":  func() error { _, err := h.Delivery(other, d.ID); return err },
		"redeliver": func() error { _, err := h.Redeliver(other, d.ID); return err },
		"ill-formed": func() error {
			_, err := h.Delivery(acme(), "dlv_../K#1")
			return err
		},
	} {
		if err := do(); apikey.CodeOf(err) != apikey.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := h.List(other)
	deliveries, _, err2 := h.Deliveries(other, notify.DeliveryFilter{})
	if err != nil || err2 != nil || len(list)+len(deliveries) > 0 {
		t.Errorf("%v, %v, %v, %v", list, deliveries, err, err2)
	}
	if got, err := h.Get(acme(), sub.ID); err != nil || !got.Enabled || len(before) != 1 || len(h.got(hook)) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhoeverMayNotManageKeysHasNoPartInWebhooks(t *testing.T) {
	h := newHouse(t)
	sub := h.subscribe(t, hook)
	h.announce(t, "acme", 1)
	d := h.only(t, audit.Created)
	for _, by := range []caller.Caller{
		{},
		{OrganizationID: "acme", Kind: caller.Key, ID: "key_1", Scopes: []string{apikey.KeysRead, apikey.KeysVerify, apikey.AuditRead}},
		{OrganizationID: "acme", Kind: caller.User, ID: "user_1", Scopes: []string{apikey.KeysRead, apikey.KeysWrite}, Own: true},
	} {
		ctx := caller.With(t.Context(), by)
		for name, do := range map[string]func() error{
			"list":       func() error { _, err := h.List(ctx); return err },
			"create":     func() error { _, err := h.Create(ctx, notify.New{URL: hook, EventTypes: []string{"*"}}); return err },
			"get":        func() error { _, err := h.Get(ctx, sub.ID); return err },
			"update":     func() error { _, err := h.Update(ctx, sub.ID, notify.Patch{Enabled: new(false)}); return err },
			"delete":     func() error { return h.Delete(ctx, sub.ID) },
			"test":       func() error { _, err := h.Test(ctx, sub.ID); return err },
			"deliveries": func() error { _, _, err := h.Deliveries(ctx, notify.DeliveryFilter{}); return err },
			"delivery":   func() error { _, err := h.Delivery(ctx, d.ID); return err },
			"redeliver":  func() error { _, err := h.Redeliver(ctx, d.ID); return err },
		} {
			if err := do(); apikey.CodeOf(err) != apikey.InsufficientScope {
				t.Errorf("%s as %+v: %v", name, by, err)
			}
		}
	}
	if len(h.sent) > 0 {
		t.Error("something was sent")
	}
}

// Whatever call of the store fails, a verb that says it is done is done once, and one that fails may be asked again.
func TestWhateverCallFailsAWebhookIsMadeChangedAndDeletedOnce(t *testing.T) {
	var h *house
	open := func(t *testing.T) storetest.Store { h = newHouse(t); return h.memory }
	storetest.Everywhere(t, storetest.Faults(), open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
		h.Store = faulty
		sub, err := h.Create(acme(), notify.New{URL: hook, EventTypes: []string{"*"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Update(acme(), sub.ID, notify.Patch{Enabled: new(false)}); err != nil {
			t.Fatal(err)
		}
		if err := h.Delete(acme(), sub.ID); err != nil && apikey.CodeOf(err) != apikey.Unavailable {
			t.Fatal(err)
		}
		h.Store = bare
		if list, err := h.List(acme()); err != nil || len(list) > 0 {
			t.Errorf("%v, %v", list, err)
		}
		if got := h.trail(t, "acme"); !slices.Equal(got, []audit.Action{audit.WebhookCreated, audit.WebhookUpdated, audit.WebhookDeleted}) {
			t.Errorf("the trail has %v", got)
		}
	})
}
