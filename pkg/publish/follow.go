package publish

import (
	"context"
	"slices"
	"time"
)

const (
	// breath is how long a feed that has nothing new is waited for, and retries with it.
	breath = time.Second
	// roundTime bounds one round of Follow, and lastTime one that is under way at the end.
	roundTime, lastTime = 30 * time.Second, 2 * time.Second
	// firstPause is between what failed and the next attempt. It doubles with each failure, up to lastPause.
	firstPause, lastPause = 250 * time.Millisecond, 30 * time.Second
	// perRound is how much of what waits of one organization is tried at once.
	perRound = 100
	// maxWaiting is how many records may wait before the feed is asked for no more.
	maxWaiting = 10_000
)

// Feed brings records in the order in which their entries were committed, as far as they are of one organization.
type Feed interface {
	// Next returns what was committed since, and waits for it for at most so long.
	Next(ctx context.Context, wait time.Duration) ([]Record, error)
	// Done says that of all records that Next has returned only those are not done. A feed that outlives the process
	// begins there again.
	Done(ctx context.Context, left []Record) error
}

// follower is a feed that is followed, and what waits to be tried again.
type follower struct {
	*Publisher
	feed     Feed
	failures int       // of the feed, in a row
	at       time.Time // before which it is not asked again
	waiting  map[string]*queue
}

// queue are the records of an organization with which something went wrong, and those that came behind them.
type queue struct {
	records  []Record
	failures int
	at       time.Time // before which it is not tried again; the zero time: it is being tried
}

// Follow publishes what a feed brings until ctx is done; what is under way then is given two seconds. What fails is tried again, later and later, and what comes of the
// same organization waits behind it, while the others go on. A record that cannot be read is told of in the log and left
// behind: this process never could read it.
func (p *Publisher) Follow(ctx context.Context, feed Feed) {
	f := &follower{Publisher: p, feed: feed, waiting: map[string]*queue{}}
	for ctx.Err() == nil {
		f.round(ctx)
	}
}

// round takes what is new and what may be tried again.
func (f *follower) round(ctx context.Context) {
	records := append(f.fresh(ctx), f.due(time.Now())...)
	if len(records) > 0 {
		bounded, cancel := outlasting(ctx)
		left, _ := f.Take(bounded, records) // why is in the log
		cancel()
		f.back(time.Now(), left)
	}
	var left []Record
	for _, q := range f.waiting {
		left = append(left, q.records...)
	}
	if err := f.feed.Done(ctx, left); err != nil && ctx.Err() == nil {
		f.Log.WarnContext(ctx, "how far the audit trail is published is not written down", "error", err)
	}
}

// outlasting is ctx for one round, which is over some time after it.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundTime)
	stop := context.AfterFunc(ctx, func() {
		pause(bounded, lastTime)
		cancel()
	})
	return bounded, func() { stop(); cancel() }
}

// fresh is what the feed brings of organizations that do not wait. The rest is put behind what waits of theirs.
func (f *follower) fresh(ctx context.Context) (ready []Record) {
	now := time.Now()
	wait, full := f.patience(now)
	if full || f.at.After(now) {
		pause(ctx, min(wait, max(f.at.Sub(now), firstPause)))
		return nil
	}
	records, err := f.feed.Next(ctx, wait)
	switch {
	case err == nil:
		f.failures = 0
	case ctx.Err() == nil:
		f.failures++
		f.at = time.Now().Add(pauseAfter(f.failures))
		f.Log.WarnContext(ctx, "the audit trail cannot be followed", "error", err)
	}
	for _, r := range records {
		if q := f.waiting[r.OrganizationID]; q != nil && r.Kind == Written {
			q.records = append(q.records, r)
		} else {
			ready = append(ready, r)
		}
	}
	return ready
}

// patience is how long there is nothing to do but to wait for the feed, and whether so much waits that it is not asked.
func (f *follower) patience(now time.Time) (wait time.Duration, full bool) {
	wait, waiting := breath, 0
	for _, q := range f.waiting {
		wait, waiting = min(wait, q.at.Sub(now)), waiting+len(q.records)
	}
	return max(wait, 0), waiting >= maxWaiting
}

// due takes from the queues what may be tried now.
func (f *follower) due(now time.Time) (records []Record) {
	for _, q := range f.waiting {
		if !q.at.After(now) {
			n := min(len(q.records), perRound)
			records = append(records, q.records[:n]...)
			q.records, q.at = q.records[n:], time.Time{}
		}
	}
	return records
}

// back puts those records that are left before whatever waits of the same organization. An organization of which none is
// left goes on at once with what waits.
func (f *follower) back(now time.Time, left []Record) {
	again := map[string][]Record{}
	for _, r := range left {
		if r.Err == nil {
			again[r.OrganizationID] = append(again[r.OrganizationID], r)
		}
	}
	for organizationID, q := range f.waiting {
		if len(again[organizationID]) == 0 && q.at.IsZero() {
			q.failures = 0
		}
		if len(again[organizationID])+len(q.records) == 0 {
			delete(f.waiting, organizationID)
		}
	}
	for organizationID, records := range again {
		q := f.waiting[organizationID]
		if q == nil {
			q = &queue{}
			f.waiting[organizationID] = q
		}
		q.records = slices.Concat(records, q.records)
		q.failures++
		q.at = now.Add(pauseAfter(q.failures))
	}
}

// pauseAfter so many failures in a row.
func pauseAfter(failures int) time.Duration {
	return min(firstPause<<min(failures-1, 10), lastPause)
}

// pause waits, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
