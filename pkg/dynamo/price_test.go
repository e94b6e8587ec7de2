package dynamo_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/verify"
)

// noon is when the tests happen.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// around is a client whose calls pass through do, the SDK's own attempts included as one.
func around(client *dynamodb.Client, do func(in any, call func() (any, error)) (any, error)) *dynamodb.Client {
	step := middleware.InitializeMiddlewareFunc("around", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (out middleware.InitializeOutput, m middleware.Metadata, err error) {
		out.Result, err = do(in.Parameters, func() (any, error) {
			var o middleware.InitializeOutput
			o, m, err = next.HandleInitialize(ctx, in)
			return o.Result, err
		})
		return out, m, err
	})
	return dynamodb.New(client.Options(), func(o *dynamodb.Options) {
		o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error { return s.Initialize.Add(step, middleware.Before) })
	})
}

// priced is a client that keeps what its last UpdateItem cost.
func priced(client *dynamodb.Client, price *types.ConsumedCapacity) *dynamodb.Client {
	return around(client, func(in any, call func() (any, error)) (any, error) {
		if update, ok := in.(*dynamodb.UpdateItemInput); ok {
			update.ReturnConsumedCapacity = types.ReturnConsumedCapacityIndexes
		}
		out, err := call()
		if update, ok := out.(*dynamodb.UpdateItemOutput); ok && err == nil {
			*price = *update.ConsumedCapacity
		}
		return out, err
	})
}

// bill is what calls cost, by what they were.
type bill map[string]float64

// billed is a client that writes down what transactions and reads cost.
func billed(client *dynamodb.Client, b bill) *dynamodb.Client {
	const total = types.ReturnConsumedCapacityTotal
	return around(client, func(in any, call func() (any, error)) (any, error) {
		switch in := in.(type) {
		case *dynamodb.TransactWriteItemsInput:
			in.ReturnConsumedCapacity = total
		case *dynamodb.QueryInput:
			in.ReturnConsumedCapacity = total
		case *dynamodb.BatchGetItemInput:
			in.ReturnConsumedCapacity = total
		case *dynamodb.GetItemInput:
			in.ReturnConsumedCapacity = total
		}
		out, err := call()
		switch out := out.(type) {
		case *dynamodb.TransactWriteItemsOutput:
			b.add("write", out.ConsumedCapacity...)
		case *dynamodb.QueryOutput:
			b.add("index", *out.ConsumedCapacity)
		case *dynamodb.BatchGetItemOutput:
			b.add("hot items", out.ConsumedCapacity...)
		case *dynamodb.GetItemOutput:
			b.add("get", *out.ConsumedCapacity)
		}
		return out, err
	})
}

func (b bill) add(name string, consumed ...types.ConsumedCapacity) {
	for _, c := range consumed {
		b[name] += *c.CapacityUnits
	}
}

// plain is a key as most are.
func plain() apikey.Record {
	r := record(20, 50, 1)
	r.Name, r.Metadata, r.Counts, r.Version = "deploy", []byte("{}"), nil, 1
	return r
}

func TestAnAnswerThatIsKeptCostsTheWritingAndTheDestroyingOfItsItemAlone(t *testing.T) {
	client, b := local(t), bill{}
	store := dynamo.New(billed(client, b), tables(t, client))
	price := func(c lifecycle.Change) float64 {
		t.Helper()
		clear(b)
		if err := store.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return b["write"]
	}
	kept := lifecycle.Replay{ID: strings.Repeat("0", 64), Fingerprint: make([]byte, 32), KeyID: apikey.NewID(), Until: noon.Add(24 * time.Hour)}
	kept.Sealed = make([]byte, 1700) // a key as JSON and the data key that it was sealed with: an item of 2 KB
	var create, revoke [2]float64
	for n, answers := range [][]lifecycle.Replay{{}, {kept}} {
		r := plain()
		c := lifecycle.Change{Create: &r, Entry: entryOf(r)}
		for _, a := range answers {
			r.Sealed, c.Replay = &apikey.Sealed{ID: a.ID, Until: a.Until}, &a
		}
		create[n] = price(c)
		next := r
		next.Version, next.RevokedAt = 2, &noon
		c = lifecycle.Change{Update: []lifecycle.Update{{Record: next}}, Entry: entryOf(r)}
		for _, a := range answers {
			c.Destroy = []apikey.Sealed{{ID: a.ID, Until: a.Until}}
		}
		revoke[n] = price(c)
	}
	t.Logf("a create costs %v units, a revocation %v", create, revoke)
	if create[1] != create[0]+4 || revoke[1] != revoke[0]+4 { // two units for each KB of what is written in a transaction
		t.Errorf("with an answer a create costs %v units instead of %v, a revocation %v instead of %v, want 4 more", create[1], create[0], revoke[1], revoke[0])
	}
	for _, id := range []string{kept.ID, "unknown"} {
		clear(b)
		if _, err := store.Replay(t.Context(), id); err != nil && !errors.Is(err, lifecycle.ErrNotFound) || b["get"] != 1 {
			t.Errorf("looking for an answer costs %v, %v", b, err)
		}
	}
}

