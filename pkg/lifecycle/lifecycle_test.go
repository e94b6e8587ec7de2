package lifecycle_test

import (
	"context"
	"fmt"
	"net/netip"
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
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

func TestACreatedKeyPassesAndARevokedOneDoesNot(t *testing.T) {
	h := newHouse(t, "enterprise")
	issued := h.mustCreate(t, basic())
	if got := h.verify(issued); got != apikey.Valid {
		t.Fatalf("a new key is %s", got)
	}
	if err := h.Revoke(admin(), issued.Key.ID, "leaked"); err != nil {
		t.Fatal(err)
	}
	if got := h.verify(issued); got != apikey.RevokedKey {
		t.Fatalf("a revoked key is %s", got)
	}
	if err := h.Revoke(admin(), issued.Key.ID, ""); err != nil {
		t.Fatalf("revoking again: %v", err)
	}
	k, err := h.Get(admin(), issued.Key.ID)
	if err != nil || k.Status != apikey.Revoked || *k.RevokedReason != "leaked" {
		t.Fatalf("got %+v, %v", k, err)
	}
}

func TestCreateFillsInWhatIsNotSaid(t *testing.T) {
	h := newHouse(t, "enterprise")
	k := h.mustCreate(t, basic()).Key
	if *k.RateLimitPerMinute != 60 || k.DailyLimit != nil || string(k.Metadata) != "{}" || k.Scopes == nil || k.AllowedCIDRs == nil {
		t.Fatalf("got %+v", k)
	}
	unlimited := h.mustCreate(t, lifecycle.New{ProjectID: "shop", Name: "n", RateLimitPerMinute: lifecycle.Limit{Said: true}}).Key
	if unlimited.RateLimitPerMinute != nil {
		t.Fatal("null is no limit where the plan allows that")
	}
}

func TestEveryFieldOutOfBoundsIsNamed(t *testing.T) {
	h := newHouse(t, "enterprise")
	zero, long := int64(0), "a#b"
	_, err := h.Create(admin(), lifecycle.New{
		ProjectID: "no spaces", EnvironmentID: &long, ExternalID: &long, Name: "", Scopes: []string{"a b", "x", "x"},
		RateLimitPerMinute: lifecycle.Limit{Said: true, V: &zero}, DailyLimit: &zero, AllowedCIDRs: []string{"10.0.0.0/33"},
		Metadata: []byte("[]"), ExpiresAt: &lifecycle.Moment{Time: h.clock()}, RotationIntervalDays: new(0),
		RotationWebhookURL: new("http://example.com/"),
	})
	wantCode(t, err, apikey.InvalidFields)
	var got []string
	for _, f := range err.(*apikey.Error).Fields {
		got = append(got, f.Pointer)
	}
	slices.Sort(got)
	want := []string{"/allowed_cidrs/0", "/daily_limit", "/environment_id", "/expires_at", "/external_id", "/metadata", "/name",
		"/project_id", "/rate_limit_per_minute", "/rotation_interval_days", "/rotation_webhook_url", "/scopes/0", "/scopes/2"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v,\nwant %v", got, want)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	h := newHouse(t, "enterprise")
	target := h.mustCreate(t, basic()).Key.ID
	verbs := map[string]struct {
		needs string
		do    func(context.Context) error
	}{
		"create":   {apikey.KeysWrite, func(ctx context.Context) error { _, err := h.Create(ctx, basic()); return err }},
		"get":      {apikey.KeysRead, func(ctx context.Context) error { _, err := h.Get(ctx, target); return err }},
		"list":     {apikey.KeysRead, func(ctx context.Context) error { _, _, err := h.List(ctx, lifecycle.Filter{}); return err }},
		"describe": {apikey.KeysVerify, func(ctx context.Context) error { _, err := h.Describe(ctx, target); return err }},
		"rotate": {apikey.KeysWrite, func(ctx context.Context) error {
			_, err := h.Rotate(ctx, h.mustCreate(t, basic()).Key.ID, nil)
			return err
		}},
		"end": {apikey.KeysWrite, func(ctx context.Context) error {
			_, err := h.EndGrace(ctx, h.mustRotate(t, h.mustCreate(t, basic()), nil).Old.ID)
			return err
		}},
		"extend": {apikey.KeysWrite, func(ctx context.Context) error {
			_, err := h.ExtendGrace(ctx, h.mustRotate(t, h.mustCreate(t, basic()), nil).Old.ID, lifecycle.MaxGrace)
			return err
		}},
		"revoke": {apikey.KeysWrite, func(ctx context.Context) error { return h.Revoke(ctx, h.mustCreate(t, basic()).Key.ID, "") }},
	}
	for name, verb := range verbs {
		wantCode(t, verb.do(context.Background()), apikey.InsufficientScope)
		for _, scope := range append(apikey.ManagementScopes(), "orders:read") {
			err := verb.do(as(holder(scope)))
			if scope == verb.needs && err != nil {
				t.Errorf("%s with %s: %v", name, scope, err)
			}
			if scope != verb.needs && apikey.CodeOf(err) != apikey.InsufficientScope {
				t.Errorf("%s with %s: got %v", name, scope, err)
			}
		}
	}
}

func TestWhatBelongsToAnotherOrganizationDoesNotExist(t *testing.T) {
	h := newHouse(t, "enterprise")
	old := h.mustRotate(t, h.mustCreate(t, basic()), nil).Old
	stranger := admin()
	stranger = as(caller.Caller{OrganizationID: "other", Kind: caller.Operator, ID: "x", Scopes: caller.From(stranger).Scopes})
	if _, err := h.AddOrganization(stranger, "enterprise", nil); err != nil {
		t.Fatal(err)
	}
	_, get := h.Get(stranger, old.ID)
	_, describe := h.Describe(stranger, old.ID)
	_, rotate := h.Rotate(stranger, *old.ReplacedByKeyID, nil)
	_, end := h.EndGrace(stranger, old.ID)
	_, extend := h.ExtendGrace(stranger, old.ID, lifecycle.MaxGrace)
	for _, err := range []error{get, describe, rotate, end, extend, h.Revoke(stranger, old.ID, "")} {
		wantCode(t, err, apikey.NotFound)
	}
	if list, _, err := h.List(stranger, lifecycle.Filter{}); err != nil || len(list) != 0 {
		t.Fatalf("a stranger's list has %d keys, %v", len(list), err)
	}
}

func TestNobodyGivesMoreThanTheyHave(t *testing.T) {
	h := newHouse(t, "enterprise")
	later := &lifecycle.Moment{Time: h.clock().Add(48 * time.Hour)}
	bounded := holder(apikey.KeysWrite, apikey.KeysRead)
	bounded.Until, bounded.CIDRs = h.clock().Add(24*time.Hour), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	within := &lifecycle.Moment{Time: bounded.Until}
	for name, c := range map[string]struct {
		by   caller.Caller
		give lifecycle.New
		want apikey.Code
	}{
		"a scope not held":      {bounded, lifecycle.New{Scopes: []string{apikey.AuditRead}}, apikey.ScopeNotHeld},
		"org:admin":             {bounded, lifecycle.New{Scopes: []string{apikey.OrgAdmin}}, apikey.ScopeNotHeld},
		"a longer life":         {bounded, lifecycle.New{Scopes: []string{apikey.KeysRead}, ExpiresAt: later, AllowedCIDRs: []string{"10.1.0.0/16"}}, apikey.Escalation},
		"an endless life":       {bounded, lifecycle.New{Scopes: []string{apikey.KeysRead}, AllowedCIDRs: []string{"10.1.0.0/16"}}, apikey.Escalation},
		"more networks":         {bounded, lifecycle.New{Scopes: []string{apikey.KeysRead}, ExpiresAt: within, AllowedCIDRs: []string{"10.1.0.0/16", "11.0.0.0/8"}}, apikey.Escalation},
		"a wider network":       {bounded, lifecycle.New{Scopes: []string{apikey.KeysRead}, ExpiresAt: within, AllowedCIDRs: []string{"10.0.0.0/7"}}, apikey.Escalation},
		"every network":         {bounded, lifecycle.New{Scopes: []string{apikey.KeysRead}, ExpiresAt: within}, apikey.Escalation},
		"what they have":        {bounded, lifecycle.New{Scopes: []string{apikey.KeysRead}, ExpiresAt: within, AllowedCIDRs: []string{"10.1.0.0/16"}}, apikey.Valid},
		"a service key, freely": {bounded, lifecycle.New{Scopes: []string{"orders:read"}}, apikey.Valid},
		"a foreign service":     {bounded, lifecycle.New{Scopes: []string{"billing:read"}}, apikey.ScopeNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			c.give.ProjectID, c.give.Name = "shop", "n"
			issued, err := h.Create(as(c.by), c.give)
			if c.want == apikey.Valid {
				if err != nil {
					t.Fatal(err)
				}
				if h.verifier.Verify(context.Background(), verify.Request{Key: issued.Plaintext.Reveal(), Door: verify.Management,
					Address: netip.MustParseAddr("10.1.2.3")}).Code != apikey.Valid {
					t.Fatal("the key does not pass")
				}
				return
			}
			wantCode(t, err, c.want)
		})
	}
}

func TestNobodyRotatesAKeyThatCanDoMoreThanThey(t *testing.T) {
	h := newHouse(t, "enterprise")
	auditor := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.AuditRead}})
	_, err := h.Rotate(as(holder(apikey.KeysWrite)), auditor.Key.ID, nil)
	wantCode(t, err, apikey.ScopeNotHeld)
	mortal := holder(apikey.KeysWrite, apikey.AuditRead)
	mortal.Until = h.clock().Add(time.Hour)
	_, err = h.Rotate(as(mortal), auditor.Key.ID, nil)
	wantCode(t, err, apikey.Escalation)
	if err := h.Revoke(as(holder(apikey.KeysWrite)), auditor.Key.ID, ""); err != nil {
		t.Fatalf("whoever may write keys may always revoke: %v", err)
	}
}

