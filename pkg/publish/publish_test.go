package publish_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/publish"
)

func TestABatchOfManyOrganizationsLeavesInTheOrderOfEach(t *testing.T) {
	w := newWorld(t)
	list := entries(5, organizations(20)...)
	if left, err := w.publisher().Publish(t.Context(), list); err != nil || left != nil {
		t.Fatalf("left are %d, %v", len(left), err)
	}
	w.holds(list)
	if len(w.sent) != len(list) || w.puts != 5 {
		t.Errorf("the bus got %d events in %d calls", len(w.sent), w.puts)
	}
}

// A process may die between any two calls, and the answer of a call may be lost: the next process begins the batch again.
func TestACrashBetweenAnyTwoStepsLosesNothingAndChangesNothingTwice(t *testing.T) {
	steps := 0
	for _, lost := range []bool{false, true} {
		for at := 0; ; at++ {
			w := newWorld(t)
			list := entries(3, "acme", "globex")
			crash, call := errors.New("crash"), 0
			w.fault = func(string, string) (before, after error) {
				call++
				switch {
				case call == at+1 && lost: // it takes effect, and then nothing works
					return nil, crash
				case call > at:
					return crash, nil
				}
				return nil, nil
			}
			left, err := w.publisher().Publish(t.Context(), list)
			if call <= at {
				break
			}
			if steps++; !errors.Is(err, crash) || len(left) == 0 {
				t.Errorf("after the crash at call %d left are %v, %v", at, left, err)
			}
			w.fault = newWorld(t).fault
			if left, err := w.publisher().Publish(t.Context(), list); err != nil || left != nil {
				t.Errorf("after the crash at call %d another process leaves %v, %v", at, left, err)
			}
			w.holds(list)
		}
	}
	if steps < 2*(2+6+2) {
		t.Errorf("only %d crashes were tried", steps)
	}
}

func TestManyPublishersAtOnceAgreeAndChangeNothingTwice(t *testing.T) {
	w := newWorld(t)
	list := entries(4, organizations(6)...)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for from := 0; from < len(list); from += 5 { // each in batches
				if left, err := w.publisher().Publish(t.Context(), list[from:min(from+5, len(list))]); err != nil || left != nil {
					t.Errorf("left are %v, %v", left, err)
				}
			}
		})
	}
	all.Wait()
	w.holds(list)
}

func TestWhatComesAgainOrInAnotherOrderKeepsItsNumber(t *testing.T) {
	w := newWorld(t)
	list := entries(4, "acme", "globex")
	again := slices.Clone(list)
	slices.Reverse(again)
	for _, batch := range [][]audit.Entry{list[:5], list, again, slices.Concat(again, list)} {
		if left, err := w.publisher().Publish(t.Context(), batch); err != nil || left != nil {
			t.Fatalf("left are %v, %v", left, err)
		}
	}
	w.holds(list)
	last := w.sent[len(w.sent)-8:] // of a batch with everything twice and in both orders
	for _, o := range []string{"acme", "globex"} {
		var numbers []int64
		for _, e := range last {
			if e.Data.OrganizationID == o {
				numbers = append(numbers, e.Data.Chain.Sequence)
			}
		}
		if !slices.Equal(numbers, []int64{1, 2, 3, 4}) {
			t.Errorf("of %s it sends again %v", o, numbers)
		}
	}
}

func TestARefusedEventStopsItsOrganizationAlone(t *testing.T) {
	for _, call := range []string{"append", "put", "announce"} {
		t.Run(call, func(t *testing.T) {
			w, p := newWorld(t), (*publish.Publisher)(nil)
			p = w.publisher()
			list := entries(4, organizations(12)...)
			calls := 0
			w.fault = func(c, o string) (before, after error) {
				if c == call && o == "org_03" {
					if calls++; call != "put" || calls == 2 {
						return errDown, nil
					}
				}
				return nil, nil
			}
			left, err := p.Publish(t.Context(), list)
			want := of(list, "org_03")
			if call == "put" {
				want = want[1:] // the first was taken
			}
			if !slices.Equal(of(left, "org_03"), want) || len(left) != len(want) || !errors.Is(err, errDown) || !strings.Contains(err.Error(), "org_03") {
				t.Errorf("left are %v, %v", left, err)
			}
			if _, others := w.announced["org_04"], len(w.sent); others < 44 {
				t.Errorf("only %d events of the others were sent", others)
			}
			sent := len(w.sent)
			w.fault = newWorld(t).fault
			if left, err := p.Publish(t.Context(), list); err != nil || left != nil {
				t.Errorf("left are %v, %v", left, err)
			}
			w.holds(list)
			if sent += map[string]int{"append": 4, "put": 3}[call]; len(w.sent) != sent {
				t.Errorf("%d events were sent, not %d: what the bus took is sent again", len(w.sent), sent)
			}
		})
	}
}

