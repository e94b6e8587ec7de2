// Command receiver takes over the keys that Latchkey rotates by schedule, and calls an API with the one that it has:
//
//	WEBHOOK_SECRET=whsec_… receiver serve 127.0.0.1:9090 key.json
//	receiver call https://api.example.com/orders key.json
//
// The file is the only thing that both know. It begins as {"key": "<the key as it was issued>"}. And it prints the events of
// a subscription (docs/webhooks.md):
//
//	WEBHOOK_SECRET=whsec_… receiver events 127.0.0.1:9090
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/latchkey/latchkey/pkg/webhook"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2])
	case len(args) == 3 && args[0] == "call":
		return call(args[1], args[2])
	case len(args) == 2 && args[0] == "events":
		return events(args[1])
	}
	return fmt.Errorf("use: receiver serve ADDRESS FILE, receiver call URL FILE, or receiver events ADDRESS")
}

// serve takes notices at an address until it is killed. Before it stands whatever ends TLS.
func serve(address, file string) error {
	secret, err := webhook.ParseSecret(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		return fmt.Errorf("WEBHOOK_SECRET: %w", err)
	}
	if _, err := read(file); err != nil {
		return err
	}
	server := &http.Server{Addr: address, Handler: &receiver{secret: secret, file: file}, ReadTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

// call asks for url with the key that is in the file now, and prints the status.
func call(url, file string) error {
	s, err := read(file)
	if err != nil {
		return err
	}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.Key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	fmt.Println(answer.StatusCode)
	return nil
}
