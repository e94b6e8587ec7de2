package plan_test

import (
	"maps"
	"strings"
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

func TestADeploymentsOwnTableReplacesTheDefault(t *testing.T) {
	table, err := plan.Parse(`{"free": {"keys": 0}, "gold": {"keys": 7, "default_per_minute": 100, "highest_per_minute": 500, "highest_per_day": 10000}, "all": {"keys": null, "highest_per_minute": null}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := plan.Table{
		"free": {"free", 0, 60, plan.Unlimited, plan.Unlimited},
		"gold": {"gold", 7, 100, 500, 10000},
		"all":  {"all", plan.Unlimited, 60, plan.Unlimited, plan.Unlimited},
	}
	if !maps.Equal(table, want) {
		t.Errorf("got %+v", table)
	}
	if table, err := plan.Parse(""); err != nil || !maps.Equal(table, plan.Default()) {
		t.Errorf("none: %+v, %v", table, err)
	}
}

func TestAnIllFormedTableIsRefusedByName(t *testing.T) {
	for text, names := range map[string]string{
		`[]`:                   "plans",
		`{}`:                   "plans",
		`null`:                 "plans",
		`{"a": {"keys": 1}} x`: "plans",
		`{"a": {"kyes": 1}}`:   "kyes",
		`{"a": {}}`:            `"a": keys`,
		`{"a": {"keys": -1}}`:  `"a": keys`,
		`{"a": {"keys": 1.5}}`: `"a": keys`,
		`{"a": {"keys": "1"}}`: `"a": keys`,
		`{"": {"keys": 1}}`:    "no name",
		`{"a": {"keys": 1, "default_per_minute": 0}}`:                          `"a": default_per_minute`,
		`{"a": {"keys": 1, "highest_per_minute": 59}}`:                         `"a": default_per_minute`,
		`{"a": {"keys": 1, "default_per_minute": 9, "highest_per_minute": 8}}`: `"a": default_per_minute`,
		`{"a": {"keys": 1, "highest_per_day": 0}}`:                             `"a": highest_per_day`,
	} {
		if _, err := plan.Parse(text); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTheLargestPlanHasTheMostKeys(t *testing.T) {
	if got := plan.Default().Largest(); got != "enterprise" {
		t.Errorf("of the default table: %s", got)
	}
	if got := (plan.Table{"a": {Name: "a", Keys: 5, HighestPerMinute: 60}, "b": {Name: "b", Keys: 5, HighestPerMinute: 61}, "c": {Name: "c"}}).Largest(); got != "b" {
		t.Errorf("of another: %s", got)
	}
}
