package dynamo

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/publish"
)

// ReadRecord reads what the stream of the audit table tells of one item: the change (INSERT, MODIFY or REMOVE), the record's
// sequence number, about when it was made, and keys and new image in DynamoDB's JSON. What cannot be read is a record with
// an error.
func ReadRecord(change, sequence string, at time.Time, keys, image json.RawMessage) publish.Record {
	k, err := fromJSON(keys)
	if err != nil {
		return publish.Record{ID: sequence, Change: change, At: at, Err: fmt.Errorf("reading its keys: %w", err)}
	}
	var i item
	if len(image) > 0 {
		i, err = fromJSON(image)
	}
	r := record(change, sequence, at, k, i)
	if r.Kind == publish.Written && err != nil {
		r.Err = fmt.Errorf("reading its image: %w", err)
	}
	return r
}

// record says what happened to the item of the audit table that has those keys. The service puts entries and changes nothing,
// and nobody may do else; only the mark of a table for development is no organization's.
func record(change, sequence string, at time.Time, keys, image item) publish.Record {
	k := &reader{item: keys}
	r := publish.Record{ID: sequence, Change: change, At: at, OrganizationID: k.text(attrPK), EntryID: k.text(attrSK)}
	switch {
	case k.err != nil:
		r.Err = k.err
	case r.OrganizationID == developmentPartition && !audit.ValidID(r.EntryID):
		r.Kind = publish.Foreign
	case change != "INSERT" || !audit.ValidID(r.EntryID):
		r.Kind = publish.Tampered
	case image == nil:
		r.Err = errors.New("it has no image: the table's stream must have the view type NEW_IMAGE")
	default:
		r.Entry, r.Err = readEntry(image)
		if r.Err == nil && (r.Entry.OrganizationID != r.OrganizationID || r.Entry.ID != r.EntryID) {
			r.Err = errors.New("its image is of another entry")
		}
	}
	return r
}

// fromJSON reads an item in DynamoDB's JSON, {"name": {"S": "text"}, …}. An attribute of a type that no entry has is there,
// and of no use.
func fromJSON(text json.RawMessage) (item, error) {
	var attributes map[string]map[string]json.RawMessage
	if err := json.Unmarshal(text, &attributes); err != nil {
		return nil, err
	}
	i := item{}
	for name, typed := range attributes {
		if len(typed) != 1 {
			return nil, fmt.Errorf("its attribute %s has %d types", name, len(typed))
		}
		for kind, v := range typed {
			var err error
			if i[name], err = attributeOf(kind, v); err != nil {
				return nil, fmt.Errorf("its attribute %s: %w", name, err)
			}
		}
	}
	return i, nil
}

func attributeOf(kind string, v json.RawMessage) (types.AttributeValue, error) {
	if kind != "S" && kind != "N" {
		return &types.UnknownUnionMember{Tag: kind}, nil
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		return nil, err
	}
	if kind == "N" {
		return &types.AttributeValueMemberN{Value: s}, nil
	}
	return text(s), nil
}
