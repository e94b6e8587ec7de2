package httpapi

import (
	"strconv"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const maxOnce = 255 // characters of an Idempotency-Key

// once is what the header Idempotency-Key asks for. The body was read before.
func (r *request) once() lifecycle.Once {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return lifecycle.Once{}
	}
	token, ok := onceToken(values[0])
	if len(values) > 1 || !ok {
		r.refuse(apikey.InvalidHeader, `The header Idempotency-Key must stand once, with 1 to 255 visible ASCII characters: best in quotes, as in "8e03978e-40d5-43e8-bc93-6894a57f9324".`)
	}
	return lifecycle.Once{Token: token, Method: r.Method, Path: r.URL.Path, Body: r.raw}
}

// onceToken reads an Idempotency-Key: a String of Structured Fields (draft-ietf-httpapi-idempotency-key-header-07, RFC
// 9651), or, as many clients send it, its characters bare. A bare one has no comma or quote, which two joined headers have.
func onceToken(value string) (token string, ok bool) {
	if inner, quoted := strings.CutPrefix(value, `"`); quoted {
		token, ok = unquote(inner)
	} else {
		token, ok = value, !strings.ContainsAny(value, `",`)
	}
	visible := func(c rune) bool { return c > ' ' && c <= '~' }
	return token, ok && token != "" && len(token) <= maxOnce && strings.TrimFunc(token, visible) == ""
}

// unquote reads a Structured Field's String behind its first quote (RFC 9651, section 4.2.5), to the end of the field.
func unquote(s string) (text string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), i == len(s)-1
		case s[i] == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", false
}

// ifMatch is the version that the header If-Match demands (RFC 9110, section 13.1.1); 0 where it demands none.
func (r *request) ifMatch() int64 {
	values := r.Header.Values("If-Match")
	if len(values) == 0 || len(values) == 1 && values[0] == "*" {
		return 0
	}
	version, err := strconv.ParseInt(strings.Trim(values[0], `"`), 10, 64)
	if len(values) > 1 || err != nil || version < 1 || etag(version) != values[0] {
		r.refuse(apikey.InvalidHeader, `The header If-Match must be the ETag of an earlier answer, such as "7", or *.`)
	}
	return version
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }
