package lifecycle_test

import (
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

func TestAnOlderTokenDoesNotSpeakAgainstANewerOnesPlan(t *testing.T) {
	h := newHouse(t, "trial")
	person := func(plan string, issued time.Duration) caller.Caller {
		return caller.Caller{OrganizationID: "acme+people", Kind: caller.User, ID: "ada", Scopes: []string{apikey.KeysRead, apikey.KeysWrite},
			Plan: plan, PlanAt: h.clock().Add(issued)}
	}
	before, downgraded := person("starter", -time.Hour), person("trial", -time.Minute)
	for range 2 {
		if _, err := h.Create(as(before), basic()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := h.Create(as(downgraded), basic())
	wantCode(t, err, apikey.PlanRefused)
	_, err = h.Create(as(before), basic()) // its token is still in time
	wantCode(t, err, apikey.PlanRefused)
	if _, err := h.Create(as(person("starter", 0)), basic()); err != nil {
		t.Errorf("a newer token with the higher plan: %v", err)
	}
}
