package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// step is one thing that somebody does. It names keys by the step that made them, so that a story can be told again, also
// with some of its steps left out.
type step struct {
	n     int           // its number, from 1
	after time.Duration // time that passes before it
	slow  time.Duration // by how much the clock of the process that serves it is behind
	by    asker
	verb  string
	about int // the key, by the step that made it; 0: none
	home  int // the organization, for set

	new         lifecycle.New
	patch       lifecycle.Patch
	stale       int64 // how many versions behind the present one If-Match is; -1: no If-Match
	grace       *time.Duration
	reason      string
	token       string // Idempotency-Key
	variant     int    // of the body that comes with the token
	filter      lifecycle.Filter
	auditFilter lifecycle.AuditFilter
	orgPatch    lifecycle.OrganizationPatch
	shown       presented

	version int64 // for If-Match, from stale, when the step is taken
}

// asker is who does a step: whoever runs the service, a person with a role, or a key.
type asker struct {
	kind  caller.Kind
	home  int // the organization of an operator or a person
	name  string
	role  string
	claim string // a plan
	key   int    // by the step that made it
	from  netip.Addr
}

func (a asker) String() string {
	switch a.kind {
	case caller.Operator:
		return fmt.Sprintf("operator in org %d", a.home)
	case caller.User:
		return fmt.Sprintf("%s, %s of org %d (claims %q)", a.name, a.role, a.home, a.claim)
	}
	return fmt.Sprintf("key #%d from %s", a.key, a.from)
}

func (s *step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d +%s", s.n, s.after)
	if s.slow > 0 {
		fmt.Fprintf(&b, " (clock -%s)", s.slow)
	}
	if s.verb == "present" {
		fmt.Fprintf(&b, ": key #%d is shown from %s, scopes %v, cost %d", s.about, s.shown.from, s.shown.scopes, s.shown.cost)
		return b.String()
	}
	fmt.Fprintf(&b, " %s: %s", s.by, s.verb)
	if s.about > 0 {
		fmt.Fprintf(&b, " #%d", s.about)
	}
	show := func(name string, v any) {
		if text, _ := json.Marshal(v); string(text) != "null" {
			fmt.Fprintf(&b, " %s=%s", name, text)
		}
	}
	switch s.verb {
	case "create":
		show("new", s.new)
	case "update":
		show("patch", s.patch)
		show("stale", s.stale)
	case "list":
		show("filter", s.filter)
	case "audit":
		show("filter", s.auditFilter)
	case "set":
		fmt.Fprintf(&b, " org %d", s.home)
		show("patch", s.orgPatch)
	case "rotate", "extend":
		if s.grace != nil {
			fmt.Fprintf(&b, " grace=%s", *s.grace)
		}
	}
	if s.token != "" {
		fmt.Fprintf(&b, " token=%s/%d", s.token, s.variant)
	}
	return b.String()
}

// path and body are what comes with a token.
func (s *step) path() string {
	return fmt.Sprintf("/v1/api-keys/%d/%s", s.about, s.verb)
}
func (s *step) body() string { return fmt.Sprint(s.variant) }

// author makes up steps, knowing the model, so that they meet what is there.
type author struct {
	*rand.Rand
	*model
	now    time.Time
	asked  []step // with a token, to be asked again
	living []int  // keys, by the step that made them, oldest first
}

func one[T any](a *author, list ...T) T { return list[a.IntN(len(list))] }

func (a *author) chance(percent int) bool { return a.IntN(100) < percent }

// prologue is how every story begins: an organization with some management keys, and one that starts small.
func (a *author) prologue() []step {
	operator := asker{kind: caller.Operator}
	steps := []step{
		{verb: "set", by: operator, orgPatch: lifecycle.OrganizationPatch{Plan: said("big"), AllowedScopes: said([]string{"orders:*", "mail"})}},
		{verb: "set", by: operator, home: 2, orgPatch: lifecycle.OrganizationPatch{Plan: said("small")}},
	}
	create := func(by asker, life time.Duration, nets []string, scopes ...string) {
		n := lifecycle.New{Name: "keeper", Scopes: scopes, AllowedCIDRs: nets, RateLimitPerMinute: lifecycle.Limit{Said: true}}
		if life > 0 {
			n.ExpiresAt = &lifecycle.Moment{Time: a.now.Add(life)}
		}
		steps = append(steps, step{verb: "create", by: by, new: n})
	}
	create(operator, 0, nil, "keys:read", "keys:write", "keys:verify", "audit:read", "org:admin")
	create(operator, 0, nil, "keys:read", "keys:write")
	create(operator, 0, nil, one(a, "keys:read", "keys:verify", "audit:read", "org:admin"))
	create(operator, 40*24*time.Hour, nil, "keys:write", "keys:read", "audit:read")
	create(operator, 0, []string{"10.0.0.0/8"}, "keys:write", "keys:read", "keys:verify")
	create(operator, 0, nil, "orders:read")
	create(asker{kind: caller.Operator, home: 2}, 0, nil, "keys:read", "keys:write", "audit:read")
	return steps
}

