// Package amazon says how the service speaks to AWS: as whom, to which endpoint, and how soon it gives up.
//
// It promises that whoever waits at a gateway is not kept waiting by a silent AWS, and that nothing is read of the environment
// but the proxy: credentials and region are given, or it refuses (docs/decisions/0005). It follows no redirect.
package amazon

import (
	"cmp"
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
)

const (
	dialTimeout    = 300 * time.Millisecond
	tlsTimeout     = 700 * time.Millisecond
	attemptTimeout = time.Second
	maxAttempts    = 3
	maxBackoff     = 50 * time.Millisecond
	idleConns      = 128
)

// Access says where a service of AWS is, and as whom to speak to it.
type Access struct {
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

// Config is for the client of one service of the SDK, which then gives up early enough for whoever waits at a gateway. An
// Access that is not complete is an error that says what is missing.
func (a Access) Config() (aws.Config, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: cmp.Or(a.AttemptTimeout, attemptTimeout),
		MaxIdleConns:          idleConns,
		MaxIdleConnsPerHost:   idleConns,
		IdleConnTimeout:       90 * time.Second,
	}
	if a.LoopbackOnly {
		if err := loopbackURL(a.Endpoint); err != nil {
			return aws.Config{}, err
		}
		transport.Proxy, dialer.Control = nil, loopbackOnly
		a.Region, a.AccessKeyID, a.SecretAccessKey, a.SessionToken = "us-east-1", "development", "development", ""
	}
	if a.Endpoint != "" {
		if u, err := url.Parse(a.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return aws.Config{}, fmt.Errorf("%q is no endpoint: it is written like http://127.0.0.1:8000", a.Endpoint)
		}
	}
	if a.Region == "" || a.AccessKeyID == "" || a.SecretAccessKey == "" {
		return aws.Config{}, errors.New("a region and credentials are needed to speak to AWS")
	}
	return a.over(transport), nil
}

func (a Access) over(transport http.RoundTripper) aws.Config {
	config := aws.Config{
		Region: a.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: a.AccessKeyID, SecretAccessKey: a.SecretAccessKey, SessionToken: a.SessionToken}, nil
		}),
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: noRedirect},
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff })
		},
	}
	if a.Endpoint != "" {
		config.BaseEndpoint = &a.Endpoint
	}
	return config
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// loopbackURL refuses an endpoint that is not written as this machine's.
func loopbackURL(endpoint string) error {
	if endpoint == "" {
		return errors.New("development speaks to this machine alone: set an endpoint, such as http://127.0.0.1:8000")
	}
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
