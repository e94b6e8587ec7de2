package verify_test

import (
	"context"
	"errors"
	"hash/crc32"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/verify"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// counting counts what a Verifier asks of its store, and can be told how to answer.
type counting struct {
	verify.Store
	debits  atomic.Int64
	forgets atomic.Int64
	debit   func(context.Context, verify.Debit) (verify.Hot, bool, error) // nil: the store's
	hint    func(context.Context) error                                   // nil: the store's
}

func (c *counting) Debit(ctx context.Context, d verify.Debit) (verify.Hot, bool, error) {
	c.debits.Add(1)
	if c.debit != nil {
		return c.debit(ctx, d)
	}
	return c.Store.Debit(ctx, d)
}

func (c *counting) Forget(ctx context.Context, id apikey.ID, w []apikey.Window) error {
	c.forgets.Add(1)
	return c.Store.Forget(ctx, id, w)
}

func (c *counting) Hint(ctx context.Context, id apikey.ID, organizationID string, at time.Time) error {
	if c.hint != nil {
		return c.hint(ctx)
	}
	return c.Store.Hint(ctx, id, organizationID, at)
}

// door is a Verifier over one key.
type door struct {
	*verify.Verifier
	store  *counting
	memory *memory.Store
	key    string
	record apikey.Record
	now    time.Time
}

// newDoor makes a store with one key, changed by with before it is stored.
func newDoor(t testing.TB, with func(*apikey.Record)) *door {
	t.Helper()
	format, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	minted := format.Mint("")
	k := apikey.Key{ID: minted.ID, KeyPrefix: minted.Prefix, OrganizationID: "acme", ProjectID: "shop", Enabled: true, CreatedAt: noon}
	d := &door{memory: memory.New(), key: minted.Plaintext.Reveal(), now: noon}
	d.record = apikey.Record{Key: k, Hash: minted.Plaintext.Hash()}
	if with != nil {
		with(&d.record)
	}
	if err := d.memory.Commit(context.Background(), lifecycle.Change{Create: &d.record}); err != nil {
		t.Fatal(err)
	}
	d.store = &counting{Store: d.memory}
	d.Verifier = &verify.Verifier{Store: d.store, Format: format, Now: func() time.Time { return d.now }}
	return d
}

func (d *door) ask(r verify.Request) verify.Decision {
	if r.Key == "" {
		r.Key = d.key
	}
	return d.Verify(context.Background(), r)
}

// used is what was debited in all.
func (d *door) used(t *testing.T) (total int64) {
	t.Helper()
	r, err := d.memory.Key(context.Background(), d.record.ID)
	if err != nil {
		t.Fatal(err)
	}
	for w, n := range r.Counts {
		if w.Day() {
			total += n
		}
	}
	return total
}

func TestEachReasonToRefuseIsToldAndDebitsNothing(t *testing.T) {
	past, soon := noon.Add(-time.Second), noon.Add(time.Millisecond)
	nobodys := newDoor(t, nil).key
	for name, c := range map[string]struct {
		with   func(*apikey.Record)
		ask    verify.Request
		want   apikey.Code
		debits int64 // store calls
	}{
		"a good key":               {nil, verify.Request{}, apikey.Valid, 1},
		"not a key":                {nil, verify.Request{Key: "nonsense"}, apikey.MalformedKey, 0},
		"a key of nobody":          {nil, verify.Request{Key: nobodys}, apikey.UnknownKey, 1},
		"revoked":                  {func(r *apikey.Record) { r.RevokedAt = &past }, verify.Request{}, apikey.RevokedKey, 1},
		"archived":                 {func(r *apikey.Record) { r.ArchivedAt = &past }, verify.Request{}, apikey.ArchivedKey, 1},
		"disabled":                 {func(r *apikey.Record) { r.Enabled = false }, verify.Request{}, apikey.DisabledKey, 1},
		"closing":                  {func(r *apikey.Record) { r.Closing = &apikey.Closing{Verb: apikey.CloseRevoke} }, verify.Request{}, apikey.RevokedKey, 1},
		"expired":                  {func(r *apikey.Record) { r.ExpiresAt = &noon }, verify.Request{}, apikey.ExpiredKey, 1},
		"not yet expired":          {func(r *apikey.Record) { r.ExpiresAt = &soon }, verify.Request{}, apikey.Valid, 1},
		"grace over":               {func(r *apikey.Record) { r.GraceExpiresAt = &past }, verify.Request{}, apikey.ExpiredKey, 1},
		"without the scope":        {nil, verify.Request{Scopes: []string{"a"}}, apikey.InsufficientScope, 1},
		"with one of two scopes":   {scopes("a"), verify.Request{Scopes: []string{"a", "b"}}, apikey.InsufficientScope, 1},
		"with both scopes":         {scopes("b", "a"), verify.Request{Scopes: []string{"a", "b"}}, apikey.Valid, 1},
		"another organization":     {nil, verify.Request{OrganizationID: "other"}, apikey.UnknownKey, 1},
		"the same organization":    {nil, verify.Request{OrganizationID: "acme"}, apikey.Valid, 1},
		"a cost above the limit":   {limit(5, 0), verify.Request{Cost: 6}, apikey.RateLimited, 1},
		"a cost above any":         {nil, verify.Request{Cost: verify.MaxCost + 1}, apikey.Unavailable, 0},
		"revoked goes before rest": {func(r *apikey.Record) { r.RevokedAt, r.Enabled, r.ExpiresAt = &past, false, &past }, verify.Request{}, apikey.RevokedKey, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, c.with)
			got := d.ask(c.ask)
			if got.Code != c.want || got.Allowed() != (c.want == apikey.Valid) {
				t.Fatalf("got %s (%v)", got.Code, got.Cause)
			}
			if n := d.store.debits.Load(); n != c.debits {
				t.Errorf("%d store calls, want %d", n, c.debits)
			}
			if used := d.used(t); (used > 0) != got.Allowed() {
				t.Errorf("%d debited", used)
			}
			if c.want == apikey.UnknownKey && got.KeyID != 0 {
				t.Error("an unknown key is told of")
			}
			if got.Message() == "" {
				t.Error("no message")
			}
		})
	}
	if got := newDoor(t, nil).Verify(context.Background(), verify.Request{}); got.Code != apikey.MissingKey {
		t.Errorf("no key: got %s", got.Code)
	}
}

