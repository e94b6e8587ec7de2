package dynamo_test

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/dynamo"
)

func TestOfManyWhoCreateTheTablesExactlyOneIsToldSo(t *testing.T) {
	client := local(t)
	names := dynamo.Tables{Keys: "keys-" + rand.Text(), Audit: "audit-" + rand.Text()}
	var creators atomic.Int64
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			created, err := dynamo.CreateTables(t.Context(), client, names)
			if err != nil {
				t.Error(err)
			}
			if created {
				creators.Add(1)
			}
		})
	}
	all.Wait()
	if n := creators.Load(); n != 1 {
		t.Fatalf("%d were told that they created the tables", n)
	}
}

func TestTablesAreForDevelopmentOnlyWhenMarkedSo(t *testing.T) {
	client := local(t)
	store := dynamo.New(client, tables(t, client))
	if is, err := store.IsDevelopment(t.Context(), 20*time.Millisecond); err != nil || is {
		t.Fatalf("unmarked tables: %v, %v", is, err)
	}
	waiting := make(chan bool)
	go func() {
		is, err := store.IsDevelopment(t.Context(), time.Minute)
		waiting <- err == nil && is
	}()
	for range 2 {
		if err := store.MarkDevelopment(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !<-waiting {
		t.Error("whoever waited for the mark missed it")
	}
	if is, err := store.IsDevelopment(t.Context(), 0); err != nil || !is {
		t.Fatalf("marked tables: %v, %v", is, err)
	}
}

func TestWaitingForTheMarkEndsWithTheContext(t *testing.T) {
	client := local(t)
	store := dynamo.New(client, tables(t, client))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if is, err := store.IsDevelopment(ctx, time.Hour); is || err == nil {
		t.Fatalf("got %v, %v", is, err)
	}
}
