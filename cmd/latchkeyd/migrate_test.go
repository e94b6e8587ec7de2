package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// docs/migrate-from.md shows the documents' commands and what they answer: each is typed as it stands, and answered with the
// fields and types that it is shown with.
func TestTheDocumentsCommandsAsTypedAreAnsweredAsShown(t *testing.T) {
	page, err := os.ReadFile("../../docs/migrate-from.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(sh|json|jsonc)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	all := func(t *testing.T, d *keytest.Daemon) {
		typist := typist{"URL": d.URL, "KEY": d.ManagementKey, "TOKEN": d.JWT}
		for i, block := range blocks {
			if block[1] != "sh" {
				continue
			}
			answer := typist.typed(t, block[2])
			switch next := blocks[min(i+1, len(blocks)-1)]; next[1] {
			case "sh":
				if len(answer) != 0 {
					t.Errorf("%s is answered %s", block[2], answer)
				}
			default:
				if wrong := unlike(object(t, answer), object(t, []byte(next[2])), next[1] == "jsonc"); wrong != "" {
					t.Errorf("%s: %s", block[2], wrong)
				}
			}
		}
	}
	onBothStores(t, all)
	if path := os.Getenv("LATCHKEY_READY"); path != "" {
		t.Run("attached", func(t *testing.T) { all(t, keytest.Attach(t, path)) })
	}
}

// typist is a shell's variables: those given, and the names of the last key that was made.
type typist map[string]string

func (v typist) typed(t *testing.T, command string) []byte {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "bash", "-c", "curl() { command curl -sS --fail-with-body \"$@\"; }\n"+command)
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range v {
		shell.Env = append(shell.Env, name+"="+value)
	}
	answer, err := shell.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, answer)
	}
	if !strings.Contains(command, "POST") {
		return answer
	}
	for name, pattern := range map[string]string{"ID": `"id":"([^"]+)"`, "NUMBER": `"id":(\d+)`, "PREFIX": `"prefix":"([^"]+)"`} {
		if found := regexp.MustCompile(pattern).FindSubmatch(answer); found != nil {
			v[name] = string(found[1])
		}
	}
	return answer
}

func object(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// unlike says where got has other fields or types than the example; more of them may be there if the example is a part.
// null is like everything, and of a list each element is to be like the example's first.
func unlike(got, example any, part bool) string {
	switch e := example.(type) {
	case nil:
		return ""
	case []any:
		list, ok := got.([]any)
		for i := 0; ok && i < len(list) && len(e) > 0; i++ {
			if wrong := unlike(list[i], e[0], part); wrong != "" {
				return wrong
			}
		}
		if ok && (len(list) > 0 || len(e) == 0) {
			return ""
		}
	case map[string]any:
		o, ok := got.(map[string]any)
		if !ok || !part && len(o) != len(e) {
			return fmt.Sprintf("has %v, not %v", names(o), names(e))
		}
		for name, value := range e {
			found, there := o[name]
			if !there {
				return "lacks " + name
			}
			if wrong := unlike(found, value, part); wrong != "" {
				return name + " " + wrong
			}
		}
		return ""
	default:
		if got == nil || kindOf(got) == kindOf(example) {
			return ""
		}
	}
	return fmt.Sprintf("is a %s, not a %s", kindOf(got), kindOf(example))
}