func TestADeliveryCostsThreeWritesOfItsItemAndOfItsPlaceInTheIndex(t *testing.T) {
	var price types.ConsumedCapacity
	client := local(t)
	store := dynamo.New(around(client, func(in any, call func() (any, error)) (any, error) {
		if put, ok := in.(*dynamodb.PutItemInput); ok {
			put.ReturnConsumedCapacity = types.ReturnConsumedCapacityIndexes
		}
		out, err := call()
		if put, ok := out.(*dynamodb.PutItemOutput); ok && err == nil {
			price = *put.ConsumedCapacity
		}
		return out, err
	}), tables(t, client))
	at := noon
	id := "dlv_" + audit.NewID(noon) + "_" + audit.NewID(noon)
	r := notify.Record{Delivery: notify.Delivery{ID: id, WebhookID: new("wh_" + audit.NewID(noon)), KeyID: new(apikey.NewID()), EventID: audit.NewID(noon), EventType: audit.Created,
		Status: notify.Pending, Attempts: []notify.Attempt{}, NextAttemptAt: &at, CreatedAt: noon}, OrganizationID: "org", Sequence: 7, Body: make([]byte, 1000),
		Until: noon.Add(notify.Keep), Version: 1}
	for _, c := range []struct {
		does         string
		table, index float64
		change       func()
	}{
		{"to announce it", 2, 1, func() {}},
		{"to claim its attempt", 2, 2, func() { r.Tries, r.Claimed, r.NextAttemptAt = 1, &noon, new(noon.Add(time.Minute)) }},
		{"to write down that it arrived", 2, 1, func() {
			r.Status, r.Claimed, r.NextAttemptAt, r.Attempts = notify.Delivered, nil, nil, []notify.Attempt{{At: noon, Outcome: "delivered", Status: 200, DurationMS: 12}}
		}},
	} {
		c.change()
		put := store.UpdateDelivery
		if r.Version == 1 {
			put = store.AddDelivery
		}
		if err := put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		r.Version++
		index := price.GlobalSecondaryIndexes["due"].CapacityUnits
		if *price.Table.CapacityUnits != c.table || index == nil || *index != c.index || len(price.GlobalSecondaryIndexes) != 1 {
			t.Errorf("%s costs %v units and in the index %v, want %v and %v", c.does, *price.Table.CapacityUnits, aws.ToFloat64(index), c.table, c.index)
		}
	}
}

