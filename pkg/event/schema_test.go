package event_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/publish"
)

const docs = "../../docs/"

// others are the messages that are no events of the trail, by the names of their schemas.
var others = []string{string(notify.TestEvent), publish.AlarmType, "delivery-api_key.rotated"}

// schemas are those of docs/events, by their names, and the JSON of each.
func schemas(t *testing.T) (map[string]*jsonschema.Schema, map[string]map[string]any) {
	t.Helper()
	paths, err := filepath.Glob(docs + "events/v1/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no schemas, %v", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	compiled, texts := map[string]*jsonschema.Schema{}, map[string]map[string]any{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		texts[name] = read(t, must(os.ReadFile(path))).(map[string]any)
		id := texts[name]["$id"].(string)
		if filepath.Base(id) != filepath.Base(path) {
			t.Errorf("%s calls itself %s", path, id)
		}
		if err := c.AddResource(id, texts[name]); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range texts {
		if compiled[name], err = c.Compile(text["$id"].(string)); err != nil {
			t.Fatal(err)
		}
	}
	return compiled, texts
}

// read is JSON as the validator has it.
func read(t *testing.T, text []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// lived is all messages of a life, each type at least once.
func lived(t *testing.T) (*life, map[string][][]byte) {
	t.Helper()
	l := newLife(t)
	l.lives()
	all := l.messages()
	for _, name := range names() {
		if len(all[name]) == 0 {
			t.Errorf("there is no %s: the life does not hold all", name)
		}
	}
	return l, all
}

// names are those of all messages.
func names() []string {
	list := slices.Clone(others)
	for _, a := range audit.Actions() {
		list = append(list, string(a))
	}
	slices.Sort(list)
	return list
}

func TestEveryMessageThatLeavesIsAsItsSchemaSaysAndAsNoOther(t *testing.T) {
	_, all := lived(t)
	compiled, _ := schemas(t)
	for name, messages := range all {
		for _, m := range messages {
			if err := compiled[name].Validate(read(t, m)); err != nil {
				t.Errorf("%s: %v\n%s", name, err, m)
			}
			for other := range compiled {
				if err := compiled[other].Validate(read(t, m)); other != name && other != "event" && err == nil {
					t.Errorf("a message of %s is as the schema of %s says", name, other)
				}
			}
		}
	}
}

func TestEveryExampleIsAsItsSchemaSays(t *testing.T) {
	compiled, texts := schemas(t)
	for name, text := range texts {
		examples, _ := text["examples"].([]any)
		if len(examples) == 0 && name != "event" {
			t.Errorf("%s has no example", name)
		}
		for _, e := range examples {
			if err := compiled[name].Validate(e); err != nil {
				t.Errorf("the example of %s: %v", name, err)
			}
		}
	}
}

// Whatever is taken out of a message, or written into its changes, its schema sees.
func TestASchemaRefusesWhatIsNotItsMessage(t *testing.T) {
	_, all := lived(t)
	compiled, _ := schemas(t)
	for name, messages := range all {
		for path := range members(read(t, messages[0]), "") {
			m := read(t, messages[0])
			remove(m, strings.Split(path, "/")[1:])
			if compiled[name].Validate(m) == nil {
				t.Errorf("%s without %s is as its schema says", name, path)
			}
		}
		data := read(t, messages[0]).(map[string]any)
		if changes, ok := data["data"].(map[string]any)["changes"]; ok {
			data["data"].(map[string]any)["changes"] = append(changes.([]any), map[string]any{"field": "hash", "from": nil, "to": "aGFzaA=="})
			if compiled[name].Validate(data) == nil {
				t.Errorf("%s may tell of another field", name)
			}
		}
	}
}

// members are the paths of all members of objects that are in no list.
func members(v any, at string) map[string]bool {
	found := map[string]bool{}
	if object, ok := v.(map[string]any); ok {
		for name, member := range object {
			found[at+"/"+name] = true
			maps.Copy(found, members(member, at+"/"+name))
		}
	}
	return found
}

func remove(v any, path []string) {
	object := v.(map[string]any)
	if len(path) == 1 {
		delete(object, path[0])
		return
	}
	remove(object[path[0]], path[1:])
}

func TestTheSchemasNameEveryFieldOfAKeyThatIsTold(t *testing.T) {
	var want []string
	for f := range reflect.TypeFor[apikey.Key]().Fields() {
		if name := f.Tag.Get("json"); !slices.Contains([]string{"-", "status", "last_used_at", "updated_at"}, name) {
			want = append(want, name)
		}
	}
	_, texts := schemas(t)
	var got []string
	for _, kind := range texts["event"]["$defs"].(map[string]any)["key_change"].(map[string]any)["anyOf"].([]any) {
		field := kind.(map[string]any)["properties"].(map[string]any)["field"].(map[string]any)
		if one, ok := field["const"]; ok {
			got = append(got, one.(string))
			continue
		}
		for _, name := range field["enum"].([]any) {
			got = append(got, name.(string))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the schemas name %q, a key has %q", got, want)
	}
}

func TestEveryMessageHasASchemaAndARowAndNothingElseHas(t *testing.T) {
	_, texts := schemas(t)
	delete(texts, "event")
	if got := slices.Sorted(maps.Keys(texts)); !slices.Equal(got, names()) {
		t.Errorf("there are schemas of %q, want %q", got, names())
	}
	page := must(os.ReadFile(docs + "events.md"))
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| \\[`([a-z_.-]+)`\\]\\(events/v1/([a-z_.-]+)\\.json\\) \\|").FindAllSubmatch(page, -1) {
		rows = append(rows, string(row[2]))
		if name := string(row[1]); name != string(row[2]) {
			t.Errorf("the row of %s leads to the schema of %s", name, row[2])
		}
	}
	slices.Sort(rows)
	if !slices.Equal(rows, names()) {
		t.Errorf("docs/events.md has rows of %q, want %q", rows, names())
	}
}

func TestTheEventThatThePageShowsIsAsItsSchemaSays(t *testing.T) {
	compiled, _ := schemas(t)
	page := must(os.ReadFile(docs + "events.md"))
	shown := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(page, -1)
	if len(shown) == 0 {
		t.Error("docs/events.md shows no event")
	}
	for _, block := range shown {
		var e struct{ Type string }
		if err := json.Unmarshal(block[1], &e); err != nil || compiled[e.Type] == nil {
			t.Errorf("docs/events.md shows a %q, %v", e.Type, err)
		} else if err := compiled[e.Type].Validate(read(t, block[1])); err != nil {
			t.Error(err)
		}
	}
}

// The delivery of a successor alone carries a key, and it is no event.
func TestNoEventHoldsAKeyAHashOrWhatIsSealed(t *testing.T) {
	l, all := lived(t)
	if n := len(l.secrets); n < 100 {
		t.Fatalf("only %d spellings are looked for", n)
	}
	deliveries := all["delivery-api_key.rotated"]
	delete(all, "delivery-api_key.rotated")
	found := func(m []byte) bool {
		return slices.ContainsFunc(l.secrets, func(s string) bool { return bytes.Contains(m, []byte(s)) })
	}
	for _, m := range deliveries {
		if !found(m) {
			t.Error("the delivery of a successor holds no secret that is known: the test sees none")
		}
	}
	for name, messages := range all {
		if slices.ContainsFunc(messages, found) {
			t.Errorf("a message of %s holds a secret", name)
		}
	}
}
