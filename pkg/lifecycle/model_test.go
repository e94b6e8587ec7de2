package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	crand "crypto/rand"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

var (
	modelSteps = flag.Int("model.steps", 3000, "how many random steps TestModel takes on the memory store")
	modelLocal = flag.Int("model.dynamodb", 150, "how many it takes on DynamoDB Local")
	modelSeed  = flag.Uint64("model.seed", 0, "the seed of its first story; 0: a new one")
)

const (
	storyLength = 300 // steps
	lookAround  = 20  // steps from one comparison of everything to the next
)

// TestModel takes random steps, by callers of all kinds, and compares what the Service does with the model of
// model_rules_test.go: every answer, and every so often everything that there is.
//
// Steps are told in stories, each with a store and a seed of its own: a story that fails is printed in as few steps as
// still fail, with the seed that tells it again.
func TestModel(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		tellStories(t, *modelSteps, func() storetest.Store { return memory.New() })
	})
	t.Run("dynamodb", func(t *testing.T) {
		t.Parallel()
		store := keytest.OnDynamoDB(t)
		tellStories(t, *modelLocal, func() storetest.Store { return store })
	})
}

func tellStories(t *testing.T, steps int, open func() storetest.Store) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d steps from seed %d: go test ./pkg/lifecycle -run Model -v -model.seed %d -model.steps %d", steps, seed, seed, steps)
	seen := map[string]int{}
	for ; steps > 0; seed++ {
		length := min(steps, storyLength)
		steps -= length
		story, err := invent(open(), seed, length, seen)
		if err != nil {
			story, err = shorten(open, seed, story, err)
			t.Fatalf("%v\nin the story\n%stold again by: go test ./pkg/lifecycle -run Model -model.seed %d", err, told(story), seed)
		}
	}
	t.Logf("answers: %v", seen)
}

// invent makes up a story and takes its steps, until one fails. It returns the steps taken.
func invent(store storetest.Store, seed uint64, length int, seen map[string]int) (story []step, err error) {
	w := newWorld(store, seed)
	a := &author{Rand: rand.New(rand.NewPCG(seed, 1)), model: w.model, now: w.now}
	script := a.prologue()
	for n := 1; n <= length; n++ {
		a.now, a.living = w.now, w.living
		s := a.next()
		if n <= len(script) {
			s = script[n-1]
		}
		s.n = n
		story = append(story, s)
		code, err := w.take(s)
		if err == nil && (n%lookAround == 0 || n == length) {
			err = w.compare()
		}
		if err != nil {
			return story, fmt.Errorf("step %d: %w", n, err)
		}
		seen[s.verb+" "+string(code)]++
		if s.token != "" && code == "" {
			a.asked = append(a.asked, s)
		}
	}
	return story, nil
}

// retell takes the steps of a story again, and compares everything at its end.
func retell(store storetest.Store, seed uint64, story []step) error {
	w := newWorld(store, seed)
	for i, s := range story {
		_, err := w.take(s)
		if err == nil && i == len(story)-1 {
			err = w.compare()
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", s.n, err)
		}
	}
	return nil
}

// shorten leaves out steps, many at first and then one by one, as long as the story still fails.
func shorten(open func() storetest.Store, seed uint64, story []step, err error) ([]step, error) {
	deadline := time.Now().Add(30 * time.Second)
	for size := len(story) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(story) && time.Now().Before(deadline); {
			less := slices.Concat(story[:at], story[at+size:])
			if at+size < len(story) {
				less[at].after += sum(story[at : at+size]) // the time passes all the same
			}
			if failure := retell(open(), seed, less); failure != nil {
				story, err = less, failure
			} else {
				at += size
			}
		}
	}
	return story, err
}

func sum(steps []step) (d time.Duration) {
	for _, s := range steps {
		d += s.after
	}
	return d
}

func told(story []step) string {
	var b strings.Builder
	for _, s := range story {
		fmt.Fprintf(&b, "  %s\n", s.String())
	}
	return b.String()
}

