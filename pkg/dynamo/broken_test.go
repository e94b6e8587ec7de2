package dynamo_test

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// create puts a key of an organization, as lifecycle does.
func create(t *testing.T, store *dynamo.Store, organization string, created time.Time) apikey.Record {
	t.Helper()
	r := record(36, 50, 1)
	r.OrganizationID, r.CreatedAt, r.Version = organization, created, 1
	if err := store.Commit(t.Context(), lifecycle.Change{Create: &r, Entry: entryOf(r)}); err != nil {
		t.Fatal(err)
	}
	return r
}

func entryOf(r apikey.Record) audit.Entry {
	return audit.Entry{ID: audit.NewID(noon), OrganizationID: r.OrganizationID, At: noon, KeyID: &r.ID}
}

func TestABrokenKeyIsAnErrorThatSaysWhatIsWrong(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	remove := func(sk string) func(id apikey.ID) error {
		return func(id apikey.ID) error {
			_, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &names.Keys, Key: itemKey(id, sk)})
			return err
		}
	}
	set := func(sk, attribute string, value types.AttributeValue) func(id apikey.ID) error {
		return func(id apikey.ID) error {
			_, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &names.Keys, Key: itemKey(id, sk),
				UpdateExpression: aws.String("SET #a = :a"), ExpressionAttributeNames: map[string]string{"#a": attribute},
				ExpressionAttributeValues: map[string]types.AttributeValue{":a": value}})
			return err
		}
	}
	number, text := &types.AttributeValueMemberN{Value: "2"}, &types.AttributeValueMemberS{Value: "x"}
	for _, row := range []struct {
		harm  func(apikey.ID) error
		says  string
		debit bool // whether a verify meets the harm
	}{
		{remove("hot"), "its hot item is missing", false},
		{remove("profile"), "its profile is missing", false},
		{set("profile", "n", number), "different changes", false},
		{set("profile", "v", number), "profile: its schema is version 2, not 1", false},
		{set("hot", "v", number), "hot item: its schema is version 2, not 1", true},
		{set("hot", "h", text), "attribute h is missing or of another type", true},
		{set("hot", "ip", &types.AttributeValueMemberSS{Value: []string{"everywhere"}}), "", true},
		{set("hot", "cl", text), "its closing", true},
		{set("profile", "replaced_by", text), "attribute replaced_by", false},
		{set("profile", "scopes", &types.AttributeValueMemberL{Value: []types.AttributeValue{number}}), "attribute scopes", false},
	} {
		r := create(t, store, "org_"+strings.ToLower(audit.NewID(noon)), noon)
		if err := row.harm(r.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Key(t.Context(), r.ID); row.says != "" && (err == nil || errors.Is(err, lifecycle.ErrNotFound) || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("reading says %v, want %q", err, row.says)
		}
		if _, _, err := store.Keys(t.Context(), lifecycle.Query{OrganizationID: r.OrganizationID, Limit: 10}); err == nil && row.says != "" && row.says != "its profile is missing" {
			t.Errorf("a list with a key that %q is shown", row.says)
		}
		d := verify.Debit{ID: r.ID, Hash: r.Hash, Cost: 1, At: noon}
		if _, admitted, err := store.Debit(t.Context(), d); row.debit && (admitted || err == nil || errors.Is(err, verify.ErrNoKey)) {
			t.Errorf("a verify of a key that %q: admitted %v, %v", row.says, admitted, err)
		}
	}
}

