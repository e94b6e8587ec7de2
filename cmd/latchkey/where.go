package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/stack"
)

// where is the service that a command is about.
type where struct {
	Stack    string `help:"The deployed stack; its region and account are those of your AWS command line." placeholder:"NAME" xor:"where"`
	Dynamodb string `help:"Instead of a stack: DynamoDB's address. Tables are LATCHKEY_KEYS_TABLE, LATCHKEY_AUDIT_TABLE and LATCHKEY_CHAIN_TABLE." placeholder:"URL" xor:"where"`
}

// open is the service on its tables, as its functions would have it, and their environment.
func (w *where) open(ctx context.Context) (*app.App, func(string) string, error) {
	getenv, err := w.environment(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := app.Lambda(getenv, io.Discard)
	if err != nil {
		return nil, nil, err
	}
	return a, getenv, a.Ready(ctx)
}

// environment is what the service's functions would find in theirs.
func (w *where) environment(ctx context.Context) (func(string) string, error) {
	switch {
	case w.Stack != "":
		found, err := stack.Environment(ctx, w.Stack)
		return func(name string) string { return found[name] }, err
	case w.Dynamodb != "":
		given := map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"} // DynamoDB Local takes any
		return func(name string) string {
			if name == "LATCHKEY_DYNAMODB_ENDPOINT" {
				return w.Dynamodb
			}
			return cmp.Or(os.Getenv(name), given[name])
		}, nil
	}
	return nil, errors.New("say where: --stack NAME, or --dynamodb URL")
}
