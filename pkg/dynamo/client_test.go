package dynamo_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

// canned is a DynamoDB that gives these answers, the last one again and again, and keeps what it was asked.
type canned struct {
	mu      sync.Mutex
	answers []string // "": a server error
	asked   []map[string]any
}

func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var asked map[string]any
	_ = json.Unmarshal(body, &asked)
	c.asked = append(c.asked, asked)
	answer := c.answers[min(len(c.asked), len(c.answers))-1]
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	switch {
	case answer == "":
		w.WriteHeader(http.StatusInternalServerError)
	case strings.Contains(answer, "__type"):
		w.WriteHeader(http.StatusBadRequest)
	}
	_, _ = io.WriteString(w, answer)
}

// store is a Store on the canned DynamoDB.
func (c *canned) store(t *testing.T) *dynamo.Store {
	t.Helper()
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return storeAt(t, dynamo.Config{Endpoint: server.URL, LoopbackOnly: true})
}

func storeAt(t *testing.T, c dynamo.Config) *dynamo.Store {
	t.Helper()
	client, err := dynamo.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	return dynamo.New(client, dynamo.Tables{Keys: "keys", Audit: "audit", Chain: "chain"})
}

// awsError is an error as DynamoDB words it.
func awsError(name string, reasons ...string) string {
	out := map[string]any{"__type": "com.amazonaws.dynamodb.v20120810#" + name, "message": "canned"}
	if reasons != nil {
		var list []map[string]string
		for _, code := range reasons {
			list = append(list, map[string]string{"Code": code})
		}
		out["CancellationReasons"] = list
	}
	b, _ := json.Marshal(out)
	return string(b)
}

// calls are the ways to write: the transaction is of a hot item, its profile, the audit entry and the organization.
var calls = map[string]func(context.Context, *dynamo.Store) error{
	"Debit": func(ctx context.Context, s *dynamo.Store) error {
		_, admitted, err := s.Debit(ctx, verify.Debit{ID: 1, Hash: apikey.NewPlaintext("x").Hash(), Cost: 1, At: noon})
		if admitted {
			return errors.New("admitted")
		}
		return err
	},
	"Close":  func(ctx context.Context, s *dynamo.Store) error { return s.Close(ctx, 1, 1, apikey.Closing{}) },
	"Forget": func(ctx context.Context, s *dynamo.Store) error { return s.Forget(ctx, 1, []apikey.Window{"m1"}) },
	"Commit": func(ctx context.Context, s *dynamo.Store) error {
		r := record(36, 50, 1)
		return s.Commit(ctx, lifecycle.Change{Update: []lifecycle.Update{{Record: r}}, Entry: entryOf(r),
			Count: &lifecycle.Count{OrganizationID: r.OrganizationID, Delta: -1}})
	},
}

func TestEveryRefusedWriteHasItsName(t *testing.T) {
	cancelled := func(reasons ...string) string { return awsError("TransactionCanceledException", reasons...) }
	for _, row := range []struct {
		call, answer string
		want         error
	}{
		{"Debit", awsError("TransactionConflictException"), apikey.ErrConflict},
		{"Debit", awsError("ConditionalCheckFailedException"), verify.ErrNoKey},
		{"Close", awsError("TransactionConflictException"), apikey.ErrConflict},
		{"Close", awsError("ConditionalCheckFailedException"), lifecycle.ErrChanged},
		{"Forget", awsError("TransactionConflictException"), apikey.ErrConflict},
		{"Commit", cancelled("TransactionConflict", "None", "None", "None"), apikey.ErrConflict},
		{"Commit", cancelled("None", "None", "TransactionConflict", "None"), apikey.ErrConflict},
		{"Commit", cancelled("ConditionalCheckFailed", "None", "None", "None"), lifecycle.ErrChanged},
		{"Commit", cancelled("None", "None", "ConditionalCheckFailed", "None"), lifecycle.ErrChanged},
		{"Commit", cancelled("None", "None", "None", "ConditionalCheckFailed"), lifecycle.ErrCount},
		{"Commit", cancelled("TransactionConflict", "None", "None", "ConditionalCheckFailed"), lifecycle.ErrCount},
		{"Commit", cancelled("ConditionalCheckFailed", "None", "None", "ConditionalCheckFailed"), lifecycle.ErrChanged},
	} {
		db := &canned{answers: []string{row.answer}}
		if err := calls[row.call](t.Context(), db.store(t)); !errors.Is(err, row.want) {
			t.Errorf("%s answered %s is %v, want %v", row.call, row.answer, err, row.want)
		}
		if len(db.asked) != 1 {
			t.Errorf("%s answered %s was sent %d times, want once", row.call, row.answer, len(db.asked))
		}
	}
}

func TestATransactionWhoseAnswerWasLostIsSentAgainUnderItsToken(t *testing.T) {
	for _, lost := range []string{"", awsError("TransactionInProgressException")} {
		db := &canned{answers: []string{lost, lost, "{}"}}
		if err := calls["Commit"](t.Context(), db.store(t)); err != nil {
			t.Fatal(err)
		}
		token := db.asked[0]["ClientRequestToken"]
		if len(db.asked) != 3 || token == nil || db.asked[1]["ClientRequestToken"] != token || db.asked[2]["ClientRequestToken"] != token {
			t.Errorf("after %q it was sent %d times, want 3 times under one token", lost, len(db.asked))
		}
	}
}

func TestATransactionStillInProgressIsNoConflict(t *testing.T) {
	db := &canned{answers: []string{awsError("TransactionInProgressException")}}
	err := calls["Commit"](t.Context(), db.store(t))
	for _, wrong := range []error{nil, apikey.ErrConflict, lifecycle.ErrChanged, lifecycle.ErrCount} {
		if errors.Is(err, wrong) {
			t.Errorf("it is %v: a caller would believe that nothing was changed", err)
		}
	}
}

func TestAStoreThatHangsAnswersByTheDeadline(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	t.Cleanup(func() { close(hang); server.Close() })
	store := storeAt(t, dynamo.Config{Endpoint: server.URL, LoopbackOnly: true})
	for name, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begun := time.Now()
		err := call(ctx, store)
		cancel()
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%s said %v after %v", name, err, took)
		}
	}
	patient := storeAt(t, dynamo.Config{Endpoint: server.URL, LoopbackOnly: true, AttemptTimeout: time.Millisecond})
	if err := calls["Debit"](t.Context(), patient); err == nil {
		t.Error("without a deadline the attempts do not end")
	}
}

func TestLoopbackOnlyGivesNoRealCredentialsAway(t *testing.T) {
	var seen string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization") + r.Header.Get("X-Amz-Security-Token")
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer server.Close()
	store := storeAt(t, dynamo.Config{Endpoint: server.URL, LoopbackOnly: true, AccessKeyID: "REAL", SecretAccessKey: "REAL", SessionToken: "REAL", Region: "REAL"})
	if err := store.Forget(t.Context(), 1, []apikey.Window{"m1"}); err == nil || seen == "" || strings.Contains(seen, "REAL") {
		t.Errorf("it sent %q", seen)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
	defer elsewhere.Close()
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		defer server.Close()
		if err := storeAt(t, dynamo.Config{Endpoint: server.URL, LoopbackOnly: true}).Forget(t.Context(), 1, []apikey.Window{"m1"}); err == nil {
			t.Error("a redirect passed for an answer")
		}
	}
}
