package audit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
)

// Export is entries and links as the API prints them, of one organization or of several, to be checked without asking
// anybody. An entry is kept as it was read, down to the digits of its numbers and with members that this program does not
// know: what was linked is what was printed. The zero Export is empty.
type Export struct {
	organizations map[string]*exported
}

// exported is what an Export has of one organization.
type exported struct {
	entries map[string][]seen // by id: more than one only when they differ
	links   []Link            // each once
	known   map[Link]bool
}

// seen is an entry as it was read, in canonical form, and what a report calls it.
type seen struct {
	canonical []byte
	action    string
}

// Read adds what r holds: JSON values one after another, objects or arrays of them, in any order. What was read before may
// come again. Anything that is neither an entry nor a link is an error, which says where it is.
func (x *Export) Read(r io.Reader) error {
	d := jsontext.NewDecoder(r)
	for {
		switch kind := d.PeekKind(); kind {
		case '[', ']':
			if _, err := d.ReadToken(); err != nil {
				return unread(err)
			}
		default:
			value, err := d.ReadValue()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return unread(err)
			}
			if err := x.add(value); err != nil {
				return fmt.Errorf("before byte %d: %w: %s", d.InputOffset(), err, beginning(value))
			}
		}
	}
}

// unread says of what could not be parsed what it should have been.
func unread(err error) error {
	if _, is := errors.AsType[*jsontext.SyntacticError](err); is {
		return fmt.Errorf("this is not an export or a page of the API, or not all of it: %w", err)
	}
	return err
}

// beginning is enough of a value to be known again.
func beginning(v []byte) string {
	if len(v) > 80 {
		return printable(strings.ToValidUTF8(string(v[:80]), "")) + "…"
	}
	return printable(string(v))
}

// printable is a text of a file that nobody vouches for, as a terminal may show it.
func printable(text string) string {
	if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.QuoteToASCII(text)
	}
	return text
}

func (x *Export) add(value []byte) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(value, &members) != nil {
		return errNeither
	}
	if members["entry_id"] != nil && members["sequence"] != nil {
		l, err := readLink(members)
		if err == nil {
			x.of(l.OrganizationID).link(l)
		}
		return err
	}
	return x.entry(members, value)
}

var errNeither = errors.New("this is neither an audit entry nor a link")

var hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// readLink takes a link that has these members, spelt so, and no others: what a link says is compared, not guessed.
func readLink(members map[string]json.RawMessage) (l Link, err error) {
	improper := func(name string) (Link, error) { return l, fmt.Errorf("this link has no proper %s", name) }
	for name, into := range map[string]any{"organization_id": &l.OrganizationID, "sequence": &l.Sequence, "entry_id": &l.EntryID,
		"previous": &l.Previous, "hash": &l.Hash} {
		if json.Unmarshal(members[name], into) != nil {
			return improper(name)
		}
	}
	switch {
	case len(members) != 5:
		return l, errors.New("this link has other members than links have; it may be of a later version of Latchkey")
	case l.OrganizationID == "":
		return improper("organization_id")
	case l.Sequence < 1:
		return improper("sequence")
	case l.EntryID == "":
		return improper("entry_id")
	case !hashForm.MatchString(l.Previous):
		return improper("previous")
	case !hashForm.MatchString(l.Hash):
		return improper("hash")
	}
	return l, nil
}

func (x *Export) entry(members map[string]json.RawMessage, value jsontext.Value) error {
	var id, organization, action string
	for name, into := range map[string]*string{"id": &id, "organization_id": &organization, "action": &action} {
		if json.Unmarshal(members[name], into) != nil || *into == "" {
			return errNeither
		}
	}
	canonical := value.Clone()
	if err := canonicalize(&canonical); err != nil {
		return fmt.Errorf("this entry has no canonical form (%w)", err)
	}
	o := x.of(organization)
	for _, e := range o.entries[id] {
		if bytes.Equal(e.canonical, canonical) {
			return nil
		}
	}
	o.entries[id] = append(o.entries[id], seen{canonical, action})
	return nil
}

func (x *Export) of(organizationID string) *exported {
	if x.organizations[organizationID] == nil {
		if x.organizations == nil {
			x.organizations = map[string]*exported{}
		}
		x.organizations[organizationID] = &exported{entries: map[string][]seen{}, known: map[Link]bool{}}
	}
	return x.organizations[organizationID]
}

