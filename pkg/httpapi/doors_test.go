package httpapi_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/verify"
)

type verdict struct {
	Valid      bool            `json:"valid"`
	Code       apikey.Code     `json:"code"`
	Key        *apikey.Key     `json:"key"`
	RateLimits json.RawMessage `json:"rate_limits"`
}

// ended makes a key of acme that is refused for the reason.
func (d *door) ended(t *testing.T, code apikey.Code) apikey.Issued {
	t.Helper()
	n := lifecycle.New{Scopes: []string{"orders:read"}}
	switch code {
	case apikey.ExpiredKey:
		n.ExpiresAt = &lifecycle.Moment{Time: d.clock().Add(time.Second)}
	case apikey.AddressNotAllowed:
		n.AllowedCIDRs = []string{"203.0.113.0/24"}
	case apikey.ManagementKeyOnly:
		n.Scopes = []string{"keys:read"}
	case apikey.DailyLimitExceeded:
		n.DailyLimit = new(int64(1))
	}
	issued := d.mustCreate(t, "acme", n)
	switch code {
	case apikey.RevokedKey:
		want(t, d.do("DELETE", "/v1/api-keys/"+issued.Key.ID.String(), ""), 204, "")
	case apikey.ExpiredKey:
		d.advance(2 * time.Second)
	case apikey.DailyLimitExceeded:
		want(t, d.send(request("GET", "/v1/authorize", issued.Plaintext.Reveal(), "")), 200, "")
	}
	return issued
}

var refusals = map[apikey.Code]int{apikey.RevokedKey: 401, apikey.ExpiredKey: 401, apikey.AddressNotAllowed: 403,
	apikey.ManagementKeyOnly: 403, apikey.DailyLimitExceeded: 429}

func TestVerifyTellsOfGoodAndBadKeysAlike(t *testing.T) {
	d := newDoor(t)
	ask := func(body string) verdict {
		t.Helper()
		w := d.do("POST", "/v1/api-keys/verify", body)
		want(t, w, 200, "")
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Error("a verdict may be kept by caches")
		}
		for _, member := range []string{`"valid":`, `"code":`, `"key":`, `"rate_limits":[`} {
			if !strings.Contains(w.Body.String(), member) {
				t.Errorf("%s has no %s", w.Body, member)
			}
		}
		return read[verdict](t, w)
	}
	good := d.with(t, "orders:read")
	if v := ask(`{"key":"` + good + `"}`); !v.Valid || v.Code != apikey.Valid || v.Key == nil || v.Key.LastUsedAt == nil {
		t.Errorf("a good key is %+v", v)
	}
	if v := ask(`{"key":"` + good + `","scopes":["orders:read"],"ip":"2001:db8::1","cost":5}`); !v.Valid {
		t.Errorf("a good key with all that is asked is %+v", v)
	}
	if v := ask(`{"key":"` + good + `","scopes":["orders:write"]}`); v.Valid || v.Code != apikey.InsufficientScope || v.Key == nil {
		t.Errorf("a key without the scope is %+v", v)
	}
	for code := range refusals {
		bad := d.ended(t, code)
		if v := ask(`{"key":"` + bad.Plaintext.Reveal() + `","ip":"192.0.2.1"}`); v.Valid || v.Code != code || v.Key == nil || v.Key.ID != bad.Key.ID {
			t.Errorf("a key refused for %s is %+v", code, v)
		}
	}
	for key, code := range map[string]apikey.Code{"": apikey.MissingKey, "nonsense": apikey.MalformedKey, good + "x": apikey.MalformedKey,
		newDoor(t).manager.Plaintext.Reveal(): apikey.UnknownKey} {
		if v := ask(`{"key":"` + key + `"}`); v.Valid || v.Code != code || v.Key != nil || string(v.RateLimits) != "[]" {
			t.Errorf("a key refused for %s is %+v", code, v)
		}
	}
	if v := ask(`{"key":"` + d.ended(t, apikey.AddressNotAllowed).Plaintext.Reveal() + `","ip":"203.0.113.9"}`); !v.Valid {
		t.Errorf("the ip of the body is not the one that counts: %+v", v)
	}
}

