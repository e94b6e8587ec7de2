package lifecycle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	crand "crypto/rand"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// What must hold in a simulated year. A line can only change when something is committed, and when an end comes on one of the
// clocks: so it is looked at then, by both clocks, and what holds then holds at every instant.

// watch is what the trail and the receivers have told so far.
type watch struct {
	lines         []*line
	of            map[apikey.ID]*line
	making        *line
	organizations map[string]bool
	places        map[string]int64 // by organization: lines that take one
	entries       map[string][]string
	seen          map[string]int
	lastRun       time.Time
	seq           int
	mark          string
	broken        string
}

func newWatch() watch {
	return watch{of: map[apikey.ID]*line{}, organizations: map[string]bool{}, places: map[string]int64{}, entries: map[string][]string{},
		seen: map[string]int{}, mark: strings.ToLower(crand.Text()[:8])}
}

// fail ends the year with the story of a line.
func (y *year) fail(l *line, format string, args ...any) {
	if y.broken == "" {
		y.broken = fmt.Sprintf("%s: line %d of %s, whose receiver is %s:\n%s\nits story:\n  %s", y.now.Format(time.DateTime), l.n, l.organization,
			l.kind, fmt.Sprintf(format, args...), strings.Join(l.story, "\n  "))
	}
}

// tell adds to a line's story, of which the last of it is kept.
func (y *year) tell(l *line, format string, args ...any) {
	if len(l.story) > 80 {
		l.story = append(l.story[:0], l.story[40:]...)
	}
	l.story = append(l.story, y.now.Format("2006-01-02 15:04:05 ")+fmt.Sprintf(format, args...))
}

// committed looks at a change that took effect.
func (y *year) committed(c lifecycle.Change) {
	if c.Create != nil {
		y.made(&c)
	}
	for i := range c.Update {
		y.noteDue(c.Update[i].Record.ID, c.Update[i].Record.Due)
	}
	if c.Silent || y.broken != "" {
		return
	}
	l := y.of[*c.Entry.KeyID]
	y.events.happened(l.organization)
	y.entries[l.organization] = append(y.entries[l.organization], c.Entry.ID)
	y.seen[string(c.Entry.Action)]++
	y.tell(l, "%s %s by the clock %s", c.Entry.Action, c.Entry.KeyID, c.Entry.At.Format("15:04:05"))
	y.trail(l, &c.Entry)
	for i := range c.Update {
		if end := c.Update[i].Record.End(); end != nil && c.Update[i].Record.RevokedAt == nil && end.After(y.now) {
			y.plan(end.Add(-yearSkew), func() { y.check(l) })
			y.plan(*end, func() { y.check(l) })
		}
	}
	for i := range c.Update {
		y.handed(l, &c.Update[i].Record)
	}
	if c.Entry.Action == audit.RotationCompleted {
		y.completed(l, &c.Update[0].Record)
	}
	y.countPlaces(l)
	if len(l.clients) > 0 {
		y.check(l)
	}
}

// made notes a new key: the first of a line, or a successor, whose secret only its sealed copy tells.
func (y *year) made(c *lifecycle.Change) {
	r := c.Create
	y.noteDue(r.ID, r.Due)
	k := &heldKey{Issued: apikey.Issued{Key: r.Key}}
	if r.Predecessor == nil {
		y.lines, y.of[r.ID] = append(y.lines, y.making), y.making
		y.making.keys = append(y.making.keys, k)
		if at := y.making.expires; at != nil {
			l := y.making
			y.plan(at.Add(-yearSkew), func() { y.check(l) })
			y.plan(*at, func() { y.check(l) })
		}
		return
	}
	l := y.of[*r.Predecessor]
	secret, err := y.sealer.Open(context.Background(), c.Replay.Sealed, c.Replay.ID)
	if err != nil {
		y.fail(l, "its successor's secret cannot be opened: %v", err)
		return
	}
	k.Plaintext = apikey.NewPlaintext(string(secret))
	l.keys, y.of[r.ID] = append(l.keys, k), l
}

// handed holds that of a secret which is no longer to be handed over no copy rests.
func (y *year) handed(l *line, r *apikey.Record) {
	if r.Handover != nil || r.Predecessor == nil {
		return
	}
	if kept, err := y.store.Replay(context.Background(), "handover-"+r.ID.String()); err == nil && kept.Sealed != nil {
		y.fail(l, "the sealed copy of %s is still there", r.ID)
	}
}