func TestABrokenOrganizationOrAnswerIsAnErrorThatSaysWhatIsWrong(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	number, text := &types.AttributeValueMemberN{Value: "2"}, &types.AttributeValueMemberS{Value: "x"}
	for _, row := range []struct {
		pk, attribute string
		value         types.AttributeValue // nil: the attribute is removed
		says          string
	}{
		{"O#", "v", number, "its schema is version 2, not 1"},
		{"O#", "v", nil, "attribute v is missing"},
		{"O#", "n", nil, "attribute n is missing"},
		{"O#", "plan", number, "attribute plan is missing or of another type"},
		{"O#", "claimed_plan", nil, "attribute claimed_plan is missing"},
		{"O#", "active_keys", nil, "attribute active_keys is missing"},
		{"O#", "active_keys", &types.AttributeValueMemberN{Value: "0.5"}, "active_keys is not a whole number"},
		{"O#", "created_at", text, "attribute created_at is missing or of another type"},
		{"O#", "allowed_scopes", text, "attribute allowed_scopes is missing or of another type"}, // not: the deployment's default
		{"I#", "v", number, "its schema is version 2, not 1"},
		{"I#", "v", nil, "attribute v is missing"},
		{"I#", "fingerprint", nil, "attribute fingerprint is missing"},
		{"I#", "key_id", nil, "attribute key_id is missing"},
		{"I#", "key_id", text, "attribute key_id: "},
		{"I#", "until", text, "attribute until is missing or of another type"},
		{"I#", sealedAttribute, text, "attribute sealed_1795435200000 is missing or of another type"}, // not: destroyed
	} {
		id := "org_" + strings.ToLower(audit.NewID(noon))
		keepAnswer(t, store, id)
		e := audit.Entry{ID: audit.NewID(noon), OrganizationID: id, At: noon}
		if err := store.PutOrganization(t.Context(), lifecycle.Organization{ID: id, AllowedScopes: []string{"a"}, CreatedAt: noon, Version: 1}, e); err != nil {
			t.Fatal(err)
		}
		set(t, client, names, address{row.pk + id, map[string]string{"O#": "org", "I#": "replay"}[row.pk]}, row.attribute, row.value)
		read := func() error { _, err := store.Organization(t.Context(), id); return err }
		if row.pk == "I#" {
			read = func() error { _, err := store.Replay(t.Context(), id); return err }
		}
		if err := read(); err == nil || errors.Is(err, lifecycle.ErrNotFound) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s without its own %s: reading says %v, want %q", row.pk, row.attribute, err, row.says)
		}
	}
}

// Else it would be dropped at once, and the same request would make a second key.
func TestAnAnswerThatWasDestroyedIsDroppedNoSooner(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	kept := keepAnswer(t, store, "once")
	whole := get(t, client, names, address{"I#once", "replay"})
	if ttl, _ := whole["ttl"].(*types.AttributeValueMemberN); ttl == nil || ttl.Value != strconv.FormatInt(kept.Until.Unix()+1, 10) {
		t.Fatalf("it is dropped at %v, want a second after %v", whole["ttl"], kept.Until)
	}
	c := lifecycle.Change{Destroy: []apikey.Sealed{{ID: kept.ID, Until: kept.Until}}, Entry: audit.Entry{ID: audit.NewID(noon), OrganizationID: "org", At: noon}}
	if err := store.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	delete(whole, sealedAttribute)
	if left := get(t, client, names, address{"I#once", "replay"}); !reflect.DeepEqual(left, whole) {
		t.Errorf("%v is left, want %v", left, whole)
	}
}

func TestAnAnswerThatDynamoDBDroppedIsNotInTheWayOfItsDestruction(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	kept := keepAnswer(t, store, "once")
	at := address{"I#once", "replay"}
	if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &names.Keys, Key: at.key()}); err != nil {
		t.Fatal(err)
	}
	late := audit.Entry{ID: audit.NewID(noon), OrganizationID: "org", At: kept.Until.Add(time.Hour)}
	c := lifecycle.Change{Destroy: []apikey.Sealed{{ID: kept.ID, Until: kept.Until}}, Entry: late}
	if err := store.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	i := get(t, client, names, at)
	if ttl, _ := i["ttl"].(*types.AttributeValueMemberN); i != nil && (ttl == nil || ttl.Value != strconv.FormatInt(late.At.Unix(), 10) || i["v"] == nil) {
		t.Errorf("%v is left, which is of no schema or never dropped", i)
	}
	if _, err := store.Replay(t.Context(), kept.ID); !errors.Is(err, lifecycle.ErrNotFound) {
		t.Errorf("what is left of it is read as %v", err)
	}
	if again := keepAnswer(t, store, "once"); again.Sealed == nil {
		t.Error("its id cannot be used again")
	}
}

