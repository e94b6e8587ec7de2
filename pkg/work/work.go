// Package work goes through what time has made due: fairly, so that no organization's backlog holds up another's for long,
// and bounded, in how much is under way at once and in how long it takes.
//
// A [Walk] takes things from the parts in which organizations are kept, the parts by turns, until a limit, the context's
// end or too little time is left. [Lanes] do several things at once, few of them at one receiver. [Wait] is the schedule by
// which what failed is tried again. The room knows nothing of what is due, and keeps no clock but that of deadlines.
package work

import (
	"context"
	"hash/fnv"
	"time"
)

// Shards is in how many parts what is due is kept, by organization.
const Shards = 16

// ShardOf is the part in which an organization's things are kept.
func ShardOf(organizationID string) int {
	h := fnv.New32a()
	h.Write([]byte(organizationID))
	return int(h.Sum32() % Shards)
}

// Query asks for things of one part that are due.
type Query[T comparable] struct {
	Shard  int       // 0 to Shards-1
	After  T         // zero: from the longest due on
	Latest bool      // the latest due first; After is zero then
	Until  time.Time // included
	Limit  int       // at least 1
}

// Walk is one way through all parts. T is a thing with the place that it has among those that are due, K the thing itself:
// one that is met in two places is done once.
type Walk[T, K comparable] struct {
	Due   func(context.Context, Query[T]) ([]T, error)
	Of    func(T) K
	Skip  func(K) bool                   // which are left alone and do not count; nil: none
	Do    func(context.Context, K) error // an error counts the thing as failed, and the walk goes on
	Until time.Time                      // what is due by then

	Page   int           // how many of one part are taken in one go
	Limit  int           // how many are done
	Latest bool          // of a part with more than a page the latest are taken too, so that what becomes due now does not wait for all that has been waiting
	Enough time.Duration // that must be left of the context for another
}

// Done says what a walk did.
type Done struct {
	Count  int // how many were done
	Failed int // of them: with an error
	More   bool
}

// Go takes a page of each part at a time. An error is one of Due; what was done until then is done.
func (w *Walk[T, K]) Go(ctx context.Context) (Done, error) {
	g := going[T, K]{Walk: w, seen: map[K]bool{}}
	var none T
	from := int(w.Until.Unix() / 60) // no part is always the last
	after := make([]*T, Shards)      // nil: the part has no more
	for i := range after {
		after[i] = new(T)
	}
	for left := Shards; left > 0; {
		for n := range Shards {
			shard := (from + n) % Shards
			if after[shard] == nil {
				continue
			}
			first := *after[shard] == none
			page, goOn, err := g.page(ctx, Query[T]{Shard: shard, After: *after[shard]})
			if err != nil || !goOn {
				return g.done, err
			}
			if len(page) < w.Page {
				after[shard] = nil
				left--
				continue
			}
			after[shard] = &page[len(page)-1]
			if !first || !w.Latest {
				continue
			}
			if _, goOn, err = g.page(ctx, Query[T]{Shard: shard, Latest: true}); err != nil || !goOn {
				return g.done, err
			}
		}
	}
	return g.done, nil
}

// going is a walk under way.
type going[T, K comparable] struct {
	*Walk[T, K]
	seen map[K]bool
	done Done
}

// page asks for a page and does what is on it. The walk is over when it may not go on.
func (g *going[T, K]) page(ctx context.Context, q Query[T]) (page []T, goOn bool, err error) {
	q.Until, q.Limit = g.Until, g.Page
	if page, err = g.Due(ctx, q); err != nil {
		return nil, false, err
	}
	for _, t := range page {
		k := g.Of(t)
		if g.seen[k] || g.Skip != nil && g.Skip(k) {
			continue
		}
		if g.done.Count == g.Limit || ctx.Err() != nil || NearlyOver(ctx, g.Enough) {
			g.done.More = true
			return page, false, nil
		}
		g.seen[k] = true
		g.done.Count++
		if g.Do(ctx, k) != nil {
			g.done.Failed++
		}
	}
	return page, true, nil
}

// NearlyOver says whether less than enough is left of ctx.
func NearlyOver(ctx context.Context, enough time.Duration) bool {
	end, there := ctx.Deadline()
	return there && time.Until(end) < enough
}
