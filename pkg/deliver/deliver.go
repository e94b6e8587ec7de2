// Package deliver brings successors that were made by schedule to the owners of the keys which they replace: a signed
// notice to the key's own rotation_webhook_url, its line's secret, or both.
//
// Which keys are due, how often they are tried, and what an attempt means for them is lifecycle's to say; how a
// notice is sent safely is webhook's, and how a secret is kept is that of package secrets. This room puts the one's parcel into the other's
// message. These are the places beside an answer where a plaintext leaves the service, and it goes nowhere else.
package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/webhook"
)

// Deliverer delivers. Its fields are set once, before the first use.
type Deliverer struct {
	Keys   *lifecycle.Service
	Sender *webhook.Sender
	Vault  Vault // nil: no secret is reached, and none tried where there is an address too
	Log    *slog.Logger
	Clock  func() time.Time // the time that receivers share, for the timestamps of signatures; nil: time.Now

	Note func(context.Context, lifecycle.Parcel, webhook.Result) // keeps what came of an attempt, and nothing of the parcel's secret; nil: nobody
}

// Run tries what is due, as lifecycle.Service.Deliver does, up to limit keys.
func (d *Deliverer) Run(ctx context.Context, limit int) (lifecycle.Done, error) {
	return d.Keys.Deliver(ctx, limit, d.send)
}

// Vault keeps a key in its line's secret, as secrets.Client does.
type Vault interface {
	// Put may be called again for the same parcel. Its error says what went wrong, in words that hold nothing of the key.
	Put(ctx context.Context, p lifecycle.Parcel) (lifecycle.Attempt, error)
}

// notice is what the receiver gets: the ten fields of the answer to a rotation.
type notice struct {
	Type      string               `json:"type"`
	Timestamp time.Time            `json:"timestamp"`
	Data      lifecycle.RotatedKey `json:"data"`
}

// send makes one attempt. Of two receivers the secret is first, since to put a key there again changes nothing. Both must
// have it: what only one of them may have is in doubt.
func (d *Deliverer) send(ctx context.Context, p lifecycle.Parcel) lifecycle.Attempt {
	k := &p.New.Key
	if !k.RotationToSecretsManager || d.Vault == nil && k.RotationWebhookURL != nil {
		return d.post(ctx, p)
	}
	how := d.put(ctx, p)
	if how != lifecycle.Delivered || k.RotationWebhookURL == nil {
		return how
	}
	if how = d.post(ctx, p); how != lifecycle.Delivered {
		return how.InPart()
	}
	return how
}

// put brings a successor into its line's secret, and logs how it went.
func (d *Deliverer) put(ctx context.Context, p lifecycle.Parcel) lifecycle.Attempt {
	if d.Vault == nil {
		d.log(ctx, &p, toSecret, webhook.Result{Outcome: webhook.Retry, Err: "this service reaches no Secrets Manager"})
		return lifecycle.Missed
	}
	began := time.Now()
	how, err := d.Vault.Put(ctx, p)
	r := webhook.Result{Outcome: webhook.Delivered, Duration: time.Since(began)}
	if err != nil {
		r.Err = err.Error()
	}
	if how != lifecycle.Delivered {
		r.Outcome = webhook.Retry
	}
	d.log(ctx, &p, toSecret, r)
	return how
}

// post makes one attempt to send a notice and logs how it went, in words that hold nothing of the notice.
func (d *Deliverer) post(ctx context.Context, p lifecycle.Parcel) lifecycle.Attempt {
	secrets, err := d.Secrets(ctx, p.Old.OrganizationID)
	if err != nil || p.New.Key.RotationWebhookURL == nil {
		d.tell(ctx, &p, webhook.Result{Err: "no signing secret, or no address"})
		return lifecycle.Missed
	}
	body, err := print(&p)
	if err != nil {
		d.tell(ctx, &p, webhook.Result{Err: "the notice cannot be printed"})
		return lifecycle.Missed
	}
	r := d.Sender.Send(ctx, *p.New.Key.RotationWebhookURL, webhook.Message{ID: p.ID, At: d.clock(), Body: body}, secrets...)
	clear(body)
	d.tell(ctx, &p, r)
	switch {
	case r.Outcome == webhook.Delivered:
		return lifecycle.Delivered
	case r.Outcome == webhook.Gone:
		return lifecycle.Gone
	case r.Landed && !saidNo(r.Status):
		return lifecycle.Doubtful.After(r.RetryAfter)
	}
	return lifecycle.Missed.After(r.RetryAfter)
}

// saidNo says whether a status is a receiver's own no, before which it keeps nothing. Where there is none, nobody said what
// became of the notice; and an error of the server's, or of a proxy's before it, may come after the key was stored.
func saidNo(status int) bool { return status >= 300 && status < 500 }

func (d *Deliverer) clock() time.Time {
	if d.Clock == nil {
		return time.Now()
	}
	return d.Clock()
}

// Secrets are those that an organization's notices are signed with now.
func (d *Deliverer) Secrets(ctx context.Context, organizationID string) ([]webhook.Secret, error) {
	texts, err := d.Keys.SigningSecrets(ctx, organizationID)
	if err != nil {
		return nil, err
	}
	secrets := make([]webhook.Secret, len(texts))
	for i, text := range texts {
		if secrets[i], err = webhook.ParseSecret(text.Reveal()); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

// print is the notice as JSON.
func print(p *lifecycle.Parcel) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(notice{"api_key.rotated", p.StartedAt, lifecycle.Rotated{Old: p.Old, New: p.New}.Reveal()})
	return bytes.TrimSpace(b.Bytes()), err
}

// Where an attempt goes, in the log.
const (
	toAddress = "webhook"
	toSecret  = "secretsmanager"
)

// tell logs how an attempt went, and has it noted.
func (d *Deliverer) tell(ctx context.Context, p *lifecycle.Parcel, r webhook.Result) {
	d.log(ctx, p, toAddress, r)
	if d.Note != nil {
		if r.Outcome == "" {
			r.Outcome = webhook.Refused // before anything was sent
		}
		d.Note(ctx, *p, r)
	}
}

func (d *Deliverer) log(ctx context.Context, p *lifecycle.Parcel, to string, r webhook.Result) {
	level := slog.LevelInfo
	if r.Outcome != webhook.Delivered {
		level = slog.LevelWarn
	}
	d.Log.LogAttrs(ctx, level, "delivery",
		slog.String("id", p.ID),
		slog.String("to", to),
		slog.String("key_prefix", p.New.Key.KeyPrefix),
		slog.Int("attempt", p.Attempt),
		slog.String("outcome", string(r.Outcome)),
		slog.Int("status", r.Status),
		slog.Float64("duration_ms", float64(r.Duration.Microseconds())/1000),
		slog.String("error", r.Err))
}
