package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/verify"
	"github.com/latchkey/latchkey/pkg/work"
)

// ErrLost is a store that did not answer: its caller cannot know whether the call took effect.
var ErrLost = errors.New("the store's answer was lost")

// Fault makes one call fail with Err: before it takes effect, or after it took effect, so that only its answer is lost.
// The zero Fault lets the call pass.
type Fault struct {
	Err   error
	After bool
}

// Faults lists what may befall any call of a store: every test of a verb should hold under each of them. A conflict
// comes before alone, since it promises that nothing was changed.
func Faults() []Fault {
	return []Fault{{ErrLost, false}, {ErrLost, true}, {context.DeadlineExceeded, false}, {context.DeadlineExceeded, true}, {apikey.ErrConflict, false}}
}

// String names the fault in a test's name.
func (f Fault) String() string {
	if f.After {
		return fmt.Sprintf("after it took effect: %v", f.Err)
	}
	return fmt.Sprintf("before it took effect: %v", f.Err)
}

// Call is one call of a store: the N-th of all, counted from 1, to Method.
type Call struct {
	N      int
	Method string
}

// Faulty is a Store that passes calls on to another, counts them, and makes those fail that it was told to. It may be
// used from many goroutines.
type Faulty struct {
	store  Store
	choose func(Call) Fault

	mu    sync.Mutex
	calls []Call
}

// NewFaulty wraps a store. choose says of each call how it fails, one call at a time; a nil choose lets all pass.
func NewFaulty(s Store, choose func(Call) Fault) *Faulty { return &Faulty{store: s, choose: choose} }

// Nth chooses the n-th call, counted from 1.
func Nth(n int, f Fault) func(Call) Fault {
	return func(c Call) Fault {
		if c.N == n {
			return f
		}
		return Fault{}
	}
}

// Always chooses every call to a method.
func Always(method string, f Fault) func(Call) Fault {
	return func(c Call) Fault {
		if c.Method == method {
			return f
		}
		return Fault{}
	}
}

// Calls lists the calls begun so far, in order.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// Everywhere runs verb as a subtest for every call that it makes of a store and every one of the faults, with that call
// failing so. Each time verb has a store of its own from open, bare to prepare and to look at afterwards, and the same
// one faulty to run on. The last time no call fails.
func Everywhere(t *testing.T, faults []Fault, open func(t *testing.T) Store, verb func(t *testing.T, bare Store, faulty *Faulty)) {
	for n := 1; ; n++ {
		for _, fault := range faults {
			var faulty *Faulty
			t.Run(fmt.Sprintf("call %d fails %s", n, fault), func(t *testing.T) {
				bare := open(t)
				faulty = NewFaulty(bare, Nth(n, fault))
				verb(t, bare, faulty)
			})
			if faulty == nil || len(faulty.Calls()) < n {
				return
			}
		}
	}
}

// through makes one call, failing as chosen.
func through[T any](f *Faulty, method string, call func() (T, error)) (answer T, err error) {
	fault := f.begin(method)
	if fault.Err != nil && !fault.After {
		return answer, fault.Err
	}
	got, err := call()
	if fault.Err != nil {
		return answer, fault.Err
	}
	return got, err
}

