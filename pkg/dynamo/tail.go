package dynamo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/publish"
)

const (
	// poll is how often a stream that brings nothing is asked.
	poll = time.Second
	// perRead is how many records of one shard come at once, and readers how many shards are read at the same time.
	perRead, readers = 100, 8
	// listEvery is how often a stream is asked for new shards, besides when one has ended.
	listEvery = 10 * time.Second
	// leaseTime is for how long one Tail keeps all others from a stream, and renewEvery how often it says so, and writes down
	// how far it came.
	leaseTime, renewEvery = 10 * time.Second, 3 * time.Second
)

// Tail is a publish.Feed of the stream of the audit table, for one goroutine.
//
// Of all Tails of a stream one brings its records; the others bring nothing until that one goes, or has not been heard of
// for ten seconds. How far it came rests in the keys table, so that the next one goes on there: a crash repeats what was
// done in the last three seconds. Should two believe that it is their turn, both bring the same, which publishing bears.
// Its time is the real one, whatever the service's clock says.
type Tail struct {
	client  *dynamodb.Client
	streams Streams
	tables  Tables
	owner   string

	stream  string // its ARN; "" until it is known
	renewed time.Time
	listed  time.Time
	shards  map[string]*shard
}

var _ publish.Feed = (*Tail)(nil)

// Tail makes a Tail of the store's audit table.
func (s *Store) Tail(streams Streams) *Tail {
	return &Tail{client: s.client, streams: streams, tables: s.tables, owner: rand.Text()}
}

// Next brings what the shards have that can be read now: see publish.Feed. With an error it may bring records too.
func (t *Tail) Next(ctx context.Context, wait time.Duration) ([]publish.Record, error) {
	if err := t.find(ctx); err != nil {
		return nil, err
	}
	ours, err := t.hold(ctx)
	if err != nil {
		return nil, err
	}
	if ours {
		if err := t.list(ctx); err != nil {
			return nil, err
		}
		records, more, err := t.read(ctx)
		if len(records) > 0 || more || err != nil {
			return records, err
		}
	}
	timer := time.NewTimer(min(wait, poll))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Done notes how far each shard is done. It is written down when the lease is renewed, and by Release.
func (t *Tail) Done(_ context.Context, left []publish.Record) error {
	waiting := map[string]bool{}
	for _, r := range left {
		waiting[r.ID] = true
	}
	for _, s := range t.shards {
		s.finish(waiting)
	}
	return nil
}

// find learns which stream the table has.
func (t *Tail) find(ctx context.Context) error {
	if t.stream != "" {
		return nil
	}
	out, err := t.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &t.tables.Audit})
	if err != nil {
		return failure("looking for the stream of the table "+t.tables.Audit, err)
	}
	switch on := out.Table.StreamSpecification; {
	case on == nil || !aws.ToBool(on.StreamEnabled):
		return fmt.Errorf("the table %s has no stream: turn it on with the view type NEW_IMAGE (aws dynamodb update-table --table-name %s --stream-specification StreamEnabled=true,StreamViewType=NEW_IMAGE)",
			t.tables.Audit, t.tables.Audit)
	case on.StreamViewType != types.StreamViewTypeNewImage && on.StreamViewType != types.StreamViewTypeNewAndOldImages:
		return fmt.Errorf("the stream of the table %s has the view type %s: turn it off, and on again with NEW_IMAGE", t.tables.Audit, on.StreamViewType)
	}
	t.stream = aws.ToString(out.Table.LatestStreamArn)
	return nil
}

// lost begins anew, with what is written down. leave does, with whatever stream the table has then.
func (t *Tail) lost()  { t.renewed, t.listed, t.shards = time.Time{}, time.Time{}, nil }
func (t *Tail) leave() { t.lost(); t.stream = "" }

const (
	attrOwner     = "owner"
	attrPositions = "positions"
)

func (t *Tail) leaseKey() item { return primaryKey("F#audit", t.stream) }

// hold says whether the stream is ours to read, for leaseTime from when it last said so. In its first three seconds nobody
// is asked.
func (t *Tail) hold(ctx context.Context) (bool, error) {
	now := time.Now()
	if now.Sub(t.renewed) < renewEvery {
		return true, nil
	}
	if t.shards != nil {
		ours, _, err := t.lease(ctx, "#owner = :owner", now.Add(leaseTime), true)
		if ours || err != nil && now.Sub(t.renewed) < leaseTime-renewEvery {
			return ours, err
		}
		t.lost()
		return false, err
	}
	ours, kept, err := t.lease(ctx, "attribute_not_exists(#pk) OR #until < :now OR #owner = :owner", now.Add(leaseTime), false)
	if ours {
		t.shards, err = begun(kept)
	}
	return ours && err == nil, err
}

