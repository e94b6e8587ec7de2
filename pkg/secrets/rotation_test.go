package secrets_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/secrets"
	"github.com/latchkey/latchkey/pkg/storetest"
)

func TestSecretsManagerRotatesAKeyAgainAndAgainUnderOneName(t *testing.T) {
	w := newWorld(t)
	first, name := w.kept()
	old := first
	for n := range 3 {
		w.rotates(name, token(n))
		key := w.reads(name)
		k := w.shown(old.Key.ID)
		if k.ReplacedByKeyID == nil || k.GraceExpiresAt == nil || !k.GraceExpiresAt.Equal(w.now.Add(7*day)) {
			t.Fatalf("the old key: %+v", k)
		}
		next := w.record(*k.ReplacedByKeyID)
		if key == old.Plaintext.Reveal() || w.asks(key) != apikey.Valid || w.asks(old.Plaintext.Reveal()) != apikey.Valid || next.Line() != first.Key.ID || next.Handover != nil {
			t.Fatalf("the new key: %s, %+v", w.asks(key), next)
		}
		text, _ := w.aws.Value(name)
		if want := `{"key":"` + key + `","key_id":"` + next.ID.String() + `","key_prefix":"` + next.KeyPrefix + `","organization_id":"` + organization + `"}`; text != want {
			t.Fatal("the value has another form")
		}
		if w.aws.Pending(name) != "" {
			t.Fatal("the stage of what is prepared stays")
		}
		old = apikey.Issued{Key: next.Key, Plaintext: apikey.NewPlaintext(key)}
		w.now = w.now.Add(8 * day)
		w.sweeps()
	}
	if told := w.told(); told[audit.RotationStarted] != 3 || told[audit.Rotated] != 3 || told[audit.RotationCompleted] != 3 || told[audit.RotationDue] != 0 {
		t.Errorf("%v", told)
	}
	if w.asks(first.Plaintext.Reveal()) != apikey.ExpiredKey {
		t.Error("the first key outlived its cap")
	}
}

// What tests a key must not debit it, or pass for its use, which would end the old key early.
func TestATestOfTheNewKeyLeavesNoTraceOnIt(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	w.rotates(name, token(1))
	if r := w.record(*w.shown(k.Key.ID).ReplacedByKeyID); r.LastUsedAt != nil || len(r.Counts) > 0 {
		t.Errorf("%+v", r)
	}
}

