package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	// perRun is how many keys one run looks at; what it leaves is the next one's.
	perRun = 5000
	// tick is how often latchkeyd looks for what is due, and devTick how often it does where somebody tries it and waits. As
	// a Lambda each is run once a minute.
	tick, devTick = 5 * time.Second, time.Second
	// runTime bounds one run of latchkeyd's.
	runTime = 50 * time.Second
	// beside is how many runs that bring successors are under way at once, so that those which are due later do not wait for a
	// receiver that hangs. Of those that bring events there is one, which looks for others meanwhile, and keeps their order.
	beside = 8
)

// Sweep does what time has made due of keys, and logs that it did.
func (a *App) Sweep(ctx context.Context) error {
	_, err := a.sweep(ctx)
	return err
}

func (a *App) sweep(ctx context.Context) (lifecycle.Done, error) {
	done, err := a.Keys.Sweep(ctx, perRun)
	a.ran(ctx, "sweep", "keys", done.Keys, done.Failed, done.More, err)
	return done, err
}

// Deliver tries the deliveries that are due, and logs that it did: successors on their way and events, both at once, so that
// neither has to wait for the other's receivers.
func (a *App) Deliver(ctx context.Context) error {
	var events error
	var all sync.WaitGroup
	all.Go(func() { events = a.deliverEvents(ctx) })
	keys := a.deliverKeys(ctx)
	all.Wait()
	return errors.Join(keys, events)
}

func (a *App) deliverKeys(ctx context.Context) error {
	done, err := a.Deliverer.Run(ctx, perRun)
	a.ran(ctx, "deliver", "keys", done.Keys, done.Failed, done.More, err)
	return err
}

func (a *App) deliverEvents(ctx context.Context) error {
	done, err := a.Notify.Deliver(ctx, perRun)
	a.ran(ctx, "deliver", "events", done.Count, done.Failed, done.More, err)
	return err
}

// ran logs a run in which something happened. One that was stopped with its process is no failure: the next goes on from there.
func (a *App) ran(ctx context.Context, what, of string, count, failed int, more bool, err error) {
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		a.Log.InfoContext(ctx, what, of, count, "failed", failed, "stopped", true)
	case err != nil:
		a.Log.ErrorContext(ctx, what, of, count, "failed", failed, "error", err)
	case failed > 0:
		a.Log.WarnContext(ctx, what, of, count, "failed", failed, "more", more)
	case count > 0:
		a.Log.InfoContext(ctx, what, of, count, "more", more)
	}
}

// work does what is due, again and again, until ctx is done. Other processes on the same store may be doing the same.
// Deliveries wait for receivers, and the rest does not wait for them; but what a sweep began is brought at once, and so are events.
func (d *daemon) work(ctx context.Context) {
	every := tick
	if d.options.dev {
		every = devTick
	}
	begun, announced := make(chan struct{}, 1), make(chan struct{}, 1)
	sweep := func(ctx context.Context) error {
		done, err := d.app.sweep(ctx)
		if done.Keys > 0 {
			wake(begun)
		}
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { again(ctx, every, nil, 1, sweep) })
	all.Go(func() { again(ctx, every, begun, beside, d.app.deliverKeys) })
	all.Go(func() { again(ctx, every, announced, 1, d.app.deliverEvents) })
	all.Go(func() { d.publish(ctx, announced) })
}

// again runs, and runs again each tick and whenever it is woken, until ctx is done. Up to most runs are under way at once.
func again(ctx context.Context, every time.Duration, woken <-chan struct{}, most int, run func(context.Context) error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var all sync.WaitGroup
	defer all.Wait()
	for room := make(chan struct{}, most); ctx.Err() == nil; {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			bounded, cancel := context.WithTimeout(ctx, runTime)
			defer cancel()
			_ = run(bounded) // it is in the log
		})
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-woken:
		}
	}
}
