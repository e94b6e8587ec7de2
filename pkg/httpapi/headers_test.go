package httpapi_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// once makes a request that is to be made once.
func once(method, target, bearer, body string, tokens ...string) *http.Request {
	r := request(method, target, bearer, body)
	r.Header["Idempotency-Key"] = tokens
	return r
}

// issuing are the routes that hand secrets out, each with a body of its own. $id is a key to rotate.
var issuing = []struct{ target, body, other string }{
	{"/v1/api-keys", `{"project_id":"shop","name":"n","metadata":{"a":"<b> & é","z":[1.0,2]},"expires_at":"2027-01-01"}`, `{"project_id":"shop","name":"m"}`},
	{"/v1/keys", `{"name":"n","rate_limit_per_minute":30}`, `{"name":"n","rate_limit_per_minute":31}`},
	{"/envelope/v1/api-keys", `{"name":"n"}`, `{"name":"n" }`},
	{"/organizations/api-keys", `{"name":"n"}`, `{"name":"m"}`},
	{"/v1/api-keys/$id/rotate", `{"grace_period_seconds":60}`, `{}`},
}

// same says whether two answers are one, but for their request's id.
func same(a, b *httptest.ResponseRecorder) bool {
	ha, hb := maps.Clone(a.Header()), maps.Clone(b.Header())
	ha.Del("X-Request-Id")
	hb.Del("X-Request-Id")
	return a.Code == b.Code && a.Body.String() == b.Body.String() && fmt.Sprint(ha) == fmt.Sprint(hb)
}

// Whoever lost an answer asks again and has it, to the byte, whatever way the token is spelt: in quotes as the draft
// has it, or bare as many clients do. Another body is refused, and so is everybody else's use of the token.
func TestALostAnswerIsGivenAgain(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		stranger := v.door.organization(t, "enterprise")
		for _, r := range issuing {
			target := strings.Replace(r.target, "$id", v.mustCreate(t, v.organization, lifecycle.New{ExpiresAt: &lifecycle.Moment{Time: v.clock().Add(48 * time.Hour)}}).Key.ID.String(), 1)
			jane := v.person(t, v.organization, "jane", "admin")
			first := v.send(once("POST", target, jane, r.body, "a-token"))
			if first.Code >= 300 {
				t.Fatalf("%s: %d %s", target, first.Code, first.Body)
			}
			keys := v.count(t, v.organization)
			v.advance(23 * time.Hour)
			jane = v.person(t, v.organization, "jane", "admin") // a later token of hers
			for _, token := range []string{"a-token", `"a-token"`, `"a-token"`} {
				if again := v.send(once("POST", target, jane, r.body, token)); !same(first, again) {
					t.Errorf("%s: the answer\n%v %s\nis given again as\n%v %s", target, first.Header(), first.Body, again.Header(), again.Body)
				}
			}
			if other := v.send(once("POST", target, jane, r.other, "a-token")); other.Code != 422 || !strings.Contains(other.Body.String(), "Idempotency-Key") {
				t.Errorf("%s: another body is answered %d %s", target, other.Code, other.Body)
			}
			if n := v.count(t, v.organization); n != keys {
				t.Errorf("%s: there are %d keys, want %d", target, n, keys)
			}
			for _, another := range []string{v.person(t, v.organization, "joe", "admin"), v.person(t, stranger, "jane", "admin")} {
				if w := v.send(once("POST", target, another, r.body, "a-token")); w.Code == 422 || w.Body.String() == first.Body.String() {
					t.Errorf("%s: somebody else is answered %d %s", target, w.Code, w.Body)
				}
			}
			v.advance(2 * time.Hour)
			jane = v.person(t, v.organization, "jane", "admin")
			if w := v.send(once("POST", target, jane, r.body, "a-token")); w.Body.String() == first.Body.String() {
				t.Errorf("%s: the secret is given again after 25 hours", target)
			}
		}
	})
}

