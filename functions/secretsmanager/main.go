// Command secretsmanager is the Lambda that AWS Secrets Manager calls for each step of a rotation of its own. It serves no route.
package main

import (
	"fmt"
	"os"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/gateway"
	"github.com/latchkey/latchkey/pkg/secrets"
)

func main() {
	var client *secrets.Client
	a, err := app.Lambda(os.Getenv, os.Stderr)
	if err == nil {
		client, err = secrets.New(app.SecretsManager(os.Getenv))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "secretsmanager:", err)
		os.Exit(1)
	}
	rotation := &secrets.Rotation{Secrets: client, Keys: a.Keys, Verifier: a.Verifier, Log: a.Log}
	gateway.Start(gateway.Asked(rotation.Step))
}