func TestOnlyAKeyThatBelongsIntoItsSecretIsRotated(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	other := w.key(nil)
	unmeant := w.key(func(n *lifecycle.New) { n.RotationToSecretsManager = false })
	stranger := w.Format.Mint("").Plaintext.Reveal()
	revoked, archived := w.key(nil), w.key(nil)
	if err := w.Revoke(w.admin(), revoked.Key.ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Archive(w.admin(), archived.Key.ID); err != nil {
		t.Fatal(err)
	}
	forged := summed(k.Plaintext.Reveal()[:16] + stranger[16:]) // the id of one, the secret of another
	for why, row := range map[string]struct{ name, value, says string }{
		"no name of ours":      {"other/acme/key_00000001", value(k), "is not named latchkey/"},
		"no line":              {"latchkey/acme/checkout", value(k), "is not named latchkey/"},
		"deeper":               {name + "/more", value(k), "is not named latchkey/"},
		"another line":         {name, value(other), "belongs into the secret that is named after " + other.Key.ID.String()},
		"another organization": {secrets.Name("globex", k.Key.ID), value(k), "no key of the organization"},
		"a stranger":           {name, `{"key": "` + stranger + `"}`, "no key of the organization"},
		"forged":               {name, `{"key": "` + forged + `"}`, "no key of the organization"},
		"no key":               {name, `{"key": "hunter2"}`, "no key of this service"},
		"no object":            {name, k.Plaintext.Reveal(), `with the member "key"`},
		"nothing":              {name, `{}`, `with the member "key"`},
		"not meant for it":     {secrets.Name(organization, unmeant.Key.ID), value(unmeant), "not meant for Secrets Manager"},
		"revoked":              {secrets.Name(organization, revoked.Key.ID), value(revoked), "revoked"},
		"archived":             {secrets.Name(organization, archived.Key.ID), value(archived), "archived"},
	} {
		w.aws.Set(row.name, token(1000), row.value)
		at := w.aws.Begin(row.name, token(2000))
		before := w.told()
		err := w.step(row.name, at, "createSecret")
		if err == nil || !strings.Contains(err.Error(), row.says) || keytest.Leaked(err.Error(), append(w.issued, stranger, forged)) != "" {
			t.Errorf("%s: %v", why, err)
		}
		if w.aws.Pending(row.name) != "" || w.told()[audit.RotationStarted] != before[audit.RotationStarted] {
			t.Errorf("%s: it is rotated", why)
		}
		w.aws.Cancel(row.name)
	}
}

func TestAStepWhoseTimeIsNotNowChangesNothing(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	for _, step := range steps {
		if err := w.step(name, token(1), step); err == nil || !strings.Contains(err.Error(), "not set up to be rotated") {
			t.Errorf("%s without a rotation: %v", step, err)
		}
	}
	at := w.aws.Begin(name, token(1))
	for _, step := range []string{"setSecret", "testSecret", "finishSecret"} {
		if err := w.step(name, at, step); err == nil || !strings.Contains(err.Error(), "prepared no key yet") {
			t.Errorf("%s before createSecret: %v", step, err)
		}
	}
	for says, ask := range map[string][2]string{"no such version": {token(9), "createSecret"}, "no such step": {at, "dropSecret"}} {
		if err := w.step(name, ask[0], ask[1]); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v", ask, err)
		}
	}
	if w.reads(name) != k.Plaintext.Reveal() || w.told()[audit.RotationStarted] != 0 {
		t.Fatal("something was changed")
	}
	w.rotates(name, token(1))
	w.now = w.now.Add(8 * day)
	w.sweeps()
	w.rotates(name, token(2))
	reads := w.reads(name)
	for _, step := range steps {
		if err := w.step(name, at, step); err == nil || w.reads(name) != reads {
			t.Errorf("%s of the rotation before: %v", step, err)
		}
	}
}

func TestARotationThatIsAskedForAgainIsTheSame(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	at := w.aws.Begin(name, token(1))
	for range 3 {
		if err := w.step(name, at, "createSecret"); err != nil {
			t.Fatal(err)
		}
	}
	prepared := w.aws.Pending(name)
	w.aws.Cancel(name) // a person gave it up, and Secrets Manager begins anew
	w.now = w.now.Add(5 * day)
	w.sweeps()
	at = w.aws.Begin(name, token(2))
	if err := w.step(name, at, "createSecret"); err != nil {
		t.Fatal(err)
	}
	if w.aws.Pending(name) != prepared || prepared == "" {
		t.Fatal("it is another successor")
	}
	w.rotates(name, at)
	if told := w.told(); told[audit.RotationStarted] != 1 || told[audit.Rotated] != 1 || told[audit.RotationDue] != 1 {
		t.Errorf("%v", told)
	}
	if w.asks(k.Plaintext.Reveal()) != apikey.Valid {
		t.Error("the old key was ended")
	}
}

func TestARotationWaitsForAnotherOfTheSameLine(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	w.rotates(name, token(1))
	at := w.aws.Begin(name, token(2))
	if err := w.step(name, at, "createSecret"); apikey.CodeOf(err) != apikey.RotationInProgress || !strings.Contains(err.Error(), k.Key.ID.String()) {
		t.Errorf("in a grace: %v", err)
	}
	w.now = w.now.Add(7*day + 3*time.Minute)
	w.rotates(name, at)

	byHand, name := w.kept()
	if _, err := w.Rotate(w.admin(), byHand.Key.ID, nil); err != nil {
		t.Fatal(err)
	}
	at = w.aws.Begin(name, token(1))
	if err := w.step(name, at, "createSecret"); apikey.CodeOf(err) != apikey.AlreadyRotated {
		t.Errorf("after a rotation by hand: %v", err)
	}

	scheduled := w.key(func(n *lifecycle.New) { n.RotationIntervalDays = new(1) })
	name = secrets.Name(organization, scheduled.Key.ID)
	w.aws.Set(name, token(100), value(scheduled))
	at = w.aws.Begin(name, token(1))
	w.now = w.now.Add(day)
	if _, err := w.Sweep(context.Background(), 100); err != nil {
		t.Fatal(err)
	}
	if err := w.step(name, at, "createSecret"); apikey.CodeOf(err) != apikey.RotationInProgress {
		t.Errorf("while Latchkey delivers: %v", err)
	}
}

