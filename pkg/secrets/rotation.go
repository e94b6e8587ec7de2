package secrets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// Rotation makes the steps of a rotation that Secrets Manager runs:
//
//	createSecret   begin a handover, which is in doubt from its beginning     put the successor there, AWSPENDING
//	setSecret      nothing is to be set: the successor lives already
//	testSecret     the successor is what the doors accept, and may become the secret's key
//	finishSecret   the same again     move AWSCURRENT to it     end the handover: from now on the old key has an end     take AWSPENDING off it
//
// What is written in one line is written in this order, and nothing can make it one transaction. So it is arranged that
// between any two writes nobody is locked out, if the second never comes: a successor is held as soon as it may be in the
// secret, and the old key is given no end until nobody is given the old key any more. A step that is made again, by a
// repeat, by another process at the same time, or long after, finds what was done and does the rest. One whose time has
// passed is refused by the stages of its version. Where the last write of all is lost and the step is not repeated, both
// keys live on, the organization is told, and the next rotation of the secret makes up for it before anything else.
//
// Its fields are set once, before the first use.
type Rotation struct {
	Secrets  *Client
	Keys     *lifecycle.Service
	Verifier *verify.Verifier
	Log      *slog.Logger
}

// Request is what Secrets Manager asks for.
type Request struct {
	SecretID      string `json:"SecretId"` // an ARN
	Token         string `json:"ClientRequestToken"`
	Step          string `json:"Step"`
	RotationToken string `json:"RotationToken"` // "", or what PutSecretValue wants to be told
}

// Step makes one step. It may be made again. An error says what to do, where somebody must do something, and Secrets
// Manager tries the rotation again later.
func (r *Rotation) Step(ctx context.Context, q Request) error {
	s, err := r.Secrets.describe(ctx, &q)
	if err == nil {
		err = r.step(ctx, s)
	}
	level, told := slog.LevelInfo, ""
	if err != nil {
		level, told = slog.LevelWarn, err.Error()
	}
	r.Log.LogAttrs(ctx, level, "rotation", slog.String("secret", s.name), slog.String("step", known(q.Step)), slog.String("error", told))
	return err
}

// steps are those that there are.
var steps = []string{"createSecret", "setSecret", "testSecret", "finishSecret"}

func known(step string) string {
	if slices.Contains(steps, step) {
		return step
	}
	return "unknown"
}

// step makes one step of a rotation that is under way.
func (r *Rotation) step(ctx context.Context, s *secret) error {
	if done, err := s.underWay(); err != nil || done {
		return err
	}
	switch s.asked.Step {
	case "createSecret":
		return r.create(ctx, s)
	case "setSecret", "testSecret":
		held, err := r.pending(ctx, s)
		if err != nil {
			return err
		}
		return r.test(ctx, held)
	case "finishSecret":
		return r.finish(ctx, s)
	}
	return errors.New("there is no such step of a rotation")
}

// create puts a successor of the secret's key there, for nobody to read yet. If it is there nothing is to be done.
func (r *Rotation) create(ctx context.Context, s *secret) error {
	_, there, err := r.Secrets.read(ctx, s, s.asked.Token, "")
	if err != nil || there {
		return err
	}
	text, there, err := r.Secrets.read(ctx, s, "", stageCurrent)
	if err != nil {
		return err
	}
	if !there {
		return errors.New("the secret has no key yet that could be rotated: put one there")
	}
	held, err := s.holds(text)
	if err != nil {
		return err
	}
	issued, err := r.Keys.HandOver(ctx, held)
	if err != nil {
		return err
	}
	return r.Secrets.stage(ctx, s, issued)
}

// pending is the key that the rotation prepares.
func (r *Rotation) pending(ctx context.Context, s *secret) (lifecycle.Held, error) {
	text, there, err := r.Secrets.read(ctx, s, s.asked.Token, "")
	if err != nil {
		return lifecycle.Held{}, err
	}
	if !there {
		return lifecycle.Held{}, errors.New("the rotation has prepared no key yet")
	}
	return s.holds(text)
}

// test refuses a key that the doors of an API would not accept, whoever presented it, and one that may not become the
// secret's.
func (r *Rotation) test(ctx context.Context, held lifecycle.Held) error {
	if d := r.Verifier.Look(ctx, held.Key.Reveal(), held.OrganizationID); !d.Allowed() {
		return fmt.Errorf("the key that the rotation prepared is not accepted (%s). If that stays so, take %s off its version, and rotate again", d.Code, stagePending)
	}
	return r.Keys.MayBeHandedOver(ctx, held)
}

