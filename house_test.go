// Package latchkey_test holds the house to its plan: which room may import which, and what may come in from outside.
package latchkey_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/latchkey/latchkey"

// What comes from outside, by module. docs/dependencies.md says why.
const (
	core    = "github.com/aws/aws-sdk-go-v2"
	aws     = "github.com/aws/aws-sdk-go-v2 github.com/aws/aws-sdk-go-v2/service/dynamodb github.com/aws/smithy-go"
	events  = "github.com/aws/aws-sdk-go-v2 github.com/aws/aws-sdk-go-v2/service/eventbridge"
	streams = aws + " github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	kms     = "github.com/aws/aws-sdk-go-v2/service/kms"
	vault   = "github.com/aws/aws-sdk-go-v2/service/secretsmanager github.com/aws/smithy-go"
	httpsfv = "github.com/dunglas/httpsfv"
	json2   = "github.com/go-json-experiment/json"
	ulid    = "github.com/oklog/ulid/v2"
	kong    = "github.com/alecthomas/kong"
	cloud   = "github.com/aws/aws-sdk-go-v2 github.com/aws/aws-sdk-go-v2/config github.com/aws/aws-sdk-go-v2/service/cloudformation"
	lambda  = "github.com/aws/aws-lambda-go"
	adapter = "github.com/awslabs/aws-lambda-go-api-proxy"
	jose    = "github.com/go-jose/go-jose/v4"
)

// rooms is every room there is.
const rooms = "apikey plan caller audit verify guard lifecycle httpapi memory amazon dynamo seal oidc issuer webhook deliver event work publish notify"

// house is the plan. Data goes in at one door and walks downhill. Nothing imports uphill, where a store stands above the
// rooms whose interfaces it satisfies. A package may import the standard library, the rooms of its row, and the modules of its row. A new package needs a new row. Tests are free.
var house = map[string]struct{ rooms, outside string }{
	// The nouns, and who is asking. The standard library alone.
	"pkg/apikey": {},
	"pkg/caller": {},

	// What a tier may have; what happened.
	"pkg/plan":  {"apikey", ""},
	"pkg/audit": {"apikey", ulid + " " + json2},

	// What the world is told of it.
	"pkg/event": {"apikey audit", ""},

	// Who a person's token says they are, and development's own issuer of such tokens.
	"pkg/oidc":   {"apikey caller", jose + " " + json2},
	"pkg/issuer": {"", jose},

	// The hot path, and the net/http middleware over it.
	"pkg/verify": {"apikey", httpsfv},
	"pkg/guard":  {"apikey verify", ""},

	// How what is due is gone through.
	"pkg/work": {},

	// The verbs.
	"pkg/lifecycle": {"apikey plan caller audit work", ""},

	// The stores that lifecycle and verify ask for.
	"pkg/memory": {"apikey lifecycle notify verify audit work publish", ""},
	"pkg/dynamo": {"apikey lifecycle notify verify audit work publish amazon", aws},

	// How AWS is spoken to; short-lived secrets, sealed by its KMS or by a local key.
	"pkg/amazon": {"", core + " github.com/aws/smithy-go"},
	"pkg/seal":   {"amazon", kms},

	// One signed notice to one address of a customer's.
	"pkg/webhook": {},

	// An organization's webhooks, and what they are told.
	"pkg/notify": {"apikey audit caller event lifecycle webhook work", ""},

	// The HTTP door.
	"pkg/httpapi": {"apikey caller lifecycle verify audit notify", json2},

	// The AWS door: nothing else of the product may import Lambda or the adapter.
	"pkg/gateway": {"apikey caller verify oidc", lambda + " " + adapter},

	// What brings successors made by schedule to the owners of their predecessors.
	"pkg/deliver": {"lifecycle webhook", ""},

	// The secrets of AWS Secrets Manager: successors go there, and it has its own rotations made.
	"pkg/secrets": {"apikey lifecycle verify amazon deliver", vault},

	// What was written into the audit trail, on its way to its chain, to a bus and to subscribers; the bus.
	"pkg/publish": {"audit event", ""},
	"pkg/bus":     {"publish amazon", events},
	"pkg/stream":  {"dynamo amazon", streams},

	// The wiring. Only it knows every room.
	"pkg/app":       {rooms, ""},
	"cmd/latchkeyd": {"app bus secrets stream", ""},

	// The operators' command, and what a deployed stack says of itself.
	"pkg/stack":    {"", cloud},
	"cmd/latchkey": {"apikey app audit bus stack", kong},

	// One Lambda for each endpoint.
	"functions/archive":        {"app gateway", ""},
	"functions/audit":          {"app gateway", ""},
	"functions/authorizer":     {"app gateway", ""},
	"functions/create":         {"app gateway", ""},
	"functions/deliver":        {"app gateway secrets", ""},
	"functions/get":            {"app gateway", ""},
	"functions/list":           {"app gateway", ""},
	"functions/organization":   {"app gateway", ""},
	"functions/publish":        {"app gateway bus", ""},
	"functions/reactivate":     {"app gateway", ""},
	"functions/revoke":         {"app gateway", ""},
	"functions/rotate":         {"app gateway", ""},
	"functions/secretsmanager": {"app gateway secrets", ""},
	"functions/sweep":          {"app gateway", ""},
	"functions/update":         {"app gateway", ""},
	"functions/verify":         {"app gateway", ""},
	"functions/webhooks":       {"app gateway", ""},

	// What the authorizer's Lambda costs, beside bootstraps that do less.
	"bench/lambda": {"apikey app caller dynamo lifecycle verify", aws},
	"bench/bare":   {"dynamo", aws + " " + lambda},
	"bench/hello":  {"", lambda},

	// The test kits: the suite that every store passes, and a running service.
	"pkg/storetest": {"apikey lifecycle notify verify audit webhook work", ""},
	"pkg/keytest":   {rooms + " app storetest", ""},
}

