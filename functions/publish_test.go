package functions_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/seal"
)

// streamed are the functions that a table's stream starts. They serve no route.
var streamed = map[string]bool{"publish": true}

// eventBus plays EventBridge.
type eventBus struct {
	url string

	mu      sync.Mutex
	sent    []event.Event
	alarms  []string
	refuses func(event.Event) bool // nil: none
}

func newEventBus(t *testing.T) *eventBus {
	t.Helper()
	b := &eventBus{}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *eventBus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var in struct {
		Entries []struct{ EventBusName, Source, DetailType, Detail string }
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	var results []map[string]string
	for _, e := range in.Entries {
		var sent event.Event
		_ = json.Unmarshal([]byte(e.Detail), &sent)
		switch {
		case e.EventBusName != "events" || e.Source != "latchkey" || e.DetailType != string(sent.Type) || b.refuses != nil && b.refuses(sent):
			results = append(results, map[string]string{"ErrorCode": "InternalFailure"})
			continue
		case e.DetailType == "audit.tampered":
			b.alarms = append(b.alarms, e.Detail)
		default:
			b.sent = append(b.sent, sent)
		}
		results = append(results, map[string]string{"EventId": "1"})
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(map[string]any{"Entries": results})
}

// of lists the events that an organization's bus took, by their numbers.
func (b *eventBus) of(organizationID string) (numbers []int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.sent {
		if e.Data.OrganizationID == organizationID {
			numbers = append(numbers, e.Data.Chain.Sequence)
		}
	}
	return numbers
}

// publishing is what publish has before it: a service with some history, and a bus.
type publishing struct {
	deployed
	bus     *eventBus
	records []map[string]any // of the audit table's stream: acme's entries and globex's, one of each after another
}

func newPublishing(t *testing.T) *publishing {
	t.Helper()
	p := &publishing{deployed: deploy(t), bus: newEventBus(t)}
	p.environment = append(p.environment, "LATCHKEY_EVENT_BUS=events", "LATCHKEY_EVENTBRIDGE_ENDPOINT="+p.bus.url)
	p.key(t, lifecycle.New{Name: "one"})
	p.key(t, lifecycle.New{Name: "two"})
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: setting(p.environment, "LATCHKEY_DYNAMODB_ENDPOINT"), LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.Query(t.Context(), &dynamodb.QueryInput{TableName: aws.String(setting(p.environment, "LATCHKEY_AUDIT_TABLE")),
		KeyConditionExpression: aws.String("pk = :pk"), ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: "acme"}}})
	if err != nil || len(out.Items) < 4 {
		t.Fatalf("%v, %v", out, err)
	}
	for _, i := range out.Items {
		for _, organization := range []string{"acme", "globex"} {
			image := map[string]any{}
			for name, v := range i {
				switch v := v.(type) {
				case *types.AttributeValueMemberS:
					image[name] = map[string]string{"S": v.Value}
				case *types.AttributeValueMemberN:
					image[name] = map[string]string{"N": v.Value}
				default:
					t.Fatalf("an entry has %s of type %T", name, v)
				}
			}
			image["pk"] = map[string]string{"S": organization}
			p.records = append(p.records, p.record("INSERT", image))
		}
	}
	return p
}

// record is one of the stream, numbered from 100.
func (p *publishing) record(change string, image map[string]any) map[string]any {
	told := map[string]any{"Keys": map[string]any{"pk": image["pk"], "sk": image["sk"]}, "SequenceNumber": fmt.Sprint(100 + len(p.records)),
		"ApproximateCreationDateTime": 1795377600, "StreamViewType": "NEW_IMAGE"}
	if change != "REMOVE" {
		told["NewImage"] = image
	}
	return map[string]any{"eventName": change, "eventSource": "aws:dynamodb", "dynamodb": told}
}

// linked are the numbers that an organization's chain has.
func (p *publishing) linked(t *testing.T, organizationID string) (numbers []int64) {
	t.Helper()
	links, _, err := p.app.Store.(lifecycle.Store).Links(t.Context(), organizationID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		numbers = append(numbers, l.Sequence)
	}
	return numbers
}

// brings gives a function records, and demands an answer: the sequence number of the first that is not done, "" for none.
func (f *function) brings(records []map[string]any, left string) {
	f.t.Helper()
	want := `{"batchItemFailures":[]}`
	if left != "" {
		want = fmt.Sprintf(`{"batchItemFailures":[{"itemIdentifier":%q}]}`, left)
	}
	if r := f.invoke(map[string]any{"Records": records}); string(r.answer) != want || r.failed != "" {
		f.t.Errorf("it answers %s, error %q, not %s", r.answer, r.failed, want)
	}
}