// completed holds that an old key ends before its time only when its successor is used and it is not.
func (y *year) completed(l *line, old *apikey.Record) {
	early := l.key(old.ID).delivered.Add(yearCap - yearSkew)
	if !y.now.Before(early) || l.expired(y.now.Add(yearSkew)) {
		return
	}
	y.seen["ended early"]++
	successor, err := y.store.Key(context.Background(), *old.ReplacedByKeyID)
	switch {
	case err != nil || successor.LastUsedAt == nil:
		y.fail(l, "%s ends early although its successor was never used", old.ID)
	case old.LastUsedAt != nil && old.LastUsedAt.After(y.now.Add(yearSkew-yearQuiet)):
		y.fail(l, "%s ends early although it was used at %s", old.ID, old.LastUsedAt)
	}
}

// received holds that a secret is delivered as it was made, each time the same.
func (y *year) received(l *line, p *lifecycle.Parcel) {
	k := l.key(p.New.Key.ID)
	y.seen["attempt"]++
	switch {
	case p.New.Plaintext.Reveal() != k.Plaintext.Reveal():
		y.fail(l, "%s is delivered with another secret than it was made with", k.Key.ID)
	case k.parcel != "" && k.parcel != p.ID:
		y.fail(l, "%s is delivered under two ids", k.Key.ID)
	case p.Old.ReplacedByKeyID == nil || *p.Old.ReplacedByKeyID != k.Key.ID:
		y.fail(l, "%s is delivered as the successor of %s, which it is not", k.Key.ID, p.Old.ID)
	}
	k.parcel = p.ID
}

// accepts says whether a key is let in by a clock, without using it: the question costs more than any limit, which is the
// last thing that is looked at.
func (y *year) accepts(k *heldKey, clock int) bool {
	d := y.verifier[clock].Verify(context.Background(), verify.Request{Key: k.Plaintext.Reveal(), Cost: verify.MaxCost})
	return d.Code == apikey.RateLimited
}

// check holds that a line's owner is not locked out, and that no more than two of its keys live.
func (y *year) check(l *line) {
	if y.broken != "" {
		return
	}
	y.seen["look"]++
	alive := make([]bool, len(l.keys))
	for clock := range y.verifier {
		live, held := 0, 0
		for i, k := range l.keys {
			if k.dead || !y.accepts(k, clock) {
				continue
			}
			alive[i] = true
			if live++; k.held {
				held++
			}
		}
		over := l.expired(y.now.Add(yearSkew)) // by some clock
		switch {
		case l.expired(y.clock(clock)()) && live > 0:
			y.fail(l, "%d keys live past its expiry", live)
		case live > 2:
			y.fail(l, "%d keys live", live)
		case !over && live == 0:
			y.fail(l, "none of its keys is accepted")
		case !over && held == 0 && l.kind != lying:
			y.fail(l, "its owner is locked out: none of the keys that were delivered is accepted")
		}
	}
	for i, k := range l.keys {
		if !alive[i] && !k.dead {
			r, err := y.store.Key(context.Background(), k.Key.ID)
			k.dead = err == nil && r.RevokedAt != nil || l.expired(y.now) || err == nil && r.Over(y.now.Add(-time.Hour))
		}
	}
}

// trail holds that a rotation is told of once and in order: it starts, and is either abandoned, or delivered and then
// completed.
func (y *year) trail(l *line, e *audit.Entry) {
	id, was := *e.KeyID, l.phase[*e.KeyID]
	right := true
	switch e.Action {
	case audit.Created:
		y.places[l.organization]++
		l.counted = true
		return
	case audit.Expiring:
		var days int
		if err := json.Unmarshal(e.Changes[0].To, &days); err != nil || l.days[id] != 0 && days >= l.days[id] {
			y.fail(l, "%d days are told to be left after %d were", days, l.days[id])
		}
		l.days[id] = days
		return
	case audit.Expired:
		right = !l.over[id]
		l.over[id] = true
		if was != audit.RotationStarted { // else its successor has the place
			y.leave(l)
		}
	case audit.RotationDue:
		if was != audit.RotationStarted && l.kind != missing {
			y.fail(l, "a rotation waits for someone, which has somebody to go to")
		}
		return
	case audit.RotationStarted:
		right = (was == "" || was == audit.RotationAbandoned) && !l.expired(e.At)
	case audit.Rotated, audit.RotationAbandoned:
		right = was == audit.RotationStarted
		switch {
		case e.Action == audit.Rotated:
		case l.expired(e.At): // there is nothing to go back to
			y.leave(l)
		case l.keys[len(l.keys)-1].held:
			y.fail(l, "a key is taken away that its owner has")
		}
	case audit.RotationCompleted:
		right = was == audit.Rotated
	default:
		right = false
	}
	if !right {
		y.fail(l, "%s is told of %s after %q", e.Action, id, was)
	}
	if e.Action != audit.Expired {
		l.phase[id] = e.Action
	}
	if e.Action == audit.Rotated {
		k := l.key(id)
		k.delivered = e.At
		y.plan(y.now.Add(yearCap+yearSkew+time.Millisecond), func() { y.outlives(l, k) })
	}
}

