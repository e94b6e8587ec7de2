package lifecycle_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/work"
)

// ours is a store in which only one organization's keys become due, since others' tests share it.
type ours struct {
	storetest.Store
	organization string
}

func (o ours) Due(ctx context.Context, q lifecycle.DueQuery) (list []lifecycle.DueKey, err error) {
	if q.Shard != work.ShardOf(o.organization) {
		return nil, nil
	}
	page, _, err := o.Keys(ctx, lifecycle.Query{OrganizationID: o.organization, Limit: 1000, Side: lifecycle.Both})
	for _, r := range page {
		if r.Due != nil && r.Due.Work == q.Work && !r.Due.At.After(q.Until) {
			list = append(list, lifecycle.DueKey{At: r.Due.At, ID: r.ID})
		}
	}
	slices.SortFunc(list, lifecycle.DueKey.Compare)
	list = slices.DeleteFunc(list, func(d lifecycle.DueKey) bool { return d.Compare(q.After) <= 0 })
	return list[:min(len(list), q.Limit)], err
}

// rotating is a scene with one key that is rotated by schedule, and what its receiver got.
type rotating struct {
	*scene
	old     apikey.Issued
	parcels []lifecycle.Parcel
	answers lifecycle.Attempt
	bare    ours
}

func newRotating(t *testing.T, bare storetest.Store) *rotating {
	t.Helper()
	r := &rotating{scene: newScene(t, bare, "trial")}
	r.bare = ours{bare, r.organization}
	n := basic()
	n.RotationIntervalDays, n.RotationWebhookURL = new(30), new("https://example.com/rotated")
	r.old = r.creates(t, n)
	r.advance(30 * day)
	return r
}

// work sweeps and delivers by a Service, and says whether both came to their end.
func (r *rotating) work(on *lifecycle.Service) bool {
	swept, err := on.Sweep(context.Background(), 100)
	delivered, err2 := on.Deliver(context.Background(), 100, r.send)
	return err == nil && err2 == nil && swept.Failed+delivered.Failed == 0
}

func (r *rotating) send(_ context.Context, p lifecycle.Parcel) lifecycle.Attempt {
	r.parcels = append(r.parcels, p)
	return r.answers
}

// goesOn works without a fault, every so often for a time.
func (r *rotating) goesOn(t *testing.T, every, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= every {
		r.advance(every)
		if !r.work(r.on(r.bare)) {
			t.Fatal("what failed once goes on failing")
		}
	}
}

// once demands that each of the actions was told once, and none of the others of a rotation.
func (r *rotating) once(t *testing.T, want ...audit.Action) {
	t.Helper()
	_, told := r.trail(t)
	for _, a := range []audit.Action{audit.RotationStarted, audit.Rotated, audit.RotationCompleted, audit.RotationAbandoned, audit.Expired} {
		if n := told[a]; n > 1 || (n == 1) != slices.Contains(want, a) {
			t.Errorf("%s was told %d times", a, n)
		}
	}
}

