package dynamo

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// item is what DynamoDB stores under one key. Absent means unset, everywhere.
type item = map[string]types.AttributeValue

const (
	schemaVersion = 1
	attrSchema    = "v" // of every item
	attrPK        = "pk"
	attrSK        = "sk"
)

func primaryKey(pk, sk string) item { return item{attrPK: text(pk), attrSK: text(sk)} }

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func flag(b bool) types.AttributeValue   { return &types.AttributeValueMemberBOOL{Value: b} }
func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}
func days(n int) types.AttributeValue         { return number(int64(n)) }
func moment(t time.Time) types.AttributeValue { return number(t.UnixMilli()) }
func keyID(id apikey.ID) types.AttributeValue { return text(id.String()) }

// binary never gives nil, which DynamoDB takes for no value at all.
func binary(b []byte) types.AttributeValue {
	return &types.AttributeValueMemberB{Value: append([]byte{}, b...)}
}

func list(texts []string) types.AttributeValue {
	l := make([]types.AttributeValue, len(texts))
	for i, s := range texts {
		l[i] = text(s)
	}
	return &types.AttributeValueMemberL{Value: l}
}

// textOf is a text of an item, "" where there is none.
func textOf(i item, name string) string { return (&reader{item: i}).text(name) }

// set puts a string set, without the duplicates and the emptiness that DynamoDB refuses.
func set(i item, name string, texts []string) {
	if len(texts) > 0 {
		sorted := slices.Compact(slices.Sorted(slices.Values(texts)))
		i[name] = &types.AttributeValueMemberSS{Value: sorted}
	}
}

// put puts what is not nil.
func put[T any](i item, name string, v *T, as func(T) types.AttributeValue) {
	if v != nil {
		i[name] = as(*v)
	}
}

// reader reads the attributes of one item and keeps the first error. Its methods need the attribute to be there; ask
// optional for one that may be absent.
type reader struct {
	item item
	err  error
}

// read begins an item, which must be of our schema.
func read(i item) *reader {
	r := &reader{item: i}
	if v := r.number(attrSchema); r.err == nil && v != schemaVersion {
		r.fail(fmt.Errorf("its schema is version %d, not %d", v, schemaVersion))
	}
	return r
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// attribute finds name, of the wanted type.
func attribute[T types.AttributeValue](r *reader, name string) (v T, ok bool) {
	v, ok = r.item[name].(T)
	if !ok {
		r.fail(fmt.Errorf("its attribute %s is missing or of another type", name))
	}
	return v, ok
}

func optional[T any](r *reader, name string, read func(string) T) *T {
	if r.item[name] == nil {
		return nil
	}
	v := read(name)
	return &v
}

func (r *reader) text(name string) string {
	if v, ok := attribute[*types.AttributeValueMemberS](r, name); ok {
		return v.Value
	}
	return ""
}

func (r *reader) binary(name string) []byte {
	if v, ok := attribute[*types.AttributeValueMemberB](r, name); ok {
		return v.Value
	}
	return nil
}

func (r *reader) flag(name string) bool {
	v, ok := attribute[*types.AttributeValueMemberBOOL](r, name)
	return ok && v.Value
}

func (r *reader) number(name string) int64 {
	v, ok := attribute[*types.AttributeValueMemberN](r, name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v.Value, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("its attribute %s is not a whole number", name))
	}
	return n
}

func (r *reader) days(name string) int { return int(r.number(name)) }

func (r *reader) moment(name string) time.Time { return time.UnixMilli(r.number(name)).UTC() }

func (r *reader) keyID(name string) apikey.ID {
	id, err := apikey.ParseID(r.text(name))
	if err != nil {
		r.fail(fmt.Errorf("its attribute %s: %w", name, err))
	}
	return id
}

func (r *reader) list(name string) []string {
	v, ok := attribute[*types.AttributeValueMemberL](r, name)
	if !ok {
		return nil
	}
	texts := make([]string, len(v.Value))
	for i, e := range v.Value {
		s, ok := e.(*types.AttributeValueMemberS)
		if !ok {
			r.fail(fmt.Errorf("its attribute %s holds other things than strings", name))
			return nil
		}
		texts[i] = s.Value
	}
	return texts
}

// set is nil for an absent attribute: DynamoDB knows no empty sets.
func (r *reader) set(name string) []string {
	if r.item[name] == nil {
		return nil
	}
	v, _ := attribute[*types.AttributeValueMemberSS](r, name)
	if v == nil {
		return nil
	}
	return v.Value
}