// repertoire is the verbs, as often as they are chosen.
var repertoire = func() (all []scripted) {
	for _, v := range []struct {
		share int
		scripted
	}{
		{15, scripted{"create", (*author).create}}, {16, scripted{"update", (*author).update}}, {14, scripted{"rotate", (*author).rotate}},
		{5, scripted{"end", nil}}, {5, scripted{"extend", (*author).extend}}, {6, scripted{"archive", nil}}, {8, scripted{"reactivate", nil}},
		{5, scripted{"revoke", (*author).revoke}}, {4, scripted{"get", nil}}, {2, scripted{"describe", nil}}, {4, scripted{"list", (*author).list}},
		{3, scripted{"audit", (*author).look}}, {3, scripted{"own", (*author).plain}}, {3, scripted{"set", (*author).set}},
		{12, scripted{"present", (*author).present}},
	} {
		all = append(all, slices.Repeat([]scripted{v.scripted}, v.share)...)
	}
	return all
}()

// scripted is a verb, and how what goes with it is made up.
type scripted struct {
	name string
	fill func(*author, *step)
}

// next makes up a step.
func (a *author) next() step {
	if len(a.asked) > 0 && a.chance(10) {
		return a.askedAgain()
	}
	verb := one(a, repertoire...)
	s := step{after: a.pause(), verb: verb.name, about: a.key(verb.name), stale: -1}
	s.by = a.asker(s.about)
	if a.chance(15) {
		s.slow = time.Duration(a.IntN(30_001)) * time.Millisecond
	}
	if verb.fill != nil {
		verb.fill(a, &s)
	}
	return s
}

// askedAgain is a step that was asked for before, sometimes with another body, or by another.
func (a *author) askedAgain() step {
	s := one(a, a.lately()...)
	s.after, s.slow = a.pause(), 0
	if a.chance(10) {
		s.after += 25 * time.Hour
	}
	if a.chance(15) {
		s.variant++
	}
	if a.chance(10) {
		s.by = a.asker(s.about)
	}
	return s
}

// lately is what was asked for with a token not long ago.
func (a *author) lately() []step { return a.asked[max(0, len(a.asked)-8):] }

func (a *author) pause() time.Duration {
	unit := time.Millisecond
	switch n := a.IntN(200); {
	case n < 2:
		unit = 2 * time.Hour // up to two weeks
	case n < 8:
		unit = 10 * time.Minute // up to a day
	case n < 30:
		unit = 5 * time.Second // up to a quarter of an hour
	case n < 140:
		unit = 30 * time.Millisecond
	}
	return time.Duration(a.IntN(170)) * unit
}

// asker is somebody, mostly of the organization that has the key.
func (a *author) asker(about int) asker {
	homes := []int{0, 0, 0, 1, 1, 2}
	if k := a.keys[about]; k != nil && a.chance(90) {
		homes = []int{slices.Index(a.orgs, k.org)}
	}
	switch n := a.IntN(100); {
	case n < 25:
		return asker{kind: caller.Operator, home: one(a, homes...)}
	case n < 65:
		who := one(a, "ada admin", "ada admin", "max member", "max member", "mia member", "vic viewer", "ada member", "max admin")
		name, role, _ := strings.Cut(who, " ")
		by := asker{kind: caller.User, home: one(a, homes...), name: name, role: role}
		if a.chance(40) {
			by.claim = one(a, "free", "trial", "small", "small", "team", "big")
		}
		return by
	}
	if k := a.keys[about]; k != nil && a.chance(20) { // itself, or the key that it replaces
		if k.prev != nil {
			k = k.prev
		}
		return asker{kind: caller.Key, key: k.made, from: a.address()}
	}
	home := a.orgs[one(a, homes...)]
	managing := a.those(a.living, func(k *modelKey) bool {
		return k.manages() && k.org == home && (k.status(a.now) == "active" || a.chance(10))
	})
	if len(managing) == 0 || a.chance(3) {
		managing = append(a.living, 1)
	}
	return asker{kind: caller.Key, key: one(a, managing...), from: a.address()}
}

