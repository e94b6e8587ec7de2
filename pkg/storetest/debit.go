package storetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// debitOf asks for one use of a key at a moment.
func debitOf(r *apikey.Record, at time.Time) verify.Debit {
	return verify.Debit{ID: r.ID, Hash: r.Hash, Cost: 1, At: at}
}

// ask debits, and again while it meets a change of the key.
func (s *suite) ask(d verify.Debit) (hot verify.Hot, admitted bool, err error) {
	err = settled(func() error {
		hot, admitted, err = s.Debit(s.Context(), d)
		return err
	})
	return hot, admitted, err
}

func (s *suite) debit(d verify.Debit) (verify.Hot, bool) {
	s.Helper()
	hot, admitted, err := s.ask(d)
	s.must(err)
	return hot, admitted
}

func (s *suite) admits(d verify.Debit) verify.Hot {
	s.Helper()
	hot, admitted := s.debit(d)
	if !admitted {
		s.Fatalf("the key was refused (%s), want it admitted", verify.Refusal(&hot, &d))
	}
	return hot
}

// refuses demands a refusal that explains itself as want.
func (s *suite) refuses(d verify.Debit, want apikey.Code) {
	s.Helper()
	hot, admitted := s.debit(d)
	if got := verify.Refusal(&hot, &d); admitted || got != want {
		s.Fatalf("admitted: %v, explained as %s; want it refused as %s", admitted, got, want)
	}
}

