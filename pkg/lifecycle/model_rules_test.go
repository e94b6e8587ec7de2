package lifecycle_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The model: what keys, organizations and their trail should be, by rules written from the design and not from the code.
// It has no store, no transactions and no versions to compare, so that it can be read as the rules themselves. Of several
// reasons to refuse a request any may be told; only what hides a key, or the lack of a scope, must come first.

// model is everything that there should be.
type model struct {
	defaultPlan   string
	defaultScopes []string
	orgs          []*modelOrg
	keys          map[int]*modelKey // by the step that made them
	kept          map[string]*modelAnswer
}

type modelOrg struct {
	id          string
	stored      bool
	plan, claim string
	scopes      []string // nil: operators said nothing
	created     time.Time
	trail       []audit.Entry // as it came, checked when it did
}

type modelKey struct {
	made                    int // the step
	id                      apikey.ID
	secret                  string
	prefix                  string
	org                     *modelOrg
	maker, project          string
	environment, external   *string
	name                    string
	scopes, nets            []string
	perMinute, perDay       *int64
	meta                    map[string]any
	created, changed        time.Time
	expires, used           time.Time // zero: never
	archived, revoked       time.Time // zero: not
	grace, due              time.Time // zero: none
	reason                  string
	off                     bool
	prev, next              *modelKey
	days                    *int
	webhook                 *string
	secretsManager          bool
	place                   bool // in the plan
	lone                    bool // replaced, by one that takes no place
	version                 int64
	minuteCounts, dayCounts map[int64]int64
}

// modelAnswer is what was said to who asked that something is made once.
type modelAnswer struct {
	body  string
	key   *modelKey
	until time.Time
	said  outcome
	at    string // where the store keeps it
}

// modelPlan is a row of the table that stories are told under.
type modelPlan struct{ keys, perMinute, mostPerMinute, mostPerDay int64 }

const noBound = math.MaxInt64

var modelPlans = map[string]modelPlan{
	"free":  {0, 10, 10, 50},
	"trial": {1, 10, 20, 100},
	"small": {4, 20, 50, noBound},
	"team":  {12, 30, 100, 1000},
	"big":   {noBound, 60, noBound, noBound},
}

var roleScopes = map[string][]string{
	"viewer": {"keys:read"},
	"member": {"keys:read", "keys:write"},
	"admin":  {"keys:read", "keys:write", "keys:verify", "audit:read"},
}

// who is the one who asks, as the model sees it.
type who struct {
	org    *modelOrg
	kind   caller.Kind
	id     string
	scopes []string
	own    bool
	claim  string
	key    *modelKey // that asks, if one does
}

func (w who) has(scope string) bool { return slices.Contains(w.scopes, scope) }

// question is one step put to the model.
type question struct {
	*model
	*step
	who
	now   time.Time
	k     *modelKey // that the step is about
	after *modelKey // what k would become, or the key to be made
	org   *modelOrg // that the step is about
}

// rule is a reason to refuse.
type rule struct {
	code apikey.Code
	when func(*question) bool
}

