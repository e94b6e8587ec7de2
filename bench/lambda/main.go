// Command lambda measures the authorizer's bootstrap as Lambda would run it, against a bare one with the same client that
// does one UpdateItem, and beside one that does nothing. It builds the three, runs them over a Runtime API of its own on
// DynamoDB Local, and prints how long they take cold (process start to first answer) and warm. It fails when the
// authorizer is further from the bare one than it may be.
//
// Run it in the repository's root: go run ./bench/lambda. It says so, and measures nothing, where DynamoDB Local cannot
// be had; with LATCHKEY_REQUIRE_DYNAMODB set that is a failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const patience = 2 * time.Minute // for everything

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	err := bench(ctx)
	cancel()
	stop()
	if errors.Is(err, errNoDynamoDB) && os.Getenv("LATCHKEY_REQUIRE_DYNAMODB") == "" {
		fmt.Println("NOT MEASURED:", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/lambda:", err)
		os.Exit(1)
	}
}

// bench sets the scene, measures, and tears everything down.
func bench(ctx context.Context) error {
	s, err := newScene(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	runs, err := s.measure(ctx)
	if err != nil {
		return err
	}
	return report(os.Stdout, runs)
}