func TestWhatWasWrittenIsPublishedInOrderAndNothingTwice(t *testing.T) {
	p := newPublishing(t)
	p.app.Keys.Seal = seal.NewLocal([32]byte{}) // what deliveries are signed with; none is made here
	sub, err := p.app.Notify.Create(p.operator(), notify.New{URL: "https://example.com/events", EventTypes: []string{string(audit.Created)}})
	if err != nil {
		t.Fatal(err)
	}
	first, second := start(t, "publish", p.environment...), start(t, "publish", p.environment...)
	first.brings(p.records, "")
	n := len(p.records) / 2
	var numbers []int64
	for i := range n {
		numbers = append(numbers, int64(i+1))
	}
	check := func(when string, times int) {
		t.Helper()
		for _, o := range []string{"acme", "globex"} {
			if got := p.linked(t, o); !slices.Equal(got, numbers) {
				t.Errorf("%s the chain of %s is %v", when, o, got)
			}
			want := slices.Repeat(numbers, times)
			if got := p.bus.of(o); !slices.Equal(got, want) {
				t.Errorf("%s the bus got of %s %v, not %v", when, o, got, want)
			}
		}
		deliveries, _, err := p.app.Notify.Deliveries(p.operator(), notify.DeliveryFilter{WebhookID: sub.ID})
		if err != nil || len(deliveries) != 3 { // of as many keys
			t.Errorf("%s there are %d deliveries, %v", when, len(deliveries), err)
		}
	}
	check("at first", 1)
	first.brings(p.records, "")
	first.brings(p.records[3:], "")
	check("after the same process had it again", 1)
	second.brings(p.records, "") // it does not know what the bus took
	check("after another process had it too", 2)
	for _, f := range []*function{first, second} {
		if printed := f.output(); aKey.MatchString(printed) || keytest.Leaked(printed, []string{p.manager}) != "" {
			t.Error("it printed a key")
		}
	}
}

func TestTheAnswerNamesTheFirstRecordThatIsNotDone(t *testing.T) {
	p := newPublishing(t)
	p.bus.refuses = func(e event.Event) bool { return e.Data.OrganizationID == "globex" && e.Data.Chain.Sequence == 2 }
	f := start(t, "publish", p.environment...)
	f.brings(p.records, "103") // globex's second, and the fourth of all
	n := int64(len(p.records) / 2)
	if acme, globex := p.bus.of("acme"), p.bus.of("globex"); int64(len(acme)) != n || len(globex) != 1 {
		t.Errorf("the bus got %v and %v", acme, globex)
	}
	p.bus.mu.Lock()
	p.bus.refuses = nil
	p.bus.mu.Unlock()
	f.brings(p.records[3:], "")
	if got := p.bus.of("globex"); int64(len(got)) != n || !slices.IsSorted(got) {
		t.Errorf("then the bus got %v", got)
	}
	if got := p.bus.of("acme"); int64(len(got)) != n {
		t.Errorf("and again %v", got)
	}

	unread := slices.Clone(p.records)
	later := maps.Clone(unread[4]["dynamodb"].(map[string]any)["NewImage"].(map[string]any))
	later["v"] = map[string]string{"N": "2"}
	bad := p.record("INSERT", later)
	bad["dynamodb"].(map[string]any)["SequenceNumber"] = "104"
	unread[4] = bad
	f.brings(unread, "104")
	f.brings(unread[4:5], "104") // alone, as Lambda would give it at last
	f.brings(unread[5:], "")
}

func TestWhoTampersWithTheTrailIsTold(t *testing.T) {
	p := newPublishing(t)
	f := start(t, "publish", p.environment...)
	id := p.records[0]["dynamodb"].(map[string]any)["Keys"].(map[string]any)["sk"].(map[string]string)["S"]
	image := p.records[0]["dynamodb"].(map[string]any)["NewImage"].(map[string]any)
	f.brings(p.records[:2], "")
	f.brings([]map[string]any{p.record("MODIFY", image), p.record("REMOVE", image)}, "")
	if len(p.bus.alarms) != 2 || !strings.Contains(p.bus.alarms[1], `"change":"REMOVE"`) || len(p.linked(t, "acme")) != 1 {
		t.Errorf("the bus got %s, and the chain %v", p.bus.alarms, p.linked(t, "acme"))
	}
	printed := f.output()
	for _, change := range []string{"MODIFY", "REMOVE"} {
		if want := fmt.Sprintf(`"level":"ERROR","msg":"audit trail tampered with","event":%q,"organization_id":"acme","entry_id":%q}`, change, id); !strings.Contains(printed, want) {
			t.Errorf("the log has no %s: %s", want, printed)
		}
	}
}

// Without its tables, or with a bus that is gone, it still answers in time, and Lambda brings everything again.
func TestWhatCannotBePublishedInTimeComesAgain(t *testing.T) {
	p := newPublishing(t)
	store, environment := hidden(t, p.deployed)
	f := start(t, "publish", environment...)
	f.brings(p.records[:1], "")
	store.silent.Store(true)
	if r := f.invokeWithin(700*time.Millisecond, map[string]any{"Records": p.records}); string(r.answer) != `{"batchItemFailures":[{"itemIdentifier":"100"}]}` {
		t.Errorf("it answers %s, error %q", r.answer, r.failed)
	}
	store.silent.Store(false)
	f.brings(p.records, "")
	if n := len(p.records) / 2; len(p.linked(t, "acme")) != n || len(p.bus.of("globex")) != n {
		t.Error("not all was published")
	}
}

func TestThePublishersEventIsOneOfAStream(t *testing.T) {
	p := newPublishing(t)
	sample, err := os.ReadFile("publish/event.json")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, "publish", p.environment...)
	if r := f.invoke(json.RawMessage(sample)); string(r.answer) != `{"batchItemFailures":[]}` {
		t.Errorf("it answers %s, error %q", r.answer, r.failed)
	}
	if got := p.bus.of("org_1"); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("the bus got %v", got)
	}
}