// modelVerbs is what every verb needs, and why it is refused.
var modelVerbs = map[string]struct {
	needs string
	rules []rule
}{
	"get":      {"keys:read", nil},
	"describe": {"keys:verify", nil},
	"list":     {"keys:read", []rule{{apikey.InvalidFields, badFilter}}},
	"own":      {"keys:read", []rule{{apikey.NotFound, func(q *question) bool { return q.kind != caller.User && !q.who.org.stored }}}},
	"audit":    {"audit:read", nil},
	"set":      {"org:admin", []rule{{apikey.InvalidFields, badOrganization}}},
	"create": {"keys:write", append(grants(becomes),
		rule{apikey.InvalidFields, badNew},
		rule{apikey.NotFound, func(q *question) bool { return q.kind != caller.User && !q.who.org.stored }},
		rule{apikey.ScopeNotAllowed, func(q *question) bool { return q.foreignScopes(q.after.scopes) }},
		rule{apikey.PlanRefused, func(q *question) bool { return !q.after.runsService() && q.noRoom() }},
		rule{apikey.PlanRefused, func(q *question) bool { return !q.after.runsService() && q.above(q.after.perMinute, q.after.perDay) }},
	)},
	"update": {"keys:write", slices.Concat([]rule{
		{apikey.InvalidFields, badPatch},
		{apikey.VersionMismatch, func(q *question) bool { return q.version != 0 && q.version != q.k.version }},
		{apikey.WrongState, func(q *question) bool { return !q.k.revoked.IsZero() }},
		{apikey.WrongState, func(q *question) bool { return !q.k.archived.IsZero() && q.k.off != q.after.off }},
		{apikey.OwnKey, func(q *question) bool { return q.onItself() && q.after.off && !q.k.off }},
		{apikey.Escalation, func(q *question) bool { return q.onItself() && !(q.after.off && !q.k.off) && !q.renames() }},
		{apikey.ScopeNotAllowed, func(q *question) bool { return q.foreignScopes(without(q.after.scopes, q.k.scopes)) }},
		{apikey.PlanRefused, raisesAbovePlan},
		{apikey.PlanFull, func(q *question) bool { return q.comesBack() && q.noRoom() }},
	}, holds(is), only(regrants, grants(is)), only(regrants, grants(becomes)))},
	"rotate": {"keys:write", append(grants(is),
		rule{apikey.InvalidFields, func(q *question) bool { return q.grace != nil && (*q.grace < 0 || *q.grace > 7*24*time.Hour) }},
		rule{apikey.OwnKey, (*question).onItself},
		rule{apikey.WrongState, func(q *question) bool { return !q.k.revoked.IsZero() || !q.k.archived.IsZero() || q.k.dead(q.now) }},
		rule{apikey.AlreadyRotated, func(q *question) bool { return q.k.next != nil }},
		rule{apikey.RotationInProgress, func(q *question) bool { return q.graceOrDefault() > 0 && q.k.prev != nil && q.k.prev.inGrace(q.now) }},
	)},
	"end": {"keys:write", []rule{
		{apikey.NotInGrace, func(q *question) bool { return q.graceOf() == nil }},
		{apikey.OwnKey, func(q *question) bool {
			g := q.graceOf()
			return g != nil && q.key != nil && (q.key == g || q.key == g.prev)
		}},
	}},
	"extend": {"keys:write", append(grants(extended),
		rule{apikey.InvalidFields, func(q *question) bool { return *q.grace < time.Second || *q.grace > 7*24*time.Hour }},
		rule{apikey.NotInGrace, func(q *question) bool { return q.graceOf() == nil }},
		rule{apikey.InvalidFields, func(q *question) bool {
			g := q.graceOf()
			return g != nil && !extended(q).end().After(g.end())
		}},
		rule{apikey.AlreadyRotated, func(q *question) bool { g := q.graceOf(); return g != nil && g.next.next != nil }},
	)},
	"archive": {"keys:write", []rule{
		{apikey.OwnKey, (*question).onItself},
		{apikey.WrongState, func(q *question) bool { return !q.k.revoked.IsZero() }},
	}},
	"reactivate": {"keys:write", append(grants(is),
		rule{apikey.OwnKey, (*question).onItself},
		rule{apikey.WrongState, func(q *question) bool { return !q.k.revoked.IsZero() || q.k.archived.IsZero() || q.k.dead(q.now) }},
		rule{apikey.PlanFull, func(q *question) bool {
			return (q.k.next == nil || q.k.lone) && !q.k.runsService() && !q.k.isYieldedTo(q.now) && q.noRoom()
		}},
	)},
	"revoke": {"keys:write", []rule{{apikey.OwnKey, (*question).onItself}}},
}

// only has the rules apply where the condition holds.
func only(when func(*question) bool, rules []rule) (same []rule) {
	for _, r := range rules {
		same = append(same, rule{r.code, func(q *question) bool { return when(q) && r.when(q) }})
	}
	return same
}

// is and becomes are the key as it is and as it would be.
func is(q *question) *modelKey      { return q.k }
func becomes(q *question) *modelKey { return q.after }

// extended is the key in grace with the end that the step asks for, nil where none is in grace.
func extended(q *question) *modelKey {
	g := q.graceOf()
	if g == nil {
		return nil
	}
	later := *g
	later.grace = earlier(q.now.Add(*q.grace), g.expires)
	return &later
}

// grants: nobody gives, or handles, what can do more to the service than they can.
func grants(of func(*question) *modelKey) []rule {
	return append(holds(of),
		rule{apikey.Escalation, func(q *question) bool { // a longer life than one's own
			k := of(q)
			return k != nil && k.manages() && q.key != nil && !q.key.end().IsZero() && (k.end().IsZero() || k.end().After(q.key.end()))
		}},
		rule{apikey.Escalation, func(q *question) bool { // more networks than one's own
			k := of(q)
			return k != nil && k.manages() && q.key != nil && !inside(k.nets, q.key.nets)
		}})
}

