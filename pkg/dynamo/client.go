package dynamo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

const (
	dialTimeout    = 300 * time.Millisecond
	tlsTimeout     = 700 * time.Millisecond
	attemptTimeout = time.Second
	maxAttempts    = 3
	maxBackoff     = 50 * time.Millisecond
	idleConns      = 128
)

// Config says which DynamoDB to speak to, and as whom.
type Config struct {
	Endpoint        string // "": AWS's own, for Region
	Region          string
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	AttemptTimeout  time.Duration // for the beginning of each answer; 0: a second

	// LoopbackOnly is for development: Endpoint must be this machine, and nothing but this machine is ever dialled, by
	// no proxy. Region and credentials are made up, so that real ones cannot be given away.
	LoopbackOnly bool
}

// NewClient makes a client that gives up early enough for whoever waits at a gateway. It reads nothing of the
// environment but the proxy. A conflict with a transaction is not tried again: its caller knows better when to.
func NewClient(c Config) (*dynamodb.Client, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: c.AttemptTimeout,
		MaxIdleConns:          idleConns,
		MaxIdleConnsPerHost:   idleConns,
		IdleConnTimeout:       90 * time.Second,
	}
	if c.AttemptTimeout == 0 {
		transport.ResponseHeaderTimeout = attemptTimeout
	}
	if c.LoopbackOnly {
		if err := loopbackURL(c.Endpoint); err != nil {
			return nil, err
		}
		transport.Proxy, dialer.Control = nil, loopbackOnly
		c.Region, c.AccessKeyID, c.SecretAccessKey, c.SessionToken = "us-east-1", "development", "development", ""
	}
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%q is no endpoint: it is written like http://127.0.0.1:8000", c.Endpoint)
		}
	}
	if c.Region == "" || c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return nil, errors.New("a region and credentials are needed to speak to DynamoDB")
	}
	return dynamodb.NewFromConfig(c.aws(transport)), nil
}

func (c Config) aws(transport http.RoundTripper) aws.Config {
	config := aws.Config{
		Region: c.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}, nil
		}),
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: noRedirect},
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff })
		},
	}
	if c.Endpoint != "" {
		config.BaseEndpoint = &c.Endpoint
	}
	return config
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// loopbackURL refuses an endpoint that is not written as this machine's.
func loopbackURL(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("reading the endpoint: %w", err)
	}
	address, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() != "localhost" && (err != nil || !address.IsLoopback()) {
		return fmt.Errorf("%q is not on this machine: development uses a loopback endpoint", endpoint)
	}
	return nil
}

// loopbackOnly refuses an address at the last moment before it is dialled, whatever name led to it.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is not on this machine", address)
	}
	return nil
}
