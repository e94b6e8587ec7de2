package keytest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// least is how many bytes of a secret can be looked for. Less may stand in a text by chance, and nothing stands in every one.
const least = 12

// piece is a part of a secret that may stand nowhere.
type piece struct{ what, text string }

// Leaked says what of the keys stands in text: a secret, or a hash in one of its usual spellings. It is "" when nothing
// does.
func Leaked(text string, keys []string) string {
	for _, key := range keys {
		under := strings.LastIndexByte(key, '_')
		prefix, secret := key[:max(under, 0)], key[under+1:]
		hash := apikey.NewPlaintext(key).Hash().Bytes()
		what := first(text,
			piece{"the secret of " + prefix, secret},
			piece{"half the secret of " + prefix, secret[:len(secret)/2]},
			piece{"the hash of " + prefix, hex.EncodeToString(hash)},
			piece{"the base64 hash of " + prefix, base64.RawStdEncoding.EncodeToString(hash)},
			piece{"the URL hash of " + prefix, base64.RawURLEncoding.EncodeToString(hash)},
			piece{"the raw hash of " + prefix, string(hash)})
		if what != "" {
			return what
		}
	}
	return ""
}

// LeakedToken is Leaked for people's tokens: what is signed, and the signature.
func LeakedToken(text string, tokens []string) string {
	for _, token := range tokens {
		dot := strings.LastIndexByte(token, '.')
		if what := first(text, piece{"a token", token[:max(dot, 0)]}, piece{"the signature of a token", token[dot+1:]}); what != "" {
			return what
		}
	}
	return ""
}

// LeakedSecret is Leaked for secrets of any other form.
func LeakedSecret(text string, secrets []string) string {
	for _, secret := range secrets {
		if what := first(text, piece{"a secret", secret}); what != "" {
			return what
		}
	}
	return ""
}

// message is what a line of a log is about.
var message = regexp.MustCompile(`"msg":"[^"]*"`)

// first is the first of the pieces that stands in text, and the message of its line. A piece that is too short to be
// looked for is told of as such: whoever noted it noted no secret.
func first(text string, pieces ...piece) string {
	for _, p := range pieces {
		if len(p.text) < least {
			return fmt.Sprintf("what cannot be looked for: %s, of %d bytes", p.what, len(p.text))
		}
		if at := strings.Index(text, p.text); at >= 0 {
			line, _, _ := strings.Cut(text[strings.LastIndexByte(text[:at], '\n')+1:], "\n")
			return strings.TrimSpace(p.what + " " + message.FindString(strings.ReplaceAll(line, p.text, "…")))
		}
	}
	return ""
}
