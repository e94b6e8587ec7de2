package lifecycle_test

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/publish"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/webhook"
	"github.com/latchkey/latchkey/pkg/work"
)

// What leaves a simulated year: its trail is published by processes that fail, to a bus and to webhooks that do. A publisher
// and its announcements work at several organizations at once, so what is random about them does not come from the year's
// own stream but follows from the seed and from what is done: whoever comes first, it is the same.

const (
	yearHeard = 6                // organizations whose trail is published
	yearBatch = 100              // records of the feed that are taken at once, at most
	yearTries = 75 * time.Hour   // for which an event is tried at least before it is given up: the schedule, less the clocks
	yearLate  = 10 * time.Minute // after which what is due is left undone
)

// events is a year's feed, and everything behind it.
type events struct {
	*year
	seed    uint64
	store   *memory.Store
	feed    *memory.Feed
	records []publish.Record // what it brought
	done    int              // of them, from the first on
	soon    bool             // a publisher is to be started
	failed  int              // runs in a row that left something
	runs    uint64

	publishers [2]*publisher
	services   [2]*notify.Service // by each clock, for whoever announces
	stops      []span             // nobody publishes
	outages    []span             // of the bus
	idles      []span             // nobody delivers
	visits     map[time.Time]bool // minutes in which somebody delivers

	mu sync.Mutex // for what announcements note
	heard
}

// newEvents is what leaves a year on a store in memory. Another store's feed is not followed.
func newEvents(y *year, seed uint64) *events {
	store, ok := y.store.(*memory.Store)
	if !ok {
		return nil
	}
	e := &events{year: y, seed: seed, store: store, feed: store.Feed(), visits: map[time.Time]bool{}, heard: newHeard(),
		stops: y.spans(3, 4*yearDay), outages: y.spans(4, 2*yearDay), idles: y.spans(3, 4*yearDay)}
	for i := range e.publishers {
		e.publishers[i] = e.publisher(i)
		e.services[i] = e.service(posted{store, e, nil}, i, nil)
	}
	return e
}

// service is one whose calls, and whose way to its receivers, are a process's.
func (e *events) service(store notify.Store, clock int, p *process) *notify.Service {
	return &notify.Service{Store: store, Sender: sinks{e, p}, Now: e.clock(clock), Clock: e.clock(clock), Log: slog.New(slog.DiscardHandler),
		Secrets: func(context.Context, string) ([]webhook.Secret, error) { return nil, nil }}
}

// joined gives a new organization a webhook, unless there are enough: the others' events would cost time and show no more.
func (e *events) joined(organization string) {
	if e == nil || len(e.sinkOf) == yearHeard {
		return
	}
	s := &sink{organization: organization, kind: kind(e.IntN(int(kinds))), outages: e.spans(4, 6*yearDay), got: map[string]uint64{},
		over: map[string]bool{}, leaves: e.began.Add(e.upTo(e.end.Sub(e.began)))}
	_, err := e.services[0].Create(e.admin(organization), notify.New{URL: "https://example.com/" + organization, EventTypes: []string{"api_key.*"}})
	if err != nil {
		panic(err)
	}
	e.sinkOf[organization] = s
	e.happened(organization)
}

// chance is one of n, and follows from what it is about.
func (e *events) chance(n uint64, about string, numbers ...uint64) bool {
	return e.draw(n, about, numbers...) == 0
}

func (e *events) draw(n uint64, about string, numbers ...uint64) uint64 {
	h := fnv.New64a()
	h.Write([]byte(about))
	x := h.Sum64() ^ e.seed*0x9e3779b97f4a7c15
	for _, number := range numbers {
		x = (x ^ number) * 0xbf58476d1ce4e5b9
		x ^= x >> 29
	}
	x = (x ^ x>>32) * 0x94d049bb133111eb
	return (x ^ x>>31) % n
}

// happened has a publisher started soon.
func (e *events) happened(organization string) {
	if e != nil && e.sinkOf[organization] != nil {
		e.wake(time.Second)
	}
}

// wake starts a publisher, if none is about to be.
func (e *events) wake(after time.Duration) {
	if e.soon {
		return
	}
	e.soon = true
	at := e.now.Add(after)
	if until, in := during(e.stops, at); in {
		at = until
	}
	e.plan(at, e.publish)
}

// publish is one run of a publisher, and another's amid it now and then. What it left is tried again, later and later.
func (e *events) publish() {
	e.soon = false
	for more := true; more; {
		page, err := e.feed.Next(context.Background(), 0)
		if err != nil {
			panic(err)
		}
		more = len(page) == yearBatch
		for _, r := range page {
			if e.sinkOf[r.OrganizationID] != nil {
				e.records = append(e.records, r)
			}
		}
	}
	before := e.done
	e.run(e.draw(2, "which", e.runs), true)
	if e.failed++; e.done > before {
		e.failed = 0
	}
	if e.done < len(e.records) {
		e.wake(min(time.Second<<min(e.failed, 12), time.Hour))
	}
}

