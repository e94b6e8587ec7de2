package main_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// A rotation needs a day at least, and a store that outlasts the process: a day passes while latchkeyd is started anew with
// its clock ahead, so these are DynamoDB's.

// receiving starts a latchkeyd that brings notices to this machine, with its clock so far ahead.
func (s tables) receiving(t *testing.T, ahead string) *keytest.Daemon {
	t.Helper()
	return s.start(t, "-webhooks-to-loopback", "-clock-offset", ahead)
}

// notice is one that came, and its headers' id.
type notice struct {
	ID     string
	header http.Header
	body   []byte

	Type string         `json:"type"`
	Data keytest.Issued `json:"data"`
}

// inbox is a receiver of a test's own.
type inbox struct {
	url     string
	notices chan notice
	close   func()
}

// newInbox answers each notice with what answer says to the nth, from 1 on. Within it, a notice is already in notices.
func newInbox(t *testing.T, answer func(n int) int) *inbox {
	t.Helper()
	b := &inbox{notices: make(chan notice, 100)}
	var mu sync.Mutex
	count := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		n := notice{ID: r.Header.Get("webhook-id"), header: r.Header, body: body}
		keytest.Answer{Body: body}.Into(t, &n)
		mu.Lock()
		count++
		nth := count
		mu.Unlock()
		b.notices <- n
		w.WriteHeader(answer(nth))
	}))
	b.url, b.close = server.URL+"/rotated", server.Close
	t.Cleanup(b.close)
	return b
}

func accepting(int) int { return http.StatusNoContent }

// next is the notice that comes next, which is to come soon.
func (b *inbox) next(t *testing.T, within time.Duration) notice {
	t.Helper()
	select {
	case n := <-b.notices:
		return n
	case <-time.After(within):
		t.Fatalf("no notice within %v", within)
		return notice{}
	}
}

// soon is more than a run of latchkeyd's and the start of one.
const soon = 15 * time.Second

// rotating is a key that is to rotate every day, to be brought to url.
func rotating(d *keytest.Daemon, url string) keytest.Issued {
	return d.Create(map[string]any{"scopes": []string{"orders:read"}, "rotation_interval_days": 1, "rotation_webhook_url": url})
}

func signingSecret(t *testing.T, a keytest.Answer) webhook.Secret {
	t.Helper()
	secret, err := webhook.ParseSecret(want(t, a, 200)["secret"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// eventually waits for what a process does in its own time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(50*time.Millisecond), time.After(soon)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, soon)
		}
	}
}

// happened waits until a key's history holds an action.
func happened(t *testing.T, d *keytest.Daemon, id, action string) {
	t.Helper()
	eventually(t, action, func() bool {
		return strings.Contains(string(d.Call("GET", "/v1/audit?key_id="+id, d.ManagementKey, nil).Body), `"api_key.`+action+`"`)
	})
}

// silent says that a process printed none of the secrets that it brought, nor those it signed with.
func silent(t *testing.T, d *keytest.Daemon, keys []string, secrets ...webhook.Secret) {
	t.Helper()
	if what := keytest.Leaked(d.Output(), keys); what != "" {
		t.Errorf("latchkeyd printed %s", what)
	}
	for _, s := range secrets {
		if text := strings.TrimPrefix(s.Reveal(), "whsec_"); strings.Contains(d.Output(), text[:len(text)/2]) {
			t.Error("latchkeyd printed a signing secret")
		}
	}
}

