package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// frozen is the entry of testdata/chain.jsonl.
var frozen = audit.Entry{ID: "01M81J18KV0123456789ABCDEF", OrganizationID: "acme", At: noon.Add(123 * time.Millisecond), Action: audit.Updated,
	ActorKind: "user", ActorID: "ann@example.com", Address: "2001:db8::7", RequestID: "req_1", KeyID: new(apikey.ID(7)),
	Changes: []audit.Change{
		{Field: "metadata", From: json.RawMessage(`{"b": 9007199254740993, "a": 1e3, "€": "\u20ac", "\ud83d\ude00": "<&>\u2028", "\ufb33": -0}`), To: json.RawMessage(`{}`)},
		{Field: "name", To: json.RawMessage(`"Schlüssel \"1\"\n"`)},
	}}

// What was linked once must be proven for ever: this entry prints, and this link is made, as they were in version 1.
// A member that is added to entries one day must be absent where it says nothing, as in all entries that were made before.
func TestTheFirstLinkEverIsStillMadeTheSame(t *testing.T) {
	text, err := os.ReadFile("testdata/chain.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	link, err := audit.Next(audit.Link{}, frozen)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(asJSON(t, frozen), asJSON(t, link)); string(got) != string(text) {
		t.Errorf("got\n%swant\n%s", got, text)
	}
	if v := verdict(t, text); !v.Proven() {
		t.Errorf("got %s", v.String())
	}
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func lines(all ...[]byte) []byte { return append(bytes.Join(all, []byte("\n")), '\n') }

// story is an organization's entries, a minute apart, and their links.
type story struct {
	entries, links [][]byte
	heads          []audit.Head
}

func tell(t testing.TB, organization string, n int) *story {
	t.Helper()
	return tellOf(t, organization, n, frozen)
}

func tellOf(t testing.TB, organization string, n int, e audit.Entry) *story {
	t.Helper()
	s := &story{}
	var head audit.Link
	for i := range n {
		e.At = noon.Add(time.Duration(i) * time.Minute)
		e.ID, e.OrganizationID, e.RequestID = audit.FirstID(e.At), organization, fmt.Sprint("req_", i+1)
		var err error
		if head, err = audit.Next(head, e); err != nil {
			t.Fatal(err)
		}
		s.entries, s.links = append(s.entries, asJSON(t, e)), append(s.links, asJSON(t, head))
		s.heads = append(s.heads, audit.Head{OrganizationID: organization, Sequence: head.Sequence, Hash: head.Hash})
	}
	return s
}

func (s *story) export() []byte { return lines(append(slices.Clone(s.entries), s.links...)...) }

// edit replaces one part of one line.
func edit(t testing.TB, of [][]byte, i int, old, new string) {
	t.Helper()
	changed := bytes.Replace(of[i], []byte(old), []byte(new), 1)
	if bytes.Equal(changed, of[i]) {
		t.Fatalf("%s does not hold %s", of[i], old)
	}
	of[i] = changed
}

// check is what an export proves.
func check(t testing.TB, export []byte, heads ...audit.Head) []audit.Verdict {
	t.Helper()
	var x audit.Export
	if err := x.Read(bytes.NewReader(export)); err != nil {
		t.Fatal(err)
	}
	verdicts, err := x.Check(heads...)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts { // only what is proven has a head to keep
		if strings.Contains(v.String(), "\n  Head: ") != v.Proven() {
			t.Errorf("proven: %v; got %s", v.Proven(), v.String())
		}
	}
	return verdicts
}

// verdict is check of one organization.
func verdict(t testing.TB, export []byte, heads ...audit.Head) *audit.Verdict {
	t.Helper()
	all := check(t, export, heads...)
	if len(all) != 1 {
		t.Fatalf("there are %d organizations", len(all))
	}
	return &all[0]
}

// Each row does to the trail of an organization what nobody may do, and names the first link that is broken, and the words
// that say so. 0 is for what breaks no link.
func TestTamperingIsNamedWithTheFirstBrokenLink(t *testing.T) {
	const last = 9 // of 10
	for name, c := range map[string]struct {
		tamper func(*testing.T, *story)
		broken int64
		says   string
	}{
		"an entry edited":                     {func(t *testing.T, s *story) { edit(t, s.entries, 3, `"ann@example.com"`, `"bob@example.com"`) }, 4, "is not what was linked"},
		"a digit that a double does not hold": {func(t *testing.T, s *story) { edit(t, s.entries, 3, `9007199254740993`, `9007199254740992`) }, 4, "is not what was linked"},
		"the newest entry edited":             {func(t *testing.T, s *story) { edit(t, s.entries, last, `updated`, `revoked`) }, 10, "api_key.revoked) is not what was linked"},
		"a member added to an entry":          {func(t *testing.T, s *story) { edit(t, s.entries, 0, `{"id"`, `{"more":1,"id"`) }, 1, "is not what was linked"},
		"an entry deleted":                    {func(_ *testing.T, s *story) { s.entries = slices.Delete(s.entries, 4, 5) }, 5, "is missing: it was deleted"},
		"an entry and its link deleted": {func(_ *testing.T, s *story) {
			s.entries, s.links = slices.Delete(s.entries, 4, 5), slices.Delete(s.links, 4, 5)
		}, 5, "Link 5 is missing."},
		"three links deleted": {func(_ *testing.T, s *story) { s.links = slices.Delete(s.links, 2, 5) }, 3, "Links 3 to 5 are missing."},
		"the first entry and its link deleted, the others numbered anew": {func(t *testing.T, s *story) {
			s.entries, s.links = s.entries[1:], s.links[1:]
			for i := range s.links {
				edit(t, s.links, i, fmt.Sprintf(`"sequence":%d,`, i+2), fmt.Sprintf(`"sequence":%d,`, i+1))
			}
		}, 1, "does not begin at the root"},
		"an entry inserted": {func(t *testing.T, s *story) {
			s.entries = append(s.entries, bytes.Clone(s.entries[2]))
			edit(t, s.entries, 10, audit.FirstID(noon.Add(2*time.Minute)), audit.NewID(noon.Add(2*time.Minute)))
		}, 0, "1 entry has no link"},
		"an entry inserted with a link between": {func(t *testing.T, s *story) {
			other := tell(t, "acme", 12)
			edit(t, other.links, 10, `"sequence":11,`, `"sequence":5,`)
			s.entries, s.links = append(s.entries, other.entries[10]), append(s.links, other.links[10])
		}, 5, "two different links with the number 5"},
		"an entry there twice": {func(t *testing.T, s *story) {
			s.entries = append(s.entries, bytes.Clone(s.entries[6]))
			edit(t, s.entries, 10, "req_7", "req_9")
		}, 7, "in 2 versions that differ"},
		"the contents of two entries swapped": {func(t *testing.T, s *story) {
			edit(t, s.entries, 2, "req_3", "req_8")
			edit(t, s.entries, 7, "req_8", "req_3")
		}, 3, "is not what was linked"},
		"the order of two links swapped": {func(t *testing.T, s *story) {
			edit(t, s.links, 4, `"sequence":5,`, `"sequence":6,`)
			edit(t, s.links, 5, `"sequence":6,`, `"sequence":5,`)
		}, 5, "Link 5 does not continue link 4"},
		"what two links are about swapped": {func(t *testing.T, s *story) {
			edit(t, s.links, 4, audit.FirstID(noon.Add(4*time.Minute)), audit.FirstID(noon.Add(5*time.Minute)))
			edit(t, s.links, 5, audit.FirstID(noon.Add(5*time.Minute)), audit.FirstID(noon.Add(4*time.Minute)))
		}, 5, "is not what was linked"},
		"the hash of a link edited": {func(t *testing.T, s *story) { edit(t, s.links, 4, `"`+s.heads[4].Hash, `"`+s.heads[3].Hash) }, 5, "The entry or the link was changed"},
		"the hash before it edited": {func(t *testing.T, s *story) { edit(t, s.links, 4, `"`+s.heads[3].Hash, `"`+s.heads[2].Hash) }, 5, "does not continue link 4"},
		"one entry linked twice": {func(t *testing.T, s *story) {
			other := tell(t, "acme", 10)
			s.entries = s.entries[:9]
			edit(t, other.links, last, audit.FirstID(noon.Add(last*time.Minute)), audit.FirstID(noon))
			s.links[last] = other.links[last]
		}, 10, "is linked twice, by link 1 and link 10"},
		"an entry and its link edited": {func(t *testing.T, s *story) {
			edit(t, s.entries, 4, "req_5", "req_x")
			edit(t, s.links, 4, `"`+s.heads[4].Hash, `"`+rehash(t, s.entries[:5]))
		}, 6, "Link 6 does not continue link 5"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tell(t, "acme", 10)
			c.tamper(t, s)
			export := s.export()
			all := check(t, export)
			v := all[0]
			if v.Proven() && len(all) == 1 || v.Broken != c.broken || !strings.Contains(v.String(), c.says) {
				t.Errorf("want link %d and %q; got %s", c.broken, c.says, v.String())
			}
			if v.Broken > 0 && v.Held != v.Broken-1 {
				t.Errorf("it says that the links to %d hold", v.Held)
			}
		})
	}
}