// world is the Service and the model beside each other.
type world struct {
	*model
	store    storetest.Store
	now      time.Time // of the process whose clock is right
	slow     time.Duration
	service  *lifecycle.Service
	verifier *verify.Verifier
	living   []int
	entries  map[string]bool // of the trails, those known
}

func newWorld(store storetest.Store, seed uint64) *world {
	format, err := apikey.NewFormat("lk")
	if err != nil {
		panic(err)
	}
	w := &world{store: store, now: time.Date(2026, 11, 22, 23, 50, 0, 0, time.UTC), entries: map[string]bool{}}
	mark := strings.ToLower(crand.Text()[:8])
	w.model = &model{keys: map[int]*modelKey{}, kept: map[string]*modelAnswer{}, defaultPlan: "free", defaultScopes: []string{"orders:*", "mail"}}
	for _, name := range []string{"acme_", "brook_", "corner_"} {
		w.orgs = append(w.orgs, &modelOrg{id: name + mark})
	}
	table := plan.Table{}
	for name, p := range modelPlans {
		table[name] = plan.Plan{Name: name, Keys: p.keys, DefaultPerMinute: p.perMinute, HighestPerMinute: p.mostPerMinute, HighestPerDay: p.mostPerDay}
	}
	clock := func() time.Time { return w.now.Add(-w.slow) }
	w.service = &lifecycle.Service{Store: store, Plans: table, Format: format, Now: clock, AllowedScopes: w.defaultScopes, Seal: seal.NewLocal([32]byte{1})}
	if seed%2 == 1 {
		w.service.DefaultPlan, w.defaultPlan = "trial", "trial"
	}
	w.verifier = &verify.Verifier{Store: store, Format: format, Now: clock, Timeout: time.Minute}
	return w
}

// outcome is what a step came to.
type outcome struct {
	code     apikey.Code // "" where it succeeded
	keys     []apikey.Key
	issued   apikey.Key
	secret   string
	kept     string // where the store keeps the answer, "" where it does not
	listed   []apikey.Key
	entries  []audit.Entry
	standing *lifecycle.Standing
}

// take has the Service and the model take a step, and says where they differ.
func (w *world) take(s step) (apikey.Code, error) {
	w.now = w.now.Add(s.after)
	w.slow = s.slow
	now := w.now.Add(-s.slow).Truncate(time.Millisecond)
	if s.verb == "present" {
		k := w.keys[s.about]
		if k == nil {
			return "", nil
		}
		s.shown.at = now
		return w.present(k, s.shown)
	}
	asks, ctx, code, err := w.enter(s.by, now)
	if err != nil || ctx == nil {
		return code, err
	}
	q := &question{model: w.model, step: &s, who: asks, now: now, k: w.keys[s.about], org: w.orgs[s.home]}
	if s.stale >= 0 && q.k != nil && q.k.version > s.stale {
		s.version = q.k.version - s.stale
	}
	switch {
	case s.verb == "create":
		q.after = q.asked()
	case s.verb == "update" && q.k != nil:
		q.after = q.patched()
	}
	may := q.refusals()
	before := q.kept()
	got := w.do(ctx, q)
	if len(may) == 0 && got.code != "" || len(may) > 0 && !slices.Contains(may, got.code) {
		return got.code, fmt.Errorf("got %q, want %q", got.code, may)
	}
	var told []happened
	if got.code == "" && before != nil {
		if !sameAnswer(got, before.said) {
			return got.code, errors.New("the answer is another than the first time")
		}
		return "again", w.readTrails(q, nil, "")
	} else if got.code == "" {
		if told, err = w.answered(q, got); err != nil {
			return got.code, err
		}
	}
	return got.code, w.readTrails(q, told, got.code)
}