// lease writes until when the stream is ours, and how far we are if we know, where a condition holds. It returns what is
// then written there.
func (t *Tail) lease(ctx context.Context, condition string, until time.Time, knowing bool) (ours bool, kept item, err error) {
	in := &dynamodb.UpdateItemInput{TableName: &t.tables.Keys, Key: t.leaseKey(), ConditionExpression: &condition,
		UpdateExpression:          aws.String("SET #v = :v, #owner = :owner, #until = :until"),
		ExpressionAttributeNames:  map[string]string{"#v": attrSchema, "#owner": attrOwner, "#until": attrUntil},
		ExpressionAttributeValues: item{":v": number(schemaVersion), ":owner": text(t.owner), ":until": moment(until)},
		ReturnValues:              types.ReturnValueAllNew}
	if knowing {
		*in.UpdateExpression += ", #positions = :positions"
		in.ExpressionAttributeNames["#positions"], in.ExpressionAttributeValues[":positions"] = attrPositions, t.positions()
	} else {
		in.ExpressionAttributeNames["#pk"], in.ExpressionAttributeValues[":now"] = attrPK, moment(time.Now())
	}
	out, err := t.client.UpdateItem(ctx, in)
	var others *types.ConditionalCheckFailedException
	switch {
	case errors.As(err, &others):
		return false, nil, nil
	case err != nil:
		return false, nil, failure("writing down how far the stream is read", err)
	}
	t.renewed = time.Now()
	return true, out.Attributes, nil
}

// Release writes down how far all is done, and lets others read the stream at once.
func (t *Tail) Release(ctx context.Context) error {
	if t.shards == nil {
		return nil
	}
	_, _, err := t.lease(ctx, "#owner = :owner", time.UnixMilli(0), true)
	t.lost()
	return err
}

// list learns which shards there are.
func (t *Tail) list(ctx context.Context) error {
	if time.Since(t.listed) < listEvery {
		return nil
	}
	found := map[string]*shard{}
	for after := ""; ; {
		page, err := t.streams.Shards(ctx, t.stream, after)
		if errors.Is(err, ErrGone) { // it was turned off, and is there no more
			t.leave()
		}
		if err != nil {
			return err
		}
		for _, s := range page.Shards {
			found[s.ID] = &shard{Shard: s}
		}
		if after = page.Next; after != "" {
			continue
		}
		if over := t.adopt(found); !over || !page.Off {
			return nil
		}
		err = t.Release(ctx) // it was turned off; there may be another, in its place
		t.leave()
		return err
	}
}

// adopt takes up what was listed. Shards that are gone are forgotten once they are done. It says whether all are.
func (t *Tail) adopt(found map[string]*shard) (over bool) {
	t.listed = time.Now()
	for id, s := range found {
		if known := t.shards[id]; known != nil {
			known.Shard = s.Shard
		} else {
			t.shards[id] = s
		}
	}
	for _, s := range t.shards { // of what came before those that were begun, and is written down nowhere, all is done
		for p := t.shards[s.Parent]; s.begun && p != nil && !p.begun; p = t.shards[p.Parent] {
			p.read, p.done = ended, ended
		}
	}
	over = true
	for id, s := range t.shards {
		if over = over && s.done == ended; found[id] == nil && (s.done == ended || !s.begun) {
			delete(t.shards, id)
		}
	}
	return over
}

// open are the shards that can be read from: those before them are at their ends.
func (t *Tail) open() (open []*shard) {
	for _, id := range slices.Sorted(maps.Keys(t.shards)) {
		s := t.shards[id]
		p := t.shards[s.Parent]
		for p != nil && p.read == ended {
			p = t.shards[p.Parent]
		}
		if p == nil && s.read != ended {
			open = append(open, s)
		}
	}
	return open
}

// read reads once from every open shard. It says whether there may be more at once.
func (t *Tail) read(ctx context.Context) (records []publish.Record, more bool, err error) {
	open := t.open()
	var all sync.WaitGroup
	places := make(chan struct{}, readers)
	brought, failures := make([][]publish.Record, len(open)), make([]error, len(open))
	for i, s := range open {
		places <- struct{}{}
		all.Go(func() {
			brought[i], failures[i] = t.readShard(ctx, s)
			<-places
		})
	}
	all.Wait()
	for _, s := range open {
		more = more || s.Closed
		if s.read == ended {
			more, t.listed = true, time.Time{} // those that come after it may not be listed yet
		}
	}
	return slices.Concat(brought...), more, errors.Join(failures...)
}

// readShard reads once from a shard, behind what was read.
func (t *Tail) readShard(ctx context.Context, s *shard) ([]publish.Record, error) {
	if s.iterator == "" {
		iterator, err := t.streams.Iterator(ctx, t.stream, s.ID, s.read)
		if err != nil {
			return nil, s.missed(err)
		}
		s.iterator, s.begun = iterator, true
	}
	records, next, err := t.streams.Records(ctx, s.iterator, perRead)
	if err != nil {
		s.iterator = "" // it may have expired
		return nil, s.missed(err)
	}
	return s.take(records, next), nil
}
