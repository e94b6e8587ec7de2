package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/gateway"
)

// told prints what was read of a record.
func told(change, sequence string, at time.Time, keys, image json.RawMessage) string {
	return fmt.Sprint(change, " ", sequence, " ", at.Format(time.RFC3339), " ", string(keys), " ", string(image))
}

func TestTheRecordsOfAStreamAreTakenInTheirOrder(t *testing.T) {
	event := json.RawMessage(`{"Records": [
		{"eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb", "dynamodb": {"ApproximateCreationDateTime": 1795377600.0,
			"Keys": {"pk": {"S": "acme"}}, "NewImage": {"n": {"N": "1"}}, "SequenceNumber": "100000000003498069978", "StreamViewType": "NEW_IMAGE"}},
		{"eventID": "2", "eventName": "REMOVE", "dynamodb": {"ApproximateCreationDateTime": 1795377601, "Keys": {"pk": {"S": "acme"}}, "SequenceNumber": "100000000003498069979"}}]}`)
	for left, want := range map[string]string{"": `{"batchItemFailures":[]}`,
		"100000000003498069979": `{"batchItemFailures":[{"itemIdentifier":"100000000003498069979"}]}`} {
		var taken []string
		answer, err := gateway.Streamed(told, func(_ context.Context, records []string) string {
			taken = records
			return left
		})(t.Context(), event)
		got, _ := json.Marshal(answer)
		if err != nil || string(got) != want {
			t.Errorf("the answer is %s, %v", got, err)
		}
		if !slices.Equal(taken, []string{`INSERT 100000000003498069978 2026-11-22T20:00:00Z {"pk": {"S": "acme"}} {"n": {"N": "1"}}`,
			`REMOVE 100000000003498069979 2026-11-22T20:00:01Z {"pk": {"S": "acme"}} `}) {
			t.Errorf("taken were %q", taken)
		}
	}
}

func TestWhatIsNoEventOfAStreamIsAnError(t *testing.T) {
	for _, event := range []string{`{}`, `{"Records": []}`, `{"Records": [{"eventName": "INSERT", "s3": {}}]}`, `[]`, `{"detail-type": "Scheduled Event"}`,
		`{"Records": [{"eventName": "INSERT", "dynamodb": {"SequenceNumber": 7}}]}`} {
		_, err := gateway.Streamed(told, func(context.Context, []string) string { t.Error("it is taken"); return "" })(t.Context(), json.RawMessage(event))
		if err == nil {
			t.Errorf("%s is taken", event)
		}
	}
}
