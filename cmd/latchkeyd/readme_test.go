package main_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// The README's first run, as typed: every status code that it promises is printed, in its order.
func TestTheReadmesFirstRunShowsWhatItSays(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 3 || strings.TrimSpace(blocks[0][1]) != "go run ./cmd/latchkeyd" || strings.TrimSpace(blocks[2][1]) != "make test" {
		t.Fatal("the README no longer begins with the daemon, the commands and make test")
	}
	onBothStores(t, func(t *testing.T, d *keytest.Daemon) {
		bash := exec.CommandContext(t.Context(), "bash", "-c", blocks[1][1])
		bash.Env = []string{"PATH=" + os.Getenv("PATH"), "URL=" + d.URL, "ADMIN=" + d.ManagementKey}
		out, err := bash.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		codes := strings.Join(regexp.MustCompile(`(?m)^\d{3}$`).FindAllString(string(out), -1), " ")
		// A minute may begin amid the seven calls of the key with three a minute: one more 200 then, never no 429.
		want := regexp.MustCompile(`^201 200 (200 )+429 (200 |429 )*200 200 200 401 200 204 401$`)
		if !want.MatchString(codes) {
			t.Errorf("got %s", codes)
		}
	})
}
