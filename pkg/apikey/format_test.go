package apikey_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
)

func mustFormat(t testing.TB, brand string, retired ...string) apikey.Format {
	t.Helper()
	f, err := apikey.NewFormat(brand, retired...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// vector is one line of testdata/keys.json, the file that other languages' implementations read too. None of its keys
// was ever issued.
type vector struct {
	Key    string `json:"key"`
	Prefix string `json:"prefix"`
	ID     string `json:"id"`
	Number uint64 `json:"number"`
	UUID   string `json:"uuid"`
	SHA256 string `json:"sha256"`
}

func vectors(t testing.TB) (valid []vector, invalid []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Valid   []vector `json:"valid"`
		Invalid []string `json:"invalid"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Valid) == 0 || len(file.Invalid) == 0 {
		t.Fatal("testdata/keys.json is empty")
	}
	return file.Valid, file.Invalid
}

func TestTheFrozenVectorsHold(t *testing.T) {
	f := mustFormat(t, "lk", "acme_sk")
	valid, invalid := vectors(t)
	for _, v := range valid {
		token, err := f.Parse(v.Key)
		if err != nil {
			t.Fatalf("%s: %v", v.Prefix, err)
		}
		id := token.ID()
		if token.Prefix() != v.Prefix || id.String() != v.ID || id.Number() != v.Number || id.UUID() != v.UUID ||
			hex.EncodeToString(token.Hash().Bytes()) != v.SHA256 {
			t.Errorf("%s: got %s %s %d %s", v.Prefix, token.Prefix(), id, id.Number(), id.UUID())
		}
	}
	for _, s := range invalid {
		if _, err := f.Parse(s); !errors.Is(err, apikey.ErrMalformed) {
			t.Errorf("%q parses", s)
		}
	}
}

func TestAMintedKeyParsesAndItsPrefixIsItsBeginning(t *testing.T) {
	f := mustFormat(t, "my_brand2")
	for env, want := range map[string]string{"": "my_brand2_live_", "production": "my_brand2_live_", "test-7": "my_brand2_test_"} {
		minted := f.Mint(env)
		text := minted.Plaintext.Reveal()
		token, err := f.Parse(text)
		if err != nil || token.ID() != minted.ID || !token.Hash().Equal(minted.Plaintext.Hash()) {
			t.Fatalf("environment %q: %v", env, err)
		}
		if !strings.HasPrefix(text, minted.Prefix+"_") || !strings.HasPrefix(minted.Prefix, want) || token.Prefix() != minted.Prefix {
			t.Fatalf("environment %q: prefix %s", env, minted.Prefix)
		}
		if id, err := f.ParsePrefix(minted.Prefix); err != nil || id != minted.ID {
			t.Fatalf("the prefix names %v, %v", id, err)
		}
	}
}

func TestNoSingleCharacterChangeOfAKeyParses(t *testing.T) {
	f := mustFormat(t, "lk", "l2", "lkx", "l_k")
	for range 20 {
		key := f.Mint("").Plaintext.Reveal()
		for i := range len(key) {
			for c := range 256 {
				changed := key[:i] + string([]byte{byte(c)}) + key[i+1:]
				if _, err := f.Parse(changed); err == nil && changed != key {
					t.Fatalf("position %d changed to %q parses", i, rune(c))
				}
			}
			if _, err := f.Parse(key[:i] + key[i+1:]); err == nil {
				t.Fatalf("without position %d it parses", i)
			}
			if _, err := f.Parse(key[:i] + "0" + key[i:]); err == nil {
				t.Fatalf("with a digit more at %d it parses", i)
			}
		}
	}
}

func TestARetiredBrandStillParsesAndAForeignOneDoesNot(t *testing.T) {
	key := mustFormat(t, "old").Mint("").Plaintext.Reveal()
	if _, err := mustFormat(t, "new", "old").Parse(key); err != nil {
		t.Fatal(err)
	}
	if _, err := mustFormat(t, "new").Parse(key); err == nil {
		t.Fatal("a foreign brand parses")
	}
}

func TestBrands(t *testing.T) {
	for brand, ok := range map[string]bool{"lk": true, "ia_sk": true, "a1": true, "abcdefghijkl": true, "": false, "a": false,
		"abcdefghijklm": false, "Lk": false, "lk_": false, "_lk": false, "1k": false, "l-k": false, "lé": false} {
		if _, err := apikey.NewFormat(brand); (err == nil) != ok {
			t.Errorf("brand %q: %v", brand, err)
		}
	}
}

func TestAnIDHasOneSpellingInEachForm(t *testing.T) {
	for range 1000 {
		id := apikey.NewID()
		if id.Number() >= 1<<53 || id == 0 {
			t.Fatalf("%d is not an exact JSON number above 0", id)
		}
		a, err1 := apikey.ParseID(id.String())
		b, err2 := apikey.ParseUUID(id.UUID())
		if err := errors.Join(err1, err2); err != nil || a != id || b != id {
			t.Fatalf("%s: %v", id, err)
		}
	}
	for _, s := range []string{"", "key_", "key_0000000", "key_000000000", "key_00000000", "KEY_00000001", "key_0000000é", "00000001"} {
		if _, err := apikey.ParseID(s); err == nil {
			t.Errorf("%q is an id", s)
		}
	}
	for _, s := range []string{"", "0", "01", "+1", "-1", "1.0", "1e3", "218340105584896", "18446744073709551616"} {
		if _, err := apikey.ParseNumber(s); err == nil {
			t.Errorf("%q is a number", s)
		}
	}
	if id, err := apikey.ParseNumber("218340105584895"); err != nil || id.String() != "key_zzzzzzzz" {
		t.Errorf("the highest id: %s, %v", id, err)
	}
	good := apikey.ID(42).UUID()
	for _, s := range []string{"", strings.ToUpper(good), good + "0", good[1:], "{" + good + "}", strings.ReplaceAll(good, "-", ""),
		"00000000-0000-8000-8000-00000000002a", good[:24] + "000000000000", good[:24] + "ffffffffffff", good[:24] + "+0000000002a"} {
		if _, err := apikey.ParseUUID(s); err == nil {
			t.Errorf("%q is a UUID of ours", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	format := mustFormat(f, "lk", "acme_sk")
	valid, invalid := vectors(f)
	for _, v := range valid {
		f.Add(v.Key)
	}
	for _, s := range invalid {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := format.Parse(s)
		if err != nil {
			return
		}
		// What parses prints back identically from its parts.
		id, prefixErr := format.ParsePrefix(token.Prefix())
		if prefixErr != nil || id != token.ID() || !strings.HasPrefix(s, token.Prefix()+"_") || len(s) != len(token.Prefix())+37 {
			t.Fatalf("%q parses as %s", s, token.Prefix())
		}
		if !token.Hash().Equal(apikey.NewPlaintext(s).Hash()) {
			t.Fatal("the hash is not of the text")
		}
		for i := range len(s) {
			for _, c := range []byte{s[i] + 1, s[i] ^ 0x20, s[i] ^ 0x80, '0', '_'} {
				if changed := s[:i] + string([]byte{c}) + s[i+1:]; changed != s {
					if _, err := format.Parse(changed); err == nil {
						t.Fatalf("%q parses too", changed)
					}
				}
			}
		}
	})
}

// junk is what arrives at a public door: nothing, words, keys of others, a key cut short, mistyped, or with a wrong sum.
func junk(t testing.TB) map[string]string {
	key := mustFormat(t, "lk").Mint("").Plaintext.Reveal()
	return map[string]string{
		"empty": "", "word": "hunter2", "long": strings.Repeat("x", 8000), "jwt": "eyJhbGciOiJub25lIn0.e30.",
		"foreign brand": "sk" + key[2:], "cut short": key[:len(key)-1], "wrong checksum": key[:20] + string(key[20]^1) + key[21:],
	}
}

func TestJunkCostsNoAllocation(t *testing.T) {
	f := mustFormat(t, "lk")
	for name, s := range junk(t) {
		if n := testing.AllocsPerRun(100, func() { _, _ = f.Parse(s) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParseJunk(b *testing.B) {
	f := mustFormat(b, "lk")
	for name, s := range junk(b) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = f.Parse(s)
			}
		})
	}
}

func BenchmarkParseKey(b *testing.B) {
	f := mustFormat(b, "lk")
	key := f.Mint("").Plaintext.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = f.Parse(key)
	}
}