// publisher is a process that lives from run to run.
type publisher struct {
	*publish.Publisher
	*events
	clock int

	n     uint64    // its run
	dies  int       // the part of it in which it is killed
	after int       // so many calls of the bus
	calls int       // of the bus so far
	dead  bool      // so that nothing takes effect any more
	amid  func(int) // runs before a call of the bus
}

// The parts of a run.
const (
	lives = iota
	linking
	sending
	announcing
	parts
)

var errKilled = errors.New("killed")

func (e *events) publisher(clock int) *publisher {
	p := &publisher{events: e, clock: clock}
	p.Publisher = &publish.Publisher{Chain: p, Bus: p, Announce: p.announce, Log: slog.New(slog.DiscardHandler)}
	return p
}

// run takes a batch, which may begin before what is done. Another publisher may take the same before it or amid it.
func (e *events) run(which uint64, alone bool) {
	e.runs++
	n := e.runs
	from := e.done
	if e.calmed() {
		alone = false // nobody else
	} else if e.chance(20, "again", n) { // of what a stream of DynamoDB's still has
		for back := e.draw(yearBatch, "from", n); back > 0 && from > 0 && e.records[from-1].Entry.At.After(e.now.Add(-yearDay)); back-- {
			from--
		}
	}
	batch := e.records[from:min(len(e.records), from+1+int(e.draw(yearBatch, "size", n)))]
	p := e.publishers[which]
	p.n, p.dies, p.after, p.calls, p.dead, p.amid = n, lives, 1+int(e.draw(20, "after", n)), 0, false, func(int) {}
	if !e.calmed() && e.chance(16, "dies", n) {
		p.dies = int(e.draw(parts, "part", n))
	}
	if alone && e.chance(8, "two", n) {
		e.seen["published by two"]++
		switch at := int(e.draw(6, "amid", n)); at {
		case 0:
			e.run(1-which, false)
		default:
			p.amid = func(call int) {
				if call == at {
					e.run(1-which, false)
				}
			}
		}
	}
	left, _ := p.Take(context.Background(), batch)
	if p.dead || p.dies == linking || p.dies == announcing {
		e.seen["publisher killed"]++
		e.publishers[which] = e.publisher(1 - p.clock)
		return
	}
	e.done = from + len(batch)
	if len(left) > 0 {
		e.seen["batch left"]++
		e.done = from + slices.IndexFunc(batch, func(r publish.Record) bool { return r.ID == left[0].ID })
	}
}

func (e *events) calmed() bool { return e.now.After(e.calm()) }

// fails says whether a call goes wrong, and whether it takes effect all the same.
func (p *publisher) fails(part int, call, organization string, number uint64) (fails, effect bool) {
	about := call + organization
	effect = p.chance(2, "effect of "+about, p.n, number)
	switch {
	case p.dead:
		return true, false
	case p.dies == part && part != sending:
		return true, effect
	}
	return !p.calmed() && p.chance(100, about, p.n, number), effect
}

// Append is the chain's, of which a call may fail.
func (p *publisher) Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	fails, effect := p.fails(linking, "append", organizationID, 0)
	if fails && !effect {
		return nil, errKilled
	}
	linked, err := p.store.Append(ctx, organizationID, entries)
	if fails {
		return nil, storetest.ErrLost
	}
	return linked, err
}

// Put is the bus's, which takes what it takes for ever.
func (p *publisher) Put(_ context.Context, messages []publish.Message) []error {
	p.calls++
	if !p.dead {
		p.amid(p.calls)
	}
	dying := p.dies == sending && p.calls == p.after
	_, down := during(p.outages, p.now)
	outcomes := make([]error, len(messages))
	for i, m := range messages {
		ev := read(m)
		fails, effect := p.fails(sending, "put", ev.Data.OrganizationID, uint64(ev.Data.Chain.Sequence))
		switch {
		case down:
			fails, effect = true, false
		case dying && !p.dead:
			fails = true
		}
		if !fails || effect {
			p.took(ev)
		}
		if fails {
			outcomes[i] = storetest.ErrLost
		}
	}
	p.dead = p.dead || dying
	return outcomes
}

