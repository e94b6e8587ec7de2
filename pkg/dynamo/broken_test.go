package dynamo_test

import (
	"errors"
	"slices"
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