func TestAKeyCannotCutItselfOff(t *testing.T) {
	h := newHouse(t, "enterprise")
	mine := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}}).Key
	me := holder(apikey.KeysWrite)
	me.ID = mine.ID.String()
	wantCode(t, h.Revoke(as(me), mine.ID, ""), apikey.OwnKey)
	_, err := h.Rotate(as(me), mine.ID, nil)
	wantCode(t, err, apikey.OwnKey)
}

func (h *house) mustRotate(t *testing.T, issued apikey.Issued, grace *time.Duration) lifecycle.Rotated {
	t.Helper()
	rotated, err := h.Rotate(admin(), issued.Key.ID, grace)
	if err != nil {
		t.Fatal(err)
	}
	return rotated
}

func TestBothKeysPassWithinTheGraceAndOnlyTheNewAfterIt(t *testing.T) {
	h := newHouse(t, "enterprise")
	first := h.mustCreate(t, basic())
	rotated := h.mustRotate(t, first, nil)
	for _, c := range []struct {
		after    time.Duration
		old, new apikey.Code
	}{
		{0, apikey.Valid, apikey.Valid},
		{24*time.Hour - time.Millisecond, apikey.Valid, apikey.Valid},
		{time.Millisecond, apikey.ExpiredKey, apikey.Valid},
	} {
		h.advance(c.after)
		if o, n := h.verify(first), h.verify(rotated.New); o != c.old || n != c.new {
			t.Fatalf("%s later: old %s, new %s", c.after, o, n)
		}
	}
	if rotated.Old.Status != apikey.Rotated || *rotated.Old.ReplacedByKeyID != rotated.New.Key.ID {
		t.Fatalf("the old key: %+v", rotated.Old)
	}
}

