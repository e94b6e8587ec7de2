package functions_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// scheduled are the functions that a clock starts. They serve no route, and whatever event comes is a start.
var scheduled = map[string]bool{"sweep": true, "deliver": true}

// runTime is what the template gives a run.
const runTime = 55 * time.Second

// tick is the event that a schedule starts a function with.
func tick(t testing.TB, name string) any {
	t.Helper()
	event, err := os.ReadFile(name + "/event.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(event) {
		t.Fatalf("%s/event.json is no JSON", name)
	}
	return json.RawMessage(event)
}

// run starts a function by its schedule. What fails, fails the test.
func (f *function) run() {
	f.t.Helper()
	if r := f.invokeWithin(runTime, tick(f.t, f.name)); string(r.answer) != "null" || r.failed != "" {
		f.t.Errorf("%s answers %q, error %q", f.name, r.answer, r.failed)
	}
}

// yesterday is the service as it was 25 hours ago, when nothing was due yet.
func (d deployed) yesterday(t *testing.T) deployed {
	t.Helper()
	a, err := app.New(d.app.Store, app.Settings{Brand: "lk"}, func() time.Time { return time.Now().Add(-25 * time.Hour) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.app = a
	return d
}

// told is what the trail says of the keys that are now there, and how many count.
func (d deployed) told(t *testing.T) (actions []string, active int64) {
	t.Helper()
	entries, _, err := d.app.Keys.Audit(d.operator(), lifecycle.AuditFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		actions = append(actions, string(e.Action))
	}
	o, err := d.app.Keys.OwnOrganization(d.operator())
	if err != nil {
		t.Fatal(err)
	}
	return actions, o.ActiveKeys
}

// aKey is how every key begins, up to its secret.
var aKey = regexp.MustCompile(`lk_live_[0-9A-Za-z]{8}_`)

// An event that comes twice, or to two at once, changes nothing twice.
func TestWhatIsDueIsDoneOnceByTheFunctionsOfTheSchedule(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	before := d.yesterday(t)
	rotating := before.key(t, lifecycle.New{Name: "rotating", RotationIntervalDays: new(1), RotationWebhookURL: new("https://192.0.2.1/keys")})
	expired := before.key(t, lifecycle.New{Name: "expired", ExpiresAt: &lifecycle.Moment{Time: time.Now().Add(-time.Hour)}})
	functions := map[string][]*function{}
	for name := range scheduled {
		functions[name] = []*function{start(t, name, d.environment...), start(t, name, d.environment...)}
	}

	for range 2 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			functions["sweep"][1].run()
		}()
		functions["sweep"][0].run()
		<-done
	}
	actions, active := d.told(t)
	for action, want := range map[string]int{"api_key.rotation_started": 1, "api_key.expired": 1} {
		if n := strings.Count(strings.Join(actions, " "), action); n != want {
			t.Errorf("%d entries of %s in %v", n, action, actions)
		}
	}
	if active != 1 {
		t.Errorf("%d keys count: the expired one's place is not free, or the rotation took another", active)
	}

	for _, f := range slices.Concat(functions["deliver"], functions["deliver"]) {
		f.run()
	}
	if after, _ := d.told(t); len(after) > len(actions)+1 { // the organization's signing secret was made
		t.Errorf("a delivery that failed is told of: %v", after)
	}
	attempts := 0
	for name := range scheduled {
		for _, f := range functions[name] {
			printed := f.output()
			attempts += strings.Count(printed, `"attempt":1,`)
			if what := keytest.Leaked(printed, []string{rotating, expired}); what != "" || aKey.MatchString(printed) || strings.Contains(printed, "whsec_") {
				t.Errorf("%s printed a secret: %s", name, what)
			}
		}
	}
	if attempts != 1 {
		t.Errorf("the first attempt to deliver was made %d times", attempts)
	}
}

// A run that cannot do its work is an error in time, which Lambda tries again and then puts into the queue of failures.
func TestARunWithoutAStoreIsAnErrorInTime(t *testing.T) {
	d := deploy(t)
	store, environment := hidden(t, d)
	for name := range scheduled {
		f := start(t, name, environment...)
		f.run()
		store.silent.Store(true)
		if r := f.invokeWithin(700*time.Millisecond, tick(t, name)); r.failed == "" {
			t.Errorf("%s answers %q", name, r.answer)
		}
		store.silent.Store(false)
		f.run()
	}
}
