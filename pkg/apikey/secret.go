package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Plaintext is a whole key as its holder knows it. It prints as "[redacted]" in every fmt verb, in JSON, text and slog. As
// an unexported field of another struct, where fmt cannot call its methods, it shows an address, never the key. Only Reveal
// gives the key: for whatever hands it to its holder, this once.
type Plaintext struct{ text *string }

// NewPlaintext wraps a key.
func NewPlaintext(key string) Plaintext { return Plaintext{&key} }

// Reveal returns the key itself.
func (p Plaintext) Reveal() string {
	if p.text == nil {
		return ""
	}
	return *p.text
}

// Hash is the SHA-256 of the whole key: what is stored in its place. The secret part alone has 178 bits of entropy, so
// an unsalted fast hash is enough (OWASP ASVS 5.0, 6.5.2).
func (p Plaintext) Hash() Hash {
	sum := sha256.Sum256([]byte(p.Reveal()))
	return newHash(sum[:])
}

// String is "[redacted]".
func (Plaintext) String() string { return redacted }

// GoString is "[redacted]".
func (Plaintext) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (Plaintext) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText gives "[redacted]", which JSON and XML then carry.
func (Plaintext) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue is "[redacted]".
func (Plaintext) LogValue() slog.Value { return slog.StringValue(redacted) }

// Hash is the stored stand-in for a key. It redacts itself as Plaintext does: whoever has a hash could search for its
// key offline, so no client ever sees one.
//
// Both hold a pointer to a string, since that is what fmt never follows: of a pointer to an array it prints the elements
// when a verb does not fit.
type Hash struct{ sum *string }

func newHash(sum []byte) Hash {
	text := string(sum)
	return Hash{&text}
}

// ParseHash reads the 32 bytes that Bytes gave.
func ParseHash(b []byte) (Hash, error) {
	if len(b) != sha256.Size {
		return Hash{}, fmt.Errorf("a key's hash has %d bytes, not %d", sha256.Size, len(b))
	}
	return newHash(b), nil
}

// Bytes is a copy of the hash itself, for a store alone. It is nil for the zero Hash.
func (h Hash) Bytes() []byte {
	if h.sum == nil {
		return nil
	}
	return []byte(*h.sum)
}

// IsZero says whether there is no hash.
func (h Hash) IsZero() bool { return h.sum == nil }

// Equal compares in constant time. The zero Hash equals nothing, itself included.
func (h Hash) Equal(other Hash) bool {
	return h.sum != nil && other.sum != nil && subtle.ConstantTimeCompare([]byte(*h.sum), []byte(*other.sum)) == 1
}

// String is "[redacted]".
func (Hash) String() string { return redacted }

// GoString is "[redacted]".
func (Hash) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (Hash) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText gives "[redacted]", which JSON and XML then carry.
func (Hash) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue is "[redacted]".
func (Hash) LogValue() slog.Value { return slog.StringValue(redacted) }