// Somebody has looked at the successor that is prepared, and used it. All others still get the old key.
func TestASuccessorThatIsUsedBeforeTheSecretGivesItEndsNothing(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	at := w.aws.Begin(name, token(1))
	if err := w.step(name, at, "createSecret"); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if code := w.asks(w.keyIn(w.aws.Pending(name))); code != apikey.Valid {
			t.Fatalf("the successor is %s", code)
		}
		w.now = w.now.Add(day)
		w.sweeps()
	}
	if w.asks(k.Plaintext.Reveal()) != apikey.Valid || w.shown(k.Key.ID).GraceExpiresAt != nil {
		t.Fatal("the old key has an end")
	}
	if told := w.told(); told[audit.RotationDue] < 10 || told[audit.RotationAbandoned] != 0 {
		t.Errorf("%v", told)
	}
	w.rotates(name, at) // it is there already, so that nothing needs to be opened that is gone by now
}

// Whoever gives the successor an address meanwhile does not have it sent there: who reads the secret gets the old key still.
func TestWhatIsPreparedForASecretGoesNowhereElse(t *testing.T) {
	w := newWorld(t)
	hook := &receiver{status: http.StatusOK}
	server := httptest.NewServer(hook)
	defer server.Close()
	w.LoopbackWebhooks = true
	k, name := w.kept()
	at := w.aws.Begin(name, token(1))
	if err := w.step(name, at, "createSecret"); err != nil {
		t.Fatal(err)
	}
	next := *w.shown(k.Key.ID).ReplacedByKeyID
	for _, toSecrets := range []bool{true, false} {
		address := lifecycle.Maybe[string]{Said: true, V: new(fmt.Sprintf("%s/%v", server.URL, toSecrets))}
		if _, err := w.Update(w.admin(), next, 0, lifecycle.Patch{RotationWebhookURL: address, RotationToSecretsManager: &toSecrets}); err != nil {
			t.Fatal(err)
		}
		w.silence(name)
		if len(hook.got) > 0 || w.reads(name) != k.Plaintext.Reveal() || w.shown(k.Key.ID).GraceExpiresAt != nil {
			t.Fatalf("to secrets %v: %d notices, the old key's end is %v", toSecrets, len(hook.got), w.shown(k.Key.ID).GraceExpiresAt)
		}
	}
	w.rotates(name, at)
	if w.asks(k.Plaintext.Reveal()) != apikey.Valid || w.shown(k.Key.ID).GraceExpiresAt == nil {
		t.Error("the rotation did not come to its end")
	}
}

// A rotation's version may be filled by hand: what is there is not taken for what it should be.
func TestOnlyAKeyThatMayStayBecomesTheSecretsKey(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	replaced, _ := w.kept()
	if _, err := w.Rotate(w.admin(), replaced.Key.ID, nil); err != nil {
		t.Fatal(err)
	}
	for says, prepared := range map[string]struct {
		name string
		key  apikey.Issued
	}{
		"belongs into the secret that is named after": {name, replaced},
		"that the rotation prepared is rotated":       {secrets.Name(organization, replaced.Key.ID), replaced},
	} {
		reads := w.reads(prepared.name)
		at := w.aws.Begin(prepared.name, token(1))
		w.aws.Prepare(prepared.name, value(prepared.key))
		for _, step := range []string{"testSecret", "finishSecret"} {
			if err := w.step(prepared.name, at, step); err == nil || !strings.Contains(err.Error(), says) || w.reads(prepared.name) != reads {
				t.Errorf("%s: %v, want %q", step, err, says)
			}
		}
		w.aws.Cancel(prepared.name)
	}
	w.rotates(name, token(2))
	if w.asks(k.Plaintext.Reveal()) != apikey.Valid {
		t.Error("the old key was ended")
	}
}

