// Package stream speaks to DynamoDB Streams for package dynamo, which says what is wanted of it. It is a room of its own
// because the SDK's client of a service makes every program larger and slower to start that holds it, used or not: of our
// programs latchkeyd alone reads a stream itself.
package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streams "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"github.com/aws/smithy-go"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/dynamo"
)

// client is a dynamo.Streams.
type client struct{ sdk *dynamodbstreams.Client }

// Open makes the dynamo.Streams of a DynamoDB, which is not asked yet.
func Open(access amazon.Access) (dynamo.Streams, error) {
	config, err := access.Config()
	if err != nil {
		return nil, err
	}
	return client{dynamodbstreams.NewFromConfig(config)}, nil
}

func (c client) Shards(ctx context.Context, stream, after string) (page dynamo.ShardPage, err error) {
	in := &dynamodbstreams.DescribeStreamInput{StreamArn: &stream}
	if after != "" {
		in.ExclusiveStartShardId = &after
	}
	out, err := c.sdk.DescribeStream(ctx, in)
	if err != nil {
		return page, failure("listing the shards of a stream", err)
	}
	for _, s := range out.StreamDescription.Shards {
		page.Shards = append(page.Shards, dynamo.Shard{ID: aws.ToString(s.ShardId), Parent: aws.ToString(s.ParentShardId),
			Closed: s.SequenceNumberRange != nil && s.SequenceNumberRange.EndingSequenceNumber != nil})
	}
	page.Next, page.Off = aws.ToString(out.StreamDescription.LastEvaluatedShardId), out.StreamDescription.StreamStatus == streams.StreamStatusDisabled
	return page, nil
}

func (c client) Iterator(ctx context.Context, stream, shard, after string) (string, error) {
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: &stream, ShardId: &shard, ShardIteratorType: streams.ShardIteratorTypeTrimHorizon}
	if after != "" {
		in.ShardIteratorType, in.SequenceNumber = streams.ShardIteratorTypeAfterSequenceNumber, &after
	}
	out, err := c.sdk.GetShardIterator(ctx, in)
	if err != nil {
		return "", failure("beginning to read a stream", err)
	}
	return aws.ToString(out.ShardIterator), nil
}

func (c client) Records(ctx context.Context, iterator string, limit int32) (records []dynamo.StreamRecord, next string, err error) {
	out, err := c.sdk.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: &iterator, Limit: &limit})
	if err != nil {
		return nil, "", failure("reading a stream", err)
	}
	for _, r := range out.Records {
		if r.Dynamodb != nil { // no record of a DynamoDB stream is without
			records = append(records, dynamo.StreamRecord{Change: string(r.EventName), Sequence: aws.ToString(r.Dynamodb.SequenceNumber),
				At: aws.ToTime(r.Dynamodb.ApproximateCreationDateTime), Keys: item(r.Dynamodb.Keys), Image: item(r.Dynamodb.NewImage)})
		}
	}
	return records, aws.ToString(out.NextShardIterator), nil
}

// failure is an error that dynamo.Streams names, or one without AWS's own words, which might repeat what it was sent.
func failure(doing string, err error) error {
	var trimmed *streams.TrimmedDataAccessException
	var gone *streams.ResourceNotFoundException
	var expired *streams.ExpiredIteratorException
	var api smithy.APIError
	switch {
	case errors.As(err, &trimmed):
		return dynamo.ErrTrimmed
	case errors.As(err, &gone):
		return dynamo.ErrGone
	case errors.As(err, &expired):
		return dynamo.ErrExpired
	case errors.As(err, &api):
		return fmt.Errorf("%s: DynamoDB answers %s", doing, api.ErrorCode())
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// item is an item as the stream writes it. An attribute of a type that no entry has is there, and of no use.
func item(from map[string]streams.AttributeValue) map[string]types.AttributeValue {
	if from == nil {
		return nil
	}
	i := map[string]types.AttributeValue{}
	for name, v := range from {
		switch v := v.(type) {
		case *streams.AttributeValueMemberS:
			i[name] = &types.AttributeValueMemberS{Value: v.Value}
		case *streams.AttributeValueMemberN:
			i[name] = &types.AttributeValueMemberN{Value: v.Value}
		default:
			i[name] = &types.UnknownUnionMember{Tag: fmt.Sprintf("%T", v)}
		}
	}
	return i
}