// slow is a bus that never answers.
type slow struct{}

func (slow) Put(ctx context.Context, messages []publish.Message) []error {
	<-ctx.Done()
	outcomes := make([]error, len(messages))
	for i := range outcomes {
		outcomes[i] = ctx.Err()
	}
	return outcomes
}

func TestAnAbandonedRotationIsALineWhateverTheBusSays(t *testing.T) {
	w, log := newWorld(t), new(bytes.Buffer)
	p := w.publisher()
	p.Log = slog.New(slog.NewJSONHandler(log, nil))
	list := entries(2, "acme")
	list[1].Action, list[1].KeyID = audit.RotationAbandoned, new(apikey.ID(7))
	fail := true
	w.fault = func(call, _ string) (before, after error) {
		if call == "put" && fail {
			return errDown, nil
		}
		return nil, nil
	}
	for range 2 {
		if _, err := p.Publish(t.Context(), list); !errors.Is(err, errDown) {
			t.Error(err)
		}
	}
	fail = false
	if left, err := p.Publish(t.Context(), list); err != nil || left != nil {
		t.Error(left, err)
	}
	want := fmt.Sprintf(`"level":"WARN","msg":"rotation abandoned","organization_id":"acme","key_id":%q,"event_id":%q}`, list[1].KeyID, list[1].ID)
	if strings.Count(log.String(), want) != 1 || strings.Count(log.String(), "rotation abandoned") != 1 {
		t.Errorf("the log has not once %s: %s", want, log)
	}
}

func TestABusThatHangsLeavesTimeForSubscribers(t *testing.T) {
	w := newWorld(t)
	p := w.publisher()
	p.Bus = slow{}
	list := entries(2, "acme", "globex")
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	left, err := p.Publish(ctx, list)
	if len(left) != len(list) || err == nil || ctx.Err() != nil {
		t.Errorf("left are %d, %v, and %v", len(left), err, ctx.Err())
	}
	for _, e := range list {
		if !w.announced[e.OrganizationID][e.ID] {
			t.Errorf("%s was not announced", e.ID)
		}
	}
}

// stuck is a chain that does not answer about one organization.
type stuck struct {
	chain
	organizationID string
}

func (s stuck) Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	if organizationID == s.organizationID {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.chain.Append(ctx, organizationID, entries)
}

func TestAnOrganizationWhoseChainHangsLeavesTimeForTheOthers(t *testing.T) {
	w := newWorld(t)
	p := w.publisher()
	p.Chain = stuck{chain{w}, "acme"}
	list := entries(2, "acme", "globex")
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	left, err := p.Publish(ctx, list)
	if !slices.Equal(of(left, "acme"), of(list, "acme")) || len(left) != 2 || err == nil {
		t.Errorf("left are %v, %v", left, err)
	}
	if taken := w.taken("globex"); !slices.Equal(taken, of(list, "globex")) || len(w.announced["globex"]) != 2 {
		t.Errorf("of globex the bus took %v, and announced was %v", taken, w.announced["globex"])
	}
}

func TestWithoutABusAndSubscribersThereIsTheChain(t *testing.T) {
	w := newWorld(t)
	p := w.publisher()
	p.Bus, p.Announce = nil, nil
	list := entries(2, "acme")
	if left, err := p.Publish(t.Context(), list); err != nil || left != nil || len(w.chains["acme"]) != 2 || w.sent != nil {
		t.Errorf("left are %v, %v", left, err)
	}
	w.fault = func(string, string) (before, after error) { return errDown, nil }
	if left, err := p.Publish(t.Context(), list); !errors.Is(err, errDown) || len(left) != 2 {
		t.Errorf("without a chain left are %v, %v", left, err)
	}
	if left, err := p.Publish(t.Context(), nil); err != nil || left != nil {
		t.Errorf("of nothing %v is left, %v", left, err)
	}
}