func TestARevokedSuccessorDoesNotBecomeTheSecretsKey(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	at := w.aws.Begin(name, token(1))
	if err := w.step(name, at, "createSecret"); err != nil {
		t.Fatal(err)
	}
	if err := w.Revoke(w.admin(), *w.shown(k.Key.ID).ReplacedByKeyID, ""); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps[1:] {
		if err := w.step(name, at, step); err == nil || !strings.Contains(err.Error(), "AWSPENDING") {
			t.Errorf("%s: %v", step, err)
		}
	}
	if w.reads(name) != k.Plaintext.Reveal() || w.asks(k.Plaintext.Reveal()) != apikey.Valid {
		t.Fatal("the secret's key is not what it was")
	}
	w.aws.Cancel(name)
	w.rotates(name, token(2))
}

// The last write of all is lost, and the step never repeated: both keys live, and the next rotation makes up for it.
func TestTheNextRotationEndsOneWhoseEndWasLost(t *testing.T) {
	w := newWorld(t)
	k, name := w.kept()
	at := w.aws.Begin(name, token(1))
	for _, step := range steps[:3] {
		if err := w.step(name, at, step); err != nil {
			t.Fatal(err)
		}
	}
	w.fault = storetest.Always("Commit", storetest.Fault{Err: storetest.ErrLost})
	soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := w.rotation().Step(soon, secrets.Request{SecretID: keytest.ARN(name), Token: at, Step: "finishSecret"}); err == nil {
		t.Fatal("it says that it is done")
	}
	w.fault = nil
	if w.reads(name) == k.Plaintext.Reveal() {
		t.Fatal("it was not moved")
	}
	for range 30 {
		w.now = w.now.Add(day)
		w.sweeps()
		if w.asks(w.reads(name)) != apikey.Valid || w.asks(k.Plaintext.Reveal()) != apikey.Valid {
			t.Fatal("a key has ended")
		}
	}
	at = w.aws.Begin(name, token(2))
	if err := w.step(name, at, "createSecret"); apikey.CodeOf(err) != apikey.RotationInProgress {
		t.Fatal(err)
	}
	if w.shown(k.Key.ID).GraceExpiresAt == nil {
		t.Fatal("the rotation before is not over")
	}
	w.now = w.now.Add(8 * day)
	w.rotates(name, at)
}

// Every request to Secrets Manager and every call of the store of a rotation fails once, before it took effect or after, and
// Secrets Manager tries again.
func TestARotationThatFailsAnywhereIsMadeGoodByItsRepetition(t *testing.T) {
	for _, who := range []string{"Secrets Manager", "the store"} {
		for n, fails := 1, true; fails; n++ {
			for _, after := range []bool{false, true} {
				w := newWorld(t)
				k, name := w.kept()
				at := w.aws.Begin(name, token(1))
				w.failAt(who, n, after)
				for try := 0; try < 12 && w.walk(k, name, at) != nil; try++ {
					w.now = w.now.Add(time.Hour)
					w.sweeps()
				}
				w.aws.Fail(nil)
				w.fault = nil
				if err := w.walk(k, name, at); err != nil {
					t.Errorf("%s, call %d, after %v: %v", who, n, after, err)
				}
				if told := w.told(); told[audit.RotationStarted] != 1 || told[audit.Rotated] != 1 {
					t.Errorf("%s, call %d, after %v: %v", who, n, after, told)
				}
				fails = w.failed > 0
			}
			if n > 200 {
				t.Fatal("it does not end")
			}
		}
	}
}

