package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// sample is a REST API's REQUEST event, with <active> where the key stands.
const sample = "pkg/gateway/testdata/authorizer/rest-request.event.json"

// barePK is the partition of the bare bootstrap's item, as long as a key's.
const barePK = "K#00000000"

const rehearsals = 300

var errNoDynamoDB = errors.New("DynamoDB Local needs Java 17 and Maven")

var tables = dynamo.Tables{Keys: "latchkey-keys", Audit: "latchkey-audit", Chain: "latchkey-chain"}

// scene is everything that is measured: the bootstraps, their database, and the event that each is given.
type scene struct {
	folder     string // of the binaries
	database   *exec.Cmd
	bootstraps []*bootstrap
	event      []byte
}

// newScene builds the bootstraps, starts the database, and puts one key and its copy into it.
func newScene(ctx context.Context) (s *scene, err error) {
	s = &scene{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	endpoint, err := s.startDatabase(ctx)
	if err != nil {
		return s, err
	}
	key, err := fill(ctx, endpoint)
	if err != nil {
		return s, err
	}
	event, err := os.ReadFile(sample)
	if err != nil {
		return s, err
	}
	s.event = bytes.ReplaceAll(event, []byte("<active>"), []byte(key))
	return s, s.build(ctx, endpoint)
}

func (s *scene) close() {
	if s.database != nil {
		_ = s.database.Process.Kill() // it may have ended by itself
		_ = s.database.Wait()         // it was killed
	}
	_ = os.RemoveAll(s.folder) // it is in the folder for what may go
}

// startDatabase runs DynamoDB Local in memory on a free port, and waits until it answers.
func (s *scene) startDatabase(ctx context.Context) (endpoint string, err error) {
	fetch := exec.CommandContext(ctx, "tools/dynamodb-local/fetch")
	fetch.Stderr = os.Stderr
	out, err := fetch.Output()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended) && ended.ExitCode() == 3: // Java or Maven is missing
		return "", errNoDynamoDB
	case err != nil:
		return "", fmt.Errorf("tools/dynamodb-local/fetch: %w", err)
	}
	folder := strings.TrimSpace(string(out))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return "", err
	}
	s.database = exec.CommandContext(ctx, "java", "-XX:+UseSerialGC", "-Xmx512m", "-Djava.library.path="+folder, "-cp", filepath.Join(folder, "*"),
		"software.amazon.dynamodb.services.local.main.ServerRunner", "-inMemory", "-sharedDb", "-disableTelemetry", "-port", fmt.Sprint(port))
	if err := s.database.Start(); err != nil {
		s.database = nil
		return "", err
	}
	endpoint = fmt.Sprintf("http://127.0.0.1:%d", port)
	return endpoint, await(ctx, endpoint)
}

// await returns once the server answers: anything at all.
func await(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("DynamoDB Local does not answer: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// fill makes the tables, a key with everything that a key may have, and an item just like its own for the bare bootstrap.
// Then it verifies the key for a while with more patience than the bootstraps have, as DynamoDB Local is slow at first.
func fill(ctx context.Context, endpoint string) (key string, err error) {
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		return "", err
	}
	if err := dynamo.CreateTables(ctx, client, tables); err != nil {
		return "", err
	}
	a, err := app.New(dynamo.New(client, tables), app.Settings{Brand: "lk"}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	issued, err := makeKey(ctx, a.Keys)
	if err != nil {
		return "", err
	}
	if err := copyItem(ctx, client, "K#"+strings.TrimPrefix(issued.Key.ID.String(), "key_"), barePK); err != nil {
		return "", err
	}
	key, a.Verifier.Timeout = issued.Plaintext.Reveal(), time.Minute
	for range rehearsals {
		d := a.Verifier.Verify(ctx, verify.Request{Key: key, Address: netip.MustParseAddr("198.51.100.7"), Scopes: []string{"orders:read"}})
		if !d.Allowed() {
			return "", fmt.Errorf("the key is refused: %s %w", d.Code, d.Cause)
		}
	}
	return key, nil
}

// makeKey makes a key whose limits are there, and are never reached.
func makeKey(ctx context.Context, keys *lifecycle.Service) (apikey.Issued, error) {
	ctx = caller.With(ctx, caller.Caller{OrganizationID: "org_0123456789", Kind: caller.Operator, ID: "bench", Scopes: apikey.ManagementScopes()})
	if _, err := keys.AddOrganization(ctx, "enterprise", []string{"orders:*"}); err != nil {
		return apikey.Issued{}, err
	}
	most := int64(lifecycle.MaxLimit)
	return keys.Create(ctx, lifecycle.New{
		ProjectID: "project_0123456789", EnvironmentID: new("production"), ExternalID: new("user|1@example.com"), Name: "bench",
		Scopes:             []string{"orders:read", "orders:write", "orders:cancel", "orders:refund"},
		AllowedCIDRs:       []string{"198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"},
		RateLimitPerMinute: lifecycle.Limit{Said: true, V: &most}, DailyLimit: &most,
		ExpiresAt: &lifecycle.Moment{Time: time.Now().Add(24 * time.Hour)},
	})
}

// copyItem copies the hot item of one partition to another.
func copyItem(ctx context.Context, client *dynamodb.Client, from, to string) error {
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	out, err := client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &tables.Keys, ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"pk": text(from), "sk": text("hot")}})
	if err != nil {
		return err
	}
	if out.Item == nil {
		return errors.New("the key's hot item is not where the benchmark looks for it")
	}
	out.Item["pk"] = text(to)
	_, err = client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &tables.Keys, Item: out.Item})
	return err
}

// build makes the three binaries, for this machine but else as make build-% does.
func (s *scene) build(ctx context.Context, endpoint string) (err error) {
	if s.folder, err = os.MkdirTemp("", "latchkey-bench-"); err != nil {
		return err
	}
	environment := []string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench",
		"LATCHKEY_DYNAMODB_ENDPOINT=" + endpoint, "LATCHKEY_KEYS_TABLE=" + tables.Keys, "LATCHKEY_AUDIT_TABLE=" + tables.Audit, "LATCHKEY_CHAIN_TABLE=" + tables.Chain}
	s.bootstraps = []*bootstrap{
		{"authorizer", "./functions/authorizer", append([]string{"LATCHKEY_SCOPES=orders:read"}, environment...), `"Effect":"Allow"`},
		{"bare", "./bench/bare", append([]string{"BARE_PK=" + barePK}, environment...), "updated"},
		{"hello", "./bench/hello", nil, "hello"},
	}
	for _, b := range s.bootstraps {
		binary := filepath.Join(s.folder, b.name)
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc,nethttpomithttp2", "-ldflags", "-s -w -buildid=", "-o", binary, b.path)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.name, err, out)
		}
		b.path = binary
	}
	return nil
}