// enter lets the one who asks in, as a door would: of a key what a verify says, and nothing when it refuses.
func (w *world) enter(by asker, now time.Time) (who, context.Context, apikey.Code, error) {
	org := w.orgs[by.home]
	c := caller.Caller{OrganizationID: org.id, Kind: by.kind, ID: by.name, Plan: by.claim}
	switch by.kind {
	case caller.Operator:
		c.ID, c.Scopes = "operator", apikey.ManagementScopes()
	case caller.User:
		c.Scopes, c.Own = roleScopes[by.role], by.role == "member"
	case caller.Key:
		k := w.keys[by.key]
		if k == nil {
			return who{}, nil, "", nil
		}
		d := w.verifier.Verify(context.Background(), verify.Request{Key: k.secret, Address: by.from, Door: verify.Management})
		if want := k.admit(presented{at: now, from: by.from, cost: 1, management: true}); d.Code != want {
			return who{}, nil, d.Code, fmt.Errorf("at the door the key is %s, want %s", d.Code, want)
		}
		if !d.Allowed() {
			return who{}, nil, d.Code, nil
		}
		c = caller.Caller{OrganizationID: d.OrganizationID, Kind: caller.Key, ID: d.KeyID.String(), Scopes: d.Scopes, Until: d.End, CIDRs: d.CIDRs, Address: by.from}
		return who{org: k.org, kind: caller.Key, id: k.id.String(), scopes: k.scopes, key: k}, as(c), "", nil
	}
	return who{org: org, kind: c.Kind, id: c.ID, scopes: c.Scopes, own: c.Own, claim: by.claim}, as(c), "", nil
}

// do has the Service take the step.
func (w *world) do(ctx context.Context, q *question) (got outcome) {
	var err error
	id := q.target()
	keys := make([]apikey.Key, 1)
	once := lifecycle.Once{Token: q.token, Method: "POST", Path: q.path(), Body: []byte(q.body())}
	switch q.verb {
	case "get":
		keys[0], err = w.service.Get(ctx, id)
	case "describe":
		keys[0], err = w.service.Describe(ctx, id)
	case "create":
		var issued apikey.Issued
		issued, err = w.service.CreateOnce(ctx, once, q.new)
		keys[0], got.issued, got.secret = issued.Key, issued.Key, issued.Plaintext.Reveal()
	case "update":
		keys[0], err = w.service.Update(ctx, id, q.version, q.patch)
	case "rotate":
		var r lifecycle.Rotated
		r, err = w.service.RotateOnce(ctx, once, id, q.grace)
		keys, got.issued, got.secret = []apikey.Key{r.Old, r.New.Key}, r.New.Key, r.New.Plaintext.Reveal()
	case "end":
		keys[0], err = w.service.EndGrace(ctx, id)
	case "extend":
		keys[0], err = w.service.ExtendGrace(ctx, id, *q.grace)
	case "archive":
		keys[0], err = w.service.Archive(ctx, id)
	case "reactivate":
		keys[0], err = w.service.Reactivate(ctx, id)
	case "revoke":
		keys, err = nil, w.service.Revoke(ctx, id, q.reason)
	case "list":
		keys = nil
		got.listed, err = w.list(ctx, q.filter)
	case "audit":
		keys = nil
		got.entries, err = w.look(ctx, q)
	case "own":
		keys = nil
		var standing lifecycle.Standing
		standing, err = w.service.OwnOrganization(ctx)
		got.standing = &standing
	case "set":
		keys = nil
		var standing lifecycle.Standing
		standing, err = w.service.SetOrganization(ctx, q.org.id, q.orgPatch)
		got.standing = &standing
	}
	if err != nil {
		return outcome{code: apikey.CodeOf(err)}
	}
	if got.keys = keys; got.secret != "" && q.token != "" {
		if r, err := w.store.Key(ctx, got.issued.ID); err == nil && r.Sealed != nil {
			got.kept = r.Sealed.ID
		}
	}
	return got
}

// target is the key that the step names, or one that nobody has.
func (q *question) target() apikey.ID {
	if q.k == nil {
		return 62
	}
	return q.k.id
}