// walk makes the steps until one fails. At each moment the secret's key and the old one are accepted.
func (w *world) walk(k apikey.Issued, name, at string) error {
	w.t.Helper()
	for _, step := range steps {
		err := w.step(name, at, step)
		w.accepted(name)
		if w.asks(k.Plaintext.Reveal()) != apikey.Valid {
			w.t.Errorf("the old key has ended after %s", step)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// accepted demands that whoever reads the secret is let in.
func (w *world) accepted(name string) {
	w.t.Helper()
	v := w.reads(name)
	if code := w.looks(v); code != apikey.Valid {
		w.t.Errorf("at %v the secret gives a key that is %s", w.now, code)
	}
}

// TestNobodyWhoReadsTheSecretIsEverRefused is the property: steps come in any order, twice, late, at once, of rotations long
// over; requests and answers are lost; processes die; time jumps over every end that there is.
func TestNobodyWhoReadsTheSecretIsEverRefused(t *testing.T) {
	walks, length := 60, 80
	if testing.Short() {
		walks = 10
	}
	finished := make([]int, walks)
	t.Run("walk", func(t *testing.T) {
		for seed := range walks {
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				t.Parallel()
				finished[seed] = newWorld(t).wander(rand.New(rand.NewPCG(uint64(seed), 7)), length)
			})
		}
	})
	all := 0
	for _, n := range finished {
		all += n
	}
	t.Logf("%d rotations came to their end in %d walks", all, walks)
	if all < walks {
		t.Error("the walks see too little")
	}
}

// wander does so many things at random, and returns how many rotations came to their end.
func (w *world) wander(random *rand.Rand, length int) int {
	_, name := w.kept()
	tokens := []string{w.aws.Begin(name, token(1))}
	for n := range length {
		w.randomly(random, name, &tokens, n+2)
		w.accepted(name)
		if w.t.Failed() {
			w.t.Fatalf("at step %d", n)
		}
	}
	w.aws.Fail(nil)
	w.fault = nil
	if w.told()[audit.RotationAbandoned] != 0 {
		w.t.Error("a rotation was abandoned")
	}
	return w.told()[audit.Rotated]
}

func (w *world) randomly(random *rand.Rand, name string, tokens *[]string, n int) {
	w.t.Helper()
	switch random.IntN(13) {
	case 0: // a failure ahead, of either side
		switch random.IntN(3) {
		case 0:
			w.failAt("Secrets Manager", 1+random.IntN(14), random.IntN(2) == 0)
		case 1:
			w.failAt("the store", 1+random.IntN(20), random.IntN(2) == 0)
		default:
			w.failOn([]string{"PutSecretValue", "GetSecretValue", "UpdateSecretVersionStage"}[random.IntN(3)], random.IntN(2) == 0)
		}
	case 1:
		w.now = w.now.Add([]time.Duration{time.Minute, time.Hour, day, 3 * day, 7*day + time.Minute, 40 * day}[random.IntN(6)])
	case 2, 3: // a scheduler that is not always well
		w.fault = nil
		w.aws.Fail(nil)
		w.sweeps()
	case 4: // people use what they read, and what is prepared
		w.asks(w.reads(name))
		if text := w.aws.Pending(name); text != "" && random.IntN(3) == 0 {
			w.asks(w.keyIn(text))
		}
	case 5:
		if random.IntN(3) == 0 {
			w.aws.Cancel(name)
		}
		if t := w.aws.Begin(name, token(n)); !slices.Contains(*tokens, t) {
			*tokens = append(*tokens, t)
		}
	case 6:
		w.silence(name)
	case 7: // one that comes late
		_ = w.step(name, (*tokens)[random.IntN(len(*tokens))], steps[random.IntN(4)])
	default:
		last := (*tokens)[len(*tokens)-1]
		if random.IntN(2) == 0 {
			_ = w.step(name, last, steps[random.IntN(4)])
			return
		}
		for _, step := range steps {
			failed := w.step(name, last, step) != nil
			if failed && random.IntN(3) == 0 { // and that is the last that is heard of it
				w.silence(name)
			}
			if failed || random.IntN(6) == 0 {
				return
			}
		}
	}
}

// silence is three weeks in which no step is asked for, and all else is well.
func (w *world) silence(name string) {
	w.t.Helper()
	w.fault = nil
	w.aws.Fail(nil)
	for range 21 {
		w.now = w.now.Add(day)
		w.sweeps()
		w.accepted(name)
	}
}
