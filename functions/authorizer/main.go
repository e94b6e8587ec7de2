// Command authorizer is the Lambda that decides about keys before an API, and before this service's own about people too.
package main

import (
	"fmt"
	"os"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/gateway"
)

func main() {
	a, err := app.Lambda(os.Getenv, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "authorizer:", err)
		os.Exit(1)
	}
	gateway.Start((&gateway.Authorizer{Verifier: a.Verifier, Log: a.Log, TrustedHops: a.Settings.TrustedHops,
		Scopes: a.Settings.Scopes, Policy: a.Settings.PolicyAnswers, People: a.API.People}).Handle)
}