func scopes(s ...string) func(*apikey.Record) { return func(r *apikey.Record) { r.Scopes = s } }

func limit(minute, day int64) func(*apikey.Record) {
	return func(r *apikey.Record) {
		r.RateLimitPerMinute = &minute
		if day > 0 {
			r.DailyLimit = &day
		}
	}
}

func TestAManagementKeyOpensNoProtectedAPI(t *testing.T) {
	for _, c := range []struct {
		scopes []string
		door   verify.Door
		want   apikey.Code
	}{
		{[]string{apikey.KeysRead, apikey.OrgAdmin}, verify.Protected, apikey.ManagementKeyOnly},
		{[]string{apikey.KeysRead}, verify.Management, apikey.Valid},
		{[]string{apikey.KeysRead, "orders:read"}, verify.Protected, apikey.Valid},
		{nil, verify.Protected, apikey.Valid},
	} {
		if got := newDoor(t, scopes(c.scopes...)).ask(verify.Request{Door: c.door}); got.Code != c.want {
			t.Errorf("%v at %v: got %s, want %s", c.scopes, c.door, got.Code, c.want)
		}
	}
}

func TestAllowedNetworks(t *testing.T) {
	d := newDoor(t, func(r *apikey.Record) { r.AllowedCIDRs = []string{"192.0.2.0/24", "2001:db8::/32"} })
	for address, want := range map[string]apikey.Code{
		"192.0.2.200": apikey.Valid, "::ffff:192.0.2.1": apikey.Valid, "2001:db8:1::1": apikey.Valid,
		"192.0.3.1": apikey.AddressNotAllowed, "2001:db9::1": apikey.AddressNotAllowed, "::ffff:192.0.3.1": apikey.AddressNotAllowed,
		"": apikey.AddressNotAllowed, "::": apikey.AddressNotAllowed,
	} {
		a, _ := netip.ParseAddr(address)
		if got := d.ask(verify.Request{Address: a}); got.Code != want {
			t.Errorf("from %q: got %s", address, got.Code)
		}
	}
}

