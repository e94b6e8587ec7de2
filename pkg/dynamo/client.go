package dynamo

import (
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/latchkey/latchkey/pkg/amazon"
)

// Config says which DynamoDB to speak to, and as whom.
type Config = amazon.Access

// NewClient makes a client that gives up early enough for whoever waits at a gateway. It reads nothing of the
// environment but the proxy. A conflict with a transaction is not tried again: its caller knows better when to.
func NewClient(c Config) (*dynamodb.Client, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	return dynamodb.NewFromConfig(config), nil
}