// Of many who ask at once with one token each is given the one key.
func TestManyAtOnceWithOneTokenHaveOneKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		jane := v.person(t, v.organization, "jane", "admin")
		for _, r := range issuing {
			target := strings.Replace(r.target, "$id", v.mustCreate(t, v.organization, lifecycle.New{}).Key.ID.String(), 1)
			keys := v.count(t, v.organization)
			answers := make([]*httptest.ResponseRecorder, 20)
			var all sync.WaitGroup
			for i := range answers {
				all.Go(func() { answers[i] = v.send(once("POST", target, jane, r.body, "one")) })
			}
			all.Wait()
			for _, w := range answers {
				if w.Code >= 300 || !same(w, answers[0]) {
					t.Fatalf("%s: %d %s and %d %s", target, w.Code, w.Body, answers[0].Code, answers[0].Body)
				}
			}
			if n := v.count(t, v.organization); n != keys+1 {
				t.Errorf("%s: there are %d keys, want %d", target, n, keys+1)
			}
		}
	})
}

// The winner may have taken the plan's last place: the losers are given its answer, and no refusal.
func TestManyAtOnceWithOneTokenHaveThePlansLastPlace(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		jane := v.person(t, v.door.organization(t, "trial"), "jane", "admin")
		var all sync.WaitGroup
		statuses := make([]int, 20)
		for i := range statuses {
			all.Go(func() { statuses[i] = v.send(once("POST", "/v1/keys", jane, `{"name":"n"}`, "one")).Code })
		}
		all.Wait()
		if slices.Min(statuses) != 201 || slices.Max(statuses) != 201 {
			t.Errorf("answered %v", statuses)
		}
		want(t, v.send(once("POST", "/v1/keys", jane, `{"name":"n"}`, "two")), 403, apikey.PlanRefused)
	})
}

// A secret is destroyed with its key: a replay then says so and makes no other.
func TestASecretIsDestroyedWithItsKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		ask := func() *httptest.ResponseRecorder {
			return v.send(once("POST", "/v1/api-keys", v.key.Plaintext.Reveal(), `{"project_id":"shop","name":"n"}`, "a"))
		}
		id := read[apikey.Key](t, ask()).ID.String()
		want(t, v.ask("DELETE", "/v1/api-keys/"+id, ""), 204, "")
		for range 2 {
			want(t, ask(), 409, apikey.SecretDestroyed)
		}
		jane := v.person(t, v.organization, "jane", "admin")
		in := func() *httptest.ResponseRecorder {
			return v.send(once("POST", "/envelope/v1/api-keys", jane, `{"name":"n"}`, "a"))
		}
		prefix := createdPrefix(t, in())
		has(t, v.ask("DELETE", "/v1/keys/"+prefix, ""), 200)
		if code := envelopeCode(t, in(), 409); code != "Conflict" {
			t.Errorf("the envelope says %s", code)
		}
	})
}

// A replay is authorized afresh.
func TestWhoMayNoLongerIsNotGivenTheAnswerAgain(t *testing.T) {
	d := newDoor(t)
	ask := func(role string) *httptest.ResponseRecorder {
		return d.send(once("POST", "/v1/api-keys", d.person(t, "acme", "jane", role), `{"project_id":"shop","name":"n","scopes":["keys:read"]}`, "a"))
	}
	want(t, ask("admin"), 201, "")
	want(t, ask("viewer"), 403, apikey.InsufficientScope)
	want(t, ask("member"), 403, apikey.Escalation)
	want(t, ask("admin"), 201, "")
}

