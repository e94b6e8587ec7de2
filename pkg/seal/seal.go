// Package seal keeps short-lived secrets sealed: the answer that held a new key, so that a replay can give it again.
//
// Each secret has a data key of its own. The data key encrypts the secret, and is itself kept only wrapped by a
// key-encryption key, which is AWS KMS's ([NewKMS]) or this process's ([NewLocal]). What is sealed opens only for whoever
// may use that key, and only together with what it was bound to (docs/decisions/0017).
//
// The room promises that a sealed form which was changed in any byte, cut, moved to another place or sealed by another key
// is [ErrSealed]: never a panic, and never a part of the secret. It keeps nothing, so destroying a secret is its owner's
// task: removing every sealed copy. It refuses to say in an error what was sealed, or what KMS answered beside its code.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"unicode/utf8"
)

// ErrSealed is what Open says of anything that was not sealed by the same kind of Sealer with the same key and the same
// bound, or was changed since. Trying again does not help.
var ErrSealed = errors.New("it was not sealed by this key for this place, or was changed since")

// MaxBound is the longest bound, in bytes.
const MaxBound = 1024

// The first byte of a sealed form says who wrapped its data key. Another layout takes another byte.
const (
	byKMS   = 1
	byLocal = 2
)

// A sealed form is this head, the wrapped data key, and the secret under AES-256-GCM with its nonce before it.
const (
	keySize    = 32
	lengthAt   = 1 // after the kind; two bytes, big endian: how long the wrapped data key is
	headSize   = 3
	maxWrapped = 6144 // KMS takes no longer ciphertext
)

// wrapper holds the key-encryption key.
type wrapper interface {
	// fresh makes a data key and wraps it for bound.
	fresh(ctx context.Context, bound string) (key, wrapped []byte, err error)

	// unwrap gives the data key back. What was not wrapped so is ErrSealed.
	unwrap(ctx context.Context, wrapped []byte, bound string) (key []byte, err error)
}

// Sealer seals and opens; make one by NewKMS or NewLocal. It may be used by many at once, and prints as "seal.Sealer".
type Sealer struct {
	kind byte
	keys wrapper
}

// Seal encrypts plaintext under a data key of its own. Bound says what the secret belongs to and is no secret itself: KMS
// writes it to CloudTrail. It is 1 to MaxBound bytes of UTF-8 and must be given to Open again. The sealed form of n bytes
// has n + 91 bytes by a local key, and about n + 220 by KMS.
func (s Sealer) Seal(ctx context.Context, plaintext []byte, bound string) ([]byte, error) {
	if !mayBind(bound) {
		return nil, fmt.Errorf("a secret is bound to 1 to %d bytes of UTF-8, not to %d bytes", MaxBound, len(bound))
	}
	key, wrapped, err := s.keys.fresh(ctx, bound)
	defer clear(key)
	switch {
	case err != nil:
		return nil, err
	case len(key) != keySize || len(wrapped) == 0 || len(wrapped) > maxWrapped:
		return nil, fmt.Errorf("a data key of %d bytes, wrapped in %d, does not fit", len(key), len(wrapped))
	}
	head := binary.BigEndian.AppendUint16([]byte{s.kind}, uint16(len(wrapped)))
	head = append(head, wrapped...)
	return gcm(key).Seal(slices.Clip(head), nil, plaintext, additional(head, bound)), nil
}

// Open gives back what Seal was given with the same bound, or ErrSealed. Any other error says that the key could not be
// asked, or its owner refused; it says nothing of what is sealed.
func (s Sealer) Open(ctx context.Context, sealed []byte, bound string) ([]byte, error) {
	if !mayBind(bound) || len(sealed) < headSize || sealed[0] != s.kind {
		return nil, ErrSealed
	}
	size := int(binary.BigEndian.Uint16(sealed[lengthAt:]))
	if size == 0 || size > maxWrapped || len(sealed) < headSize+size {
		return nil, ErrSealed
	}
	head, secret := sealed[:headSize+size], sealed[headSize+size:]
	key, err := s.keys.unwrap(ctx, head[headSize:], bound)
	defer clear(key)
	switch {
	case err != nil:
		return nil, err
	case len(key) != keySize:
		return nil, ErrSealed
	}
	return open(gcm(key), secret, additional(head, bound))
}

// String is "seal.Sealer".
func (Sealer) String() string { return "seal.Sealer" }

// Format prints "seal.Sealer" for every verb.
func (s Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is "seal.Sealer".
func (s Sealer) LogValue() slog.Value { return slog.StringValue(s.String()) }

func mayBind(bound string) bool {
	return bound != "" && len(bound) <= MaxBound && utf8.ValidString(bound)
}

// additional is what a secret's encryption vouches for besides the secret: all that stands before it, and its bound. The
// head says its own length, so no two pairs give the same bytes.
func additional(head []byte, bound string) []byte { return append(slices.Clip(head), bound...) }

// gcm is AES-256-GCM with a random nonce, which it writes before what it encrypts. Its key may be cleared afterwards.
func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // no key of keySize bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // not the block cipher of this very package
	}
	return aead
}

func open(aead cipher.AEAD, sealed, additional []byte) ([]byte, error) {
	plaintext, err := aead.Open(nil, nil, sealed, additional)
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}