func TestWithoutGraceTheOldKeyIsDeadForSlowClocksToo(t *testing.T) {
	h := newHouse(t, "enterprise")
	first := h.mustCreate(t, basic())
	h.mustRotate(t, first, seconds(0))
	h.advance(-30 * time.Second)
	if got := h.verify(first); got != apikey.ExpiredKey {
		t.Fatalf("got %s", got)
	}
}

func TestASuccessorInheritsLimitsScopesExpiryAndTodaysCount(t *testing.T) {
	h := newHouse(t, "enterprise")
	expiry := &lifecycle.Moment{Time: h.clock().Add(1000 * time.Hour)}
	first := h.mustCreate(t, lifecycle.New{ProjectID: "shop", Name: "n", Scopes: []string{"orders:read"}, DailyLimit: new(int64(5)),
		ExpiresAt: expiry, AllowedCIDRs: []string{"0.0.0.0/0", "::/0"}, Metadata: []byte(`{"a": 1}`), RotationIntervalDays: new(30)})
	for range 3 {
		h.verify(first)
	}
	next := h.mustRotate(t, first, seconds(0)).New
	k := next.Key
	if !slices.Equal(k.Scopes, first.Key.Scopes) || *k.DailyLimit != 5 || !k.ExpiresAt.Equal(expiry.Time) || string(k.Metadata) != `{"a":1}` ||
		!k.NextRotationAt.Equal(h.clock().AddDate(0, 0, 30)) || k.ProjectID != "shop" || k.Name != "n" {
		t.Fatalf("got %+v", k)
	}
	d := h.verifier.Verify(context.Background(), verify.Request{Key: next.Plaintext.Reveal(), Address: netip.MustParseAddr("::1")})
	if !d.Allowed() || d.Limits[1].Remaining != 1 {
		t.Fatalf("got %s with %+v: 3 of 5 were used before", d.Code, d.Limits)
	}
}

