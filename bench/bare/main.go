// Command bare is a Lambda bootstrap that does one bare UpdateItem for each event: what the authorizer of the benchmark
// is measured against. It has the authorizer's client, and looks at nothing: no event, no key, no condition.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/dynamo"
)

func main() {
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: os.Getenv("LATCHKEY_DYNAMODB_ENDPOINT"), Region: os.Getenv("AWS_REGION"),
		AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
	table, pk := os.Getenv("LATCHKEY_KEYS_TABLE"), os.Getenv("BARE_PK")
	lambda.Start(func(ctx context.Context, _ json.RawMessage) (string, error) {
		_, err := client.UpdateItem(ctx, update(table, pk))
		return "updated", err
	})
}

// update counts in two windows and notes the time, as a verify does, and asks for nothing.
func update(table, pk string) *dynamodb.UpdateItemInput {
	return &dynamodb.UpdateItemInput{
		TableName:        &table,
		Key:              map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}, "sk": &types.AttributeValueMemberS{Value: "hot"}},
		UpdateExpression: aws.String("SET u = :now ADD m29000000 :c, d20000 :c"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":now": &types.AttributeValueMemberN{Value: strconv.FormatInt(time.Now().UnixMilli(), 10)},
			":c":   &types.AttributeValueMemberN{Value: "1"},
		},
	}
}
