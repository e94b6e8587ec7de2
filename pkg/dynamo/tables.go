package dynamo

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const tablesPatience = time.Minute

// CreateTables makes the tables that do not exist and waits until both can be used. Of many callers at once exactly one
// is told that it created them.
func CreateTables(ctx context.Context, client *dynamodb.Client, t Tables) (created bool, err error) {
	audit := &dynamodb.CreateTableInput{TableName: &t.Audit, AttributeDefinitions: texts(attrPK, attrSK), KeySchema: keys(attrPK, attrSK)}
	if _, err := createTable(ctx, client, audit); err != nil {
		return false, err
	}
	return createTable(ctx, client, &dynamodb.CreateTableInput{
		TableName:            &t.Keys,
		AttributeDefinitions: texts(attrPK, attrSK, attrByOrganization, attrByProject, attrNewest),
		KeySchema:            keys(attrPK, attrSK),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{
			index(indexByOrganization, attrByOrganization), index(indexByProject, attrByProject)},
	})
}

func createTable(ctx context.Context, client *dynamodb.Client, in *dynamodb.CreateTableInput) (created bool, err error) {
	in.BillingMode = types.BillingModePayPerRequest
	_, err = client.CreateTable(ctx, in)
	var exists *types.ResourceInUseException
	if err != nil && !errors.As(err, &exists) {
		return false, failure("creating table "+*in.TableName, err)
	}
	waiter := dynamodb.NewTableExistsWaiter(client, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, time.Second
	})
	if err := waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: in.TableName}, tablesPatience); err != nil {
		return false, failure("waiting for table "+*in.TableName, err)
	}
	return exists == nil, nil
}

func texts(names ...string) (defs []types.AttributeDefinition) {
	for _, name := range names {
		defs = append(defs, types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS})
	}
	return defs
}

func keys(partition, sort string) []types.KeySchemaElement {
	return []types.KeySchemaElement{
		{AttributeName: &partition, KeyType: types.KeyTypeHash}, {AttributeName: &sort, KeyType: types.KeyTypeRange}}
}

func index(name, partition string) types.GlobalSecondaryIndex {
	return types.GlobalSecondaryIndex{IndexName: &name, KeySchema: keys(partition, attrNewest),
		Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}}
}

// developmentKey is where the marker of development tables is.
func developmentKey() item { return primaryKey("D#development", "marker") }

// MarkDevelopment says that the tables are for development. Only the process that created them may say so.
func (s *Store) MarkDevelopment(ctx context.Context) error {
	i := developmentKey()
	i[attrSchema] = number(schemaVersion)
	_, err := s.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.tables.Keys, Item: i})
	return failure("marking the tables as development tables", err)
}

// IsDevelopment says whether the tables were marked by MarkDevelopment. It waits up to patience for the mark: the
// process that has just created the tables may be about to put it.
func (s *Store) IsDevelopment(ctx context.Context, patience time.Duration) (bool, error) {
	in := &dynamodb.GetItemInput{TableName: &s.tables.Keys, Key: developmentKey(), ConsistentRead: aws.Bool(true)}
	for deadline := time.Now().Add(patience); ; {
		out, err := s.client.GetItem(ctx, in)
		if err == nil && out.Item == nil && time.Now().Before(deadline) {
			if err = pause(ctx); err == nil {
				continue
			}
		}
		return err == nil && out.Item != nil, failure("looking for the mark of development tables", err)
	}
}
