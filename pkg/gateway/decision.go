package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/verify"
)

// management marks a decision made at the management door.
const management = "management"

// windows are the limits that a context tells of.
var windows = []struct {
	name   string
	length time.Duration
}{{"minute", time.Minute}, {"day", 24 * time.Hour}}

// tell is a Decision as the authorizer's context carries it: strings alone, every name always there, "" for none.
func tell(d *verify.Decision, door verify.Door) map[string]any {
	h := http.Header{}
	d.SetHeaders(h)
	told := map[string]any{
		"code":            string(d.Code),
		"kind":            string(caller.Key),
		"user_id":         "",
		"own":             "",
		"plan":            "",
		"plan_at":         "",
		"key_id":          "",
		"key_prefix":      d.KeyPrefix,
		"organization_id": d.OrganizationID,
		"project_id":      d.ProjectID,
		"environment_id":  d.EnvironmentID,
		"external_id":     d.ExternalID,
		"scopes":          strings.Join(d.Scopes, " "),
		"needed_scope":    d.NeededScope,
		"cidrs":           join(d.CIDRs),
		"end":             "",
		"door":            "",

		"rate_limit":        h.Get("RateLimit"),
		"rate_limit_policy": h.Get("RateLimit-Policy"),
		"retry_after":       h.Get("Retry-After"),
	}
	if d.KeyID != 0 {
		told["key_id"] = d.KeyID.String()
	}
	if !d.End.IsZero() {
		told["end"] = d.End.UTC().Format(time.RFC3339Nano)
	}
	if door == verify.Management {
		told["door"] = management
	}
	for _, w := range windows {
		told[w.name+"_limit"], told[w.name+"_remaining"], told[w.name+"_reset"] = "", "", ""
	}
	for _, l := range d.Limits {
		told[l.Name+"_limit"] = strconv.FormatInt(l.Quota, 10)
		told[l.Name+"_remaining"] = strconv.FormatInt(l.Remaining, 10)
		told[l.Name+"_reset"] = strconv.FormatInt(verify.Seconds(l.Reset), 10)
	}
	return told
}

// tellPerson is a person as the authorizer's context carries them: under the same names, of which those of a key are "".
func tellPerson(c *caller.Caller) map[string]any {
	d := verify.Decision{Code: apikey.Valid, Identity: verify.Identity{OrganizationID: c.OrganizationID, Scopes: c.Scopes}}
	told := tell(&d, verify.Management)
	told["kind"], told["user_id"], told["plan"] = string(caller.User), c.ID, c.Plan
	if c.Own {
		told["own"] = "true"
	}
	if !c.PlanAt.IsZero() {
		told["plan_at"] = c.PlanAt.UTC().Format(time.RFC3339Nano)
	}
	return told
}

func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, " ")
}

// Admitted is what the authorizer at the management door decided about a request: the Gate of an httpapi.API behind it. It
// comes with the event that Serve made the request of, and from nowhere else. Where no authorizer decided, or not about
// what is asked, the deployment is wrong and not the client: the answer is Unavailable, which refuses, and its Cause says
// what is wrong.
type Admitted struct{}

// Key is what was decided about r's key.
func (Admitted) Key(r *http.Request, ask verify.Request) verify.Decision {
	c := atTheDoor(r)
	d := c.decision()
	if ask.Door != verify.Management || len(ask.Scopes) > 0 || ask.Cost > 1 || ask.OrganizationID != "" {
		c.err = errors.New("the authorizer was not asked about scopes, cost or organization")
	}
	if c.err != nil {
		return verify.Decision{Code: apikey.Unavailable, RetryAfter: time.Second, Cause: c.err}
	}
	return d
}

// Person is whose token r carries. Every error is an *apikey.Error.
func (Admitted) Person(r *http.Request) (caller.Caller, error) {
	c := atTheDoor(r)
	p := c.person()
	if c.err != nil {
		e := apikey.Errorf(apikey.Unavailable, "Who is asking could not be checked. Try again.")
		e.Cause = c.err
		return caller.Caller{}, e
	}
	return p, nil
}

