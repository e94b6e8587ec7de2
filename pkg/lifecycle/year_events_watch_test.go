package lifecycle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/publish"
	"github.com/latchkey/latchkey/pkg/webhook"
	"github.com/latchkey/latchkey/pkg/work"
)

// What must hold of what leaves a simulated year.

// heard is what the bus and the webhooks were told so far.
type heard struct {
	bus    map[string]*sent // by organization
	sinkOf map[string]*sink // by organization
}

// sent is what the bus took of one organization, each event where it came first.
type sent struct {
	ids  []string // by number, the first 1
	hash string   // of the last
}

// sink is a webhook's receiver.
type sink struct {
	organization string
	kind         kind
	outages      []span
	leaves       time.Time // when it is gone, if it is one that goes
	disabled     bool
	got          map[string]uint64 // events, and what they said
	over         map[string]bool   // events that are not tried any more
	tried        notify.Due        // of the events of which a first attempt was begun the last, and when that was announced
}

func newHeard() heard { return heard{bus: map[string]*sent{}, sinkOf: map[string]*sink{}} }

// wrong ends the year.
func (e *events) wrong(organization, format string, args ...any) {
	if e.broken == "" {
		e.broken = fmt.Sprintf("%s: the events of %s:\n%s", e.now.Format(time.DateTime), organization, fmt.Sprintf(format, args...))
	}
}

func (e *events) wrongAt(s *sink, format string, args ...any) {
	e.wrong(s.organization, "the webhook, which is %s: %s", s.kind, fmt.Sprintf(format, args...))
}

func read(m publish.Message) (ev event.Event) {
	if err := json.Unmarshal(m.Detail, &ev); err != nil {
		panic(err)
	}
	return ev
}

// took holds that the bus gets the events of an organization in the order of its chain, when repeats are taken away, and
// an event always under its number.
func (e *events) took(ev event.Event) {
	o, n := ev.Data.OrganizationID, ev.Data.Chain.Sequence
	t := e.bus[o]
	if t == nil {
		t = &sent{}
		e.bus[o] = t
	}
	switch had := int64(len(t.ids)); {
	case n == had+1:
		t.ids, t.hash = append(t.ids, ev.ID), ev.Data.Chain.Hash
		e.seen["event on the bus"]++
	case n < 1 || n > had:
		e.wrong(o, "the bus gets event %d after event %d", n, had)
	case t.ids[n-1] != ev.ID:
		e.wrong(o, "the bus gets another event %d than before", n)
	default:
		e.seen["event again on the bus"]++
	}
}

// brought holds that an event says the same each time.
func (e *events) brought(s *sink, m webhook.Message) {
	h := fnv.New64a()
	h.Write(m.Body)
	said, again := s.got[m.ID]
	switch {
	case again && said != h.Sum64():
		e.wrongAt(s, "an event says something else when it comes again")
	case !bytes.Contains(m.Body, []byte(`"`+m.ID+`"`)) || !bytes.Contains(m.Body, []byte(`"`+s.organization+`"`)):
		e.wrongAt(s, "it gets an event that is not its own, or under another id: %s", m.Body)
	}
	s.got[m.ID] = h.Sum64()
}

// posted holds of a delivery that was just stored that first attempts are begun in order, but for those of which announcers'
// clocks tell another one, and that nothing is given up before the schedule is over.
func (e *events) posted(r *notify.Record) {
	s := e.sinkOf[r.OrganizationID]
	_, got := s.got[r.EventID]
	switch {
	case r.Status == notify.Pending && r.NextAttemptAt == nil:
		e.wrongAt(s, "a delivery is pending, and is not tried again")
	case r.Status == notify.Pending:
		e.visit(*r.NextAttemptAt)
		if r.Tries == 1 && r.Claimed != nil {
			if r.Sequence <= s.tried.Sequence && !r.CreatedAt.After(s.tried.At) {
				e.wrongAt(s, "event %d is tried for the first time after event %d", r.Sequence, s.tried.Sequence)
			}
			s.tried = notify.Due{At: r.CreatedAt, Sequence: r.Sequence}
		}
	case r.Status == notify.Delivered && !got:
		e.wrongAt(s, "an event counts as delivered which it never got")
	case r.Status == notify.Failed && s.kind != gone && r.CreatedAt.After(e.now.Add(-yearTries)):
		e.wrongAt(s, "an event is given up after %d attempts in %v", r.Tries, e.now.Sub(r.CreatedAt))
	case r.Status == notify.Canceled && !s.disabled:
		e.wrongAt(s, "a delivery is canceled that it waits for")
	}
	if r.Status != notify.Pending {
		s.over[r.EventID] = true
		e.seen["event "+string(r.Status)]++
	}
}

