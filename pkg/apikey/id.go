package apikey

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

const (
	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	idChars  = 8
	idSpace  = 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 // 62^8, below 2^48
	idMark   = "key_"

	// A UUIDv8 (RFC 9562, section 5.8) leaves its bits to us: these spell "latchk", and the last 48 hold the number.
	uuidHead = "6c617463-686b-8000-8000-"

	maxName   = 128 // characters
	nameRunes = alphabet + "._:@|+-"
)

// ErrID reports text or a number that names no possible key.
var ErrID = errors.New("not a key id")

// digit maps a byte to its base62 value, or to 255.
var digit = func() (d [256]byte) {
	for i := range d {
		d[i] = 255
	}
	for i := range len(alphabet) {
		d[alphabet[i]] = byte(i)
	}
	return d
}()

// ID names a key for good. It is one number in [1, 62^8), so below 2^53 and exact as a JSON number, and it prints four
// ways without any second index: String ("key_8fK2m9Qx"), inside a prefix, Number, and UUID.
type ID uint64

// NewID draws an ID at random (47.6 bits). The store refuses one that is taken.
func NewID() ID {
	var b [8]byte
	for {
		_, _ = rand.Read(b[2:]) // never fails: crypto/rand ends the process instead
		if n := binary.BigEndian.Uint64(b[:]); n > 0 && n < idSpace {
			return ID(n)
		}
	}
}

// String is the native form, "key_" and 8 base62 digits.
func (id ID) String() string { return idMark + id.base62() }

// Number is the form for clients whose ids are JSON numbers.
func (id ID) Number() uint64 { return uint64(id) }

// UUID is the form for clients whose ids are UUIDs: a UUIDv8 (RFC 9562).
func (id ID) UUID() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(id))
	return uuidHead + hex.EncodeToString(b[2:])
}

func (id ID) base62() string {
	var b [idChars]byte
	for i := idChars - 1; i >= 0; i-- {
		b[i] = alphabet[id%62]
		id /= 62
	}
	return string(b[:])
}

// MarshalText prints the native form, so that an ID is "key_…" in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the native form alone.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// ParseID reads the native form. It refuses every other spelling with ErrID.
func ParseID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, idMark)
	if !ok {
		return 0, ErrID
	}
	return parseBase62(rest)
}

// ParseUUID reads what UUID prints, in lower case alone.
func ParseUUID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, uuidHead)
	if !ok || len(rest) != 12 || strings.ToLower(rest) != rest {
		return 0, ErrID
	}
	n, err := strconv.ParseUint(rest, 16, 64)
	if err != nil {
		return 0, ErrID
	}
	return fromNumber(n)
}

// ParseNumber reads what Number prints: decimal, without sign or leading zeros.
func ParseNumber(s string) (ID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, ErrID
	}
	return fromNumber(n)
}

func fromNumber(n uint64) (ID, error) {
	if n == 0 || n >= idSpace {
		return 0, ErrID
	}
	return ID(n), nil
}

func parseBase62(s string) (ID, error) {
	if len(s) != idChars {
		return 0, ErrID
	}
	n := uint64(0)
	for i := range len(s) {
		d := digit[s[i]]
		if d == 255 {
			return 0, ErrID
		}
		n = n*62 + uint64(d)
	}
	return fromNumber(n)
}

// ValidID says whether s may name an organization, user, project, environment or external thing: 1 to 128 characters of
// A-Z a-z 0-9 . _ : @ | + -. It holds no "#", so that ids joined with it cannot be forged.
func ValidID(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, nameRunes) == ""
}