var debitTests = []test{
	{"an admitted key comes back with all that a decision needs", func(s *suite) {
		r := s.full()
		r.RevokedAt, r.ArchivedAt, r.Closing, r.UpdatedAt = nil, nil, nil, base
		d := debitOf(&r, base.Add(time.Minute+time.Millisecond))
		r.Counts = map[apikey.Window]int64{d.Minute(): 3, d.Day(): 5}
		s.create(r)
		d.Cost, d.OrganizationID, d.Scopes = 2, s.organization, []string{"orders:read", "keys:read"}
		hot := s.admits(d)
		slices.Sort(hot.Scopes)
		slices.SortFunc(hot.CIDRs, netip.Prefix.Compare)
		hot.CIDRs = slices.Compact(hot.CIDRs)
		got := fmt.Sprintf("%+v %s %v %v %d %d %d %d", hot.Identity, hot.State, hot.End, hot.CIDRs, *hot.MinuteLimit, *hot.DayLimit, hot.MinuteCount, hot.DayCount)
		want := fmt.Sprintf("{KeyID:%v OrganizationID:%s ProjectID:project EnvironmentID:test-1 ExternalID:customer|7 "+
			"Scopes:[invoices:read keys:read orders:read orders:write]} active %v [192.0.2.7/32 203.0.113.0/24 2001:db8::/32] 60 1000000000 5 7",
			r.ID, s.organization, *r.ExpiresAt)
		if got != want || !hot.Hash.Equal(r.Hash) {
			s.Fatalf("got  %s\nwant %s", got, want)
		}
	}},
	{"an admitted debit counts in both windows and is the last use", func(s *suite) {
		r := s.create(s.minimal())
		d := debitOf(&r, base.Add(1234567*time.Microsecond))
		d.Cost = 7
		s.admits(d)
		s.admits(d)
		r.Counts, r.LastUsedAt = map[apikey.Window]int64{d.Minute(): 14, d.Day(): 14}, new(d.At.Truncate(time.Millisecond))
		s.holds(r)
	}},
	{"a look tells what a debit would, and leaves no trace", func(s *suite) {
		r := s.full()
		r.RevokedAt, r.ArchivedAt, r.Closing, r.UpdatedAt = nil, nil, nil, base
		d := debitOf(&r, base.Add(time.Minute+time.Millisecond))
		r.Counts = map[apikey.Window]int64{d.Minute(): 3, d.Day(): 5}
		s.create(r)
		looked, err := s.Look(s.Context(), d)
		s.must(err)
		s.holds(r)
		hot := s.admits(d)
		if hot.MinuteCount--; !hot.Hash.Equal(looked.Hash) {
			s.Error("another hash")
		}
		hot.DayCount, hot.Hash, looked.Hash = hot.DayCount-1, apikey.Hash{}, apikey.Hash{}
		for _, h := range []*verify.Hot{&hot, &looked} {
			slices.Sort(h.Scopes)
			slices.SortFunc(h.CIDRs, netip.Prefix.Compare)
			h.CIDRs = slices.Compact(h.CIDRs)
		}
		if !reflect.DeepEqual(looked, hot) {
			s.Errorf("a look is told %+v, a debit %+v", looked, hot)
		}
		none := s.minimal()
		_, err = s.Look(s.Context(), debitOf(&none, base))
		s.wants(err, verify.ErrNoKey)
	}},
	{"every refusal explains itself and debits nothing", func(s *suite) {
		for _, row := range refusals {
			r := s.minimal()
			r.Scopes, r.RateLimitPerMinute, r.DailyLimit = []string{"orders:read", "orders:write"}, new(int64(10)), new(int64(20))
			d := debitOf(&r, base)
			r.Counts = map[apikey.Window]int64{d.Minute(): 0, d.Day(): 0}
			row.set(&r, &d)
			s.create(r)
			s.Log(row.name)
			looked, err := s.Look(s.Context(), d)
			s.must(err)
			s.holds(r)
			if got := verify.Refusal(&looked, &d); got != row.want {
				s.Errorf("a look explains it as %s, want %s", got, row.want)
			}
			if row.want == apikey.Valid {
				s.admits(d)
				continue
			}
			s.refuses(d, row.want)
			s.holds(r)
		}
	}},
	{"an unknown id is no key and becomes none", func(s *suite) {
		r := s.minimal()
		_, admitted, err := s.Debit(s.Context(), debitOf(&r, base))
		s.wants(err, verify.ErrNoKey)
		_ = s.Forget(s.Context(), r.ID, []apikey.Window{"m1"})
		if _, err := s.Key(s.Context(), r.ID); admitted || err == nil {
			s.Fatalf("admitted: %v, reading it says %v", admitted, err)
		}
		s.create(r)
	}},
	{"200 racing debits at a minute limit of 100 admit exactly 100", func(s *suite) {
		s.admitsExactly(100, func(r *apikey.Record) { r.RateLimitPerMinute = new(int64(100)) })
	}},
	{"200 racing debits at a day limit of 100 admit exactly 100", func(s *suite) {
		s.admitsExactly(100, func(r *apikey.Record) { r.DailyLimit, r.RateLimitPerMinute = new(int64(100)), new(int64(150)) })
	}},
	{"racing debits of several never admit more than the limit", func(s *suite) {
		r := s.minimal()
		r.RateLimitPerMinute = new(int64(100))
		s.create(r)
		var within atomic.Int64
		s.won(race(60, func(i int) error {
			d := debitOf(&r, base)
			d.Cost = int64(1 + i%7)
			hot, admitted, err := s.ask(d)
			if admitted && hot.MinuteCount <= 100 {
				within.Add(d.Cost)
			}
			return err
		}), nil)
		if n := within.Load(); n > 100 || n < 94 {
			s.Fatalf("%d were admitted within the limit, want 94 to 100", n)
		}
	}},
	{"clocks up to two minutes apart never reopen a window", func(s *suite) {
		midnight := time.Date(2026, 11, 22, 23, 57, 40, 0, time.UTC)
		for apart, from := range map[time.Duration]time.Time{30 * time.Second: base, 31 * time.Second: midnight, 75 * time.Second: base, 2 * time.Minute: midnight} {
			r := s.minimal()
			r.RateLimitPerMinute, r.DailyLimit = new(int64(4)), new(int64(13))
			s.create(r)
			admitted := map[apikey.Window]int64{}
			for at := from; at.Before(from.Add(4 * time.Minute)); at = at.Add(20 * time.Second) {
				for _, d := range []verify.Debit{debitOf(&r, at.Add(apart)), debitOf(&r, at), debitOf(&r, at)} {
					if _, ok := s.debit(d); ok {
						admitted[d.Minute()]++
						admitted[d.Day()]++
					}
				}
			}
			for w, n := range admitted {
				if n > 4 && !w.Day() || n > 13 {
					s.Fatalf("%d were admitted in %s", n, w)
				}
			}
		}
	}},
	{"the window before the present one is kept", func(s *suite) {
		r := s.create(s.minimal())
		yesterday := base.Add(-24 * time.Hour)
		for _, at := range []time.Time{yesterday, base, base.Add(time.Minute)} {
			s.admits(debitOf(&r, at))
		}
		counts := s.key(r.ID).Counts
		for _, w := range []apikey.Window{apikey.MinuteWindow(base, 0), apikey.MinuteWindow(base, -1), apikey.DayWindow(yesterday, 0), apikey.DayWindow(base, 0)} {
			if counts[w] < 1 {
				s.Errorf("the counter of %s is gone: %v", w, counts)
			}
		}
	}},
	{"a counter of a faster clock is never past", func(s *suite) {
		r := s.minimal()
		r.RateLimitPerMinute = new(int64(1))
		s.create(r)
		s.admits(debitOf(&r, base.Add(10*time.Minute)))
		if hot := s.admits(debitOf(&r, base)); len(hot.Past) > 0 {
			s.Fatalf("%v is past", hot.Past)
		}
	}},
	{"what is past can be forgotten, and nothing present is past", func(s *suite) {
		r := s.create(s.minimal())
		for n := range 12 {
			s.admits(debitOf(&r, base.Add(time.Duration(5*n-60)*time.Minute)))
			s.admits(debitOf(&r, base.AddDate(0, 0, 3*n-36)))
		}
		d := debitOf(&r, base)
		hot := s.admits(d)
		for _, w := range hot.Past {
			if !d.Past(w) {
				s.Fatalf("%s is reported as past", w)
			}
		}
		for w := range s.key(r.ID).Counts {
			if d.Past(w) && !slices.Contains(hot.Past, w) {
				s.Fatalf("%s is kept and not reported as past", w)
			}
		}
		s.must(s.Forget(s.Context(), r.ID, hot.Past))
		s.must(s.Forget(s.Context(), r.ID, hot.Past))
		if hot = s.admits(d); len(hot.Past) > 0 || hot.DayCount != 14 || hot.MinuteCount != 2 {
			s.Fatalf("after forgetting, past is %v, the counts are %d and %d", hot.Past, hot.MinuteCount, hot.DayCount)
		}
	}},
	{"debits and changes of one key at once lose nothing", func(s *suite) {
		r := s.create(s.minimal())
		var admitted atomic.Int64
		errs := race(40, func(i int) error {
			if i%8 > 0 {
				_, ok, err := s.ask(debitOf(&r, base))
				if ok {
					admitted.Add(1)
				}
				return err
			}
			return settled(func() error {
				next, err := s.Key(s.Context(), r.ID)
				if err != nil {
					return err
				}
				next.Version++
				next.Name += "+"
				return s.Commit(s.Context(), s.updating(next))
			})
		})
		won := s.won(errs, lifecycle.ErrChanged) - 35
		got := s.key(r.ID)
		if admitted.Load() != 35 || got.Counts[apikey.MinuteWindow(base, 0)] != 35 {
			s.Fatalf("%d of 35 debits were admitted, %v counted", admitted.Load(), got.Counts)
		}
		if got.Version != int64(1+won) || len(got.Name) != len("minimal")+won || won < 1 {
			s.Fatalf("%d changes won; the key is at version %d and named %q", won, got.Version, got.Name)
		}
	}},
	{"whatever the key and the question, the write agrees with Refusal", differential},
}