// atTheDoor is what the authorizer at the management door said of r.
func atTheDoor(r *http.Request) *told {
	c := &told{values: authorizerContext(r.Context())}
	switch {
	case c.values == nil:
		c.err = errors.New("no authorizer stands before this route")
	case c.text("door") != management:
		c.err = errors.New("the authorizer does not know that this is the management door: set the stage variable latchkey_door=management")
	}
	return c
}

// authorizerContext is what a Lambda authorizer said of the request that ctx belongs to, nil if none did.
func authorizerContext(ctx context.Context) map[string]any {
	if v1, ok := core.GetAPIGatewayContextFromContext(ctx); ok {
		return v1.Authorizer
	}
	if v2, ok := core.GetAPIGatewayV2ContextFromContext(ctx); ok && v2.Authorizer != nil {
		return v2.Authorizer.Lambda
	}
	return nil
}

// told reads a context that tell or tellPerson wrote. The first thing that is wrong is its err.
type told struct {
	values map[string]any
	err    error
}

func (c *told) decision() verify.Decision {
	d := verify.Decision{
		Identity: verify.Identity{
			OrganizationID: c.text("organization_id"),
			ProjectID:      c.text("project_id"),
			EnvironmentID:  c.text("environment_id"),
			ExternalID:     c.text("external_id"),
			Scopes:         strings.Fields(c.text("scopes")),
		},
		Code:        apikey.Code(c.text("code")),
		KeyPrefix:   c.text("key_prefix"),
		NeededScope: c.text("needed_scope"),
		RetryAfter:  time.Duration(c.number("retry_after")) * time.Second,
	}
	c.note("key_id", d.KeyID.UnmarshalText([]byte(c.text("key_id"))))
	d.End = c.time("end")
	for text := range strings.FieldsSeq(c.text("cidrs")) {
		cidr, err := netip.ParsePrefix(text)
		c.note("cidrs", err)
		d.CIDRs = append(d.CIDRs, cidr)
	}
	for _, w := range windows {
		if quota := c.number(w.name + "_limit"); quota > 0 {
			d.Limits = append(d.Limits, verify.Limit{Name: w.name, Quota: quota, Window: w.length,
				Remaining: c.number(w.name + "_remaining"), Reset: time.Duration(c.number(w.name+"_reset")) * time.Second})
		}
	}
	if kind := c.text("kind"); kind != "" && kind != string(caller.Key) || d.OrganizationID == "" || d.Code.Status() >= http.StatusInternalServerError {
		c.note("code", errors.New("no decision about a key"))
	}
	return d
}

func (c *told) person() caller.Caller {
	p := caller.Caller{
		Kind:           caller.User,
		OrganizationID: c.text("organization_id"),
		ID:             c.text("user_id"),
		Scopes:         strings.Fields(c.text("scopes")),
		Own:            c.flag("own"),
		Plan:           c.text("plan"),
		PlanAt:         c.time("plan_at"),
	}
	if c.text("kind") != string(caller.User) || c.text("code") != string(apikey.Valid) || c.text("key_id") != "" ||
		!apikey.ValidID(p.OrganizationID) || !apikey.ValidID(p.ID) {
		c.note("kind", errors.New("no decision about a person"))
	}
	return p
}

// text is a value; "" when it is not there, as a gateway may leave out what is empty.
func (c *told) text(name string) string {
	text, ok := c.values[name].(string)
	if !ok && c.values[name] != nil {
		c.note(name, errors.New("not a string"))
	}
	return text
}

// time is a moment; the zero one when it is not there.
func (c *told) time(name string) (at time.Time) {
	if text := c.text(name); text != "" {
		var err error
		at, err = time.Parse(time.RFC3339Nano, text)
		c.note(name, err)
	}
	return at
}

func (c *told) number(name string) int64 {
	n, err := strconv.ParseInt(cmp.Or(c.text(name), "0"), 10, 64)
	c.note(name, err)
	return n
}

func (c *told) flag(name string) bool {
	text := c.text(name)
	if text != "" && text != "true" {
		c.note(name, errors.New("neither true nor empty"))
	}
	return text == "true"
}

func (c *told) note(name string, err error) {
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("reading %s of the authorizer's context: %w", name, err)
	}
}
