package main_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/notify"
)

// telling runs a test against a latchkeyd in memory and one on DynamoDB, which bring events to this machine.
func telling(t *testing.T, test func(*testing.T, *keytest.Daemon)) {
	for name, start := range map[string]func(*testing.T) *keytest.Daemon{
		"memory":   func(t *testing.T) *keytest.Daemon { return keytest.Start(t, "-webhooks-to-loopback") },
		"DynamoDB": func(t *testing.T) *keytest.Daemon { return newTables(t).receiving(t, "0s") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

func subscribe(t *testing.T, d *keytest.Daemon, url string, types ...string) (sub notify.Subscription) {
	t.Helper()
	body := map[string]any{"url": url}
	if len(types) > 0 {
		body["event_types"] = types
	}
	a := d.Call("POST", "/v1/webhooks", d.ManagementKey, body)
	want(t, a, http.StatusCreated)
	a.Into(t, &sub)
	return sub
}

// told is the next event of a type that comes, about a key if one is named.
func (b *inbox) told(t *testing.T, kind, keyID string) (n notice, e event.Event) {
	t.Helper()
	for {
		n, e = b.next(t, soon), event.Event{}
		keytest.Answer{Body: n.body}.Into(t, &e)
		if n.Type == kind && (keyID == "" || e.Data.KeyID != nil && e.Data.KeyID.String() == keyID) {
			return n, e
		}
	}
}

// revoked is a new key, which is revoked.
func revoked(t *testing.T, d *keytest.Daemon) keytest.Issued {
	t.Helper()
	k := d.Create(nil)
	if a := d.Call("DELETE", "/v1/api-keys/"+k.ID, d.ManagementKey, nil); a.Status != http.StatusNoContent {
		t.Fatal(a.Status)
	}
	return k
}

// vouched checks a signature by the text of the specification (Standard Webhooks 1.0.0), and by nothing of ours.
func vouched(t *testing.T, n notice, secret string) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	timestamp := n.header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(n.ID + "." + timestamp + "." + string(n.body)))
	if signed := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); !slices.Contains(strings.Fields(n.header.Get("webhook-signature")), signed) {
		t.Errorf("signed %s, not %s", n.header.Get("webhook-signature"), signed)
	}
	if at, err := strconv.ParseInt(timestamp, 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
		t.Errorf("signed at %s: %v", timestamp, err)
	}
}

// logged waits until the newest delivery that a query finds is at a status.
func logged(t *testing.T, d *keytest.Daemon, query string, status notify.Status) (found notify.Delivery) {
	t.Helper()
	eventually(t, query+" "+string(status), func() bool {
		var list []notify.Delivery
		d.Call("GET", "/v1/webhooks/deliveries?limit=1&"+query, d.ManagementKey, nil).Into(t, &list)
		if len(list) > 0 {
			found = list[0]
		}
		return found.Status == status
	})
	return found
}

func TestASubscriberIsToldSignedAndLoggedAndAgainWhenThatIsAskedFor(t *testing.T) {
	t.Parallel()
	telling(t, func(t *testing.T, d *keytest.Daemon) {
		box, others := newInbox(t, accepting), newInbox(t, accepting)
		secret := want(t, d.Call("GET", "/v1/webhooks/secret", d.ManagementKey, nil), 200)["secret"].(string)
		sub := subscribe(t, d, box.url)
		subscribe(t, d, others.url, "api_key.rev*")
		began := time.Now()
		k := d.Create(map[string]any{"scopes": []string{"orders:read"}})
		n, e := box.told(t, "api_key.created", k.ID)
		t.Logf("told after %v", time.Since(began))
		vouched(t, n, secret)
		if e.ID != n.ID || e.Version != 1 || e.Data.KeyID == nil || e.Data.KeyID.String() != k.ID || e.Data.Chain.Sequence < 1 || e.Data.Actor.Kind != "key" {
			t.Errorf("told is %s under %s", n.body, n.ID)
		}
		if what := keytest.Leaked(string(n.body), []string{k.Plaintext, d.ManagementKey}); what != "" {
			t.Errorf("told is %s", what)
		}

		entry := logged(t, d, "key_id="+k.ID+"&webhook_id="+sub.ID, notify.Delivered)
		if entry.EventID != e.ID || len(entry.Attempts) != 1 || entry.Attempts[0].Status != http.StatusNoContent || entry.Attempts[0].Error != "" || entry.NextAttemptAt != nil {
			t.Errorf("the log has %+v", entry)
		}
		at := "/v1/webhooks/deliveries/" + entry.ID
		if body := string(d.Call("GET", at, d.ManagementKey, nil).Body); !strings.Contains(body, `"event":`+string(n.body)) {
			t.Errorf("the log shows %s, and sent was %s", body, n.body)
		}
		want(t, d.Call("POST", at+"/redeliver", d.ManagementKey, nil), http.StatusAccepted)
		again, _ := box.told(t, "api_key.created", k.ID)
		sameNotice(t, n, again)
		vouched(t, again, secret)
		if entry = logged(t, d, "key_id="+k.ID+"&webhook_id="+sub.ID, notify.Delivered); len(entry.Attempts) != 2 {
			t.Errorf("the log has %+v", entry)
		}

		// Both secrets sign for a day, so that no receiver misses one.
		next := want(t, d.Call("POST", "/v1/webhooks/secret/rotate", d.ManagementKey, nil), 200)["secret"].(string)
		if a := d.Call("DELETE", "/v1/api-keys/"+k.ID, d.ManagementKey, nil); a.Status != http.StatusNoContent {
			t.Fatal(a.Status)
		}
		n, last := box.told(t, "api_key.revoked", k.ID)
		vouched(t, n, secret)
		vouched(t, n, next)
		if _, only := others.told(t, "api_key.revoked", k.ID); only.ID != last.ID || len(others.notices) > 0 {
			t.Errorf("who wants to hear of revocations alone is told %+v", only)
		}
		if last.Data.Chain.Sequence <= e.Data.Chain.Sequence {
			t.Errorf("numbers %d and %d", e.Data.Chain.Sequence, last.Data.Chain.Sequence)
		}
	})
}

