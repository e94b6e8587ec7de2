package dynamo_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/latchkey/latchkey/pkg/dynamo"
)

func TestTheFirstCallTakesTheConnectionThatWarmOpened(t *testing.T) {
	var opened atomic.Int64
	answers := &canned{answers: []string{awsError("MissingAuthenticationToken"), "{}"}}
	server := httptest.NewUnstartedServer(answers)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	store := storeAt(t, dynamo.Config{Endpoint: server.URL, LoopbackOnly: true})
	if err := store.Warm(t.Context()); err != nil {
		t.Errorf("an answer of any kind is a connection: %v", err)
	}
	_ = calls["Debit"](t.Context(), store) // what it makes of {} is of no matter here
	if len(answers.asked) != 2 || opened.Load() != 1 {
		t.Errorf("%d requests on %d connections, want 2 on 1", len(answers.asked), opened.Load())
	}
}

func TestWarmSaysThatNobodyAnswers(t *testing.T) {
	store := storeAt(t, dynamo.Config{Endpoint: "http://127.0.0.1:1", LoopbackOnly: true})
	if err := store.Warm(t.Context()); err == nil {
		t.Error("nobody answers and it says nothing")
	}
}
