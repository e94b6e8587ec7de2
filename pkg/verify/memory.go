package verify

import (
	"errors"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

const (
	memorySize    = 10_000           // ids of each kind
	memoryUnknown = 10 * time.Second // an id that nobody has may be given to a new key
)

// memory keeps strangers from costing anything: whoever knows the public prefix of a key could otherwise have its item
// written to at will. It only ever refuses. An id's hash never changes, so a wrong secret for a known id needs no store;
// an id that the store did not know is not asked about again for a moment. All is bounded, and what is forgotten is
// just asked again.
type memory struct {
	mu      sync.Mutex
	hashes  map[apikey.ID]apikey.Hash
	unknown map[apikey.ID]time.Time     // until when
	full    map[apikey.ID]apikey.Window // the day on which a key was last refused because of it
}

// refuses says whether d is known to be no key.
func (m *memory) refuses(d *Debit) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if hash, ok := m.hashes[d.ID]; ok {
		return !hash.Equal(d.Hash)
	}
	until, ok := m.unknown[d.ID]
	return ok && d.At.Before(until) && until.Sub(d.At) <= memoryUnknown // a clock that went back forgets
}

// learn remembers what the store said of d's id.
func (m *memory) learn(d *Debit, hot *Hot, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch _, known := m.hashes[d.ID]; {
	case errors.Is(err, ErrNoKey):
		m.unknown = remember(m.unknown, d.ID, d.At.Add(memoryUnknown))
	case err == nil && !known && !hot.Hash.IsZero():
		m.hashes = remember(m.hashes, d.ID, hot.Hash)
		delete(m.unknown, d.ID)
	}
}

// hinted says whether d's key was already refused because its day is used up, and remembers that it is now.
func (m *memory) hinted(d *Debit) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full[d.ID] == d.Day() {
		return true
	}
	m.full = remember(m.full, d.ID, d.Day())
	return false
}

// remember adds to a map of at most memorySize, whatever it has to forget for that.
func remember[V any](m map[apikey.ID]V, id apikey.ID, v V) map[apikey.ID]V {
	if m == nil {
		m = map[apikey.ID]V{}
	}
	for other := range m {
		if len(m) < memorySize {
			break
		}
		delete(m, other)
	}
	m[id] = v
	return m
}
