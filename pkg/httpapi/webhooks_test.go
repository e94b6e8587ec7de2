package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// notice is what a receiver was sent.
type notice struct {
	address string
	message webhook.Message
}

// Check is the real sender's.
func (d *door) Check(address string) error { return (&webhook.Sender{}).Check(address) }

// Send plays the receiver.
func (d *door) Send(_ context.Context, address string, m webhook.Message, _ ...webhook.Secret) webhook.Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, notice{address, m})
	if d.comes != nil {
		return *d.comes
	}
	return webhook.Result{Outcome: webhook.Delivered, Status: 204, Duration: 12 * time.Millisecond, Landed: true}
}

// signWith is what an organization's notices are signed with.
func (d *door) signWith(ctx context.Context, organization string) ([]webhook.Secret, error) {
	texts, err := d.Keys.SigningSecrets(ctx, organization)
	if err != nil {
		return nil, err
	}
	secret, err := webhook.ParseSecret(texts[0].Reveal())
	return []webhook.Secret{secret}, err
}

// subscribed makes a webhook of an organization for every event, and a delivery to it.
func (d *door) subscribed(t testing.TB, organization string) (hook, delivery string) {
	t.Helper()
	ctx := operator(organization)
	sub, err := d.Notify.Create(ctx, notify.New{URL: "https://hooks.example.com/in", EventTypes: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	d.told(t, organization, audit.Created, 7)
	list, _, err := d.Notify.Deliveries(ctx, notify.DeliveryFilter{WebhookID: sub.ID})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	return sub.ID, list[0].ID
}

// told announces an event.
func (d *door) told(t testing.TB, organization string, action audit.Action, key apikey.ID) event.Event {
	t.Helper()
	entry := audit.Entry{ID: audit.NewID(d.clock()), OrganizationID: organization, At: d.clock(), Action: action, ActorKind: "operator", ActorID: "operator", KeyID: &key}
	e := event.Of(audit.Linked{Entry: entry, Link: audit.Link{Sequence: 1}})
	if err := d.Notify.Announce(t.Context(), organization, []event.Event{e}); err != nil {
		t.Fatal(err)
	}
	return e
}

// as7396 sends a merge patch with a type of its own.
func (v *visitor) as7396(target, patch string) *httptest.ResponseRecorder {
	r := request("PATCH", target, v.key.Plaintext.Reveal(), patch)
	r.Header.Set("Content-Type", "application/merge-patch+json")
	return v.send(r)
}

func TestAWebhookIsWhatItsOwnersSay(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		w := v.ask("POST", "/v1/webhooks", `{"url":"https://hooks.example.com/in"}`)
		want(t, w, 201, "")
		made := read[notify.Subscription](t, w)
		id := strings.TrimPrefix(made.ID, "wh_")
		spelt(t, w, 201, `{"id":"wh_`+id+`","organization_id":"`+v.organization+`","url":"https://hooks.example.com/in","event_types":["*"],"description":null,`+
			`"enabled":true,"disabled_reason":null,"created_by":"`+v.key.Key.ID.String()+`","created_at":"TIME","updated_at":"TIME"}`)
		at := "/v1/webhooks/" + made.ID
		if got := w.Header().Get("Location"); "/v1/"+got != at {
			t.Errorf("the new one is at %s", got)
		}
		if shown := v.ask("GET", at, ""); shown.Body.String() != w.Body.String() {
			t.Errorf("shown is %s", shown.Body)
		}
		for _, row := range []struct{ patch, field, value string }{
			{`{"url":"https://hooks.example.com/other"}`, "url", `"https://hooks.example.com/other"`},
			{`{"event_types":["api_key.*","organization.updated"]}`, "event_types", `["api_key.*","organization.updated"]`},
			{`{"description":"prod"}`, "description", `"prod"`},
			{`{"description":null}`, "description", `null`},
			{`{"enabled":false}`, "enabled", `false`},
			{`{"enabled":true}`, "enabled", `true`},
			{`{}`, "enabled", `true`},
		} {
			before := read[map[string]json.RawMessage](t, v.ask("GET", at, ""))
			v.advance(time.Minute)
			w := v.as7396(at, row.patch)
			want(t, w, 200, "")
			after := read[map[string]json.RawMessage](t, w)
			if string(after[row.field]) != row.value {
				t.Errorf("%s: %s is %s, want %s", row.patch, row.field, after[row.field], row.value)
			}
			for name := range after {
				if string(before[name]) != string(after[name]) && name != row.field && name != "updated_at" {
					t.Errorf("%s: %s became %s", row.patch, name, after[name])
				}
			}
		}
		want(t, v.ask("DELETE", at, ""), 204, "")
		want(t, v.ask("DELETE", at, ""), 404, apikey.NotFound)
		if body := has(t, v.ask("GET", "/v1/webhooks", ""), 200); body != "[]\n" {
			t.Errorf("the list is %s", body)
		}
	})
}

