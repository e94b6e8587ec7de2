// Command audit is the Lambda that tells what happened. It serves no other route.
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
		fmt.Fprintln(os.Stderr, "audit:", err)
		os.Exit(1)
	}
	a.API.Gate = gateway.Admitted{}
	gateway.Start(gateway.Serve(a.API.Handler(a.API.Routes("audit")...), a.Log))
}
