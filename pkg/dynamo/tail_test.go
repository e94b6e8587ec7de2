package dynamo_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/publish"
	"github.com/latchkey/latchkey/pkg/storetest"
	"github.com/latchkey/latchkey/pkg/stream"
)

func tail(t *testing.T, endpoint string, names dynamo.Tables) *dynamo.Tail {
	t.Helper()
	access := dynamo.Config{Endpoint: endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute}
	streams, err := stream.Open(access)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamo.NewClient(access)
	if err != nil {
		t.Fatal(err)
	}
	return dynamo.New(client, names).Tail(streams)
}

// write commits the next entry of an organization, whose clock goes backwards.
func write(t *testing.T, s *dynamo.Store, organizationID string, version int64) string {
	t.Helper()
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(-version) * time.Second)
	e := audit.Entry{ID: audit.NewID(at), OrganizationID: organizationID, At: at, Action: audit.OrgUpdated, RequestID: fmt.Sprint(version)}
	if err := s.PutOrganization(t.Context(), lifecycle.Organization{ID: organizationID, Version: version}, e); err != nil {
		t.Fatal(err)
	}
	return e.ID
}

// bring is what a Tail brings until it has n entries, or nothing ten times. All of it is done, but what is left.
func bring(t *testing.T, f *dynamo.Tail, n int, left ...string) (brought []publish.Record) {
	t.Helper()
	entries := 0
	for idle := 0; entries < n && idle < 10; idle++ {
		records, err := f.Next(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if idle = 0; r.Kind == publish.Written {
				entries++
			}
		}
		brought = append(brought, records...)
	}
	var waiting []publish.Record
	for _, r := range brought {
		if slices.Contains(left, r.EntryID) {
			waiting = append(waiting, r)
		}
	}
	if err := f.Done(t.Context(), waiting); err != nil {
		t.Fatal(err)
	}
	return brought
}

func entryIDs(records []publish.Record) (ids []string) {
	for _, r := range records {
		if r.Kind == publish.Written {
			ids = append(ids, r.EntryID)
		}
	}
	return ids
}

func TestATailBringsWhatIsCommittedInOrderAndGoesOnWhereItWasReleased(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	var want []string
	for version := range int64(150) {
		want = append(want, write(t, store, "acme", version+1))
	}
	first := tail(t, storetest.DynamoDBLocal(t), names)
	brought := bring(t, first, 150)
	if got := entryIDs(brought); !slices.Equal(got, want) {
		t.Fatalf("it brought %v, not %v", got, want)
	}
	if e := brought[149].Entry; brought[149].Err != nil || e.RequestID != "150" || e.OrganizationID != "acme" || e.Action != audit.OrgUpdated {
		t.Errorf("the last is %+v", brought[149])
	}
	more := []string{write(t, store, "acme", 151), write(t, store, "acme", 152), write(t, store, "acme", 153)}
	if got := entryIDs(bring(t, first, 3, more[1])); !slices.Equal(got, more) { // the second waits
		t.Errorf("it brought %v, not %v", got, more)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := entryIDs(bring(t, tail(t, storetest.DynamoDBLocal(t), names), 2)); !slices.Equal(got, more[1:]) {
		t.Errorf("the next one brought %v, not %v", got, more[1:])
	}
}

func TestOfTwoTailsOneBringsUntilItIsGone(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	first, second := tail(t, storetest.DynamoDBLocal(t), names), tail(t, storetest.DynamoDBLocal(t), names)
	one := write(t, store, "acme", 1)
	if got := entryIDs(bring(t, first, 1)); !slices.Equal(got, []string{one}) {
		t.Errorf("the first brought %v", got)
	}
	if got := bring(t, second, 1); len(got) > 0 {
		t.Errorf("the second brought %v meanwhile", got)
	}
	overdue(t, client, names) // the first was not heard of for ten seconds, and wrote nothing down
	two := write(t, store, "acme", 2)
	if got := entryIDs(bring(t, second, 2)); !slices.Equal(got, []string{one, two}) {
		t.Errorf("then the second brought %v", got)
	}
	if err := first.Release(t.Context()); err != nil { // it is not the first one's any more
		t.Fatal(err)
	}
	if got := bring(t, first, 1); len(got) > 0 {
		t.Errorf("the first brought %v, though the second reads", got)
	}
}

// overdue ends whatever lease there is, as time would.
func overdue(t *testing.T, client *dynamodb.Client, names dynamo.Tables) {
	t.Helper()
	found, err := client.Query(t.Context(), &dynamodb.QueryInput{TableName: &names.Keys, KeyConditionExpression: aws.String("pk = :pk"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: "F#audit"}}})
	if err != nil || len(found.Items) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	found.Items[0]["until"] = &types.AttributeValueMemberN{Value: "0"}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &names.Keys, Item: found.Items[0]}); err != nil {
		t.Fatal(err)
	}
}

