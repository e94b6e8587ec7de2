package dynamo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// DevelopmentKey is the key with which those who develop on the tables seal: whoever comes first makes it, and all others
// are given the same. No deployment has one: it rests beside what it seals.
func DevelopmentKey(ctx context.Context, client *dynamodb.Client, t Tables) (key [32]byte, err error) {
	const doing = "making development's sealing key"
	_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the process instead
	i := primaryKey(developmentPartition, "sealing-key")
	i[attrSchema], i["key"] = number(schemaVersion), binary(key[:])
	_, err = client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &t.Keys, Item: i, ConditionExpression: aws.String("attribute_not_exists(#pk)"),
		ExpressionAttributeNames: map[string]string{"#pk": attrPK}})
	var taken *types.ConditionalCheckFailedException
	if !errors.As(err, &taken) {
		return key, failure(doing, err)
	}
	out, err := client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &t.Keys, Key: primaryKey(developmentPartition, "sealing-key"), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return key, failure(doing, err)
	}
	r := read(out.Item)
	if copy(key[:], r.binary("key")) != len(key) && r.err == nil {
		r.fail(fmt.Errorf("it does not have %d bytes", len(key)))
	}
	return key, failure(doing, r.err)
}
