// Command verify is the Lambda that answers about keys: verify, me and authorize. It asks about every key itself, so that it may
// stand behind an API without an authorizer.
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
		fmt.Fprintln(os.Stderr, "verify:", err)
		os.Exit(1)
	}
	gateway.Start(gateway.Serve(a.API.Handler(a.API.Routes("verify")...), a.Log))
}
