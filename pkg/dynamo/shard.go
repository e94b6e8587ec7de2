package dynamo

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/publish"
)

// Streams speaks to DynamoDB Streams; package stream has one.
type Streams interface {
	// Shards lists those of a stream, after one of them or "". A stream that does not exist is ErrGone.
	Shards(ctx context.Context, stream, after string) (ShardPage, error)
	// Iterator is where to read in a shard, after a sequence number or "" for all that there is. It fails with ErrTrimmed
	// when what comes after it is no longer there, and with ErrGone when the shard is not.
	Iterator(ctx context.Context, stream, shard, after string) (string, error)
	// Records reads, and says where to go on, "" at the end of the shard. It fails as Iterator, and with ErrExpired.
	Records(ctx context.Context, iterator string, limit int32) (records []StreamRecord, next string, err error)
}

// What Streams fail with.
var (
	ErrGone    = errors.New("the stream or its shard is not there")
	ErrTrimmed = errors.New("the stream no longer has that")
	ErrExpired = errors.New("that place in the stream must be asked for anew")
)

// ShardPage is a page of the shards of a stream.
type ShardPage struct {
	Shards []Shard
	Next   string // the shard after which there are more, "" if there are none
	Off    bool   // the stream was turned off
}

// Shard is a part of a stream, whose records have an order. Those of one organization go on in the shards that name it as
// their parent.
type Shard struct {
	ID, Parent string
	Closed     bool // it gets no more records
}

// StreamRecord is what a stream tells of one item.
type StreamRecord struct {
	Change      string // INSERT, MODIFY or REMOVE
	Sequence    string
	At          time.Time // about
	Keys, Image map[string]types.AttributeValue
}

// shard is one that is read.
type shard struct {
	Shard
	begun    bool   // it has been read from, by this process or one before
	iterator string // "": to be asked for

	read   string   // the sequence number of the last record that was brought; ended: there are no more
	done   string   // the one up to which all are done; ended: all are
	flight []string // those between
}

// ended is no sequence number, which are digits.
const ended = "end"

// take makes records of those of the stream, which are on their way from now on.
func (s *shard) take(from []StreamRecord, next string) (records []publish.Record) {
	for _, r := range from {
		records = append(records, record(r.Change, r.Sequence, r.At, r.Keys, r.Image))
		s.read, s.flight = r.Sequence, append(s.flight, r.Sequence)
	}
	if s.iterator = next; next == "" {
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
	switch {
	case errors.Is(err, ErrTrimmed):
		s.iterator, s.read = "", ""
		return errors.New(told)
	case errors.Is(err, ErrGone):
		s.iterator, s.read = "", ended
		return errors.New(told)
	case errors.Is(err, ErrExpired):
		return nil
	}
	return err
}

// positions are how far each shard is done. Of one that has ended and those after it were begun, that is enough.
func (t *Tail) positions() types.AttributeValue {
	followed := map[string]bool{}
	for _, s := range t.shards {
		followed[s.Parent] = followed[s.Parent] || s.begun
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
		shards[id] = &shard{Shard: Shard{ID: id}, begun: true, read: position, done: position}
	}
	return shards, r.err
}