func TestAnIdempotencyKeyIsOneToken(t *testing.T) {
	d := newDoor(t)
	send := func(values ...string) *httptest.ResponseRecorder {
		return d.send(once("POST", "/v1/api-keys", d.manager.Plaintext.Reveal(), `{"project_id":"shop","name":"n"}`, values...))
	}
	before := d.count(t, "acme")
	for _, values := range [][]string{{""}, {`""`}, {`"`}, {`"a`}, {`a"`}, {`a"b`}, {`"a"b`}, {`"a";p=1`}, {`"a", "b"`}, {"a,b"}, {"a b"}, {`"a b"`}, {"a\tb"}, {`"a\b"`}, {`"a\"`}, {`"a\`},
		{"é"}, {`"é"`}, {"a\x00"}, {"\x7f"}, {strings.Repeat("a", 256)}, {`"` + strings.Repeat("a", 256) + `"`}, {"a", "a"}, {"a", ""}} {
		if w := send(values...); w.Code != 400 || read[apikey.Error](t, w).Code != apikey.InvalidHeader {
			t.Errorf("%q is answered %d %s", values, w.Code, w.Body)
		}
	}
	if n := d.count(t, "acme"); n != before {
		t.Errorf("there are %d keys, want %d", n, before)
	}
	for _, two := range [][2]string{{"a", `"a"`}, {`\`, `"\\"`}, {strings.Repeat("~", 255), `"` + strings.Repeat("~", 255) + `"`}, {"8e03978e-40d5-43e8-bc93-6894a57f9324", `"8e03978e-40d5-43e8-bc93-6894a57f9324"`},
		{"a;b=c:d", `"a;b=c:d"`}} {
		if first, second := send(two[0]), send(two[1]); first.Code != 201 || !same(first, second) {
			t.Errorf("%s and %s are answered %s and %s", two[0], two[1], first.Body, second.Body)
		}
	}
	if first, second := send(`"a,b\"c"`), send(`"a,b\"c"`); first.Code != 201 || !same(first, second) {
		t.Errorf("what needs its quotes is answered %s and %s", first.Body, second.Body)
	}
}

// The header says nothing at routes that hand no secret out.
func TestElsewhereAnIdempotencyKeyIsIgnored(t *testing.T) {
	d := newDoor(t)
	id := d.mustCreate(t, "acme", lifecycle.New{}).Key.ID.String()
	for _, row := range [][2]string{{"GET", "/v1/api-keys"}, {"GET", "/v1/api-keys/" + id}, {"POST", "/v1/api-keys/" + id + "/archive"}, {"PUT", "/v1/api-keys/" + id + "/reactivate"}, {"DELETE", "/v1/keys/" + id}} {
		has(t, d.send(once(row[0], row[1], d.manager.Plaintext.Reveal(), "", `"ill-formed`, "")), 200)
	}
}

func TestWithoutASealerAnIdempotencyKeyIsRefused(t *testing.T) {
	d := newDoor(t)
	d.Keys.Seal = nil
	want(t, d.send(once("POST", "/v1/keys", d.manager.Plaintext.Reveal(), `{"name":"n"}`, "a")), 422, apikey.NoSealingKey)
	has(t, d.do("POST", "/v1/keys", `{"name":"n"}`), 201)
}

// RFC 9110, section 13.1.1: what was changed meanwhile is not overwritten.
func TestIfMatchGuardsAgainstALostUpdate(t *testing.T) {
	onBothStores(t, func(t *testing.T, v *visitor) {
		id := v.mustCreate(t, v.organization, lifecycle.New{}).Key.ID.String()
		patch := func(name string, ifMatch ...string) *httptest.ResponseRecorder {
			r := request("PATCH", "/v1/api-keys/"+id, v.key.Plaintext.Reveal(), `{"name":"`+name+`"}`)
			if len(ifMatch) > 0 {
				r.Header["If-Match"] = ifMatch
			}
			return v.send(r)
		}
		first := patch("one", `"1"`)
		if want(t, first, 200, ""); first.Header().Get("ETag") != `"2"` || read[apikey.Key](t, first).Name != "one" {
			t.Errorf("patched is %v %s", first.Header(), first.Body)
		}
		want(t, patch("two", `"1"`), 412, apikey.VersionMismatch)
		want(t, patch("two", `"99"`), 412, apikey.VersionMismatch)
		want(t, patch("three", "*"), 200, "")
		want(t, patch("four"), 200, "")
		for _, values := range [][]string{{""}, {"1"}, {`W/"1"`}, {`"1", "2"`}, {`"1"`, `"1"`}, {`"01"`}, {`"0"`}, {`"-1"`}, {`"a"`}, {`""`}, {"**"}, {`"1`}, {`"99999999999999999999"`}, {`*, "1"`}} {
			if w := patch("five", values...); w.Code != 400 || read[apikey.Error](t, w).Code != apikey.InvalidHeader {
				t.Errorf("%q is answered %d %s", values, w.Code, w.Body)
			}
		}
		if k := read[apikey.Key](t, v.ask("GET", "/v1/api-keys/"+id, "")); k.Name != "four" {
			t.Errorf("the name is %s", k.Name)
		}
	})
}