// those are the keys among some of which the condition holds.
func (a *author) those(among []int, hold func(*modelKey) bool) []int {
	return slices.DeleteFunc(slices.Clone(among), func(n int) bool { return !hold(a.keys[n]) })
}

func (a *author) address() netip.Addr {
	return netip.MustParseAddr(one(a, "10.1.2.3", "10.1.2.3", "10.1.2.3", "10.9.9.9", "192.0.2.7", "2001:db8::1"))
}

// key is one that there is, rather a young one, or one in the state that the verb is about.
func (a *author) key(verb string) int {
	if len(a.living) == 0 || a.chance(2) {
		return 0
	}
	recent := a.living[max(0, len(a.living)-12):]
	if verb == "reactivate" && a.chance(70) {
		if put := a.those(a.living, func(k *modelKey) bool { return !k.archived.IsZero() }); len(put) > 0 {
			return one(a, put...)
		}
	}
	if a.chance(25) || (verb == "end" || verb == "extend") && a.chance(70) {
		if grace := a.those(a.living, func(k *modelKey) bool { return k.inGrace(a.now) }); len(grace) > 0 {
			n := one(a, grace...)
			return one(a, n, a.keys[n].next.made)
		}
	}
	if verb == "revoke" && len(a.asked) > 0 && a.chance(50) {
		if n := one(a, a.lately()...).n; a.keys[n] != nil {
			return n
		}
	}
	if a.chance(75) {
		return one(a, recent...)
	}
	return one(a, a.living...)
}

func (a *author) scopes() []string {
	switch n := a.IntN(10); {
	case n < 4:
		return nil
	case n < 7:
		return one(a, []string{"orders:read"}, []string{"orders:read", "orders:write"}, []string{"mail"}, []string{"bills"})
	case n < 8:
		return one(a, []string{"org:admin"}, []string{"keys:read", "org:admin", "keys:write"})
	}
	all := []string{"keys:read", "keys:write", "keys:verify", "audit:read", "orders:read"}
	a.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+a.IntN(4)]
}

func (a *author) nets() []string {
	return one(a, nil, nil, nil, []string{"10.0.0.0/8"}, []string{"10.1.0.0/16"}, []string{"10.0.0.0/8", "192.0.2.0/24"}, []string{"2001:db8::/32"})
}

func (a *author) limit(values ...int64) *int64 {
	if v := one(a, append(values, 0)...); v > 0 {
		return &v
	}
	return nil
}

func (a *author) moment() *lifecycle.Moment {
	life := one(a, time.Second, time.Minute, time.Hour, 24*time.Hour, 10*24*time.Hour, 35*24*time.Hour, -time.Hour)
	return &lifecycle.Moment{Time: a.now.Add(life + time.Duration(a.IntN(5000))*time.Millisecond).UTC().Truncate(time.Millisecond)}
}

func (a *author) metadata() json.RawMessage {
	return one(a, nil, json.RawMessage(`{}`), json.RawMessage(`{"z":1,"a":{"x":[1,2],"y":"<&>"}}`), json.RawMessage(`{"a":{"y":null}}`),
		json.RawMessage(`{"z":null}`), json.RawMessage(`{"a":"flat"}`), json.RawMessage(`null`))
}

func (a *author) create(s *step) {
	s.about = 0
	s.new = lifecycle.New{ProjectID: one(a, "", "shop", "lab"), Name: one(a, "alpha", "alps", "beta", "gamma"), Scopes: a.scopes(), AllowedCIDRs: a.nets()}
	if a.chance(3) {
		s.new.Name = ""
	}
	if a.chance(30) {
		s.new.EnvironmentID = new(one(a, "test1", "prod"))
		s.new.ExternalID = new(one(a, "ext_1", "ext_2"))
	}
	if a.chance(50) {
		s.new.RateLimitPerMinute = lifecycle.Limit{Said: true, V: a.limit(1, 2, 4, 8, 20, 40, 1000)}
	}
	if a.chance(40) {
		s.new.DailyLimit = a.limit(2, 6, 12, 60, 1000)
	}
	if a.chance(40) {
		s.new.ExpiresAt = a.moment()
	}
	if m := a.metadata(); string(m) != "null" && !strings.Contains(string(m), ":null") {
		s.new.Metadata = m
	}
	if a.chance(15) {
		s.new.RotationIntervalDays = new(1 + a.IntN(40))
		s.new.RotationWebhookURL = new("https://example.com/hook")
	}
	a.once(s)
}

