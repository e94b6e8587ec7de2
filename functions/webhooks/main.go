// Command webhooks is the Lambda that shows and replaces what an organization's notices are signed with. It serves no other
// route.
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
		fmt.Fprintln(os.Stderr, "webhooks:", err)
		os.Exit(1)
	}
	a.API.Gate = gateway.Admitted{}
	gateway.Start(gateway.Serve(a.API.Handler(a.API.Routes("webhooks")...), a.Log))
}