// only is through for a call that answers with nothing but an error.
func only(f *Faulty, method string, call func() error) error {
	_, err := through(f, method, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

func (f *Faulty) begin(method string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := Call{len(f.calls) + 1, method}
	f.calls = append(f.calls, c)
	if f.choose == nil {
		return Fault{}
	}
	return f.choose(c)
}

// two is an answer of two parts.
type two[A any] struct {
	answer A
	flag   bool
}

// Organization passes on or fails.
func (f *Faulty) Organization(ctx context.Context, id string) (lifecycle.Organization, error) {
	return through(f, "Organization", func() (lifecycle.Organization, error) { return f.store.Organization(ctx, id) })
}

// PutOrganization passes on or fails.
func (f *Faulty) PutOrganization(ctx context.Context, o lifecycle.Organization, e audit.Entry) error {
	return only(f, "PutOrganization", func() error { return f.store.PutOrganization(ctx, o, e) })
}

// Key passes on or fails.
func (f *Faulty) Key(ctx context.Context, id apikey.ID) (apikey.Record, error) {
	return through(f, "Key", func() (apikey.Record, error) { return f.store.Key(ctx, id) })
}

// Keys passes on or fails.
func (f *Faulty) Keys(ctx context.Context, q lifecycle.Query) ([]apikey.Record, bool, error) {
	page, err := through(f, "Keys", func() (two[[]apikey.Record], error) {
		keys, more, err := f.store.Keys(ctx, q)
		return two[[]apikey.Record]{keys, more}, err
	})
	return page.answer, page.flag, err
}

// Commit passes on or fails.
func (f *Faulty) Commit(ctx context.Context, c lifecycle.Change) error {
	return only(f, "Commit", func() error { return f.store.Commit(ctx, c) })
}

// Close passes on or fails.
func (f *Faulty) Close(ctx context.Context, id apikey.ID, version int64, c apikey.Closing) error {
	return only(f, "Close", func() error { return f.store.Close(ctx, id, version, c) })
}

// Due passes on or fails.
func (f *Faulty) Due(ctx context.Context, q lifecycle.DueQuery) ([]lifecycle.DueKey, error) {
	return through(f, "Due", func() ([]lifecycle.DueKey, error) { return f.store.Due(ctx, q) })
}

// Postpone passes on or fails.
func (f *Faulty) Postpone(ctx context.Context, r apikey.Record, due *apikey.Due) error {
	return only(f, "Postpone", func() error { return f.store.Postpone(ctx, r, due) })
}

// Replay passes on or fails.
func (f *Faulty) Replay(ctx context.Context, id string) (lifecycle.Replay, error) {
	return through(f, "Replay", func() (lifecycle.Replay, error) { return f.store.Replay(ctx, id) })
}

// Debit passes on or fails.
func (f *Faulty) Debit(ctx context.Context, d verify.Debit) (verify.Hot, bool, error) {
	hot, err := through(f, "Debit", func() (two[verify.Hot], error) {
		hot, admitted, err := f.store.Debit(ctx, d)
		return two[verify.Hot]{hot, admitted}, err
	})
	return hot.answer, hot.flag, err
}

// Look passes on or fails.
func (f *Faulty) Look(ctx context.Context, d verify.Debit) (verify.Hot, error) {
	return through(f, "Look", func() (verify.Hot, error) { return f.store.Look(ctx, d) })
}

// Forget passes on or fails.
func (f *Faulty) Forget(ctx context.Context, id apikey.ID, windows []apikey.Window) error {
	return only(f, "Forget", func() error { return f.store.Forget(ctx, id, windows) })
}

// Hint passes on or fails.
func (f *Faulty) Hint(ctx context.Context, id apikey.ID, organizationID string, at time.Time) error {
	return only(f, "Hint", func() error { return f.store.Hint(ctx, id, organizationID, at) })
}

// Entries passes on or fails.
func (f *Faulty) Entries(ctx context.Context, q lifecycle.EntryQuery) ([]audit.Entry, bool, error) {
	page, err := through(f, "Entries", func() (two[[]audit.Entry], error) {
		entries, more, err := f.store.Entries(ctx, q)
		return two[[]audit.Entry]{entries, more}, err
	})
	return page.answer, page.flag, err
}

// Links passes on or fails.
func (f *Faulty) Links(ctx context.Context, organizationID string, after int64, limit int) ([]audit.Link, bool, error) {
	page, err := through(f, "Links", func() (two[[]audit.Link], error) {
		links, more, err := f.store.Links(ctx, organizationID, after, limit)
		return two[[]audit.Link]{links, more}, err
	})
	return page.answer, page.flag, err
}

// Append passes on or fails.
func (f *Faulty) Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	return through(f, "Append", func() ([]audit.Linked, error) { return f.store.Append(ctx, organizationID, entries) })
}

// Subscriptions passes on or fails.
func (f *Faulty) Subscriptions(ctx context.Context, organizationID string) (notify.Subscriptions, error) {
	return through(f, "Subscriptions", func() (notify.Subscriptions, error) { return f.store.Subscriptions(ctx, organizationID) })
}

// PutSubscriptions passes on or fails.
func (f *Faulty) PutSubscriptions(ctx context.Context, s notify.Subscriptions, e audit.Entry) error {
	return only(f, "PutSubscriptions", func() error { return f.store.PutSubscriptions(ctx, s, e) })
}

// AddDelivery passes on or fails.
func (f *Faulty) AddDelivery(ctx context.Context, r notify.Record) error {
	return only(f, "AddDelivery", func() error { return f.store.AddDelivery(ctx, r) })
}

// Delivery passes on or fails.
func (f *Faulty) Delivery(ctx context.Context, organizationID, id string) (notify.Record, error) {
	return through(f, "Delivery", func() (notify.Record, error) { return f.store.Delivery(ctx, organizationID, id) })
}

// UpdateDelivery passes on or fails.
func (f *Faulty) UpdateDelivery(ctx context.Context, r notify.Record) error {
	return only(f, "UpdateDelivery", func() error { return f.store.UpdateDelivery(ctx, r) })
}

// Deliveries passes on or fails.
func (f *Faulty) Deliveries(ctx context.Context, organizationID, before string, limit int) ([]notify.Record, bool, error) {
	page, err := through(f, "Deliveries", func() (two[[]notify.Record], error) {
		list, more, err := f.store.Deliveries(ctx, organizationID, before, limit)
		return two[[]notify.Record]{list, more}, err
	})
	return page.answer, page.flag, err
}

// DueDeliveries passes on or fails.
func (f *Faulty) DueDeliveries(ctx context.Context, q work.Query[notify.Due]) ([]notify.Due, error) {
	return through(f, "DueDeliveries", func() ([]notify.Due, error) { return f.store.DueDeliveries(ctx, q) })
}