func TestVerifyTellsWhatIsLeft(t *testing.T) {
	d := newDoor(t)
	n := lifecycle.New{ProjectID: "shop", Name: "limited", RateLimitPerMinute: lifecycle.Limit{Said: true, V: new(int64(10))}, DailyLimit: new(int64(100))}
	issued, err := d.Keys.Create(operator("acme"), n)
	if err != nil {
		t.Fatal(err)
	}
	w := d.do("POST", "/v1/api-keys/verify", `{"key":"`+issued.Plaintext.Reveal()+`","cost":4}`)
	got := read[verdict](t, w)
	if want := `[{"name":"minute","limit":10,"window_seconds":60,"remaining":6,"reset_seconds":30},` +
		`{"name":"day","limit":100,"window_seconds":86400,"remaining":96,"reset_seconds":50370}]`; string(got.RateLimits) != want {
		t.Errorf("got  %s\nwant %s", got.RateLimits, want)
	}
	if w.Header().Get("RateLimit") != "" {
		t.Error("the headers are of the key asked about, not of the asker's")
	}
}

func TestVerifyNeitherShowsNorDebitsAnotherOrganizationsKey(t *testing.T) {
	d := newDoor(t)
	other := d.mustCreate(t, "other", lifecycle.New{DailyLimit: new(int64(1)), Scopes: []string{"orders:read"}})
	for range 3 {
		w := d.do("POST", "/v1/api-keys/verify", `{"key":"`+other.Plaintext.Reveal()+`"}`)
		want(t, w, 200, "")
		if got := w.Body.String(); got != `{"valid":false,"code":"unknown","key":null,"rate_limits":[]}`+"\n" {
			t.Errorf("got %s", got)
		}
	}
	k, err := d.Keys.Get(operator("other"), other.Key.ID)
	if err != nil || k.LastUsedAt != nil {
		t.Errorf("last used %v, %v", k.LastUsedAt, err)
	}
	want(t, d.send(request("GET", "/v1/authorize", other.Plaintext.Reveal(), "")), 200, "") // its one request is still there
}

func TestVerifyNamesWhatIsWrongWithTheQuestion(t *testing.T) {
	d := newDoor(t)
	for body, wrong := range map[string][]string{
		`{}`:        {"/key"},
		`{"key":7}`: {"/key"},
		`{"key":"k","scopes":"a","ip":7,"cost":"1"}`:                    {"/cost", "/ip", "/scopes"},
		`{"key":null,"scopes":null,"ip":null,"cost":null}`:              {"/cost", "/ip", "/key", "/scopes"},
		`{"key":"k","scopes":["a b",1],"ip":"here","cost":0}`:           {"/cost", "/ip", "/scopes/0", "/scopes/1"},
		`{"key":"k","ip":"","cost":1000001,"door":"any"}`:               {"/cost", "/door", "/ip"},
		`{"key":"k","scopes":["` + strings.Repeat(`a","`, 100) + `b"]}`: {"/scopes"},
		`{"key":"k","ip":"192.0.2.0/24","organization_id":""}`:          {"/ip", "/organization_id"},
	} {
		if got := pointers(want(t, d.do("POST", "/v1/api-keys/verify", body), 422, apikey.InvalidFields)); !slices.Equal(got, wrong) {
			t.Errorf("%s: %v, want %v", body, got, wrong)
		}
	}
}

func TestAuthorizeLetsInAndSaysWhom(t *testing.T) {
	d := newDoor(t)
	n := lifecycle.New{ProjectID: "shop", Name: "n", EnvironmentID: new("test-1"), Scopes: []string{"orders:write", "orders:read"},
		RateLimitPerMinute: lifecycle.Limit{Said: true, V: new(int64(100))}}
	issued, err := d.Keys.Create(operator("acme"), n)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		w := d.send(request(method, "/v1/authorize?scopes=orders:read,orders:write&cost=2", issued.Plaintext.Reveal(), `{"not": "read`))
		want(t, w, 200, "")
		if w.Body.Len() > 0 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v %s", method, w.Header(), w.Body)
		}
		for name, value := range map[string]string{"Key-Id": issued.Key.ID.String(), "Key-Prefix": issued.Key.KeyPrefix, "Organization-Id": "acme",
			"Project-Id": "shop", "Environment-Id": "test-1", "External-Id": "", "Scopes": "orders:read orders:write"} {
			if got, ok := w.Header()["Latchkey-"+name]; !ok || !slices.Equal(got, []string{value}) {
				t.Errorf("Latchkey-%s is %q, want %q", name, got, value)
			}
		}
	}
	w := d.send(request("GET", "/v1/authorize", issued.Plaintext.Reveal(), ""))
	if got := w.Header().Get("RateLimit"); got != `"minute";r=83;t=30` {
		t.Errorf("RateLimit is %s after 8 requests of 2 and one of 1", got)
	}
}

