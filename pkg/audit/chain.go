package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Link ties an entry to all that was linked before it in its organization's trail. Links are written in the order in which
// the entries were committed, which is not always that of their ids: clocks differ.
type Link struct {
	OrganizationID string `json:"organization_id"`
	Sequence       int64  `json:"sequence"` // 1 for the first, without gaps
	EntryID        string `json:"entry_id"`
	Previous       string `json:"previous"` // the hash of the link before; of the first, Root
	Hash           string `json:"hash"`
}

// Linked is an entry with its link.
type Linked struct {
	Entry Entry
	Link  Link
}

// Root is what the first link of a chain has as the hash before it.
var Root = strings.Repeat("0", 2*sha256.Size)

// Next is the link of e after previous, the zero Link for none. Its hash is the SHA-256, in lower-case hexadecimal digits,
// of the JSON object {"entry": e, "previous": the hash before, "sequence": its number} in the canonical form of RFC 8785,
// but with numbers as they are written, so that no digit of theirs can change unseen.
func Next(previous Link, e Entry) (Link, error) {
	l := Link{OrganizationID: e.OrganizationID, Sequence: previous.Sequence + 1, EntryID: e.ID, Previous: previous.Hash}
	if previous.Sequence == 0 {
		l.Previous = Root
	}
	entry, err := e.MarshalJSON()
	if err == nil {
		l.Hash, err = l.sum(entry)
	}
	return l, err
}

// MayLink refuses an entry that can have no place in an organization's chain.
func MayLink(organizationID string, e Entry) error {
	if organizationID == "" || e.OrganizationID != organizationID || e.ID == "" {
		return fmt.Errorf("the entry %q of %q has no place in the chain of %q", e.ID, e.OrganizationID, organizationID)
	}
	return nil
}

// sum is the hash that the link must have over an entry as JSON.
func (l *Link) sum(entry []byte) (string, error) {
	v := jsontext.Value(fmt.Sprintf(`{"entry":%s,"previous":%q,"sequence":%d}`, entry, l.Previous, l.Sequence))
	if err := canonicalize(&v); err != nil {
		return "", fmt.Errorf("the canonical form of %s: %w", l.EntryID, err)
	}
	hash := sha256.Sum256(v)
	return hex.EncodeToString(hash[:]), nil
}

// canonicalize is RFC 8785, but for numbers.
func canonicalize(v *jsontext.Value) error {
	return v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false))
}