// holds: management scopes are handled by those alone who hold all of them, and not by members.
func holds(of func(*question) *modelKey) []rule {
	return []rule{
		{apikey.ScopeNotHeld, func(q *question) bool {
			k := of(q)
			return k != nil && slices.ContainsFunc(k.scopes, func(s string) bool { return reserved(s) && !q.has(s) })
		}},
		{apikey.Escalation, func(q *question) bool { k := of(q); return k != nil && k.manages() && q.own }},
	}
}

// refusals are the codes that the question may be answered with; none: it must succeed.
func (q *question) refusals() (codes []apikey.Code) {
	verb, ok := modelVerbs[q.verb]
	if !ok {
		return nil
	}
	if !q.has(verb.needs) {
		return []apikey.Code{apikey.InsufficientScope}
	}
	if slices.Contains([]string{"get", "describe", "update", "rotate", "end", "extend", "archive", "reactivate", "revoke"}, q.verb) && !q.sees(q.k) {
		if q.verb != "get" && q.verb != "describe" && q.badInput() {
			codes = append(codes, apikey.InvalidFields)
		}
		if q.kept() != nil && q.kept().body != q.body() {
			codes = append(codes, apikey.OtherRequest)
		}
		return append(codes, apikey.NotFound)
	}
	if a := q.kept(); a != nil && !q.badInput() {
		return q.replayRefusals(a)
	}
	for _, r := range verb.rules {
		if r.when(q) {
			codes = append(codes, r.code)
		}
	}
	return codes
}

// badInput: what is wrong whatever there is.
func (q *question) badInput() bool {
	switch q.verb {
	case "create":
		return badNew(q)
	case "update":
		return badPatch(q)
	case "rotate":
		return q.grace != nil && (*q.grace < 0 || *q.grace > 7*24*time.Hour)
	case "extend":
		return *q.grace < time.Second || *q.grace > 7*24*time.Hour
	}
	return false
}

// kept is the answer that the question was given before, nil for none.
func (q *question) kept() *modelAnswer {
	if a := q.model.kept[q.once()]; q.token != "" && a != nil && a.until.After(q.now) {
		return a
	}
	return nil
}

// once names the question among those to be answered once.
func (q *question) once() string {
	return fmt.Sprint(q.who.org.id, " ", q.who.kind, " ", q.who.id, " ", q.path(), " ", q.token)
}

func (q *question) replayRefusals(a *modelAnswer) (codes []apikey.Code) {
	switch {
	case a.body != q.body():
		return []apikey.Code{apikey.OtherRequest}
	case !q.sees(a.key):
		return []apikey.Code{apikey.NotFound}
	}
	if !a.key.revoked.IsZero() {
		codes = append(codes, apikey.SecretDestroyed)
	}
	for _, r := range grants(func(*question) *modelKey { return a.key }) {
		if r.when(q) {
			codes = append(codes, r.code)
		}
	}
	return codes
}

// sees: another organization's keys do not exist, nor for members what others made.
func (w who) sees(k *modelKey) bool {
	return k != nil && k.org == w.org && (!w.own || k.maker == w.id)
}

// onItself: the key that asks, or the successor that is to replace it.
func (q *question) onItself() bool { return q.key != nil && (q.key == q.k || q.key == q.k.prev) }

// graceOf is the key in grace that the step's key names: itself or its predecessor.
func (q *question) graceOf() *modelKey {
	switch {
	case q.k.inGrace(q.now):
		return q.k
	case q.k.prev != nil && q.k.prev.inGrace(q.now):
		return q.k.prev
	}
	return nil
}

func (q *question) graceOrDefault() time.Duration {
	if q.grace == nil {
		return 24 * time.Hour
	}
	return *q.grace
}

// renames: nothing but name and metadata would change.
func (q *question) renames() bool {
	rest := *q.after
	rest.name, rest.meta = q.k.name, q.k.meta
	return reflect.DeepEqual(&rest, q.k)
}

// switchesOff: besides, the key would be disabled or stay so.
func (q *question) switchesOff() bool {
	rest := *q.after
	rest.name, rest.meta, rest.off = q.k.name, q.k.meta, q.k.off
	return reflect.DeepEqual(&rest, q.k) && q.after.off
}

