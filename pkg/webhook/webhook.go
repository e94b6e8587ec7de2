// Package webhook sends one signed notice to one address, once, and safely.
//
// A [Message] is signed as Standard Webhooks 1.0.0 has it, with one signature for each [Secret], so that a receiver which
// still has the old secret verifies it too. A [Sender] posts it and says in a [Result] what came of it: whether it was
// delivered, and if not, whether a part of it may have arrived. When to try again is decided elsewhere.
//
// The addresses are written by customers, and the sender stands inside the network. So the room promises that nothing is
// reached but public addresses: each is checked at the moment of connecting, whatever its spelling and whatever DNS said
// before (docs/decisions/0022). No redirect is followed, no proxy is used and no cookie is kept; a receiver gets 15 s in all,
// whatever it does; and nothing that it says is kept but its status and when it wants to be asked again. It refuses to
// put a receiver's words, a secret or a notice into an error.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The headers of a notice.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

const (
	// MaxBody is the longest notice, in bytes. Standard Webhooks recommends less than 20 KB.
	MaxBody = 64 << 10

	// Tolerance is how far a notice's timestamp may lie from the receiver's clock, either way.
	Tolerance = 5 * time.Minute

	version       = "v1," // of signatures made with a shared secret
	maxSignatures = 16    // that Verify looks at
	maxID         = 128
)

// ErrUnverified is what Verify says of a notice that the holders of these secrets did not send now.
var ErrUnverified = errors.New("the notice is not verified")

// Message is one notice.
type Message struct {
	ID   string    // 1 to 128 characters of A-Z a-z 0-9 _ -, the same at every attempt: receivers know repetitions by it
	At   time.Time // of this attempt, by the clock that receivers share: not by one that was moved for a test
	Body []byte    // JSON in UTF-8, at most MaxBody
}

// Sign returns the three headers that vouch for the message: its id, its time in Unix seconds, and a signature for each
// secret in their order. It refuses a message that no receiver could verify, and to sign without a secret.
func (m Message) Sign(secrets ...Secret) (http.Header, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if len(secrets) == 0 || len(secrets) > maxSignatures {
		return nil, fmt.Errorf("a notice is signed with 1 to %d secrets, not %d", maxSignatures, len(secrets))
	}
	timestamp := strconv.FormatInt(m.At.Unix(), 10)
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		if s.IsZero() {
			return nil, errors.New("a secret is missing")
		}
		signatures[i] = version + s.signature(m.ID, timestamp, m.Body)
	}
	h := http.Header{}
	h.Set(headerID, m.ID)
	h.Set(headerTimestamp, timestamp)
	h.Set(headerSignature, strings.Join(signatures, " "))
	return h, nil
}

func (m Message) check() error {
	switch {
	case !validID(m.ID):
		return errors.New("the id of a notice has 1 to 128 characters of A-Z a-z 0-9 _ -")
	case m.At.Unix() < 0:
		return errors.New("a notice needs the time of its attempt")
	case len(m.Body) > MaxBody:
		return fmt.Errorf("the notice has %d bytes, above %d", len(m.Body), MaxBody)
	case !json.Valid(m.Body) || !utf8.Valid(m.Body):
		return errors.New("the notice is not JSON in UTF-8")
	}
	return nil
}

// validID keeps full stops out, which separate what is signed: of another id and another time the same text could be made.
func validID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-')
	})
}

// signature is the HMAC-SHA256 of id, time and body, in base64.
func (s Secret) signature(id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, s.key())
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Verify says that the headers vouch for the body with one of the secrets, and that now is within Tolerance of their time.
// Every error is ErrUnverified. A receiver also remembers the ids that it has seen: the same notice may come twice.
func Verify(h http.Header, body []byte, now time.Time, secrets ...Secret) error {
	id, timestamp, signatures, err := read(h)
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || at < 0 || strconv.FormatInt(at, 10) != timestamp {
		return fmt.Errorf("%w: its timestamp is not in Unix seconds", ErrUnverified)
	}
	switch tolerance := int64(Tolerance / time.Second); {
	case at < now.Unix()-tolerance:
		return fmt.Errorf("%w: it is too old", ErrUnverified)
	case at > now.Unix()+tolerance:
		return fmt.Errorf("%w: its time has not come", ErrUnverified)
	}
	for _, s := range secrets {
		if !s.IsZero() && s.signed(signatures, id, timestamp, body) {
			return nil
		}
	}
	return fmt.Errorf("%w: none of its signatures fits", ErrUnverified)
}

// read takes the three headers apart. Each must stand there once.
func read(h http.Header) (id, timestamp string, signatures []string, err error) {
	for _, name := range []string{headerID, headerTimestamp, headerSignature} {
		if values := h.Values(name); len(values) != 1 || values[0] == "" {
			return "", "", nil, fmt.Errorf("%w: it needs one header %s", ErrUnverified, strings.ToLower(name))
		}
	}
	id, timestamp = h.Get(headerID), h.Get(headerTimestamp)
	if !validID(id) {
		return "", "", nil, fmt.Errorf("%w: its id has other characters than A-Z a-z 0-9 _ - or too many", ErrUnverified)
	}
	signatures = strings.SplitN(h.Get(headerSignature), " ", maxSignatures+1)
	return id, timestamp, signatures[:min(len(signatures), maxSignatures)], nil
}

// signed says whether one of the signatures is the secret's. The time it takes tells nothing of the right one.
func (s Secret) signed(signatures []string, id, timestamp string, body []byte) bool {
	want := []byte(version + s.signature(id, timestamp, body))
	found := false
	for _, signature := range signatures {
		if hmac.Equal([]byte(signature), want) {
			found = true
		}
	}
	return found
}
