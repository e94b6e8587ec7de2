package plan_test

import (
	"testing"

	"github.com/latchkey/latchkey/pkg/plan"
)

func TestTheDefaultTableHoldsTheDocumentedNumbersOfKeys(t *testing.T) {
	want := map[string]int64{"free": 0, "personal": 0, "trial": 1, "pro": 1, "starter": 3, "education": 5, "professional": 10,
		"team": 25, "enterprise": plan.Unlimited}
	table := plan.Default()
	if len(table) != len(want) {
		t.Errorf("%d plans", len(table))
	}
	for name, keys := range want {
		p := table[name]
		if p.Name != name || p.Keys != keys || p.Managed() != (keys > 0) || p.DefaultPerMinute != 60 {
			t.Errorf("%s is %+v", name, p)
		}
		if !plan.Allows(p.HighestPerMinute, &p.DefaultPerMinute) {
			t.Errorf("%s does not allow its own default", name)
		}
	}
}

func TestNoLimitIsAllowedOnlyWhereLimitsHaveNoBound(t *testing.T) {
	for _, c := range []struct {
		highest int64
		limit   *int64
		want    bool
	}{
		{60, new(int64(60)), true}, {60, new(int64(61)), false}, {60, nil, false},
		{plan.Unlimited, nil, true}, {plan.Unlimited, new(int64(1e9)), true},
	} {
		if got := plan.Allows(c.highest, c.limit); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}
