// Package dynamo keeps keys, organizations, the audit trail and its chain in three DynamoDB tables.
//
// A key is two items of one partition. Its hot item holds what a verify needs, is in no index and small: a verify is one
// conditional write, of one unit while the item stays under 1 KB (price_test.go holds the prices). Its profile holds the rest, and everything that indexes need. Every
// change of a key is one transaction of both, with its audit entry and its place in the organization's plan.
//
// The room promises what [lifecycle.Store] and [verify.Store] ask for, and nothing weaker on a bad day: what it cannot
// read whole it reports as an error, never as absent. It refuses to guess: an item of another schema version, or half a
// key, is an error that names it.
package dynamo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/verify"
)

var (
	_ lifecycle.Store = (*Store)(nil)
	_ notify.Store    = (*Store)(nil)
	_ verify.Store    = (*Store)(nil)
)

// Tables names the three tables.
type Tables struct{ Keys, Audit, Chain string }

// Store is both stores on DynamoDB. All its methods may be called at once from many goroutines.
type Store struct {
	client *dynamodb.Client
	tables Tables
}

// New makes a Store on tables that exist, see [CreateTables].
func New(client *dynamodb.Client, t Tables) *Store { return &Store{client, t} }

// Warm opens the connection that the first call would else wait for. It asks for no table, which would take about as long
// as the first call itself: DynamoDB answers a bare GET too, with its health.
func (s *Store) Warm(ctx context.Context) error {
	const doing = "opening the connection"
	o := s.client.Options()
	endpoint, err := o.EndpointResolverV2.ResolveEndpoint(ctx, dynamodb.EndpointParameters{Region: &o.Region, Endpoint: o.BaseEndpoint})
	if err != nil {
		return failure(doing, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint.URI.String(), nil)
	if err != nil {
		return failure(doing, err)
	}
	answer, err := o.HTTPClient.Do(r)
	if err != nil {
		return failure(doing, err)
	}
	_, err = io.Copy(io.Discard, answer.Body) // else the connection is not kept
	return failure(doing, errors.Join(err, answer.Body.Close()))
}

// step is one write of a transaction, and what it means when its condition does not hold.
type step struct {
	write   types.TransactWriteItem
	refused error
}

// transact does all steps or none. The SDK gives every transaction a token and keeps it over its own attempts, so that
// an attempt whose answer was lost is not done twice.
func (s *Store) transact(ctx context.Context, doing string, steps []step) error {
	in := &dynamodb.TransactWriteItemsInput{TransactItems: make([]types.TransactWriteItem, len(steps))}
	for i := range steps {
		in.TransactItems[i] = steps[i].write
	}
	_, err := s.client.TransactWriteItems(ctx, in)
	var cancelled *types.TransactionCanceledException
	if errors.As(err, &cancelled) {
		err = reason(cancelled, steps)
	}
	return failure(doing, err)
}

// reason picks the first condition that failed. One that failed will fail again, so it goes before a conflict.
func reason(cancelled *types.TransactionCanceledException, steps []step) error {
	var err error = cancelled
	for i, r := range cancelled.CancellationReasons {
		switch aws.ToString(r.Code) {
		case "ConditionalCheckFailed":
			if i < len(steps) {
				return steps[i].refused
			}
		case "TransactionConflict":
			err = apikey.ErrConflict
		}
	}
	return err
}

// failure says what was being done when err came, nil for none. A write that met a transaction is apikey.ErrConflict. A
// transaction still in progress under its own token is not: it may yet take effect.
func failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	var conflict *types.TransactionConflictException
	if errors.As(err, &conflict) {
		err = apikey.ErrConflict
	}
	var api smithy.APIError
	if errors.As(err, &api) { // its message is the database's own words, which might repeat what it was sent
		return fmt.Errorf("%s: DynamoDB answers %s", doing, api.ErrorCode())
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// query reads items from an index or table until it has want of them or there are no more.
func (s *Store) query(ctx context.Context, doing string, in *dynamodb.QueryInput, want int) ([]item, error) {
	var found []item
	for {
		in.Limit = aws.Int32(int32(min(want-len(found), 1000)))
		out, err := s.client.Query(ctx, in)
		if err != nil {
			return nil, failure(doing, err)
		}
		found = append(found, out.Items...)
		if len(found) >= want || out.LastEvaluatedKey == nil {
			return found, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}
