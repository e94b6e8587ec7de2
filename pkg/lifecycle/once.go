package lifecycle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

// replayTime is how long an answer is kept for whoever lost it.
const replayTime = 24 * time.Hour

// Sealer keeps secrets so that nobody reads them in the store. What was sealed for one purpose, bound, cannot be opened for
// another.
type Sealer interface {
	Seal(ctx context.Context, plaintext []byte, bound string) (sealed []byte, err error)
	Open(ctx context.Context, sealed []byte, bound string) (plaintext []byte, err error)
}

// Once asks that a change is made once, however often it is asked for: within 24 hours the same caller who asks again
// with the same Token, Method and Path is given the first answer again, the secret included. The answer is kept sealed, in
// the change's own transaction, so that there is neither the one without the other. The zero Once asks for nothing.
//
// A caller who asks for something else with a Token (another Body) is refused with OtherRequest. When the key was revoked
// meanwhile its secret is destroyed, and the refusal is SecretDestroyed. Without a Sealer it is NoSealingKey.
type Once struct {
	Token  string // an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07)
	Method string
	Path   string
	Body   []byte
}

// id names what by asked for. No other organization, caller, method, path or token has the same.
func (o *Once) id(by caller.Caller) string {
	h := sha256.New()
	for _, part := range []string{by.OrganizationID, string(by.Kind), by.ID, o.Method, o.Path, o.Token} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (o *Once) fingerprint() []byte {
	sum := sha256.Sum256(o.Body)
	return sum[:]
}

// answer is what create and rotate give, as it is sealed: the one place where a plaintext is written down.
type answer struct {
	Old       *versioned `json:"old,omitempty"`
	New       versioned  `json:"new"`
	Plaintext string     `json:"plaintext"`
}

// versioned is a Key with the version that its own JSON leaves out.
type versioned struct {
	Key     apikey.Key `json:"key"`
	Version int64      `json:"version"`
}

func (a *answer) issued() apikey.Issued {
	return apikey.Issued{Key: a.New.key(), Plaintext: apikey.NewPlaintext(a.Plaintext)}
}

func (v *versioned) key() apikey.Key {
	v.Key.Version = v.Version
	return v.Key
}

// attempt decides one attempt of a change that is made once: it gives the answer of before again, or makes the change. A
// refusal counts only if no answer was given while it was being decided: whoever won the race is often its reason.
func (o *Once) attempt(ctx context.Context, s *Service, by caller.Caller, again func(*answer), decide func() (Change, error)) (Change, error) {
	given, err := o.again(ctx, s, by)
	if given == nil && err == nil {
		c, refused := decide()
		if refused == nil || o.Token == "" {
			return c, refused
		}
		if given, err = o.again(ctx, s, by); given == nil && err == nil {
			err = refused
		}
	}
	if err != nil {
		return Change{}, err
	}
	again(given)
	return Change{}, errNothingToDo
}

// again is the answer that was given to the same question before, or nil. The caller must still be allowed to have it.
func (o *Once) again(ctx context.Context, s *Service, by caller.Caller) (*answer, error) {
	if o.Token == "" {
		return nil, nil
	}
	if s.Seal == nil {
		return nil, apikey.Errorf(apikey.NoSealingKey, "This service was set up without a key to seal answers with, so it cannot take an Idempotency-Key. Leave it out.")
	}
	kept, err := s.Store.Replay(ctx, o.id(by))
	switch {
	case errors.Is(err, ErrNotFound), err == nil && !kept.Until.After(s.now()):
		return nil, nil
	case err != nil:
		return nil, unavailable(err)
	case !bytes.Equal(kept.Fingerprint, o.fingerprint()):
		return nil, apikey.Errorf(apikey.OtherRequest, "This Idempotency-Key was used for another request. Use a new one.")
	}
	r, err := s.peek(ctx, by, kept.KeyID)
	switch {
	case err != nil:
		return nil, err
	case r.State() == apikey.Revoked, kept.Sealed == nil:
		return nil, apikey.Errorf(apikey.SecretDestroyed, "The key %s that this request made was revoked since, and its secret is destroyed. Use a new Idempotency-Key to make another.", kept.KeyID)
	}
	if err := mayGrant(by, &r.Key); err != nil {
		return nil, err
	}
	return o.open(ctx, s, by, kept.Sealed)
}

func (o *Once) open(ctx context.Context, s *Service, by caller.Caller, sealed []byte) (*answer, error) {
	b, err := s.Seal.Open(ctx, sealed, o.id(by))
	if err != nil {
		return nil, unavailable(fmt.Errorf("opening a kept answer: %w", err))
	}
	a := new(answer)
	if json.Unmarshal(b, a) != nil { // whose error might quote what it read
		return nil, unavailable(errors.New("a kept answer is not as it was written"))
	}
	return a, nil
}

// keep has c keep the answer to what it creates. old is the key that was rotated, nil for none.
func (o *Once) keep(ctx context.Context, s *Service, by caller.Caller, c *Change, old *apikey.Key, given apikey.Issued) error {
	if o.Token == "" {
		return nil
	}
	a := answer{New: versioned{given.Key, given.Key.Version}, Plaintext: given.Plaintext.Reveal()}
	if old != nil {
		a.Old = &versioned{*old, old.Version}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // metadata are to be given again to the byte
	if err := e.Encode(a); err != nil {
		return fmt.Errorf("printing an answer to keep: %w", err)
	}
	id := o.id(by)
	sealed, err := s.Seal.Seal(ctx, b.Bytes(), id)
	clear(b.Bytes())
	if err != nil {
		return unavailable(fmt.Errorf("sealing an answer: %w", err))
	}
	until := c.Entry.At.Add(replayTime)
	c.Replay = &Replay{ID: id, Fingerprint: o.fingerprint(), KeyID: given.Key.ID, Sealed: sealed, Until: until}
	c.Create.Sealed = &apikey.Sealed{ID: id, Until: until}
	return nil
}