func TestATailTellsOfTampering(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	id := write(t, store, "acme", 1)
	key := map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "acme"}, "sk": &types.AttributeValueMemberS{Value: id}}
	if _, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &names.Audit, Key: key, UpdateExpression: aws.String("SET actor_id = :nobody"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":nobody": &types.AttributeValueMemberS{Value: "nobody"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &names.Audit, Key: key}); err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, r := range bring(t, tail(t, storetest.DynamoDBLocal(t), names), 2) {
		told = append(told, fmt.Sprintln(r.Kind, r.Change, r.OrganizationID, r.EntryID == id, r.Err))
	}
	if want := []string{"0 INSERT acme true <nil>\n", "1 MODIFY acme true <nil>\n", "1 REMOVE acme true <nil>\n"}; !slices.Equal(told, want) {
		t.Errorf("it told of %q", told)
	}
}

func TestATableWithoutAStreamIsAnErrorThatSaysWhatToDoAndADevelopmentTableIsGivenOne(t *testing.T) {
	client := local(t)
	names := newNames()
	old := &dynamodb.CreateTableInput{TableName: &names.Audit, BillingMode: types.BillingModePayPerRequest}
	for name, kind := range map[string]types.KeyType{"pk": types.KeyTypeHash, "sk": types.KeyTypeRange} {
		old.AttributeDefinitions = append(old.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS})
		old.KeySchema = append(old.KeySchema, types.KeySchemaElement{AttributeName: aws.String(name), KeyType: kind})
	}
	slices.SortFunc(old.KeySchema, func(a, b types.KeySchemaElement) int { return strings.Compare(string(a.KeyType), string(b.KeyType)) })
	if _, err := client.CreateTable(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &names.Audit, Item: map[string]types.AttributeValue{
		"pk": &types.AttributeValueMemberS{Value: "D#development"}, "sk": &types.AttributeValueMemberS{Value: "marker"}}}); err != nil {
		t.Fatal(err)
	}
	feed := tail(t, storetest.DynamoDBLocal(t), names)
	if _, err := feed.Next(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "aws dynamodb update-table --table-name "+names.Audit) {
		t.Errorf("without a stream: %v", err)
	}
	for range 2 {
		if err := dynamo.DevelopmentTables(t.Context(), client, names, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	id := write(t, dynamo.New(client, names), "acme", 1)
	if got := entryIDs(bring(t, feed, 1)); !slices.Equal(got, []string{id}) {
		t.Errorf("it brought %v", got)
	}
}

func TestATailLeavesNothingRunning(t *testing.T) {
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(client, names)
	feed := tail(t, storetest.DynamoDBLocal(t), names)
	write(t, store, "acme", 1)
	bring(t, feed, 1)
	before := runtime.NumGoroutine()
	for version := range int64(20) {
		write(t, store, "acme", version+2)
		bring(t, feed, 1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if records, err := feed.Next(ctx, time.Hour); len(records) > 0 || err == nil {
		t.Errorf("after its end it brings %v, %v", records, err)
	}
	if after := runtime.NumGoroutine(); after > before+2 { // of the connections
		t.Errorf("%d goroutines were %d", after, before)
	}
}
