package apikey

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

const (
	secretChars   = 30
	checksumChars = 6
	envChars      = 4
	tailChars     = 1 + secretChars + checksumChars    // _<secret><crc>
	middleChars   = 1 + envChars + 1 + idChars         // _<env>_<id>
	minBrand      = 2                                  // characters
	maxBrand      = 12                                 // characters
	maxKeyChars   = maxBrand + middleChars + tailChars // no key is longer
	brandRule     = "2 to 12 characters of a-z, 0-9 and _, starting with a letter and not ending with _"
	testEnv       = "test" // of an environment_id that starts so
	liveEnv       = "live" // of every other, and of none
)

// ErrMalformed reports text that cannot be a key of this deployment: no store needs to be asked about it.
var ErrMalformed = errors.New("not a key of this deployment")

// Format is how a deployment's keys are spelt:
//
//	<brand>_<env>_<id>_<secret><crc>     lk_live_8fK2m9Qx_ + 30 base62 characters + 6 of checksum
//
// brand is the deployment's, env is "live" or "test", id is the key's ID in base62, and the checksum is the CRC-32
// (IEEE) of everything before it, in base62, zero padded. The part up to the id is the key's prefix: it is public,
// shown in lists and written to logs. Every key has one spelling.
type Format struct {
	brand    string
	accepted []string // brand first, then those retired
}

// NewFormat makes the Format of a deployment whose new keys carry brand and whose older keys may carry a retired one.
func NewFormat(brand string, retired ...string) (Format, error) {
	accepted := append([]string{brand}, retired...)
	for _, b := range accepted {
		if !validBrand(b) {
			return Format{}, fmt.Errorf("brand %q: a brand has %s", b, brandRule)
		}
	}
	return Format{brand, accepted}, nil
}

// Brand is the brand of new keys, "" for the zero Format, which parses nothing.
func (f Format) Brand() string { return f.brand }

func validBrand(b string) bool {
	ok := len(b) >= minBrand && len(b) <= maxBrand && b[0] >= 'a' && b[0] <= 'z' && b[len(b)-1] != '_'
	return ok && strings.Trim(b, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// Mint makes a new key. An environmentID that starts with "test" makes a test key; every other, and none, a live one.
func (f Format) Mint(environmentID string) Minted {
	id, env := NewID(), liveEnv
	if strings.HasPrefix(environmentID, testEnv) {
		env = testEnv
	}
	prefix := f.brand + "_" + env + "_" + id.base62()
	text := prefix + "_" + randomBase62(secretChars)
	return Minted{id, prefix, NewPlaintext(text + checksum(text))}
}

// Minted is a new key before it has a record.
type Minted struct {
	ID        ID
	Prefix    string
	Plaintext Plaintext
}

// Token is a presented key that passed the strict parse. It prints redacted, as the Plaintext it holds.
type Token struct {
	id   ID
	text Plaintext
}

// Parse reads a presented key. It refuses with ErrMalformed whatever is not spelt exactly as Format says, has another
// brand, or a wrong checksum: no single-character change of a key parses. It allocates nothing for what it refuses.
func (f Format) Parse(s string) (Token, error) {
	if len(s) > maxKeyChars || len(s) < minBrand+middleChars+tailChars {
		return Token{}, ErrMalformed
	}
	prefix, tail := s[:len(s)-tailChars], s[len(s)-tailChars:]
	id, err := f.parsePrefix(prefix)
	if err != nil || tail[0] != '_' || !base62(tail[1:]) || !summed(s) {
		return Token{}, ErrMalformed
	}
	return Token{id, NewPlaintext(s)}, nil
}

// ParsePrefix reads a key's public prefix, "lk_live_8fK2m9Qx", of this deployment's brands.
func (f Format) ParsePrefix(s string) (ID, error) {
	if len(s) < minBrand+middleChars {
		return 0, ErrID
	}
	return f.parsePrefix(s)
}

func (f Format) parsePrefix(s string) (ID, error) {
	brand, middle := s[:len(s)-middleChars], s[len(s)-middleChars:]
	env := middle[1 : 1+envChars]
	if middle[0] != '_' || middle[1+envChars] != '_' || env != liveEnv && env != testEnv || !slices.Contains(f.accepted, brand) {
		return 0, ErrID
	}
	return parseBase62(middle[2+envChars:])
}

// ID is the key's id.
func (t Token) ID() ID { return t.id }

// Prefix is the key's public prefix, the one part that may be logged.
func (t Token) Prefix() string {
	s := t.text.Reveal()
	return s[:max(0, len(s)-tailChars)]
}

// Hash is what a store holds in place of the key.
func (t Token) Hash() Hash { return t.text.Hash() }

func base62(s string) bool {
	for i := range len(s) {
		if digit[s[i]] == 255 {
			return false
		}
	}
	return true
}

// summed says whether s ends with the checksum of what stands before it, digit by digit and without an allocation.
func summed(s string) bool {
	at := len(s) - checksumChars
	sum := crc(s[:at])
	for i := len(s) - 1; i >= at; i-- {
		if s[i] != alphabet[sum%62] {
			return false
		}
		sum /= 62
	}
	return true
}

func checksum(s string) string {
	var b [checksumChars]byte
	sum := crc(s)
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = alphabet[sum%62]
		sum /= 62
	}
	return string(b[:])
}

// crc is crc32.ChecksumIEEE for a string, four bytes at a time: that one makes a copied slice escape, and junk must cost
// no allocation.
func crc(s string) uint32 {
	sum := ^uint32(0)
	for ; len(s) >= 4; s = s[4:] {
		sum ^= uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		sum = slicing[3][byte(sum)] ^ slicing[2][byte(sum>>8)] ^ slicing[1][byte(sum>>16)] ^ slicing[0][byte(sum>>24)]
	}
	for i := range len(s) {
		sum = slicing[0][byte(sum)^s[i]] ^ sum>>8
	}
	return ^sum
}

// slicing[n] is the effect of a byte on the sum when n bytes follow it.
var slicing = func() (t [4]crc32.Table) {
	t[0] = *crc32.IEEETable
	for n := 1; n < len(t); n++ {
		for i, sum := range t[n-1] {
			t[n][i] = t[0][byte(sum)] ^ sum>>8
		}
	}
	return t
}()

func randomBase62(n int) string {
	out := make([]byte, 0, n)
	var b [64]byte
	for len(out) < n {
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		for _, c := range b {
			if c < 62*4 && len(out) < n { // 248 to 255 would favour the first digits
				out = append(out, alphabet[c%62])
			}
		}
	}
	return string(out)
}