// list is a list, page by page.
func (w *world) list(ctx context.Context, f lifecycle.Filter) (all []apikey.Key, err error) {
	for {
		page, next, err := w.service.List(ctx, f)
		if err != nil || f.Limit > 0 && len(page) > f.Limit {
			return nil, cmpErr(err, "a page is longer than its limit")
		}
		if all = append(all, page...); next == "" {
			return all, nil
		}
		f.Cursor = next
	}
}

func (w *world) look(ctx context.Context, q *question) (all []audit.Entry, err error) {
	f := q.auditFilter
	if q.about != 0 {
		f.KeyID = q.target()
	}
	for {
		page, next, err := w.service.Audit(ctx, f)
		if err != nil || len(page) > f.Limit {
			return nil, cmpErr(err, "a page is longer than its limit")
		}
		if all = append(all, page...); next == "" {
			return all, nil
		}
		f.Cursor = next
	}
}

func cmpErr(err error, otherwise string) error {
	if err == nil {
		err = errors.New(otherwise)
	}
	return err
}

// answered has the model take a step that was not refused, and compares the answer.
func (w *world) answered(q *question, got outcome) ([]happened, error) {
	var err error
	switch q.verb {
	case "list":
		err = w.sameKeys(got.listed, q.listed(), q.now)
	case "audit":
		if want := q.told(); !slices.EqualFunc(got.entries, want, func(a, b audit.Entry) bool { return a.ID == b.ID }) {
			err = fmt.Errorf("the trail has %d such entries, want %d", len(got.entries), len(want))
		}
	case "own":
		err = sameStanding(got.standing, q.standing(q.who.org, q.who))
	}
	if err != nil {
		return nil, err
	}
	touched, before := q.k, map[string]any{}
	if q.verb == "end" || q.verb == "extend" {
		touched = q.graceOf()
	}
	if touched != nil {
		before = touched.shape(q.now)
	}
	keys, told := q.take(&got)
	if len(told) > 0 && told[0].key != nil {
		told[0].tell(before, q.now)
	}
	if got.secret != "" {
		w.living = append(w.living, q.n)
	}
	if q.verb == "set" {
		return told, sameStanding(got.standing, q.standing(q.org, who{org: q.org}))
	}
	return told, w.sameKeys(got.keys, keys, q.now)
}

// readTrails reads what was written into the trails since: what the step must leave, and beside it only what may be done
// along the way: expired keys give up their places, and what a token says of its organization is noted.
func (w *world) readTrails(q *question, told []happened, code apikey.Code) error {
	takesPlaces := q.verb == "create" || q.verb == "reactivate" || q.verb == "update"
	for _, o := range w.orgs {
		page, more, err := w.store.Entries(context.Background(), lifecycle.EntryQuery{OrganizationID: o.id, After: audit.FirstID(w.now.Add(-time.Minute)), Limit: 1000})
		if err != nil || more {
			return fmt.Errorf("reading the trail: more %v, %v", more, err)
		}
		for _, e := range slices.Backward(page) {
			if w.entries[e.ID] {
				continue
			}
			w.entries[e.ID] = true
			o.trail = append(o.trail, e)
			expected := slices.IndexFunc(told, func(h happened) bool { return h.matches(q, o, &e) })
			switch {
			case expected >= 0:
				told = slices.Delete(told, expected, expected+1)
			case takesPlaces && o == q.who.org && w.expired(&e, q.now), takesPlaces && o == q.who.org && q.claims(&e):
			default:
				return fmt.Errorf("the trail tells %s of %v by %s, which was not to happen (answered %q)", e.Action, e.KeyID, e.ActorID, code)
			}
		}
	}
	if len(told) > 0 {
		return fmt.Errorf("the trail does not tell %s", told[0].action)
	}
	if q.verb == "create" && code == "" && q.kept() == nil && q.kind == caller.User && q.claim != "" && q.who.org.claim != q.claim {
		return fmt.Errorf("the plan %s that the token claims is not noted", q.claim)
	}
	return nil
}

