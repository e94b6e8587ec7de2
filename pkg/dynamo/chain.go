package dynamo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// A link of the chain is one item of its organization's partition, and beside it stands a mark that says which link its
// entry has, so that no entry is linked twice. Both are put where nothing is, in one transaction, and never written again.
// The head is the last link there is: it is written down nowhere else, where it could be wrong.
const (
	attrSequence = "sequence"
	attrEntryID  = "entry_id"
	attrPrevious = "previous"
	attrLinkHash = "hash"

	maxLinks   = 40 // of one transaction, which holds 100 actions
	linkTries  = 50 // after which those who link at once have had their turns
	linkDigits = 19
)

func linkKey(organizationID string, sequence int64) item {
	return primaryKey(organizationID, fmt.Sprintf("L#%0*d", linkDigits, sequence))
}

func markKey(organizationID, entryID string) item { return primaryKey(organizationID, "E#"+entryID) }

// Append reads which entries are linked and puts links for the others behind the head, some at a time. Whoever else does
// the same puts a link of the same number: then all is read again.
func (s *Store) Append(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	for _, e := range entries {
		if err := audit.MayLink(organizationID, e); err != nil {
			return nil, err
		}
	}
	const doing = "linking audit entries"
	for try := 1; ; try++ {
		linked, err := s.link(ctx, organizationID, entries)
		switch {
		case err == nil:
			return linked, nil
		case !errors.Is(err, apikey.ErrConflict) && !errors.Is(err, lifecycle.ErrChanged), try == linkTries:
			return nil, failure(doing, err)
		}
		if err := pause(ctx); err != nil {
			return nil, failure(doing, err)
		}
	}
}

// link is Append once. It fails with apikey.ErrConflict or lifecycle.ErrChanged when somebody else links too.
func (s *Store) link(ctx context.Context, organizationID string, entries []audit.Entry) ([]audit.Linked, error) {
	links, err := s.linksOf(ctx, organizationID, entries)
	if err != nil {
		return nil, err
	}
	var wanted []audit.Entry
	seen := map[string]bool{}
	for _, e := range entries {
		if _, there := links[e.ID]; !there && !seen[e.ID] {
			wanted, seen[e.ID] = append(wanted, e), true
		}
	}
	if len(wanted) > 0 {
		if err := s.extend(ctx, organizationID, wanted, links); err != nil {
			return nil, err
		}
	}
	linked := make([]audit.Linked, len(entries))
	for i, e := range entries {
		linked[i] = audit.Linked{Entry: e, Link: links[e.ID]}
	}
	return linked, nil
}

// extend puts links for entries that have none behind the head, and adds them to links.
func (s *Store) extend(ctx context.Context, organizationID string, entries []audit.Entry, links map[string]audit.Link) error {
	head, err := s.head(ctx, organizationID)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(entries, maxLinks) {
		var steps []step
		var made []audit.Link
		for _, e := range some {
			if head, err = audit.Next(head, e); err != nil {
				return err
			}
			made = append(made, head)
			steps = append(steps, create(s.tables.Chain, linkItem(head)), create(s.tables.Chain, markItem(head)))
		}
		if err := s.transact(ctx, "writing links", steps); err != nil {
			return err
		}
		for _, l := range made {
			links[l.EntryID] = l
		}
	}
	return nil
}

// linksOf is the links that entries have, by the entries' ids. It reads their marks, and then the links of those.
func (s *Store) linksOf(ctx context.Context, organizationID string, entries []audit.Entry) (map[string]audit.Link, error) {
	var marks []item
	seen := map[string]bool{}
	for _, e := range entries {
		if !seen[e.ID] { // DynamoDB refuses to be asked for one item twice
			marks, seen[e.ID] = append(marks, markKey(organizationID, e.ID)), true
		}
	}
	var keys []item
	links := map[string]audit.Link{}
	if err := s.chained(ctx, marks, func(r *reader) { keys = append(keys, linkKey(organizationID, r.number(attrSequence))) }); err != nil {
		return nil, err
	}
	err := s.chained(ctx, keys, func(r *reader) {
		l := readLink(r)
		links[l.EntryID] = l
	})
	if err == nil && len(links) != len(keys) {
		err = errors.New("a link that has a mark is not there")
	}
	return links, err
}

// chained reads the items under keys of the chain's table that are there.
func (s *Store) chained(ctx context.Context, keys []item, take func(*reader)) error {
	var broken error
	for some := range slices.Chunk(keys, maxBatch) {
		err := s.batchGet(ctx, s.tables.Chain, some, func(i item) {
			r := read(i)
			take(r)
			broken = errors.Join(broken, r.err)
		})
		if err := errors.Join(err, broken); err != nil {
			return err
		}
	}
	return nil
}

// head is an organization's last link, the zero one if it has none.
func (s *Store) head(ctx context.Context, organizationID string) (audit.Link, error) {
	in := s.linkQuery(organizationID, 0)
	in.ScanIndexForward = aws.Bool(false)
	items, err := s.query(ctx, "reading the head of a chain", in, 1)
	if err != nil || len(items) == 0 {
		return audit.Link{}, err
	}
	r := read(items[0])
	return readLink(r), r.err
}

// Links is one consistent Query.
func (s *Store) Links(ctx context.Context, organizationID string, after int64, limit int) ([]audit.Link, bool, error) {
	if after == math.MaxInt64 {
		return nil, false, nil
	}
	items, err := s.query(ctx, "reading a chain", s.linkQuery(organizationID, max(after, 0)), limit+1)
	if err != nil {
		return nil, false, err
	}
	links := make([]audit.Link, min(len(items), limit))
	for n := range links {
		r := read(items[n])
		if links[n] = readLink(r); r.err != nil {
			return nil, false, failure("reading a link", r.err)
		}
	}
	return links, len(items) > limit, nil
}

// linkQuery asks for the links after one.
func (s *Store) linkQuery(organizationID string, after int64) *dynamodb.QueryInput {
	return &dynamodb.QueryInput{
		TableName:                &s.tables.Chain,
		ConsistentRead:           aws.Bool(true),
		KeyConditionExpression:   aws.String("#pk = :pk AND #sk BETWEEN :first AND :last"),
		ExpressionAttributeNames: map[string]string{"#pk": attrPK, "#sk": attrSK},
		ExpressionAttributeValues: item{":pk": text(organizationID), ":first": linkKey(organizationID, after+1)[attrSK],
			":last": linkKey(organizationID, math.MaxInt64)[attrSK]},
	}
}

func linkItem(l audit.Link) item {
	i := linkKey(l.OrganizationID, l.Sequence)
	i[attrSchema], i[attrSequence], i[attrEntryID] = number(schemaVersion), number(l.Sequence), text(l.EntryID)
	i[attrPrevious], i[attrLinkHash] = text(l.Previous), text(l.Hash)
	return i
}

func markItem(l audit.Link) item {
	i := markKey(l.OrganizationID, l.EntryID)
	i[attrSchema], i[attrSequence] = number(schemaVersion), number(l.Sequence)
	return i
}

func readLink(r *reader) audit.Link {
	return audit.Link{OrganizationID: r.text(attrPK), Sequence: r.number(attrSequence), EntryID: r.text(attrEntryID),
		Previous: r.text(attrPrevious), Hash: r.text(attrLinkHash)}
}
