package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/app"
)

const patience = 30 * time.Second

type bootstrap struct {
	where
	Organization  string   `help:"The organization's id." default:"main"`
	Plan          string   `help:"Its plan, one of the service's." default:"enterprise"`
	AllowedScopes []string `help:"Service scopes that its keys may have; * ends a prefix." default:"*"`
	NewKey        bool     `help:"Make another management key although the organization exists."`
}

// Run makes what is missing and prints the key, this once.
func (b *bootstrap) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, _, err := b.open(ctx)
	if err != nil {
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
