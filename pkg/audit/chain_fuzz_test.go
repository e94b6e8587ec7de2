package audit_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/latchkey/latchkey/pkg/audit"
)

// meaning is what an export says, whatever the spelling: each value once. Numbers count as they are written.
func meaning(t testing.TB, export []byte) map[string]bool {
	t.Helper()
	values := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(export)); d.More(); {
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("what was proven is no JSON: %v", err)
		}
		some, isList := v.([]any)
		if !isList {
			some = []any{v}
		}
		for _, v := range some {
			values[string(asJSON(t, v))] = true
		}
	}
	return values
}

// seenOrSame demands that an export which was changed is not proven, if what it says is not what it said.
func seenOrSame(t testing.TB, export []byte, said map[string]bool) {
	t.Helper()
	var x audit.Export
	if x.Read(bytes.NewReader(export)) != nil {
		return
	}
	verdicts, err := x.Check()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts {
		if !v.Proven() || len(v.Waiting) > 0 {
			return
		}
	}
	if !maps.Equal(meaning(t, export), said) {
		t.Errorf("this is proven, and was not said before:\n%s", export)
	}
}

// twoStories is a small export with all that matters: two organizations, lines and an array.
func twoStories(t testing.TB) []byte {
	e := audit.Entry{Action: audit.Updated, Changes: []audit.Change{{Field: "n", To: json.RawMessage(`{"é": 10}`)}}}
	a, b := tellOf(t, "acme", 2, e), tellOf(t, "b", 1, e)
	return slices.Concat(a.export(), []byte("["), bytes.Join(append(b.entries, b.links...), []byte(",")), []byte("]\n"))
}

func TestNoByteOfAnExportIsChangedUnseen(t *testing.T) {
	export := twoStories(t)
	said := meaning(t, export)
	if v := check(t, export); len(v) != 2 || !v[0].Proven() || !v[1].Proven() || len(said) != 6 {
		t.Fatalf("as it is: %v", v)
	}
	for at := range export {
		for _, c := range []byte("0aA-\"\\{}, \n") {
			changed := bytes.Clone(export)
			changed[at] = c
			seenOrSame(t, changed, said)
		}
		for _, shorter := range [][]byte{slices.Delete(bytes.Clone(export), at, at+1), slices.Insert(bytes.Clone(export), at, export[at])} {
			seenOrSame(t, shorter, said)
		}
		if t.Failed() {
			return
		}
	}
}

func FuzzTamperedExport(f *testing.F) {
	export := twoStories(f)
	said := meaning(f, export)
	f.Add(uint16(10), byte('x'), uint16(0), byte('{'))
	f.Fuzz(func(t *testing.T, at uint16, c byte, and uint16, d byte) {
		changed := bytes.Clone(export)
		changed[int(at)%len(changed)], changed[int(and)%len(changed)] = c, d
		seenOrSame(t, changed, said)
	})
}
