// Package keytest runs Latchkey for tests: the built latchkeyd as a process of its own, as a user starts it. Whatever a
// Daemon issues is remembered, and at the end of the test its whole output is searched: a key or a hash in it fails the
// test.
package keytest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/storetest"
)

const patience = 20 * time.Second

// Daemon is a latchkeyd that serves.
type Daemon struct {
	URL            string `json:"url"`
	OrganizationID string `json:"organization_id"`
	ManagementKey  string `json:"management_key"`
	JWT            string `json:"jwt"`        // of an admin of the organization
	IssuerURL      string `json:"issuer_url"` // development's own issuer
	DemoURL        string `json:"demo_url"`

	ReadyFile string `json:"-"` // where it wrote all this

	t       testing.TB
	command *exec.Cmd
	ended   chan struct{}
	output  output
	client  *http.Client

	mu     sync.Mutex
	issued []string
	tokens []string
}

// binaries is where Main has the daemon built.
var binaries string

// Main runs a package's tests as storetest.Main does and removes what they built: os.Exit(keytest.Main(m)).
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keytest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	return storetest.Main(m)
}

// binary is latchkeyd, built once for all tests of the process.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaries, "latchkeyd")
	out, err := exec.Command("go", "build", "-o", path, "github.com/latchkey/latchkey/cmd/latchkeyd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building latchkeyd: %w\n%s", err, out)
	}
	return path, nil
})

// Start runs latchkeyd with the flags, on a free port of this machine, until the test ends. Its environment is empty.
func Start(t testing.TB, flags ...string) *Daemon {
	t.Helper()
	return StartIn(t, nil, flags...)
}

// StartIn is Start with an environment, "NAME=value" each.
func StartIn(t testing.TB, environment []string, flags ...string) *Daemon {
	t.Helper()
	d := newDaemon(t)
	d.ReadyFile = filepath.Join(t.TempDir(), "ready.json")
	d.command = exec.Command(Binary(t), append([]string{"-listen", "127.0.0.1:0", "-ready-file", d.ReadyFile}, flags...)...)
	d.command.Env = append([]string{}, environment...)
	d.command.Stdout, d.command.Stderr = &d.output, &d.output
	if err := d.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.command.Wait()
		close(d.ended)
	}()
	t.Cleanup(d.finish)
	d.awaitReady()
	return d
}

// Attach speaks to a service that runs already and wrote its ready file.
func Attach(t testing.TB, readyFile string) *Daemon {
	t.Helper()
	d := newDaemon(t)
	d.ReadyFile = readyFile
	d.awaitReady()
	return d
}

func newDaemon(t testing.TB) *Daemon {
	return &Daemon{t: t, ended: make(chan struct{}),
		client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
}

// Binary is the path of the built latchkeyd. The package's TestMain must call Main.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (d *Daemon) awaitReady() {
	d.t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(d.ReadyFile); err == nil {
			if err := json.Unmarshal(b, d); err != nil {
				d.t.Fatal(err)
			}
			if d.ManagementKey != "" {
				d.issued = append(d.issued, d.ManagementKey)
			}
			if d.JWT != "" { // outside of development there is none
				d.tokens = append(d.tokens, d.JWT)
			}
			return
		}
		select {
		case <-d.ended:
			d.t.Fatalf("latchkeyd ended:\n%s", d.Output())
		case <-deadline:
			d.t.Fatalf("latchkeyd is not ready:\n%s", d.Output())
		case <-tick.C:
		}
	}
}

// Kill ends the process at once, as a crash would.
func (d *Daemon) Kill() {
	_ = d.command.Process.Kill()
	<-d.ended
}

// Stop asks the process to end and waits for it.
func (d *Daemon) Stop() {
	_ = d.command.Process.Signal(syscall.SIGTERM)
	<-d.ended
}

// ExitCode is the process's, once it ended.
func (d *Daemon) ExitCode() int {
	<-d.ended
	return d.command.ProcessState.ExitCode()
}

// Output is what the process has printed so far.
func (d *Daemon) Output() string { return d.output.String() }

// finish ends the process and searches what it printed.
func (d *Daemon) finish() {
	d.Kill()
	d.client.CloseIdleConnections()
	d.mu.Lock()
	defer d.mu.Unlock()
	if what := Leaked(d.Output(), d.issued); what != "" {
		d.t.Errorf("latchkeyd printed %s", what)
	}
	if what := LeakedToken(d.Output(), d.tokens); what != "" {
		d.t.Errorf("latchkeyd printed %s", what)
	}
}

// Person is who signs in: a user of an organization, with a role and a plan, where each but the user may be "".
type Person struct {
	User         string `json:"user"`
	Organization string `json:"organization"`
	Role         string `json:"role"`
	Plan         string `json:"plan"`
}

// Token signs a person in at development's own issuer.
func (d *Daemon) Token(p Person) string {
	d.t.Helper()
	a := d.Call("POST", d.IssuerURL+"/token", "", p)
	var issued struct {
		Token string `json:"access_token"`
	}
	if a.Into(d.t, &issued); issued.Token == "" {
		d.t.Fatalf("the issuer answers %d", a.Status)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tokens = append(d.tokens, issued.Token)
	return issued.Token
}

// output is written by the process and read by the test.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Into reads the answer's JSON.
func (a Answer) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		t.Fatalf("%v in %s", err, a.Body)
	}
}

// Call sends a request with the key as its bearer (none when "") and body as JSON (none when nil). A relative url is
// below d's own. It fails the test when no answer comes.
func (d *Daemon) Call(method, url, key string, body any) Answer {
	d.t.Helper()
	a, err := d.Try(method, url, key, body)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

// Try is Call for those who expect that no answer may come.
func (d *Daemon) Try(method, url, key string, body any) (Answer, error) {
	if strings.HasPrefix(url, "/") {
		url = d.URL + url
	}
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		sent = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, url, sent)
	if err != nil {
		return Answer{}, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	return d.do(r)
}

func (d *Daemon) do(r *http.Request) (Answer, error) {
	res, err := d.client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return Answer{}, err
	}
	d.remember(b)
	return Answer{res.StatusCode, res.Header, b}, nil
}

// remember notes a key that was just handed out.
func (d *Daemon) remember(body []byte) {
	var answer struct {
		Key    any    `json:"key"`
		RawKey string `json:"raw_key"`
		Data   struct {
			Key string `json:"key"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return
	}
	key, _ := answer.Key.(string)
	if key = cmp.Or(key, answer.RawKey, answer.Data.Key); key != "" {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.issued = append(d.issued, key)
	}
}

// Issued is a key as create and rotate hand it out.
type Issued struct {
	ID        string `json:"id"`
	NewID     string `json:"new_key_id"`
	Prefix    string `json:"key_prefix"`
	Plaintext string `json:"key"`
}

// Create makes a key with the fields, by default in the project "shop" with the name "test".
func (d *Daemon) Create(fields map[string]any) Issued {
	d.t.Helper()
	body := map[string]any{"project_id": "shop", "name": "test"}
	for name, value := range fields {
		body[name] = value
	}
	a := d.Call("POST", "/v1/api-keys", d.ManagementKey, body)
	if a.Status != http.StatusCreated {
		d.t.Fatalf("create: %d %s", a.Status, a.Body)
	}
	var issued Issued
	a.Into(d.t, &issued)
	return issued
}

// Authorize is the status of the forward-auth door for a key.
func (d *Daemon) Authorize(key string) int {
	d.t.Helper()
	return d.Call("GET", "/v1/authorize", key, nil).Status
}
