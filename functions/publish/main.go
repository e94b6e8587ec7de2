// Command publish is the Lambda that tells the world what was written into the audit trail. It is given the records of the audit table's stream, and serves no route.
package main

import (
	"fmt"
	"os"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/bus"
	"github.com/latchkey/latchkey/pkg/gateway"
)

func main() {
	p, err := app.LambdaPublishing(os.Getenv, os.Stderr, app.Clients{Bus: bus.Open})
	if err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1)
	}
	gateway.Start(gateway.Streamed(p.Read, p.Take))
}
