package secrets_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/deliver"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/memory"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/secrets"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/verify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

const (
	day          = 24 * time.Hour
	organization = "acme:eu|1"
)

// world is a service, and a Secrets Manager that is played, with a clock that tests move.
type world struct {
	*lifecycle.Service
	t        *testing.T
	store    *storetest.Faulty
	bare     storetest.Store
	verifier *verify.Verifier
	aws      *keytest.SecretsManager
	vault    *secrets.Client
	log      bytes.Buffer
	now      time.Time
	fault    func(storetest.Call) storetest.Fault // nil: none
	issued   []string
	failed   int // calls, since failAt
}

func newWorld(t *testing.T) *world {
	t.Helper()
	format, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, bare: memory.New(), aws: keytest.NewSecretsManager(t), now: time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC)}
	w.store = storetest.NewFaulty(w.bare, func(c storetest.Call) storetest.Fault {
		if w.fault == nil {
			return storetest.Fault{}
		}
		return w.fault(c)
	})
	clock := func() time.Time { return w.now }
	w.Service = &lifecycle.Service{Store: w.store, Plans: plan.Default(), Format: format, Now: clock, Seal: seal.NewLocal([32]byte{1}), Secrets: true}
	w.verifier = &verify.Verifier{Store: w.store, Format: format, Now: clock}
	w.vault = w.client(w.aws.URL)
	if _, err := w.AddOrganization(w.admin(), "enterprise", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if what := keytest.Leaked(w.log.String(), w.issued); what != "" || strings.Contains(w.log.String(), keytest.Words) {
			t.Errorf("the log holds what it must not: %s", what)
		}
	})
	return w
}

func (w *world) client(url string) *secrets.Client {
	w.t.Helper()
	c, err := secrets.New(amazon.Access{Endpoint: url, LoopbackOnly: true, AttemptTimeout: 5 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) admin() context.Context {
	return caller.With(context.Background(), caller.Caller{OrganizationID: organization, Kind: caller.Operator, ID: "operator", Scopes: apikey.ManagementScopes()})
}

// key makes a key that may go to Secrets Manager.
func (w *world) key(change func(*lifecycle.New)) apikey.Issued {
	w.t.Helper()
	n := lifecycle.New{ProjectID: "shop", Name: "checkout", RotationToSecretsManager: true}
	if change != nil {
		change(&n)
	}
	issued, err := w.Create(w.admin(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	w.issued = append(w.issued, issued.Plaintext.Reveal())
	return issued
}

// kept is a key whose secret Secrets Manager rotates.
func (w *world) kept() (apikey.Issued, string) {
	w.t.Helper()
	k := w.key(nil)
	name := secrets.Name(organization, k.Key.ID)
	w.aws.Set(name, rand.Text()+"-the-first-version", value(k))
	return k, name
}

func value(k apikey.Issued) string {
	return fmt.Sprintf(`{"key": %q, "key_id": %q}`, k.Plaintext.Reveal(), k.Key.ID)
}

// reads is the key that everybody who reads a secret gets.
func (w *world) reads(name string) string {
	text, _ := w.aws.Value(name)
	return w.keyIn(text)
}

func (w *world) keyIn(text string) string {
	w.t.Helper()
	var v struct{ Key string }
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		w.t.Fatal("a secret's value is no JSON")
	}
	return v.Key
}

// asks is what a door says of a key that is presented.
func (w *world) asks(key string) apikey.Code {
	v := &verify.Verifier{Store: w.bare, Format: w.Format, Now: w.Now}
	return v.Verify(context.Background(), verify.Request{Key: key}).Code
}

func (w *world) rotation() *secrets.Rotation {
	return &secrets.Rotation{Secrets: w.vault, Keys: w.Service, Verifier: w.verifier, Log: slog.New(slog.NewJSONHandler(&w.log, nil))}
}

// step makes one step of a rotation, in so little time that what is lost is soon given up.
func (w *world) step(name, token, step string) error {
	return w.rotation().Step(context.Background(), secrets.Request{SecretID: keytest.ARN(name), Token: token, Step: step})
}

var steps = []string{"createSecret", "setSecret", "testSecret", "finishSecret"}

// rotates makes all steps, which must succeed.
func (w *world) rotates(name, token string) {
	w.t.Helper()
	token = w.aws.Begin(name, token)
	for _, step := range steps {
		if err := w.step(name, token, step); err != nil {
			w.t.Fatalf("%s: %v", step, err)
		}
	}
	w.issued = append(w.issued, w.reads(name))
}

// sweeps does what time has made due.
func (w *world) sweeps() {
	w.t.Helper()
	if done, err := w.Sweep(context.Background(), 1000); err != nil || done.Failed > 0 {
		w.t.Fatalf("sweep: %+v, %v", done, err)
	}
	if done, err := w.deliverer().Run(context.Background(), 1000); err != nil || done.Failed > 0 {
		w.t.Fatalf("deliver: %+v, %v", done, err)
	}
}

func (w *world) deliverer() *deliver.Deliverer {
	return &deliver.Deliverer{Keys: w.Service, Sender: &webhook.Sender{Loopback: true}, Vault: w.vault, Log: slog.New(slog.NewJSONHandler(&w.log, nil)), Clock: w.Now}
}

func (w *world) shown(id apikey.ID) apikey.Key {
	w.t.Helper()
	k, err := w.Get(w.admin(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) record(id apikey.ID) apikey.Record {
	w.t.Helper()
	r, err := w.bare.Key(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// told counts the trail's entries by action.
func (w *world) told() map[audit.Action]int {
	w.t.Helper()
	entries, _, err := w.Audit(w.admin(), lifecycle.AuditFilter{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	n := map[audit.Action]int{}
	for _, e := range entries {
		n[e.Action]++
	}
	return n
}

// token is one that Secrets Manager might give.
func token(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// failAt has the n-th call from now on fail, before it takes effect or after; of Secrets Manager with it the two that the SDK
// tries again. failed counts what failed.
func (w *world) failAt(who string, n int, after bool) {
	w.failed = 0
	if who == "the store" {
		at := 0
		w.fault = func(storetest.Call) storetest.Fault {
			if at++; at != n {
				return storetest.Fault{}
			}
			w.failed++
			return storetest.Fault{Err: storetest.ErrLost, After: after}
		}
		return
	}
	at := 0
	w.aws.Fail(func(string) keytest.SecretsFault {
		if at++; at < n || at > n+2 { // three attempts, as the SDK makes
			return keytest.SecretsFault{}
		}
		w.failed++
		return keytest.SecretsFault{Lost: true, After: after}
	})
}

// looks is what a door would say of a key, which is not thereby used.
func (w *world) looks(key string) apikey.Code {
	v := &verify.Verifier{Store: w.bare, Format: w.Format, Now: w.Now}
	return v.Look(context.Background(), key, organization).Code
}

// summed is a key with the checksum that belongs to the rest of it.
func summed(key string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	rest, sum, digits := key[:len(key)-6], crc32.ChecksumIEEE([]byte(key[:len(key)-6])), make([]byte, 6)
	for i := range digits {
		digits[5-i] = alphabet[sum%62]
		sum /= 62
	}
	return rest + string(digits)
}

// failOn has every request of an action lost, before it takes effect or after.
func (w *world) failOn(action string, after bool) {
	w.aws.Fail(func(asked string) keytest.SecretsFault {
		return keytest.SecretsFault{Lost: asked == action, After: after}
	})
}
