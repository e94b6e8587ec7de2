package secrets_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/secrets"
)

func TestEveryLineOfEveryOrganizationHasASecretOfItsOwn(t *testing.T) {
	valid := regexp.MustCompile(`^latchkey/[A-Za-z0-9_+=.@-]{1,384}/key_[A-Za-z0-9]{8}$`) // AWS: 512 characters of A-Za-z0-9/_+=.@-
	seen := map[string]string{}
	for _, id := range []string{"acme", "acme:", "acme|", "acme:|", "acme3A", "acme7C", "acme.3A", ":", "|", "a:b|c@d.e+f-g_h", strings.Repeat(":", 128)} {
		name := secrets.Name(id, 7)
		if !apikey.ValidID(id) || !valid.MatchString(name) || len(name) > 512 {
			t.Errorf("%q has the secret %q", id, name)
		}
		if other, there := seen[name]; there {
			t.Errorf("%q and %q share %s", id, other, name)
		}
		seen[name] = id
	}
	if got, want := secrets.Name("acme:eu|1", 7), "latchkey/acme=3Aeu=7C1/key_00000007"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// scheduled is a key that Latchkey rotates every day and puts into its secret.
func (w *world) scheduled(change func(*lifecycle.New)) (apikey.Issued, string) {
	k := w.key(func(n *lifecycle.New) {
		n.RotationIntervalDays = new(1)
		if change != nil {
			change(n)
		}
	})
	return k, secrets.Name(organization, k.Key.ID)
}

func TestAKeyThatRotatesByScheduleIsPutIntoItsSecretUnderOneName(t *testing.T) {
	w := newWorld(t)
	first, name := w.scheduled(nil)
	old := first
	for range 3 {
		w.now = w.now.Add(9 * day)
		w.sweeps()
		key := w.reads(name)
		k := w.shown(old.Key.ID)
		if k.ReplacedByKeyID == nil || k.GraceExpiresAt == nil || !k.GraceExpiresAt.Equal(w.now.Add(7*day)) || w.asks(key) != apikey.Valid {
			t.Fatalf("%+v", k)
		}
		w.issued = append(w.issued, key)
		old.Key.ID = *k.ReplacedByKeyID
	}
	_, tags := w.aws.Value(name)
	if tags["latchkey:line"] != first.Key.ID.String() || tags["latchkey:organization"] != "acme=3Aeu=7C1" {
		t.Errorf("%v", tags)
	}
	if got := strings.Join(w.aws.Asked(), " "); got != "PutSecretValue CreateSecret PutSecretValue PutSecretValue" {
		t.Errorf("Secrets Manager was asked to %s", got)
	}
}

func TestWithoutSecretsManagerAKeyForItIsAReminder(t *testing.T) {
	w := newWorld(t)
	w.Secrets = false
	k, _ := w.scheduled(nil)
	w.now = w.now.Add(2 * day)
	w.sweeps()
	if told := w.told(); w.shown(k.Key.ID).ReplacedByKeyID != nil || told[audit.RotationDue] != 1 || len(w.aws.Asked()) > 0 {
		t.Errorf("%v", told)
	}
	w.Secrets = true // the deployment is set up for it later
	w.now = w.now.Add(91 * day)
	if _, err := w.Update(w.admin(), k.Key.ID, 0, lifecycle.Patch{Name: new("looked at")}); err != nil {
		t.Fatal(err)
	}
	w.sweeps()
	if w.shown(k.Key.ID).GraceExpiresAt == nil {
		t.Error("it is not rotated")
	}
}

// parcel is a successor on its way.
func (w *world) parcel() (p lifecycle.Parcel, name string) {
	w.t.Helper()
	_, name = w.scheduled(nil)
	w.now = w.now.Add(day)
	if _, err := w.Sweep(context.Background(), 100); err != nil {
		w.t.Fatal(err)
	}
	_, err := w.Deliver(context.Background(), 100, func(_ context.Context, got lifecycle.Parcel) lifecycle.Attempt {
		p = got
		return lifecycle.Missed
	})
	if err != nil || p.ID == "" {
		w.t.Fatalf("nothing is on its way, %v", err)
	}
	w.issued = append(w.issued, p.New.Plaintext.Reveal())
	return p, name
}

func TestWhatSecretsManagerAnswersSaysWhatBecameOfAKey(t *testing.T) {
	on := func(action string, f keytest.SecretsFault) func(string) keytest.SecretsFault {
		return func(asked string) keytest.SecretsFault {
			if asked == action {
				return f
			}
			return keytest.SecretsFault{}
		}
	}
	refused := func(code string, status int) keytest.SecretsFault {
		return keytest.SecretsFault{Code: code, Status: status}
	}
	for name, row := range map[string]struct {
		fault func(string) keytest.SecretsFault
		want  lifecycle.Attempt
		says  string
	}{
		"taken":                  {nil, lifecycle.Delivered, ""},
		"no right to put":        {on("PutSecretValue", refused("AccessDeniedException", 400)), lifecycle.Missed, "AccessDeniedException"},
		"no right to create":     {on("CreateSecret", refused("AccessDeniedException", 403)), lifecycle.Missed, "AccessDeniedException"},
		"scheduled for deletion": {on("PutSecretValue", refused("InvalidRequestException", 400)), lifecycle.Missed, "scheduled for deletion"},
		"its name is being gone": {on("CreateSecret", refused("InvalidRequestException", 400)), lifecycle.Missed, "scheduled for deletion"},
		"a key of KMS is away":   {on("PutSecretValue", refused("EncryptionFailure", 400)), lifecycle.Missed, "EncryptionFailure"},
		"too many versions":      {on("CreateSecret", refused("LimitExceededException", 400)), lifecycle.Missed, "LimitExceededException"},
		"throttled":              {on("PutSecretValue", refused("ThrottlingException", 400)), lifecycle.Doubtful, "ThrottlingException"},
		"too many requests":      {on("CreateSecret", refused("TooManyRequestsException", 429)), lifecycle.Doubtful, "TooManyRequestsException"},
		"it fails":               {on("PutSecretValue", refused("InternalServiceError", 500)), lifecycle.Doubtful, "InternalServiceError"},
		"it is away":             {on("CreateSecret", refused("ServiceUnavailable", 503)), lifecycle.Doubtful, "ServiceUnavailable"},
		"an answer is lost":      {on("PutSecretValue", keytest.SecretsFault{Lost: true, After: true}), lifecycle.Doubtful, "no answer"},
		"a request is lost":      {on("CreateSecret", keytest.SecretsFault{Lost: true}), lifecycle.Doubtful, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, secret := w.parcel()
			if strings.Contains(name, "answer is lost") {
				w.aws.Set(secret, token(1), "{}")
			}
			w.aws.Fail(row.fault)
			got, err := w.vault.Put(t.Context(), p)
			if got != row.want || (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s, %v; want %s, %q", got, err, row.want, row.says)
			}
			if err != nil && (strings.Contains(err.Error(), keytest.Words) || keytest.Leaked(err.Error(), w.issued) != "") {
				t.Error("the error repeats what it must not")
			}
			for action, n := range count(w.aws.Asked()) {
				if n > 1 {
					t.Errorf("%s was asked for %d times: then an outcome is not one attempt's", action, n)
				}
			}
			w.aws.Fail(nil)
			if again, err := w.vault.Put(t.Context(), p); again != lifecycle.Delivered || w.reads(secret) != p.New.Plaintext.Reveal() {
				t.Errorf("put again: %s, %v", again, err)
			}
		})
	}
}

