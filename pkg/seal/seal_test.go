package seal_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/seal"
)

const (
	secret = `{"key":"lk_live_Ab3dEf6hIj9kLm2nOp5qRs8t"}`
	bound  = "org_1 key_36 POST /v1/api-keys"
)

// sealers are the two kinds, each with a key of its own.
func sealers(t *testing.T) map[string]*seal.Sealer {
	return map[string]*seal.Sealer{"local": seal.NewLocal([32]byte{1}), "KMS": newKMS(t).sealer(t, keyARN)}
}

func mustSeal(t *testing.T, s *seal.Sealer, plaintext string) []byte {
	t.Helper()
	sealed, err := s.Seal(t.Context(), []byte(plaintext), bound)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// refused reports what Open did with something that it must refuse. It never prints what was opened.
func refused(t *testing.T, s *seal.Sealer, sealed []byte, bound, what string) {
	t.Helper()
	if got, err := s.Open(t.Context(), sealed, bound); !errors.Is(err, seal.ErrSealed) || got != nil {
		t.Errorf("%s: %d bytes came out, error %v", what, len(got), err)
	}
}

func TestWhatWasSealedOpens(t *testing.T) {
	for kind, s := range sealers(t) {
		for _, plaintext := range []string{secret, "", "x", strings.Repeat("long ", 20_000)} {
			for _, bound := range []string{bound, "x", "Büro/東京\n", strings.Repeat("b", seal.MaxBound)} {
				sealed, err := s.Seal(t.Context(), []byte(plaintext), bound)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := s.Open(t.Context(), sealed, bound); err != nil || string(got) != plaintext {
					t.Errorf("%s: %d bytes became %d, error %v", kind, len(plaintext), len(got), err)
				}
			}
		}
	}
}

func TestTheSealedFormShowsNothingOfTheSecretAndIsNeverTheSameTwice(t *testing.T) {
	for kind, s := range sealers(t) {
		one, two := mustSeal(t, s, secret), mustSeal(t, s, secret)
		for i := 0; i+4 <= len(secret); i++ {
			if bytes.Contains(one, []byte(secret[i:i+4])) {
				t.Errorf("%s: four bytes of the secret stand in its sealed form", kind)
			}
		}
		if last := len(secret) + 16; len(one) != len(two) || bytes.Equal(one[len(one)-last:], two[len(two)-last:]) {
			t.Errorf("%s: one secret sealed twice is the same", kind)
		}
	}
}

func TestASealedFormThatWasChangedInAnyByteIsRefused(t *testing.T) {
	for kind, s := range sealers(t) {
		sealed := mustSeal(t, s, secret)
		for i := range sealed {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				changed := slices.Clone(sealed)
				changed[i] ^= flip
				refused(t, s, changed, bound, fmt.Sprintf("%s, byte %d of %d", kind, i, len(sealed)))
			}
		}
	}
}

func TestASealedFormThatWasCutOrLengthenedIsRefused(t *testing.T) {
	for kind, s := range sealers(t) {
		sealed := mustSeal(t, s, secret)
		for n := range sealed {
			refused(t, s, sealed[:n], bound, fmt.Sprintf("%s, the first %d bytes", kind, n))
			refused(t, s, sealed[n+1:], bound, fmt.Sprintf("%s, without the first %d bytes", kind, n+1))
		}
		refused(t, s, nil, bound, kind+", nothing")
		refused(t, s, append(slices.Clone(sealed), 0), bound, kind+", a byte more")
	}
}

func TestASecretOpensOnlyWhereItBelongs(t *testing.T) {
	for kind, s := range sealers(t) {
		sealed := mustSeal(t, s, secret)
		for i := range bound {
			changed := []byte(bound)
			changed[i] ^= 1
			refused(t, s, sealed, string(changed), fmt.Sprintf("%s, bound changed at %d", kind, i))
		}
		for _, other := range []string{"", bound[1:], bound[:len(bound)-1], bound + " ", "\x00" + bound, bound + "\xff", strings.Repeat("b", seal.MaxBound+1)} {
			refused(t, s, sealed, other, fmt.Sprintf("%s, bound to %.40q", kind, other))
		}
	}
}

