package lifecycle_test

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
)

// What happens in a simulated year. Time jumps from one event to the next: nobody sleeps, and nothing happens but in the one
// goroutine whose turn it is.

const (
	yearCap   = 7 * 24 * time.Hour // the Service's own
	yearSkew  = 30 * time.Second   // between the two clocks
	yearQuiet = time.Hour          // the Service's own, too
	yearDay   = 24 * time.Hour
	yearCalm  = 16 * yearDay // at its end nothing fails any more
)

// year is the world: its lines of keys, and the processes that serve them.
type year struct {
	*rand.Rand
	store    storetest.Store
	sealer   lifecycle.Sealer
	format   apikey.Format
	verifier [2]*verify.Verifier // one by each clock

	began, now, end time.Time
	agenda          moments
	due             map[apikey.Work]*moments // what the store was told of, some of it no longer so
	dueOf           map[apikey.ID]*apikey.Due
	stopped         map[apikey.Work][]span
	frozen          map[*process]bool
	idle            []chan func()
	events          *events // nil: its trail is not published

	watch
}

// span is a stretch of time.
type span struct{ from, to time.Time }

func during(spans []span, now time.Time) (until time.Time, in bool) {
	for _, s := range spans {
		if !now.Before(s.from) && now.Before(s.to) {
			return s.to, true
		}
	}
	return now, false
}

// occasion is when something happens. Those of one time come in the order in which they were planned.
type occasion struct {
	at  time.Time
	seq int
	do  func()
	id  apikey.ID // of a key that is due, instead
}

type moments []occasion

func (m moments) Len() int { return len(m) }
func (m moments) Less(i, j int) bool {
	c := m[i].at.Compare(m[j].at)
	return c < 0 || c == 0 && m[i].seq < m[j].seq
}
func (m moments) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)   { *m = append(*m, x.(occasion)) }
func (m *moments) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

func newYear(store storetest.Store, seed uint64, keys, days int) *year {
	format, err := apikey.NewFormat("lk")
	if err != nil {
		panic(err)
	}
	y := &year{Rand: rand.New(rand.NewPCG(seed, 7)), store: store, format: format, sealer: seal.NewLocal([32]byte{1}),
		began: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), dueOf: map[apikey.ID]*apikey.Due{}, frozen: map[*process]bool{},
		due: map[apikey.Work]*moments{apikey.Sweep: {}, apikey.Deliver: {}}, watch: newWatch()}
	y.now, y.end = y.began, y.began.AddDate(0, 0, days)
	for i := range y.verifier {
		y.verifier[i] = &verify.Verifier{Store: store, Format: format, Now: y.clock(i), Timeout: time.Minute}
	}
	y.stopped = map[apikey.Work][]span{apikey.Sweep: y.spans(3, 7*yearDay), apikey.Deliver: y.spans(3, 7*yearDay)}
	y.events = newEvents(y, seed)
	for n := range keys {
		y.plan(y.began.Add(y.upTo(min(40*yearDay, y.end.Sub(y.began)/4))), func() { y.open(n) })
	}
	return y
}

// clock is a process's: the second is fast.
func (y *year) clock(i int) func() time.Time {
	return func() time.Time { return y.now.Add(time.Duration(i) * yearSkew) }
}

func (y *year) plan(at time.Time, do func()) {
	y.seq++
	heap.Push(&y.agenda, occasion{at: at, seq: y.seq, do: do})
}

func (y *year) upTo(d time.Duration) time.Duration { return time.Duration(y.Int64N(int64(d))) }

// calm is from when nothing fails any more.
func (y *year) calm() time.Time { return y.end.Add(-min(yearCalm, y.end.Sub(y.began)/3)) }

// spans are n stretches of up to a length, before it gets calm.
func (y *year) spans(n int, length time.Duration) (list []span) {
	for range n {
		from := y.began.Add(y.upTo(y.calm().Sub(y.began)))
		to := from.Add(length/4 + y.upTo(length*3/4+1))
		if to.After(y.calm()) {
			to = y.calm()
		}
		list = append(list, span{from, to})
	}
	return list
}