func TestWhatIsWrongWithAWebhookIsToldOfEachField(t *testing.T) {
	d := newDoor(t)
	hook, _ := d.subscribed(t, "acme")
	for body, wrong := range map[string][]string{
		`{}`:             {"/url"},
		`{"url":null}`:   {"/url"},
		`{"url":7}`:      {"/url"},
		`{"url":"here"}`: {"/url"},
		`{"url":"https://example.com/","event_types":null}`:                                                               {"/event_types"},
		`{"url":"https://example.com/","event_types":[]}`:                                                                 {"/event_types"},
		`{"url":"https://10.0.0.1/","event_types":["*",7,"api_key.eaten","*"],"description":7,"enabled":null,"colour":1}`: {"/colour", "/description", "/enabled", "/event_types/1", "/event_types/2", "/event_types/3", "/url"},
		`{"url":"http://example.com/","event_types":"*","description":"` + strings.Repeat("a", 201) + `","enabled":1}`:    {"/description", "/enabled", "/event_types", "/url"},
		`{"url":"https://example.com/","url":"https://example.com/"}`:                                                     {"/url"},
	} {
		if got := pointers(want(t, d.do("POST", "/v1/webhooks", body), 422, apikey.InvalidFields)); !slices.Equal(got, wrong) {
			t.Errorf("%s: %v, want %v", body, got, wrong)
		}
		if wrong = slices.DeleteFunc(wrong, func(p string) bool { return p == "/url" && body == `{}` }); len(wrong) == 0 {
			continue
		}
		if got := pointers(want(t, d.do("PATCH", "/v1/webhooks/"+hook, body), 422, apikey.InvalidFields)); !slices.Equal(got, wrong) {
			t.Errorf("a patch %s: %v, want %v", body, got, wrong)
		}
	}
	if n := len(read[[]notify.Subscription](t, d.do("GET", "/v1/webhooks", ""))); n != 1 {
		t.Errorf("there are %d webhooks", n)
	}
}

func TestThereAreNoMoreWebhooksThanThereMayBe(t *testing.T) {
	d := newDoor(t)
	for range notify.MaxSubscriptions {
		want(t, d.do("POST", "/v1/webhooks", `{"url":"https://hooks.example.com/in"}`), 201, "")
	}
	want(t, d.do("POST", "/v1/webhooks", `{"url":"https://hooks.example.com/in"}`), 409, apikey.TooMany)
}

func TestWithoutASealingKeyNobodySubscribes(t *testing.T) {
	d := newDoor(t)
	d.Keys.Seal = nil
	want(t, d.do("POST", "/v1/webhooks", `{"url":"https://hooks.example.com/in"}`), 422, apikey.NoSealingKey)
	want(t, d.do("GET", "/v1/webhooks", ""), 200, "")
}