// regrants: the key would do more or other things than before, so that it is as if it were made anew.
func regrants(q *question) bool { return !q.renames() && !q.switchesOff() }

// comesBack: the key takes no place in the plan now and would, and nobody yields theirs to it.
func (q *question) comesBack() bool {
	return !q.k.place && q.after.needsPlace(q.now) && !q.k.isYieldedTo(q.now)
}

// isYieldedTo: a key in its grace has held the place of the line, and yields it.
func (k *modelKey) isYieldedTo(now time.Time) bool {
	return k.prev != nil && k.prev.place && k.prev.inGrace(now)
}

// noRoom: once every expired key has given its place up, none is free.
func (q *question) noRoom() bool {
	p, ok := modelPlans[q.planOf(q.who)]
	taken := int64(0)
	for _, k := range q.keys {
		if k.org == q.who.org && k.place && (!k.dead(q.now) || k.hasHeir(q.now)) {
			taken++
		}
	}
	return !ok || taken >= p.keys
}

// hasHeir: when the key gives its place up, the one that it replaced takes it.
func (k *modelKey) hasHeir(now time.Time) bool {
	p := k.prev
	return p != nil && p.inGrace(now) && p.archived.IsZero() && !p.runsService()
}

// above: a limit is above what the plan allows.
func (q *question) above(perMinute, perDay *int64) bool {
	p, ok := modelPlans[q.planOf(q.who)]
	over := func(limit *int64, most int64) bool { return most != noBound && (limit == nil || *limit > most) }
	return !ok || over(perMinute, p.mostPerMinute) || over(perDay, p.mostPerDay)
}

// raisesAbovePlan: a limit becomes higher, or begins to count, and is above what the plan allows.
func raisesAbovePlan(q *question) bool {
	if q.after.runsService() {
		return false
	}
	higher := func(from, to *int64) bool { return from != nil && (to == nil || *to > *from) }
	p, begins := modelPlans[q.planOf(q.who)], q.k.runsService()
	over := func(from, to *int64, most int64) bool {
		return (begins || higher(from, to)) && most != noBound && (to == nil || *to > most)
	}
	return over(q.k.perMinute, q.after.perMinute, p.mostPerMinute) || over(q.k.perDay, q.after.perDay, p.mostPerDay)
}

// planOf: what operators said, else the token of who asks, else the last token, else the default.
func (m *model) planOf(w who) string {
	return cmp.Or(w.org.plan, w.claim, w.org.claim, m.defaultPlan)
}

func (m *model) allowed(o *modelOrg) []string {
	if o.scopes != nil {
		return o.scopes
	}
	return m.defaultScopes
}

// foreignScopes: some service scope is not the organization's.
func (q *question) foreignScopes(scopes []string) bool {
	for _, s := range scopes {
		ok := reserved(s)
		for _, a := range q.allowed(q.who.org) {
			ok = ok || a == s || strings.HasSuffix(a, "*") && strings.HasPrefix(s, strings.TrimSuffix(a, "*"))
		}
		if !ok {
			return true
		}
	}
	return false
}

func badNew(q *question) bool {
	return q.new.Name == "" || q.new.ExpiresAt != nil && !q.new.ExpiresAt.After(q.now)
}

func badPatch(q *question) bool {
	return q.patch.Name != nil && *q.patch.Name == "" || q.patch.ExpiresAt.V != nil && !q.patch.ExpiresAt.V.After(q.now)
}

func badFilter(q *question) bool { return q.filter.Limit > 1000 }

func badOrganization(q *question) bool {
	_, ok := modelPlans[orZero(q.orgPatch.Plan.V)]
	return q.orgPatch.Plan.V != nil && !ok
}

func reserved(scope string) bool {
	return slices.Contains([]string{"keys:read", "keys:write", "keys:verify", "audit:read", "org:admin"}, scope)
}

