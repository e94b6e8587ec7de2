package dynamo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/work"
)

// The index of keys that are due. Profiles alone are in it, and only those that somebody must look at one day.
const (
	indexDue  = "due"
	attrDue   = "due" // the index's partition: work and shard
	attrDueAt = "due_at"
	dueDigits = 15
)

func dueIn(work apikey.Work, shard int) string { return string(work) + "#" + strconv.Itoa(shard) }

// dueAt sorts by time, then as ids do: base62 digits are in the order of their bytes.
func dueAt(d lifecycle.DueKey) string {
	return dueMillis(d.At) + strings.TrimPrefix(d.ID.String(), "key_")
}

// dueMillis is a time up to the end of the year 9999, in digits that sort as times do.
func dueMillis(at time.Time) string { return fmt.Sprintf("%0*d", dueDigits, at.UnixMilli()) }

// timed adds to a profile what time does to its key.
func timed(i item, r *apikey.Record) {
	if r.Due != nil {
		i[attrDue], i[attrDueAt] = dueAttributes(r, r.Due)
	}
	if r.Told != (apikey.Told{}) {
		i["told"] = asJSON(r.Told)
	}
	if r.Handover != nil {
		i["handover"] = asJSON(*r.Handover)
	}
}

// dueAttributes are what the index has of a key that is due.
func dueAttributes(r *apikey.Record, due *apikey.Due) (partition, at types.AttributeValue) {
	return text(dueIn(due.Work, work.ShardOf(r.OrganizationID))), text(dueAt(lifecycle.DueKey{At: due.At, ID: r.ID}))
}

func asJSON(v any) types.AttributeValue {
	b, _ := json.Marshal(v) // of times and numbers alone
	return text(string(b))
}

// time reads what timed added.
func (p *reader) time(r *apikey.Record) {
	if p.item[attrDue] != nil {
		work, _, _ := strings.Cut(p.text(attrDue), "#")
		at, err := dueKey(p.text(attrDueAt))
		if err != nil {
			p.fail(err)
		}
		r.Due = &apikey.Due{Work: apikey.Work(work), At: at.At}
	}
	if p.item["told"] != nil {
		p.parse("told", &r.Told)
	}
	if p.item["handover"] != nil {
		r.Handover = new(apikey.Handover)
		p.parse("handover", r.Handover)
	}
}

func (p *reader) parse(name string, into any) {
	if err := json.Unmarshal([]byte(p.text(name)), into); err != nil {
		p.fail(fmt.Errorf("its attribute %s: %w", name, err))
	}
}

// dueKey reads what dueAt wrote.
func dueKey(s string) (d lifecycle.DueKey, err error) {
	if len(s) < dueDigits {
		return d, fmt.Errorf("%q is not when a key is due", s)
	}
	ms, err := strconv.ParseInt(s[:dueDigits], 10, 64)
	if err != nil {
		return d, fmt.Errorf("reading when a key is due: %w", err)
	}
	d.At = time.UnixMilli(ms).UTC()
	d.ID, err = apikey.ParseID("key_" + s[dueDigits:])
	return d, err
}

// Due is one Query of the index.
func (s *Store) Due(ctx context.Context, q lifecycle.DueQuery) ([]lifecycle.DueKey, error) {
	return duePage(ctx, s, "looking for keys that are due", q.Work, q.Query, dueAt, func(r *reader) (lifecycle.DueKey, error) {
		return dueKey(r.text(attrDueAt))
	})
}

// duePage asks the index for what q wants of one kind of work. place is where T stands in the index, and read reads it there.
func duePage[T comparable](ctx context.Context, s *Store, doing string, kind apikey.Work, q work.Query[T], place func(T) string,
	read func(*reader) (T, error)) ([]T, error) {
	in := &dynamodb.QueryInput{
		TableName:                &s.tables.Keys,
		IndexName:                aws.String(indexDue),
		KeyConditionExpression:   aws.String("#due = :due AND #at BETWEEN :from AND :to"),
		ExpressionAttributeNames: map[string]string{"#due": attrDue, "#at": attrDueAt},
		ExpressionAttributeValues: item{":due": text(dueIn(kind, q.Shard)), ":from": text("0"),
			":to": text(dueMillis(q.Until) + "~")},
		ScanIndexForward: aws.Bool(!q.Latest),
	}
	if q.After != *new(T) {
		in.ExpressionAttributeValues[":from"] = text(place(q.After) + "!")
	}
	items, err := s.query(ctx, doing, in, q.Limit)
	if err != nil {
		return nil, err
	}
	list := make([]T, 0, len(items))
	for _, i := range items[:min(len(items), q.Limit)] {
		d, err := read(&reader{item: i})
		if err != nil {
			return nil, failure(doing, err)
		}
		list = append(list, d)
	}
	return list, nil
}

// Postpone is one UpdateItem of the profile.
func (s *Store) Postpone(ctx context.Context, r apikey.Record, due *apikey.Due) error {
	id := r.ID
	change, condition, values := "REMOVE #due, #at", "#n = :seen AND attribute_not_exists(#due)", item{":seen": number(r.Version)}
	if r.Due != nil {
		condition = "#n = :seen AND #due = :wasdue AND #at = :wasat"
		values[":wasdue"], values[":wasat"] = dueAttributes(&r, r.Due)
	}
	if due != nil {
		change = "SET #due = :due, #at = :at"
		values[":due"], values[":at"] = dueAttributes(&r, due)
	}
	_, err := s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &s.tables.Keys,
		Key:                       primaryKey(pkOf(id), skProfile),
		UpdateExpression:          &change,
		ConditionExpression:       &condition,
		ExpressionAttributeNames:  map[string]string{"#due": attrDue, "#at": attrDueAt, "#n": attrVersion},
		ExpressionAttributeValues: values,
	})
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		err = lifecycle.ErrChanged
	}
	return failure("postponing "+id.String(), err)
}

// Hint is one UpdateItem of the profile: see verify.Store.
func (s *Store) Hint(ctx context.Context, id apikey.ID, organizationID string, at time.Time) error {
	r := apikey.Record{Key: apikey.Key{ID: id, OrganizationID: organizationID}}
	due, dueAt := dueAttributes(&r, &apikey.Due{Work: apikey.Sweep, At: at})
	_, err := s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &s.tables.Keys,
		Key:                       primaryKey(pkOf(id), skProfile),
		UpdateExpression:          aws.String("SET #due = :due, #at = :at"),
		ConditionExpression:       aws.String("attribute_exists(#pk)"),
		ExpressionAttributeNames:  map[string]string{"#pk": attrPK, "#due": attrDue, "#at": attrDueAt},
		ExpressionAttributeValues: item{":due": due, ":at": dueAt},
	})
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		return nil
	}
	return failure("hinting at "+id.String(), err)
}