// sealedAttribute is where the secret of keepAnswer's answers is.
const sealedAttribute = "sealed_1795435200000"

// keepAnswer keeps one until noon of the next day.
func keepAnswer(t *testing.T, store *dynamo.Store, id string) lifecycle.Replay {
	t.Helper()
	kept := lifecycle.Replay{ID: id, Fingerprint: []byte{1}, KeyID: apikey.NewID(), Sealed: []byte{2}, Until: noon.Add(24 * time.Hour)}
	e := audit.Entry{ID: audit.NewID(noon), OrganizationID: "org", At: noon}
	if err := store.Commit(t.Context(), lifecycle.Change{Replay: &kept, Entry: e}); err != nil {
		t.Fatal(err)
	}
	got, err := store.Replay(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// address is where an item is.
type address struct{ pk, sk string }

func (a address) key() map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: a.pk}, "sk": &types.AttributeValueMemberS{Value: a.sk}}
}

func get(t *testing.T, client *dynamodb.Client, names dynamo.Tables, at address) map[string]types.AttributeValue {
	t.Helper()
	out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &names.Keys, Key: at.key()})
	if err != nil {
		t.Fatal(err)
	}
	return out.Item
}

// set sets one attribute of an item that exists, or removes it.
func set(t *testing.T, client *dynamodb.Client, names dynamo.Tables, at address, attribute string, value types.AttributeValue) {
	t.Helper()
	i := get(t, client, names, at)
	if i[attribute] == nil {
		t.Fatalf("%v has no %s to change", at, attribute)
	}
	if i[attribute] = value; value == nil {
		delete(i, attribute)
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &names.Keys, Item: i}); err != nil {
		t.Fatal(err)
	}
}

func TestAKeyReadInTheMiddleOfAChangeIsReadAgain(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	r := create(t, dynamo.New(client, names), "org", noon)
	torn := 0
	store := dynamo.New(around(client, func(in any, call func() (any, error)) (any, error) {
		out, err := call()
		if answer, ok := out.(*dynamodb.QueryOutput); ok && torn < 3 {
			torn++
			answer.Items = answer.Items[torn%2:][:1]
		}
		return out, err
	}), names)
	if got, err := store.Key(t.Context(), r.ID); err != nil || got.Name != r.Name || torn != 3 {
		t.Fatalf("after %d torn readings: %v", torn, err)
	}
}

func TestAListWhoseIndexLagsShowsWhatKeysAreNow(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	var stale *dynamodb.QueryOutput // the index as it was
	store := dynamo.New(around(client, func(in any, call func() (any, error)) (any, error) {
		if query, ok := in.(*dynamodb.QueryInput); !ok || query.IndexName == nil {
			return call()
		}
		if stale != nil {
			return stale, nil
		}
		out, err := call()
		stale, _ = out.(*dynamodb.QueryOutput)
		return out, err
	}), names)
	revoked, same := create(t, store, "org", noon), create(t, store, "org", noon.Add(-time.Hour))
	q := lifecycle.Query{OrganizationID: "org", Limit: 10}
	if page, _, err := store.Keys(t.Context(), q); err != nil || len(page) != 2 {
		t.Fatalf("got %d keys, %v", len(page), err)
	}
	revoked.Version, revoked.RevokedAt = 2, &noon
	if err := store.Commit(t.Context(), lifecycle.Change{Update: []lifecycle.Update{{Record: revoked}}, Entry: entryOf(revoked)}); err != nil {
		t.Fatal(err)
	}
	page, _, err := store.Keys(t.Context(), q)
	if err != nil || len(page) != 2 || page[0].ID != revoked.ID || page[0].RevokedAt == nil || page[0].Version != 2 || page[1].ID != same.ID {
		t.Fatalf("got %+v, %v", page, err)
	}
}

