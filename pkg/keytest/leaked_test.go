package keytest_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/keytest"
)

const (
	leakedKey   = "lk_live_00000001_activeactiveactiveactiveactive1Y4Wlb"
	leakedToken = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
)

func TestWhatWasPrintedOfASecretIsTold(t *testing.T) {
	line := func(text string) string {
		return `{"msg":"before"}` + "\n" + `{"msg":"request","error":"` + text + `"}` + "\n{}"
	}
	for name, test := range map[string]struct{ told, want string }{
		"a key":             {keytest.Leaked(line(leakedKey), []string{leakedKey}), `the secret of lk_live_00000001 "msg":"request"`},
		"half a key":        {keytest.Leaked(line(leakedKey[:35]), []string{leakedKey}), `half the secret of lk_live_00000001 "msg":"request"`},
		"a hash":            {keytest.Leaked(hex.EncodeToString(apikey.NewPlaintext(leakedKey).Hash().Bytes()), []string{leakedKey}), "the hash of lk_live_00000001"},
		"a prefix":          {keytest.Leaked(line("lk_live_00000001"), []string{leakedKey}), ""},
		"a token":           {keytest.LeakedToken(line(leakedToken), []string{leakedToken}), `a token "msg":"request"`},
		"a signature":       {keytest.LeakedToken(leakedToken[strings.LastIndexByte(leakedToken, '.'):], []string{leakedToken}), "the signature of a token"},
		"a token's head":    {keytest.LeakedToken(line("eyJhbGciOiJFUzI1NiJ9."), []string{leakedToken}), ""},
		"another's secret":  {keytest.LeakedSecret(line("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), []string{"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}), ""},
		"a webhooks secret": {keytest.LeakedSecret(line("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), []string{"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}), `a secret "msg":"request"`},
	} {
		if test.told != test.want {
			t.Errorf("%s: %q, want %q", name, test.told, test.want)
		}
	}
}

// What is empty stands in every text, one that nobody wrote too: it must not look as if everybody had printed a secret.
func TestWhatIsNoSecretIsNotLookedForButToldOf(t *testing.T) {
	for name, told := range map[string]string{
		"no token":          keytest.LeakedToken("", []string{""}),
		"an unsigned token": keytest.LeakedToken("", []string{"eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."}),
		"an opaque token":   keytest.LeakedToken("", []string{"c2lnbmF0dXJlLW9mLWEtdG9rZW4"}),
		"no key":            keytest.Leaked("", []string{""}),
		"a prefix":          keytest.Leaked("", []string{"lk_live_00000001"}),
		"no secret":         keytest.LeakedSecret("", []string{""}),
	} {
		if !strings.HasPrefix(told, "what cannot be looked for") {
			t.Errorf("%s: %q", name, told)
		}
	}
}
