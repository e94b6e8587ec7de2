// Package verify turns a presented key into a [Decision]: the hot path of Latchkey, and the one place where a key is
// refused.
//
// One write to the store decides everything that can change: that the secret is right, that the key is not revoked,
// archived, disabled or past its end, that it has the scopes, and that neither its minute nor its day is used up. The
// same write debits both limits and notes the last use. So limits are exact and a revocation bites on the very next
// request, whatever process takes it. Text that is not a key costs no call at all.
//
// A refused key is a Decision, not an error. When the store does not answer in time the Decision is Unavailable: it
// refuses. There is no setting that lets anybody in without the store's word.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

const (
	// DefaultTimeout is how long a verify waits for the store in all.
	DefaultTimeout = 2 * time.Second
	// MaxCost is the highest cost of one request.
	MaxCost = 1_000_000
	// A counter's name outlives its window. More of them than this are dropped by the verify that sees them.
	manyPast = 8
)

// Verifier decides about keys. Store, Format and Now are required. Its fields are set once, before the first use; all its
// methods may be called at once from many goroutines.
type Verifier struct {
	Store   Store
	Format  apikey.Format // of the service that issues the keys
	Now     func() time.Time
	Timeout time.Duration // for the store's answer, retries included; 0: DefaultTimeout

	known memory
}

// Door tells what a key is presented for.
type Door int

// The doors. A key with management scopes alone opens no protected API.
const (
	Protected Door = iota
	Management
)

// Request is one key presented.
type Request struct {
	Key            string     // as presented; "" for none
	Scopes         []string   // that the key must have, all of them
	Address        netip.Addr // of the client; the zero Addr is refused by keys with allowed CIDRs
	Cost           int64      // 1 to MaxCost; 0 counts as 1
	Door           Door
	OrganizationID string // when set, only keys of this organization exist
}

// Decision is the answer to a Request. Only Code Valid lets in.
type Decision struct {
	Identity                  // zero unless the secret was right
	Code        apikey.Code   //
	KeyPrefix   string        // public, fit for logs; "" when the text was no key
	Limits      []Limit       // the minute's, then the day's, those that the key has
	RetryAfter  time.Duration // when trying again may help: until the limit's window ends, or a moment when Unavailable
	NeededScope string        // for InsufficientScope: the first scope that is missing
	End         time.Time     // when the key ends; zero: never
	CIDRs       []netip.Prefix
	Cause       error // for Unavailable: what went wrong, for a log alone
}

// Limit is how much of one limit is left.
type Limit struct {
	Name      string        // "minute" or "day"
	Quota     int64         // requests in each window
	Window    time.Duration //
	Remaining int64         // requests left in this window
	Reset     time.Duration // until the next window
}

// Allowed says whether the key may pass.
func (d Decision) Allowed() bool { return d.Code == apikey.Valid }

// Verify decides about one presented key. A refusal for the client's address, for a management key at a protected door,
// or for a cost above what was left has debited the key; every other refusal debits nothing.
func (v *Verifier) Verify(ctx context.Context, r Request) Decision {
	if r.Key == "" {
		return Decision{Code: apikey.MissingKey}
	}
	token, err := v.Format.Parse(r.Key)
	if err != nil {
		return Decision{Code: apikey.MalformedKey}
	}
	d := Debit{token.ID(), token.Hash(), r.OrganizationID, r.Scopes, max(r.Cost, 1), v.Now()}
	if d.Cost > MaxCost {
		return Decision{Code: apikey.Unavailable, KeyPrefix: token.Prefix(), Cause: fmt.Errorf("a cost of %d is above %d", d.Cost, MaxCost)}
	}
	if v.known.refuses(&d) {
		return Decision{Code: apikey.UnknownKey, KeyPrefix: token.Prefix()}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(v.Timeout, DefaultTimeout))
	defer cancel()
	hot, admitted, err := v.debit(ctx, d)
	v.known.learn(&d, &hot, err)
	decision := decide(&hot, &d, &r, admitted, err)
	decision.KeyPrefix = token.Prefix()
	if err == nil {
		v.hint(ctx, &d, &hot, admitted)
	}
	if decision.Allowed() && len(hot.Past) > manyPast {
		_ = v.Store.Forget(ctx, d.ID, hot.Past) // a later verify will see them again
	}
	return decision
}

// Look decides about a key as Verify does, but for its limits and for where it comes from, and leaves no trace: nothing is
// debited, and the key is not thereby used. Of other organizations' keys it says that they do not exist.
func (v *Verifier) Look(ctx context.Context, key, organizationID string) Decision {
	token, err := v.Format.Parse(key)
	if err != nil {
		return Decision{Code: apikey.MalformedKey}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(v.Timeout, DefaultTimeout))
	defer cancel()
	d := Debit{ID: token.ID(), Hash: token.Hash(), OrganizationID: organizationID, Cost: 1, At: v.Now()}
	hot, err := v.Store.Look(ctx, d)
	switch {
	case errors.Is(err, ErrNoKey):
		return Decision{Code: apikey.UnknownKey, KeyPrefix: token.Prefix()}
	case err != nil:
		return unavailable(err)
	}
	hot.MinuteLimit, hot.DayLimit = nil, nil
	decision := Decision{Code: Refusal(&hot, &d), KeyPrefix: token.Prefix()}
	if decision.Code != apikey.UnknownKey {
		decision.Identity, decision.End, decision.CIDRs = hot.Identity, hot.End, hot.CIDRs
	}
	return decision
}

