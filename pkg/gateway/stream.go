package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// streamEvent is what Lambda brings of a DynamoDB stream: some of its records, in their order.
type streamEvent struct {
	Records []struct {
		EventName string
		DynamoDB  struct {
			ApproximateCreationDateTime float64 // seconds
			SequenceNumber              string
			Keys, NewImage              json.RawMessage // as DynamoDB writes JSON
		}
	}
}

// Read makes of a record of a stream what a function works with: of its change (INSERT, MODIFY or REMOVE), its sequence
// number, about when it was made, and the item's keys and new image in DynamoDB's JSON.
type Read[R any] func(change, sequence string, at time.Time, keys, image json.RawMessage) R

// streamAnswer names the record from which Lambda is to begin again.
type streamAnswer struct {
	BatchItemFailures []itemFailure `json:"batchItemFailures"`
}

type itemFailure struct {
	ItemIdentifier string `json:"itemIdentifier"`
}

// Streamed gives the records of a DynamoDB stream to take, as read makes them, which returns the sequence number of the first
// that is not done, "" if all are. Lambda brings that one and what followed it again, if its event source mapping has the
// function response type ReportBatchItemFailures. What is no event of a stream is an error: then all of it comes again.
func Streamed[R any](read Read[R], take func(ctx context.Context, records []R) (left string)) Handler {
	return func(ctx context.Context, event json.RawMessage) (any, error) {
		var e streamEvent
		if err := json.Unmarshal(event, &e); err != nil {
			return nil, fmt.Errorf("reading the event of a stream: %w", err)
		}
		if len(e.Records) == 0 {
			return nil, errors.New("the event has no records: it is not of a stream")
		}
		records := make([]R, len(e.Records))
		for i, r := range e.Records {
			if r.DynamoDB.SequenceNumber == "" {
				return nil, errors.New("a record has no sequence number: it is not of a DynamoDB stream")
			}
			at := time.UnixMilli(int64(r.DynamoDB.ApproximateCreationDateTime * 1000)).UTC()
			records[i] = read(r.EventName, r.DynamoDB.SequenceNumber, at, r.DynamoDB.Keys, r.DynamoDB.NewImage)
		}
		answer := streamAnswer{BatchItemFailures: []itemFailure{}}
		if left := take(ctx, records); left != "" {
			answer.BatchItemFailures = append(answer.BatchItemFailures, itemFailure{left})
		}
		return answer, nil
	}
}
