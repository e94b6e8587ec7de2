package main_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// The walk of docs/webhooks.md as typed: a receiver is subscribed, tested, told, told again, down, and back.
func TestTheDocsWebhookIsToldAsShown(t *testing.T) {
	t.Parallel()
	telling(t, func(t *testing.T, d *keytest.Daemon) {
		script := strings.ReplaceAll(subscription(t), "127.0.0.1:9090", freeAddress(t))
		out, complaints, err := typed(t, t.TempDir(), script, "URL="+d.URL, "ADMIN="+d.ManagementKey)
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, complaints)
		}
		for _, line := range shown(t) {
			if !strings.Contains(out, "\n"+line+" key_") {
				t.Errorf("%s is not printed:\n%s", line, out)
			}
		}
		lines := regexp.MustCompile(`(?m)^\d+ (webhook\.test|api_key\.\w+ key_\w+( again)?)$`).FindAllString(out, -1)
		said := regexp.MustCompile(`\bkey_\w+|^\d+ `).ReplaceAllString(strings.Join(lines, "; "), "")
		said = regexp.MustCompile(`; \d+ `).ReplaceAllString(said, "; ")
		if want := "webhook.test; api_key.created ; api_key.created  again; api_key.revoked "; said != want {
			t.Errorf("the receiver printed %q, not %q:\n%s", said, want, out)
		}
		for _, part := range []string{`"delivered":true,"status":204`, `"outcome":"retry","status":0`, `"event_type":"api_key.revoked","status":"pending"`} {
			if !strings.Contains(out, part) {
				t.Errorf("%s is not printed:\n%s", part, out)
			}
		}
		if what := keytest.Leaked(out+complaints, []string{d.ManagementKey}); what != "" {
			t.Errorf("printed: %s", what)
		}
	})
}

// shown is what docs/webhooks.md says that the receiver prints of a key, up to its id.
func shown(t *testing.T) (lines []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile("`(\\d+ api_key\\.\\w+) key_…`").FindAllStringSubmatch(string(page), -1) {
		lines = append(lines, line[1])
	}
	if len(lines) != 2 {
		t.Fatalf("the page shows %q", lines)
	}
	return lines
}

// subscription is what docs/webhooks.md says to type in the second terminal.
func subscription(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		blocks = append(blocks, block[1])
	}
	if len(blocks) < 8 || blocks[0] != "go run ./cmd/latchkeyd -webhooks-to-loopback\n" {
		t.Fatalf("the walk has %d blocks", len(blocks))
	}
	return strings.Join(blocks[1:], "")
}