func TestAScheduledRotationIsBroughtToItsKeysOwnAddressSignedAndNowhereElse(t *testing.T) {
	t.Parallel()
	s, box := newTables(t), newInbox(t, accepting)
	d := s.receiving(t, "0s")
	old := rotating(d, box.url)
	first := signingSecret(t, d.Call("GET", "/v1/webhooks/secret", d.ManagementKey, nil))
	d.Stop()

	d = s.receiving(t, "24h30m")
	n := box.next(t, soon)
	if err := webhook.Verify(n.header, n.body, time.Now(), first); err != nil {
		t.Error(err)
	}
	var whole struct {
		Type string         `json:"type"`
		At   string         `json:"timestamp"`
		Data map[string]any `json:"data"`
	}
	keytest.Answer{Body: n.body}.Into(t, &whole)
	fields(t, whole.Data, map[string]string{"old_key_id": "string", "new_key_id": "string", "project_id": "string", "name": "string", "key": "string",
		"key_prefix": "string", "scopes": "list", "expires_at": "null", "created_at": "time", "grace_expires_at": "null"})
	if whole.Type != "api_key.rotated" || whole.At == "" || whole.Data["old_key_id"] != old.ID {
		t.Errorf("a notice of type %q at %q of the key %v", whole.Type, whole.At, whole.Data["old_key_id"])
	}
	for name, key := range map[string]string{"old": old.Plaintext, "new": n.Data.Plaintext} {
		if status := d.Authorize(key); status != 200 {
			t.Errorf("the %s key: %d", name, status)
		}
	}
	happened(t, d, old.ID, "rotation_started")
	happened(t, d, old.ID, "rotated")
	keys := []string{old.Plaintext, n.Data.Plaintext}
	silent(t, d, keys, first)
	d.Stop()

	// The old secret signs for a day beside the new one.
	d = s.receiving(t, "48h")
	happened(t, d, old.ID, "rotation_completed")
	second := signingSecret(t, d.Call("POST", "/v1/webhooks/secret/rotate", d.ManagementKey, nil))
	d.Stop()
	for _, day := range []struct {
		ahead, later string
		both         bool
	}{{"49h", "72h", true}, {"73h30m", "96h", false}} {
		rotated := n.Data.NewID
		d = s.receiving(t, day.ahead)
		n = box.next(t, soon)
		signedBy(t, n, second, true)
		signedBy(t, n, first, day.both)
		happened(t, d, rotated, "rotated")
		d.Authorize(n.Data.Plaintext)
		silent(t, d, append(keys, n.Data.Plaintext), first, second)
		d.Stop()
		d = s.receiving(t, day.later)
		happened(t, d, rotated, "rotation_completed")
		d.Stop()
	}
}

func signedBy(t *testing.T, n notice, secret webhook.Secret, yes bool) {
	t.Helper()
	if err := webhook.Verify(n.header, n.body, time.Now(), secret); (err == nil) != yes {
		t.Errorf("signed with a secret: %v, not %v", err, yes)
	}
}