// rehash is the hash of the last of some entries, when all are linked anew.
func rehash(t testing.TB, entries [][]byte) string {
	t.Helper()
	var head audit.Link
	for _, raw := range entries {
		var e struct {
			ID           string         `json:"id"`
			Organization string         `json:"organization_id"`
			At           time.Time      `json:"at"`
			Action       audit.Action   `json:"action"`
			Request      string         `json:"request_id"`
			Changes      []audit.Change `json:"changes"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		full := frozen
		full.ID, full.OrganizationID, full.At, full.Action, full.RequestID, full.Changes = e.ID, e.Organization, e.At, e.Action, e.Request, e.Changes
		var err error
		if head, err = audit.Next(head, full); err != nil {
			t.Fatal(err)
		}
	}
	return head.Hash
}

// What leaves a chain that holds in itself is seen by whoever kept a head, and by nobody else: without one the report says so.
func TestACutTailAndAChainWrittenAnewAreSeenByAKeptHeadAlone(t *testing.T) {
	s := tell(t, "acme", 10)
	kept := s.heads[7]
	cut := lines(append(slices.Clone(s.entries[:6]), s.links[:6]...)...)
	anew := tell(t, "acme", 10)
	edit(t, anew.entries, 2, "req_3", "req_x")
	anew = again(t, anew)
	for name, c := range map[string]struct {
		export []byte
		says   string
	}{
		"the tail cut off":             {cut, "the links after 6 were cut off"},
		"everything written anew":      {anew.export(), "the chain was written anew"},
		"everything taken away":        {nil, "there is no link of this organization"},
		"the links alone cut off":      {lines(append(slices.Clone(s.entries), s.links[:6]...)...), "the links after 6 were cut off"},
		"a chain that begins later":    {lines(append(slices.Clone(s.entries[9:]), s.links[9:]...)...), "these files begin with link 10"},
		"a link gone where it was":     {lines(append(slices.Clone(s.entries), slices.Delete(slices.Clone(s.links), 7, 8)...)...), "there is no such link"},
		"another one just before them": {lines(append(slices.Clone(s.entries[8:]), again(t, anew).links[8:]...)...), "the chain was written anew"},
	} {
		t.Run(name, func(t *testing.T) {
			v := verdict(t, c.export, kept)
			if v.Proven() || !strings.Contains(v.String(), "NOT THE SAME, ") || !strings.Contains(v.String(), c.says) {
				t.Errorf("got %s", v.String())
			}
		})
	}
	for name, export := range map[string][]byte{"cut": cut, "anew": anew.export()} {
		v := verdict(t, export)
		if !v.Proven() || !strings.Contains(v.String(), "NOT PROVEN: that no newer links and entries were cut off, and that not the whole chain was written anew") {
			t.Errorf("%s: %s", name, v.String())
		}
	}
	if v := verdict(t, s.export(), kept); !v.Proven() || !strings.Contains(v.String(), "the same. Up to there") || !strings.Contains(v.String(), "NOT PROVEN: that after link 8") {
		t.Errorf("got %s", v.String())
	}
	if v := verdict(t, s.export(), s.heads[2], s.heads[9]); !v.Proven() || !strings.Contains(v.String(), "that after link 10 nothing was cut off. A newer head") {
		t.Errorf("got %s", v.String())
	}
	// The link just before the first of a page is named in it.
	if v := verdict(t, lines(append(slices.Clone(s.entries[8:]), s.links[8:]...)...), kept); !v.Proven() {
		t.Errorf("got %s", v.String())
	}
}

// again links entries as they are, from the first on.
func again(t testing.TB, s *story) *story {
	t.Helper()
	anew := &story{entries: s.entries}
	for i := range s.entries {
		l := audit.Link{OrganizationID: "acme", Sequence: int64(i + 1), EntryID: audit.FirstID(noon.Add(time.Duration(i) * time.Minute)), Previous: audit.Root,
			Hash: rehash(t, s.entries[:i+1])}
		if i > 0 {
			l.Previous = anew.heads[i-1].Hash
		}
		anew.links = append(anew.links, asJSON(t, l))
		anew.heads = append(anew.heads, audit.Head{OrganizationID: "acme", Sequence: l.Sequence, Hash: l.Hash})
	}
	return anew
}

func TestAnExportIsProvenInWhateverOrderAndShapeItComes(t *testing.T) {
	s := tell(t, "acme", 10)
	all := append(slices.Clone(s.entries), s.links...)
	array := func(some ...[]byte) []byte {
		return slices.Concat([]byte("["), bytes.Join(some, []byte(",")), []byte("]"))
	}
	shuffled := slices.Clone(all)
	rand.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
	indented := new(bytes.Buffer)
	if err := json.Indent(indented, array(all...), "", "  "); err != nil {
		t.Fatal(err)
	}
	var sorted []any // every object with its members in another order, and its strings escaped otherwise
	d := json.NewDecoder(bytes.NewReader(array(all...)))
	d.UseNumber()
	if err := d.Decode(&sorted); err != nil {
		t.Fatal(err)
	}
	for name, export := range map[string][]byte{
		"lines":           lines(all...),
		"any order":       lines(shuffled...),
		"twice":           slices.Concat(lines(all...), lines(shuffled...)),
		"pages":           slices.Concat(array(s.entries[5:]...), array(s.entries[:5]...), []byte("\n"), array(s.links...)),
		"pages of pages":  array(array(s.entries...), array(), array(s.links...)),
		"nothing between": bytes.Join(all, nil),
		"indented":        indented.Bytes(),
		"sorted":          asJSON(t, sorted),
	} {
		t.Run(name, func(t *testing.T) {
			if v := verdict(t, export, s.heads[9]); !v.Proven() || v.Links != 10 || v.Entries != 10 || v.Held != 10 {
				t.Errorf("got %s", v.String())
			}
		})
	}
}

func TestSeveralOrganizationsAreProvenEachForItself(t *testing.T) {
	a, b := tell(t, "acme", 3), tell(t, "b:2", 4)
	export := slices.Concat(a.export(), b.export())
	all := check(t, export, a.heads[2], b.heads[1])
	if len(all) != 2 || all[0].OrganizationID != "acme" || !all[0].Proven() || !all[1].Proven() || all[1].Held != 4 {
		t.Errorf("got %v", all)
	}
	edit(t, b.entries, 1, "req_2", "req_x")
	all = check(t, slices.Concat(a.export(), b.export()))
	if !all[0].Proven() || all[1].Broken != 2 {
		t.Errorf("got %v", all)
	}
	// A link of one organization proves nothing of an entry of another.
	edit(t, a.entries, 1, `"organization_id":"acme"`, `"organization_id":"b:2"`)
	if all = check(t, a.export()); all[0].Broken != 2 {
		t.Errorf("got %v", all)
	}
	var x audit.Export
	if err := x.Read(bytes.NewReader(export)); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Check(audit.Head{Sequence: 1, Hash: audit.Root}); err == nil || !strings.Contains(err.Error(), "ORGANIZATION:SEQUENCE:HASH") {
		t.Errorf("a head of nobody: %v", err)
	}
}

func TestAPageSaysFromWhereOnItProves(t *testing.T) {
	s := tell(t, "acme", 20)
	v := verdict(t, lines(append(slices.Clone(s.entries), s.links[10:]...)...))
	if !v.Proven() || v.First != 11 || v.Earlier != 10 || !strings.Contains(v.String(), "begin with link 11") || !strings.Contains(v.String(), "10 entries are from before link 11") {
		t.Errorf("got %s", v.String())
	}
}

func TestAnEntryTooNewForALinkIsToldAndNotCalledBroken(t *testing.T) {
	s := tell(t, "acme", 10)
	v := verdict(t, lines(append(slices.Clone(s.entries), s.links[:7]...)...))
	if !v.Proven() || len(v.Waiting) != 3 || v.Held != 7 || !strings.Contains(v.String(), "3 entries have no link yet") {
		t.Errorf("got %s", v.String())
	}
	old := slices.Clone(s.entries)
	edit(t, old, 1, audit.FirstID(noon.Add(time.Minute)), audit.NewID(noon.Add(10*time.Minute-audit.Lag-2*time.Minute)))
	old = append(old, s.entries[1])
	if v := verdict(t, lines(append(old, s.links...)...)); v.Proven() || len(v.Inserted) != 1 {
		t.Errorf("older than the lag: %s", v.String())
	}
	if v := verdict(t, lines(s.entries...)); v.Proven() || !strings.Contains(v.String(), "NOTHING IS PROVEN") || !strings.Contains(v.String(), "Give their links too") {
		t.Errorf("without a link: %s", v.String())
	}
}

func TestWhatIsNoExportIsRefusedWithItsPlace(t *testing.T) {
	s := tell(t, "acme", 1)
	e, l := string(s.entries[0]), string(s.links[0])
	for name, c := range map[string]struct{ text, says string }{
		"an error's answer":   {`{"type":"about:blank","status":401}`, "neither an audit entry nor a link"},
		"a number":            {"7", "neither"},
		"null":                {e + "null", "neither"},
		"no JSON":             {e + "<html>", "not an export or a page of the API"},
		"cut in an entry":     {e[:40], "unexpected EOF"},
		"cut in an array":     {"[" + e, "unexpected EOF"},
		"a member twice":      {strings.Replace(e, `{"id"`, `{"id":"x","id"`, 1), "duplicate"},
		"an entry of nobody":  {strings.Replace(e, `"acme"`, `""`, 1), "neither"},
		"a link of later":     {strings.Replace(l, `{`, `{"version":2,`, 1), "later version"},
		"a link without hash": {strings.Replace(l, `"hash"`, `"Hash"`, 1), "no proper hash"},
		"link 0":              {strings.Replace(l, `:1,`, `:0,`, 1), "no proper sequence"},
		"link 1.0":            {strings.Replace(l, `:1,`, `:1.0,`, 1), "no proper sequence"},
		"an upper-case hash":  {strings.Replace(l, `"hash":"`, `"hash":"A`, 1), "no proper hash"},
		"a terminal's escape": {`{"a":"\u001b[2J` + "\u009b2J" + `"}`, `\u009b`},
	} {
		var x audit.Export
		err := x.Read(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAReportSaysNothingToATerminalThatAnExportWrote(t *testing.T) {
	s := tell(t, "acme", 2)
	var x audit.Export
	entry := strings.Replace(string(s.entries[0]), `"id":"`, `"id":"\u001b[2J\u009b1Aacme: proven`, 1)
	link := strings.Replace(string(s.links[1]), `"entry_id":"`, `"entry_id":"\u001b[2J`, 1)
	if err := x.Read(strings.NewReader(entry + string(s.entries[0]) + string(s.links[0]) + link)); err != nil {
		t.Fatal(err)
	}
	verdicts, err := x.Check()
	if err != nil || len(verdicts) != 1 || verdicts[0].Broken != 2 || len(verdicts[0].Inserted) != 1 {
		t.Fatalf("%+v, %v", verdicts, err)
	}
	if report := verdicts[0].String(); strings.ContainsAny(report, "\u001b\u009b") {
		t.Errorf("the report is %q", report)
	}
}

func TestAHeadIsReadAsItIsPrinted(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for _, h := range []audit.Head{{"", 1, hash}, {"acme", 12, hash}, {"a:b|c", 1 << 62, hash}} {
		if got, err := audit.ParseHead(h.String()); err != nil || got != h {
			t.Errorf("%s: %v, %v", h, got, err)
		}
	}
	for _, text := range []string{"", "1", hash, "1:", "0:" + hash, "-1:" + hash, "x:" + hash, "1:" + hash[1:], "1:" + strings.ToUpper(hash), "acme:" + hash} {
		if _, err := audit.ParseHead(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}