// refusals says of one key what refuses it. The rows stand in the order of the reasons: where several apply, the first
// one is told.
var refusals = []struct {
	name string
	want apikey.Code
	set  func(*apikey.Record, *verify.Debit)
}{
	{"nothing", apikey.Valid, func(*apikey.Record, *verify.Debit) {}},
	{"another secret", apikey.UnknownKey, func(r *apikey.Record, d *verify.Debit) { d.Hash = hashOf(apikey.NewID()) }},
	{"no secret", apikey.UnknownKey, func(r *apikey.Record, d *verify.Debit) { d.Hash = apikey.Hash{} }},
	{"another secret for a revoked key", apikey.UnknownKey, func(r *apikey.Record, d *verify.Debit) {
		d.Hash, r.RevokedAt = hashOf(apikey.NewID()), &base
	}},
	{"its organization", apikey.Valid, func(r *apikey.Record, d *verify.Debit) { d.OrganizationID = r.OrganizationID }},
	{"another organization", apikey.UnknownKey, func(r *apikey.Record, d *verify.Debit) { d.OrganizationID = "org_other" }},
	{"revoked", apikey.RevokedKey, func(r *apikey.Record, _ *verify.Debit) { r.RevokedAt = &base }},
	{"revoked and archived", apikey.RevokedKey, func(r *apikey.Record, _ *verify.Debit) { r.RevokedAt, r.ArchivedAt = &base, &base }},
	{"archived and disabled", apikey.ArchivedKey, func(r *apikey.Record, _ *verify.Debit) { r.ArchivedAt, r.Enabled = &base, false }},
	{"disabled and expired", apikey.DisabledKey, func(r *apikey.Record, _ *verify.Debit) { r.Enabled, r.ExpiresAt = false, &base }},
	{"expiring this very moment", apikey.ExpiredKey, func(r *apikey.Record, _ *verify.Debit) { r.ExpiresAt = &base }},
	{"expiring in a millisecond", apikey.Valid, func(r *apikey.Record, _ *verify.Debit) { r.ExpiresAt = new(base.Add(time.Millisecond)) }},
	{"expiring in less than a microsecond", apikey.Valid, func(r *apikey.Record, d *verify.Debit) {
		r.ExpiresAt, d.At = new(base.Add(time.Millisecond)), base.Add(time.Millisecond-time.Nanosecond)
	}},
	{"ended with its last change, for a slow clock too", apikey.ExpiredKey, func(r *apikey.Record, d *verify.Debit) {
		r.ExpiresAt, d.At = &base, base.Add(-30*time.Second)
	}},
	{"ending after its last change, for a slow clock", apikey.Valid, func(r *apikey.Record, d *verify.Debit) {
		r.ExpiresAt, r.UpdatedAt, d.At = &base, base.Add(-time.Millisecond), base.Add(-30*time.Second)
	}},
	{"grace over", apikey.ExpiredKey, func(r *apikey.Record, _ *verify.Debit) {
		r.ReplacedByKeyID, r.GraceExpiresAt, r.ExpiresAt = new(apikey.NewID()), &base, new(base.Add(time.Hour))
	}},
	{"in grace", apikey.Valid, func(r *apikey.Record, _ *verify.Debit) {
		r.ReplacedByKeyID, r.GraceExpiresAt = new(apikey.NewID()), new(base.Add(time.Hour))
	}},
	{"all scopes", apikey.Valid, func(_ *apikey.Record, d *verify.Debit) { d.Scopes = []string{"orders:write", "orders:read"} }},
	{"the same scope twice", apikey.Valid, func(_ *apikey.Record, d *verify.Debit) { d.Scopes = []string{"orders:read", "orders:read"} }},
	{"one scope missing", apikey.InsufficientScope, func(_ *apikey.Record, d *verify.Debit) { d.Scopes = []string{"orders:read", "keys:read"} }},
	{"a part of a scope", apikey.InsufficientScope, func(_ *apikey.Record, d *verify.Debit) { d.Scopes = []string{"orders:"} }},
	{"no scopes at all", apikey.InsufficientScope, func(r *apikey.Record, d *verify.Debit) { r.Scopes, d.Scopes = nil, []string{"orders:read"} }},
	{"scope missing and full", apikey.InsufficientScope, func(r *apikey.Record, d *verify.Debit) { d.Scopes, r.Counts[d.Day()] = []string{"a"}, 20 }},
	{"day full", apikey.DailyLimitExceeded, func(r *apikey.Record, d *verify.Debit) { r.Counts[d.Day()] = 20 }},
	{"day and minute full", apikey.DailyLimitExceeded, func(r *apikey.Record, d *verify.Debit) { r.Counts[d.Day()], r.Counts[d.Minute()] = 21, 10 }},
	{"minute full", apikey.RateLimited, func(r *apikey.Record, d *verify.Debit) { r.Counts[d.Minute()] = 10 }},
	{"minute nearly full", apikey.Valid, func(r *apikey.Record, d *verify.Debit) { r.Counts[d.Minute()] = 9 }},
	{"counters compared as numbers", apikey.Valid, func(r *apikey.Record, d *verify.Debit) { r.DailyLimit, r.Counts[d.Day()] = new(int64(100)), 20 }},
	{"other windows full", apikey.Valid, func(r *apikey.Record, d *verify.Debit) {
		r.Counts[apikey.MinuteWindow(d.At, 1)], r.Counts[apikey.DayWindow(d.At, 1)] = 1000, 1000
	}},
	{"the whole minute at once", apikey.Valid, func(_ *apikey.Record, d *verify.Debit) { d.Cost = 10 }},
	{"a cost above the minute", apikey.RateLimited, func(_ *apikey.Record, d *verify.Debit) { d.Cost = 11 }},
	{"a cost above the day", apikey.DailyLimitExceeded, func(_ *apikey.Record, d *verify.Debit) { d.Cost = 21 }},
	{"a cost above what is left", apikey.Valid, func(r *apikey.Record, d *verify.Debit) { d.Cost, r.Counts[d.Minute()] = 5, 9 }},
	{"no limits", apikey.Valid, func(r *apikey.Record, d *verify.Debit) {
		r.RateLimitPerMinute, r.DailyLimit, d.Cost, r.Counts[d.Day()] = nil, nil, verify.MaxCost, 1<<40
	}},
	{"limits of nothing", apikey.RateLimited, func(r *apikey.Record, d *verify.Debit) { r.RateLimitPerMinute = new(int64(0)) }},
}

