package verify

import (
	"context"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// hintTime is the most that a hint may take.
const hintTime = 250 * time.Millisecond

// hint asks for the sweep's look at a key of whose daily limit so much is used that its organization is to be told. Counts
// are exact, so one debit alone takes a key past each of apikey.UseTold: that one hints. For the case that its hint, or the answer
// to it, was lost, so does the first refusal of the day for the limit.
//
// The decision stands by then. A hint that fails is forgotten: the key's organization is told later or not at all.
func (v *Verifier) hint(ctx context.Context, d *Debit, hot *Hot, admitted bool) {
	used := apikey.Reached(hot.DayLimit, hot.DayCount)
	switch {
	case used == 0, admitted && used == apikey.Reached(hot.DayLimit, hot.DayCount-d.Cost):
		return
	case !admitted && (Refusal(hot, d) != apikey.DailyLimitExceeded || hot.DayCount < *hot.DayLimit || v.known.hinted(d)):
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hintTime)
	defer cancel()
	if v.Store.Hint(ctx, d.ID, hot.OrganizationID, d.At) == nil && hot.DayCount >= *hot.DayLimit {
		v.known.hinted(d)
	}
}