// A receiver that is down is what a test is there to find: it is an answer.
func TestATestSaysHowItsOneAttemptWent(t *testing.T) {
	d := newDoor(t)
	hook, _ := d.subscribed(t, "acme")
	for _, row := range []struct {
		came webhook.Result
		says string
	}{
		{webhook.Result{Outcome: webhook.Delivered, Status: 204, Duration: 12 * time.Millisecond}, `"delivered":true,"status":204,"duration_ms":12,"error":""`},
		{webhook.Result{Outcome: webhook.Retry, Status: 500, Duration: time.Second, Err: "answered 500"}, `"delivered":false,"status":500,"duration_ms":1000,"error":"answered 500"`},
		{webhook.Result{Outcome: webhook.Retry, Duration: 10 * time.Second, Err: "timed out: no answer"}, `"delivered":false,"status":0,"duration_ms":10000,"error":"timed out: no answer"`},
		{webhook.Result{Outcome: webhook.Gone, Status: 410, Err: "answered 410"}, `"delivered":false,"status":410,"duration_ms":0,"error":"answered 410"`},
	} {
		d.comes, d.sent = &row.came, nil
		d.advance(time.Second)
		body := has(t, d.do("POST", "/v1/webhooks/"+hook+"/test", ""), 200)
		var id struct {
			Delivery string `json:"delivery_id"`
		}
		if json.Unmarshal([]byte(body), &id) != nil || body != `{"delivery_id":"`+id.Delivery+`",`+row.says+"}\n" {
			t.Errorf("it says %s, want %s", body, row.says)
		}
		logged := read[notify.Detail](t, d.do("GET", "/v1/webhooks/deliveries/"+id.Delivery, ""))
		if len(d.sent) != 1 || len(logged.Attempts) != 1 || logged.EventType != notify.TestEvent || logged.EventID != d.sent[0].message.ID || string(logged.Event) != string(d.sent[0].message.Body) {
			t.Errorf("sent was %v, and the log has %+v", d.sent, logged)
		}
	}
	if sub := read[notify.Subscription](t, d.do("GET", "/v1/webhooks/"+hook, "")); !sub.Enabled {
		t.Error("a test has disabled the webhook")
	}
}

// filled is a door with deliveries: to two webhooks, about two keys, of which one is delivered.
func filled(t *testing.T, v *visitor) (hooks []string, key apikey.Key) {
	t.Helper()
	for range 2 {
		sub, err := v.Notify.Create(operator(v.organization), notify.New{URL: "https://hooks.example.com/in", EventTypes: []string{"api_key.*"}})
		if err != nil {
			t.Fatal(err)
		}
		hooks = append(hooks, sub.ID)
	}
	key = v.mustCreate(t, v.organization, lifecycle.New{}).Key
	for range 3 {
		v.advance(time.Second)
		v.told(t, v.organization, audit.Updated, key.ID)
		v.told(t, v.organization, audit.Updated, v.key.Key.ID)
	}
	want(t, v.ask("POST", "/v1/webhooks/"+hooks[1]+"/test", ""), 200, "")
	return hooks, key
}

func TestTheDeliveryLogHasWhatItsFiltersAskFor(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		hooks, key := filled(t, v)
		for query, n := range map[string]int{"": 13, "webhook_id=" + hooks[0]: 6, "webhook_id=" + hooks[1]: 7, "key_id=" + key.ID.String(): 6, "key_id=" + key.KeyPrefix + "&webhook_id=" + hooks[0]: 3,
			"status=pending": 12, "status=delivered": 1, "status=failed": 0, "status=canceled": 0, "limit=5": 5, "webhook_id=wh_00000000000000000000000000": 0} {
			list := read[[]notify.Delivery](t, v.ask("GET", "/v1/webhooks/deliveries?"+query, ""))
			newestFirst := slices.IsSortedFunc(list, func(a, b notify.Delivery) int { return strings.Compare(b.ID, a.ID) })
			if len(list) != n || !newestFirst {
				t.Errorf("?%s has %d deliveries, want %d; newest first: %v", query, len(list), n, newestFirst)
			}
		}
		var sizes []int
		seen := map[string]bool{}
		at, err := url.Parse("/v1/webhooks/deliveries?key_id=" + key.KeyPrefix + "&limit=4")
		if err != nil {
			t.Fatal(err)
		}
		for at != nil {
			w := v.ask("GET", at.String(), "")
			want(t, w, 200, "")
			list := read[[]notify.Delivery](t, w)
			for _, d := range list {
				if seen[d.ID] || *d.KeyID != key.ID {
					t.Errorf("%s is about %s, seen: %v", d.ID, d.KeyID, seen[d.ID])
				}
				seen[d.ID] = true
			}
			sizes = append(sizes, len(list))
			at = follow(t, at, w.Header().Get("Link"))
		}
		if !slices.Equal(sizes, []int{4, 2}) {
			t.Errorf("pages of %v", sizes)
		}
	})
}