func count(list []string) map[string]int {
	n := map[string]int{}
	for _, s := range list {
		n[s]++
	}
	return n
}

func TestAnEndpointThatIsNotSecretsManagerLeavesDoubtOnlyWhereItWasReached(t *testing.T) {
	w := newWorld(t)
	p, _ := w.parcel()
	var proxies []string // they answer by themselves, after whatever they did
	for _, says := range []string{"<h1>no</h1>", `{"message": "no"}`, ""} {
		proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(rw, says)
		}))
		defer proxy.Close()
		proxies = append(proxies, proxy.URL)
	}
	mute := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer mute.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	_ = l.Close()
	for url, want := range map[string]lifecycle.Attempt{proxies[0]: lifecycle.Doubtful, proxies[1]: lifecycle.Doubtful,
		proxies[2]: lifecycle.Doubtful, mute.URL: lifecycle.Doubtful, nobody: lifecycle.Missed} {
		c, err := secrets.New(amazon.Access{Endpoint: url, LoopbackOnly: true, AttemptTimeout: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Put(t.Context(), p); got != want || err == nil {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

// A person moved AWSCURRENT back to an older version, perhaps since the new one does not work for them.
func TestAKeyIsNotDeliveredWhereOthersReadAnotherVersion(t *testing.T) {
	w := newWorld(t)
	p, name := w.parcel()
	if how, err := w.vault.Put(t.Context(), p); how != lifecycle.Delivered {
		t.Fatal(how, err)
	}
	w.aws.Set(name, token(1), `{"key": "older"}`)
	if how, err := w.vault.Put(t.Context(), p); how != lifecycle.Doubtful || err == nil || w.reads(name) != "older" {
		t.Errorf("%s, %v", how, err)
	}
}

// The answer was lost, somebody used the new key, and a person moved AWSCURRENT back. All others read the old key.
func TestUseOfAKeyThatItsSecretDoesNotGiveEndsNothing(t *testing.T) {
	w := newWorld(t)
	k, name := w.scheduled(nil)
	w.aws.Set(name, token(1), value(k))
	w.now = w.now.Add(day)
	w.failOn("PutSecretValue", true)
	w.sweeps()
	w.aws.Fail(nil)
	if next := w.reads(name); next == k.Plaintext.Reveal() || w.asks(next) != apikey.Valid {
		t.Fatal("the new key is not there, or not accepted")
	}
	w.aws.Set(name, token(1), value(k))
	w.silence(name)
	if w.shown(k.Key.ID).GraceExpiresAt != nil || w.told()[audit.RotationDue] == 0 {
		t.Error("the old key has an end, or nobody was told that its rotation waits")
	}
}

func TestASecretThatAppearsMeanwhileIsFilled(t *testing.T) {
	w := newWorld(t)
	p, name := w.parcel()
	w.aws.Set(name, token(1), "{}")
	asked := 0
	w.aws.Fail(func(string) keytest.SecretsFault {
		if asked++; asked == 1 { // it was not there yet
			return keytest.SecretsFault{Code: "ResourceNotFoundException"}
		}
		return keytest.SecretsFault{}
	})
	if how, err := w.vault.Put(t.Context(), p); how != lifecycle.Delivered || w.reads(name) != p.New.Plaintext.Reveal() {
		t.Errorf("%s, %v", how, err)
	}
}

// receiver takes notices as it is told to.
type receiver struct {
	status int
	got    []string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var notice struct{ Data struct{ Key string } }
	_ = json.NewDecoder(req.Body).Decode(&notice)
	r.got = append(r.got, notice.Data.Key)
	w.WriteHeader(r.status)
}

func TestOfTwoReceiversBothMustHaveTheKey(t *testing.T) {
	for name, row := range map[string]struct {
		secret, webhook             bool // that it is taken there
		status                      int
		reaches, delivered, inDoubt bool
	}{
		"both take it":              {true, true, 200, true, true, false},
		"the webhook does not":      {true, false, 500, true, false, true},
		"the webhook certainly not": {true, false, 404, true, false, true},
		"the webhook is gone":       {true, false, 410, true, false, true},
		"the secret does not":       {false, false, 200, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			hook := &receiver{status: row.status}
			server := httptest.NewServer(hook)
			defer server.Close()
			w.LoopbackWebhooks = true
			k, secret := w.scheduled(func(n *lifecycle.New) { n.RotationWebhookURL = new(server.URL) })
			w.aws.Set(secret, token(1), value(k))
			if !row.secret {
				w.aws.Fail(func(string) keytest.SecretsFault { return keytest.SecretsFault{Code: "AccessDeniedException"} })
			}
			w.now = w.now.Add(day)
			w.sweeps()
			old := w.record(k.Key.ID)
			next := w.record(*old.ReplacedByKeyID)
			if got := len(hook.got) > 0; got != row.reaches {
				t.Errorf("the webhook was reached: %v", got)
			}
			if delivered := old.GraceExpiresAt != nil; delivered != row.delivered {
				t.Errorf("delivered: %v", delivered)
			}
			if doubt := next.Handover != nil && next.Handover.Doubt; doubt != row.inDoubt {
				t.Errorf("in doubt: %v", doubt)
			}
			if len(hook.got) > 0 && (w.reads(secret) != hook.got[0] || w.asks(hook.got[0]) != apikey.Valid) {
				t.Error("they have different keys")
			}
			// Whoever reads the secret uses the key. That says nothing of the other.
			for range 30 {
				w.now = w.now.Add(day)
				if reads := w.reads(secret); w.asks(reads) != apikey.Valid {
					t.Fatal("the secret's key is not accepted")
				}
				w.sweeps()
			}
			if !row.delivered && w.asks(k.Plaintext.Reveal()) != apikey.Valid {
				t.Error("the old key has ended, and one of the two has no other")
			}
		})
	}
}

// The same property as of the other way: whatever happens to deliveries, whoever reads the secret is let in.
func TestNobodyWhoReadsASecretThatLatchkeyFillsIsEverRefused(t *testing.T) {
	rotated := 0
	for seed := range 20 {
		random := rand.New(rand.NewPCG(uint64(seed), 8))
		w := newWorld(t)
		k, name := w.scheduled(nil)
		w.aws.Set(name, token(1), value(k))
		for range 120 {
			switch random.IntN(5) {
			case 0:
				action := []string{"PutSecretValue", "CreateSecret"}[random.IntN(2)]
				fault := []keytest.SecretsFault{{Lost: true}, {Lost: true, After: true}, {Code: "AccessDeniedException"}, {Code: "InternalServiceError", Status: 500}, {}}[random.IntN(5)]
				w.aws.Fail(func(asked string) keytest.SecretsFault {
					if asked == action {
						return fault
					}
					return keytest.SecretsFault{}
				})
			case 1:
				w.asks(w.reads(name))
			default:
				w.now = w.now.Add(time.Duration(random.Int64N(int64(40 * time.Hour))))
				w.sweeps()
			}
			if w.accepted(name); t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		rotated += w.told()[audit.Rotated]
	}
	if t.Logf("%d rotations came to their end", rotated); rotated < 20 {
		t.Error("the test sees too little")
	}
}