// live goes from moment to moment.
func (y *year) live() {
	for y.broken == "" {
		at, ok := y.nextRun()
		if len(y.agenda) > 0 && (!ok || !at.Before(y.agenda[0].at)) {
			m := heap.Pop(&y.agenda).(occasion)
			if m.at.After(y.end) {
				break
			}
			y.now = m.at
			m.do()
			continue
		}
		if !ok || at.After(y.end) {
			break
		}
		y.now = at
		y.lastRun = at
		y.runs()
	}
	if y.broken == "" {
		y.now = y.end
		y.close()
	}
	for p := range y.frozen {
		p.fuse = 1
		for p.step() {
		}
	}
	for _, w := range y.idle {
		close(w)
	}
}

// noteDue remembers when the store was told to look at a key.
func (y *year) noteDue(id apikey.ID, due *apikey.Due) {
	y.dueOf[id] = due
	if due != nil {
		y.seq++
		heap.Push(y.due[due.Work], occasion{at: due.At, seq: y.seq, id: id})
	}
}

// firstDue is when the first key is due to a kind of work.
func (y *year) firstDue(work apikey.Work) (time.Time, bool) {
	for m := y.due[work]; len(*m) > 0; heap.Pop(m) {
		first := (*m)[0]
		if due := y.dueOf[first.id]; due != nil && due.Work == work && due.At.Equal(first.at) {
			return first.at, true
		}
	}
	return time.Time{}, false
}

// nextRun is the next full minute at which a process finds something to do.
func (y *year) nextRun() (at time.Time, ok bool) {
	for _, work := range []apikey.Work{apikey.Sweep, apikey.Deliver} {
		due, there := y.firstDue(work)
		if !there {
			continue
		}
		if due = due.Add(-yearSkew); due.Before(y.lastRun.Add(time.Minute)) {
			due = y.lastRun.Add(time.Minute)
		}
		due = due.Add(time.Minute - 1).Truncate(time.Minute)
		if until, in := during(y.stopped[work], due); in {
			due = until.Add(time.Minute - 1).Truncate(time.Minute)
		}
		if !ok || due.Before(at) {
			at, ok = due, true
		}
	}
	return at, ok
}

// runs starts what is started each minute: one process or two at once, for each kind of work.
func (y *year) runs() {
	var all []*process
	for _, work := range []apikey.Work{apikey.Sweep, apikey.Deliver} {
		due, there := y.firstDue(work)
		if _, in := during(y.stopped[work], y.now); in || !there || due.After(y.now.Add(yearSkew)) {
			continue
		}
		first := y.IntN(2)
		all = append(all, y.start(work, first))
		if y.IntN(6) == 0 {
			all = append(all, y.start(work, 1-first))
		}
	}
	y.together(all)
}

// together lets processes go on by turns until each has ended or stands still for a while.
func (y *year) together(all []*process) {
	for len(all) > 0 && y.broken == "" {
		i := y.IntN(len(all))
		p := all[i]
		if p.step() {
			if y.now.After(y.calm()) || y.IntN(5000) > 0 {
				continue
			}
			y.seen["frozen"]++
			y.frozen[p] = true
			y.plan(y.now.Add(y.upTo(10*time.Minute)), func() {
				delete(y.frozen, p)
				y.together([]*process{p})
			})
		}
		all = append(all[:i], all[i+1:]...)
	}
	for _, p := range all { // when something is broken
		y.frozen[p] = true
	}
}

// process is one run of the sweep or of the deliveries, and the store as it sees it.
type process struct {
	lifecycle.Store
	year  *year
	fuse  int // calls until it is killed
	after bool
	turn  chan struct{}
	at    chan bool // whether it goes on

	worker chan func() // that it runs on
}

// killed is what a process ends with that was killed.
type killed struct{}

// start starts a process that does a kind of work.
func (y *year) start(work apikey.Work, clock int) *process {
	return y.process(func(p *process) error {
		s := y.service(p, clock)
		if work == apikey.Sweep {
			_, err := s.Sweep(context.Background(), 400)
			return err
		}
		_, err := s.Deliver(context.Background(), 400, p.send)
		return err
	})
}

