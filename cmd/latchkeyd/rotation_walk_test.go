package main_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// The walk of docs/rotation.md as typed, once with each receiver: a key rotates by its schedule, its receiver takes it over, the
// old key ends early; with the receiver down nobody is locked out and the rotation is abandoned.
func TestTheWalkThroughAMonthShowsWhatItSays(t *testing.T) {
	t.Parallel()
	const goes, types = `go -C examples/receiver-go build`, `npm ci --prefix examples/receiver-typescript`
	for name, without := range map[string]string{"Go": types, "TypeScript": goes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTables(t)
			typed := strings.NewReplacer("http://127.0.0.1:8000", s.endpoint, "127.0.0.1:9090", freeAddress(t), `rm -r "$TRY"`, "")
			if name == "TypeScript" {
				typed = strings.NewReplacer(types, "", "examples/receiver-typescript/", typescript(t)+"/", "http://127.0.0.1:8000", s.endpoint,
					"127.0.0.1:9090", freeAddress(t), `rm -r "$TRY"`, "")
			}
			out := s.bash(t, typed.Replace(month(t, without)))
			want := "200 rotated 200 200 rotation_completed 401 200 rotation_started 200 rotation_abandoned active 200 rotated 200"
			if got := strings.Join(strings.Fields(out), " "); got != want {
				t.Errorf("got %s", got)
			}
		})
	}
}

// month is what docs/rotation.md says to type in the second terminal, without the blocks that hold a text.
func month(t *testing.T, without string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/rotation.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(block[1], without) {
			blocks = append(blocks, block[1])
		}
	}
	if len(blocks) < 10 || blocks[0] != "make dynamodb\n" {
		t.Fatalf("the walk has %d blocks", len(blocks))
	}
	return strings.Join(blocks[1:], "")
}

// bash types a script at the root of the repository, ends whatever it left running, and searches what latchkeyd printed.
func (s tables) bash(t *testing.T, script string) string {
	t.Helper()
	folder := t.TempDir()
	out, complaints, err := typed(t, folder, script, s.environment()...)
	logs, keys := printed(t, folder)
	if err != nil {
		t.Fatalf("%v\n%s\n%s\n%s", err, out, complaints, logs)
	}
	if what := keytest.Leaked(logs+out+complaints, keys); what != "" {
		t.Errorf("printed: %s", what)
	}
	return out
}

// typed types a script at the root of the repository, with a folder for what it keeps, and ends whatever it left running.
func typed(t *testing.T, folder, script string, environment ...string) (out, complaints string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	shell.Dir = "../.."
	shell.Env = append(environment, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"), "TMPDIR="+folder)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := func() { _ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.Cancel = func() error { end(); return nil }
	var said strings.Builder
	shell.Stderr = &said
	b, err := shell.Output()
	end()
	return string(b), said.String(), err
}

// printed is what latchkeyd logged in a folder below, and the key that the receiver has at the end.
func printed(t *testing.T, folder string) (logs string, keys []string) {
	t.Helper()
	files, err := filepath.Glob(folder + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		switch filepath.Base(file) {
		case "log":
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			logs = string(b)
		case "key.json":
			info, err := os.Stat(file)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the receiver's file has the mode %v: %v", info.Mode(), err)
			}
			keys = append(keys, keptIn(t, file).Key)
		}
	}
	return logs, keys
}

// kept is a receiver's file.
type kept struct {
	Key   string   `json:"key"`
	Taken []string `json:"taken"`
}

func keptIn(t *testing.T, file string) (k kept) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// freeAddress is one of this machine at which nobody listens. Its port is none of those that systems give to whoever asks
// for any, so that nobody else takes it while the receiver is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// typescript is a copy of the example in TypeScript with the libraries that tools/webhooks/install put into the cache.
func typescript(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("../../examples/receiver-typescript/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	libraries := filepath.Join(cache, "latchkey", fmt.Sprintf("receiver-typescript-%x", sha256.Sum256(lock))[:32])
	_, err = os.Stat(filepath.Join(libraries, "complete"))
	if _, missing := exec.LookPath("node"); err != nil || missing != nil {
		if os.Getenv("LATCHKEY_REQUIRE_WEBHOOK_LIBS") != "" {
			t.Fatal("the receiver in TypeScript cannot run: `make webhook-libs`")
		}
		t.Skip("NOT TESTED: the receiver in TypeScript. It needs Node.js, npm and `make webhook-libs`")
	}
	folder := t.TempDir()
	for _, name := range []string{"receiver.ts", "store.ts", "package.json", "tsconfig.json"} {
		b, err := os.ReadFile("../../examples/receiver-typescript/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(libraries, "node_modules"), filepath.Join(folder, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return folder
}
