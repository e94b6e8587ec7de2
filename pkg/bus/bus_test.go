package bus_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/bus"
	"github.com/latchkey/latchkey/pkg/event"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/publish"
)

// entry is an event as PutEvents takes it.
type entry struct {
	EventBusName, Source, DetailType, Detail string
	Time                                     float64
	Resources                                []string
}

// secret is what our errors must not repeat.
const secret = "User: arn:aws:sts::000000000000:assumed-role/teller/x is not authorized"

// fake answers PutEvents as EventBridge does.
type fake struct {
	timeout time.Duration // for each attempt of the bus; 0: a second
	url     string
	t       *testing.T

	mu      sync.Mutex
	calls   [][]entry
	refuses map[string]string // the error code for an event, by its detail
	answers func(w http.ResponseWriter)
	done    chan struct{}
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, refuses: map[string]string{}, done: make(chan struct{})}
	server := httptest.NewServer(f)
	t.Cleanup(func() { close(f.done); server.Close() })
	f.url = server.URL
	return f
}

func (f *fake) bus(t *testing.T) publish.Bus {
	t.Helper()
	b, err := bus.Open(amazon.Access{Endpoint: f.url, LoopbackOnly: true, AttemptTimeout: cmp.Or(f.timeout, time.Second)}, "keys")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if signature := r.Header.Get("Authorization"); !strings.Contains(signature, "/us-east-1/events/aws4_request, ") {
		f.t.Error("a request is not signed for EventBridge")
	}
	var in struct{ Entries []entry }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Amz-Target") != "AWSEvents.PutEvents" {
		f.t.Errorf("EventBridge was asked to %q, %v", r.Header.Get("X-Amz-Target"), err)
	}
	f.mu.Lock()
	f.calls = append(f.calls, in.Entries)
	answers := f.answers
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if answers != nil {
		answers(w)
		return
	}
	var out struct {
		FailedEntryCount int
		Entries          []map[string]string
	}
	for i, e := range in.Entries {
		if code := f.refuses[e.Detail]; code != "" {
			out.FailedEntryCount++
			out.Entries = append(out.Entries, map[string]string{"ErrorCode": code, "ErrorMessage": secret})
		} else {
			out.Entries = append(out.Entries, map[string]string{"EventId": fmt.Sprint("id-", i)})
		}
	}
	_ = json.NewEncoder(w).Encode(out)
}

