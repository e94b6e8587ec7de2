package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	librariesVariable = "LATCHKEY_WEBHOOK_LIBS"         // where tools/webhooks/install put them
	requireVariable   = "LATCHKEY_REQUIRE_WEBHOOK_LIBS" // non-empty: fail rather than skip
)

// question is what an independent library is asked: to verify where there are headers, else to sign.
type question struct {
	Secret    string            `json:"secret"`
	ID        string            `json:"id"`
	Timestamp int64             `json:"timestamp"`
	Body      string            `json:"body"`
	Headers   map[string]string `json:"headers,omitempty"`
}

// peers is the commands that answer with the libraries of npm and PyPI.
func peers(t *testing.T) map[string]*exec.Cmd {
	t.Helper()
	folder, err := libraries()
	switch {
	case err != nil && os.Getenv(requireVariable) == "":
		t.Skipf("NOT TESTED against independent Standard Webhooks libraries: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	python := exec.CommandContext(t.Context(), "python3", "testdata/peer.py")
	python.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(folder, "python"), "PYTHONDONTWRITEBYTECODE=1")
	return map[string]*exec.Cmd{"npm": exec.CommandContext(t.Context(), "node", "testdata/peer.cjs", folder), "PyPI": python}
}

// libraries finds them, and what runs them.
func libraries() (folder string, err error) {
	if folder = os.Getenv(librariesVariable); folder == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("looking for the libraries: %w", err)
		}
		folder = filepath.Join(cache, "latchkey", "standardwebhooks-npm1.1.1-pypi1.1.0")
	}
	if _, err := os.Stat(filepath.Join(folder, "complete")); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("they are not in %s: run `make webhook-libs`", folder)
	} else if err != nil {
		return "", err
	}
	for _, name := range []string{"node", "python3"} {
		if _, err := exec.LookPath(name); err != nil {
			return "", err
		}
	}
	return folder, nil
}

// ask gives a peer all questions and returns its answers.
func ask(t *testing.T, peer *exec.Cmd, questions []question) []string {
	t.Helper()
	var in, complaints bytes.Buffer
	for _, q := range questions {
		if err := json.NewEncoder(&in).Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	peer.Stdin, peer.Stderr = &in, &complaints
	out, err := peer.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, complaints.Bytes())
	}
	var all []string
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var answer string
		if err := d.Decode(&answer); err != nil {
			t.Fatal(err)
		}
		all = append(all, answer)
	}
	if len(all) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(all), len(questions))
	}
	return all
}

// messages are notices of many kinds, of now: the libraries look at the clock.
func messages() []Message {
	now := time.Now()
	var all []Message
	for i, body := range []string{
		`{}`, `{"type":"api_key.rotated","data":{"key":"lk_live_x"}}`, `{"name":"Ünïcode 🗝 \u2028"}`, "{\n\t\"spaces\" : [1, 2.50, 1e3]\n}\n", `"."`, `["…"]`, `null`, `{"long":"` + strings.Repeat("x", MaxBody-20) + `"}`,
	} {
		for _, skew := range []time.Duration{0, -4 * time.Minute, 4 * time.Minute} {
			all = append(all, Message{ID: fmt.Sprintf("evt_%d-%d", i, len(all)), At: now.Add(skew), Body: []byte(body)})
		}
	}
	return all
}

func TestIndependentLibrariesVerifyWhatWeSign(t *testing.T) {
	current, old, another := NewSecret(), NewSecret(), NewSecret()
	var questions []question
	var want []string
	add := func(m Message, with Secret, expected string, secrets ...Secret) {
		h := mustSign(t, m, secrets...)
		headers := map[string]string{}
		for name := range h {
			headers[name] = h.Get(name)
		}
		questions = append(questions, question{with.Reveal(), m.ID, m.At.Unix(), string(m.Body), headers})
		want = append(want, expected)
	}
	for _, m := range messages() {
		add(m, current, "verified", current)
		add(m, current, "verified", current, old)
		add(m, old, "verified", current, old)
		add(m, another, "refused", current, old)
		late := m
		late.At = time.Now().Add(-6 * time.Minute)
		add(late, current, "refused", current)
	}
	for name, peer := range peers(t) {
		for i, answer := range ask(t, peer, questions) {
			if answer != want[i] {
				t.Errorf("%s: question %d: %s, not %s", name, i, answer, want[i])
			}
		}
	}
}

func TestWeVerifyWhatIndependentLibrariesSign(t *testing.T) {
	secret, another := NewSecret(), NewSecret()
	var questions []question
	for _, m := range messages() {
		questions = append(questions, question{secret.Reveal(), m.ID, m.At.Unix(), string(m.Body), nil})
	}
	for name, peer := range peers(t) {
		for i, signature := range ask(t, peer, questions) {
			q := questions[i]
			h := http.Header{}
			h.Set("webhook-id", q.ID)
			h.Set("webhook-timestamp", fmt.Sprint(q.Timestamp))
			h.Set("webhook-signature", signature)
			if err := Verify(h, []byte(q.Body), time.Now(), another, secret); err != nil {
				t.Errorf("%s: question %d: %v", name, i, err)
			}
			if err := Verify(h, []byte(q.Body), time.Now(), another); err == nil {
				t.Errorf("%s: question %d: verified with another secret", name, i)
			}
		}
	}
}