// debit asks the store, and again while a management change of the same key is under way, until the deadline.
func (v *Verifier) debit(ctx context.Context, d Debit) (Hot, bool, error) {
	for {
		hot, admitted, err := v.Store.Debit(ctx, d)
		if !errors.Is(err, apikey.ErrConflict) {
			return hot, admitted, err
		}
		select {
		case <-ctx.Done():
			return Hot{}, false, ctx.Err()
		case <-time.After(5*time.Millisecond + rand.N(35*time.Millisecond)):
		}
	}
}

// decide explains what the store answered. Where in doubt it refuses.
func decide(hot *Hot, d *Debit, r *Request, admitted bool, err error) Decision {
	if errors.Is(err, ErrNoKey) {
		return Decision{Code: apikey.UnknownKey}
	}
	if err != nil {
		return unavailable(err)
	}
	code := apikey.Valid
	switch {
	case !admitted:
		code = Refusal(hot, d)
		if code == apikey.Valid {
			return unavailable(errors.New("the store refused a key that it should have admitted"))
		}
	case !hot.Hash.Equal(d.Hash):
		return unavailable(errors.New("the store admitted a key with another secret"))
	case over(hot.DayLimit, hot.DayCount):
		code = apikey.DailyLimitExceeded
	case over(hot.MinuteLimit, hot.MinuteCount):
		code = apikey.RateLimited
	case r.Door == Protected && hot.managementOnly():
		code = apikey.ManagementKeyOnly
	case !allowedFrom(hot.CIDRs, r.Address):
		code = apikey.AddressNotAllowed
	}
	if code == apikey.UnknownKey {
		return Decision{Code: code} // tells nothing of the key whose id this is
	}
	decision := Decision{Identity: hot.Identity, Code: code, End: hot.End, CIDRs: hot.CIDRs, Limits: limits(hot, d.At)}
	switch code {
	case apikey.InsufficientScope:
		decision.NeededScope = hot.missing(d.Scopes)
	case apikey.RateLimited:
		decision.RetryAfter = retry(hot.MinuteLimit, d, time.Minute)
	case apikey.DailyLimitExceeded:
		decision.RetryAfter = retry(hot.DayLimit, d, 24*time.Hour)
	}
	return decision
}

// unavailable is the Decision when the store gave no answer to rely on.
func unavailable(cause error) Decision {
	return Decision{Code: apikey.Unavailable, RetryAfter: time.Second, Cause: cause}
}

// over says whether a debit of several went past what was left. That debit stays: it errs on the safe side.
func over(limit *int64, count int64) bool { return limit != nil && count > *limit }

func allowedFrom(cidrs []netip.Prefix, address netip.Addr) bool {
	if len(cidrs) == 0 {
		return true
	}
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(cidrs, func(p netip.Prefix) bool { return p.Contains(address) })
}

func limits(hot *Hot, now time.Time) []Limit {
	if hot.MinuteLimit == nil && hot.DayLimit == nil {
		return nil
	}
	list := make([]Limit, 0, 2)
	if q := hot.MinuteLimit; q != nil {
		list = append(list, Limit{"minute", *q, time.Minute, max(0, *q-hot.MinuteCount), untilNext(now, time.Minute)})
	}
	if q := hot.DayLimit; q != nil {
		list = append(list, Limit{"day", *q, 24 * time.Hour, max(0, *q-hot.DayCount), untilNext(now, 24*time.Hour)})
	}
	return list
}

// retry is when it may help to come back to a limit: never with a cost that is above the limit itself.
func retry(limit *int64, d *Debit, window time.Duration) time.Duration {
	if d.Cost > *limit {
		return 0
	}
	return untilNext(d.At, window)
}

// untilNext is the time until the next window of that length, counted from the Unix epoch.
func untilNext(now time.Time, window time.Duration) time.Duration {
	return window - time.Duration(now.UnixNano()%int64(window))
}

// Message says in a sentence, safe to show, why the Decision is what it is and what to do.
func (d Decision) Message() string {
	limit := d.Code.Policy() // "" for every code that reports no limit
	switch {
	case limit != "" && d.RetryAfter == 0:
		return "The request costs more than the key's whole limit: it can never pass."
	case limit != "":
		return "The key has too little left of its limit for this " + limit + "."
	case d.Code == apikey.InsufficientScope:
		return "The key lacks the scope " + d.NeededScope + "."
	}
	if text, ok := messages[d.Code]; ok {
		return text
	}
	return "The key is " + string(d.Code) + "." // revoked, archived, disabled, expired
}

var messages = map[apikey.Code]string{
	apikey.Valid:             "The key is valid.",
	apikey.MissingKey:        "Send an API key in the header Authorization: Bearer lk_live_…",
	apikey.MalformedKey:      "This is not a key of this service. Check that it was copied whole. A person's token does not count here.",
	apikey.UnknownKey:        "No such key.",
	apikey.ManagementKeyOnly: "A key with management scopes alone opens no protected API. Use a service key.",
	apikey.AddressNotAllowed: "The key may not be used from this address.",
	apikey.Unavailable:       "The key could not be checked. Try again.",
}
