package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/keytest"
)

// eventBus plays EventBridge, and keeps what it took.
type eventBus struct {
	t    *testing.T
	url  string
	mu   sync.Mutex
	sent []event.Event
	more chan struct{} // closed when there are more
	down bool
}

func newEventBus(t *testing.T) *eventBus {
	t.Helper()
	b := &eventBus{t: t, more: make(chan struct{})}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *eventBus) environment() []string {
	return []string{"LATCHKEY_EVENT_BUS=events", "LATCHKEY_EVENTBRIDGE_ENDPOINT=" + b.url}
}

func (b *eventBus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var in struct{ Entries []struct{ Detail string } }
	_ = json.NewDecoder(r.Body).Decode(&in)
	var results []map[string]string
	for _, e := range in.Entries {
		var sent event.Event
		if err := json.Unmarshal([]byte(e.Detail), &sent); err != nil {
			b.t.Error(err)
		}
		b.sent, results = append(b.sent, sent), append(results, map[string]string{"EventId": "1"})
	}
	close(b.more)
	b.more = make(chan struct{})
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(map[string]any{"Entries": results})
}

// await returns what the bus took of org_dev, once it holds an event of a type about a key. They are numbered without gaps,
// as they first came.
func (b *eventBus) await(kind, keyID string) (types []string, repeats int) {
	b.t.Helper()
	for late := time.After(20 * time.Second); ; {
		b.mu.Lock()
		found, last := false, int64(0)
		types, repeats = nil, 0
		for _, e := range b.sent {
			if e.Data.OrganizationID != "org_dev" {
				continue
			}
			switch n := e.Data.Chain.Sequence; {
			case n == last+1:
				last, types = n, append(types, string(e.Type))
			case n > last:
				b.t.Errorf("the bus took number %d after %d", n, last)
			default:
				repeats++
			}
			found = found || string(e.Type) == kind && e.Data.KeyID != nil && e.Data.KeyID.String() == keyID
		}
		more := b.more
		b.mu.Unlock()
		if found {
			return types, repeats
		}
		select {
		case <-more:
		case <-late:
			b.t.Fatalf("no %s of %s came: %v", kind, keyID, types)
		}
	}
}

func TestEventsLeaveInTheirOrder(t *testing.T) {
	for name, start := range map[string]func(*testing.T, []string) *keytest.Daemon{
		"memory": func(t *testing.T, environment []string) *keytest.Daemon { return keytest.StartIn(t, environment) },
		"DynamoDB": func(t *testing.T, environment []string) *keytest.Daemon {
			s := newTables(t)
			return keytest.StartIn(t, append(s.environment(), environment...), "-dev", "-dynamodb", s.endpoint)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bus := newEventBus(t)
			d := start(t, bus.environment())
			k := d.Create(map[string]any{"project_id": "shop", "name": "first"})
			began := time.Now()
			bus.await("api_key.created", k.ID)
			t.Logf("an event left after %v", time.Since(began))
			bus.mu.Lock()
			bus.down = true
			bus.mu.Unlock()
			next := d.Create(map[string]any{"project_id": "shop", "name": "second"})
			if a := d.Call("DELETE", "/v1/api-keys/"+k.ID, d.ManagementKey, nil); a.Status != http.StatusNoContent {
				t.Error(a.Status)
			}
			bus.mu.Lock()
			bus.down = false
			bus.mu.Unlock()
			if types, _ := bus.await("api_key.revoked", k.ID); !slices.Equal(types[len(types)-3:], []string{"api_key.created", "api_key.created", "api_key.revoked"}) {
				t.Errorf("the bus took %v, of %s and %s", types, k.ID, next.ID)
			}
		})
	}
}

// A process that ends leaves the rest to the next, which sends nothing again. One that was killed may have sent what it had
// no time to write down.
func TestTheNextProcessPublishesWhatIsLeft(t *testing.T) {
	t.Parallel()
	s, bus := newTables(t), newEventBus(t)
	start := func() *keytest.Daemon {
		return keytest.StartIn(t, append(s.environment(), bus.environment()...), "-dev", "-dynamodb", s.endpoint)
	}
	var wanted int
	for n, end := range []func(*keytest.Daemon){(*keytest.Daemon).Stop, (*keytest.Daemon).Stop, (*keytest.Daemon).Kill, (*keytest.Daemon).Stop} {
		d := start()
		k := d.Create(map[string]any{"project_id": "shop", "name": fmt.Sprint(n)})
		types, repeats := bus.await("api_key.created", k.ID)
		if repeats > 0 && n < 3 {
			t.Errorf("process %d sent %d events again", n, repeats)
		}
		if len(types) <= wanted {
			t.Errorf("process %d sent nothing new: %v", n, types)
		}
		wanted = len(types)
		if end(d); n == 2 {
			s.overdue(t)
		}
	}
}

// overdue ends the lease of whoever reads the audit table's stream, as time would.
func (s tables) overdue(t *testing.T) {
	t.Helper()
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: s.endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.Query(t.Context(), &dynamodb.QueryInput{TableName: &s.keys, KeyConditionExpression: aws.String("pk = :pk"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: "F#audit"}}})
	if err != nil || len(found.Items) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	found.Items[0]["until"] = &types.AttributeValueMemberN{Value: "0"}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &s.keys, Item: found.Items[0]}); err != nil {
		t.Fatal(err)
	}
}
