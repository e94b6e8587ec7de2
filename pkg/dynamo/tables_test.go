package dynamo_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/latchkey/latchkey/pkg/dynamo"
)

func newNames() dynamo.Tables {
	return dynamo.Tables{Keys: "keys-" + rand.Text(), Audit: "audit-" + rand.Text(), Chain: "chain-" + rand.Text()}
}

func TestManyMayMakeTheTablesAtOnce(t *testing.T) {
	client := local(t)
	names, development := newNames(), newNames()
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if err := dynamo.CreateTables(t.Context(), client, names); err != nil {
				t.Error(err)
			}
			if err := dynamo.DevelopmentTables(t.Context(), client, development, time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestATableWhoseMakingLostItsAnswerIsOnesOwn(t *testing.T) {
	client, names := local(t), newNames()
	lost := map[string]bool{}
	losing := around(client, func(in any, call func() (any, error)) (any, error) {
		out, err := call()
		if made, ok := in.(*dynamodb.CreateTableInput); ok && !lost[*made.TableName] {
			lost[*made.TableName] = true
			return nil, errors.New("the connection was lost")
		}
		return out, err
	})
	if err := dynamo.DevelopmentTables(t.Context(), losing, names, 0); err != nil || len(lost) != 3 {
		t.Fatalf("of %d tables the answer was lost: %v", len(lost), err)
	}
}

func TestDevelopmentRefusesEachTableThatIsNotMarked(t *testing.T) {
	client := local(t)
	live, mine := newNames(), newNames()
	if err := dynamo.CreateTables(t.Context(), client, live); err != nil {
		t.Fatal(err)
	}
	if err := dynamo.DevelopmentTables(t.Context(), client, mine, 0); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tables dynamo.Tables
		want   error
	}{
		"its own":         {mine, nil},
		"live ones":       {live, dynamo.ErrNotDevelopment},
		"live keys":       {dynamo.Tables{Keys: live.Keys, Audit: mine.Audit, Chain: mine.Chain}, dynamo.ErrNotDevelopment},
		"a live audit":    {dynamo.Tables{Keys: mine.Keys, Audit: live.Audit, Chain: mine.Chain}, dynamo.ErrNotDevelopment},
		"a live chain":    {dynamo.Tables{Keys: mine.Keys, Audit: mine.Audit, Chain: live.Chain}, dynamo.ErrNotDevelopment},
		"its own, by now": {mine, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if err := dynamo.DevelopmentTables(t.Context(), client, c.tables, 10*time.Millisecond); !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWaitingForAMarkEndsWithTheContext(t *testing.T) {
	client, names := local(t), newNames()
	if err := dynamo.CreateTables(t.Context(), client, names); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := dynamo.DevelopmentTables(ctx, client, names, time.Hour); err == nil || errors.Is(err, dynamo.ErrNotDevelopment) {
		t.Fatalf("got %v", err)
	}
}
