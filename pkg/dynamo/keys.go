package dynamo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	indexByOrganization = "by-organization"
	indexByProject      = "by-project"
	maxTorn             = 5   // readings after which a torn key is a broken one
	maxBatch            = 100 // the most items that one BatchGetItem takes
)

// Key is one consistent Query. DynamoDB may show one item from before a transaction and the other from after it: such a
// reading is done again. A key that stays torn is an error that says what is wrong with it.
func (s *Store) Key(ctx context.Context, id apikey.ID) (apikey.Record, error) {
	for torn := 1; ; torn++ {
		record, err := s.whole(ctx, id)
		switch {
		case err == nil, err == lifecycle.ErrNotFound:
			return record, err
		case !errors.Is(err, errTorn), torn == maxTorn, pause(ctx) != nil:
			return apikey.Record{}, failure("reading "+id.String(), err)
		}
	}
}

// whole reads both items of a key once.
func (s *Store) whole(ctx context.Context, id apikey.ID) (apikey.Record, error) {
	out, err := s.client.Query(ctx, &dynamodb.QueryInput{
		TableName:                 &s.tables.Keys,
		ConsistentRead:            aws.Bool(true),
		KeyConditionExpression:    aws.String("#pk = :pk"),
		ExpressionAttributeNames:  map[string]string{"#pk": attrPK},
		ExpressionAttributeValues: item{":pk": text(pkOf(id))},
	})
	if err != nil {
		return apikey.Record{}, err
	}
	items := map[string]item{}
	for _, i := range out.Items {
		items[textOf(i, attrSK)] = i
	}
	if items[skHot] == nil && items[skProfile] == nil {
		return apikey.Record{}, lifecycle.ErrNotFound
	}
	return join(id, items[skHot], items[skProfile])
}

// pause waits some milliseconds, so that a transaction under way can end.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5*time.Millisecond + rand.N(10*time.Millisecond)):
		return nil
	}
}

// Keys is an index query, and a consistent reading of the hot items that it names. A key whose index entry lags behind
// is read whole: it may be shown on the side that it has just left, but never as what it no longer is.
func (s *Store) Keys(ctx context.Context, q lifecycle.Query) ([]apikey.Record, bool, error) {
	profiles, more, err := s.profiles(ctx, q)
	if err != nil {
		return nil, false, err
	}
	hots, err := s.hots(ctx, profiles)
	if err != nil {
		return nil, false, failure("reading the hot items of a list", err)
	}
	page := make([]apikey.Record, len(profiles))
	for n, p := range profiles {
		pk := textOf(p, attrPK)
		id, err := idOf(pk)
		if err != nil {
			return nil, false, failure("listing keys", err)
		}
		page[n], err = join(id, hots[pk], p)
		if errors.Is(err, errTorn) {
			page[n], err = s.Key(ctx, id)
		}
		if err != nil {
			return nil, false, failure("listing "+id.String(), err)
		}
	}
	return page, more, nil
}

// profiles is a page of an index, and whether there is more. For both sides the living are asked for twice, before and
// after the ended: a key that changes sides meanwhile is found, once. Each answer holds the first of its side, so all of
// them hold the first of both.
func (s *Store) profiles(ctx context.Context, q lifecycle.Query) ([]item, bool, error) {
	sides := []lifecycle.Side{q.Side}
	if q.Side == lifecycle.Both {
		sides = []lifecycle.Side{lifecycle.Living, lifecycle.Ended, lifecycle.Living}
	}
	found := map[string]item{}
	for _, q.Side = range sides {
		answer, err := s.query(ctx, "listing keys", s.listing(&q), q.Limit+1)
		if err != nil {
			return nil, false, err
		}
		for _, p := range answer {
			found[textOf(p, attrPK)] = p
		}
	}
	page := slices.SortedFunc(maps.Values(found), func(a, b item) int { return cmp.Compare(textOf(b, attrNewest), textOf(a, attrNewest)) })
	return page[:min(len(page), q.Limit)], len(page) > q.Limit, nil
}

// listing asks the index for q.
func (s *Store) listing(q *lifecycle.Query) *dynamodb.QueryInput {
	in := &dynamodb.QueryInput{
		TableName:                 &s.tables.Keys,
		IndexName:                 aws.String(indexByOrganization),
		ScanIndexForward:          aws.Bool(false),
		KeyConditionExpression:    aws.String("#by = :by"),
		ExpressionAttributeNames:  map[string]string{"#by": attrByOrganization},
		ExpressionAttributeValues: item{":by": text(byOrganization(q.OrganizationID, q.Side == lifecycle.Ended))},
	}
	if q.ProjectID != "" {
		in.IndexName, in.ExpressionAttributeNames["#by"] = aws.String(indexByProject), attrByProject
		in.ExpressionAttributeValues[":by"] = text(byProject(q.OrganizationID, q.ProjectID, q.Side == lifecycle.Ended))
	}
	if q.Before != (lifecycle.Position{}) {
		in.KeyConditionExpression = aws.String("#by = :by AND #newest < :before")
		in.ExpressionAttributeNames["#newest"], in.ExpressionAttributeValues[":before"] = attrNewest, text(newest(q.Before))
	}
	return in
}