// unwelcome names say nothing of what is inside.
var unwelcome = []string{"util", "utils", "common", "types", "models", "helpers", "internal"}

func TestEveryRoomImportsOnlyWhatItsRowAllows(t *testing.T) {
	for name, p := range packages(t) {
		row, ok := house[name]
		if !ok {
			t.Errorf("%s has no row in the table house", name)
			continue
		}
		for _, path := range p.Imports {
			room, ours := strings.CutPrefix(path, module+"/")
			from := moduleOf(t, path)
			switch {
			case ours && !slices.Contains(strings.Fields(row.rooms), strings.TrimPrefix(room, "pkg/")):
				t.Errorf("%s imports %s, which is not in its row", name, room)
			case !ours && from != "" && !slices.Contains(strings.Fields(row.outside), from):
				t.Errorf("%s imports %s of the module %s, which is not in its row", name, path, from)
			}
		}
	}
}

func TestEveryRowIsAPackage(t *testing.T) {
	there := packages(t)
	for name := range house {
		if _, ok := there[name]; !ok {
			t.Errorf("the table house has a row for %s, which is no package", name)
		}
	}
}

func TestEveryPackageIsNamedByItsJobAndSaysIt(t *testing.T) {
	for name, p := range packages(t) {
		for _, word := range strings.Split(name, "/") {
			if slices.Contains(unwelcome, word) {
				t.Errorf("%s: a package is named by its job, not %q", name, word)
			}
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", name)
		}
	}
}

func TestAMainWiresAndDecidesNothing(t *testing.T) {
	for name, p := range packages(t) {
		if p.Name != "main" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.Dir, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Count(text, []byte("\n")); lines >= 60 {
			t.Errorf("%s/main.go has %d lines: a main has fewer than 60", name, lines)
		}
	}
}

func TestEveryDirectDependencyIsExplained(t *testing.T) {
	var mod struct {
		Require []struct {
			Path, Version string
			Indirect      bool
		}
	}
	readJSON(t, &mod, "go", "mod", "edit", "-json")
	text, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mod.Require {
		if !m.Indirect && !bytes.Contains(text, []byte("`"+m.Path+"` "+m.Version)) {
			t.Errorf("docs/dependencies.md does not explain `%s` %s", m.Path, m.Version)
		}
	}
}

// listed is what go list tells of a package.
type listed struct {
	Dir, ImportPath, Name, Doc string
	Standard                   bool
	GoFiles, Imports           []string
	Module                     *struct{ Path string }
}

// all is every package that the house is built of, by import path; go list is asked once.
var all map[string]listed

// packages is our own packages that have code besides tests, by their folder.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	list(t)
	ours := map[string]listed{}
	for path, p := range all {
		if name, ok := strings.CutPrefix(path, module+"/"); ok && len(p.GoFiles) > 0 {
			ours[name] = p
		}
	}
	if len(ours) == 0 {
		t.Fatal("go list names no package of ours")
	}
	return ours
}

// moduleOf is the module that an import comes from, "" for the standard library.
func moduleOf(t *testing.T, path string) string {
	t.Helper()
	list(t)
	p, ok := all[path]
	switch {
	case p.Standard || path == "C":
		return ""
	case !ok || p.Module == nil:
		t.Fatalf("go list does not know where %s comes from", path)
	}
	return p.Module.Path
}

func list(t *testing.T) {
	t.Helper()
	if all != nil {
		return
	}
	watch(t)
	out := run(t, "go", "list", "-deps", "-json=Dir,ImportPath,Name,Doc,Standard,GoFiles,Imports,Module", "./...")
	all = map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		all[p.ImportPath] = p
	}
}

// watch walks all our folders. go test repeats an old result while what the test itself opened is unchanged, and it
// cannot see what go list opens.
func watch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readJSON(t *testing.T, into any, command ...string) {
	t.Helper()
	if err := json.Unmarshal(run(t, command...), into); err != nil {
		t.Fatalf("reading %s: %v", strings.Join(command, " "), err)
	}
}

func run(t *testing.T, command ...string) []byte {
	t.Helper()
	c := exec.Command(command[0], command[1:]...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return out
}

// Every relative link in our pages leads to a file.
func TestEveryLinkInTheDocsLeadsSomewhere(t *testing.T) {
	found := 0
	eachFile(t, "*.md", func(page string, text []byte) {
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllSubmatch(text, -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), string(link[1]))); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	})
	if found == 0 {
		t.Error("no page has a link: the test looks at nothing")
	}
}

func TestEveryTestThatTheDocsNameExists(t *testing.T) {
	there := map[string]bool{}
	eachFile(t, "*_test.go", func(_ string, text []byte) {
		for _, name := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(text, -1) {
			there[string(name[1])] = true
		}
	})
	found := 0
	eachFile(t, "*.md", func(page string, text []byte) {
		for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllSubmatch(text, -1) {
			found++
			if !there[string(name[1])] {
				t.Errorf("%s names %s, which is no test", page, name[1])
			}
		}
	})
	if found == 0 {
		t.Error("no page names a test: the test looks at nothing")
	}
}

// eachFile reads the files of the repository that a pattern names.
func eachFile(t *testing.T, pattern string, read func(path string, text []byte)) {
	t.Helper()
	paths, err := exec.Command("git", "ls-files", pattern).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(paths)) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		read(path, text)
	}
}