func TestLimitsAreExactAndShownWithTheirReset(t *testing.T) {
	d := newDoor(t, limit(3, 5))
	d.now = noon.Add(20 * time.Second)
	var got []apikey.Code
	for range 5 {
		decision := d.ask(verify.Request{})
		got = append(got, decision.Code)
		if len(got) == 1 {
			minute, day := decision.Limits[0], decision.Limits[1]
			if minute != (verify.Limit{Name: "minute", Quota: 3, Window: time.Minute, Remaining: 2, Reset: 40 * time.Second}) ||
				day != (verify.Limit{Name: "day", Quota: 5, Window: 24 * time.Hour, Remaining: 4, Reset: 12*time.Hour - 20*time.Second}) {
				t.Errorf("got %+v", decision.Limits)
			}
		}
		if len(got) == 4 && decision.RetryAfter != 40*time.Second {
			t.Errorf("retry after %s", decision.RetryAfter)
		}
	}
	d.now = d.now.Add(time.Minute)
	for range 3 {
		decision := d.ask(verify.Request{})
		got = append(got, decision.Code)
		if decision.Code == apikey.DailyLimitExceeded && decision.RetryAfter != 12*time.Hour-80*time.Second {
			t.Errorf("retry after %s", decision.RetryAfter)
		}
	}
	ok, minute, day := apikey.Valid, apikey.RateLimited, apikey.DailyLimitExceeded
	want := []apikey.Code{ok, ok, ok, minute, minute, ok, ok, day}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestACostAboveTheWholeLimitIsNotToldToComeBack(t *testing.T) {
	d := newDoor(t, limit(5, 0))
	if got := d.ask(verify.Request{Cost: 6}); got.RetryAfter != 0 || !strings.Contains(got.Message(), "never") {
		t.Errorf("got %s, %s", got.RetryAfter, got.Message())
	}
	if got := d.ask(verify.Request{Cost: 5}); !got.Allowed() {
		t.Errorf("the whole limit at once: %s", got.Code)
	}
	if got := d.ask(verify.Request{Cost: 5}); got.RetryAfter != time.Minute || strings.Contains(got.Message(), "never") {
		t.Errorf("got %s, %s", got.RetryAfter, got.Message())
	}
}

func TestStrangersWhoRepeatThemselvesCostNoCall(t *testing.T) {
	d := newDoor(t, nil)
	nobodys := newDoor(t, nil).key
	for range 20 {
		if got := d.ask(verify.Request{Key: nobodys}); got.Code != apikey.UnknownKey {
			t.Fatalf("got %s", got.Code)
		}
	}
	if n := d.store.debits.Load(); n != 1 {
		t.Errorf("an unknown id cost %d calls", n)
	}
	d.now = d.now.Add(time.Minute)
	d.ask(verify.Request{Key: nobodys})
	if n := d.store.debits.Load(); n != 2 {
		t.Errorf("a minute later it was asked about %d times", n)
	}
	if d.ask(verify.Request{}); d.store.debits.Load() != 3 {
		t.Error("a good key was not asked about")
	}
	// Someone who knows the public prefix makes up the rest. The checksum is no secret.
	forged := d.forge(t)
	for range 20 {
		if got := d.ask(verify.Request{Key: forged}); got.Code != apikey.UnknownKey || got.KeyID != 0 {
			t.Fatalf("got %s", got.Code)
		}
	}
	if n := d.store.debits.Load(); n != 3 {
		t.Errorf("a wrong secret for a known id cost %d calls", n-3)
	}
	if !d.ask(verify.Request{}).Allowed() {
		t.Error("the good key no longer passes")
	}
}

// forge is a well-formed key with the id of d's and another secret.
func (d *door) forge(t *testing.T) string {
	t.Helper()
	text := d.record.KeyPrefix + "_" + strings.Repeat("0", 30)
	for sum, i := crc32.ChecksumIEEE([]byte(text)), 0; i < 6; i++ {
		digits := "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		text = text[:len(d.record.KeyPrefix)+31] + string(digits[sum%62]) + text[len(d.record.KeyPrefix)+31:]
		sum /= 62
	}
	if _, err := d.Format.Parse(text); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestACostOfSeveralNeverAdmitsMoreThanTheLimit(t *testing.T) {
	d := newDoor(t, limit(10, 0))
	admitted := int64(0)
	for range 8 {
		if d.ask(verify.Request{Cost: 4}).Allowed() {
			admitted += 4
		}
	}
	if admitted != 8 {
		t.Errorf("%d of 10 admitted in fours", admitted)
	}
}

func TestAConflictIsRetriedAndThenTheKeyDecides(t *testing.T) {
	d := newDoor(t, nil)
	left := atomic.Int64{}
	left.Store(3)
	d.store.debit = func(ctx context.Context, x verify.Debit) (verify.Hot, bool, error) {
		if left.Add(-1) >= 0 {
			return verify.Hot{}, false, apikey.ErrConflict
		}
		return d.memory.Debit(ctx, x)
	}
	if got := d.ask(verify.Request{}); got.Code != apikey.Valid || d.store.debits.Load() != 4 {
		t.Errorf("got %s after %d calls", got.Code, d.store.debits.Load())
	}
}

func TestAStoreThatFailsOrHangsLetsNobodyIn(t *testing.T) {
	for name, answer := range map[string]func(context.Context, verify.Debit) (verify.Hot, bool, error){
		"fails": func(context.Context, verify.Debit) (verify.Hot, bool, error) {
			return verify.Hot{}, true, errors.New("broken")
		},
		"hangs": func(ctx context.Context, _ verify.Debit) (verify.Hot, bool, error) {
			<-ctx.Done()
			return verify.Hot{}, true, ctx.Err()
		},
		"conflicts": func(context.Context, verify.Debit) (verify.Hot, bool, error) {
			return verify.Hot{}, true, apikey.ErrConflict
		},
		"admits another": func(context.Context, verify.Debit) (verify.Hot, bool, error) {
			return verify.Hot{State: apikey.Active}, true, nil
		},
		"contradicts itself": func(_ context.Context, d verify.Debit) (verify.Hot, bool, error) {
			return verify.Hot{State: apikey.Active, Hash: d.Hash}, false, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, nil)
			d.store.debit, d.Timeout = answer, 50*time.Millisecond
			if got := d.ask(verify.Request{}); got.Code != apikey.Unavailable || got.Allowed() || got.Cause == nil {
				t.Errorf("got %s, %v", got.Code, got.Cause)
			}
		})
	}
}