func TestANoticeThatWasRefusedComesAgainWithTheSameIDAndTheSameKey(t *testing.T) {
	t.Parallel()
	s := newTables(t)
	box := newInbox(t, func(n int) int {
		if n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	d := s.receiving(t, "0s")
	old := rotating(d, box.url)
	d.Stop()
	d = s.receiving(t, "24h30m")
	first := box.next(t, soon)
	second := box.next(t, soon) // five seconds later
	sameNotice(t, first, second)
	happened(t, d, old.ID, "rotated")
	silent(t, d, []string{old.Plaintext, first.Data.Plaintext})
}

func sameNotice(t *testing.T, a, b notice) {
	t.Helper()
	if a.ID == "" || a.ID != b.ID || string(a.body) != string(b.body) {
		t.Errorf("the notices %s and %s differ", a.ID, b.ID)
	}
}

func TestAReceiverThatHangsDelaysNobodyElsesNotice(t *testing.T) {
	t.Parallel()
	s, free := newTables(t), make(chan struct{})
	hanging := newInbox(t, func(int) int { <-free; return http.StatusOK })
	t.Cleanup(func() { close(free) }) // before the inbox is closed, which waits
	quick := newInbox(t, accepting)
	d := s.receiving(t, "0s")
	for range 4 {
		rotating(d, hanging.url)
	}
	want := []string{}
	for range 2 {
		want = append(want, rotating(d, quick.url).ID)
	}
	d.Stop()
	s.receiving(t, "24h30m")
	began := time.Now()
	hanging.next(t, soon)
	var got []string
	for range want {
		n := quick.next(t, soon)
		var data struct {
			Data struct {
				Old string `json:"old_key_id"`
			} `json:"data"`
		}
		keytest.Answer{Body: n.body}.Into(t, &data)
		got = append(got, data.Data.Old)
	}
	if took := time.Since(began); took > 10*time.Second { // a hanging one is given 15 s, and latchkeyd looks every second
		t.Errorf("the others' notices took %v", took)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("brought: %v, not %v", got, want)
	}
}

func TestWithoutDevelopmentsPermissionNothingOnThisMachineIsReached(t *testing.T) {
	t.Parallel()
	box := newInbox(t, accepting)
	refuses := func(t *testing.T, d *keytest.Daemon) {
		t.Helper()
		port := box.url[strings.LastIndexByte(box.url, ':')+1:]
		for _, url := range []string{box.url, "https://127.0.0.1:" + port, "https://localhost:" + port, "https://[::1]:" + port} {
			a := d.Call("POST", "/v1/api-keys", d.ManagementKey, map[string]any{"project_id": "shop", "name": "x", "rotation_webhook_url": url})
			if a.Status != 422 {
				t.Errorf("%s: %d", url, a.Status)
			}
		}
	}
	onBothStores(t, refuses)
	t.Run("a key of another time", func(t *testing.T) {
		s := newTables(t)
		d := s.receiving(t, "0s")
		old := rotating(d, box.url)
		d.Stop()
		d = s.start(t, "-clock-offset", "24h30m")
		eventually(t, "an attempt", func() bool { return strings.Contains(d.Output(), `"outcome":"refused"`) })
		if len(box.notices) > 0 {
			t.Error("a notice came")
		}
		if status := d.Authorize(old.Plaintext); status != 200 {
			t.Errorf("the key is answered %d", status)
		}
	})
}

func TestAKilledDeliveryIsMadeAgainWithTheSameIDAndTheSameKey(t *testing.T) {
	t.Parallel()
	s, free := newTables(t), make(chan struct{})
	box := newInbox(t, func(n int) int {
		if n == 1 {
			<-free
		}
		return http.StatusOK
	})
	d := s.receiving(t, "0s")
	old := rotating(d, box.url)
	d.Stop()
	d = s.receiving(t, "24h30m")
	first := box.next(t, soon)
	d.Kill()
	close(free)
	silent(t, d, []string{first.Data.Plaintext})

	d = s.receiving(t, "24h32m") // the claim of the one that died is over
	for name, key := range map[string]string{"old": old.Plaintext, "new": first.Data.Plaintext} {
		if status := d.Authorize(key); status != 200 {
			t.Errorf("the %s key: %d", name, status)
		}
	}
	sameNotice(t, first, box.next(t, soon))
	happened(t, d, old.ID, "rotated")
	silent(t, d, []string{first.Data.Plaintext})
}

func TestASuccessorIsPutIntoTheSecretOfItsLine(t *testing.T) {
	t.Parallel()
	s, aws := newTables(t), keytest.NewSecretsManager(t)
	start := func(ahead string) *keytest.Daemon {
		environment := append(s.environment(), "LATCHKEY_SECRETS_MANAGER=true", "LATCHKEY_SECRETSMANAGER_ENDPOINT="+aws.URL)
		return keytest.StartIn(t, environment, "-dev", "-dynamodb", s.endpoint, "-clock-offset", ahead)
	}
	d := start("0s")
	old := d.Create(map[string]any{"project_id": "shop", "name": "kept", "rotation_interval_days": 1, "rotation_to_secrets_manager": true})
	d.Stop()
	d = start("24h30m")
	var value string
	eventually(t, "the secret", func() bool {
		value, _ = aws.Value("latchkey/org_dev/" + old.ID)
		return value != ""
	})
	var held struct{ Key string }
	keytest.Answer{Body: []byte(value)}.Into(t, &held)
	for name, key := range map[string]string{"old": old.Plaintext, "new": held.Key} {
		if status := d.Authorize(key); status != 200 {
			t.Errorf("the %s key: %d", name, status)
		}
	}
	happened(t, d, old.ID, "rotated")
	silent(t, d, []string{held.Key})
}
