// Package app wires the rooms together: settings to stores, stores to verbs, verbs to doors. It decides nothing about a
// key. It also holds what only a running process has: latchkeyd, its development mode, and the demo that shows it.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/deliver"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
	"github.com/latchkey/latchkey/pkg/oidc"
	"github.com/latchkey/latchkey/pkg/plan"
	"github.com/latchkey/latchkey/pkg/verify"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// Store is what the rooms need of one.
type Store interface {
	lifecycle.Store
	notify.Store
	verify.Store
}

// App is the rooms, wired.
type App struct {
	Keys      *lifecycle.Service
	Verifier  *verify.Verifier
	API       *httpapi.API
	Deliverer *deliver.Deliverer
	Notify    *notify.Service
	Store     Store
	Settings  Settings
	Log       *slog.Logger
}

// Ready says whether the store answers, by asking it for something that it need not have.
func (a *App) Ready(ctx context.Context) error {
	_, err := a.Store.Organization(ctx, "latchkey")
	if err == nil || errors.Is(err, lifecycle.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("is there a table %s, and may it be read? %w", a.Settings.KeysTable, err)
}

// How many deliveries are under way at once: of successors, and of events, which more receivers are told of.
const (
	senders      = 32
	eventSenders = 64
)

// New wires the rooms to a store.
func New(store Store, s Settings, now func() time.Time, log *slog.Logger) (*App, error) {
	format, err := apikey.NewFormat(s.Brand, s.RetiredBrands...)
	if err != nil {
		return nil, fmt.Errorf("LATCHKEY_BRAND or LATCHKEY_RETIRED_BRANDS: %w", err)
	}
	if s.PeopleOnly && len(s.Issuers) == 0 {
		return nil, errors.New("LATCHKEY_MANAGEMENT_AUTH=jwt needs LATCHKEY_ISSUERS: nobody could manage keys")
	}
	if s.Plans == nil {
		s.Plans = plan.Default()
	}
	people, err := oidc.New(s.Issuers, now, nil)
	if err != nil {
		return nil, err
	}
	keys := &lifecycle.Service{Store: store, Plans: s.Plans, Format: format, Now: now, Grace: s.Grace, DefaultPlan: s.DefaultPlan,
		AllowedScopes: s.AllowedScopes, Window: s.Window, Cap: s.Cap, Quiet: s.Quiet, StaleAfter: s.StaleAfter, Senders: senders,
		Secrets: s.SecretsManager}
	verifier := &verify.Verifier{Store: store, Format: format, Now: now}
	api := &httpapi.API{Keys: keys, Verifier: verifier, Log: log, Now: now, TrustedHops: s.TrustedHops, AllowedOrigins: s.AllowedOrigins,
		PeopleOnly: s.PeopleOnly, KeysShapeScopes: s.KeysShapeScopes}
	if len(s.Issuers) > 0 {
		api.People = people.Verify
	}
	deliverer := &deliver.Deliverer{Keys: keys, Sender: &webhook.Sender{}, Log: log}
	notifier := &notify.Service{Store: store, Sender: deliverer.Sender, Secrets: deliverer.Secrets, Now: now, Log: log, Senders: eventSenders}
	deliverer.Note, api.Notify = notifier.NoteHandover, notifier
	return &App{keys, verifier, api, deliverer, notifier, store, s, log}, nil
}