// hots reads the hot items beside profiles, by partition.
func (s *Store) hots(ctx context.Context, profiles []item) (map[string]item, error) {
	found := make(map[string]item, len(profiles))
	for some := range slices.Chunk(profiles, maxBatch) {
		keys := make([]item, len(some))
		for i, p := range some {
			keys[i] = item{attrPK: p[attrPK], attrSK: text(skHot)}
		}
		if err := s.batchGet(ctx, s.tables.Keys, keys, func(i item) { found[textOf(i, attrPK)] = i }); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// batchGet gives the items under keys of a table, of at most maxBatch different ones, to take. DynamoDB may leave some for
// later: they are asked for again.
func (s *Store) batchGet(ctx context.Context, table string, keys []item, take func(item)) error {
	for {
		out, err := s.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
			table: {Keys: keys, ConsistentRead: aws.Bool(true)}}})
		if err != nil {
			return err
		}
		for _, i := range out.Responses[table] {
			take(i)
		}
		if keys = out.UnprocessedKeys[table].Keys; len(keys) == 0 {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// Commit is one TransactWriteItems, which holds 100 actions: two for each key and one for anything else. The count goes
// last: what was changed by someone else is told before a plan that is full, perhaps by that very change.
func (s *Store) Commit(ctx context.Context, c lifecycle.Change) error {
	var steps []step
	if c.Create != nil {
		hot, err := hotItem(c.Create)
		if err != nil {
			return failure("writing down a new key", err)
		}
		steps = append(steps, s.create(hot), s.create(profileItem(c.Create)))
	}
	for i := range c.Update {
		u := &c.Update[i]
		facts, err := hotFacts(&u.Record)
		if err != nil {
			return failure("writing down "+u.Record.ID.String(), err)
		}
		steps = append(steps, s.updateHot(u, facts, c.Entry.At), s.replace(profileItem(&u.Record)))
	}
	entry, err := s.entry(c.Entry)
	if err != nil {
		return err
	}
	if !c.Silent {
		steps = append(steps, entry)
	}
	steps = append(steps, s.answers(&c)...)
	if c.Count != nil {
		steps = append(steps, s.count(c.Count))
	}
	return s.transact(ctx, "committing a change of keys", steps)
}

// create puts an item that is not there yet.
func (s *Store) create(i item) step { return create(s.tables.Keys, i) }

func create(table string, i item) step {
	return step{types.TransactWriteItem{Put: &types.Put{
		TableName:                &table,
		Item:                     i,
		ConditionExpression:      aws.String("attribute_not_exists(#pk)"),
		ExpressionAttributeNames: map[string]string{"#pk": attrPK},
	}}, lifecycle.ErrChanged}
}

// replace puts a profile; the hot item beside it carries the condition of both.
func (s *Store) replace(i item) step {
	return step{types.TransactWriteItem{Put: &types.Put{TableName: &s.tables.Keys, Item: i}}, lifecycle.ErrChanged}
}

// updateHot sets the managed attributes to facts, and removes those that facts lack, as of at.
func (s *Store) updateHot(u *lifecycle.Update, facts item, at time.Time) step {
	names, values := map[string]string{}, item{":seen": number(u.Record.Version - 1)}
	var sets, removes []string
	for _, name := range managed {
		names["#"+name] = name
		if v, ok := facts[name]; ok {
			sets = append(sets, "#"+name+" = :"+name)
			values[":"+name] = v
		} else {
			removes = append(removes, "#"+name)
		}
	}
	condition := "#" + attrVersion + " = :seen AND attribute_not_exists(#" + attrClosing + ")"
	if u.Closing {
		condition = "#" + attrVersion + " = :seen AND attribute_exists(#" + attrClosing + ")"
	}
	for _, w := range u.Frozen {
		name, value := "#"+string(w), ":"+string(w)
		names[name], values[value] = string(w), number(u.Record.Counts[w])
		if u.Record.Counts[w] == 0 {
			condition += " AND (attribute_not_exists(" + name + ") OR " + name + " = " + value + ")"
		} else {
			condition += " AND " + name + " = " + value
		}
	}
	for w, n := range u.Below(at) {
		name, value := "#"+string(w), ":below"+string(w)
		names[name], values[value] = string(w), number(n)
		condition += " AND (attribute_not_exists(" + name + ") OR " + name + " < " + value + ")"
	}
	expression := "SET " + strings.Join(sets, ", ")
	if len(removes) > 0 {
		expression += " REMOVE " + strings.Join(removes, ", ")
	}
	return step{types.TransactWriteItem{Update: &types.Update{
		TableName:                 &s.tables.Keys,
		Key:                       primaryKey(pkOf(u.Record.ID), skHot),
		UpdateExpression:          &expression,
		ConditionExpression:       &condition,
		ExpressionAttributeNames:  names,
		ExpressionAttributeValues: values,
	}}, lifecycle.ErrChanged}
}

// Close is one plain UpdateItem, which DynamoDB queues behind verifies instead of cancelling it as it does transactions.
func (s *Store) Close(ctx context.Context, id apikey.ID, version int64, c apikey.Closing) error {
	closing, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("writing down a closing: %w", err)
	}
	_, err = s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                 &s.tables.Keys,
		Key:                       primaryKey(pkOf(id), skHot),
		UpdateExpression:          aws.String("SET #cl = :cl"),
		ConditionExpression:       aws.String("#n = :seen AND attribute_not_exists(#cl)"),
		ExpressionAttributeNames:  map[string]string{"#cl": attrClosing, "#n": attrVersion},
		ExpressionAttributeValues: item{":cl": text(string(closing)), ":seen": number(version)},
	})
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		err = lifecycle.ErrChanged
	}
	return failure("closing "+id.String(), err)
}
