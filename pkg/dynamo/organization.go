package dynamo

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	skOrganization    = "org"
	attrActiveKeys    = "active_keys"
	attrAllowedScopes = "allowed_scopes" // absent: the deployment's default
	attrClaimedPlan   = "claimed_plan"
	attrClaimedAt     = "claimed_at"
	attrCreatedAt     = "created_at"
	attrPlan          = "plan"
	attrSigning       = "signing" // absent: none yet
)

// organizationKey is where an organization is. Its form is known to IAM policies: O#*.
func organizationKey(id string) item { return primaryKey("O#"+id, skOrganization) }

// Organization is one consistent GetItem.
func (s *Store) Organization(ctx context.Context, id string) (lifecycle.Organization, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: organizationKey(id), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return lifecycle.Organization{}, failure("reading an organization", err)
	}
	if out.Item == nil {
		return lifecycle.Organization{}, lifecycle.ErrNotFound
	}
	r := read(out.Item)
	o := lifecycle.Organization{ID: id, Plan: r.text(attrPlan), ClaimedPlan: r.text(attrClaimedPlan), ClaimedAt: r.moment(attrClaimedAt),
		ActiveKeys: r.number(attrActiveKeys), CreatedAt: r.moment(attrCreatedAt), Version: r.number(attrVersion)}
	if out.Item[attrSigning] != nil {
		r.parse(attrSigning, &o.Signing)
	}
	if out.Item[attrAllowedScopes] != nil {
		o.AllowedScopes = r.list(attrAllowedScopes)
	}
	return o, failure("reading an organization", r.err)
}

// PutOrganization is one transaction of the organization and its audit entry.
func (s *Store) PutOrganization(ctx context.Context, o lifecycle.Organization, e audit.Entry) error {
	entry, err := s.entry(e)
	if err != nil {
		return err
	}
	return s.transact(ctx, "writing an organization", []step{s.organization(&o), entry})
}

// organization writes all of o, except that ActiveKeys of one that exists stay as they are.
func (s *Store) organization(o *lifecycle.Organization) step {
	names := map[string]string{"#active": attrActiveKeys, "#claimed": attrClaimedPlan, "#claimed_at": attrClaimedAt, "#created": attrCreatedAt, "#n": attrVersion,
		"#plan": attrPlan, "#scopes": attrAllowedScopes, "#signing": attrSigning, "#v": attrSchema}
	values := item{":active": number(o.ActiveKeys), ":claimed": text(o.ClaimedPlan), ":claimed_at": moment(o.ClaimedAt), ":created": moment(o.CreatedAt), ":n": number(o.Version),
		":plan": text(o.Plan), ":v": number(schemaVersion)}
	change := "SET #active = if_not_exists(#active, :active), #claimed = :claimed, #claimed_at = :claimed_at, #created = :created, #n = :n, #plan = :plan, #v = :v"
	var gone []string
	if o.AllowedScopes != nil {
		change += ", #scopes = :scopes"
		values[":scopes"] = list(o.AllowedScopes)
	} else {
		gone = append(gone, "#scopes")
	}
	if o.Signing != nil {
		change += ", #signing = :signing"
		values[":signing"] = asJSON(o.Signing)
	} else {
		gone = append(gone, "#signing")
	}
	if len(gone) > 0 {
		change += " REMOVE " + strings.Join(gone, ", ")
	}
	condition := "attribute_not_exists(#v)" // of every item, whatever else it lacks
	if o.Version != 1 {
		condition, values[":seen"] = "#n = :seen", number(o.Version-1)
	}
	return step{types.TransactWriteItem{Update: &types.Update{
		TableName:                 &s.tables.Keys,
		Key:                       organizationKey(o.ID),
		UpdateExpression:          &change,
		ConditionExpression:       &condition,
		ExpressionAttributeNames:  names,
		ExpressionAttributeValues: values,
	}}, lifecycle.ErrChanged}
}

// count moves active_keys, upwards only in the organization that was seen and within its plan's bound.
func (s *Store) count(c *lifecycle.Count) step {
	condition := "attribute_exists(#pk)"
	names := map[string]string{"#pk": attrPK, "#active": attrActiveKeys}
	values := item{":delta": number(c.Delta)}
	if c.Delta > 0 {
		condition += " AND #n = :seen AND #active <= :room"
		names["#n"] = attrVersion
		values[":seen"], values[":room"] = number(c.Version), number(c.Max-c.Delta)
	}
	return step{types.TransactWriteItem{Update: &types.Update{
		TableName:                 &s.tables.Keys,
		Key:                       organizationKey(c.OrganizationID),
		UpdateExpression:          aws.String("ADD #active :delta"),
		ConditionExpression:       &condition,
		ExpressionAttributeNames:  names,
		ExpressionAttributeValues: values,
	}}, lifecycle.ErrCount}
}