func TestCountersOfLongPastWindowsAreDroppedByTheVerifyThatSeesTooMany(t *testing.T) {
	d := newDoor(t, nil)
	for i := range 40 {
		d.now = noon.Add(time.Duration(i) * 5 * time.Minute)
		if !d.ask(verify.Request{}).Allowed() {
			t.Fatal("refused")
		}
	}
	r, err := d.memory.Key(context.Background(), d.record.ID)
	if err != nil || len(r.Counts) > 12 {
		t.Errorf("%d counters are left, %v", len(r.Counts), err)
	}
	if n := d.store.forgets.Load(); n < 1 || n > 5 {
		t.Errorf("cleaned up %d times in 40 verifies", n)
	}
	if d.used(t) != 40 {
		t.Errorf("the day's count is %d", d.used(t))
	}
}

// Two processes whose clocks are 30 s apart share one key over several minutes: each window's name still admits its
// limit and no more.
func TestAClockAheadNeverReopensAWindow(t *testing.T) {
	d := newDoor(t, limit(100, 0))
	admitted := map[apikey.Window]int{}
	for step := range 60 {
		for _, skew := range []time.Duration{0, 30 * time.Second} {
			d.now = noon.Add(time.Duration(step)*5*time.Second + skew)
			for range 20 {
				if d.ask(verify.Request{}).Allowed() {
					admitted[apikey.MinuteWindow(d.now, 0)]++
				}
			}
		}
	}
	for w, n := range admitted {
		if n > 100 {
			t.Errorf("%s admitted %d", w, n)
		}
	}
}