func TestATestCallIsOneSignedAttemptAndSaysHowItWent(t *testing.T) {
	t.Parallel()
	telling(t, func(t *testing.T, d *keytest.Daemon) {
		box := newInbox(t, func(n int) int { return []int{http.StatusNoContent, http.StatusInternalServerError}[n-1] })
		secret := want(t, d.Call("GET", "/v1/webhooks/secret", d.ManagementKey, nil), 200)["secret"].(string)
		sub := subscribe(t, d, box.url, "api_key.stale")
		says := func() map[string]any {
			return want(t, d.Call("POST", "/v1/webhooks/"+sub.ID+"/test", d.ManagementKey, nil), 200)
		}
		if got := says(); got["delivered"] != true || got["status"] != 204.0 || got["error"] != "" {
			t.Errorf("it says %v", got)
		}
		n, e := box.told(t, string(notify.TestEvent), "")
		vouched(t, n, secret)
		if e.ID != n.ID || e.Data.Chain.Sequence != 0 {
			t.Errorf("sent is %s", n.body)
		}
		if got := says(); got["delivered"] != false || got["status"] != 500.0 || got["error"] != "answered 500" {
			t.Errorf("of a receiver that fails it says %v", got)
		}
		box.close()
		if got := says(); got["delivered"] != false || got["status"] != 0.0 || got["error"] == "" {
			t.Errorf("of a receiver that is down it says %v", got)
		}
	})
}

func TestAReceiverThatFailsIsAskedAgainAndOneThatIsGoneNever(t *testing.T) {
	t.Parallel()
	telling(t, func(t *testing.T, d *keytest.Daemon) {
		failing := newInbox(t, func(n int) int {
			if n == 1 {
				return http.StatusInternalServerError
			}
			return http.StatusNoContent
		})
		gone := newInbox(t, func(int) int { return http.StatusGone })
		sub, ended := subscribe(t, d, failing.url, "api_key.revoked"), subscribe(t, d, gone.url, "api_key.revoked")
		k := revoked(t, d)
		first, _ := failing.told(t, "api_key.revoked", k.ID)
		logged(t, d, "webhook_id="+ended.ID, notify.Failed)
		eventually(t, "the end of a webhook", func() bool {
			var now notify.Subscription
			d.Call("GET", "/v1/webhooks/"+ended.ID, d.ManagementKey, nil).Into(t, &now)
			return !now.Enabled && now.DisabledReason != nil && *now.DisabledReason == notify.Gone
		})
		again, _ := failing.told(t, "api_key.revoked", k.ID) // five seconds later
		sameNotice(t, first, again)
		entry := logged(t, d, "webhook_id="+sub.ID, notify.Delivered)
		if entry.KeyID.String() != k.ID || len(entry.Attempts) != 2 || entry.Attempts[0].Status != 500 || entry.Attempts[0].Error != "answered 500" || entry.Attempts[1].Status != 204 {
			t.Errorf("the log has %+v", entry)
		}

		next := revoked(t, d)
		failing.told(t, "api_key.revoked", next.ID)
		if len(gone.notices) != 1 {
			t.Errorf("who is gone was asked %d times", len(gone.notices))
		}
		eventually(t, "the notice of it", func() bool {
			return strings.Contains(string(d.Call("GET", "/v1/audit?action=webhook.disabled", d.ManagementKey, nil).Body), ended.ID)
		})
	})
}
