package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// What docs/audit.md says to type: an organization's trail is exported by its people and by operators, and proven.
func TestTheDocsExportIsProven(t *testing.T) {
	t.Parallel()
	s := newTables(t)
	d := s.start(t)
	for range 3 {
		k := d.Create(nil)
		d.Call("POST", "/v1/api-keys/"+k.ID+"/archive", d.ManagementKey, nil)
	}
	linked(t, d, 8)

	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(folder, "latchkey"), "../latchkey").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1) {
		script.Write(block[1])
	}
	typed := strings.NewReplacer("?limit=1000", "?limit=3", "--stack latchkey --organization acme", `--dynamodb "$DYNAMODB" --organization org_dev`)
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", typed.Replace(script.String()))
	shell.Dir = folder
	shell.Env = append(s.environment(), "PATH="+folder+":"+os.Getenv("PATH"), "HOME="+folder, "DYNAMODB="+s.endpoint, "URL="+d.URL, "ADMIN="+d.ManagementKey)
	out, err := shell.CombinedOutput()
	said := string(out)
	if err != nil || strings.Count(said, "org_dev: proven, links 1 to 8\n") != 2 || strings.Count(said, "Up to there nothing was cut off") != 1 || strings.Contains(said, d.ManagementKey) {
		t.Errorf("%v\n%s", err, said)
	}
}

// linked waits until the organization's chain has so many links.
func linked(t *testing.T, d *keytest.Daemon, want int) {
	t.Helper()
	eventually(t, "every entry is linked", func() bool {
		var page []struct{ Sequence int }
		d.Call("GET", "/v1/audit/chain?limit=1000", d.ManagementKey, nil).Into(t, &page)
		return len(page) >= want
	})
}