func TestTheDeliveryLogTakesOnlyWellFormedFilters(t *testing.T) {
	d := newDoor(t)
	for query, wrong := range map[string][]string{
		"webhook_id=": {"/webhook_id"}, "webhook_id=1": {"/webhook_id"}, "webhook_id=wh_1": {"/webhook_id"}, "key_id=": {"/key_id"}, "key_id=17": {"/key_id"}, "status=": {"/status"}, "status=lost": {"/status"},
		"limit=0": {"/limit"}, "limit=1001": {"/limit"}, "cursor=": {"/cursor"}, "cursor=nonsense": {"/cursor"}, "cursor=dlv_%00": {"/cursor"}, "event_type=x": {"/event_type"},
		"webhook_id=1&key_id=1&status=1&limit=x&cursor=": {"/cursor", "/key_id", "/limit", "/status", "/webhook_id"},
	} {
		if got := pointers(want(t, d.do("GET", "/v1/webhooks/deliveries?"+query, ""), 422, apikey.InvalidFields)); !slices.Equal(got, wrong) {
			t.Errorf("?%s: %v, want %v", query, got, wrong)
		}
	}
}

func TestADeliveryShowsWhatItBringsAndComesAgainAsItWas(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		hooks, key := filled(t, v)
		if _, err := v.Notify.Deliver(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		d := read[[]notify.Delivery](t, v.ask("GET", "/v1/webhooks/deliveries?limit=1&status=delivered&key_id="+key.KeyPrefix+"&webhook_id="+hooks[0], ""))[0]
		at := "/v1/webhooks/deliveries/" + d.ID
		shown := read[notify.Detail](t, v.ask("GET", at, ""))
		first := v.got(d.EventID)
		if len(first) != 2 || string(shown.Event) != first[0] { // of both webhooks
			t.Fatalf("shown is %s, and sent were %v", shown.Event, first)
		}
		w := v.ask("POST", at+"/redeliver", "")
		want(t, w, 202, "")
		if again := read[notify.Delivery](t, w); again.ID != d.ID || again.Status != notify.Pending || again.NextAttemptAt == nil {
			t.Errorf("redelivered is %+v", again)
		}
		if _, err := v.Notify.Deliver(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		if all := v.got(d.EventID); len(all) != 3 || all[2] != first[0] {
			t.Errorf("sent were %v", all)
		}
		if last := read[notify.Detail](t, v.ask("GET", at, "")); last.Status != notify.Delivered || len(last.Attempts) != 2 {
			t.Errorf("the log has %+v", last)
		}
		want(t, v.ask("PATCH", "/v1/webhooks/"+hooks[0], `{"enabled":false}`), 200, "")
		want(t, v.ask("POST", at+"/redeliver", ""), 409, apikey.WrongState)
		want(t, v.ask("DELETE", "/v1/webhooks/"+hooks[0], ""), 204, "")
		want(t, v.ask("POST", at+"/redeliver", ""), 409, apikey.WrongState)
		want(t, v.ask("GET", at, ""), 200, "")
	})
}

// got is the bodies that were sent under an id.
func (d *door) got(id string) (bodies []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.sent {
		if n.message.ID == id {
			bodies = append(bodies, string(n.message.Body))
		}
	}
	return bodies
}
