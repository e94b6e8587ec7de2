package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// warmPatience bounds how long a start waits for DynamoDB. Whoever comes first waits for the rest.
const warmPatience = time.Second

// Lambda is the App of one Lambda function, made while it starts: settings from the environment, see [ReadSettings], the
// store in DynamoDB (at LATCHKEY_DYNAMODB_ENDPOINT, if it is not AWS's own), with its connection open, and logs as JSON.
// An environment that is wrong is an error. A DynamoDB that does not answer yet is not: each request asks it anew.
func Lambda(getenv func(string) string, stderr io.Writer) (*App, error) {
	s, err := ReadSettings(getenv)
	if err != nil {
		return nil, err
	}
	store, err := openTables(access(getenv, getenv("LATCHKEY_DYNAMODB_ENDPOINT")), s)
	if err != nil {
		return nil, fmt.Errorf("AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or LATCHKEY_DYNAMODB_ENDPOINT: %w", err)
	}
	a, err := New(store, s, time.Now, slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: s.LogLevel})))
	if err != nil {
		return nil, err
	}
	if err := a.sealByKMS(getenv); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), warmPatience)
	defer cancel()
	if err := store.Warm(ctx); err != nil {
		a.Log.Warn("DynamoDB does not answer yet", "error", err)
	}
	return a, nil
}
