package latchkey_test

import (
	"bufio"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/httpapi"
)

// deployed is a function of template.yaml.
type deployed struct {
	code   string   // its folder
	routes []string // method and path

	open       []string // those of its routes without an authorizer, of an API that has one
	preflights []string // paths whose OPTIONS comes to it without an authorizer
}

var (
	resource  = regexp.MustCompile(`^  (\w+):$`)
	codeURI   = regexp.MustCompile(`^      CodeUri: (\S+)$`)
	telling   = regexp.MustCompile(`\b(Path|CodeUri):`)
	event     = regexp.MustCompile(`^        \w+: \{Type: (?:Api|HttpApi), Properties: \{(?:RestApiId: !Ref Management|ApiId: !Ref Doors), Path: '?([^ ']+)'?, Method: ([A-Z]+)(, Auth: \{Authorizer: NONE\})?\}\}$`)
	preflight = regexp.MustCompile(`^        \w+: \{Type: (?:Api, Properties: \{RestApiId: !Ref Management, Path: '?([^ ']+)'?, Method: OPTIONS, Auth: \{Authorizer: NONE\}|HttpApi, Properties: \{ApiId: !Ref Doors, Path: '?([^ ']+)'?, Method: OPTIONS)\}\}$`)
)

// name is what the route table calls it.
func (d *deployed) name() string { return path.Base(d.code) }

// template reads the functions of template.yaml, whose events are written in one line each.
func template(t *testing.T) map[string]*deployed {
	t.Helper()
	file, err := os.Open("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	functions, current := map[string]*deployed{}, ""
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if m := resource.FindStringSubmatch(line); m != nil {
			current = m[1]
		} else if line == "    Type: AWS::Serverless::Function" {
			functions[current] = &deployed{}
		} else if m := codeURI.FindStringSubmatch(line); m != nil {
			functions[current].code = m[1]
		} else if m := preflight.FindStringSubmatch(line); m != nil {
			functions[current].preflights = append(functions[current].preflights, m[1]+m[2])
		} else if m := event.FindStringSubmatch(line); m != nil {
			functions[current].routes = append(functions[current].routes, m[2]+" "+m[1])
			if m[3] != "" {
				functions[current].open = append(functions[current].open, m[1])
			}
		} else if telling.MatchString(line) {
			t.Errorf("this test cannot read the template's line %q", line)
		}
	}
	return functions
}

// The template gives each function the routes that the route table says it owns, and no route to anybody else.
func TestTheTemplateHasTheRoutesAndTheirOwners(t *testing.T) {
	var table, written []string
	for _, r := range new(httpapi.API).Routes() {
		table = append(table, r.Function+" "+r.Method+" "+r.Pattern)
	}
	for _, f := range template(t) {
		for _, route := range f.routes {
			written = append(written, f.name()+" "+route)
		}
	}
	slices.Sort(table)
	slices.Sort(written)
	if !slices.Equal(table, written) {
		t.Errorf("the route table is\n%s\nand the template has\n%s", strings.Join(table, "\n"), strings.Join(written, "\n"))
	}
}

// The shape at /envelope asks about tokens in its functions. Whatever else stands at the management API has the authorizer
// before it.
func TestTheEnvelopeAloneHasNoAuthorizer(t *testing.T) {
	var open, envelope []string
	for _, r := range new(httpapi.API).Routes() {
		if strings.HasPrefix(r.Pattern, "/envelope/") {
			envelope = append(envelope, r.Function+" "+r.Pattern)
		}
	}
	for _, f := range template(t) {
		for _, path := range f.open {
			open = append(open, f.name()+" "+path)
		}
	}
	slices.Sort(open)
	slices.Sort(envelope)
	if len(envelope) == 0 || !slices.Equal(open, envelope) {
		t.Errorf("open are\n%s\nand the envelope has\n%s", strings.Join(open, "\n"), strings.Join(envelope, "\n"))
	}
}

// A browser asks by OPTIONS what a page may do at a path. One of the path's own functions answers, as only they know the
// path. What takes any method takes that too.
func TestEveryPathHasOnePreflight(t *testing.T) {
	owners, there := map[string][]string{}, map[string]int{}
	for _, r := range new(httpapi.API).Routes() {
		if r.Method != httpapi.Any {
			owners[r.Pattern] = append(owners[r.Pattern], r.Function)
		}
	}
	for name, f := range template(t) {
		for _, path := range f.preflights {
			there[path]++
			if !slices.Contains(owners[path], f.name()) {
				t.Errorf("%s has the preflight of %s, which is no path of its own", name, path)
			}
		}
	}
	for path := range owners {
		if there[path] != 1 {
			t.Errorf("%s has %d preflights", path, there[path])
		}
	}
}

// Every function of the template is built from the folder of its name, and every folder is a function of the template. The
// one that reads the audit trail cannot be called Audit, as the table is.
func TestTheTemplateHasTheFunctionsOfTheFolders(t *testing.T) {
	mains, err := filepath.Glob("functions/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var folders, built []string
	for _, main := range mains {
		folders = append(folders, filepath.ToSlash(filepath.Dir(main)))
	}
	for name, f := range template(t) {
		if f.name() != strings.ToLower(strings.TrimSuffix(name, "Trail")) || path.Dir(f.code) != "functions" {
			t.Errorf("%s is built from %q", name, f.code)
		}
		built = append(built, f.code)
	}
	slices.Sort(folders)
	slices.Sort(built)
	if !slices.Equal(folders, built) {
		t.Errorf("the folders are %v, and the template builds %v", folders, built)
	}
}

// An alarm that counts lines of the log counts lines that are written.
func TestTheAlarmsCountLinesThatAreWritten(t *testing.T) {
	template, err := os.ReadFile("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	code, err := filepath.Glob("pkg/publish/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var written strings.Builder
	for _, path := range code {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(path, "_test.go") {
			written.Write(text)
		}
	}
	filters := regexp.MustCompile(`FilterPattern: '\{ \$\.msg = ("[^"]*") \}'`).FindAllStringSubmatch(string(template), -1)
	if len(filters) != strings.Count(string(template), "FilterPattern:") || len(filters) == 0 {
		t.Error("this test cannot read the template's filters")
	}
	for _, m := range filters {
		if !strings.Contains(written.String(), "Context(ctx, "+m[1]) {
			t.Errorf("nobody writes the line %s", m[1])
		}
	}
}

// docs/deploy.md has a row for each parameter of the template, and for nothing else.
func TestTheDocsHaveARowForEachParameter(t *testing.T) {
	template, err := os.ReadFile("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, parameters, _ := strings.Cut(string(template), "\nParameters:\n")
	parameters, _, _ = strings.Cut(parameters, "\nRules:\n")
	_, table, _ := strings.Cut(string(page), "| parameter | default | |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var there, told []string
	for _, m := range regexp.MustCompile(`(?m)^  (\w+):$`).FindAllStringSubmatch(parameters, -1) {
		there = append(there, m[1])
	}
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, m := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(first, -1) {
			told = append(told, m[1])
		}
	}
	slices.Sort(there)
	slices.Sort(told)
	if len(there) == 0 || !slices.Equal(there, told) {
		t.Errorf("the template has\n%s\nand docs/deploy.md\n%s", strings.Join(there, "\n"), strings.Join(told, "\n"))
	}
}
