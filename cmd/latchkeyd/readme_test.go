package main_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// The README's first run, as typed, in bash and in the plainest shell: every status code that it promises is printed, in
// its order.
func TestTheReadmesFirstRunShowsWhatItSays(t *testing.T) {
	t.Parallel()
	blocks := firstRun(t)
	inMemory := func(t *testing.T) *keytest.Daemon { return keytest.Start(t) }
	onDynamoDB := func(t *testing.T) *keytest.Daemon { return newTables(t).start(t) }
	for shell, start := range map[string]func(*testing.T) *keytest.Daemon{"bash": inMemory, "sh": onDynamoDB} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			typed := exec.CommandContext(t.Context(), shell, "-c", blocks)
			typed.Env = []string{"PATH=" + os.Getenv("PATH"), "URL=" + d.URL, "ADMIN=" + d.ManagementKey}
			out, err := typed.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			codes := strings.Join(regexp.MustCompile(`(?m)^\d{3}$`).FindAllString(string(out), -1), " ")
			// A minute may begin amid the seven calls of the key with three a minute: more 200 then, never no 429.
			if !regexp.MustCompile(`^201 200 (200 )+429 (200 |429 )*200 200 200 401 200 204 401 200 401 200 200 200$`).MatchString(codes) {
				t.Errorf("got %s", codes)
			}
		})
	}
}

// firstRun is what the README says to paste, between starting the service and make test.
func firstRun(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		if strings.TrimSpace(block[1]) == "make test" {
			break
		}
		blocks = append(blocks, block[1])
	}
	if len(blocks) < 6 || strings.TrimSpace(blocks[0]) != "go run ./cmd/latchkeyd" {
		t.Fatalf("the README's first run has %d blocks", len(blocks))
	}
	return strings.Join(blocks[1:], "")
}
