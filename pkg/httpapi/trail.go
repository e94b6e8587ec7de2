package httpapi

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The native shape of the audit trail, and of an organization.

// trail is which entries are asked for, and the query that the next page's keeps.
type trail struct {
	filter lifecycle.AuditFilter
	query  url.Values
}

func readTrail(r *request) trail {
	isAction := func(s string) bool { return slices.Contains(audit.Actions(), audit.Action(s)) }
	return trail{lifecycle.AuditFilter{
		KeyID:   r.aboutKey(),
		ActorID: r.checked("actor_id", lifecycle.ValidID, idRule),
		Action:  audit.Action(r.checked("action", isAction, "must be an action such as api_key.created")),
		Since:   r.moment("since"),
		Until:   r.moment("until"),
		Limit:   int(r.number("limit", 1, lifecycle.MaxPage, 0)),
		Cursor:  r.checked("cursor", audit.ValidID, "must be the cursor of a Link"),
	}, r.asked}
}

// aboutKey takes the parameter key_id, which names a key by its id or its public prefix; 0 without it.
func (r *request) aboutKey() apikey.ID {
	text, given := r.param("key_id")
	if !given {
		return 0
	}
	id, err := apikey.ParseID(text)
	if err != nil {
		id, err = r.format.ParsePrefix(text)
	}
	if err != nil {
		r.fault("/key_id", "must be a key's id or its public prefix")
	}
	return id
}

func (a *API) trail(ctx context.Context, in trail, h http.Header) ([]audit.Entry, error) {
	entries, next, err := a.Keys.Audit(ctx, in.filter)
	link(h, in.query, next)
	return entries, err
}

// chain is which links of the chain are asked for, and the query that the next page's keeps.
type chain struct {
	after int64
	limit int
	query url.Values
}

func readChain(r *request) chain {
	return chain{r.number("after", 0, math.MaxInt64, 0), int(r.number("limit", 1, lifecycle.MaxPage, 0)), r.asked}
}

func (a *API) chain(ctx context.Context, in chain, h http.Header) ([]audit.Link, error) {
	links, next, err := a.Keys.AuditChain(ctx, in.after, in.limit)
	if next > 0 {
		onward(h, in.query, "after", strconv.FormatInt(next, 10))
	}
	return links, err
}

func (a *API) ownOrganization(ctx context.Context, _ nothing, _ http.Header) (lifecycle.Standing, error) {
	return a.Keys.OwnOrganization(ctx)
}

// placing is what operators say of an organization.
type placing struct {
	id    string
	patch lifecycle.OrganizationPatch
}

func readOrganization(r *request) string {
	id := r.PathValue("id")
	if !lifecycle.ValidID(id) {
		r.fault("", "an organization's id "+idRule)
	}
	return id
}

func (a *API) organization(ctx context.Context, id string, _ http.Header) (lifecycle.Standing, error) {
	return a.Keys.OrganizationOf(ctx, id)
}

func readPlacing(r *request) (in placing) {
	in.id = readOrganization(r)
	r.body()
	r.nullable("plan", &in.patch.Plan)
	in.patch.AllowedScopes = r.listOrNull("allowed_scopes")
	return in
}

func (a *API) setOrganization(ctx context.Context, in placing, _ http.Header) (lifecycle.Standing, error) {
	return a.Keys.SetOrganization(ctx, in.id, in.patch)
}