func TestAListOfBothSidesCostsAThirdIndexQueryAndNoHotItemTwice(t *testing.T) {
	client, b := local(t), bill{}
	store := dynamo.New(billed(client, b), tables(t, client))
	for n := range 20 {
		r := plain()
		if r.OrganizationID = "org"; n%2 == 0 {
			r.RevokedAt = &noon
		}
		if err := store.Commit(t.Context(), lifecycle.Change{Create: &r, Entry: entryOf(r)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		side lifecycle.Side
		want bill
	}{
		{lifecycle.Living, bill{"index": 0.5, "hot items": 10}}, // less than 4 KB of profiles, as the index has them
		{lifecycle.Ended, bill{"index": 0.5, "hot items": 10}},
		{lifecycle.Both, bill{"index": 1.5, "hot items": 20}},
	} {
		clear(b)
		page, _, err := store.Keys(t.Context(), lifecycle.Query{OrganizationID: "org", Side: row.side, Limit: 100})
		if err != nil || float64(len(page)) != row.want["hot items"] || !maps.Equal(b, row.want) {
			t.Errorf("side %d: %d keys cost %v, want %v; %v", row.side, len(page), b, row.want, err)
		}
	}
}

// record is a key with ids of that many characters, scopes of so many bytes, and networks.
func record(idLength, scopeBytes, cidrs int) apikey.Record {
	id := func(s string) string { return s + strings.Repeat("x", idLength-len(s)) }
	r := apikey.Record{
		Key: apikey.Key{ID: apikey.NewID(), OrganizationID: id("org"), ProjectID: id("project"), EnvironmentID: new(id("env")),
			ExternalID: new(id("external")), Name: strings.Repeat("n", lifecycle.MaxName), Enabled: true,
			RateLimitPerMinute: new(int64(lifecycle.MaxLimit)), DailyLimit: new(int64(lifecycle.MaxLimit)),
			Metadata: []byte(`{"a":"` + strings.Repeat("m", 4000) + `"}`), CreatedAt: noon, UpdatedAt: noon,
			ExpiresAt: new(noon.Add(time.Hour)), GraceExpiresAt: new(noon.Add(2 * time.Hour)), Version: 1_000_000},
		Counted: true, Counts: map[apikey.Window]int64{},
	}
	r.Hash = apikey.NewPlaintext(r.ID.String()).Hash()
	for n := byte(0); scopeBytes > 0; n++ {
		size := min(scopeBytes, 25)
		r.Scopes = append(r.Scopes, strings.Repeat(string('a'+rune(n%26)), size-1)+string('0'+rune(n/26)))
		scopeBytes -= size
	}
	for n := range cidrs {
		r.AllowedCIDRs = append(r.AllowedCIDRs, "203.0."+string('1'+rune(n/9))+"0."+string('1'+rune(n%9))+"/32")
	}
	// Eight old names are kept before a verify drops them; then those of yesterday and of the last minute.
	for n := range int64(9) {
		r.Counts[apikey.MinuteWindow(noon, 3+n)] = 999_999_999
	}
	for _, w := range []apikey.Window{apikey.MinuteWindow(noon, 1), apikey.MinuteWindow(noon, 0), apikey.DayWindow(noon, 1), apikey.DayWindow(noon, 0)} {
		r.Counts[w] = 999_999_998
	}
	return r
}

func TestAVerifyOfAFullyPopulatedKeyCostsOneWriteUnit(t *testing.T) {
	var price types.ConsumedCapacity
	client := local(t)
	names := tables(t, client)
	store := dynamo.New(priced(client, &price), names)
	for _, row := range []struct {
		key                       string
		idLength, scopes, network int
		units                     float64
	}{
		{"no scopes, no networks, ids of 36 characters", 36, 0, 0, 1},
		{"250 bytes of scopes, 10 networks, ids of 36 characters", 36, 250, 10, 1},
		{"400 bytes of scopes, ids of 36 characters", 36, 400, 0, 1},
		{"1000 bytes of scopes", 36, 1000, 0, 2},
		{"no scopes, ids of 128 characters", 128, 0, 0, 1},
		{"400 bytes of scopes, ids of 128 characters", 128, 400, 0, 2},
		{"100 scopes of 25 bytes, 80 networks", 36, 2500, 80, 4},
	} {
		r := record(row.idLength, row.scopes, row.network)
		entry := audit.Entry{ID: audit.NewID(noon), OrganizationID: r.OrganizationID, At: noon}
		if err := store.Commit(t.Context(), lifecycle.Change{Create: &r, Entry: entry}); err != nil {
			t.Fatal(err)
		}
		d := verify.Debit{ID: r.ID, Hash: r.Hash, OrganizationID: r.OrganizationID, Scopes: r.Scopes, Cost: 1, At: noon}
		if _, admitted, err := store.Debit(t.Context(), d); err != nil || !admitted {
			t.Fatalf("%s: admitted %v, %v", row.key, admitted, err)
		}
		size := hotSize(t, client, names, r.ID)
		t.Logf("%s: %d bytes, %v units", row.key, size, *price.CapacityUnits)
		if units := aws.ToFloat64(price.CapacityUnits); units != row.units || len(price.GlobalSecondaryIndexes) > 0 {
			t.Errorf("%s: a verify costs %v units and writes %d indexes, want %v and none", row.key, units, len(price.GlobalSecondaryIndexes), row.units)
		}
		if row.units == 1 && size > 1024 {
			t.Errorf("%s: the hot item has %d bytes, want at most 1024", row.key, size)
		}
	}
}

func TestAKeyInSteadyUseKeepsOnlyCountersThatAreNotPast(t *testing.T) {
	client := local(t)
	store := dynamo.New(client, tables(t, client))
	r := record(36, 0, 0)
	r.ExpiresAt, r.GraceExpiresAt, r.Counts = nil, nil, nil
	if err := store.Commit(t.Context(), lifecycle.Change{Create: &r, Entry: entryOf(r)}); err != nil {
		t.Fatal(err)
	}
	for _, every := range []time.Duration{time.Minute, 24 * time.Hour} {
		want := map[time.Duration]int{time.Minute: apikey.PastMinutes, 24 * time.Hour: apikey.PastDays}[every]
		at := noon
		for range 10 {
			at = at.Add(every)
			if _, admitted, err := store.Debit(t.Context(), verify.Debit{ID: r.ID, Hash: r.Hash, Cost: 1, At: at}); err != nil || !admitted {
				t.Fatalf("admitted %v, %v", admitted, err)
			}
		}
		got, err := store.Key(t.Context(), r.ID)
		of := map[bool]int{}
		for w := range got.Counts {
			of[w.Day()]++
		}
		if day := every > time.Hour; err != nil || of[day] != want {
			t.Errorf("used every %v it keeps %v, %v", every, got.Counts, err)
		}
	}
}

// hotSize is the size of a hot item as DynamoDB counts it: names and values, a number at two digits a byte and one more.
func hotSize(t *testing.T, client *dynamodb.Client, names dynamo.Tables, id apikey.ID) (size int) {
	t.Helper()
	out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &names.Keys, Key: itemKey(id, "hot")})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range out.Item {
		size += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			size += len(v.Value)
		case *types.AttributeValueMemberB:
			size += len(v.Value)
		case *types.AttributeValueMemberN:
			size += (len(v.Value)+1)/2 + 1
		case *types.AttributeValueMemberBOOL:
			size++
		case *types.AttributeValueMemberSS:
			size += len(strings.Join(v.Value, ""))
		default:
			t.Fatalf("a hot item holds a %T", value)
		}
	}
	return size
}

