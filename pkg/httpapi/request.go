package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
)

const (
	maxBody    = 64 << 10 // bytes
	maxFaults  = 100      // answered at once
	maxPointer = 256      // bytes
)

// request is one request being read. Its methods take what a route knows from the path, the query and the body, and
// note what is wrong: err ends the reading, faults are answered together. Whatever nobody took is a fault too.
type request struct {
	*http.Request
	format  apikey.Format
	now     time.Time
	confirm func(prefix string) error // refuses a prefix that is not the key's own: another brand's or environment's
	params  map[string]string
	asked   url.Values // the params, as they all were
	raw     []byte     // the body, once it was read
	members map[string]json.RawMessage
	faults  []apikey.FieldError
	err     error
}

// readRequest is what read makes of r, or the error that tells all that is wrong with it.
func readRequest[In any](a *API, r *http.Request, read func(*request) In) (In, error) {
	req := &request{Request: r, format: a.Verifier.Format, now: a.Now()}
	req.confirm = func(prefix string) error { return a.Keys.Confirm(r.Context(), prefix) }
	req.query()
	in := read(req)
	for _, name := range slices.Sorted(maps.Keys(req.params)) {
		req.fault(pointer(name), "is no query parameter of this route")
	}
	for _, name := range slices.Sorted(maps.Keys(req.members)) {
		req.fault(pointer(name), "is no member of this body")
	}
	if req.err != nil {
		return in, req.err
	}
	return in, apikey.Invalid(req.faults)
}

// refuse ends the reading. The first refusal stands.
func (r *request) refuse(code apikey.Code, message string) {
	if r.err == nil {
		r.err = apikey.Errorf(code, "%s", message)
	}
}

// fault notes what is wrong with one field, once for each. A field too long to be named is named by what holds it.
func (r *request) fault(pointer, detail string) {
	for len(pointer) > maxPointer {
		pointer = pointer[:strings.LastIndexByte(pointer, '/')]
	}
	same := func(f apikey.FieldError) bool { return f.Pointer == pointer }
	if len(r.faults) < maxFaults && !slices.ContainsFunc(r.faults, same) {
		r.faults = append(r.faults, apikey.FieldError{Pointer: pointer, Detail: detail})
	}
}