// process is one that does its work by turns, and may be killed.
func (y *year) process(do func(*process) error) *process {
	p := &process{Store: y.store, year: y, turn: make(chan struct{}), at: make(chan bool)}
	if y.now.Before(y.calm()) && y.IntN(16) == 0 {
		p.fuse, p.after = 1+y.IntN(40), y.IntN(2) == 0
	}
	p.worker = y.worker()
	p.worker <- func() {
		<-p.turn
		defer func() {
			if v := recover(); v != nil && v != (killed{}) {
				panic(v)
			}
			p.at <- false
		}()
		if do(p) != nil {
			y.seen["run failed"]++
		}
	}
	return p
}

// worker is a goroutine that does what it is sent, one that has done its last if there is one: its stack has grown already.
func (y *year) worker() chan func() {
	if n := len(y.idle); n > 0 {
		w := y.idle[n-1]
		y.idle = y.idle[:n-1]
		return w
	}
	w := make(chan func())
	go func() {
		for do := range w {
			do()
		}
	}()
	return w
}

func (y *year) service(store lifecycle.Store, clock int) *lifecycle.Service {
	s := &lifecycle.Service{Store: store, Plans: plan.Default(), Format: y.format, Now: y.clock(clock), Seal: y.sealer}
	if p, ok := store.(*process); ok {
		s.Rest(func(context.Context) error { p.gate(); return nil })
	}
	return s
}

// step lets a process go on to its next call.
func (p *process) step() bool {
	p.turn <- struct{}{}
	if <-p.at {
		return true
	}
	p.year.idle = append(p.year.idle, p.worker)
	return false
}

func (p *process) gate() {
	if p.turn != nil {
		p.at <- true
		<-p.turn
	}
}

// call makes a call that may be the process's last, before or after it takes effect, and whose answer may be lost.
func (p *process) call(do func() error) error {
	p.gate()
	y := p.year
	if p.fuse > 0 {
		if p.fuse--; p.fuse == 0 {
			y.seen["killed"]++
			if p.after {
				_ = do()
			}
			panic(killed{})
		}
	}
	if p.turn != nil && y.now.Before(y.calm()) && y.IntN(1000) == 0 {
		y.seen["answer lost"]++
		if y.IntN(2) == 0 {
			_ = do()
		}
		return storetest.ErrLost
	}
	return do()
}

// Key is read just after the clients of the line asked for something.
func (p *process) Key(ctx context.Context, id apikey.ID) (r apikey.Record, err error) {
	err = p.call(func() error {
		if p.turn != nil {
			p.year.requests(p.year.of[id])
		}
		r, err = p.Store.Key(ctx, id)
		return err
	})
	return r, err
}

func (p *process) Due(ctx context.Context, q lifecycle.DueQuery) (list []lifecycle.DueKey, err error) {
	err = p.call(func() error { list, err = p.Store.Due(ctx, q); return err })
	return list, err
}

func (p *process) Postpone(ctx context.Context, r apikey.Record, due *apikey.Due) error {
	return p.call(func() error {
		err := p.Store.Postpone(ctx, r, due)
		if err == nil {
			p.year.noteDue(r.ID, due)
		}
		return err
	})
}

func (p *process) Replay(ctx context.Context, id string) (r lifecycle.Replay, err error) {
	err = p.call(func() error { r, err = p.Store.Replay(ctx, id); return err })
	return r, err
}

func (p *process) Commit(ctx context.Context, c lifecycle.Change) error {
	return p.call(func() error {
		err := p.Store.Commit(ctx, c)
		if err == nil {
			p.year.committed(c)
		}
		return err
	})
}

// send brings a parcel to its receiver. The process may die on the way there or back.
func (p *process) send(_ context.Context, parcel lifecycle.Parcel) (how lifecycle.Attempt) {
	p.year.stumble(p, &parcel)
	err := p.call(func() error { how = p.year.receive(parcel); return nil })
	if err != nil { // the answer was lost
		how = lifecycle.Doubtful
	}
	return how
}