// admitsExactly races 200 debits in one window.
func (s *suite) admitsExactly(want int64, limit func(*apikey.Record)) {
	s.Helper()
	r := s.minimal()
	limit(&r)
	s.create(r)
	var admitted atomic.Int64
	s.won(race(200, func(i int) error {
		_, ok, err := s.ask(debitOf(&r, base.Add(time.Duration(i)*time.Millisecond)))
		if ok {
			admitted.Add(1)
		}
		return err
	}), nil)
	if n := admitted.Load(); n != want {
		s.Fatalf("%d were admitted, want %d", n, want)
	}
}

// differential asks random questions of random keys around midnight, where both windows end.
func differential(s *suite) {
	const workers, keys, questions = 8, 10, 25
	seed := rand.Uint64()
	s.Logf("seed %d", seed)
	s.won(race(workers, func(worker int) error {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		for range keys {
			if err := s.questions(random, questions); err != nil {
				return fmt.Errorf("seed %d, worker %d: %w", seed, worker, err)
			}
		}
		return nil
	}), nil)
}

// questions asks n questions of one random key, and tells of the first answer that is not what a model says.
func (s *suite) questions(random *rand.Rand, n int) error {
	r := s.randomKey(random)
	if err := s.Commit(s.Context(), lifecycle.Change{Create: &r, Entry: s.entry(&r.ID, audit.Created)}); err != nil {
		return err
	}
	counts := maps.Clone(r.Counts)
	for range n {
		d := randomDebit(random, &r)
		model := hotOf(&r, &d, counts)
		want := verify.Refusal(&model, &d)
		if want == apikey.Valid {
			counts[d.Minute()] += d.Cost
			counts[d.Day()] += d.Cost
		}
		hot, admitted, err := s.ask(d)
		if err != nil {
			return err
		}
		got := apikey.Valid
		if !admitted {
			got = verify.Refusal(&hot, &d)
		}
		if admitted != (want == apikey.Valid) || got != want || hot.MinuteCount != counts[d.Minute()] || hot.DayCount != counts[d.Day()] {
			return fmt.Errorf("admitted: %v, explained as %s, want %s: hot %+v, counts %v, debit %+v", admitted, got, want, hot, counts, d)
		}
	}
	return nil
}

