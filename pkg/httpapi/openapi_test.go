package httpapi_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const contract = "../../docs/openapi.yaml"

// under lists the names that stand directly below a path of names in the contract, which is indented by two spaces.
func under(t *testing.T, path ...string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	depth, entry := 0, regexp.MustCompile(`^( *)([^ #:{-][^ :]*):`)
	for line := range strings.Lines(string(b)) {
		m := entry.FindStringSubmatch(line)
		switch {
		case m == nil || len(m[1]) > 2*depth:
		case depth == len(path) && len(m[1]) == 2*depth:
			names = append(names, m[2])
		case depth == len(path): // what path names has ended
			return names
		case m[2] == path[depth]:
			depth++
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s has nothing under %v", contract, path)
	}
	return names
}

// In the contract a route that takes any method has the seven that API Gateway's ANY has, and says that it takes others.
func TestTheContractNamesTheRoutesAndNoOthers(t *testing.T) {
	var routes, written []string
	for _, r := range new(httpapi.API).Routes() {
		methods := []string{strings.ToLower(r.Method)}
		if r.Method == httpapi.Any {
			methods = []string{"delete", "get", "head", "options", "patch", "post", "put", "x-any-method"}
		}
		for _, m := range methods {
			routes = append(routes, r.Pattern+" "+m)
		}
	}
	for _, path := range under(t, "paths") {
		for _, m := range under(t, "paths", path) {
			if m != "parameters" {
				written = append(written, path+" "+m)
			}
		}
	}
	slices.Sort(routes)
	slices.Sort(written)
	if !slices.Equal(routes, written) {
		t.Errorf("the routes are\n%s\nand the contract has\n%s", strings.Join(routes, "\n"), strings.Join(written, "\n"))
	}
}

func TestTheContractHasTheFieldsOfTheTypes(t *testing.T) {
	for name, of := range map[string]reflect.Type{"Key": reflect.TypeFor[apikey.Key](), "NewKey": reflect.TypeFor[lifecycle.New]()} {
		var fields []string
		for f := range of.Fields() {
			if tag := f.Tag.Get("json"); tag != "-" {
				fields = append(fields, tag)
			}
		}
		if got := under(t, "components", "schemas", name, "properties"); !slices.Equal(got, fields) {
			t.Errorf("%s has the fields\n%v\nwant\n%v", name, got, fields)
		}
	}
}

func TestTheContractHasEveryCode(t *testing.T) {
	b, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	_, problem, _ := strings.Cut(string(b), "\n    Problem:\n")
	_, enum, _ := strings.Cut(problem, "enum: [")
	enum, _, _ = strings.Cut(enum, "]")
	written := strings.FieldsFunc(enum, func(c rune) bool { return strings.ContainsRune(", \n", c) })
	refusals := slices.DeleteFunc(codes(t), func(c apikey.Code) bool { return c == apikey.Valid })
	for _, code := range refusals {
		if !slices.Contains(written, string(code)) {
			t.Errorf("the contract's Problem does not have the code %s", code)
		}
	}
	if len(written) != len(refusals) {
		t.Errorf("the contract's Problem has %d codes, want %d", len(written), len(refusals))
	}
}
