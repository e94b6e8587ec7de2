package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/stack"
)

const patience = 30 * time.Second

type bootstrap struct {
	Stack         string   `help:"The deployed stack; its region and account are those of your AWS command line." placeholder:"NAME" xor:"where"`
	Dynamodb      string   `help:"Instead of a stack: DynamoDB's address. Tables are LATCHKEY_KEYS_TABLE and LATCHKEY_AUDIT_TABLE." placeholder:"URL" xor:"where"`
	Organization  string   `help:"The organization's id." default:"main"`
	Plan          string   `help:"Its plan, one of the service's." default:"enterprise"`
	AllowedScopes []string `help:"Service scopes that its keys may have; * ends a prefix." default:"*"`
	NewKey        bool     `help:"Make another management key although the organization exists."`
}

// Run makes what is missing and prints the key, this once.
func (b *bootstrap) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	getenv, err := b.environment(ctx)
	if err != nil {
		return err
	}
	a, err := app.Lambda(getenv, io.Discard)
	if err != nil {
		return err
	}
	if err := a.Ready(ctx); err != nil {
		return err
	}
	issued, added, err := a.Bootstrap(ctx, app.First{Organization: b.Organization, Plan: b.Plan, AllowedScopes: b.AllowedScopes,
		NewKey: b.NewKey, By: "latchkey bootstrap"})
	if e := (*apikey.Error)(nil); errors.As(err, &e) && e.Cause != nil {
		return fmt.Errorf("%w (%w)", err, e.Cause) // whoever runs the service may know
	}
	if err != nil {
		return err
	}
	if added {
		fmt.Fprintf(os.Stderr, "The organization %s is made, on the plan %s.\n", b.Organization, b.Plan)
	} else {
		fmt.Fprintf(os.Stderr, "The organization %s exists and is left as it is.\n", b.Organization)
	}
	if issued.Key.ID == 0 {
		fmt.Fprintln(os.Stderr, "Nothing was changed. For another management key add --new-key.")
		return nil
	}
	fmt.Fprintln(os.Stderr, "Its management key, shown this once; keep it where secrets are kept:")
	fmt.Println(issued.Plaintext.Reveal())
	return nil
}

// environment is what the service's functions would find in theirs.
func (b *bootstrap) environment(ctx context.Context) (func(string) string, error) {
	switch {
	case b.Stack != "":
		found, err := stack.Environment(ctx, b.Stack)
		return func(name string) string { return found[name] }, err
	case b.Dynamodb != "":
		given := map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"} // DynamoDB Local takes any
		return func(name string) string {
			if name == "LATCHKEY_DYNAMODB_ENDPOINT" {
				return b.Dynamodb
			}
			return cmp.Or(os.Getenv(name), given[name])
		}, nil
	}
	return nil, errors.New("say where: --stack NAME, or --dynamodb URL")
}
