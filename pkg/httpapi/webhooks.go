package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/notify"
)

// Webhooks, and what is and was delivered to them.

func (a *API) readNewWebhook(r *request) notify.New {
	n := notify.New{EventTypes: []string{"*"}}
	r.body()
	r.required("url", &n.URL)
	r.optional("event_types", &n.EventTypes)
	r.nullable("description", &n.Description)
	r.optional("enabled", &n.Enabled)
	r.merge(a.Notify.Validate(n))
	return n
}

func (a *API) createWebhook(ctx context.Context, n notify.New, h http.Header) (notify.Subscription, error) {
	sub, err := a.Notify.Create(ctx, n)
	if err == nil {
		h.Set("Location", "webhooks/"+sub.ID)
	}
	return sub, err
}

func (a *API) listWebhooks(ctx context.Context, _ nothing, _ http.Header) ([]notify.Subscription, error) {
	return a.Notify.List(ctx)
}

// pathID is the path's id, as it stands: what is none does not exist.
func pathID(r *request) string { return r.PathValue("id") }

// readActOn reads a request that says nothing but which thing it is about.
func readActOn(r *request) string {
	r.optionalBody()
	return pathID(r)
}

func (a *API) webhook(ctx context.Context, id string, _ http.Header) (notify.Subscription, error) {
	return a.Notify.Get(ctx, id)
}

// rewiring is a merge patch (RFC 7396) of a webhook.
type rewiring struct {
	id    string
	patch notify.Patch
}

func (a *API) readWebhookPatch(r *request) rewiring {
	in := rewiring{id: pathID(r)}
	p := &in.patch
	r.patchBody()
	r.optional("url", &p.URL)
	if r.has("event_types") {
		p.EventTypes = new([]string)
		r.optional("event_types", p.EventTypes)
	}
	r.nullable("description", &p.Description)
	r.optional("enabled", &p.Enabled)
	r.merge(a.Notify.ValidatePatch(*p))
	return in
}

func (a *API) updateWebhook(ctx context.Context, in rewiring, _ http.Header) (notify.Subscription, error) {
	return a.Notify.Update(ctx, in.id, in.patch)
}

func (a *API) deleteWebhook(ctx context.Context, id string, _ http.Header) (nothing, error) {
	return nothing{}, a.Notify.Delete(ctx, id)
}

// tested is how the one attempt of a test went. That it failed is no failure of the request.
type tested struct {
	DeliveryID string `json:"delivery_id"`
	Delivered  bool   `json:"delivered"`
	Status     int    `json:"status"`
	DurationMS int64  `json:"duration_ms"`
	Error      string `json:"error"`
}

func (a *API) testWebhook(ctx context.Context, id string, _ http.Header) (tested, error) {
	d, err := a.Notify.Test(ctx, id)
	if err != nil {
		return tested{}, err
	}
	last := d.Attempts[len(d.Attempts)-1]
	return tested{d.ID, d.Status == notify.Delivered, last.Status, last.DurationMS, last.Error}, nil
}

// sought is which deliveries are asked for, and the query that the next page's keeps.
type sought struct {
	filter notify.DeliveryFilter
	query  url.Values
}

func readDeliveries(r *request) sought {
	isWebhook := func(s string) bool { return strings.HasPrefix(s, "wh_") && audit.ValidID(s[len("wh_"):]) }
	isStatus := func(s string) bool { return slices.Contains(notify.Statuses(), notify.Status(s)) }
	return sought{notify.DeliveryFilter{
		WebhookID: r.checked("webhook_id", isWebhook, "must be a webhook's id"),
		KeyID:     r.aboutKey(),
		Status:    notify.Status(r.checked("status", isStatus, "must be pending, delivered, failed or canceled")),
		Limit:     int(r.number("limit", 1, notify.MaxPage, 0)),
		Cursor:    r.checked("cursor", func(s string) bool { return s != "" }, "must be the cursor of a Link"),
	}, r.asked}
}

func (a *API) deliveries(ctx context.Context, in sought, h http.Header) ([]notify.Delivery, error) {
	list, next, err := a.Notify.Deliveries(ctx, in.filter)
	link(h, in.query, next)
	return list, err
}

func (a *API) delivery(ctx context.Context, id string, _ http.Header) (notify.Detail, error) {
	return a.Notify.Delivery(ctx, id)
}

func (a *API) redeliver(ctx context.Context, id string, _ http.Header) (notify.Delivery, error) {
	return a.Notify.Redeliver(ctx, id)
}