// finish has the secret give the new key to everybody who reads it, and only then lets the old one come to an end.
func (r *Rotation) finish(ctx context.Context, s *secret) error {
	held, err := r.pending(ctx, s)
	if err != nil {
		return err
	}
	if s.current != s.asked.Token {
		if err := r.test(ctx, held); err != nil {
			return err
		}
		if err := r.Secrets.move(ctx, s); err != nil {
			return err
		}
	}
	if err := r.Keys.HandedOver(ctx, held); err != nil {
		return err
	}
	return r.Secrets.clean(ctx, s)
}

// secret is what Secrets Manager says of one.
type secret struct {
	asked        *Request
	name         string
	organization string
	line         apikey.ID
	rotates      bool
	versions     map[string][]string // their stages
	current      string              // the version that everybody reads; "": none
}

// underWay says whether nothing is left to be done, and refuses a step of a rotation that is not under way.
func (s *secret) underWay() (done bool, err error) {
	stages, there := s.versions[s.asked.Token]
	switch {
	case !s.rotates:
		return false, errors.New("the secret is not set up to be rotated")
	case !there:
		return false, errors.New("the secret has no such version")
	case slices.Contains(stages, stageCurrent):
		return s.asked.Step != "finishSecret", nil // of which a part may be left
	case !slices.Contains(stages, stagePending):
		return false, errors.New("the version is not " + stagePending + ": its rotation is over")
	}
	return false, nil
}

// holds is a value of the secret.
func (s *secret) holds(text string) (lifecycle.Held, error) {
	key, err := read(text)
	return lifecycle.Held{OrganizationID: s.organization, Line: s.line, Key: key}, err
}

// describe looks at the secret that a request names. What is not ours by its name is refused.
func (c *Client) describe(ctx context.Context, q *Request) (*secret, error) {
	s := &secret{asked: q}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	out, err := c.api.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &q.SecretID})
	if err != nil {
		return s, refusal(ctx, "looking at the secret", err)
	}
	if out.Name == nil {
		return s, errors.New("looking at the secret: no answer that can be used")
	}
	s.organization, s.line, err = parseName(*out.Name)
	if err != nil {
		return s, err
	}
	s.name, s.rotates, s.versions = *out.Name, out.RotationEnabled != nil && *out.RotationEnabled, out.VersionIdsToStages
	for id, stages := range s.versions {
		if slices.Contains(stages, stageCurrent) {
			s.current = id
		}
	}
	return s, nil
}

// read is the value of a version, or of the one with a stage. It says whether there is one.
func (c *Client) read(ctx context.Context, s *secret, version, stage string) (text string, there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	out, err := c.api.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &s.asked.SecretID, VersionId: orNil(version), VersionStage: orNil(stage)})
	switch {
	case missing(err):
		return "", false, nil
	case err != nil:
		return "", false, refusal(ctx, "reading the secret", err)
	case out.SecretString == nil:
		return "", true, nil
	}
	return *out.SecretString, true, nil
}

// stage puts a key into the version of the rotation.
func (c *Client) stage(ctx context.Context, s *secret, issued apikey.Issued) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	_, err := c.api.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: &s.asked.SecretID, ClientRequestToken: &s.asked.Token, SecretString: new(print(issued)),
		VersionStages: []string{stagePending}, RotationToken: orNil(s.asked.RotationToken),
	})
	return refusal(ctx, "preparing the successor in the secret", err)
}

// move has everybody read the version of the rotation, unless they do not read what they did when it was described.
func (c *Client) move(ctx context.Context, s *secret) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	_, err := c.api.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &s.asked.SecretID, VersionStage: new(stageCurrent), MoveToVersionId: &s.asked.Token, RemoveFromVersionId: orNil(s.current),
	})
	return refusal(ctx, "giving the successor to everybody who reads the secret", err)
}

// clean takes the stage of what is prepared off a version that is read by everybody now. Left there it would be in the way of the
// next rotation, once another version is read.
func (c *Client) clean(ctx context.Context, s *secret) error {
	if !slices.Contains(s.versions[s.asked.Token], stagePending) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	_, err := c.api.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &s.asked.SecretID, VersionStage: new(stagePending), RemoveFromVersionId: &s.asked.Token,
	})
	return refusal(ctx, "ending the rotation in the secret", err)
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
