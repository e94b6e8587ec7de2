package dynamo

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// entry puts an audit entry whose id is new. One that exists is never replaced.
func (s *Store) entry(e audit.Entry) (step, error) {
	changes, err := json.Marshal(e.Changes)
	if err != nil {
		return step{}, fmt.Errorf("writing down an audit entry: %w", err)
	}
	i := primaryKey(e.OrganizationID, e.ID)
	i[attrSchema], i["at"], i["action"] = number(schemaVersion), moment(e.At), text(string(e.Action))
	i["actor_kind"], i["actor_id"] = text(e.ActorKind), text(e.ActorID)
	i["address"], i["request_id"] = text(e.Address), text(e.RequestID)
	i["changes"] = text(string(changes))
	put(i, "key_id", e.KeyID, keyID)
	return create(s.tables.Audit, i), nil
}

// Entries is one consistent Query backwards, as if an earlier one had ended at q.Before.
func (s *Store) Entries(ctx context.Context, q lifecycle.EntryQuery) ([]audit.Entry, bool, error) {
	in := &dynamodb.QueryInput{
		TableName:                 &s.tables.Audit,
		ConsistentRead:            aws.Bool(true),
		ScanIndexForward:          aws.Bool(false),
		KeyConditionExpression:    aws.String("#pk = :pk"),
		ExpressionAttributeNames:  map[string]string{"#pk": attrPK},
		ExpressionAttributeValues: item{":pk": text(q.OrganizationID)},
	}
	if q.Before != "" {
		if q.Before <= q.After { // DynamoDB refuses to begin outside of what is asked for
			return nil, false, nil
		}
		in.ExclusiveStartKey = primaryKey(q.OrganizationID, q.Before)
	}
	if q.After != "" {
		in.KeyConditionExpression = aws.String("#pk = :pk AND #sk > :after")
		in.ExpressionAttributeNames["#sk"], in.ExpressionAttributeValues[":after"] = attrSK, text(q.After)
	}
	items, err := s.query(ctx, "reading the audit trail", in, q.Limit+1)
	if err != nil {
		return nil, false, err
	}
	entries := make([]audit.Entry, min(len(items), q.Limit))
	for n := range entries {
		if entries[n], err = readEntry(items[n]); err != nil {
			return nil, false, failure("reading an audit entry", err)
		}
	}
	return entries, len(items) > q.Limit, nil
}

func readEntry(i item) (audit.Entry, error) {
	r := read(i)
	e := audit.Entry{
		ID: r.text(attrSK), OrganizationID: r.text(attrPK), At: r.moment("at"), Action: audit.Action(r.text("action")),
		ActorKind: r.text("actor_kind"), ActorID: r.text("actor_id"), Address: r.text("address"),
		RequestID: r.text("request_id"), KeyID: optional(r, "key_id", r.keyID),
	}
	if err := json.Unmarshal([]byte(r.text("changes")), &e.Changes); err != nil {
		r.fail(fmt.Errorf("its changes: %w", err))
	}
	return e, r.err
}
