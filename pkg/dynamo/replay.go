package dynamo

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	skReplay        = "replay"
	attrFingerprint = "fingerprint"
	attrKeyID       = "key_id"
	attrUntil       = "until"
	attrTTL         = "ttl" // Unix seconds after which DynamoDB drops the item, in its own time
)

// attrSealed names the attribute of an answer's sealed secret. The answer's time is part of the name, so that whoever
// destroys it does not destroy that of a later answer under the same id.
func attrSealed(until time.Time) string { return "sealed_" + strconv.FormatInt(until.UnixMilli(), 10) }

// replayKey is where a kept answer is. Its form is known to IAM policies: I#*.
func replayKey(id string) item { return primaryKey("I#"+id, skReplay) }

// Replay is one consistent GetItem. An item without a time is no answer, only what destroy leaves of one that was dropped.
func (s *Store) Replay(ctx context.Context, id string) (lifecycle.Replay, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: replayKey(id), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return lifecycle.Replay{}, failure("reading a kept answer", err)
	}
	if out.Item[attrUntil] == nil {
		return lifecycle.Replay{}, lifecycle.ErrNotFound
	}
	r := read(out.Item)
	kept := lifecycle.Replay{ID: id, Fingerprint: r.binary(attrFingerprint), KeyID: r.keyID(attrKeyID), Until: r.moment(attrUntil)}
	if sealed := attrSealed(kept.Until); out.Item[sealed] != nil {
		kept.Sealed = r.binary(sealed)
	}
	return kept, failure("reading a kept answer", r.err)
}

// answers keeps the answer that c brings and destroys those that it ends. DynamoDB takes no two actions on one item, so
// an answer that is replaced is not destroyed too, and several of one id are destroyed at once.
func (s *Store) answers(c *lifecycle.Change) []step {
	var steps []step
	if c.Replay != nil {
		steps = append(steps, s.keep(c.Replay, c.Entry.At))
	}
	sealed := map[string]map[string]string{} // by id: the names of attributes, by their placeholders
	for _, d := range c.Destroy {
		if c.Replay != nil && d.ID == c.Replay.ID {
			continue
		}
		if sealed[d.ID] == nil {
			sealed[d.ID] = map[string]string{}
		}
		sealed[d.ID]["#"+attrSealed(d.Until)] = attrSealed(d.Until)
	}
	for _, id := range slices.Sorted(maps.Keys(sealed)) {
		steps = append(steps, s.destroy(id, sealed[id], c.Entry.At))
	}
	return steps
}

// keep puts an answer where there is none, or one whose time is over at now.
func (s *Store) keep(kept *lifecycle.Replay, now time.Time) step {
	i := replayKey(kept.ID)
	i[attrSchema], i[attrFingerprint], i[attrKeyID] = number(schemaVersion), binary(kept.Fingerprint), keyID(kept.KeyID)
	i[attrUntil], i[attrTTL] = moment(kept.Until), number(kept.Until.Unix()+1)
	if kept.Sealed != nil {
		i[attrSealed(kept.Until)] = binary(kept.Sealed)
	}
	return step{types.TransactWriteItem{Put: &types.Put{
		TableName:                 &s.tables.Keys,
		Item:                      i,
		ConditionExpression:       aws.String("attribute_not_exists(#until) OR #until <= :now"),
		ExpressionAttributeNames:  map[string]string{"#until": attrUntil},
		ExpressionAttributeValues: item{":now": moment(now)},
	}}, lifecycle.ErrChanged}
}

// destroy removes the sealed attributes named, which need not be there. Nor need the item: where it has been dropped, an
// empty one is made, which is no answer and whose time to be dropped has come.
func (s *Store) destroy(id string, sealed map[string]string, now time.Time) step {
	remove := strings.Join(slices.Sorted(maps.Keys(sealed)), ", ")
	names := maps.Clone(sealed)
	names["#v"], names["#ttl"] = attrSchema, attrTTL
	return step{types.TransactWriteItem{Update: &types.Update{
		TableName:                 &s.tables.Keys,
		Key:                       replayKey(id),
		UpdateExpression:          aws.String("SET #v = if_not_exists(#v, :v), #ttl = if_not_exists(#ttl, :now) REMOVE " + remove),
		ExpressionAttributeNames:  names,
		ExpressionAttributeValues: item{":v": number(schemaVersion), ":now": number(now.Unix())},
	}}, lifecycle.ErrChanged}
}
