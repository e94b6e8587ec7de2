package oidc

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"
)

// What is wrong with a token, in our words.
var (
	errForm      = errors.New("the token is no compact JWS of three base64url parts, or too long")
	errHeader    = errors.New("the token's header is not what it must be")
	errClaims    = errors.New("the token's claims are no JSON object, or a member stands twice")
	errAlgorithm = errors.New("the token's algorithm is none of those allowed")
	errSignature = errors.New("the signature is not by the key that the token names")
	errUnknown   = errors.New("the issuer has no such key for this algorithm")
)

// token is a token in its parts, of which nothing is proved.
type token struct {
	text      string
	algorithm jose.SignatureAlgorithm
	kid       string // of the key that signed it; "": the token does not say
	payload   []byte
	claims    object
}

// parse takes a token apart: JWS Compact Serialization (RFC 7515, section 7.1), in the one spelling that its content has.
func parse(text string) (*token, error) {
	parts := strings.Split(text, ".")
	if len(text) > maxToken || len(parts) != 3 {
		return nil, errForm
	}
	header, err := decode(parts[0])
	if err != nil {
		return nil, err
	}
	payload, err := decode(parts[1])
	if err != nil {
		return nil, err
	}
	if _, err := decode(parts[2]); err != nil {
		return nil, err
	}
	t := &token{text: text, payload: payload}
	if err := t.readHeader(header); err != nil {
		return nil, err
	}
	if t.claims, err = readObject(payload); err != nil {
		return nil, errClaims
	}
	return t, nil
}

// decode reads base64url without padding. Go's decoder skips line breaks, and without Strict it ignores spare bits, so
// that one token would have many spellings.
func decode(part string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
		return nil, errForm
	}
	return b, nil
}

// readHeader takes from the header the algorithm and the key's id. Extensions that must be understood (crit, b64) are
// refused, other kinds of token too (RFC 8725, section 3.11); what would say where keys are (jku, x5u, jwk, x5c) is ignored.
func (t *token) readHeader(b []byte) error {
	header, err := readObject(b)
	if err != nil {
		return errHeader
	}
	var algorithm, kind string
	for _, m := range []struct {
		name  string
		value *string
		must  bool
	}{{"alg", &algorithm, true}, {"kid", &t.kid, false}, {"typ", &kind, false}} {
		raw, there := header[m.name]
		if value, ok := asText(raw); there && ok {
			*m.value = value
		} else if there || m.must {
			return errHeader
		}
	}
	kind = strings.TrimPrefix(strings.ToLower(kind), "application/")
	if !slices.Contains([]string{"", "jwt", "at+jwt"}, kind) {
		return errHeader
	}
	t.algorithm = jose.SignatureAlgorithm(algorithm)
	_, crit := header["crit"]
	_, b64 := header["b64"]
	if crit || b64 {
		return errHeader
	}
	return nil
}

// signedBy says whether k signed the token.
func (t *token) signedBy(k key) bool {
	signed, err := jose.ParseSignedCompact(t.text, k.algorithms)
	if err != nil {
		return false
	}
	payload, err := signed.Verify(k.public)
	return err == nil && bytes.Equal(payload, t.payload)
}

// object is the members of a JSON object.
type object map[string]jsontext.Value

// readObject reads a JSON object in the strict reading of RFC 7493: what other readers could read differently, such as a
// member that stands twice at any depth, is an error.
func readObject(b []byte) (object, error) {
	o := object{}
	err := parts(b, '{', func(d *jsontext.Decoder) error {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		key := name.String()
		value, err := d.ReadValue()
		o[key] = value.Clone()
		return err
	})
	return o, err
}

// readList reads a JSON list just as strictly.
func readList(b []byte) (items []jsontext.Value, err error) {
	err = parts(b, '[', func(d *jsontext.Decoder) error {
		value, err := d.ReadValue()
		items = append(items, value.Clone())
		return err
	})
	return items, err
}

// parts has read take each part of an object or a list, which is all that b holds. (That is all that is needed here of
// JSON: the reading of values by their Go types would be a quarter of a megabyte of every Lambda.)
func parts(b []byte, kind jsontext.Kind, read func(*jsontext.Decoder) error) error {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	if d.PeekKind() != kind {
		return errors.New("another kind of value")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != kind+2 { // } comes two after {, and ] two after [
		if err := read(d); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errors.New("something follows the value")
	}
	return nil
}

// text is the string of that name, "" when there is none.
func (o object) text(name string) string {
	s, _ := asText(o[name])
	return s
}

// asText reads a string that is not empty.
func asText(v jsontext.Value) (s string, ok bool) {
	if v.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil && len(b) > 0
}

// asTexts reads a list of strings, none of them empty.
func asTexts(v jsontext.Value) ([]string, bool) {
	items, err := readList(v)
	if err != nil {
		return nil, false
	}
	texts := make([]string, len(items))
	for i, item := range items {
		var ok bool
		if texts[i], ok = asText(item); !ok {
			return nil, false
		}
	}
	return texts, true
}

// find returns the claim of a name, or of a JSON Pointer (RFC 6901); nil if it is missing. Where the way to it leads
// through something other than objects and lists, that is an error.
func (o object) find(name string) (jsontext.Value, error) {
	if !strings.HasPrefix(name, "/") {
		return o[name], nil
	}
	var at jsontext.Value
	for n, step := range strings.Split(name[1:], "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if n > 0 {
			var err error
			if o, err = children(at); err != nil {
				return nil, err
			}
		}
		if at = o[step]; at == nil {
			return nil, nil
		}
	}
	return at, nil
}

// children are the members of an object, or the items of a list by their index.
func children(v jsontext.Value) (object, error) {
	if v.Kind() == '{' {
		return readObject(v)
	}
	items, err := readList(v)
	if err != nil {
		return nil, errors.New("neither an object nor a list")
	}
	o := object{}
	for i, item := range items {
		o[strconv.Itoa(i)] = item
	}
	return o, nil
}

// validPointer says whether a JSON Pointer that begins with "/" is well-formed.
func validPointer(pointer string) bool {
	rest := strings.NewReplacer("~0", "", "~1", "").Replace(pointer)
	return !strings.Contains(rest, "~")
}