var midnight = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// near is a moment within the two minutes around midnight.
func near(random *rand.Rand) time.Time {
	return midnight.Add(time.Duration(random.IntN(120_000)-60_000) * time.Millisecond)
}

// one is true once in n.
func one(random *rand.Rand, n int) bool { return random.IntN(n) == 0 }

func (s *suite) randomKey(random *rand.Rand) apikey.Record {
	r := s.minimal()
	r.Enabled = !one(random, 12)
	moments := []**time.Time{&r.ExpiresAt, &r.GraceExpiresAt, &r.ArchivedAt, &r.RevokedAt}
	for i, chance := range []int{3, 4, 20, 20} {
		if one(random, chance) {
			*moments[i] = new(near(random))
		}
	}
	for _, limit := range []**int64{&r.RateLimitPerMinute, &r.DailyLimit} {
		if !one(random, 4) {
			*limit = new(random.Int64N(12))
		}
	}
	if one(random, 3) {
		r.UpdatedAt = near(random).Truncate(time.Millisecond)
	}
	if one(random, 15) {
		r.Closing = &closing
	}
	for _, scope := range []string{"a", "b", "c"} {
		if !one(random, 4) {
			r.Scopes = append(r.Scopes, scope)
		}
	}
	r.Counts = map[apikey.Window]int64{}
	for _, w := range []apikey.Window{apikey.MinuteWindow(midnight, 0), apikey.MinuteWindow(midnight, 1), apikey.DayWindow(midnight, 0), apikey.DayWindow(midnight, 1)} {
		if one(random, 3) {
			r.Counts[w] = random.Int64N(12)
		}
	}
	return r
}

