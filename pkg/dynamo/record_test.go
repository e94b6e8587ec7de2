package dynamo_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/publish"
)

const (
	entryID   = "01KAGQ2J0000000000000000AA"
	entryKeys = `{"pk": {"S": "acme"}, "sk": {"S": "` + entryID + `"}}`
	image     = `{"pk": {"S": "acme"}, "sk": {"S": "` + entryID + `"}, "v": {"N": "1"}, "at": {"N": "1795377600000"}, "action": {"S": "api_key.updated"},
		"actor_kind": {"S": "user"}, "actor_id": {"S": "ann"}, "address": {"S": "192.0.2.1"}, "request_id": {"S": "r-1"}, "key_id": {"S": "key_00000001"},
		"changes": {"S": "[{\"field\":\"name\",\"from\":\"a\",\"to\":\"b\"}]"}, "later": {"M": {"x": {"BOOL": true}}}}`
)

func TestARecordOfTheStreamIsTheEntryThatWasWritten(t *testing.T) {
	id, err := apikey.ParseID("key_00000001")
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1_795_377_600_000).UTC()
	want := publish.Record{ID: "7", Change: "INSERT", OrganizationID: "acme", EntryID: entryID, At: at, Entry: audit.Entry{ID: entryID, OrganizationID: "acme",
		At: at, Action: audit.Updated, ActorKind: "user", ActorID: "ann", Address: "192.0.2.1", RequestID: "r-1", KeyID: &id,
		Changes: []audit.Change{{Field: "name", From: json.RawMessage(`"a"`), To: json.RawMessage(`"b"`)}}}}
	if got := dynamo.ReadRecord("INSERT", "7", at, json.RawMessage(entryKeys), json.RawMessage(image)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, not %+v", got, want)
	}
}

func TestWhateverElseIsDoneToTheTrailIsTamperingOrAnErrorAndNeverPassedOver(t *testing.T) {
	other := strings.ReplaceAll(entryKeys, entryID, strings.ToLower(entryID))
	for name, c := range map[string]struct {
		change, keys, image string
		kind                publish.Kind
		err                 bool
	}{
		"an entry":                        {"INSERT", entryKeys, image, publish.Written, false},
		"the mark of development":         {"INSERT", `{"pk": {"S": "D#development"}, "sk": {"S": "marker"}}`, `{}`, publish.Foreign, false},
		"a change of an entry":            {"MODIFY", entryKeys, image, publish.Tampered, false},
		"a deletion":                      {"REMOVE", entryKeys, "", publish.Tampered, false},
		"a change nobody knows":           {"UPSERT", entryKeys, image, publish.Tampered, false},
		"a deletion with a broken image":  {"REMOVE", entryKeys, `{`, publish.Tampered, false},
		"a deletion among development's":  {"REMOVE", strings.ReplaceAll(entryKeys, "acme", "D#development"), "", publish.Tampered, false},
		"an id in another spelling":       {"INSERT", other, strings.ReplaceAll(image, entryID, strings.ToLower(entryID)), publish.Tampered, false},
		"an item that is no entry":        {"INSERT", `{"pk": {"S": "acme"}, "sk": {"S": "marker"}}`, `{}`, publish.Tampered, false},
		"no image":                        {"INSERT", entryKeys, "", publish.Written, true},
		"an image that is no JSON":        {"INSERT", entryKeys, `{"pk": `, publish.Written, true},
		"an image of another entry":       {"INSERT", entryKeys, strings.Replace(image, "acme", "globex", 1), publish.Written, true},
		"an image of another version":     {"INSERT", entryKeys, strings.Replace(image, `"N": "1"`, `"N": "2"`, 1), publish.Written, true},
		"an image without an action":      {"INSERT", entryKeys, strings.Replace(image, `"action"`, `"x"`, 1), publish.Written, true},
		"an image of attributes untyped":  {"INSERT", entryKeys, `{"pk": "acme"}`, publish.Written, true},
		"an attribute of two types":       {"INSERT", entryKeys, strings.Replace(image, `"S": "ann"`, `"S": "ann", "N": "1"`, 1), publish.Written, true},
		"a number that is written as one": {"INSERT", entryKeys, strings.Replace(image, `"N": "1"`, `"N": 1`, 1), publish.Written, true},
		"changes that are no JSON":        {"INSERT", entryKeys, strings.Replace(image, `[{`, `[`, 1), publish.Written, true},
		"no keys":                         {"INSERT", `{}`, image, publish.Written, true},
		"keys of another type":            {"REMOVE", `{"pk": {"N": "1"}, "sk": {"S": "x"}}`, "", publish.Written, true},
		"keys that are no JSON":           {"INSERT", ``, image, publish.Written, true},
	} {
		r := dynamo.ReadRecord(c.change, "7", time.Time{}, json.RawMessage(c.keys), json.RawMessage(c.image))
		if r.Kind != c.kind || (r.Err != nil) != c.err || r.ID != "7" || r.Change != c.change {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add("INSERT", entryKeys, image)
	f.Add("REMOVE", entryKeys, "")
	f.Fuzz(func(t *testing.T, change, keys, image string) {
		r := dynamo.ReadRecord(change, "7", time.Time{}, json.RawMessage(keys), json.RawMessage(image))
		if r.Kind == publish.Written && r.Err == nil && (change != "INSERT" || !audit.ValidID(r.EntryID) || r.Entry.ID != r.EntryID || r.Entry.OrganizationID != r.OrganizationID) {
			t.Errorf("%+v passes as an entry", r)
		}
	})
}
