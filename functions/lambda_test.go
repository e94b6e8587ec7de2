// Package functions_test runs the functions' real binaries as Lambda does: over a Runtime API, which is played here, with
// DynamoDB Local behind them.
package functions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "functions")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := keytest.Main(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// tags are those of the Makefile.
const tags = "lambda.norpc,nethttpomithttp2"

// binaries is where build puts them.
var binaries string

// build makes every function, once for all tests of the process.
var build = sync.OnceValue(func() error {
	if err := watch("../pkg"); err != nil {
		return err
	}
	c := exec.Command("go", "build", "-tags", tags, "-ldflags", "-s -w", "-o", binaries, "./...", "./testdata/panics") // linked in half the time
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building the functions: %w\n%s", err, out)
	}
	return nil
})

// watch looks at every file below a folder. What a test has looked at and is another later, go test runs it for again.
func watch(folder string) error {
	return filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			_, err = os.Stat(path)
		}
		return err
	})
}

// Lambda gets arm64 binaries, built as the Makefile does. What is larger starts slower.
func TestEveryFunctionIsBelowTenMegabytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", "-s -w -buildid=", "-o", dir, "./...")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range names(t) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s has %d bytes", name, info.Size()); info.Size() >= 10_000_000 {
			t.Errorf("%s is too large", name)
		}
	}
}

// names are the folders of the functions.
func names(t *testing.T) []string {
	t.Helper()
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) < 15 {
		t.Fatalf("%d functions: %v", len(mains), err)
	}
	for i, path := range mains {
		if _, err := os.Stat(path); err != nil { // go test sees its time
			t.Fatal(err)
		}
		mains[i] = filepath.Dir(path)
	}
	return mains
}

// function is a running binary and the Runtime API that it speaks to.
type function struct {
	t       testing.TB
	name    string
	command *exec.Cmd
	stderr  bytes.Buffer // to be read once it ended
	ended   chan struct{}
	events  chan invocation
	results chan result
	asked   int // for events
}

type invocation struct {
	event    any
	deadline time.Time
}

// result is what the function told the Runtime API: an answer, or the message of an error.
type result struct {
	answer []byte
	failed string
}

// start runs a function with an environment, "NAME=value" each, until the test ends.
func start(t testing.TB, name string, environment ...string) *function {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	f := &function{t: t, name: name, ended: make(chan struct{}), events: make(chan invocation), results: make(chan result)}
	api := httptest.NewServer(f.runtimeAPI())
	f.command = exec.Command(filepath.Join(binaries, name))
	f.command.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(api.URL, "http://"), "_HANDLER=bootstrap"}, environment...)
	f.command.Stdout, f.command.Stderr = &f.stderr, &f.stderr
	if err := f.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = f.command.Wait()
		close(f.ended)
	}()
	t.Cleanup(func() {
		f.output()
		api.Close()
	})
	return f
}

// output ends the function and is all that it printed.
func (f *function) output() string {
	_ = f.command.Process.Kill() // it may have ended by itself
	<-f.ended
	return f.stderr.String()
}

func (f *function) runtimeAPI() http.Handler {
	const path = "/2018-06-01/runtime/invocation/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path+"next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case i := <-f.events:
			f.asked++
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", strconv.Itoa(f.asked))
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(i.deadline.UnixMilli(), 10))
			_ = json.NewEncoder(w).Encode(i.event)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST "+path+"{id}/response", func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		w.WriteHeader(http.StatusAccepted)
		f.results <- result{answer: b.Bytes()}
	})
	mux.HandleFunc("POST "+path+"{id}/error", func(w http.ResponseWriter, r *http.Request) {
		var e struct{ ErrorMessage string }
		_ = json.NewDecoder(r.Body).Decode(&e)
		w.WriteHeader(http.StatusAccepted)
		f.results <- result{failed: e.ErrorMessage}
	})
	return mux
}

// invoke gives the function an event and waits for what comes of it.
func (f *function) invoke(event any) result {
	f.t.Helper()
	return f.invokeWithin(patience, event)
}

// invokeWithin is invoke with so much time for the function. An answer that comes later fails the test.
func (f *function) invokeWithin(limit time.Duration, event any) result {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	deadline := time.Now().Add(limit)
	select {
	case f.events <- invocation{event, deadline}:
	case <-f.ended:
		f.t.Fatalf("%s has ended:\n%s", f.name, f.output())
	case <-ctx.Done():
		f.t.Fatalf("%s asks for no event:\n%s", f.name, f.output())
	}
	select {
	case r := <-f.results:
		if late := time.Since(deadline); late > 0 {
			f.t.Errorf("%s answered %v after its deadline", f.name, late)
		}
		return r
	case <-f.ended:
		f.t.Fatalf("%s ended at its work:\n%s", f.name, f.output())
	case <-ctx.Done():
		f.t.Fatalf("%s does not answer:\n%s", f.name, f.output())
	}
	return result{}
}

// problem is the status and the code of a proxy answer.
func (r result) problem(t testing.TB) (status int, code string) {
	t.Helper()
	var a struct {
		StatusCode int
		Body       string
	}
	var body struct{ Code string }
	if err := json.Unmarshal(r.answer, &a); err != nil {
		t.Fatalf("%v in %q, or an error: %q", err, r.answer, r.failed)
	}
	_ = json.Unmarshal([]byte(a.Body), &body) // not every body is a problem
	return a.StatusCode, body.Code
}
