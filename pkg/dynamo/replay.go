package dynamo

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	skReplay   = "replay"
	attrSealed = "sealed"
	attrTTL    = "ttl" // Unix seconds after which DynamoDB drops the item, in its own time
)

// replayKey is where a kept answer is. Its form is known to IAM policies: I#*.
func replayKey(id string) item { return primaryKey("I#"+id, skReplay) }

// Replay is one consistent GetItem.
func (s *Store) Replay(ctx context.Context, id string) (lifecycle.Replay, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: replayKey(id), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return lifecycle.Replay{}, failure("reading a kept answer", err)
	}
	if out.Item == nil {
		return lifecycle.Replay{}, lifecycle.ErrNotFound
	}
	r := read(out.Item)
	kept := lifecycle.Replay{ID: id, Fingerprint: r.binary("fingerprint"), KeyID: r.keyID("key_id"), Until: r.moment("until")}
	if out.Item[attrSealed] != nil {
		kept.Sealed = r.binary(attrSealed)
	}
	return kept, failure("reading a kept answer", r.err)
}

// keep puts an answer where there is none, or one whose time is over at now.
func (s *Store) keep(kept *lifecycle.Replay, now int64) step {
	i := replayKey(kept.ID)
	i[attrSchema], i["fingerprint"], i["key_id"] = number(schemaVersion), binary(kept.Fingerprint), keyID(kept.KeyID)
	i[attrSealed], i["until"], i[attrTTL] = binary(kept.Sealed), moment(kept.Until), number(kept.Until.Unix()+1)
	return step{types.TransactWriteItem{Put: &types.Put{
		TableName:                 &s.tables.Keys,
		Item:                      i,
		ConditionExpression:       aws.String("attribute_not_exists(#pk) OR #until <= :now"),
		ExpressionAttributeNames:  map[string]string{"#pk": attrPK, "#until": "until"},
		ExpressionAttributeValues: item{":now": number(now)},
	}}, lifecycle.ErrChanged}
}

// destroy removes a kept answer's secret. Where the item has been dropped meanwhile, what this leaves has no answer and is
// over: it is dropped too.
func (s *Store) destroy(sealed apikey.Sealed) step {
	return step{types.TransactWriteItem{Update: &types.Update{
		TableName:                 &s.tables.Keys,
		Key:                       replayKey(sealed.ID),
		UpdateExpression:          aws.String("SET #until = :until, #ttl = :ttl REMOVE #sealed"),
		ExpressionAttributeNames:  map[string]string{"#until": "until", "#ttl": attrTTL, "#sealed": attrSealed},
		ExpressionAttributeValues: item{":until": moment(sealed.Until), ":ttl": number(sealed.Until.Unix() + 1)},
	}}, lifecycle.ErrChanged}
}
