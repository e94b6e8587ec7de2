package work

import (
	"sync"
	"time"
)

// Lanes are things under way at once: so many in all, and few at one receiver, so that one that is slow holds up its own
// alone. What finds its receiver busy waits for it without taking up room.
type Lanes[T any] struct {
	free chan struct{} // holds one for each under way
	per  int           // at one receiver
	all  sync.WaitGroup

	mu      sync.Mutex
	busy    map[string]int // by receiver
	waiting map[string][]T // for a receiver that is busy
	failed  int
	under   int           // how many are under way
	idle    chan struct{} // closed once none is
}

// NewLanes makes lanes for so many at once, and so many at one receiver, each at least 1.
func NewLanes[T any](most, perReceiver int) *Lanes[T] {
	return &Lanes[T]{free: make(chan struct{}, max(1, most)), per: max(1, perReceiver), busy: map[string]int{}, waiting: map[string][]T{}}
}

// Next makes lanes that share the room of these, and nothing else.
func (l *Lanes[T]) Next() *Lanes[T] {
	return &Lanes[T]{free: l.free, per: l.per, busy: map[string]int{}, waiting: map[string][]T{}}
}

// Take does one when there is room, here if there is room for one alone.
func (l *Lanes[T]) Take(do func() error) error {
	if cap(l.free) == 1 {
		return do()
	}
	l.free <- struct{}{}
	l.begin()
	l.all.Go(func() {
		err := do()
		<-l.free
		l.end(err)
	})
	return nil
}

func (l *Lanes[T]) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.under++; l.under == 1 {
		l.idle = make(chan struct{})
	}
}

func (l *Lanes[T]) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed++
	}
	if l.under--; l.under == 0 {
		close(l.idle)
	}
}

// Idle returns when nothing is under way, or after so long, and says whether nothing is.
func (l *Lanes[T]) Idle(within time.Duration) bool {
	l.mu.Lock()
	under, idle := l.under, l.idle
	l.mu.Unlock()
	if under == 0 {
		return true
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
		return false
	}
}

// Wait returns when nothing is under way: how many failed that Take did not say so of, and whether any still wait, since
// their receiver was not well.
func (l *Lanes[T]) Wait() (failed int, waiting bool) {
	l.all.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed, len(l.waiting) > 0
}

// Waiting says whether any wait for their receiver.
func (l *Lanes[T]) Waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) > 0
}

// Enter says whether there is room at a receiver. Where there is none, t waits for it.
func (l *Lanes[T]) Enter(receiver string, t T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[receiver] >= l.per {
		l.waiting[receiver] = append(l.waiting[receiver], t)
		return false
	}
	l.busy[receiver]++
	return true
}

// Leave makes room at a receiver or, if it is well, gives its room to the next that waits for it.
func (l *Lanes[T]) Leave(receiver string, well bool) (next T, goOn bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.waiting[receiver]
	if !well || len(waiting) == 0 {
		l.busy[receiver]--
		return next, false
	}
	next, l.waiting[receiver] = waiting[0], waiting[1:]
	if len(waiting) == 1 {
		delete(l.waiting, receiver)
	}
	return next, true
}