func (h happened) matches(q *question, o *modelOrg, e *audit.Entry) bool {
	if h.action != e.Action || e.ActorID != q.who.id || e.ActorKind != string(q.who.kind) || !e.At.Equal(q.now) {
		return false
	}
	if h.key == nil {
		return o == q.org && e.KeyID == nil
	}
	return o == h.key.org && e.KeyID != nil && *e.KeyID == h.key.id && h.tells(e.Changes)
}

// tells says whether an entry names what changed, and nothing else but the grace of a predecessor that ended too.
func (h happened) tells(changes []audit.Change) bool {
	named := 0
	for _, c := range changes {
		var from, to any
		_, _ = json.Unmarshal(c.From, &from), json.Unmarshal(c.To, &to)
		want, ok := h.changes[c.Field]
		switch {
		case ok && reflect.DeepEqual(want, [2]any{from, to}):
			named++
		case strings.HasSuffix(c.Field, ".grace_expires_at") && h.action == audit.Rotated:
		default:
			return false
		}
	}
	return named == len(h.changes)
}

// expired notes that a key gave up its place, if it may.
func (w *world) expired(e *audit.Entry, now time.Time) bool {
	for _, k := range w.keys {
		if e.KeyID != nil && e.Action == k.ended() && *e.KeyID == k.id && k.place && k.dead(now) {
			k.touch(now)
			k.settles(false, now)
			return true
		}
	}
	return false
}

// claims notes what a token says of its organization's plan, if it does.
func (q *question) claims(e *audit.Entry) bool {
	o := q.who.org
	ok := q.kind == caller.User && q.claim != "" && len(e.Changes) == 1 && e.Changes[0].Field == "claimed_plan" &&
		string(e.Changes[0].To) == fmt.Sprintf("%q", q.claim) && (e.Action == audit.OrgUpdated) == o.stored
	if !ok && q.kind == caller.User && q.claim == "" && e.Action == audit.OrgCreated && !o.stored {
		o.stored, o.created = true, q.now
		return true
	}
	if ok {
		o.claim = q.claim
		if !o.stored {
			o.stored, o.created = true, q.now
		}
	}
	return ok
}

// present shows a key at a door.
func (w *world) present(k *modelKey, p presented) (apikey.Code, error) {
	r := verify.Request{Key: k.secret, Scopes: p.scopes, Address: p.from, Cost: p.cost, OrganizationID: p.org}
	if p.management {
		r.Door = verify.Management
	}
	d := w.verifier.Verify(context.Background(), r)
	if want := k.admit(p); d.Code != want {
		return d.Code, fmt.Errorf("#%d is %s when shown, want %s", k.made, d.Code, want)
	}
	return d.Code, nil
}

// compare looks at everything that there is.
func (w *world) compare() error {
	w.slow = 0
	now := w.now.Truncate(time.Millisecond)
	for i, o := range w.orgs {
		by, ctx, _, err := w.enter(asker{kind: caller.Operator, home: i}, now)
		if err != nil {
			return err
		}
		for _, include := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
			f := lifecycle.Filter{IncludeArchived: include[0], IncludeRevoked: include[1]}
			q := &question{model: w.model, step: &step{filter: f}, who: by, now: now}
			got, err := w.list(ctx, f)
			if err == nil {
				err = w.sameKeys(got, q.listed(), now)
			}
			if err != nil {
				return fmt.Errorf("org %d, listed with %v: %w", i, include, err)
			}
		}
		if err := w.compareOrganization(ctx, o, by); err != nil {
			return fmt.Errorf("org %d: %w", i, err)
		}
	}
	return errors.Join(w.presentAll(now), w.lookForSecrets())
}

