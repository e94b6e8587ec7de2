package dynamo

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	skOrganization = "org"
	attrPlan       = "plan"
	attrActiveKeys = "active_keys"
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
	o := lifecycle.Organization{ID: id, Plan: r.text(attrPlan), AllowedScopes: r.list("allowed_scopes"),
		ActiveKeys: r.number(attrActiveKeys), CreatedAt: r.moment("created_at")}
	return o, failure("reading an organization", r.err)
}

// CreateOrganization is one transaction of the organization and its audit entry.
func (s *Store) CreateOrganization(ctx context.Context, o lifecycle.Organization, e audit.Entry) error {
	i := organizationKey(o.ID)
	i[attrSchema] = number(schemaVersion)
	i[attrPlan], i[attrActiveKeys] = text(o.Plan), number(o.ActiveKeys)
	i["allowed_scopes"], i["created_at"] = list(o.AllowedScopes), moment(o.CreatedAt)
	entry, err := s.entry(e)
	if err != nil {
		return err
	}
	return s.transact(ctx, "creating an organization", []step{s.create(i), entry})
}

// count moves active_keys, upwards only on the plan that was seen and within its bound.
func (s *Store) count(c *lifecycle.Count) step {
	condition := "attribute_exists(#pk)"
	names := map[string]string{"#pk": attrPK, "#active": attrActiveKeys}
	values := item{":delta": number(c.Delta)}
	if c.Delta > 0 {
		condition += " AND #plan = :plan AND #active <= :room"
		names["#plan"] = attrPlan
		values[":plan"], values[":room"] = text(c.Plan), number(c.Max-c.Delta)
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