// Whatever call of a sweep or a delivery fails, and however: it is as if it had come later.
func TestWhateverCallOfAScheduledRotationFailsItGoesOnAsIfItHadNot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers lifecycle.Attempt
		before  func(*testing.T, *rotating) // what has happened until the sweep and the delivery that fail
		after   func(*testing.T, *rotating)
	}{
		"begun and delivered": {lifecycle.Delivered, func(*testing.T, *rotating) {}, delivered},
		"delivered late": {lifecycle.Delivered, func(t *testing.T, r *rotating) {
			r.answers = lifecycle.Missed
			r.goesOn(t, time.Minute, time.Minute)
			r.advance(time.Hour)
			r.answers = lifecycle.Delivered
		}, delivered},
		"ended early": {lifecycle.Delivered, func(t *testing.T, r *rotating) {
			r.goesOn(t, time.Minute, time.Minute)
			r.verify(r.parcels[0].New)
			r.advance(time.Hour)
		}, func(t *testing.T, r *rotating) {
			r.goesOn(t, 20*time.Minute, time.Hour)
			r.wantCodes(t, []apikey.Issued{r.old, r.parcels[0].New}, apikey.ExpiredKey, apikey.Valid)
			r.once(t, audit.RotationStarted, audit.Rotated, audit.RotationCompleted)
		}},
		"given up": {lifecycle.Missed, func(t *testing.T, r *rotating) {
			r.goesOn(t, 6*time.Hour, 66*time.Hour)
			r.advance(7 * time.Hour)
		}, func(t *testing.T, r *rotating) {
			r.goesOn(t, 6*time.Hour, 12*time.Hour)
			r.wantCodes(t, []apikey.Issued{r.old, r.parcels[0].New}, apikey.Valid, apikey.RevokedKey)
			r.once(t, audit.RotationStarted, audit.RotationAbandoned)
		}},
		"gone": {lifecycle.Gone, func(*testing.T, *rotating) {}, func(t *testing.T, r *rotating) {
			r.goesOn(t, time.Minute, 10*time.Minute)
			r.wantCodes(t, []apikey.Issued{r.old, r.parcels[0].New}, apikey.Valid, apikey.RevokedKey)
			r.once(t, audit.RotationStarted, audit.RotationAbandoned)
			if len(r.parcels) != 1 {
				t.Errorf("%d attempts", len(r.parcels))
			}
		}},
		"held": {lifecycle.Doubtful, func(t *testing.T, r *rotating) {
			r.goesOn(t, 6*time.Hour, 66*time.Hour)
			r.advance(7 * time.Hour)
		}, func(t *testing.T, r *rotating) {
			r.goesOn(t, 6*time.Hour, 12*time.Hour)
			r.wantCodes(t, []apikey.Issued{r.old}, apikey.Valid)
			if _, told := r.trail(t); told[audit.RotationDue] != 1 {
				t.Errorf("it was told %d times that somebody must look", told[audit.RotationDue])
			}
			r.once(t, audit.RotationStarted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r *rotating
			begins := func(t *testing.T, bare storetest.Store) {
				r = newRotating(t, bare)
				r.answers = test.answers
				test.before(t, r)
			}
			ends := func(t *testing.T, faulty *storetest.Faulty) {
				r.work(r.on(faulty))
				r.soundLine(t)
				test.after(t, r)
				r.soundLine(t)
			}
			t.Run("memory", func(t *testing.T) {
				storetest.Everywhere(t, storetest.Faults(), func(t *testing.T) storetest.Store {
					begins(t, memory.New())
					return r.bare
				}, func(t *testing.T, _ storetest.Store, faulty *storetest.Faulty) { ends(t, faulty) })
			})
			t.Run("dynamodb", func(t *testing.T) { // where each takes time: its commits alone
				for _, fault := range []storetest.Fault{{Err: storetest.ErrLost}, {Err: storetest.ErrLost, After: true}} {
					begins(t, keytest.OnDynamoDB(t))
					ends(t, storetest.NewFaulty(r.bare, firstCommits(2, fault)))
				}
			})
		})
	}
}

func delivered(t *testing.T, r *rotating) {
	t.Helper()
	r.goesOn(t, 10*time.Minute, 30*time.Minute)
	r.wantCodes(t, []apikey.Issued{r.old, r.parcels[0].New}, apikey.Valid, apikey.Valid)
	r.once(t, audit.RotationStarted, audit.Rotated)
	if r.record(t, r.old.Key.ID).GraceExpiresAt == nil {
		t.Error("the grace has no end")
	}
	if _, told := r.trail(t); told[audit.RotationAbandoned] > 0 {
		t.Error("a delivered key was abandoned")
	}
}

// soundLine demands what holds of a line at every moment: its place is counted once, at most two of its keys live, one of
// them at least, each parcel holds the same key, and no copy of a secret rests that is not to be delivered.
func (r *rotating) soundLine(t *testing.T) {
	t.Helper()
	live, places := 0, int64(0)
	for _, k := range r.records(t) {
		if status := k.StatusAt(r.clock()); status == apikey.Active || status == apikey.Rotated {
			live++
		}
		if k.Counted {
			places++
		}
		kept, err := r.store.Replay(t.Context(), "handover-"+k.ID.String())
		if rests := err == nil && kept.Sealed != nil; rests != (k.Handover != nil) {
			t.Errorf("of %s a copy rests: %v", k.ID, rests)
		}
	}
	if live < 1 || live > 2 || places != 1 || r.scene.count(t) != 1 {
		t.Errorf("%d keys live, %d have a place, the plan counts %d", live, places, r.scene.count(t))
	}
	for _, p := range r.parcels[min(1, len(r.parcels)):] {
		if p.ID != r.parcels[0].ID || p.New.Plaintext.Reveal() != r.parcels[0].New.Plaintext.Reveal() {
			t.Error("two attempts bring two keys")
		}
	}
}