func (o *exported) link(l Link) {
	if !o.known[l] {
		o.known[l] = true
		o.links = append(o.links, l)
	}
}

// Head is a link that somebody kept elsewhere.
type Head struct {
	OrganizationID string // "": of the only organization there is
	Sequence       int64
	Hash           string
}

// ParseHead reads a head as String prints it: SEQUENCE:HASH, or ORGANIZATION:SEQUENCE:HASH.
func ParseHead(text string) (h Head, err error) {
	rest, hash := cutLast(text)
	organization, sequence := cutLast(rest)
	h = Head{OrganizationID: organization, Hash: hash}
	if h.Sequence, err = strconv.ParseInt(sequence, 10, 64); err != nil || h.Sequence < 1 || !hashForm.MatchString(hash) {
		return h, fmt.Errorf("%q is no head: it is written SEQUENCE:HASH, or ORGANIZATION:SEQUENCE:HASH, with a hash of 64 digits of 0-9a-f", text)
	}
	return h, nil
}

// cutLast cuts at the last colon: an organization's id may hold others.
func cutLast(text string) (before, after string) {
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return "", text
}

// String prints what ParseHead reads.
func (h Head) String() string {
	own := fmt.Sprintf("%d:%s", h.Sequence, h.Hash)
	if h.OrganizationID == "" {
		return own
	}
	return h.OrganizationID + ":" + own
}

// Check says of each organization, in the order of their ids, what the export proves. An organization of which there is only a
// head is one of them. An error says which head is of nobody.
func (x *Export) Check(heads ...Head) ([]Verdict, error) {
	only := ""
	if names := slices.Collect(maps.Keys(x.organizations)); len(names) == 1 {
		only = names[0]
	}
	kept := map[string][]Head{}
	for _, h := range heads {
		if h.OrganizationID == "" {
			h.OrganizationID = only
		}
		if h.OrganizationID == "" {
			return nil, fmt.Errorf("the head %s does not say of which organization it is, and there are %d: write ORGANIZATION:SEQUENCE:HASH", h, len(x.organizations))
		}
		x.of(h.OrganizationID)
		kept[h.OrganizationID] = append(kept[h.OrganizationID], h)
	}
	var verdicts []Verdict
	for _, id := range slices.Sorted(maps.Keys(x.organizations)) {
		verdicts = append(verdicts, x.organizations[id].check(id, kept[id]))
	}
	return verdicts, nil
}

func (o *exported) check(id string, heads []Head) Verdict {
	v := Verdict{OrganizationID: id, Links: len(o.links), Entries: len(o.entries)}
	slices.SortStableFunc(o.links, func(a, b Link) int { return cmp.Compare(a.Sequence, b.Sequence) })
	if v.Links > 0 {
		v.First, v.Head = o.links[0].Sequence, headOf(o.links[len(o.links)-1])
		o.walk(&v)
		o.others(&v)
	}
	for _, h := range heads {
		v.Kept = append(v.Kept, o.compare(h, &v))
	}
	return v
}

func headOf(l Link) Head { return Head{l.OrganizationID, l.Sequence, l.Hash} }

// walk goes along the links to the first that is broken.
func (o *exported) walk(v *Verdict) {
	linked := map[string]int64{}
	for i, l := range o.links {
		var before *Link
		if i > 0 {
			before = &o.links[i-1]
		}
		if at, what := o.broken(before, &l, linked); what != "" {
			v.Broken, v.What = at, what
			return
		}
		if i+1 < len(o.links) && o.links[i+1].Sequence == l.Sequence {
			v.Broken, v.What = l.Sequence, fmt.Sprintf("There are two different links with the number %d.", l.Sequence)
			return
		}
		linked[l.EntryID], v.Held = l.Sequence, l.Sequence
	}
}

