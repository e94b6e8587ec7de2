// Command deliver is the Lambda that brings successors made by schedule to the owners of their predecessors. It is run once a minute, and serves no route.
package main

import (
	"fmt"
	"os"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/gateway"
	"github.com/latchkey/latchkey/pkg/secrets"
)

func main() {
	a, err := app.Lambda(os.Getenv, os.Stderr)
	if err == nil {
		err = a.ReachSecrets(os.Getenv, app.Clients{Secrets: secrets.Open})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "deliver:", err)
		os.Exit(1)
	}
	gateway.Start(gateway.Scheduled(a.Deliver))
}