func randomDebit(random *rand.Rand, r *apikey.Record) verify.Debit {
	d := debitOf(r, near(random).Add(time.Duration(random.IntN(1_000_000))))
	if one(random, 12) {
		d.Hash = hashOf(apikey.NewID())
	}
	if one(random, 3) {
		d.OrganizationID = r.OrganizationID
	} else if one(random, 12) {
		d.OrganizationID = r.OrganizationID + "x"
	}
	if one(random, 3) {
		d.Cost = 1 + random.Int64N(6)
	}
	d.Scopes = append(d.Scopes, []string{"c", "a"}[:random.IntN(3)]...)
	if one(random, 30) {
		d.Scopes = append(d.Scopes, "z")
	}
	if end := r.End(); end != nil && one(random, 4) { // to the very moment
		d.At = end.Add(time.Duration(random.IntN(3)-1) * time.Nanosecond)
	}
	return d
}

// hotOf is what a Debit should see of r, with these counters.
func hotOf(r *apikey.Record, d *verify.Debit, counts map[apikey.Window]int64) verify.Hot {
	hot := verify.Hot{Identity: verify.Identity{OrganizationID: r.OrganizationID, Scopes: r.Scopes}, Hash: r.Hash, State: r.State(),
		MinuteLimit: r.RateLimitPerMinute, DayLimit: r.DailyLimit, MinuteCount: counts[d.Minute()], DayCount: counts[d.Day()]}
	if end := r.Deadline(); end != nil {
		hot.End = *end
	}
	return hot
}