// stumble may have a receiver that goes down at times do so when it has just taken a key, and with it whoever brought that:
// nobody ever learns that it arrived.
func (y *year) stumble(p *process, parcel *lifecycle.Parcel) {
	l := y.of[parcel.New.Key.ID]
	if _, out := during(l.outages, y.now); out || l.kind != down || y.now.After(y.calm()) || y.IntN(5) > 0 {
		return
	}
	y.receive(*parcel)
	y.seen["stumbled"]++
	l.outages = append(l.outages, span{y.now, y.now.Add(4 * yearDay)})
	panic(killed{})
}

// kind is what a receiver is like.
type kind int

const (
	up      kind = iota
	slow         // takes the key, but its answer comes too late
	down         // for days, nobody is there
	hanging      // for days, it takes a request and never answers
	failing      // for days, it answers with an error of its own, often after it took the key
	lying        // says yes, and forgets
	gone
	missing // no receiver is named at all
	kinds
)

func (k kind) String() string {
	return [...]string{"up", "slow", "down", "hanging", "failing", "lying", "gone", "missing"}[k]
}

// line is a key and its successors, its receiver, and the clients that use it.
type line struct {
	n            int
	organization string
	kind         kind
	outages      []span
	expires      *time.Time
	keys         []*heldKey
	clients      []*client

	phase   map[apikey.ID]audit.Action // what the trail told last of a key's rotation
	days    map[apikey.ID]int          // that it last told were left
	over    map[apikey.ID]bool         // told to have expired
	asked   time.Time                  // when its clients did last
	counted bool                       // takes a place
	story   []string
}

// heldKey is one of a line.
type heldKey struct {
	apikey.Issued
	held      bool // in its owner's hands
	dead      bool // for every clock
	parcel    string
	delivered time.Time // its successor, by the clock of whoever wrote that down
}

// client uses a line's keys.
type client struct {
	key      *heldKey      // that it uses
	switches time.Duration // after its owner got a successor; negative: never
	rare     bool          // uses its key when it has just switched, and hardly ever again
}

// faithful says whether a client has a right to the key that it uses: it switches before the cap.
func (c *client) faithful() bool { return !c.rare && c.switches >= 0 && c.switches < yearCap-yearDay }

// interval is of a line, in days: 1 to 90, most of them long.
func (y *year) interval() int {
	switch n := y.IntN(1000); {
	case n < 3:
		return 1
	case n < 8:
		return 2 + y.IntN(5)
	case n < 30:
		return 7 + y.IntN(14)
	case n < 120:
		return 21 + y.IntN(24)
	}
	return 50 + y.IntN(41)
}

// open makes the nth line.
func (y *year) open(n int) {
	l := &line{n: n, organization: y.organization(n), kind: kind(y.IntN(int(kinds))),
		phase: map[apikey.ID]audit.Action{}, days: map[apikey.ID]int{}, over: map[apikey.ID]bool{}}
	if y.IntN(3) == 0 {
		l.kind = up
	}
	l.outages = y.spans(4, 6*yearDay)
	asked := lifecycle.New{ProjectID: "shop", Name: fmt.Sprint("line ", n), RotationIntervalDays: new(y.interval()),
		RateLimitPerMinute: lifecycle.Limit{Said: true, V: new(int64(100_000))}}
	if y.end.Sub(y.began) < 100*yearDay {
		asked.RotationIntervalDays = new(1 + y.IntN(10))
	}
	if l.kind != missing {
		asked.RotationWebhookURL = new("https://example.com/rotated")
	}
	if y.IntN(8) == 0 {
		at := yearDay + y.upTo(y.end.Sub(y.began))
		if y.IntN(2) == 0 { // soon after a rotation is due
			at = time.Duration(*asked.RotationIntervalDays*(1+y.IntN(3)))*yearDay + y.upTo(3*yearDay)
		}
		l.expires = new(y.now.Add(at).Truncate(time.Second))
		asked.ExpiresAt = &lifecycle.Moment{Time: *l.expires}
	}
	y.making = l
	issued, err := y.service(&process{Store: y.store, year: y}, 0).Create(y.admin(l.organization), asked)
	if err != nil {
		y.fail(l, "creating it: %v", err)
		return
	}
	k := l.keys[0]
	k.Issued, k.held = issued, true
	for _, after := range []time.Duration{y.pace(), y.pace()} {
		l.clients = append(l.clients, &client{key: k, switches: after, rare: y.IntN(5) == 0})
	}
	y.check(l)
}