// leave notes that a line takes no place any more.
func (y *year) leave(l *line) {
	if l.counted {
		y.places[l.organization]--
	}
	l.counted = false
}

// outlives holds that an old key has ended when the cap is over.
func (y *year) outlives(l *line, k *heldKey) {
	for clock := range y.verifier {
		if y.accepts(k, clock) {
			y.fail(l, "%s outlives the cap after its successor was delivered", k.Key.ID)
		}
	}
}

// countPlaces holds the plan's count.
func (y *year) countPlaces(l *line) {
	o, err := y.store.Organization(context.Background(), l.organization)
	if err != nil || o.ActiveKeys != y.places[l.organization] {
		y.fail(l, "the plan counts %d keys, and there are %d lines: %v", o.ActiveKeys, y.places[l.organization], err)
	}
}

// close looks at the end of a year whether anything was left undone, and whether the trail has all that was told.
func (y *year) close() {
	for _, work := range []apikey.Work{apikey.Sweep, apikey.Deliver} {
		if due, ok := y.firstDue(work); ok && due.Before(y.now.Add(-5*time.Minute)) {
			y.fail(y.of[(*y.due[work])[0].id], "a %s that was due at %s is left undone", work, due)
		}
	}
	for _, l := range y.lines {
		y.check(l)
		for _, k := range l.keys {
			y.finished(l, k)
		}
	}
	y.events.close()
	for id := range y.organizations {
		y.trailOf(id)
	}
}

// finished holds that what became of a key was told.
func (y *year) finished(l *line, k *heldKey) {
	r, err := y.store.Key(context.Background(), k.Key.ID)
	if err != nil {
		y.fail(l, "reading %s: %v", k.Key.ID, err)
		return
	}
	y.noteEnd(l, &r)
	switch {
	case r.Handover == nil && r.Sealed != nil:
		y.fail(l, "%s is handed over, and its sealed copy is still there", k.Key.ID)
	case r.Handover != nil && r.Handover.Until.Before(y.now.Add(-5*time.Minute)):
		y.fail(l, "%s should have been given up at %s", k.Key.ID, r.Handover.Until)
	case r.Handover != nil && r.LastUsedAt != nil && r.LastUsedAt.Before(y.now.Add(-4*yearDay)):
		y.fail(l, "%s is used and counts as undelivered", k.Key.ID)
	case r.Handover != nil && r.CreatedAt.Before(y.now.Add(-4*yearDay)) && !r.Handover.Doubt:
		y.fail(l, "%s should have been abandoned", k.Key.ID)
	}
}

// waits says whether the next rotation of r may have to wait for the grace of its predecessor: one that was delivered late, at
// the end of a window, ends late too.
func (y *year) waits(l *line, r *apikey.Record) bool {
	return r.Predecessor != nil && l.key(*r.Predecessor).delivered.Add(yearCap+yearDay).After(y.now)
}

func (y *year) noteEnd(l *line, r *apikey.Record) {
	end := r.End()
	if l.phase[r.ID] == audit.Rotated && end != nil && end.Before(y.now.Add(-5*time.Minute)) {
		y.fail(l, "nobody was told that the rotation of %s is completed", r.ID)
	}
	if r.ReplacedByKeyID == nil && r.RevokedAt == nil && !l.over[r.ID] && end != nil && end.Before(y.now.Add(-5*time.Minute)) {
		y.fail(l, "nobody was told that %s has expired", r.ID)
	}
	if at := r.NextRotationAt; at != nil && r.ReplacedByKeyID == nil && r.RevokedAt == nil && r.Handover == nil && l.kind != missing && !r.Over(y.now) &&
		at.Before(y.now.Add(-yearCap-yearDay)) && !y.waits(l, r) {
		y.fail(l, "%s should have been rotated at %s", r.ID, at)
	}
}

// trailOf holds that the trail has every entry that was told, and that those of one key are in their order.
func (y *year) trailOf(organization string) {
	there := map[string]bool{}
	var all []audit.Entry
	q := lifecycle.EntryQuery{OrganizationID: organization, Limit: 1000}
	for more := true; more; {
		page, next, err := y.store.Entries(context.Background(), q)
		if err != nil {
			panic(err)
		}
		for _, e := range page {
			there[e.ID], q.Before = true, e.ID
		}
		all = append(all, page...)
		more = next
	}
	for _, id := range y.entries[organization] {
		if !there[id] {
			y.fail(y.lines[0], "the trail of %s lacks %s", organization, id)
		}
	}
	y.events.leftOf(organization, all)
}
