// Command deliver is the Lambda that brings successors made by schedule to the owners of their predecessors. It is run once a minute, and serves no route.
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
		fmt.Fprintln(os.Stderr, "deliver:", err)
		os.Exit(1)
	}
	gateway.Start(gateway.Scheduled(a.Deliver))
}