func (a *author) once(s *step) {
	if a.chance(30) {
		s.token = fmt.Sprint("token", a.IntN(6))
	}
}

func (a *author) update(s *step) {
	p := &s.patch
	for range 1 + a.IntN(3) {
		switch a.IntN(14) {
		case 0:
			p.Name = new(one(a, "alpha", "omega", "omega", ""))
		case 1, 2:
			list := a.scopes()
			if k := a.keys[s.about]; k != nil && k.runsService() {
				list = one(a, list, []string{"keys:read"}, []string{"keys:read", "keys:write"})
			}
			p.Scopes = &list
		case 3:
			list := a.nets()
			p.AllowedCIDRs = &list
		case 4, 5:
			p.Enabled = new(false)
		case 6, 7:
			p.Enabled = new(true)
		case 8:
			p.RateLimitPerMinute = lifecycle.Limit{Said: true, V: a.limit(1, 2, 4, 8, 20, 40, 1000)}
		case 9:
			p.DailyLimit = lifecycle.Limit{Said: true, V: a.limit(2, 6, 12, 60, 1000)}
		case 10, 11:
			p.ExpiresAt = null[lifecycle.Moment]()
			if a.chance(75) {
				p.ExpiresAt.V = a.moment()
			}
		case 12:
			p.Metadata = a.metadata()
		case 13:
			p.RotationIntervalDays = one(a, null[int](), said(7), said(30))
			p.RotationToSecretsManager = new(a.chance(50))
			p.RotationWebhookURL = one(a, null[string](), said("https://example.com/other"))
		}
	}
	if a.chance(40) {
		s.stale = int64(one(a, 0, 0, 1))
	}
}

func (a *author) rotate(s *step) {
	if a.chance(80) {
		s.grace = new(one(a, 0, 0, time.Second, time.Minute, time.Hour, 24*time.Hour, 7*24*time.Hour))
	}
	if a.chance(2) {
		s.grace = new(one(a, -time.Second, 8*24*time.Hour))
	}
	a.once(s)
}

func (a *author) extend(s *step) {
	s.grace = new(one(a, 0, time.Minute, time.Hour, 48*time.Hour, 7*24*time.Hour, 7*24*time.Hour, 7*24*time.Hour, 8*24*time.Hour))
}

func (a *author) revoke(s *step) { s.reason = one(a, "", "leaked") }

func (a *author) list(s *step) {
	s.about = 0
	s.filter = lifecycle.Filter{ProjectID: one(a, "", "", "", "shop"), EnvironmentID: one(a, "", "", "", "prod"), ExternalID: one(a, "", "", "", "ext_1"),
		Name: one(a, "", "", "al", "alpha"), IncludeArchived: a.chance(50), IncludeRevoked: a.chance(50), CreatedBy: one(a, "", "", "", "ada", "max"),
		StaleDays: one(a, 0, 0, 1, 7), Limit: one(a, 0, 0, 1, 2, 5, 1001)}
}

func (a *author) look(s *step) {
	s.about = one(a, 0, s.about)
	f := &s.auditFilter
	f.Limit = one(a, 1, 7, 1000)
	f.ActorID = one(a, "", "", "ada", "operator")
	f.Action = one(a, "", "", audit.Created, audit.Updated, audit.Expired)
	if a.chance(30) {
		f.Since = a.now.Add(-time.Duration(a.IntN(100)) * time.Hour).Truncate(time.Millisecond)
	}
	if a.chance(30) {
		f.Until = a.now.Add(-time.Duration(a.IntN(50)) * time.Hour).Truncate(time.Millisecond)
	}
}

func (a *author) set(s *step) {
	s.about, s.home = 0, one(a, 0, 0, 1, 2)
	if a.chance(70) {
		s.orgPatch.Plan = one(a, null[string](), said("free"), said("trial"), said("small"), said("team"), said("team"), said("big"), said("golden"))
	}
	if a.chance(30) {
		s.orgPatch.AllowedScopes = one(a, null[[]string](), said([]string{}), said([]string{"orders:*"}), said([]string{"*"}), said([]string{"mail"}))
	}
}

func (a *author) plain(s *step) { s.about = 0 }

func (a *author) present(s *step) {
	if s.about == 0 {
		s.about = one(a, append(a.living, 0)...)
	}
	s.shown = presented{from: a.address(), cost: one(a, int64(1), 1, 1, 1, 1, 2, 5), management: a.chance(30)}
	if a.chance(20) {
		s.shown.scopes = []string{"orders:read"}
	}
}
