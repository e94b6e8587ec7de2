package seal_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/seal"
)

const (
	keyARN   = "arn:aws:kms:us-east-1:000000000000:key/11111111-1111-4111-8111-111111111111"
	otherARN = "arn:aws:kms:us-east-1:000000000000:key/22222222-2222-4222-8222-222222222222"
)

// asked is a request of KMS, as far as we use its API.
type asked struct {
	Action                                      string `json:"-"`
	KeyId, KeySpec, CiphertextBlob              string
	EncryptionContext                           map[string]string
	EncryptionAlgorithm, GrantTokens, Recipient any
}

// fakeKMS answers GenerateDataKey and Decrypt as KMS does. A wrapped key is a ticket: KMS knows whose it is, and nothing
// can be made of it elsewhere.
type fakeKMS struct {
	url string

	mu     sync.Mutex
	keys   map[string]asked // by the wrapped key: under which key and context
	data   map[string]string
	asked  []asked
	faults []string // what the next requests meet: an error code, "hang", "stall", "garble", or anything else as the body of a 200
	deaf   bool     // Decrypt takes anything and gives the last data key
	done   chan struct{}
	t      *testing.T
}

func newKMS(t *testing.T) *fakeKMS {
	t.Helper()
	k := &fakeKMS{keys: map[string]asked{}, data: map[string]string{}, done: make(chan struct{}), t: t}
	server := httptest.NewServer(k)
	t.Cleanup(func() { close(k.done); server.Close() })
	k.url = server.URL
	return k
}

func (k *fakeKMS) sealer(t *testing.T, keyID string) *seal.Sealer {
	t.Helper()
	return sealerAt(t, amazon.Access{Endpoint: k.url, LoopbackOnly: true, AttemptTimeout: 10 * time.Second}, keyID)
}