// broken says what is wrong with a link behind the one before it, nil for the first there is, and at which number; or "".
func (o *exported) broken(before, l *Link, linked map[string]int64) (at int64, what string) {
	switch {
	case before == nil && l.Sequence == 1 && l.Previous != Root:
		return 1, "The first link does not begin at the root of all chains: its previous is not 64 zeros."
	case before != nil && l.Sequence != before.Sequence+1:
		return before.Sequence + 1, missing(before.Sequence+1, l.Sequence-1)
	case before != nil && l.Previous != before.Hash:
		return l.Sequence, fmt.Sprintf("Link %d does not continue link %d: it names %s as the hash before it, and link %d has %s. One of the two was changed or replaced.",
			l.Sequence, before.Sequence, l.Previous, before.Sequence, before.Hash)
	case linked[l.EntryID] != 0:
		return l.Sequence, fmt.Sprintf("The entry %s is linked twice, by link %d and link %d.", o.called(l.EntryID), linked[l.EntryID], l.Sequence)
	}
	there := o.entries[l.EntryID]
	switch {
	case len(there) == 0:
		return l.Sequence, fmt.Sprintf("The entry %s, which link %d is about, is missing: it was deleted, or left out of these files.", o.called(l.EntryID), l.Sequence)
	case len(there) > 1:
		return l.Sequence, fmt.Sprintf("The entry %s, which link %d is about, is there in %d versions that differ.", o.called(l.EntryID), l.Sequence, len(there))
	}
	hash, err := l.sum(there[0].canonical)
	if err != nil { // it has been canonical once already
		return l.Sequence, err.Error()
	}
	if hash != l.Hash {
		return l.Sequence, fmt.Sprintf("The entry %s is not what was linked: with it the hash of link %d would be %s, and it is %s. The entry or the link was changed.",
			o.called(l.EntryID), l.Sequence, hash, l.Hash)
	}
	return 0, ""
}

func missing(first, last int64) string {
	if first == last {
		return fmt.Sprintf("Link %d is missing.", first)
	}
	return fmt.Sprintf("Links %d to %d are missing.", first, last)
}

// called names an entry to a person: with its time, which stands in its id, and its action, if the entry is there.
func (o *exported) called(id string) string {
	var facts []string
	if at := madeAt(id); !at.IsZero() {
		facts = append(facts, at.Format(time.RFC3339))
	}
	if there := o.entries[id]; len(there) == 1 {
		facts = append(facts, printable(there[0].action))
	}
	if len(facts) == 0 {
		return strconv.Quote(id)
	}
	return printable(id) + " (" + strings.Join(facts, ", ") + ")"
}

// madeAt is the time that an entry's id holds, the zero time for what is no such id.
func madeAt(id string) time.Time {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return time.Time{}
	}
	return ulid.Time(u.Time()).UTC()
}

// Lag is how much older than the newest linked entry an entry may be that has no link yet: clocks differ, and links are
// written after entries.
const Lag = 5 * time.Minute

// others sorts the entries that no link is about.
func (o *exported) others(v *Verdict) {
	linked := map[string]bool{}
	var newest time.Time
	for _, l := range o.links {
		linked[l.EntryID] = true
		if at := madeAt(l.EntryID); at.After(newest) {
			newest = at
		}
	}
	oldest := madeAt(o.links[0].EntryID)
	for _, id := range slices.Sorted(maps.Keys(o.entries)) {
		switch at := madeAt(id); {
		case linked[id]:
		case v.First > 1 && at.Before(oldest) && !at.IsZero():
			v.Earlier++
		case at.After(newest.Add(-Lag)):
			v.Waiting = append(v.Waiting, o.called(id))
		case v.First > 1 && at.Before(oldest.Add(Lag)) && !at.IsZero():
			v.Earlier++
		default:
			v.Inserted = append(v.Inserted, o.called(id))
		}
	}
}

// compare looks for a kept head.
func (o *exported) compare(h Head, v *Verdict) Kept {
	k := Kept{Head: h}
	last := v.Head.Sequence
	switch i := slices.IndexFunc(o.links, func(l Link) bool { return l.Sequence == h.Sequence }); {
	case v.Links == 0:
		k.What = "there is no link of this organization: they were cut off, or left out of these files"
	case h.Sequence > last:
		k.What = fmt.Sprintf("the links after %d were cut off, or the head is newer than these files", last)
	case h.Sequence == v.First-1 && o.links[0].Previous == h.Hash:
		k.Same = true
	case h.Sequence < v.First-1:
		k.What = fmt.Sprintf("it cannot be compared: these files begin with link %d", v.First)
	case i >= 0 && o.links[i].Hash == h.Hash:
		k.Same = true
	case i < 0 && h.Sequence >= v.First:
		k.What = "there is no such link"
	default:
		k.What = "it has another hash now: the chain was written anew"
	}
	return k
}
