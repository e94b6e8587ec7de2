package lifecycle_test

import (
	"cmp"
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
)

var (
	yearSeeds = flag.Int("year.seeds", 1, "how many years TestYear lives through on the memory store")
	yearSeed  = flag.Uint64("year.seed", 0, "the seed of its first year; 0: a new one")
	yearKeys  = flag.Int("year.keys", 100, "how many keys are rotated in a year")
	yearDays  = flag.Int("year.days", 365, "how many days it has")
	yearLocal = flag.Int("year.dynamodb", 0, "how many keys are rotated on DynamoDB Local, for 30 days; 0: none")
)

// TestYear lives through years of scheduled rotations, with receivers, clients and processes that fail in every way they
// may, and looks at every instant at which something changes whether a line's owner is locked out. See year_world_test.go
// for what happens, year_watch_test.go for what must hold, and year_events_test.go for what leaves.
//
// It is not parallel: its seed decides all that is random, the ids of keys included, so that a year can be lived again.
func TestYear(t *testing.T) {
	seed := cmp.Or(*yearSeed, uint64(time.Now().UnixNano()))
	t.Logf("%d years from seed %d: go test ./pkg/lifecycle -run 'TestYear$' -v -year.seed %d -year.seeds %d -year.keys %d -year.days %d",
		*yearSeeds, seed, seed, *yearSeeds, *yearKeys, *yearDays)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a year makes much and keeps little
	seen := map[string]int{}
	for n := range uint64(*yearSeeds) {
		t.Run(fmt.Sprint("seed ", seed+n), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed+n)
			live(t, memory.New(), seed+n, *yearKeys, *yearDays, seen)
		})
	}
	t.Log("in all: ", counted(seen))
}

func TestAMonthOnDynamoDBLocal(t *testing.T) {
	if *yearLocal == 0 {
		t.Skip("not asked for: -year.dynamodb")
	}
	t.Parallel()
	seed, seen := cmp.Or(*yearSeed, uint64(time.Now().UnixNano())), map[string]int{}
	t.Log("seed ", seed)
	live(t, keytest.OnDynamoDB(t), seed, *yearLocal, 30, seen)
	t.Log("in all: ", counted(seen))
}

func live(t *testing.T, store storetest.Store, seed uint64, keys, days int, seen map[string]int) {
	t.Helper()
	y := newYear(store, seed, keys, days)
	y.live()
	for what, n := range y.seen {
		seen[what] += n
	}
	if y.broken != "" {
		t.Fatalf("%s\nlived again by: go test ./pkg/lifecycle -run 'TestYear$' -year.seed %d -year.keys %d -year.days %d", y.broken, seed, keys, days)
	}
}

func counted(seen map[string]int) (text string) {
	var names []string
	for what := range seen {
		names = append(names, what)
	}
	slices.Sort(names)
	for _, what := range names {
		text += fmt.Sprintf("%s %d, ", what, seen[what])
	}
	return text
}