func TestAuthorizeRefusesWithTheRealStatus(t *testing.T) {
	d := newDoor(t)
	refused := func(w *httptest.ResponseRecorder, status int, code apikey.Code) {
		t.Helper()
		want(t, w, status, code)
		for name := range w.Header() {
			if strings.HasPrefix(name, "Latchkey-") {
				t.Errorf("%s is told of a refused key", name)
			}
		}
	}
	refused(d.send(request("GET", "/v1/authorize", "", "")), 401, apikey.MissingKey)
	refused(d.send(request("GET", "/v1/authorize", "nonsense", "")), 401, apikey.MalformedKey)
	refused(d.send(request("GET", "/v1/authorize", newDoor(t).manager.Plaintext.Reveal(), "")), 401, apikey.UnknownKey)
	refused(d.do("GET", "/v1/authorize", ""), 403, apikey.ManagementKeyOnly)
	w := d.send(request("GET", "/v1/authorize?scopes=orders:read+orders:delete", d.with(t, "orders:read"), ""))
	refused(w, 403, apikey.InsufficientScope)
	if got := w.Header().Get("WWW-Authenticate"); got != verify.Challenge("orders:delete") {
		t.Errorf("the challenge is %s", got)
	}
	for code, status := range refusals {
		w := d.send(request("GET", "/v1/authorize", d.ended(t, code).Plaintext.Reveal(), ""))
		refused(w, status, code)
		if (w.Header().Get("Retry-After") != "") != (status == 429) || (w.Header().Get("WWW-Authenticate") != "") != (status == 401) {
			t.Errorf("%s: the headers are %v", code, w.Header())
		}
	}
}

// A demand that the proxy's configuration spells wrongly must never let in more than was meant.
func TestAuthorizeLetsNobodyInOnADemandItCannotRead(t *testing.T) {
	d := newDoor(t)
	key := d.mustCreate(t, "acme", lifecycle.New{Scopes: []string{"orders:read"}, DailyLimit: new(int64(1))}).Plaintext.Reveal()
	for query, wrong := range map[string]string{
		"scopes=": "/scopes", "scopes=,": "/scopes", "scopes=+": "/scopes", "scopes": "/scopes", "scopes=a%00": "/scopes", "scopes=a%22b": "/scopes",
		"scopes=orders:read&scopes=orders:read": "/scopes", "scopes=orders:*": "/scopes", "scopes=%zz": "/scopes", "scopes=orders:read;a": "/scopes",
		"scopes=" + strings.Repeat("a,", 100_000): "/scopes",
		"cost=": "/cost", "cost=0": "/cost", "cost=-1": "/cost", "cost=1.5": "/cost", "cost=1000001": "/cost", "cost=1&cost=1": "/cost", "cost=0x1": "/cost",
		"scope=orders:read": "/scope", "Scopes=orders:read": "/Scopes",
	} {
		w := d.send(request("GET", "/v1/authorize?"+query, key, ""))
		if got := pointers(want(t, w, 422, apikey.InvalidFields)); !slices.Equal(got, []string{wrong}) {
			t.Errorf("?%s: %v, want %s", query, got, wrong)
		}
	}
	want(t, d.send(request("GET", "/v1/authorize", key, "")), 200, "") // nothing was debited
}

func TestMeIsTheKeyThatAsks(t *testing.T) {
	d := newDoor(t)
	issued := d.mustCreate(t, "acme", lifecycle.New{Name: "myself"})
	w := d.send(request("GET", "/v1/api-keys/me", issued.Plaintext.Reveal(), ""))
	want(t, w, 200, "")
	if k := read[apikey.Key](t, w); k.ID != issued.Key.ID || k.Name != "myself" || w.Header().Get("ETag") != `"1"` {
		t.Errorf("me is %s", w.Body)
	}
}
