package app

import (
	"cmp"
	"fmt"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/seal"
)

// access is how to speak to a service of AWS with the region and the credentials of the environment; endpoint "" is its own.
func access(getenv func(string) string, endpoint string) amazon.Access {
	return amazon.Access{
		Endpoint: endpoint, Region: cmp.Or(getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")),
		AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"),
	}
}

// openTables makes the store on tables that exist. It calls nobody yet.
func openTables(to amazon.Access, s Settings) (*dynamo.Store, error) {
	client, err := dynamo.NewClient(to)
	if err != nil {
		return nil, err
	}
	return dynamo.New(client, s.tables()), nil
}

// sealByKMS has answers kept for an Idempotency-Key, if the settings name a key of KMS (at LATCHKEY_KMS_ENDPOINT, if it is
// not AWS's own).
func (a *App) sealByKMS(getenv func(string) string) error {
	if a.Settings.SealingKeyID == "" {
		return nil
	}
	sealer, err := seal.NewKMS(access(getenv, getenv("LATCHKEY_KMS_ENDPOINT")), a.Settings.SealingKeyID)
	if err != nil {
		return fmt.Errorf("LATCHKEY_SEALING_KEY_ID or LATCHKEY_KMS_ENDPOINT: %w", err)
	}
	a.Keys.Seal = sealer
	return nil
}

// ReachSecrets has deliveries brought to Secrets Manager (at LATCHKEY_SECRETSMANAGER_ENDPOINT, if it is not AWS's own), if the
// settings say so. It is for the function that delivers; others need not hold what speaks to Secrets Manager.
func (a *App) ReachSecrets(getenv func(string) string, clients Clients) error {
	return a.reachSecrets(clients, SecretsManager(getenv))
}

func (a *App) reachSecrets(clients Clients, at amazon.Access) (err error) {
	if !a.Settings.SecretsManager {
		return nil
	}
	if a.Deliverer.Vault, err = clients.Secrets(at); err != nil {
		return fmt.Errorf("LATCHKEY_SECRETS_MANAGER or LATCHKEY_SECRETSMANAGER_ENDPOINT: %w", err)
	}
	return nil
}

// SecretsManager is how to speak to Secrets Manager, at LATCHKEY_SECRETSMANAGER_ENDPOINT if it is not AWS's own.
func SecretsManager(getenv func(string) string) amazon.Access {
	return access(getenv, getenv("LATCHKEY_SECRETSMANAGER_ENDPOINT"))
}
