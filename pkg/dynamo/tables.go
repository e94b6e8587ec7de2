package dynamo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

const (
	tablesPatience = time.Minute
	createTries    = 5
)

// CreateTables makes the tables that do not exist and waits until all can be used.
func CreateTables(ctx context.Context, client *dynamodb.Client, t Tables) error {
	for _, in := range t.all() {
		if _, err := createTable(ctx, client, in); err != nil {
			return err
		}
	}
	return nil
}

// ErrNotDevelopment reports a table that was not made for development.
var ErrNotDevelopment = errors.New("the table was not made for development")

// DevelopmentTables makes the tables that do not exist, each with a mark that says it is for development, and refuses one
// that exists without that mark with ErrNotDevelopment, leaving it as it is. Another process may be doing the same: it is
// given patience to put the mark.
func DevelopmentTables(ctx context.Context, client *dynamodb.Client, t Tables, patience time.Duration) error {
	for _, in := range t.all() {
		created, err := createTable(ctx, client, in)
		if err == nil && created {
			err = mark(ctx, client, *in.TableName)
		} else if err == nil {
			err = marked(ctx, client, *in.TableName, patience)
		}
		if err == nil && !created && in.StreamSpecification != nil {
			err = stream(ctx, client, in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t Tables) all() []*dynamodb.CreateTableInput {
	return []*dynamodb.CreateTableInput{t.keysTable(), t.auditTable(), plainTable(t.Chain)}
}

func (t Tables) keysTable() *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{
		TableName:            &t.Keys,
		AttributeDefinitions: texts(attrPK, attrSK, attrByOrganization, attrByProject, attrNewest, attrDue, attrDueAt),
		KeySchema:            keys(attrPK, attrSK),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{
			index(indexByOrganization, attrByOrganization), index(indexByProject, attrByProject), dueIndex()},
	}
}

// auditTable has a stream of what is put into it: see Tail.
func (t Tables) auditTable() *dynamodb.CreateTableInput {
	in := plainTable(t.Audit)
	in.StreamSpecification = &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeNewImage}
	return in
}

// plainTable is one without an index.
func plainTable(name string) *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{TableName: &name, AttributeDefinitions: texts(attrPK, attrSK), KeySchema: keys(attrPK, attrSK)}
}

// createTable says whether it made the table. The SDK would try again when an answer is lost, and then take our own table for
// another's: it tries once, and of a table that is there after a lost answer we take it that it is ours.
func createTable(ctx context.Context, client *dynamodb.Client, in *dynamodb.CreateTableInput) (created bool, err error) {
	in.BillingMode = types.BillingModePayPerRequest
	var exists *types.ResourceInUseException
	for range createTries {
		_, err = client.CreateTable(ctx, in, func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} })
		if exists = nil; err == nil || errors.As(err, &exists) || pause(ctx) != nil {
			created = created || err == nil
			break
		}
		var api smithy.APIError
		created = created || !errors.As(err, &api) || api.ErrorFault() == smithy.FaultServer // nobody said that it was not made
	}
	if err != nil && exists == nil {
		return false, failure("creating table "+*in.TableName, err)
	}
	waiter := dynamodb.NewTableExistsWaiter(client, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, time.Second
	})
	if err := waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: in.TableName}, tablesPatience); err != nil {
		return false, failure("waiting for table "+*in.TableName, err)
	}
	return created, nil
}

// stream turns the stream of a table on if it has none, as one that an earlier version made. Another process may be doing
// the same.
func stream(ctx context.Context, client *dynamodb.Client, in *dynamodb.CreateTableInput) error {
	doing := "turning on the stream of the table " + *in.TableName
	out, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: in.TableName})
	if err != nil || out.Table.StreamSpecification != nil {
		return failure(doing, err)
	}
	_, refused := client.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: in.TableName, StreamSpecification: in.StreamSpecification})
	if refused == nil {
		return nil
	}
	out, err = client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: in.TableName})
	if err == nil && out.Table.StreamSpecification == nil {
		err = refused
	}
	return failure(doing, err)
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

// dueIndex holds no more than is asked of it: when which key is due.
func dueIndex() types.GlobalSecondaryIndex {
	return types.GlobalSecondaryIndex{IndexName: aws.String(indexDue), KeySchema: keys(attrDue, attrDueAt),
		Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}}
}

// developmentPartition holds what only tables for development have. No organization can be called so.
const developmentPartition = "D#development"

// developmentKey is where the mark of a development table is.
func developmentKey() item { return primaryKey(developmentPartition, "marker") }

func mark(ctx context.Context, client *dynamodb.Client, table string) error {
	i := developmentKey()
	i[attrSchema] = number(schemaVersion)
	_, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: i})
	return failure("marking the table "+table, err)
}

// marked waits for a table's mark.
func marked(ctx context.Context, client *dynamodb.Client, table string, patience time.Duration) error {
	in := &dynamodb.GetItemInput{TableName: &table, Key: developmentKey(), ConsistentRead: aws.Bool(true)}
	for deadline := time.Now().Add(patience); ; {
		out, err := client.GetItem(ctx, in)
		switch {
		case err != nil:
			return failure("looking for the mark of the table "+table, err)
		case out.Item != nil:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%s: %w", table, ErrNotDevelopment)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}