// announce may make some of the deliveries.
func (p *publisher) announce(ctx context.Context, organizationID string, list []event.Event) error {
	fails, effect := p.fails(announcing, "announce", organizationID, 0)
	if fails && !effect {
		return errKilled
	}
	if fails {
		list = list[:p.draw(uint64(len(list)+1), "announced", p.n, uint64(len(list)))]
	}
	err := p.services[p.clock].Announce(ctx, organizationID, list)
	if fails {
		err = cmp.Or(err, storetest.ErrLost)
	}
	return err
}

// posted is the deliveries' store as a process sees it, nil for a publisher, which knows itself how it ends.
type posted struct {
	notify.Store
	*events
	process *process
}

func (s posted) call(do func() error) error {
	if s.process == nil {
		return do()
	}
	return s.process.call(do)
}

func (s posted) PutSubscriptions(ctx context.Context, all notify.Subscriptions, entry audit.Entry) error {
	return s.call(func() error {
		err := s.Store.PutSubscriptions(ctx, all, entry)
		if err == nil {
			s.unsubscribed(&all)
			s.happened(all.OrganizationID)
		}
		return err
	})
}

func (s posted) AddDelivery(ctx context.Context, r notify.Record) error {
	err := s.Store.AddDelivery(ctx, r)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.posted(&r)
	}
	return err
}

func (s posted) Delivery(ctx context.Context, organizationID, id string) (r notify.Record, err error) {
	err = s.call(func() error { r, err = s.Store.Delivery(ctx, organizationID, id); return err })
	return r, err
}

func (s posted) UpdateDelivery(ctx context.Context, r notify.Record) error {
	return s.call(func() error {
		err := s.Store.UpdateDelivery(ctx, r)
		if err == nil {
			s.posted(&r)
		}
		return err
	})
}

// visit has somebody deliver in the first minute from then on in which anybody does.
func (e *events) visit(at time.Time) {
	at = at.Add(time.Minute - 1).Truncate(time.Minute)
	if until, in := during(e.idles, at); in {
		at = until.Add(time.Minute - 1).Truncate(time.Minute)
	}
	if !e.visits[at] {
		e.visits[at] = true
		e.plan(at, e.deliver)
	}
}

// deliver is one run of the deliveries, or two at once. What they leave, as its receiver is not well, they meet again.
func (e *events) deliver() {
	delete(e.visits, e.now)
	first := e.IntN(2)
	all := []*process{e.delivers(first)}
	if e.IntN(6) == 0 {
		all = append(all, e.delivers(1-first))
	}
	e.together(all)
	for shard := range work.Shards {
		if due, _ := e.store.DueDeliveries(context.Background(), work.Query[notify.Due]{Shard: shard, Until: e.now, Limit: 1}); len(due) > 0 {
			e.visit(e.now.Add(time.Minute))
			break
		}
	}
}

func (e *events) delivers(clock int) *process {
	return e.process(func(p *process) error {
		_, err := e.service(posted{e.store, e, p}, clock, p).Deliver(context.Background(), 1000)
		return err
	})
}

// sinks are the receivers of events.
type sinks struct {
	*events
	process *process
}

func (s sinks) Check(string) error { return nil }

// Send brings an event to a receiver, who may take it though its answer is lost.
func (s sinks) Send(_ context.Context, address string, m webhook.Message, _ ...webhook.Secret) (came webhook.Result) {
	err := s.process.call(func() error { came = s.receives(s.sinkOf[address[len("https://example.com/"):]], m); return nil })
	if err != nil {
		came = webhook.Result{Outcome: webhook.Retry, Err: "no answer"}
	}
	return came
}

// receives is what a receiver makes of an event.
func (e *events) receives(s *sink, m webhook.Message) webhook.Result {
	_, out := during(s.outages, e.now)
	status, keeps := 204, true
	switch {
	case s.kind == slow:
		status = []int{0, 204}[e.IntN(2)]
	case s.kind == gone && e.now.After(s.leaves):
		status, keeps = 410, false
	case s.kind == missing:
		status, keeps = []int{0, 503}[e.IntN(2)], false
	case !out:
	case s.kind == down, s.kind == hanging:
		status, keeps = 0, false
	case s.kind == failing:
		status, keeps = []int{429, 500, 502}[e.IntN(3)], e.IntN(2) == 0
	}
	e.seen["event sent"]++
	if keeps {
		e.brought(s, m)
	}
	came := webhook.Result{Outcome: webhook.Delivered, Status: status}
	switch {
	case status == 410:
		came.Outcome, came.Err = webhook.Gone, "it is gone"
	case status != 204:
		came.Outcome, came.Err = webhook.Retry, "it failed"
	}
	if status == 429 {
		came.RetryAfter = time.Duration(e.IntN(3)) * time.Hour
	}
	return came
}