func TestABoundThatCannotBeGivenAgainIsNotSealedWith(t *testing.T) {
	for kind, s := range sealers(t) {
		for _, bound := range []string{"", "\xff", strings.Repeat("b", seal.MaxBound+1)} {
			sealed, err := s.Seal(t.Context(), []byte(secret), bound)
			if err == nil || errors.Is(err, seal.ErrSealed) || sealed != nil {
				t.Errorf("%s sealed for %.40q: %v", kind, bound, err)
			}
		}
	}
}

func TestAnotherKeyOpensNothing(t *testing.T) {
	cloud := newKMS(t)
	local, remote := seal.NewLocal([32]byte{1}), cloud.sealer(t, keyARN)
	refused(t, seal.NewLocal([32]byte{2}), mustSeal(t, local, secret), bound, "another local key")
	refused(t, cloud.sealer(t, otherARN), mustSeal(t, remote, secret), bound, "another key of KMS")
	refused(t, newKMS(t).sealer(t, keyARN), mustSeal(t, remote, secret), bound, "another KMS")
	refused(t, remote, mustSeal(t, local, secret), bound, "sealed by a local key, opened by KMS")
	refused(t, local, mustSeal(t, remote, secret), bound, "sealed by KMS, opened by a local key")

	again := seal.NewLocal([32]byte{1})
	if got, err := again.Open(t.Context(), mustSeal(t, local, secret), bound); err != nil || string(got) != secret {
		t.Errorf("the same key after a restart: %v", err)
	}
}

func TestTheCallersKeyMayBeClearedAfterwards(t *testing.T) {
	key := [32]byte{7}
	s := seal.NewLocal(key)
	clear(key[:])
	if got, err := s.Open(t.Context(), mustSeal(t, seal.NewLocal([32]byte{7}), secret), bound); err != nil || string(got) != secret {
		t.Error(err)
	}
}

func TestASealerPrintsNoKey(t *testing.T) {
	key := [32]byte([]byte("KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKE"))
	s := seal.NewLocal(key)
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", *s)
	}
	if want := strings.Repeat("seal.Sealer\n", 14); out.String() != want {
		t.Errorf("it prints %d bytes, not %d", out.Len(), len(want))
	}
	out.Reset()
	held := struct{ s *seal.Sealer }{s}
	fmt.Fprintf(&out, "%+v %#v", held, held)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "sealer", s)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "sealer", s)
	if err := json.NewEncoder(&out).Encode(map[string]any{"sealer": s}); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"KEY", fmt.Sprint([]byte("KEY"))[1:9], fmt.Sprintf("%x", "KEY"), `0x4b, 0x45, 0x59`} {
		if strings.Contains(out.String(), form) {
			t.Error("somewhere it prints its key")
		}
	}
}

// frozen is the secret, sealed once by frozenKey for bound. It must open for as long as the layout is the second kind's.
const frozen = "02003c36238cb0ebca2a1bcd3163f8fb3dfc154a2fd7da9eaca7d339477a4d77f3a1364fcb8e575b835eb1a520b1ddd38375" +
	"d45e254c44b16f27b0e09d6e17501f7f0487f3005fd440cd9c10576be029d5194a1eaedbe920864c85f426e7be1ad6f2fe56" +
	"2a4fb73bed727dd85739f54ebced3e7656c6ed3a0595c8922b897322647bfc97d0"

func frozenKey() *seal.Sealer { return seal.NewLocal([32]byte{1}) }

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatAnEarlierReleaseSealedOpens(t *testing.T) {
	if got, err := frozenKey().Open(t.Context(), mustHex(t, frozen), bound); err != nil || string(got) != secret {
		t.Error(err)
	}
}

// Of all that anyone may make of a sealed form, only the form itself opens, and nothing makes Open panic.
func FuzzOpen(f *testing.F) {
	s, sealed := frozenKey(), mustHex(f, frozen)
	f.Add(sealed, bound)
	f.Add(sealed[:len(sealed)-1], bound)
	f.Add(sealed[:3], "")
	f.Add([]byte{2, 0xff, 0xff}, bound)
	f.Fuzz(func(t *testing.T, given []byte, where string) {
		got, err := s.Open(t.Context(), given, where)
		switch same := bytes.Equal(given, sealed) && where == bound; {
		case same && (err != nil || string(got) != secret):
			t.Errorf("what was sealed does not open: %v", err)
		case !same && (!errors.Is(err, seal.ErrSealed) || got != nil):
			t.Errorf("something that was never sealed opens: error %v", err)
		}
	})
}
