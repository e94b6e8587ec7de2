package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	redacted     = "[redacted]"
	secretPrefix = "whsec_"
	secretSize   = 32 // bytes of a new one

	// What Standard Webhooks allows.
	minSecret = 24
	maxSecret = 64
)

// Secret signs notices: whsec_ and the base64 of 24 to 64 random bytes. It prints as "[redacted]" in every fmt verb, in
// JSON, text and slog. As an unexported field of another struct, where fmt cannot call its methods, it shows an address,
// never the secret. Only Reveal gives it: for whoever hands it to its organization, and for what seals it.
type Secret struct{ text *string }

// NewSecret makes one of 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, secretSize)
	_, _ = rand.Read(key) // never fails
	text := secretPrefix + base64.StdEncoding.EncodeToString(key)
	return Secret{&text}
}

// ParseSecret reads what Reveal gives. A secret has one spelling; the error does not hold it.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, errors.New("a signing secret begins with " + secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || base64.StdEncoding.EncodeToString(key) != encoded {
		return Secret{}, errors.New("a signing secret is in standard base64 after " + secretPrefix)
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, fmt.Errorf("a signing secret has %d to %d bytes, not %d", minSecret, maxSecret, len(key))
	}
	text = strings.Clone(text)
	return Secret{&text}, nil
}

// Reveal returns the secret itself, "" for the zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero says whether there is no secret. Nothing is signed or verified with it.
func (s Secret) IsZero() bool { return s.text == nil }

// key is the bytes that sign.
func (s Secret) key() []byte {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.Reveal(), secretPrefix))
	if err != nil || len(key) < minSecret {
		panic("a secret that neither NewSecret nor ParseSecret made")
	}
	return key
}

// String is "[redacted]".
func (Secret) String() string { return redacted }

// GoString is "[redacted]".
func (Secret) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText gives "[redacted]", which JSON and XML then carry.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue is "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