func TestAKeyThatChangesSidesWhileBothAreListedIsListed(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	plain := dynamo.New(client, names)
	for _, archive := range []bool{true, false} {
		for before := 1; before <= 9; before++ { // the index query that it changes sides before: three for each list
			r := plainOf("org_" + strings.ToLower(audit.NewID(noon)))
			newer, older := r, r
			newer.ID, newer.CreatedAt, older.ID, older.CreatedAt = apikey.NewID(), noon.Add(time.Hour), apikey.NewID(), noon.Add(-time.Hour)
			if r.ArchivedAt = &noon; archive {
				r.ArchivedAt = nil
			}
			for _, k := range []apikey.Record{newer, r, older} {
				if err := plain.Commit(t.Context(), lifecycle.Change{Create: &k, Entry: entryOf(k)}); err != nil {
					t.Fatal(err)
				}
			}
			queries := 0
			store := dynamo.New(around(client, func(in any, call func() (any, error)) (any, error) {
				if query, ok := in.(*dynamodb.QueryInput); ok && query.IndexName != nil {
					if queries++; queries == before {
						changeSides(t, plain, r)
					}
				}
				return call()
			}), names)
			for limit := 2; limit <= 4; limit++ {
				page, more, err := store.Keys(t.Context(), lifecycle.Query{OrganizationID: r.OrganizationID, Side: lifecycle.Both, Limit: limit})
				if err != nil || len(page) != min(limit, 3) || page[0].ID != newer.ID || page[1].ID != r.ID || more != (limit < 3) {
					t.Errorf("archived %v before query %d, limit %d: got %d keys, more: %v, %v", archive, before, limit, len(page), more, err)
				}
			}
			if queries != 9 {
				t.Errorf("three lists asked the index %d times", queries)
			}
		}
	}
}

// plainOf is a new key of an organization.
func plainOf(organization string) apikey.Record {
	r := plain()
	r.OrganizationID = organization
	return r
}

// changeSides archives a key at version 1, or brings it back.
func changeSides(t *testing.T, store *dynamo.Store, r apikey.Record) {
	t.Helper()
	r.Version = 2
	if r.ArchivedAt != nil {
		r.ArchivedAt = nil
	} else {
		r.ArchivedAt = &noon
	}
	if err := store.Commit(t.Context(), lifecycle.Change{Update: []lifecycle.Update{{Record: r}}, Entry: entryOf(r)}); err != nil {
		t.Error(err)
	}
}

func TestAListIsWholeHoweverDynamoDBCutsItUp(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	var want []apikey.ID
	plain := dynamo.New(client, names)
	for n := range 7 {
		want = append(want, create(t, plain, "org", noon.Add(-time.Duration(n)*time.Second)).ID)
	}
	cut := dynamo.New(around(client, func(in any, call func() (any, error)) (any, error) {
		if query, ok := in.(*dynamodb.QueryInput); ok {
			query.Limit = aws.Int32(2) // as if two items were a megabyte
		}
		batch, ok := in.(*dynamodb.BatchGetItemInput)
		if !ok {
			return call()
		}
		asked := batch.RequestItems[names.Keys].Keys
		batch.RequestItems[names.Keys] = types.KeysAndAttributes{Keys: asked[:1]}
		out, err := call()
		if len(asked) > 1 && err == nil {
			out.(*dynamodb.BatchGetItemOutput).UnprocessedKeys = map[string]types.KeysAndAttributes{names.Keys: {Keys: asked[1:]}}
		}
		return out, err
	}), names)
	for limit := 1; limit <= 8; limit++ {
		page, more, err := cut.Keys(t.Context(), lifecycle.Query{OrganizationID: "org", Limit: limit})
		got := []apikey.ID{}
		for _, r := range page {
			got = append(got, r.ID)
		}
		if err != nil || more != (limit < 7) || !slices.Equal(got, want[:min(limit, 7)]) {
			t.Errorf("limit %d: got %v, more %v, %v", limit, got, more, err)
		}
	}
}