func messages(n int) (list []publish.Message) {
	for i := range n {
		list = append(list, publish.Message{Type: "api_key.created", At: time.Unix(1_795_377_600+int64(i), 0), Detail: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	return list
}

func TestEveryMessageIsSentWithItsSourceTypeAndTimeAtMostTenInACall(t *testing.T) {
	f := newFake(t)
	for i, err := range f.bus(t).Put(t.Context(), messages(25)) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	got := map[string]entry{}
	for _, call := range f.calls {
		if len(call) > 10 {
			t.Errorf("%d in one call", len(call))
		}
		for _, e := range call {
			got[e.Detail] = e
		}
	}
	if len(f.calls) != 3 || len(got) != 25 {
		t.Fatalf("%d messages in %d calls", len(got), len(f.calls))
	}
	if e := got[`{"n":7}`]; e.EventBusName != "keys" || e.Source != "latchkey" || e.DetailType != "api_key.created" || e.Time != 1_795_377_607 || e.Resources != nil {
		t.Errorf("got %+v", e)
	}
}

func TestACallHoldsNoMoreThanEventBridgeTakes(t *testing.T) {
	f := newFake(t)
	var large []publish.Message
	for i := range 8 {
		large = append(large, publish.Message{Type: "api_key.updated", Detail: fmt.Appendf(nil, `{"%d":%q}`, i, strings.Repeat("x", 100_000))})
	}
	outcomes := f.bus(t).Put(t.Context(), large)
	if slices.ContainsFunc(outcomes, func(err error) bool { return err != nil }) {
		t.Error(outcomes)
	}
	for _, call := range f.calls {
		bytes := 0
		for _, e := range call {
			bytes += bus.Size(&publish.Message{Type: e.DetailType, Detail: []byte(e.Detail)})
			if e.Time != 0 {
				t.Error("a message without a time has one")
			}
		}
		if bytes > bus.MaxBytes || len(call) != 2 {
			t.Errorf("%d messages of %d bytes in one call", len(call), bytes)
		}
	}
}

func TestWhatIsRefusedIsSaidOfThatMessageAlone(t *testing.T) {
	f := newFake(t)
	f.refuses[`{"n":3}`], f.refuses[`{"n":14}`] = "ThrottlingException", secret
	for i, err := range f.bus(t).Put(t.Context(), messages(20)) {
		if (err != nil) != (i == 3 || i == 14) {
			t.Errorf("%d: %v", i, err)
		}
		if err != nil && strings.Contains(err.Error(), "arn:") || i == 3 && !strings.Contains(err.Error(), "ThrottlingException") {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestABusThatDoesNotAnswerOrNotSensiblyTookNothingAndKeepsNobodyWaiting(t *testing.T) {
	f := newFake(t)
	f.timeout = 50 * time.Millisecond
	for name, answers := range map[string]func(http.ResponseWriter){
		"hangs": func(http.ResponseWriter) { <-f.done },
		"says too little": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"FailedEntryCount":0,"Entries":[{"EventId":"x"}]}`))
		},
		"says no id": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"FailedEntryCount":0,"Entries":[{},{}]}`)) },
		"is no JSON": func(w http.ResponseWriter) { _, _ = w.Write([]byte(secret)) },
		"refuses": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"__type": "AccessDeniedException", "message": secret})
		},
		"breaks off": func(w http.ResponseWriter) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_ = conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.mu.Lock()
			f.answers = answers
			f.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for i, err := range f.bus(t).Put(ctx, messages(2)) {
				if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "arn:") {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
}

func TestABusNeedsANameAndWhoAsks(t *testing.T) {
	if _, err := bus.Open(amazon.Access{LoopbackOnly: true, Endpoint: "http://127.0.0.1:1"}, ""); err == nil {
		t.Error("a bus without a name")
	}
	if _, err := bus.Open(amazon.Access{}, "keys"); err == nil {
		t.Error("a bus without credentials")
	}
}

// An event that is too large for the bus would hold up its organization for ever. The largest change there can be is one of
// all fields of a key, each as long as it may be and of characters that JSON writes as six.
func TestTheLargestEventFitsTheBus(t *testing.T) {
	largest := func(c string) apikey.Key {
		id := strings.Repeat("i", 128)
		k := apikey.Key{ID: 1, OrganizationID: id, ProjectID: id, EnvironmentID: &id, ExternalID: &id, CreatedBy: id,
			Name:               strings.Repeat("\u2028", lifecycle.MaxName),
			Metadata:           json.RawMessage(`{"k":"` + strings.Repeat("<", lifecycle.MaxMetadata-8-len(c)) + c + `"}`),
			RotationWebhookURL: new("https://example.com/?" + strings.Repeat("&", lifecycle.MaxURL-22) + c)}
		for i := range lifecycle.MaxScopes {
			k.Scopes = append(k.Scopes, fmt.Sprintf("%0*d%s", lifecycle.MaxScope-1, i, c))
		}
		for i := range lifecycle.MaxCIDRs {
			k.AllowedCIDRs = append(k.AllowedCIDRs, fmt.Sprintf("2001:0db8:1111:1111:1111:1111:%s11%d:%04d/128", c, i%10, i))
		}
		return k
	}
	before := largest("1")
	changes, err := audit.Diff(&before, largest("2"))
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("i", 128)
	detail, err := json.Marshal(event.Of(audit.Linked{Entry: audit.Entry{ID: audit.NewID(time.Now()), OrganizationID: id, Action: audit.Updated,
		ActorID: id, RequestID: strings.Repeat("<", 1024), Address: id, Changes: changes}, Link: audit.Link{Hash: audit.Root, Previous: audit.Root}}))
	size := bus.Size(&publish.Message{Type: string(audit.Updated), Detail: detail})
	if t.Logf("%d bytes", size); err != nil || size > bus.MaxBytes/2 || size < 70_000 {
		t.Errorf("the largest event has %d bytes, %v", size, err)
	}
}