// pace is how long a client takes to switch.
func (y *year) pace() time.Duration {
	switch y.IntN(8) {
	case 0:
		return -1
	case 1, 2:
		return y.upTo(9 * yearDay)
	}
	return y.upTo(time.Minute)
}

func (y *year) admin(organization string) context.Context {
	by := caller.From(admin())
	by.OrganizationID = organization
	return as(by)
}

// organization is one for 25 lines, made when it is needed first.
func (y *year) organization(n int) string {
	id := fmt.Sprintf("org_%d_%s", n/25, y.mark)
	if !y.organizations[id] {
		y.organizations[id] = true
		if _, err := y.service(y.store, 0).AddOrganization(y.admin(id), "enterprise", []string{"*"}); err != nil {
			panic(err)
		}
		y.events.joined(id)
	}
	return id
}

// requests has the clients of a line ask for something.
func (y *year) requests(l *line) {
	if l == nil || len(l.keys) < 2 || l.asked.Equal(y.now) {
		return
	}
	l.asked = y.now
	for _, c := range l.clients {
		if !c.rare {
			y.request(l, c)
		}
	}
}

func (y *year) request(l *line, c *client) {
	d := y.verifier[y.IntN(2)].Verify(context.Background(), verify.Request{Key: c.key.Plaintext.Reveal()})
	if !d.Allowed() && c.faithful() && l.kind != lying && !l.expired(y.now.Add(yearSkew)) {
		y.fail(l, "a client that switches in time, and used %s all along, is told %s", c.key.Key.ID, d.Code)
	}
}

func (l *line) expired(now time.Time) bool { return l.expires != nil && !now.Before(*l.expires) }

// receive is what a receiver makes of an attempt.
func (y *year) receive(p lifecycle.Parcel) lifecycle.Attempt {
	l := y.of[p.New.Key.ID]
	y.received(l, &p)
	_, out := during(l.outages, y.now)
	how, keeps := lifecycle.Delivered, true
	switch {
	case l.kind == slow:
		how = lifecycle.Doubtful
	case l.kind == lying:
		keeps = false
	case l.kind == gone && y.IntN(4) == 0:
		how, keeps = lifecycle.Gone, false
	case l.kind == gone, l.kind == down && out:
		how, keeps = lifecycle.Missed.After(time.Duration(y.IntN(3))*time.Hour), false
	case l.kind == hanging && out:
		how, keeps = lifecycle.Doubtful, false
	case l.kind == failing && out:
		how, keeps = lifecycle.Doubtful, y.IntN(2) == 0
	}
	y.tell(l, "attempt %d with %s: %s", p.Attempt, p.New.Key.ID, how)
	if k := l.key(p.New.Key.ID); keeps && !k.held {
		k.held = true
		for _, c := range l.clients {
			if c.switches >= 0 {
				y.plan(y.now.Add(c.switches), func() { y.switched(l, c, k) })
			}
		}
	}
	return how
}

// switched has a client go on with a newer key.
func (y *year) switched(l *line, c *client, k *heldKey) {
	if l.place(k) > l.place(c.key) {
		y.tell(l, "a client uses %s", k.Key.ID)
		c.key = k
		y.request(l, c)
	}
}

func (l *line) key(id apikey.ID) *heldKey {
	for _, k := range l.keys {
		if k.Key.ID == id {
			return k
		}
	}
	return nil
}

func (l *line) place(k *heldKey) int {
	for i, other := range l.keys {
		if other == k {
			return i
		}
	}
	return -1
}