func sealerAt(t *testing.T, access amazon.Access, keyID string) *seal.Sealer {
	t.Helper()
	s, err := seal.NewKMS(access, keyID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (k *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	signature := r.Header.Get("Authorization")
	if !strings.HasPrefix(signature, "AWS4-HMAC-SHA256 Credential=development/") || !strings.Contains(signature, "/us-east-1/kms/aws4_request, ") {
		k.t.Error("a request is not signed for KMS")
	}
	var in asked
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		k.t.Errorf("a request is no JSON: %v", err)
	}
	in.Action = strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	k.asked = append(k.asked, in)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if len(k.faults) > 0 {
		fault := k.faults[0]
		k.faults = k.faults[1:]
		k.fail(w, fault)
		return
	}
	k.answer(w, in)
}

func (k *fakeKMS) answer(w http.ResponseWriter, in asked) {
	switch in.Action {
	case "GenerateDataKey":
		if in.KeySpec != "AES_256" {
			k.t.Errorf("a data key of %q was asked for", in.KeySpec)
		}
		data, wrapped := random(32), random(184)
		k.keys[wrapped], k.data[wrapped], k.data[""] = in, data, data
		reply(w, map[string]string{"KeyId": in.KeyId, "Plaintext": data, "CiphertextBlob": wrapped})
	case "Decrypt":
		was, ok := k.keys[in.CiphertextBlob]
		switch {
		case k.deaf:
			reply(w, map[string]string{"KeyId": in.KeyId, "Plaintext": k.data[""], "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
		case !ok || len(in.EncryptionContext) != 1 || was.EncryptionContext["latchkey"] != in.EncryptionContext["latchkey"]:
			k.fail(w, "InvalidCiphertextException")
		case was.KeyId != in.KeyId:
			k.fail(w, "IncorrectKeyException")
		default:
			reply(w, map[string]string{"KeyId": in.KeyId, "Plaintext": k.data[in.CiphertextBlob], "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
		}
	default:
		k.t.Errorf("KMS was asked to %q", in.Action)
	}
}

// message is what our errors must not repeat.
const message = "User: arn:aws:sts::000000000000:assumed-role/teller/x is not authorized"

func (k *fakeKMS) fail(w http.ResponseWriter, fault string) {
	switch {
	case fault == "hang":
		<-k.done
	case fault == "stall":
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-k.done
	case strings.HasSuffix(fault, "Exception"):
		w.WriteHeader(http.StatusBadRequest)
		reply(w, map[string]string{"__type": fault, "message": message})
	case fault == "garble":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			k.t.Error(err)
			return
		}
		_, _ = conn.Write([]byte(message + "\r\n\r\n"))
		_ = conn.Close()
	default:
		_, _ = w.Write([]byte(fault))
	}
}

func reply(w http.ResponseWriter, body map[string]string) { _ = json.NewEncoder(w).Encode(body) }

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// calls are the ways to ask KMS, each on something that would succeed.
var calls = map[string]func(context.Context, *seal.Sealer, []byte) ([]byte, error){
	"Seal": func(ctx context.Context, s *seal.Sealer, _ []byte) ([]byte, error) {
		return s.Seal(ctx, []byte(secret), bound)
	},
	"Open": func(ctx context.Context, s *seal.Sealer, sealed []byte) ([]byte, error) {
		return s.Open(ctx, sealed, bound)
	},
}

func TestKMSIsToldTheKeyAndTheBound(t *testing.T) {
	k := newKMS(t)
	s := k.sealer(t, keyARN)
	if _, err := s.Open(t.Context(), mustSeal(t, s, secret), bound); err != nil {
		t.Fatal(err)
	}
	if len(k.asked) != 2 || k.asked[0].Action != "GenerateDataKey" || k.asked[1].Action != "Decrypt" {
		t.Fatalf("KMS was asked %d times, want one GenerateDataKey and one Decrypt", len(k.asked))
	}
	for _, a := range k.asked {
		if a.KeyId != keyARN || len(a.EncryptionContext) != 1 || a.EncryptionContext["latchkey"] != bound {
			t.Errorf("%s: key %s, context %v", a.Action, a.KeyId, a.EncryptionContext)
		}
	}
}

func TestEverySecretHasADataKeyOfItsOwn(t *testing.T) {
	k := newKMS(t)
	s := k.sealer(t, keyARN)
	mustSeal(t, s, secret)
	mustSeal(t, s, secret)
	if len(k.keys) != 2 {
		t.Errorf("two secrets have %d data keys", len(k.keys))
	}
}

// KMS holds the wrapped key to its context. Our own encryption holds it too, so that neither is the only one.
func TestAChangeThatKMSWouldLetPassIsRefused(t *testing.T) {
	k := newKMS(t)
	s := k.sealer(t, keyARN)
	sealed := mustSeal(t, s, secret)
	k.deaf = true
	if got, err := s.Open(t.Context(), sealed, bound); err != nil || string(got) != secret {
		t.Fatalf("the KMS that takes anything: %v", err)
	}
	for i := range sealed {
		changed := append([]byte(nil), sealed...)
		changed[i] ^= 1
		refused(t, s, changed, bound, "a byte changed")
	}
	refused(t, s, sealed, bound+"x", "another bound")
}

func TestKMSErrorsAreNamedByTheirCodeAlone(t *testing.T) {
	for name, call := range calls {
		for _, code := range []string{"ThrottlingException", "AccessDeniedException", "NotFoundException", "DisabledException", "KMSInvalidStateException"} {
			k := newKMS(t)
			s := k.sealer(t, keyARN)
			sealed := mustSeal(t, s, secret)
			k.faults = []string{code, code, code, code, code}
			got, err := call(t.Context(), s, sealed)
			if err == nil || errors.Is(err, seal.ErrSealed) || got != nil {
				t.Errorf("%s, %s: %d bytes, error %v", name, code, len(got), err)
				continue
			}
			if !strings.Contains(err.Error(), code) {
				t.Errorf("%s: %q does not name %s", name, err, code)
			}
			holdsNothing(t, err)
		}
	}
}

// holdsNothing refuses an error in which, at any depth, a message of KMS or something secret stands.
func holdsNothing(t *testing.T, err error) {
	t.Helper()
	for ; err != nil; err = errors.Unwrap(err) {
		for _, word := range []string{"assumed-role", "000000000000", "authorized", "lk_live", secret, "Plaintext"} {
			if strings.Contains(err.Error(), word) {
				t.Errorf("an error says more than the code: it holds %q", word)
			}
		}
	}
}

func TestWhatCannotHaveBeenSealedIsRefusedWithoutAskingKMS(t *testing.T) {
	k := newKMS(t)
	s := k.sealer(t, keyARN)
	sealed := mustSeal(t, s, secret)
	refused(t, s, nil, bound, "nothing")
	refused(t, s, sealed[:100], bound, "half a wrapped key")
	refused(t, s, append([]byte{1, 0xff, 0xff}, make([]byte, 0xffff)...), bound, "a wrapped key too long for KMS")
	refused(t, s, mustSeal(t, seal.NewLocal([32]byte{1}), secret), bound, "another kind")
	refused(t, s, sealed, "", "no bound")
	refused(t, s, sealed, strings.Repeat("b", seal.MaxBound+1), "a bound too long")
	if len(k.asked) != 1 {
		t.Errorf("KMS was asked %d times, want once, for the sealing", len(k.asked))
	}
}

func TestAThrottledCallIsTriedAgain(t *testing.T) {
	for name, call := range calls {
		k := newKMS(t)
		s := k.sealer(t, keyARN)
		sealed := mustSeal(t, s, secret)
		k.faults = []string{"ThrottlingException", "ThrottlingException"}
		if _, err := call(t.Context(), s, sealed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyUnwrappingMeansThatItWasSealedOtherwise(t *testing.T) {
	for _, code := range []string{"InvalidCiphertextException", "IncorrectKeyException"} {
		k := newKMS(t)
		s := k.sealer(t, keyARN)
		sealed := mustSeal(t, s, secret)
		k.faults = []string{code}
		refused(t, s, sealed, bound, code)
		k.faults = []string{code}
		if _, err := s.Seal(t.Context(), []byte(secret), bound); err == nil || errors.Is(err, seal.ErrSealed) {
			t.Errorf("Seal, %s: %v", code, err)
		}
	}
}

func TestAnAnswerOfKMSThatMakesNoSenseIsAnError(t *testing.T) {
	short := `{"KeyId":"k","Plaintext":"` + random(16) + `","CiphertextBlob":"` + random(184) + `"}`
	for _, body := range []string{"garble", "", "{}", "[]", "null", "<html>", `{"Plaintext":`, `{"Plaintext":"%%%","CiphertextBlob":"%%%"}`, `{"Plaintext":7}`, short,
		`{"Plaintext":"` + random(32) + `"}`, `{"Plaintext":"` + random(32) + `","CiphertextBlob":"` + random(6145) + `"}`} {
		for name, call := range calls {
			k := newKMS(t)
			s := k.sealer(t, keyARN)
			sealed := mustSeal(t, s, secret)
			k.faults = []string{body, body, body}
			got, err := call(t.Context(), s, sealed)
			if err == nil || got != nil {
				t.Errorf("%s took an answer of %d bytes", name, len(body))
			}
			holdsNothing(t, err)
		}
	}
}

func TestAKMSThatHangsAnswersByTheDeadline(t *testing.T) {
	for name, call := range calls {
		for _, fault := range []string{"hang", "stall"} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			hung(t, name+", "+fault, fault, 10*time.Second, func(s *seal.Sealer, sealed []byte) ([]byte, error) {
				return call(ctx, s, sealed)
			})
			cancel()
			hung(t, name+", "+fault+", without a deadline", fault, 20*time.Millisecond, func(s *seal.Sealer, sealed []byte) ([]byte, error) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // so that a failure is none of ten minutes
				defer cancel()
				return call(ctx, s, sealed)
			})
		}
	}
}

// hung is a call of a KMS that takes requests and finishes no answer.
func hung(t *testing.T, what, fault string, attempt time.Duration, call func(*seal.Sealer, []byte) ([]byte, error)) {
	t.Helper()
	k := newKMS(t)
	sealed := mustSeal(t, k.sealer(t, keyARN), secret)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { k.fail(w, fault) }))
	t.Cleanup(server.CloseClientConnections)
	s := sealerAt(t, amazon.Access{Endpoint: server.URL, LoopbackOnly: true, AttemptTimeout: attempt}, keyARN)
	begun := time.Now()
	got, err := call(s, sealed)
	if took := time.Since(begun); err == nil || errors.Is(err, seal.ErrSealed) || got != nil || took > 5*time.Second {
		t.Errorf("%s: %d bytes, error %v after %v", what, len(got), err, took)
	}
	holdsNothing(t, err)
}

func TestAKMSThatIsNotThereIsAnErrorThatSaysSo(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	s := sealerAt(t, amazon.Access{Endpoint: server.URL, LoopbackOnly: true}, keyARN)
	if _, err := s.Seal(t.Context(), []byte(secret), bound); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

func TestNewKMSNeedsAKeyAndSomeoneToBe(t *testing.T) {
	for what, access := range map[string]amazon.Access{
		"no key":         {Endpoint: "http://127.0.0.1:1", LoopbackOnly: true},
		"no credentials": {Region: "us-east-1"},
	} {
		keyID := keyARN
		if what == "no key" {
			keyID = ""
		}
		if _, err := seal.NewKMS(access, keyID); err == nil {
			t.Errorf("%s, and no error", what)
		}
	}
}