// merge notes faults that were found elsewhere.
func (r *request) merge(faults []apikey.FieldError) {
	for _, f := range faults {
		r.fault(f.Pointer, f.Detail)
	}
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer names a member of the top level (RFC 6901).
func pointer(name string) string { return "/" + pointerEscapes.Replace(name) }

// keyID is the path's key: its id or its public prefix.
func (r *request) keyID() apikey.ID { return r.keyNamed(apikey.ParseID) }

// keyNamed is the path's key: its id, in one of the forms, or its public prefix.
func (r *request) keyNamed(forms ...func(string) (apikey.ID, error)) apikey.ID {
	text := r.PathValue("id")
	for _, parse := range forms {
		if id, err := parse(text); err == nil {
			return id
		}
	}
	id, err := r.format.ParsePrefix(text)
	if err != nil {
		err = apikey.Errorf(apikey.NotFound, "There is no such key.")
	} else {
		err = r.confirm(text)
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	return id
}

// query splits the query by hand: net/url drops what it cannot read.
func (r *request) query() {
	r.params, r.asked = map[string]string{}, url.Values{}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, badName := url.QueryUnescape(rawName)
		value, badValue := url.QueryUnescape(rawValue)
		_, again := r.params[name]
		switch {
		case pair == "":
		case badName != nil || !utf8.ValidString(name):
			r.fault(pointer(rawName), "is not a parameter's name")
		case badValue != nil || !utf8.ValidString(value):
			r.fault(pointer(name), "is not well-formed")
			r.params[name] = ""
		case again:
			r.fault(pointer(name), "stands twice")
		default:
			r.params[name] = value
			r.asked.Set(name, value)
		}
	}
}

// param takes a parameter of the query.
func (r *request) param(name string) (value string, given bool) {
	value, given = r.params[name]
	delete(r.params, name)
	return value, given
}

// checked takes a parameter that ok accepts, or "".
func (r *request) checked(name string, ok func(string) bool, rule string) string {
	value, given := r.param(name)
	if given && !ok(value) {
		r.fault(pointer(name), rule)
	}
	return value
}

// number takes a parameter that is a whole number from low to high, or otherwise when it is not given.
func (r *request) number(name string, low, high, otherwise int64) int64 {
	value, given := r.param(name)
	if !given {
		return otherwise
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < low || n > high || strconv.FormatInt(n, 10) != value {
		r.fault(pointer(name), fmt.Sprintf("must be a whole number from %d to %d", low, high))
	}
	return n
}

// flag takes a parameter that is true or false.
func (r *request) flag(name string) bool {
	isBool := func(s string) bool { return s == "true" || s == "false" }
	return r.checked(name, isBool, "must be true or false") == "true"
}

// body reads the JSON object that the request must carry.
func (r *request) body() {
	r.content()
	r.object(plainJSON)
}

// patchBody is body for a merge patch, which has a type of its own.
func (r *request) patchBody() {
	r.content()
	r.object(plainJSON, mergePatch)
}

// optionalBody reads the JSON object that the request may carry.
func (r *request) optionalBody() {
	if r.content(); len(r.raw) > 0 {
		r.object(plainJSON)
	}
}

// content takes the body, which takeBody took from the client.
func (r *request) content() {
	var err error
	if r.raw, err = io.ReadAll(r.Body); err != nil {
		r.refuse(apikey.InvalidJSON, "The body did not arrive whole.")
	}
}

// has says whether the body holds a member that was not taken yet.
func (r *request) has(name string) bool {
	_, ok := r.members[name]
	return ok
}

// required takes a member, which may not be null.
func (r *request) required(name string, into any) {
	if !r.has(name) {
		r.fault(pointer(name), "is required")
	}
	r.optional(name, into)
}

// optional takes a member, which may not be null, and leaves into alone when there is none.
func (r *request) optional(name string, into any) {
	if string(r.members[name]) == "null" {
		r.fault(pointer(name), mustBe(into))
	}
	r.nullable(name, into)
}

// nullable takes a member, and leaves into alone when there is none.
func (r *request) nullable(name string, into any) {
	raw, ok := r.members[name]
	delete(r.members, name)
	if list, isList := into.(*[]string); isList && ok {
		*list = r.list(name, raw)
	} else if ok && json.Unmarshal(plain(raw), into) != nil {
		r.fault(pointer(name), mustBe(into))
	}
}

// name takes the member that names a key, which it must have.
func (r *request) name(into *string) {
	r.required("name", into)
	if strings.ContainsFunc(*into, unicode.IsControl) {
		r.refuse(apikey.InvalidJSON, "The name holds a control character.")
	}
}

// listOrNull takes a member that is a list of strings or null.
func (r *request) listOrNull(name string) (m lifecycle.Maybe[[]string]) {
	m.Said = r.has(name)
	if m.Said && string(r.members[name]) != "null" {
		m.V = new([]string)
		r.nullable(name, m.V)
	}
	delete(r.members, name)
	return m
}

// emptied is a list that is to be set, where null stands for the empty one; nil where nothing was said.
func emptied(m lifecycle.Maybe[[]string]) *[]string {
	if m.Said && m.V == nil {
		return &[]string{}
	}
	return m.V
}

// moment takes a parameter that is a time, or a date; without it, it is zero.
func (r *request) moment(name string) time.Time {
	value, given := r.param(name)
	m := new(lifecycle.Moment)
	if text, err := json.Marshal(value); given && (err != nil || m.UnmarshalJSON(text) != nil) {
		r.fault(pointer(name), mustBe(&m))
	}
	return m.Time
}

// plain spells a whole number without fraction or exponent, as encoding/json wants it: 60.0 and 6e1 are 60. It leaves
// everything else as it is.
func plain(raw json.RawMessage) json.RawMessage {
	n, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || n != math.Trunc(n) || math.Abs(n) > 1<<53 {
		return raw
	}
	return strconv.AppendInt(nil, int64(n), 10)
}

// list reads a list of strings. One that is no string stays as "", so that the others keep their places.
func (r *request) list(name string, raw json.RawMessage) []string {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		r.fault(pointer(name), mustBe(&[]string{}))
	}
	list := make([]string, len(items))
	for i, item := range items {
		if string(item) == "null" || json.Unmarshal(item, &list[i]) != nil {
			r.fault(pointer(name)+"/"+strconv.Itoa(i), mustBe(&list[i]))
		}
	}
	return list
}

// mustBe says what a member read into v has to be.
func mustBe(v any) string {
	switch v.(type) {
	case *string, **string, *lifecycle.Maybe[string], *notify.Description:
		return "must be a string"
	case *[]string:
		return "must be a list of strings"
	case *bool, **bool:
		return "must be true or false"
	case *int64, **int64, **int, *lifecycle.Limit, *lifecycle.Maybe[int]:
		return "must be a whole number"
	case **lifecycle.Moment, **isoTime, *lifecycle.Maybe[lifecycle.Moment]:
		return "must be a time such as 2026-11-22T10:00:00Z, or a date"
	case *netip.Addr:
		return "must be an IP address"
	}
	panic(fmt.Sprintf("httpapi: no rule for a %T", v))
}

// within notes a number that is out of bounds.
func (r *request) within(name string, n, low, high int64) {
	if n < low || n > high {
		r.fault(pointer(name), fmt.Sprintf("must be %d to %d", low, high))
	}
}
