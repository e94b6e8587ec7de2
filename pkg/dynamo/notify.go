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

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/work"
)

const (
	skSubscriptions  = "webhooks"
	attrList         = "list"
	attrBody         = "body"
	deliveryPK       = "V#"
	placeDigits      = dueDigits + 19 // of a time and a sequence
	readingDelivery  = "reading a delivery"
	readingWebhooks  = "reading webhooks"
	readingDueEvents = "looking for deliveries that are due"
)

// subscriptionsKey is where an organization's webhooks are: one item. Its form is known to IAM policies: W#*.
func subscriptionsKey(organizationID string) item {
	return primaryKey("W#"+organizationID, skSubscriptions)
}

// deliveryKey is where a delivery is. Its form is known to IAM policies: V#*.
func deliveryKey(organizationID, id string) item { return primaryKey(deliveryPK+organizationID, id) }

// Subscriptions is one consistent GetItem.
func (s *Store) Subscriptions(ctx context.Context, organizationID string) (notify.Subscriptions, error) {
	all := notify.Subscriptions{OrganizationID: organizationID}
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: subscriptionsKey(organizationID), ConsistentRead: aws.Bool(true)})
	if err != nil || out.Item == nil {
		return all, failure(readingWebhooks, err)
	}
	r := read(out.Item)
	all.Version = r.number(attrVersion)
	r.parse(attrList, &all.List)
	return all, failure(readingWebhooks, r.err)
}

// PutSubscriptions is one transaction of the webhooks and the audit entry.
func (s *Store) PutSubscriptions(ctx context.Context, all notify.Subscriptions, e audit.Entry) error {
	entry, err := s.entry(e)
	if err != nil {
		return err
	}
	i := subscriptionsKey(all.OrganizationID)
	i[attrSchema], i[attrVersion], i[attrList] = number(schemaVersion), number(all.Version), asJSON(all.List)
	condition, values := seen(all.Version)
	return s.transact(ctx, "writing webhooks", []step{{types.TransactWriteItem{Put: &types.Put{
		TableName:                 &s.tables.Keys,
		Item:                      i,
		ConditionExpression:       &condition,
		ExpressionAttributeNames:  map[string]string{"#n": attrVersion},
		ExpressionAttributeValues: values,
	}}, lifecycle.ErrChanged}, entry})
}

// seen is the condition that what stands there is at the version before, or of the first that nothing does.
func seen(version int64) (condition string, values item) {
	if version == 1 {
		return "attribute_not_exists(#n)", nil
	}
	return "#n = :seen", item{":seen": number(version - 1)}
}

// AddDelivery is one PutItem.
func (s *Store) AddDelivery(ctx context.Context, r notify.Record) error {
	return s.putDelivery(ctx, &r)
}

// UpdateDelivery is one PutItem.
func (s *Store) UpdateDelivery(ctx context.Context, r notify.Record) error {
	return s.putDelivery(ctx, &r)
}

func (s *Store) putDelivery(ctx context.Context, r *notify.Record) error {
	condition, values := seen(r.Version)
	_, err := s.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName:                 &s.tables.Keys,
		Item:                      delivery(r),
		ConditionExpression:       &condition,
		ExpressionAttributeNames:  map[string]string{"#n": attrVersion},
		ExpressionAttributeValues: values,
	})
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		err = lifecycle.ErrChanged
	}
	return failure("writing a delivery", err)
}

// deliveryNames are the attributes of a delivery but its body.
var deliveryNames = []string{attrPK, attrSK, attrSchema, attrVersion, "webhook_id", attrKeyID, "event_id", "event_type", "status", "attempts", "next", attrCreatedAt,
	"sequence", "round", "tries", "claimed", attrUntil}

// delivery is one as an item.
func delivery(r *notify.Record) item {
	i := deliveryKey(r.OrganizationID, r.ID)
	i[attrSchema], i[attrVersion] = number(schemaVersion), number(r.Version)
	put(i, "webhook_id", r.WebhookID, text)
	put(i, attrKeyID, r.KeyID, keyID)
	i["event_id"], i["event_type"], i["status"], i["attempts"] = text(r.EventID), text(string(r.EventType)), text(string(r.Status)), asJSON(r.Attempts)
	put(i, "next", r.NextAttemptAt, moment)
	i[attrCreatedAt], i["sequence"], i["round"], i["tries"] = moment(r.CreatedAt), number(r.Sequence), days(r.Round), days(r.Tries)
	put(i, "claimed", r.Claimed, moment)
	i[attrUntil], i[attrTTL] = moment(r.Until), number(r.Until.Unix()+1)
	if r.Body != nil {
		i[attrBody] = binary(r.Body)
	}
	if d, due := notify.DueOf(r); due {
		i[attrDue], i[attrDueAt] = text(dueIn(notify.Work, work.ShardOf(r.OrganizationID))), text(d.Place())
	}
	return i
}