// lookForSecrets demands that of a key that was revoked no secret is kept, sealed or not.
func (w *world) lookForSecrets() error {
	for _, a := range w.kept {
		if a.key.revoked.IsZero() {
			continue
		}
		if kept, err := w.store.Replay(context.Background(), a.at); err != nil && !errors.Is(err, lifecycle.ErrNotFound) || kept.Sealed != nil {
			return fmt.Errorf("the secret of #%d is still kept though the key was revoked (%v)", a.key.made, err)
		}
	}
	return nil
}

// compareOrganization compares what is stored of an organization, and the length of its trail.
func (w *world) compareOrganization(ctx context.Context, o *modelOrg, by who) error {
	stored, err := w.store.Organization(ctx, o.id)
	if errors.Is(err, lifecycle.ErrNotFound) && !o.stored {
		return nil
	}
	q := &question{model: w.model, step: &step{}, who: by}
	want := q.standing(o, who{org: o})
	if err != nil || stored.ActiveKeys != want.ActiveKeys || stored.Plan != o.plan || stored.ClaimedPlan != o.claim ||
		!reflect.DeepEqual(stored.AllowedScopes, o.scopes) {
		return fmt.Errorf("%d keys are counted on the plans %q, %q with %v (%v), want %d on %q, %q with %v",
			stored.ActiveKeys, stored.Plan, stored.ClaimedPlan, stored.AllowedScopes, err, want.ActiveKeys, o.plan, o.claim, o.scopes)
	}
	trail, more, err := w.store.Entries(ctx, lifecycle.EntryQuery{OrganizationID: o.id, Limit: 1000})
	if err != nil || more || len(trail) != len(o.trail) {
		return fmt.Errorf("the trail has %d entries, want %d (%v)", len(trail), len(o.trail), err)
	}
	return nil
}

// presentAll shows every key that was ever issued: no revoked one passes, and no line has more than two that live.
func (w *world) presentAll(now time.Time) error {
	live := map[*modelKey]int{}
	for _, n := range w.living {
		k := w.keys[n]
		code, err := w.present(k, presented{at: now, from: netip.MustParseAddr("10.1.2.3"), cost: 1, management: n%2 == 0})
		if err != nil {
			return err
		}
		if code == apikey.RevokedKey || code == apikey.ArchivedKey || code == apikey.DisabledKey || code == apikey.ExpiredKey {
			continue
		}
		first := k
		for first.prev != nil {
			first = first.prev
		}
		if live[first]++; live[first] > 2 {
			return fmt.Errorf("the line of #%d has more than two keys that live", first.made)
		}
	}
	return nil
}

func (w *world) sameKeys(got []apikey.Key, want []*modelKey, now time.Time) error {
	if len(got) != len(want) {
		return fmt.Errorf("got %d keys, want %d", len(got), len(want))
	}
	for i := range got {
		if err := sameKey(&got[i], want[i], now); err != nil {
			return err
		}
	}
	return nil
}

func sameKey(got *apikey.Key, want *modelKey, now time.Time) error {
	b, err := json.Marshal(got)
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	shape := want.shape(now)
	for name := range shape {
		if !reflect.DeepEqual(fields[name], shape[name]) {
			return fmt.Errorf("#%d has %s %v, want %v", want.made, name, fields[name], shape[name])
		}
	}
	if len(fields) != len(shape) || got.Version != want.version {
		return fmt.Errorf("#%d has %d fields at version %d, want %d at %d", want.made, len(fields), got.Version, len(shape), want.version)
	}
	return nil
}

func sameStanding(got *lifecycle.Standing, want lifecycle.Standing) error {
	if a, b := modelJSON(got), modelJSON(want); a != b {
		return fmt.Errorf("the organization is %s, want %s", a, b)
	}
	return nil
}

func modelJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// same says whether two answers to the same question are one.
func sameAnswer(a, b outcome) bool {
	versions := func(o outcome) (v []int64) {
		for _, k := range o.keys {
			v = append(v, k.Version)
		}
		return v
	}
	return a.secret == b.secret && modelJSON(a.keys) == modelJSON(b.keys) && slices.Equal(versions(a), versions(b))
}
