package dynamo_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/dynamo"
)

// entriesOf is what happened in an organization, n times.
func entriesOf(organization string, n int) []audit.Entry {
	entries := make([]audit.Entry, n)
	for i := range entries {
		at := noon.Add(time.Duration(i) * time.Second)
		entries[i] = audit.Entry{ID: audit.NewID(at), OrganizationID: organization, At: at, Action: audit.Created}
	}
	return entries
}

// holdsChain demands a chain of some of the first entries, without gap or double.
func holdsChain(t *testing.T, store *dynamo.Store, organization string, entries []audit.Entry) int {
	t.Helper()
	links, _, err := store.Links(t.Context(), organization, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var head audit.Link
	for i, l := range links {
		if head, err = audit.Next(head, entries[i]); err != nil || head != l {
			t.Fatalf("link %d is %+v, want %+v (%v)", i+1, l, head, err)
		}
	}
	return len(links)
}

// A process may die at any call, or only lose its answer. What it leaves is a chain, and who comes next completes it.
func TestAChainIsWholeWhereverItsWriterDies(t *testing.T) {
	t.Parallel()
	client := local(t)
	names := tables(t, client)
	whole := dynamo.New(client, names)
	lost := errors.New("the connection was lost")
	left := map[int]bool{}
	for n, done := 1, false; !done; n++ {
		for _, after := range []bool{false, true} {
			organization, calls := fmt.Sprintf("org_%d_%v", n, after), 0
			entries := entriesOf(organization, 130)
			dying := dynamo.New(around(client, func(_ any, call func() (any, error)) (any, error) {
				if calls++; calls < n {
					return call()
				}
				if after && calls == n {
					_, _ = call()
				}
				return nil, lost
			}), names)
			if _, err := dying.Append(t.Context(), organization, entries); err == nil {
				done = true
			} else if !errors.Is(err, lost) {
				t.Fatalf("call %d: %v", n, err)
			}
			left[holdsChain(t, whole, organization, entries)] = true
			linked, err := whole.Append(t.Context(), organization, entries)
			if err != nil || len(linked) != 130 || holdsChain(t, whole, organization, entries) != 130 {
				t.Fatalf("call %d: %d entries came back, %v", n, len(linked), err)
			}
		}
	}
	if want := map[int]bool{0: true, 40: true, 80: true, 120: true, 130: true}; !reflect.DeepEqual(left, want) {
		t.Errorf("it died with %v links written, want %v", left, want)
	}
}

func TestAChainIsWrittenByQueriesBatchesAndPutsAlone(t *testing.T) {
	t.Parallel()
	client, asked := local(t), map[string]bool{}
	store := dynamo.New(around(client, func(in any, call func() (any, error)) (any, error) {
		asked[fmt.Sprintf("%T", in)] = true
		if write, ok := in.(*dynamodb.TransactWriteItemsInput); ok {
			for _, i := range write.TransactItems {
				if i.Put == nil || *i.Put.ConditionExpression != "attribute_not_exists(#pk)" {
					t.Errorf("it writes %+v", i)
				}
			}
		}
		return call()
	}), tables(t, client))
	entries := entriesOf("acme", 45)
	for range 2 {
		if _, err := store.Append(t.Context(), "acme", entries); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]bool{"*dynamodb.BatchGetItemInput": true, "*dynamodb.QueryInput": true, "*dynamodb.TransactWriteItemsInput": true}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("it asks for %v", asked)
	}
}