func readDelivery(i item) (notify.Record, error) {
	r := read(i)
	d := notify.Record{
		Delivery: notify.Delivery{ID: r.text(attrSK), WebhookID: optional(r, "webhook_id", r.text), KeyID: optional(r, attrKeyID, r.keyID),
			EventID: r.text("event_id"), EventType: audit.Action(r.text("event_type")), Status: notify.Status(r.text("status")),
			NextAttemptAt: optional(r, "next", r.moment), CreatedAt: r.moment(attrCreatedAt)},
		OrganizationID: strings.TrimPrefix(r.text(attrPK), deliveryPK), Sequence: r.number("sequence"), Round: r.days("round"), Tries: r.days("tries"),
		Claimed: optional(r, "claimed", r.moment), Until: r.moment(attrUntil), Version: r.number(attrVersion),
	}
	if i[attrBody] != nil {
		d.Body = r.binary(attrBody)
	}
	if err := json.Unmarshal([]byte(r.text("attempts")), &d.Attempts); err != nil {
		r.fail(fmt.Errorf("its attempts: %w", err))
	}
	return d, failure(readingDelivery, r.err)
}

// Delivery is one consistent GetItem.
func (s *Store) Delivery(ctx context.Context, organizationID, id string) (notify.Record, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: deliveryKey(organizationID, id), ConsistentRead: aws.Bool(true)})
	switch {
	case err != nil:
		return notify.Record{}, failure(readingDelivery, err)
	case out.Item == nil:
		return notify.Record{}, lifecycle.ErrNotFound
	}
	return readDelivery(out.Item)
}

// Deliveries is one consistent Query backwards, as if an earlier one had ended at before.
func (s *Store) Deliveries(ctx context.Context, organizationID, before string, limit int) (page []notify.Record, more bool, err error) {
	in := &dynamodb.QueryInput{
		TableName:                 &s.tables.Keys,
		ConsistentRead:            aws.Bool(true),
		ScanIndexForward:          aws.Bool(false),
		KeyConditionExpression:    aws.String("#pk = :pk"),
		ExpressionAttributeNames:  map[string]string{"#pk": attrPK},
		ExpressionAttributeValues: item{":pk": text(deliveryPK + organizationID)},
	}
	names := []string{"#pk"}
	for n, name := range deliveryNames[1:] {
		names = append(names, "#"+strconv.Itoa(n))
		in.ExpressionAttributeNames["#"+strconv.Itoa(n)] = name
	}
	in.ProjectionExpression = aws.String(strings.Join(names, ", "))
	if before != "" {
		in.ExclusiveStartKey = deliveryKey(organizationID, before)
	}
	items, err := s.query(ctx, "reading deliveries", in, limit+1)
	if err != nil {
		return nil, false, err
	}
	for _, i := range items[:min(len(items), limit)] {
		r, err := readDelivery(i)
		if err != nil {
			return nil, false, err
		}
		page = append(page, r)
	}
	return page, len(items) > limit, nil
}

// DueDeliveries is one Query of the index.
func (s *Store) DueDeliveries(ctx context.Context, q work.Query[notify.Due]) ([]notify.Due, error) {
	return duePage(ctx, s, readingDueEvents, notify.Work, q, notify.Due.Place, dueDelivery)
}

// dueDelivery reads what the index holds of a delivery.
func dueDelivery(r *reader) (d notify.Due, err error) {
	place := r.text(attrDueAt)
	d.Ref = notify.Ref{OrganizationID: strings.TrimPrefix(r.text(attrPK), deliveryPK), ID: r.text(attrSK)}
	if r.err != nil || len(place) < placeDigits {
		return d, errors.Join(fmt.Errorf("%q is not when a delivery is due", place), r.err)
	}
	ms, err := strconv.ParseInt(place[:dueDigits], 10, 64)
	if err == nil {
		d.At = time.UnixMilli(ms).UTC()
		d.Sequence, err = strconv.ParseInt(place[dueDigits:placeDigits], 10, 64)
	}
	return d, err
}
