package dynamo

import (
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streams "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/latchkey/latchkey/pkg/publish"
)

// shard is a part of a stream, whose records have an order. Those of one organization go on in the shards that name it as
// their parent.
type shard struct {
	id, parent string
	closed     bool    // it gets no more records
	begun      bool    // it has been read from, by this process or one before
	iterator   *string // nil: to be asked for

	read   string   // the sequence number of the last record that was brought; ended: there are no more
	done   string   // the one up to which all are done; ended: all are
	flight []string // those between
}

// ended is no sequence number, which are digits.
const ended = "end"

// take makes records of an answer, which are on their way from now on.
func (s *shard) take(out *dynamodbstreams.GetRecordsOutput) (records []publish.Record) {
	for _, r := range out.Records {
		if r.Dynamodb == nil {
			continue // no record of a DynamoDB stream is without
		}
		sequence := aws.ToString(r.Dynamodb.SequenceNumber)
		records = append(records, record(string(r.EventName), sequence, aws.ToTime(r.Dynamodb.ApproximateCreationDateTime),
			fromStream(r.Dynamodb.Keys), fromStream(r.Dynamodb.NewImage)))
		s.read, s.flight = sequence, append(s.flight, sequence)
	}
	if s.iterator = out.NextShardIterator; s.iterator == nil {
		s.read = ended
	}
	return records
}

// finish notes how far all is done, but for the records that wait.
func (s *shard) finish(waiting map[string]bool) {
	for len(s.flight) > 0 && !waiting[s.flight[0]] {
		s.done, s.flight = s.flight[0], s.flight[1:]
	}
	if len(s.flight) == 0 && s.read == ended {
		s.done = ended
	}
}

// missed is the error of a reading. What a stream no longer has is passed over, and the error says what to do.
func (s *shard) missed(err error) error {
	const told = "the stream no longer has all that came after what was published last, at most a day ago: latchkey audit publish brings it"
	var trimmed *streams.TrimmedDataAccessException
	var gone *streams.ResourceNotFoundException
	var expired *streams.ExpiredIteratorException
	switch {
	case errors.As(err, &trimmed):
		s.iterator, s.read = nil, ""
		return errors.New(told)
	case errors.As(err, &gone):
		s.iterator, s.read = nil, ended
		return errors.New(told)
	case errors.As(err, &expired):
		return nil
	}
	return err
}

// fromStream is an item as the stream writes it. An attribute of a type that no entry has is there, and of no use.
func fromStream(from map[string]streams.AttributeValue) item {
	if from == nil {
		return nil
	}
	i := item{}
	for name, v := range from {
		switch v := v.(type) {
		case *streams.AttributeValueMemberS:
			i[name] = text(v.Value)
		case *streams.AttributeValueMemberN:
			i[name] = &types.AttributeValueMemberN{Value: v.Value}
		default:
			i[name] = &types.UnknownUnionMember{Tag: fmt.Sprintf("%T", v)}
		}
	}
	return i
}

// positions are how far each shard is done. Of one that has ended and those after it were begun, that is enough.
func (t *Tail) positions() types.AttributeValue {
	followed := map[string]bool{}
	for _, s := range t.shards {
		followed[s.parent] = followed[s.parent] || s.begun
	}
	m := item{}
	for id, s := range t.shards {
		if s.begun && !(s.done == ended && followed[id]) {
			m[id] = text(s.done)
		}
	}
	return &types.AttributeValueMemberM{Value: m}
}

// begun are the shards of which a position is written down.
func begun(kept item) (map[string]*shard, error) {
	shards := map[string]*shard{}
	if kept[attrPositions] == nil {
		return shards, nil
	}
	m, ok := kept[attrPositions].(*types.AttributeValueMemberM)
	if !ok {
		return nil, errors.New("how far the stream is read cannot be read")
	}
	r := &reader{item: m.Value}
	for id := range m.Value {
		position := r.text(id)
		shards[id] = &shard{id: id, begun: true, read: position, done: position}
	}
	return shards, r.err
}