// itemKey is where one of a key's two items is.
func itemKey(id apikey.ID, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{
		"pk": &types.AttributeValueMemberS{Value: "K#" + strings.TrimPrefix(id.String(), "key_")},
		"sk": &types.AttributeValueMemberS{Value: sk},
	}
}

// A verify that comes to 80 or 100 percent of a day's limit hints, and no other does.
func TestAHintCostsItsKeysProfileInTheTableAndInEachIndex(t *testing.T) {
	var price types.ConsumedCapacity
	client := local(t)
	store := dynamo.New(priced(client, &price), tables(t, client))
	full := record(36, 0, 0) // with 4 KB of metadata
	for _, row := range []struct {
		key  string
		r    apikey.Record
		want [2]float64 // the first of a key that nobody was to look at, and one after it, which leaves another time in the index of what is due
	}{{"as most are", plain(), [2]float64{4, 5}}, {"fully populated", full, [2]float64{16, 17}}} {
		if err := store.Commit(t.Context(), lifecycle.Change{Create: &row.r, Entry: entryOf(row.r)}); err != nil {
			t.Fatal(err)
		}
		for n, want := range row.want {
			if err := store.Hint(t.Context(), row.r.ID, row.r.OrganizationID, noon.Add(time.Duration(n)*time.Hour)); err != nil {
				t.Fatal(err)
			}
			if got := *price.CapacityUnits; got != want {
				t.Errorf("hint %d at a key %s costs %v units, want %v", n+1, row.key, got, want)
			}
		}
	}
}
