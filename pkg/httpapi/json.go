package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/pkg/apikey"
)

const maxDepth = 16 // objects and lists within one another, the body itself included

// The types that a body may have.
const (
	plainJSON  = "application/json"
	mergePatch = "application/merge-patch+json" // RFC 7396
)

// object reads the body, of one of the types, as the members of one JSON object (RFC 8259, in the strict reading of RFC
// 7493).
func (r *request) object(types ...string) {
	if r.err != nil {
		return
	}
	if !isJSON(r.Header, types) {
		r.refuse(apikey.UnsupportedMedia, "Send the body as Content-Type: "+strings.Join(types, " or ")+".")
		return
	}
	s := strict{jsontext.NewDecoder(bytes.NewReader(r.raw), jsontext.AllowDuplicateNames(true)), r}
	if err := s.document(); err != nil {
		r.refuse(apikey.InvalidJSON, fmt.Sprintf("The body must be one JSON object: see byte %d.", s.InputOffset()))
		return
	}
	if err := json.Unmarshal(r.raw, &r.members); err != nil {
		r.refuse(apikey.InvalidJSON, "The body must be one JSON object.")
	}
}

// isJSON says whether the body is declared as one of the types, in UTF-8, and nothing else.
func isJSON(h http.Header, types []string) bool {
	if len(h["Content-Type"]) != 1 || len(h["Content-Encoding"]) > 0 {
		return false
	}
	media, params, err := mime.ParseMediaType(h["Content-Type"][0])
	if charset, ok := params["charset"]; ok && strings.EqualFold(charset, "utf-8") {
		delete(params, "charset")
	}
	return err == nil && slices.Contains(types, media) && len(params) == 0
}

// strict walks a document token by token. It fails on whatever is not JSON in the strict reading: syntax, UTF-8, lone
// surrogates, depth, control characters in names. A member that stands twice is a fault of that field.
type strict struct {
	*jsontext.Decoder
	request *request
}

func (s strict) document() error {
	if s.PeekKind() != '{' {
		return errors.New("the top level is no object")
	}
	if err := s.value("", 1); err != nil {
		return err
	}
	if _, err := s.ReadToken(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}

// value walks the value at a pointer. depth is its own if it is an object or a list.
func (s strict) value(at string, depth int) error {
	token, err := s.ReadToken()
	if err != nil {
		return fmt.Errorf("reading a value: %w", err)
	}
	switch kind := token.Kind(); {
	case kind != '{' && kind != '[':
		return nil
	case depth > maxDepth:
		return fmt.Errorf("more than %d levels", maxDepth)
	case kind == '{':
		err = s.members(at, depth)
	default:
		err = s.items(at, depth)
	}
	if err != nil {
		return err
	}
	_, err = s.ReadToken() // } or ]
	return err
}

func (s strict) members(at string, depth int) error {
	seen := map[string]bool{}
	for s.PeekKind() != '}' {
		token, err := s.ReadToken()
		if err != nil {
			return fmt.Errorf("reading a name: %w", err)
		}
		name := token.String()
		if strings.ContainsFunc(name, unicode.IsControl) {
			return errors.New("a control character in a name")
		}
		member := below(at, name)
		if seen[name] {
			s.request.fault(member, "stands twice")
		}
		seen[name] = true
		if err := s.value(member, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (s strict) items(at string, depth int) error {
	for i := 0; s.PeekKind() != ']'; i++ {
		if err := s.value(below(at, strconv.Itoa(i)), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// below is the pointer of a member of what stands at a pointer. One that is too long to be answered grows no further.
func below(at, name string) string {
	if len(at) > maxPointer {
		return at
	}
	return at + pointer(name)
}
