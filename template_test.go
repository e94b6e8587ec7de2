package latchkey_test

import (
	"bufio"
	"os"
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
}

var (
	resource = regexp.MustCompile(`^  (\w+):$`)
	codeURI  = regexp.MustCompile(`^      CodeUri: (\S+)$`)
	telling  = regexp.MustCompile(`\b(Path|CodeUri):`)
	event    = regexp.MustCompile(`^        \w+: \{Type: (?:Api|HttpApi), Properties: \{(?:RestApiId: !Ref Management|ApiId: !Ref Doors), Path: '?([^ ']+)'?, Method: ([A-Z]+)\}\}$`)
)

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
		} else if m := event.FindStringSubmatch(line); m != nil {
			functions[current].routes = append(functions[current].routes, m[2]+" "+m[1])
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
	for name, f := range template(t) {
		for _, route := range f.routes {
			written = append(written, strings.ToLower(name)+" "+route)
		}
	}
	slices.Sort(table)
	slices.Sort(written)
	if !slices.Equal(table, written) {
		t.Errorf("the route table is\n%s\nand the template has\n%s", strings.Join(table, "\n"), strings.Join(written, "\n"))
	}
}

// Every function of the template is built from the folder of its name, and every folder is a function of the template.
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
		if f.code != "functions/"+strings.ToLower(name) {
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
