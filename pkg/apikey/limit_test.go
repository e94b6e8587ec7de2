package apikey_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

func TestAThresholdIsTheLeastCountThatHasUsedSoMuch(t *testing.T) {
	uses := func(limit, count int64, percent int) bool { // in numbers that do not overflow
		return big.NewInt(0).Mul(big.NewInt(count), big.NewInt(100)).Cmp(big.NewInt(0).Mul(big.NewInt(limit), big.NewInt(int64(percent)))) >= 0
	}
	for _, limit := range []int64{1, 2, 3, 4, 5, 6, 9, 10, 11, 99, 100, 101, 12345, 1_000_000_000, math.MaxInt64} {
		for _, percent := range apikey.UseTold {
			n := apikey.Threshold(limit, percent)
			if !uses(limit, n, percent) || uses(limit, n-1, percent) || n > limit {
				t.Errorf("%d percent of %d are used from %d on", percent, limit, n)
			}
			if apikey.Reached(&limit, n) < percent || apikey.Reached(&limit, n-1) >= percent {
				t.Errorf("of %d, %d reaches %d, and %d reaches %d", limit, n, apikey.Reached(&limit, n), n-1, apikey.Reached(&limit, n-1))
			}
		}
	}
	if got := apikey.Reached(nil, math.MaxInt64); got != 0 {
		t.Errorf("without a limit %d percent are used", got)
	}
}

func TestADayItsStartAndItsWindowAreOne(t *testing.T) {
	for _, at := range []time.Time{time.Unix(0, 0), time.Date(2026, 11, 22, 23, 59, 59, 999e6, time.UTC), time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)} {
		day := apikey.Day(at)
		if start := apikey.StartOf(day); at.Before(start) || at.Sub(start) >= 24*time.Hour || apikey.WindowOf(day) != apikey.DayWindow(at, 0) {
			t.Errorf("%s is in the day %d, %s, that begins at %s", at, day, apikey.WindowOf(day), start)
		}
	}
}
