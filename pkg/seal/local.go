package seal

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
)

// NewLocal makes a Sealer whose key-encryption key is in this process: for development, and for latchkeyd without KMS. Whoever
// has the key opens everything it ever sealed, so it comes from where secrets are kept. The caller may clear its copy.
func NewLocal(key [32]byte) *Sealer {
	defer clear(key[:])
	return &Sealer{byLocal, local{gcm(key[:])}}
}

// local wraps data keys itself, bound to nothing: what they encrypt is. Its nonces are random, so one key is good for 2^32 secrets (NIST SP 800-38D, 8.3).
type local struct{ kek cipher.AEAD }

func (l local) fresh(context.Context, string) (key, wrapped []byte, err error) {
	key = make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: it would end the process
	return key, l.kek.Seal(nil, nil, key, nil), nil
}

func (l local) unwrap(_ context.Context, wrapped []byte, _ string) ([]byte, error) {
	return open(l.kek, wrapped, nil)
}
