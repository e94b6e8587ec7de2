// Command latchkeyd is the whole of Latchkey in one process. Without flags it needs nothing: keys are kept in memory, and
// a management key and a demo API are ready to try. With -dynamodb it keeps them in DynamoDB.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/bus"
	"github.com/latchkey/latchkey/pkg/secrets"
	"github.com/latchkey/latchkey/pkg/stream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := app.Latchkeyd(ctx, app.Process{Args: os.Args[1:], Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr,
		Clients: app.Clients{Bus: bus.Open, Secrets: secrets.Open, Streams: stream.Open}})
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "latchkeyd:", err)
		os.Exit(1)
	}
}
