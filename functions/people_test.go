package functions_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/issuer"
)

// signIn is where people of the tests get their tokens. While it is down its keys cannot be had.
type signIn struct {
	*issuer.Issuer
	mux  *http.ServeMux
	mu   sync.Mutex
	down bool
}

func newSignIn(t *testing.T) *signIn {
	t.Helper()
	s := &signIn{mux: http.NewServeMux()}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	var err error
	if s.Issuer, err = issuer.New(server.URL+"/issuer", time.Now); err != nil {
		t.Fatal(err)
	}
	for pattern, h := range s.Handlers() {
		s.mux.Handle(pattern, h)
	}
	return s
}

func (s *signIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// setting is the environment of a function that takes this issuer's tokens.
func (s *signIn) setting() string {
	return `LATCHKEY_ISSUERS=[{"issuer": "` + s.URL() + `", "audience": ["` + issuer.Audience + `"]}]`
}

// token is of a person of acme.
func (s *signIn) token(t *testing.T, user, role string) string {
	t.Helper()
	return s.sign(t, map[string]any{"sub": user, "org_id": "acme", "role": role})
}

func (s *signIn) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	token, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// kms plays AWS KMS for one key: a wrapped data key is a ticket that is good for its own encryption context.
type kms struct {
	mu   sync.Mutex
	data map[string]wrapped
}

type wrapped struct{ plaintext, context string }

func newKMS(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(&kms{data: map[string]wrapped{}})
	t.Cleanup(server.Close)
	return server.URL
}

func (k *kms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		KeyID             string `json:"KeyId"`
		CiphertextBlob    string
		EncryptionContext map[string]string
	}
	err := json.NewDecoder(r.Body).Decode(&in)
	k.mu.Lock()
	defer k.mu.Unlock()
	out, context := map[string]string{"KeyId": in.KeyID}, in.EncryptionContext["latchkey"]
	switch action := r.Header.Get("X-Amz-Target"); {
	case err != nil || in.KeyID != "sealing" || context == "":
		w.WriteHeader(http.StatusBadRequest)
	case action == "TrentService.GenerateDataKey":
		ticket, key := make([]byte, 64), make([]byte, 32)
		_, _ = rand.Read(ticket)
		_, _ = rand.Read(key)
		out["CiphertextBlob"], out["Plaintext"] = base64.StdEncoding.EncodeToString(ticket), base64.StdEncoding.EncodeToString(key)
		k.data[out["CiphertextBlob"]] = wrapped{out["Plaintext"], context}
	case k.data[in.CiphertextBlob].context == context:
		out["Plaintext"] = k.data[in.CiphertextBlob].plaintext
	default:
		w.WriteHeader(http.StatusBadRequest)
		out = map[string]string{"__type": "InvalidCiphertextException"}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

func TestPeopleSignInBeforeTheFunctions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin, member := s.people.token(t, "ann", "admin"), s.people.token(t, "max", "member")
	s.tokens = append(s.tokens, admin, member)
	mine := s.issueAs(member, "/v1/api-keys", `{"project_id": "shop", "name": "mine"}`)
	other := s.issueAs(admin, "/v1/api-keys", `{"project_id": "shop", "name": "another's"}`)
	s.must(200, "GET", "/v1/api-keys/"+mine.ID, member, "")
	s.must(404, "GET", "/v1/api-keys/"+other.ID, member, "")
	s.must(200, "GET", "/v1/api-keys/"+mine.ID, admin, "")
	s.must(403, "GET", "/v1/audit", member, "")
	if a := s.must(200, "GET", "/v1/audit?actor_id=max", admin, ""); !strings.Contains(string(a.Body), `"kind":"user"`) {
		t.Errorf("%s", a.Body)
	}
	s.must(403, "PUT", "/v1/organizations/acme", admin, `{"plan": "team"}`) // no role is an operator's
	s.must(200, "GET", "/v1/organization", member, "")
	s.must(200, "POST", "/v1/api-keys/verify", admin, `{"key": "`+mine.Plaintext+`"}`)

	t.Run("not at a protected API", func(t *testing.T) {
		s.must(401, "GET", "/v1/authorize", admin, "")
		event := authorizerEvent(request(t, "GET", "/orders", admin))
		event["stageVariables"] = map[string]string{}
		if r := s.functions["authorizer"].invoke(event); r.failed != "Unauthorized" {
			t.Errorf("%q %q", r.answer, r.failed)
		}
	})
	t.Run("not with a bad token", func(t *testing.T) {
		for name, bad := range map[string]string{
			"altered":     admin[:len(admin)-4] + "AAAA",
			"expired":     s.people.sign(t, map[string]any{"sub": "ann", "org_id": "acme", "exp": time.Now().Add(-time.Hour).Unix()}),
			"for another": s.people.sign(t, map[string]any{"sub": "ann", "org_id": "acme", "aud": "another"}),
			"unsigned":    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJvcmdfaWQiOiJhY21lIn0.",
		} {
			if a := s.call("GET", "/v1/api-keys", bad, ""); a.Status != 401 {
				t.Errorf("%s: %d", name, a.Status)
			}
		}
	})
}

// A client writes into its request what the authorizer would say of an admin, and what it said of one person is not asked
// about another's key.
func TestNoClientSpeaksForAPerson(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin := s.people.token(t, "ann", "admin")
	said, status := s.authorize(request(t, "GET", "/v1/api-keys", admin))
	if status != http.StatusOK || said["kind"] != "user" || said["user_id"] != "ann" {
		t.Fatalf("%d %v", status, said)
	}
	r := request(t, "GET", "/v1/api-keys", admin)
	for name, value := range said {
		r.Header.Set(name, value.(string))
	}
	for _, test := range []struct {
		name   string
		said   map[string]any
		status int
	}{
		{"what was said of her", said, 200},
		{"nothing", nil, 503},
		{"what was said at another door", with(said, "door", ""), 503},
		{"another kind", with(said, "kind", "key"), 503},
		{"nobody", with(said, "user_id", ""), 503},
	} {
		event := restEvent(r, httpapi.Route{Pattern: "/v1/api-keys"}, test.said)
		if status, code := s.functions["list"].invoke(event).problem(t); status != test.status {
			t.Errorf("%s: %d %s", test.name, status, code)
		}
	}
	event := restEvent(request(t, "GET", "/v1/api-keys", s.manager), httpapi.Route{Pattern: "/v1/api-keys"}, said)
	if status, code := s.functions["list"].invoke(event).problem(t); status != 503 {
		t.Errorf("a key with what was said of a person: %d %s", status, code)
	}
}

// The envelope has no authorizer before it: its functions ask about the token, and refuse in their own form.
func TestTheEnvelopesFunctionsAskThemselves(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const path = "/envelope/v1/api-keys"
	me, other := s.people.token(t, "max", "member"), s.people.token(t, "ann", "admin")
	s.tokens = append(s.tokens, me, other)
	var created struct {
		Data struct{ Key, Prefix string }
	}
	s.must(201, "POST", path, me, `{"name": "CI"}`).Into(t, &created)
	s.issued = append(s.issued, created.Data.Key)
	for _, test := range []struct {
		method, path, bearer string
		status               int
		says                 string
	}{
		{"GET", path, me, 200, created.Data.Prefix},
		{"GET", path, other, 200, `"keys":[]`},
		{"GET", path, "", 401, `"Unauthorized"`},
		{"GET", path, me[:len(me)-4] + "AAAA", 401, `"Unauthorized"`},
		{"POST", path, s.manager, 403, `"Forbidden"`},
		{"DELETE", path + "/lk_live_zzzzzzzz", me, 404, `"NotFound"`},
		{"DELETE", path + "/" + created.Data.Prefix, other, 404, `"NotFound"`},
		{"DELETE", path + "/" + created.Data.Prefix, me, 200, "API key revoked"},
	} {
		body := ""
		if test.method == "POST" {
			body = `{"name": "CI"}`
		}
		a := s.call(test.method, test.path, test.bearer, body)
		if a.Status != test.status || !strings.Contains(string(a.Body), test.says) {
			t.Errorf("%s %s: %d %s", test.method, test.path, a.Status, a.Body)
		}
	}
	// What an authorizer says, or a client in its name, is not asked for.
	said, _ := s.authorize(request(t, "GET", "/v1/api-keys", other))
	event := restEvent(request(t, "GET", path, "nonsense"), httpapi.Route{Pattern: path}, said)
	if status, _ := s.functions["list"].invoke(event).problem(t); status != 401 {
		t.Errorf("with what was said of an admin: %d", status)
	}
}

func TestAnIssuerThatIsAwayIsUnavailableAndNoInitError(t *testing.T) {
	t.Parallel()
	s := newService(t)
	token := s.people.token(t, "ann", "admin")
	s.people.mu.Lock()
	s.people.down = true
	s.people.mu.Unlock()
	result := s.functions["authorizer"].invoke(authorizerEvent(request(t, "GET", "/v1/api-keys", token)))
	if result.failed == "" || result.failed == "Unauthorized" {
		t.Errorf("the authorizer answers %q, error %q", result.answer, result.failed)
	}
	if a := s.call("GET", "/envelope/v1/api-keys", token, ""); a.Status != 503 || !strings.Contains(string(a.Body), `"success":false`) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	s.must(200, "GET", "/v1/api-keys", s.manager, "") // keys need no issuer
}

// A create and a rotation are made once, however often they are asked for, and a revocation ends that.
func TestALostAnswerIsGivenAgainByTheFunctions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ask := func(path, body, token string) (status int, text string) {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+s.manager)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", `"`+token+`"`)
		w := httptest.NewRecorder()
		s.mux.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const order = `{"project_id": "shop", "name": "once"}`
	status, first := ask("/v1/api-keys", order, "one")
	if again, text := ask("/v1/api-keys", order, "one"); status != 201 || again != 201 || text != first {
		t.Fatalf("%d, then %d: another answer", status, again)
	}
	if status, text := ask("/v1/api-keys", `{"project_id": "shop", "name": "other"}`, "one"); status != 422 {
		t.Errorf("another body: %d %s", status, text)
	}
	var key struct{ ID, Key string }
	if err := json.Unmarshal([]byte(first), &key); err != nil {
		t.Fatal(err)
	}
	status, first = ask("/v1/api-keys/"+key.ID+"/rotate", `{}`, "two")
	if again, text := ask("/v1/api-keys/"+key.ID+"/rotate", `{}`, "two"); status != 200 || again != 200 || text != first {
		t.Fatalf("%d, then %d: another answer", status, again)
	}
	var next struct {
		ID  string `json:"new_key_id"`
		Key string
	}
	if err := json.Unmarshal([]byte(first), &next); err != nil {
		t.Fatal(err)
	}
	s.issued = append(s.issued, key.Key, next.Key)
	s.must(204, "DELETE", "/v1/api-keys/"+next.ID, s.manager, "")
	if status, text := ask("/v1/api-keys/"+key.ID+"/rotate", `{}`, "two"); status != 409 || !strings.Contains(text, "secret_destroyed") {
		t.Errorf("after the revocation: %d %s", status, text)
	}
}