func TestOfTwoHundredAtOnceExactlyTheLimitIsAdmitted(t *testing.T) {
	d := newDoor(t, limit(100, 0))
	var admitted atomic.Int64
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if d.ask(verify.Request{}).Allowed() {
				admitted.Add(1)
			}
		})
	}
	all.Wait()
	if admitted.Load() != 100 {
		t.Errorf("%d admitted", admitted.Load())
	}
}

// populated is a door to a key with scopes, networks and both limits, and a request that passes it.
func populated(t testing.TB) (*door, verify.Request) {
	d := newDoor(t, func(r *apikey.Record) {
		limit(1e9, 1e9)(r)
		r.Scopes, r.AllowedCIDRs = []string{"orders:read", "orders:write"}, []string{"192.0.2.0/24"}
	})
	d.Store = d.memory
	return d, verify.Request{Key: d.key, Scopes: []string{"orders:read"}, Address: netip.MustParseAddr("192.0.2.1")}
}

func BenchmarkDecision(b *testing.B) {
	d, ask := populated(b)
	b.ReportAllocs()
	for b.Loop() {
		if d := d.Verify(context.Background(), ask); !d.Allowed() {
			b.Fatal(d.Code)
		}
	}
}

func TestADecisionAllocatesLittle(t *testing.T) {
	d, ask := populated(t)
	if n := testing.AllocsPerRun(1000, func() { d.Verify(context.Background(), ask) }); n > 15 {
		t.Errorf("%v allocations", n)
	}
}

func TestALookDecidesLikeAVerifyButForLimitsAndLeavesNoTrace(t *testing.T) {
	d := newDoor(t, func(r *apikey.Record) {
		limit(1, 1)(r)
		r.Scopes, r.AllowedCIDRs = []string{apikey.KeysRead}, []string{"192.0.2.0/24"}
	})
	if code := d.ask(verify.Request{Door: verify.Management, Address: netip.MustParseAddr("192.0.2.1")}).Code; code != apikey.Valid {
		t.Fatal(code)
	}
	before, _ := d.memory.Key(t.Context(), d.record.ID)
	d.now = d.now.Add(time.Second)
	seen := d.Look(t.Context(), d.key, "acme")
	if after, _ := d.memory.Key(t.Context(), d.record.ID); seen.Code != apikey.Valid || seen.KeyID != d.record.ID || !reflect.DeepEqual(after, before) {
		t.Errorf("a key whose limits are reached: %s, %s; it is %+v, was %+v", seen.Code, seen.KeyID, after, before)
	}
	if d.store.debits.Load() != 1 {
		t.Error("a look debits")
	}
	another := minted(t)
	for name, row := range map[string]struct {
		key, organization string
		want              apikey.Code
	}{
		"another organization's": {d.key, "globex", apikey.UnknownKey},
		"no key":                 {d.key + "x", "acme", apikey.MalformedKey},
		"another key":            {another, "acme", apikey.UnknownKey},
	} {
		if seen := d.Look(t.Context(), row.key, row.organization); seen.Code != row.want || seen.KeyID != 0 {
			t.Errorf("%s: %+v", name, seen)
		}
	}
	for want, end := range map[apikey.Code]func(*apikey.Record){
		apikey.RevokedKey:  func(r *apikey.Record) { r.RevokedAt = new(noon) },
		apikey.ArchivedKey: func(r *apikey.Record) { r.ArchivedAt = new(noon) },
		apikey.DisabledKey: func(r *apikey.Record) { r.Enabled = false },
		apikey.ExpiredKey:  func(r *apikey.Record) { r.ExpiresAt = new(noon.Add(time.Second)) },
	} {
		d := newDoor(t, end)
		d.now = noon.Add(time.Second)
		if seen := d.Look(t.Context(), d.key, "acme"); seen.Code != want || seen.Allowed() {
			t.Errorf("%s: %s", want, seen.Code)
		}
	}
}

func minted(t *testing.T) string {
	t.Helper()
	f, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	return f.Mint("").Plaintext.Reveal()
}