// unsubscribed holds that none is disabled but those that are gone.
func (e *events) unsubscribed(all *notify.Subscriptions) {
	s := e.sinkOf[all.OrganizationID]
	if s == nil || all.List[0].Enabled {
		return
	}
	s.disabled = true
	if s.kind != gone || e.now.Before(s.leaves) {
		e.wrongAt(s, "it is disabled")
	}
}

// close looks at the end of a year, when all has been calm for days, whether everything left.
func (e *events) close() {
	if e == nil {
		return
	}
	for range 1000 {
		if e.publish(); e.done == len(e.records) {
			break
		}
	}
	if e.done < len(e.records) {
		e.wrong(e.records[e.done].OrganizationID, "%d entries are not published", len(e.records)-e.done)
	}
	for shard := range work.Shards {
		due, _ := e.store.DueDeliveries(context.Background(), work.Query[notify.Due]{Shard: shard, Until: e.now.Add(-yearLate), Limit: 1})
		if len(due) > 0 {
			e.wrong(due[0].Ref.OrganizationID, "a delivery that was due at %s is left undone", due[0].At)
		}
	}
}

// leftOf holds that an organization's whole trail is in its chain, on the bus, and with the webhook that wants it.
func (e *events) leftOf(organization string, entries []audit.Entry) {
	if e == nil || e.broken != "" || e.sinkOf[organization] == nil {
		return
	}
	links := e.links(organization)
	number := map[string]int{}
	for i, l := range links {
		if number[l.EntryID] != 0 || l.Sequence != int64(i+1) {
			e.wrong(organization, "the link %d is the one before once more", l.Sequence)
		}
		number[l.EntryID] = i + 1
	}
	t := e.bus[organization]
	for _, entry := range entries {
		switch n := number[entry.ID]; {
		case n == 0:
			e.wrong(organization, "the chain lacks %s of %s", entry.Action, entry.At)
		case t == nil || len(t.ids) < n:
			e.wrong(organization, "the bus never got event %d", n)
		case t.ids[n-1] != entry.ID:
			e.wrong(organization, "the bus got another event %d than the chain has", n)
		}
	}
	if len(links) != len(entries) {
		e.wrong(organization, "the chain has %d links of %d entries", len(links), len(entries))
	}
	e.proven(organization, entries, links)
	e.reached(e.sinkOf[organization], entries)
}

func (e *events) links(organization string) (links []audit.Link) {
	for more := true; more; {
		page, goOn, err := e.store.Links(context.Background(), organization, int64(len(links)), 1000)
		if err != nil {
			panic(err)
		}
		links, more = append(links, page...), goOn
	}
	return links
}

// proven holds that what anybody can check offline is proven, up to the head that the bus had last.
func (e *events) proven(organization string, entries []audit.Entry, links []audit.Link) {
	var export audit.Export
	for _, all := range []any{entries, links} {
		text, err := json.Marshal(all)
		if err == nil {
			err = export.Read(bytes.NewReader(text))
		}
		if err != nil {
			panic(err)
		}
	}
	t := e.bus[organization]
	verdicts, err := export.Check(audit.Head{OrganizationID: organization, Sequence: int64(len(t.ids)), Hash: t.hash})
	if err != nil || len(verdicts) != 1 {
		panic(fmt.Sprint(err, verdicts))
	}
	if v := &verdicts[0]; !v.Proven() || len(v.Waiting) > 0 {
		e.wrong(organization, "offline its chain is not proven: %s", v)
	}
}

// reached holds that a webhook got every event that it wants, unless it was disabled, or the event was given up, which
// posted looks at. What happened in the last hour may be on its way, and to one that is never there for the whole schedule.
func (e *events) reached(s *sink, entries []audit.Entry) {
	since := e.now.Add(-time.Hour)
	if s.kind == missing {
		since = e.now.Add(-4 * yearDay)
	}
	for _, entry := range entries {
		if _, got := s.got[entry.ID]; got || s.over[entry.ID] || s.disabled || entry.At.After(since) || !strings.HasPrefix(string(entry.Action), "api_key.") {
			continue
		}
		e.wrongAt(s, "it never got %s of %s", entry.Action, entry.At)
	}
}