func TestOfManyRotationsAtOnceExactlyOneWins(t *testing.T) {
	h := newHouse(t, "enterprise")
	for round := range 20 {
		first := h.mustCreate(t, basic())
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = h.Rotate(admin(), first.Key.ID, seconds(round%2)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				wantCode(t, err, apikey.AlreadyRotated)
			}
		}
		if won != 1 {
			t.Fatalf("%d rotations won", won)
		}
	}
}

func TestALineHasAtMostTwoLiveKeys(t *testing.T) {
	h := newHouse(t, "enterprise")
	a := h.mustCreate(t, basic())
	b := h.mustRotate(t, a, nil).New
	_, err := h.Rotate(admin(), b.Key.ID, nil)
	wantCode(t, err, apikey.RotationInProgress)
	c := h.mustRotate(t, b, seconds(0)).New // a leak can always be answered
	if x, y, z := h.verify(a), h.verify(b), h.verify(c); x != apikey.ExpiredKey || y != apikey.ExpiredKey || z != apikey.Valid {
		t.Fatalf("got %s, %s, %s", x, y, z)
	}
	if _, err := h.Rotate(admin(), c.Key.ID, nil); err != nil {
		t.Fatalf("the line goes on: %v", err)
	}
}

func TestAGraceThatARotationEndsIsInTheAudit(t *testing.T) {
	h := newHouse(t, "enterprise")
	a := h.mustCreate(t, basic())
	b := h.mustRotate(t, a, nil).New
	h.mustRotate(t, b, seconds(0))
	entries, _, err := h.memory.Entries(context.Background(), lifecycle.EntryQuery{OrganizationID: "acme", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	ended := audit.Change{Field: a.Key.ID.String() + ".grace_expires_at", From: []byte(`"2026-11-23T10:00:30Z"`), To: []byte(`"2026-11-22T10:00:30Z"`)}
	if !slices.ContainsFunc(entries[0].Changes, func(c audit.Change) bool { return reflect.DeepEqual(c, ended) }) {
		t.Errorf("got %s", entries[0].Changes)
	}
}

func TestAGraceCanBeEndedAndExtendedByEitherName(t *testing.T) {
	h := newHouse(t, "enterprise")
	for _, byOld := range []bool{true, false} {
		a := h.mustCreate(t, basic())
		b := h.mustRotate(t, a, seconds(60)).New
		id := b.Key.ID
		if byOld {
			id = a.Key.ID
		}
		moved, err := h.ExtendGrace(admin(), id, time.Hour)
		if err != nil || moved.ID != a.Key.ID || !moved.GraceExpiresAt.Equal(h.clock().Add(time.Hour)) {
			t.Fatalf("extend: %+v, %v", moved, err)
		}
		_, err = h.ExtendGrace(admin(), id, time.Minute)
		wantCode(t, err, apikey.InvalidFields)
		if ended, err := h.EndGrace(admin(), id); err != nil || ended.Status != apikey.Expired {
			t.Fatalf("end: %+v, %v", ended, err)
		}
		if x, y := h.verify(a), h.verify(b); x != apikey.ExpiredKey || y != apikey.Valid {
			t.Fatalf("got %s and %s", x, y)
		}
		_, err = h.ExtendGrace(admin(), id, time.Hour)
		wantCode(t, err, apikey.NotInGrace)
	}
}

func TestAGraceNeverOutlastsTheKey(t *testing.T) {
	h := newHouse(t, "enterprise")
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: h.clock().Add(time.Hour)}
	old := h.mustRotate(t, h.mustCreate(t, n), nil).Old
	if !old.GraceExpiresAt.Equal(n.ExpiresAt.Time) {
		t.Fatalf("got %s", old.GraceExpiresAt)
	}
}

func TestWhatCannotBeRotated(t *testing.T) {
	h := newHouse(t, "enterprise")
	revoked := h.mustCreate(t, basic())
	if err := h.Revoke(admin(), revoked.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: h.clock().Add(time.Hour)}
	expired := h.mustCreate(t, n)
	rotated := h.mustCreate(t, basic())
	h.mustRotate(t, rotated, nil)
	h.advance(2 * time.Hour)
	for id, want := range map[apikey.ID]apikey.Code{revoked.Key.ID: apikey.WrongState, expired.Key.ID: apikey.WrongState,
		rotated.Key.ID: apikey.AlreadyRotated, 77: apikey.NotFound} {
		_, err := h.Rotate(admin(), id, nil)
		wantCode(t, err, want)
	}
	_, err := h.Rotate(admin(), rotated.Key.ID, seconds(7*86400+1))
	wantCode(t, err, apikey.InvalidFields)
	_, err = h.Rotate(admin(), rotated.Key.ID, seconds(-1))
	wantCode(t, err, apikey.InvalidFields)
}

func TestAPlanHoldsExactlyItsKeys(t *testing.T) {
	h := newHouse(t, "professional") // 10 keys
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 40 {
		wg.Go(func() {
			_, err := h.Create(admin(), basic())
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if apikey.CodeOf(err) != apikey.PlanRefused {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if made != 10 || h.activeKeys(t) != 10 {
		t.Fatalf("%d made, %d counted", made, h.activeKeys(t))
	}
}

func TestARotationTakesNoPlaceAndAnEndedKeyFreesOne(t *testing.T) {
	h := newHouse(t, "starter") // 3 keys
	first := h.mustCreate(t, basic())
	h.mustCreate(t, basic())
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: h.clock().Add(time.Hour)}
	h.mustCreate(t, n)
	_, err := h.Create(admin(), basic())
	wantCode(t, err, apikey.PlanRefused)

	next := h.mustRotate(t, first, nil)
	if h.activeKeys(t) != 3 {
		t.Fatalf("a rotation moved the count to %d", h.activeKeys(t))
	}
	if err := h.Revoke(admin(), first.Key.ID, ""); err != nil || h.activeKeys(t) != 3 {
		t.Fatalf("revoking a key in grace: %v, count %d", err, h.activeKeys(t))
	}
	if err := h.Revoke(admin(), next.New.Key.ID, ""); err != nil || h.activeKeys(t) != 2 {
		t.Fatalf("revoking a live key: %v, count %d", err, h.activeKeys(t))
	}
	h.mustCreate(t, basic())
	h.advance(2 * time.Hour)
	h.mustCreate(t, basic()) // the expired key makes room
	if h.activeKeys(t) != 3 {
		t.Fatalf("%d counted", h.activeKeys(t))
	}
}

func TestPlansBoundLimits(t *testing.T) {
	free, trial := newHouse(t, "free"), newHouse(t, "trial")
	_, err := free.Create(admin(), basic())
	wantCode(t, err, apikey.PlanRefused)
	for _, n := range []*int64{nil, new(int64(601))} {
		_, err := trial.Create(admin(), lifecycle.New{ProjectID: "p", Name: "n", RateLimitPerMinute: lifecycle.Limit{Said: true, V: n}})
		wantCode(t, err, apikey.PlanRefused)
	}
	for range 3 { // keys that run the service take no place and are bound by no limit
		free.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.OrgAdmin}, RateLimitPerMinute: lifecycle.Limit{Said: true}})
	}
}

func TestListsPageWithoutLossWhileKeysComeAndGo(t *testing.T) {
	h := newHouse(t, "enterprise")
	var ids []apikey.ID
	for i := range 25 {
		if i%3 == 0 {
			h.advance(time.Millisecond)
		}
		n := basic()
		n.Name = fmt.Sprintf("k%02d", i)
		ids = append(ids, h.mustCreate(t, n).Key.ID)
	}
	if err := h.Revoke(admin(), ids[3], ""); err != nil {
		t.Fatal(err)
	}
	seen := map[apikey.ID]int{}
	f := lifecycle.Filter{Limit: 4, IncludeRevoked: true}
	for {
		page, next, err := h.List(admin(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page {
			seen[k.ID]++
		}
		if next == "" {
			break
		}
		f.Cursor = next
		h.advance(time.Millisecond)
		h.mustCreate(t, basic())
	}
	for _, id := range ids {
		if seen[id] != 1 {
			t.Fatalf("%s was seen %d times", id, seen[id])
		}
	}
	if all, next, err := h.List(admin(), lifecycle.Filter{Name: "k"}); err != nil || next != "" || len(all) != 24 || all[0].ID != ids[24] && all[0].CreatedAt.Before(all[23].CreatedAt) {
		t.Fatalf("got %d keys, %q, %v", len(all), next, err)
	}
	for _, f := range []lifecycle.Filter{{Cursor: "nonsense"}, {Cursor: "!"}, {Limit: 1001}, {Limit: -1}} {
		_, _, err := h.List(admin(), f)
		wantCode(t, err, apikey.InvalidFields)
	}
}

func TestStaleDaysFindsKeysNotUsedForSoLong(t *testing.T) {
	h := newHouse(t, "enterprise")
	used, unused := h.mustCreate(t, basic()), h.mustCreate(t, basic())
	h.advance(40 * 24 * time.Hour)
	h.verify(used)
	list, _, err := h.List(admin(), lifecycle.Filter{StaleDays: 30})
	if err != nil || len(list) != 1 || list[0].ID != unused.Key.ID {
		t.Fatalf("got %v, %v", list, err)
	}
}

func TestEveryChangeLeavesOneAuditEntryWithoutAnySecret(t *testing.T) {
	h := newHouse(t, "enterprise")
	first := h.mustCreate(t, basic())
	rotated := h.mustRotate(t, first, nil)
	if _, err := h.EndGrace(admin(), first.Key.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(admin(), rotated.New.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.memory.Entries(context.Background(), lifecycle.EntryQuery{OrganizationID: "acme", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var got []audit.Action
	for _, e := range entries {
		got = append(got, e.Action)
		if e.ActorID != "operator" || e.OrganizationID != "acme" {
			t.Errorf("got %+v", e)
		}
	}
	slices.Sort(got)
	want := []audit.Action{audit.Created, audit.GraceEnded, audit.Revoked, audit.Rotated, audit.OrgCreated}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
}

func TestAKeyInGraceDoesNotEndItselfThroughItsSuccessor(t *testing.T) {
	h := newHouse(t, "enterprise")
	old := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}})
	next := h.mustRotate(t, old, nil).New
	me := holder(apikey.KeysWrite)
	me.ID = old.Key.ID.String()
	_, err := h.Rotate(as(me), next.Key.ID, seconds(0))
	wantCode(t, err, apikey.OwnKey)
	_, err = h.EndGrace(as(me), next.Key.ID)
	wantCode(t, err, apikey.OwnKey)
}

// A process died between closing a key and revoking it, and the store takes no changes for now.
func TestAClosingKeyIsShownAsWhatItIsToBecomeAndFinishedWithItsReason(t *testing.T) {
	broken := true
	h := newHouseOn(t, "enterprise", func(m *memory.Store) lifecycle.Store {
		return storetest.NewFaulty(m, func(c storetest.Call) storetest.Fault {
			if broken && c.Method == "Commit" {
				return storetest.Fault{Err: storetest.ErrLost}
			}
			return storetest.Fault{}
		})
	})
	broken = false
	k := h.mustCreate(t, basic()).Key
	closing := apikey.Closing{Verb: apikey.CloseRevoke, ActorKind: "key", ActorID: "key_00000001", Address: "192.0.2.7", Reason: "leaked"}
	if err := h.memory.Close(context.Background(), k.ID, k.Version, closing); err != nil {
		t.Fatal(err)
	}
	broken = true
	ctx, cancel := context.WithTimeout(admin(), 50*time.Millisecond)
	defer cancel()
	shown, err := h.Get(ctx, k.ID)
	if err != nil || shown.Status != apikey.Revoked {
		t.Fatalf("meanwhile: %s, %v", shown.Status, err)
	}
	broken = false
	list, _, err := h.List(admin(), lifecycle.Filter{IncludeRevoked: true})
	if err != nil || len(list) != 1 || list[0].Status != apikey.Revoked || *list[0].RevokedReason != "leaked" {
		t.Fatalf("finished: %+v, %v", list, err)
	}
	entries, _, err := h.memory.Entries(context.Background(), lifecycle.EntryQuery{OrganizationID: "acme", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if last := entries[0]; last.Action != audit.Revoked || last.ActorID != "key_00000001" || last.Address != "192.0.2.7" {
		t.Errorf("the audit says %+v", last)
	}
}

func TestAnOrganizationIsAddedOnceWithScopesThatAreScopes(t *testing.T) {
	h := newHouse(t, "enterprise")
	if added, err := h.AddOrganization(admin(), "free", nil); added || err != nil {
		t.Errorf("again: %v, %v", added, err)
	}
	for _, scope := range []string{"", "a b", "a*b", "**"} {
		_, err := h.AddOrganization(admin(), "enterprise", []string{scope})
		wantCode(t, err, apikey.InvalidFields)
	}
	_, err := h.AddOrganization(admin(), "no such plan", nil)
	wantCode(t, err, apikey.InvalidFields)
	_, err = h.AddOrganization(as(holder(apikey.KeysWrite)), "enterprise", nil)
	wantCode(t, err, apikey.InsufficientScope)
}

func TestARotatedKeyHasNoPowerOverItsSuccessor(t *testing.T) {
	h := newHouse(t, "enterprise")
	n := lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}, ExpiresAt: &lifecycle.Moment{Time: h.clock().Add(time.Hour)}}
	old := h.mustCreate(t, n)
	next := h.mustRotate(t, old, nil).New.Key
	me := holder(apikey.KeysWrite)
	me.ID, me.Until = old.Key.ID.String(), *next.ExpiresAt
	wantCode(t, h.Revoke(as(me), next.ID, ""), apikey.OwnKey)
	for _, grace := range []*time.Duration{nil, seconds(0)} {
		_, err := h.Rotate(as(me), next.ID, grace)
		wantCode(t, err, apikey.OwnKey)
	}
	me.ID = next.ID.String()
	if err := h.Revoke(as(me), old.Key.ID, ""); err != nil {
		t.Errorf("the successor may end its predecessor: %v", err)
	}
}

// The caller's key is revoked while the change is kept off by another: it is not made with the rights of a dead key.
func TestAChangeThatIsDecidedAgainIsNotMadeForAKeyThatWasEndedMeanwhile(t *testing.T) {
	h := newHouse(t, "enterprise")
	mine := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}}).Key.ID
	revoked := false
	busy := *h.Service
	busy.Store = storetest.NewFaulty(h.memory, func(c storetest.Call) storetest.Fault {
		if c.Method != "Commit" || revoked {
			return storetest.Fault{}
		}
		revoked = true
		if err := h.Revoke(admin(), mine, ""); err != nil {
			t.Error(err)
		}
		return storetest.Fault{Err: apikey.ErrConflict}
	})
	me := holder(apikey.KeysWrite)
	me.ID = mine.String()
	_, err := busy.Create(as(me), basic())
	wantCode(t, err, apikey.RevokedKey)
}

func TestARotationWithoutGraceGivesNoSecondMinute(t *testing.T) {
	h := newHouse(t, "enterprise")
	issued := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "n", RateLimitPerMinute: lifecycle.Limit{Said: true, V: new(int64(3))}})
	admitted := 0
	for range 4 {
		for range 4 {
			if h.verify(issued) == apikey.Valid {
				admitted++
			}
		}
		issued = h.mustRotate(t, issued, seconds(0)).New
	}
	if admitted != 3 {
		t.Errorf("%d admitted in one minute", admitted)
	}
}

func TestAPrefixNamesAKeyOnlyWhole(t *testing.T) {
	h := newHouse(t, "enterprise")
	k := h.mustCreate(t, basic()).Key
	if err := h.Confirm(admin(), k.KeyPrefix); err != nil {
		t.Error(err)
	}
	for _, prefix := range []string{strings.Replace(k.KeyPrefix, "live", "test", 1), "lk_live_00000001", "nonsense", ""} {
		wantCode(t, h.Confirm(admin(), prefix), apikey.NotFound)
	}
}

func TestNoKeyOutlivesTheYears(t *testing.T) {
	h := newHouse(t, "enterprise")
	n := basic()
	n.ExpiresAt = &lifecycle.Moment{Time: time.Date(10000, 1, 1, 0, 0, 59, 0, time.UTC)}
	_, err := h.Create(admin(), n)
	wantCode(t, err, apikey.InvalidFields)
}
