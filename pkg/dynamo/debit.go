package dynamo

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/verify"
)

// A debit adds to both windows' counters and drops those of the latest windows that are past.
const debitUpdate = "SET #u = :now ADD #m :c, #d :c REMOVE #mp, #dp"

// debitCondition is verify.Refusal as DynamoDB says it. The limits are attributes compared with attributes, so that
// nothing needs to be read first.
const debitCondition = "#h = :h AND #st = :active AND attribute_not_exists(#cl)" +
	" AND (attribute_not_exists(#e) OR #e > :now)" +
	" AND (attribute_not_exists(#ld) OR (#ld >= :c AND (attribute_not_exists(#d) OR #d < #ld)))" +
	" AND (attribute_not_exists(#lm) OR (#lm >= :c AND (attribute_not_exists(#m) OR #m < #lm)))"

// Debit is one UpdateItem. Attempts of the SDK whose answer was lost may debit twice, never let in twice.
func (s *Store) Debit(ctx context.Context, d verify.Debit) (verify.Hot, bool, error) {
	out, err := s.client.UpdateItem(ctx, s.debit(&d))
	if err == nil {
		hot, err := readHot(out.Attributes, &d)
		return hot, err == nil, failure("debiting a key", err)
	}
	var refused *types.ConditionalCheckFailedException
	if !errors.As(err, &refused) {
		return verify.Hot{}, false, failure("debiting a key", err)
	}
	if refused.Item == nil {
		return verify.Hot{}, false, verify.ErrNoKey
	}
	hot, err := readHot(refused.Item, &d)
	return hot, false, failure("reading a refused key", err)
}

// Look is one consistent GetItem.
func (s *Store) Look(ctx context.Context, d verify.Debit) (verify.Hot, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: primaryKey(pkOf(d.ID), skHot),
		ConsistentRead: aws.Bool(true)})
	if err != nil {
		return verify.Hot{}, failure("looking at a key", err)
	}
	if out.Item == nil {
		return verify.Hot{}, verify.ErrNoKey
	}
	hot, err := readHot(out.Item, &d)
	return hot, failure("reading a key", err)
}

func (s *Store) debit(d *verify.Debit) *dynamodb.UpdateItemInput {
	condition := debitCondition
	names := map[string]string{
		"#h": attrHash, "#st": attrState, "#cl": attrClosing, "#e": attrEnd, "#lm": attrMinuteLimit, "#ld": attrDayLimit,
		"#u": attrLastUse, "#m": string(d.Minute()), "#d": string(d.Day()),
		"#mp": string(apikey.MinuteWindow(d.At, apikey.PastMinutes)), "#dp": string(apikey.DayWindow(d.At, apikey.PastDays)),
	}
	values := item{":h": binary(d.Hash.Bytes()), ":active": text(string(apikey.Active)), ":now": moment(d.At), ":c": number(d.Cost)}
	if d.OrganizationID != "" {
		condition += " AND #o = :o"
		names["#o"], values[":o"] = attrOrganization, text(d.OrganizationID)
	}
	for i, scope := range d.Scopes {
		name := ":s" + strconv.Itoa(i)
		condition += " AND contains(#sc, " + name + ")"
		names["#sc"], values[name] = attrScopes, text(scope)
	}
	return &dynamodb.UpdateItemInput{
		TableName:                           &s.tables.Keys,
		Key:                                 primaryKey(pkOf(d.ID), skHot),
		UpdateExpression:                    aws.String(debitUpdate),
		ConditionExpression:                 &condition,
		ExpressionAttributeNames:            names,
		ExpressionAttributeValues:           values,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
}

// readHot is a hot item as a verify sees it.
func readHot(i item, d *verify.Debit) (verify.Hot, error) {
	r := read(i)
	hot := verify.Hot{
		Identity: verify.Identity{KeyID: d.ID, OrganizationID: r.text(attrOrganization), ProjectID: r.text(attrProject),
			EnvironmentID: aws.ToString(optional(r, attrEnvironment, r.text)),
			ExternalID:    aws.ToString(optional(r, attrExternal, r.text)), Scopes: r.set(attrScopes)},
		Hash:        r.hash(),
		State:       r.state(),
		End:         aws.ToTime(optional(r, attrEnd, r.moment)),
		CIDRs:       r.prefixes(),
		MinuteLimit: optional(r, attrMinuteLimit, r.number),
		DayLimit:    optional(r, attrDayLimit, r.number),
		MinuteCount: aws.ToInt64(optional(r, string(d.Minute()), r.number)),
		DayCount:    aws.ToInt64(optional(r, string(d.Day()), r.number)),
	}
	for name := range i {
		if window(name) && d.Past(apikey.Window(name)) {
			hot.Past = append(hot.Past, apikey.Window(name))
		}
	}
	return hot, r.err
}

// state is Record.State, of the stored state and a closing that came after it.
func (r *reader) state() apikey.Status {
	stored, closing := apikey.Status(r.text(attrState)), r.closing()
	switch {
	case closing == nil, stored == apikey.Revoked:
		return stored
	case closing.Verb == apikey.CloseRevoke:
		return apikey.Revoked
	case closing.Verb == apikey.CloseArchive, stored == apikey.Archived:
		return apikey.Archived
	}
	return apikey.Disabled
}

// Forget is one UpdateItem. It is verify.ErrNoKey for an unknown id, which it does not create.
func (s *Store) Forget(ctx context.Context, id apikey.ID, windows []apikey.Window) error {
	if len(windows) == 0 {
		return nil
	}
	names, remove := map[string]string{"#pk": attrPK}, make([]string, len(windows))
	for i, w := range windows {
		remove[i] = "#" + string(w)
		names[remove[i]] = string(w)
	}
	_, err := s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:                &s.tables.Keys,
		Key:                      primaryKey(pkOf(id), skHot),
		UpdateExpression:         aws.String("REMOVE " + strings.Join(remove, ", ")),
		ConditionExpression:      aws.String("attribute_exists(#pk)"),
		ExpressionAttributeNames: names,
	})
	var refused *types.ConditionalCheckFailedException
	if errors.As(err, &refused) {
		return verify.ErrNoKey
	}
	return failure("forgetting a key's counters", err)
}
