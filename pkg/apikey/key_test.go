package apikey_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestTheStrongestStateApplies(t *testing.T) {
	past, future, successor := noon.Add(-1), noon.Add(1), apikey.ID(2)
	for _, c := range []struct {
		key  apikey.Key
		want apikey.Status
	}{
		{apikey.Key{Enabled: true}, apikey.Active},
		{apikey.Key{Enabled: true, ExpiresAt: &future, GraceExpiresAt: &future, ReplacedByKeyID: &successor}, apikey.Rotated},
		{apikey.Key{Enabled: true, ExpiresAt: &noon}, apikey.Expired}, // an end is the first moment that is refused
		{apikey.Key{Enabled: true, ExpiresAt: &future, GraceExpiresAt: &past, ReplacedByKeyID: &successor}, apikey.Expired},
		{apikey.Key{Enabled: true, ExpiresAt: &past, GraceExpiresAt: &future, ReplacedByKeyID: &successor}, apikey.Expired},
		{apikey.Key{ExpiresAt: &past}, apikey.Disabled},
		{apikey.Key{ExpiresAt: &past, ArchivedAt: &past}, apikey.Archived},
		{apikey.Key{ExpiresAt: &past, ArchivedAt: &past, RevokedAt: &past}, apikey.Revoked},
	} {
		if got := c.key.StatusAt(noon); got != c.want {
			t.Errorf("%+v is %s, want %s", c.key, got, c.want)
		}
	}
}

func TestAnEndThatHadPassedWhenWrittenHoldsForEveryClock(t *testing.T) {
	r := apikey.Record{Key: apikey.Key{UpdatedAt: noon, GraceExpiresAt: &noon}}
	if d := r.Deadline(); !d.Equal(time.Unix(0, 0)) {
		t.Errorf("got %s", d)
	}
	later := noon.Add(1)
	if r.GraceExpiresAt = &later; !r.Deadline().Equal(later) {
		t.Errorf("got %s", r.Deadline())
	}
}

func TestEveryFieldOfAKeyIsAlwaysInItsJSON(t *testing.T) {
	b, err := json.Marshal(apikey.Key{ID: 42, Scopes: []string{}, AllowedCIDRs: []string{}, Metadata: json.RawMessage("{}")})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got["id"] != "key_0000000g" || got["expires_at"] != nil || fmt.Sprint(got["scopes"]) != "[]" {
		t.Errorf("got %s", b)
	}
	if fields := reflect.TypeFor[apikey.Key]().NumField() - 1; len(got) != fields { // Version travels as the ETag
		t.Errorf("%d of %d fields", len(got), fields)
	}
}

func TestAnErrorComesBackFromItsProblemDetails(t *testing.T) {
	sent := &apikey.Error{Code: apikey.InvalidFields, Message: "m", RequestID: "req_1",
		Fields: []apikey.FieldError{{Pointer: "/name", Detail: "d"}}, Cause: errors.New("inside")}
	b, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	got := new(apikey.Error)
	if err := json.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	sent.Cause = nil // stays inside
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("got %+v from %s", got, b)
	}
	if apikey.CodeOf(fmt.Errorf("while: %w", got)) != apikey.InvalidFields || apikey.CodeOf(errors.New("x")) != apikey.Internal {
		t.Error("the code was lost")
	}
	if apikey.Code("no such code").Status() != http.StatusInternalServerError {
		t.Error("an unknown code is not a 500")
	}
}

func TestWindowsNameTheirMinuteAndDay(t *testing.T) {
	if m, d := apikey.MinuteWindow(noon, 0), apikey.DayWindow(noon, 1); m != apikey.Window(fmt.Sprint("m", noon.Unix()/60)) ||
		d != apikey.Window(fmt.Sprint("d", noon.Unix()/86400-1)) || m.Day() || !d.Day() {
		t.Errorf("got %s and %s", m, d)
	}
	for back, past := range map[int64][2]bool{-9: {}, -1: {}, 0: {}, 1: {}, 2: {false, true}, 3: {true, true}, 9: {true, true}} {
		if apikey.MinuteWindow(noon, back).Past(noon) != past[0] || apikey.DayWindow(noon, back).Past(noon) != past[1] {
			t.Errorf("%d windows back: past is not %v", back, past)
		}
	}
}

func TestScopesHaveAFewCharactersOnly(t *testing.T) {
	for scope, ok := range map[string]bool{"orders:read": true, "a/b.c_d-E9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a,b": false, `a"b`: false, "*": false, "é": false, "a\n": false} {
		if apikey.ValidScope(scope) != ok {
			t.Errorf("%q", scope)
		}
	}
}

func TestADemandForScopesIsReadWholeOrNotAtAll(t *testing.T) {
	for text, want := range map[string]int{"orders:read": 1, "a,b": 2, "a b": 2, " a, b ": 2, "": -1, ",": -1, "a,b?": -1, "a;b": -1} {
		scopes, err := apikey.ParseScopes(text)
		if err != nil && want >= 0 || err == nil && len(scopes) != want {
			t.Errorf("%q: %q, %v", text, scopes, err)
		}
	}
}