func without(list, drop []string) (rest []string) {
	for _, s := range list {
		if !slices.Contains(drop, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// inside: every address of the first networks is in the second, where none at all means all.
func inside(inner, outer []string) bool {
	if len(outer) == 0 {
		return true
	}
	for _, i := range inner {
		in := false
		for _, o := range outer {
			a, b := netip.MustParsePrefix(i), netip.MustParsePrefix(o)
			in = in || b.Contains(a.Addr()) && a.Bits() >= b.Bits()
		}
		if !in {
			return false
		}
	}
	return len(inner) > 0
}

// What a key is.

func (k *modelKey) manages() bool     { return slices.ContainsFunc(k.scopes, reserved) }
func (k *modelKey) runsService() bool { return slices.Contains(k.scopes, "org:admin") }

// end is the earlier of expiry and grace; zero: never.
func (k *modelKey) end() time.Time {
	if k.expires.IsZero() || !k.grace.IsZero() && k.grace.Before(k.expires) {
		return k.grace
	}
	return k.expires
}

// dead: its end has come, or had when it was last changed.
func (k *modelKey) dead(now time.Time) bool {
	return !k.end().IsZero() && (!k.end().After(now) || !k.end().After(k.changed))
}

func (k *modelKey) inGrace(now time.Time) bool {
	return k.next != nil && k.revoked.IsZero() && !k.dead(now)
}

func (k *modelKey) needsPlace(now time.Time) bool {
	return (k.next == nil || k.lone) && k.archived.IsZero() && k.revoked.IsZero() && !k.dead(now) && !k.runsService()
}

// ended is what the trail tells when the key's place is freed because its end has come.
func (k *modelKey) ended() audit.Action {
	if k.next != nil {
		return audit.RotationCompleted
	}
	return audit.Expired
}

// settles gives up the place of k, or takes one: then its line's key in grace takes it instead, or yields it.
func (k *modelKey) settles(place bool, now time.Time) {
	was := k.place
	if k.place = place; was == place || k.prev == nil || !k.prev.inGrace(now) || k.prev.lone == !place {
		return
	}
	k.prev.lone = !place
	k.prev.place = k.prev.needsPlace(now)
	k.prev.version++
}

func (k *modelKey) status(now time.Time) string {
	switch {
	case !k.revoked.IsZero():
		return "revoked"
	case !k.archived.IsZero():
		return "archived"
	case k.off:
		return "disabled"
	case k.dead(now):
		return "expired"
	case k.next != nil:
		return "rotated"
	}
	return "active"
}

func earlier(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// touch notes a change at now; time does not go back.
func (k *modelKey) touch(now time.Time) {
	k.version++
	if now.After(k.changed) {
		k.changed = now
	}
}

// shape is the key as a client should see it.
func (k *modelKey) shape(now time.Time) map[string]any {
	var next any
	if k.next != nil {
		next = k.next.id.String()
	}
	return map[string]any{
		"id": k.id.String(), "organization_id": k.org.id, "project_id": k.project, "environment_id": orNull(k.environment),
		"external_id": orNull(k.external), "name": k.name, "key_prefix": k.prefix, "scopes": textList(k.scopes), "enabled": !k.off,
		"status": k.status(now), "rate_limit_per_minute": numberOrNull(k.perMinute), "daily_limit": numberOrNull(k.perDay),
		"allowed_cidrs": textList(k.nets), "metadata": k.meta, "created_by": k.maker, "created_at": timeOrNull(k.created),
		"updated_at": timeOrNull(k.changed), "expires_at": timeOrNull(k.expires), "last_used_at": timeOrNull(k.used), "archived_at": timeOrNull(k.archived),
		"revoked_at": timeOrNull(k.revoked), "revoked_reason": textOrNull(k.reason), "replaced_by_key_id": next, "grace_expires_at": timeOrNull(k.grace),
		"rotation_interval_days": numberOrNull(k.days), "next_rotation_at": timeOrNull(k.due), "rotation_webhook_url": orNull(k.webhook),
		"rotation_to_secrets_manager": k.secretsManager,
	}
}

func orNull(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func numberOrNull[T int | int64](n *T) any {
	if n == nil {
		return nil
	}
	return float64(*n)
}

func timeOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Format(time.RFC3339Nano)
}

func textList(scopes []string) any {
	l := []any{}
	for _, s := range scopes {
		l = append(l, s)
	}
	return l
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// asked is the key that a create would make.
func (q *question) asked() *modelKey {
	n := &q.new
	k := &modelKey{made: q.n, org: q.who.org, maker: q.who.id, project: n.ProjectID, environment: n.EnvironmentID, external: n.ExternalID, name: n.Name,
		scopes: asSet(n.Scopes), nets: asSet(n.AllowedCIDRs), perMinute: n.RateLimitPerMinute.V, perDay: n.DailyLimit, meta: asObject(n.Metadata),
		created: q.now, days: n.RotationIntervalDays, webhook: n.RotationWebhookURL, secretsManager: n.RotationToSecretsManager,
		minuteCounts: map[int64]int64{}, dayCounts: map[int64]int64{}}
	if !n.RateLimitPerMinute.Said {
		k.perMinute = new(modelPlans[q.planOf(q.who)].perMinute)
	}
	if n.ExpiresAt != nil {
		k.expires = n.ExpiresAt.Time
	}
	k.schedule(q.now)
	k.place = k.needsPlace(q.now)
	k.touch(q.now)
	return k
}

func (k *modelKey) schedule(now time.Time) {
	k.due = time.Time{}
	if k.days != nil && k.next == nil {
		k.due = now.Add(time.Duration(*k.days) * 24 * time.Hour)
	}
}

// patched is the key that an update would leave, but for its place and version.
func (q *question) patched() *modelKey {
	k, p := *q.k, &q.patch
	if p.Name != nil {
		k.name = *p.Name
	}
	if p.Scopes != nil {
		k.scopes = asSet(*p.Scopes)
	}
	if p.AllowedCIDRs != nil {
		k.nets = asSet(*p.AllowedCIDRs)
	}
	if p.Enabled != nil {
		k.off = !*p.Enabled
	}
	if p.RotationToSecretsManager != nil {
		k.secretsManager = *p.RotationToSecretsManager
	}
	if p.RateLimitPerMinute.Said {
		k.perMinute = p.RateLimitPerMinute.V
	}
	if p.DailyLimit.Said {
		k.perDay = p.DailyLimit.V
	}
	if p.RotationWebhookURL.Said {
		k.webhook = p.RotationWebhookURL.V
	}
	if p.RotationIntervalDays.Said && !reflect.DeepEqual(p.RotationIntervalDays.V, k.days) {
		k.days = p.RotationIntervalDays.V
		k.schedule(q.now)
	}
	if p.ExpiresAt.Said {
		k.expires = orZero(p.ExpiresAt.V).Time
		if k.next != nil { // a grace does not outlast the expiry, and what was replaced does not come back by a later one
			k.grace = earlier(k.grace, k.expires)
		}
	}
	if string(p.Metadata) == "null" {
		k.meta = map[string]any{}
	} else if p.Metadata != nil {
		k.meta = mergedJSON(k.meta, asObject(p.Metadata)).(map[string]any)
	}
	return &k
}

// mergedJSON is RFC 7396 on decoded values.
func mergedJSON(into, patch any) any {
	with, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	old, _ := into.(map[string]any)
	for name, v := range old {
		out[name] = v
	}
	for name, v := range with {
		if v == nil {
			delete(out, name)
			continue
		}
		out[name] = mergedJSON(out[name], v)
	}
	return out
}

func asObject(raw json.RawMessage) map[string]any {
	m := map[string]any{}
	if len(bytes.TrimSpace(raw)) > 0 {
		_ = json.Unmarshal(raw, &m)
	}
	return m
}

func asSet(list []string) []string {
	out := append([]string{}, list...)
	slices.Sort(out)
	return slices.Compact(out)
}

// happened is an entry of the trail that a step must leave.
type happened struct {
	action  audit.Action
	key     *modelKey         // nil: of the organization
	changes map[string][2]any // of the key's fields, from what to what
}

// tell says of a key what changed since it had the shape before.
func (h *happened) tell(before map[string]any, now time.Time) {
	h.changes = map[string][2]any{}
	for field, to := range h.key.shape(now) {
		if field != "status" && field != "updated_at" && field != "last_used_at" && !reflect.DeepEqual(before[field], to) {
			h.changes[field] = [2]any{spelt(field, before[field]), spelt(field, to)}
		}
	}
}

// spelt is a field's value as the trail tells it: of an address whose it is.
func spelt(field string, v any) any {
	if field == "rotation_webhook_url" && v != nil {
		return "https://example.com/…" // the model has no other host
	}
	return v
}

// take does what the question asks, which was not refused: it returns the keys as they are then, and what the trail must
// tell. Issued are the answer's new key, which the model cannot foresee.
func (q *question) take(issued *outcome) (keys []*modelKey, told []happened) {
	now, k := q.now, q.k
	switch q.verb {
	case "create":
		q.keep(q.after, issued)
		return []*modelKey{q.after}, []happened{{action: audit.Created, key: q.after}}
	case "update":
		if reflect.DeepEqual(q.after, k) {
			return []*modelKey{k}, nil
		}
		action := audit.Updated
		switch {
		case q.after.off && !k.off:
			action = audit.Disabled
		case !q.after.off && k.off:
			action = audit.Enabled
		}
		place := k.place
		*k = *q.after
		k.place = place
		k.touch(now)
		k.settles(k.needsPlace(now), now)
		return []*modelKey{k}, []happened{{action: action, key: k}}
	case "rotate":
		next := *k
		next.made, next.off, next.used, next.version = q.n, false, time.Time{}, 0
		next.created, next.changed, next.prev = now, time.Time{}, k
		next.minuteCounts, next.dayCounts = map[int64]int64{}, copyCounts(k.dayCounts)
		next.schedule(now)
		if q.graceOrDefault() == 0 {
			next.minuteCounts = copyCounts(k.minuteCounts)
			if p := k.prev; p != nil && p.inGrace(now) {
				p.grace = earlier(now, p.expires)
				p.touch(now)
			}
		}
		next.touch(now)
		k.next, k.due, k.place = &next, time.Time{}, false
		k.grace = earlier(now.Add(q.graceOrDefault()), k.expires)
		k.touch(now)
		q.keep(&next, issued)
		return []*modelKey{k, &next}, []happened{{action: audit.Rotated, key: k}}
	case "end":
		g := q.graceOf()
		g.grace = earlier(now, g.expires)
		g.touch(now)
		g.place = g.place && g.needsPlace(now)
		return []*modelKey{g}, []happened{{action: audit.GraceEnded, key: g}}
	case "extend":
		g := q.graceOf()
		g.grace = earlier(now.Add(*q.grace), g.expires)
		g.touch(now)
		g.next.version++ // it is told, so that nobody rotates it unaware
		return []*modelKey{g}, []happened{{action: audit.GraceMoved, key: g}}
	case "archive":
		if !k.archived.IsZero() {
			return []*modelKey{k}, nil
		}
		k.archived = now
		k.touch(now)
		k.settles(false, now)
		return []*modelKey{k}, []happened{{action: audit.Archived, key: k}}
	case "reactivate":
		k.archived = time.Time{}
		k.touch(now)
		k.settles(k.needsPlace(now), now)
		return []*modelKey{k}, []happened{{action: audit.Reactivated, key: k}}
	case "revoke":
		if !k.revoked.IsZero() {
			return nil, nil
		}
		k.revoked, k.due, k.reason = now, time.Time{}, q.reason
		k.touch(now)
		k.settles(false, now)
		return nil, []happened{{action: audit.Revoked, key: k}}
	case "set":
		return nil, q.setOrganization()
	case "get", "describe":
		return []*modelKey{k}, nil
	}
	return nil, nil
}

func (q *question) setOrganization() []happened {
	before, o := *q.org, q.org
	if q.orgPatch.Plan.Said {
		o.plan = orZero(q.orgPatch.Plan.V)
	}
	if q.orgPatch.AllowedScopes.Said {
		o.scopes = nil
		if l := q.orgPatch.AllowedScopes.V; l != nil {
			o.scopes = append([]string{}, *l...)
		}
	}
	switch {
	case !o.stored:
		o.stored, o.created = true, q.now
		return []happened{{action: audit.OrgCreated}}
	case before.plan == o.plan && reflect.DeepEqual(before.scopes, o.scopes):
		return nil
	}
	return []happened{{action: audit.OrgUpdated}}
}

// keep remembers a key that was issued, and the answer if it may be asked for again.
func (q *question) keep(k *modelKey, said *outcome) {
	k.id, k.secret, k.prefix = said.issued.ID, said.secret, said.issued.KeyPrefix
	q.keys[q.n] = k
	if q.token != "" {
		q.model.kept[q.once()] = &modelAnswer{q.body(), k, q.now.Add(24 * time.Hour), *said, said.kept}
	}
}

func copyCounts(counts map[int64]int64) map[int64]int64 {
	c := map[int64]int64{}
	for w, n := range counts {
		c[w] = n
	}
	return c
}

// presented is a key shown at a door.
type presented struct {
	at         time.Time
	from       netip.Addr
	scopes     []string
	cost       int64
	management bool   // the door
	org        string // whose keys alone exist there, "" for all
}

// admit says whether a key passes, and counts what it then has used.
func (k *modelKey) admit(p presented) apikey.Code {
	minute, day := p.at.Unix()/60, p.at.Unix()/86400
	spent := func(limit *int64, used int64) bool { return limit != nil && (used >= *limit || p.cost > *limit) }
	over := func(limit *int64, used int64) bool { return limit != nil && used > *limit }
	switch {
	case p.org != "" && p.org != k.org.id:
		return apikey.UnknownKey
	case !k.revoked.IsZero():
		return apikey.RevokedKey
	case !k.archived.IsZero():
		return apikey.ArchivedKey
	case k.off:
		return apikey.DisabledKey
	case k.dead(p.at):
		return apikey.ExpiredKey
	case len(without(p.scopes, k.scopes)) > 0:
		return apikey.InsufficientScope
	case spent(k.perDay, k.dayCounts[day]):
		return apikey.DailyLimitExceeded
	case spent(k.perMinute, k.minuteCounts[minute]):
		return apikey.RateLimited
	}
	k.minuteCounts[minute] += p.cost
	k.dayCounts[day] += p.cost
	k.used = p.at
	in := func(net string) bool { return netip.MustParsePrefix(net).Contains(p.from) }
	switch {
	case over(k.perDay, k.dayCounts[day]):
		return apikey.DailyLimitExceeded
	case over(k.perMinute, k.minuteCounts[minute]):
		return apikey.RateLimited
	case !p.management && len(k.scopes) > 0 && !slices.ContainsFunc(k.scopes, func(s string) bool { return !reserved(s) }):
		return apikey.ManagementKeyOnly
	case len(k.nets) > 0 && !slices.ContainsFunc(k.nets, in):
		return apikey.AddressNotAllowed
	}
	return apikey.Valid
}

// listed is the keys that a list should show, newest first.
func (q *question) listed() (keys []*modelKey) {
	f := &q.filter
	for _, k := range q.keys {
		used := k.used
		if used.IsZero() {
			used = k.created
		}
		if q.sees(k) && (f.CreatedBy == "" || k.maker == f.CreatedBy) && (f.ProjectID == "" || k.project == f.ProjectID) &&
			(f.EnvironmentID == "" || orZero(k.environment) == f.EnvironmentID) && (f.ExternalID == "" || orZero(k.external) == f.ExternalID) &&
			strings.HasPrefix(k.name, f.Name) && (f.IncludeRevoked || k.revoked.IsZero()) &&
			(f.IncludeArchived || k.archived.IsZero() || !k.revoked.IsZero()) &&
			(f.StaleDays == 0 || !used.After(q.now.Add(-time.Duration(f.StaleDays)*24*time.Hour))) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b *modelKey) int {
		return cmp.Or(b.created.Compare(a.created), cmp.Compare(b.id, a.id))
	})
	return keys
}

// told is the entries that a look into the trail should show, newest first.
func (q *question) told() (entries []audit.Entry) {
	f := &q.auditFilter
	for _, e := range q.who.org.trail {
		if (q.about == 0 || e.KeyID != nil && q.k != nil && *e.KeyID == q.k.id) && (f.ActorID == "" || e.ActorID == f.ActorID) &&
			(f.Action == "" || e.Action == f.Action) && (f.Since.IsZero() || !e.At.Before(f.Since)) && (f.Until.IsZero() || e.At.Before(f.Until)) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b audit.Entry) int { return cmp.Compare(b.ID, a.ID) })
	return entries
}

// standing is what an organization should be shown as.
func (q *question) standing(o *modelOrg, w who) lifecycle.Standing {
	name := q.planOf(w)
	p := modelPlans[name]
	bound := func(n int64) *int64 {
		if n == noBound {
			return nil
		}
		return &n
	}
	s := lifecycle.Standing{ID: o.id, Plan: name, KeyLimit: bound(p.keys), DefaultRateLimitPerMinute: p.perMinute,
		HighestRateLimitPerMinute: bound(p.mostPerMinute), HighestDailyLimit: bound(p.mostPerDay), AllowedScopes: append([]string{}, q.allowed(o)...)}
	for _, k := range q.keys {
		if k.org == o && k.place {
			s.ActiveKeys++
		}
	}
	if o.stored {
		s.CreatedAt = &o.created
	}
	return s
}
