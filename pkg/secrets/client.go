package secrets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/deliver"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The stages of a version that Secrets Manager gives a meaning to.
const (
	stageCurrent = "AWSCURRENT" // what everybody reads
	stagePending = "AWSPENDING" // what a rotation prepares
)

// A whole call, with all its attempts and the reading of its answer, may take as long as four attempts.
const (
	attemptTimeout = 2 * time.Second
	patience       = 4
)

// Client speaks to Secrets Manager. Its methods may be called at once from many goroutines.
type Client struct {
	api      *secretsmanager.Client
	patience time.Duration
}

// New makes a Client. Nothing is asked of Secrets Manager yet.
func New(access amazon.Access) (*Client, error) {
	access.AttemptTimeout = cmp.Or(access.AttemptTimeout, attemptTimeout)
	config, err := access.Config()
	if err != nil {
		return nil, err
	}
	return &Client{secretsmanager.NewFromConfig(config), patience * access.AttemptTimeout}, nil
}

// Open is New for whoever delivers.
func Open(access amazon.Access) (deliver.Vault, error) {
	c, err := New(access)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Put makes a successor the key that its line's secret gives to everybody, and makes the secret if there is none. Put again
// it changes nothing. Each request is sent once, so that its outcome is that of one attempt: what Secrets Manager refuses
// has certainly not arrived, and without a word of it that can be relied on, nobody knows.
func (c *Client) Put(ctx context.Context, p lifecycle.Parcel) (lifecycle.Attempt, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for range 2 { // somebody may make the secret between our looking for it and our making it
		stages, err := c.put(ctx, p)
		if missing(err) {
			var exists *types.ResourceExistsException
			if err = c.create(ctx, p); errors.As(err, &exists) {
				continue
			}
			stages = []string{stageCurrent}
		}
		if err == nil && !slices.Contains(stages, stageCurrent) {
			return lifecycle.Doubtful, errors.New("the secret has this key already, but " + stageCurrent + " was moved to another version")
		}
		return outcome(err), refusal(ctx, "putting a key into its secret", err)
	}
	return lifecycle.Missed, errors.New("the secret comes and goes")
}

// once is for requests whose outcome must be known.
func once(o *secretsmanager.Options) { o.RetryMaxAttempts = 1 }

func (c *Client) put(ctx context.Context, p lifecycle.Parcel) (stages []string, err error) {
	out, err := c.api.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: new(Name(p.Old.OrganizationID, p.Line)), ClientRequestToken: new(p.New.Key.ID.UUID()),
		SecretString: new(print(p.New)), VersionStages: []string{stageCurrent},
	}, once)
	if err != nil {
		return nil, err
	}
	return out.VersionStages, nil
}

func (c *Client) create(ctx context.Context, p lifecycle.Parcel) error {
	_, err := c.api.CreateSecret(ctx, &secretsmanager.CreateSecretInput{
		Name: new(Name(p.Old.OrganizationID, p.Line)), ClientRequestToken: new(p.New.Key.ID.UUID()),
		SecretString: new(print(p.New)),
		Description:  new("An API key that Latchkey rotates: the successors of " + p.Line.String()),
		Tags: []types.Tag{{Key: new("latchkey:organization"), Value: new(encode.Replace(p.Old.OrganizationID))},
			{Key: new("latchkey:line"), Value: new(p.Line.String())}},
	}, once)
	return err
}

// outcome is what an error of a request that puts a key says of the key.
func outcome(err error) lifecycle.Attempt {
	var answered interface{ HTTPStatusCode() int }
	var named smithy.APIError
	var network *net.OpError
	switch {
	case err == nil:
		return lifecycle.Delivered
	case errors.As(err, &network) && network.Op == "dial": // nothing was sent
		return lifecycle.Missed
	case !errors.As(err, &answered) || !errors.As(err, &named) || !amazon.IsCode(named.ErrorCode()) || throttled(named):
		return lifecycle.Doubtful
	case answered.HTTPStatusCode() >= 400 && answered.HTTPStatusCode() < 500:
		return lifecycle.Missed
	}
	return lifecycle.Doubtful
}

func throttled(named smithy.APIError) bool {
	code := named.ErrorCode()
	return strings.HasPrefix(code, "Thrott") || strings.HasPrefix(code, "TooManyRequests") || strings.HasPrefix(code, "RequestLimit")
}

func missing(err error) bool {
	var none *types.ResourceNotFoundException
	return errors.As(err, &none)
}

// refusal is amazon.Refusal, and says what to do about a secret that somebody has deleted.
func refusal(ctx context.Context, doing string, err error) error {
	var named smithy.APIError
	if errors.As(err, &named) && strings.Contains(named.ErrorMessage(), "deletion") {
		return fmt.Errorf("%s: it is scheduled for deletion: restore it (restore-secret), or have its key go elsewhere", doing)
	}
	return amazon.Refusal(ctx, doing, err)
}
