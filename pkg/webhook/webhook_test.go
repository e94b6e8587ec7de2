package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func mustParse(t testing.TB, text string) Secret {
	t.Helper()
	s, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustSign(t testing.TB, m Message, secrets ...Secret) http.Header {
	t.Helper()
	h, err := m.Sign(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The vector of the Standard Webhooks project's own libraries.
func TestASignatureIsThatOfTheStandard(t *testing.T) {
	m := Message{ID: "msg_p5jXN8AQM9LWM0D4loKWxJek", At: time.Unix(1614265330, 0), Body: []byte(`{"test": 2432232314}`)}
	h := mustSign(t, m, mustParse(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
	for name, want := range map[string]string{
		"webhook-id": m.ID, "webhook-timestamp": "1614265330", "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if len(h) != 3 {
		t.Errorf("there are %d headers", len(h))
	}
}

func TestDuringARotationOldAndNewSecretBothVerify(t *testing.T) {
	current, old, another := NewSecret(), NewSecret(), NewSecret()
	h := mustSign(t, notice, current, old)
	for name, s := range map[string]Secret{"the new": current, "the old": old} {
		if err := Verify(h, notice.Body, noon, s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Verify(h, notice.Body, noon, another, old); err != nil {
		t.Errorf("a receiver with two secrets: %v", err)
	}
	if err := Verify(h, notice.Body, noon, another); !errors.Is(err, ErrUnverified) {
		t.Errorf("another secret: %v", err)
	}
	if got := strings.Fields(h.Get("webhook-signature")); len(got) != 2 || got[0] == got[1] {
		t.Errorf("the signatures are %q", got)
	}
}

func TestWhatWasChangedOrIsNotOfNowIsNotVerified(t *testing.T) {
	secret := NewSecret()
	signature := func(h http.Header) string { return h.Get("webhook-signature") }
	for name, change := range map[string]func(http.Header) (http.Header, []byte, time.Time){
		"another body": func(h http.Header) (http.Header, []byte, time.Time) { return h, append(notice.Body, ' '), noon },
		"no body":      func(h http.Header) (http.Header, []byte, time.Time) { return h, nil, noon },
		"too old": func(h http.Header) (http.Header, []byte, time.Time) {
			return h, notice.Body, noon.Add(5*time.Minute + time.Second)
		},
		"too new": func(h http.Header) (http.Header, []byte, time.Time) {
			return h, notice.Body, noon.Add(-5*time.Minute - time.Second)
		},
		"another id":             with("webhook-id", "evt_2"),
		"a part of the id moved": with("webhook-id", "evt_01KAPQ5Z6B3X."),
		"no id":                  with("webhook-id", ""),
		"another time":           with("webhook-timestamp", fmt.Sprint(noon.Unix()+1)),
		"a time with a zero":     with("webhook-timestamp", "0"+fmt.Sprint(noon.Unix())),
		"a time with a plus":     with("webhook-timestamp", "+"+fmt.Sprint(noon.Unix())),
		"a time with a fraction": with("webhook-timestamp", fmt.Sprint(noon.Unix())+".0"),
		"a time with a space":    with("webhook-timestamp", " "+fmt.Sprint(noon.Unix())),
		"a time of RFC 3339":     with("webhook-timestamp", noon.Format(time.RFC3339)),
		"a huge time":            with("webhook-timestamp", "9223372036854775807"),
		"a time below 0":         with("webhook-timestamp", "-9223372036854775808"),
		"no time":                with("webhook-timestamp", ""),
		"no signature":           with("webhook-signature", ""),
		"an empty signature":     with("webhook-signature", "v1,"),
		"a bare version":         with("webhook-signature", "v1"),
		"only of the next version": func(h http.Header) (http.Header, []byte, time.Time) {
			h.Set("webhook-signature", "v2"+strings.TrimPrefix(signature(h), "v1"))
			return h, notice.Body, noon
		},
		"an asymmetric version": func(h http.Header) (http.Header, []byte, time.Time) {
			h.Set("webhook-signature", "v1a"+strings.TrimPrefix(signature(h), "v1"))
			return h, notice.Body, noon
		},
		"a cut signature": func(h http.Header) (http.Header, []byte, time.Time) {
			h.Set("webhook-signature", strings.TrimSuffix(signature(h), "="))
			return h, notice.Body, noon
		},
		"behind too many others": func(h http.Header) (http.Header, []byte, time.Time) {
			h.Set("webhook-signature", strings.Repeat("v1,AAAA ", maxSignatures)+signature(h))
			return h, notice.Body, noon
		},
		"two ids": func(h http.Header) (http.Header, []byte, time.Time) {
			h.Add("webhook-id", notice.ID)
			return h, notice.Body, noon
		},
		"two signatures in two headers": func(h http.Header) (http.Header, []byte, time.Time) {
			h.Add("webhook-signature", signature(h))
			return h, notice.Body, noon
		},
	} {
		h, body, now := change(mustSign(t, notice, secret))
		if err := Verify(h, body, now, secret); !errors.Is(err, ErrUnverified) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func with(header, value string) func(http.Header) (http.Header, []byte, time.Time) {
	return func(h http.Header) (http.Header, []byte, time.Time) {
		h.Set(header, value)
		return h, notice.Body, noon
	}
}

func TestWhatIsOfNowIsVerifiedAmongOtherSignatures(t *testing.T) {
	secret := NewSecret()
	for _, skew := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
		if err := Verify(mustSign(t, notice, secret), notice.Body, noon.Add(skew), secret); err != nil {
			t.Errorf("%v later: %v", skew, err)
		}
	}
	h := mustSign(t, notice, secret)
	h.Set("webhook-signature", "v2,AAAA  v1a,BBBB v1,CCCC "+h.Get("webhook-signature")+" v1,DDDD")
	if err := Verify(h, notice.Body, noon, secret); err != nil {
		t.Error(err)
	}
}

// An empty key would be a signature that everyone can make.
func TestNothingIsSignedOrVerifiedWithoutASecret(t *testing.T) {
	if _, err := notice.Sign(); err == nil {
		t.Error("signed with no secret")
	}
	if _, err := notice.Sign(NewSecret(), Secret{}); err == nil {
		t.Error("signed with a missing secret")
	}
	h := mustSign(t, notice, NewSecret())
	for name, secrets := range map[string][]Secret{"none": nil, "a missing one": {{}}} {
		if err := Verify(h, notice.Body, noon, secrets...); !errors.Is(err, ErrUnverified) {
			t.Errorf("verified with %s: %v", name, err)
		}
	}
}

func TestAMessageThatNoReceiverCouldVerifyIsNotSigned(t *testing.T) {
	for name, change := range map[string]func(*Message){
		"no id":                func(m *Message) { m.ID = "" },
		"an id with a dot":     func(m *Message) { m.ID = "evt.1" },
		"an id with a newline": func(m *Message) { m.ID = "evt\r\nX: y" },
		"a long id":            func(m *Message) { m.ID = strings.Repeat("e", 129) },
		"no time":              func(m *Message) { m.At = time.Time{} },
		"no body":              func(m *Message) { m.Body = nil },
		"a body of no JSON":    func(m *Message) { m.Body = []byte("{") },
		"a body of no UTF-8":   func(m *Message) { m.Body = []byte("\"\xff\"") },
		"a huge body":          func(m *Message) { m.Body = []byte(`"` + strings.Repeat("x", MaxBody) + `"`) },
	} {
		m := notice
		change(&m)
		if h, err := m.Sign(NewSecret()); err == nil {
			t.Errorf("%s: signed as %v", name, h)
		}
	}
}

func TestASecretHasOneSpelling(t *testing.T) {
	good := NewSecret().Reveal()
	if s := mustParse(t, good); s.Reveal() != good {
		t.Error("it is another one after Reveal and ParseSecret")
	}
	if len(good) != len("whsec_")+44 {
		t.Errorf("a new secret has %d characters", len(good))
	}
	encoded := strings.TrimPrefix(good, "whsec_")
	for name, text := range map[string]string{
		"nothing": "", "the prefix alone": "whsec_", "no prefix": encoded, "another prefix": "whsk_" + encoded, "in capitals": "WHSEC_" + encoded,
		"no padding": strings.TrimSuffix(good, "="), "more padding": good + "=", "a newline in it": good[:20] + "\n" + good[20:], "a space after it": good + " ",
		"too short": "whsec_" + strings.Repeat("AAAA", 7), "too long": "whsec_" + strings.Repeat("AAAA", 22), "base64url": "whsec_" + strings.Repeat("-_-_", 8),
		"stray bits": "whsec_" + strings.Repeat("A", 42) + "B=",
	} {
		if _, err := ParseSecret(text); err == nil {
			t.Errorf("%s was taken", name)
		} else if len(text) > 20 && strings.Contains(err.Error(), text[10:20]) {
			t.Errorf("%s: the error holds the secret", name)
		}
	}
	for _, n := range []int{8, 16, 21} { // 24, 48 and 63 bytes
		mustParse(t, "whsec_"+strings.Repeat("AAAA", n))
	}
}

func TestASecretCannotBePrinted(t *testing.T) {
	type holder struct {
		Public Secret
		hidden Secret
	}
	s := NewSecret()
	text := strings.TrimPrefix(s.Reveal(), "whsec_")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "holder", holder{s, s})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%10s"} {
		_, _ = fmt.Fprintf(&log, verb+verb+verb, s, &s, holder{s, s})
	}
	b, err := json.Marshal(map[string]any{"a": s, "b": holder{s, s}})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", s.key())} {
		if strings.Contains(log.String()+string(b), part) {
			t.Error("a secret was printed")
		}
	}
}

// No headers but those that Sign made verify, and none makes anything fall over.
func FuzzVerify(f *testing.F) {
	secret := mustParse(f, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	good := mustSign(f, notice, secret, mustParse(f, "whsec_"+strings.Repeat("AAAA", 8)))
	signature := good.Get(headerSignature)
	f.Add(notice.ID, good.Get(headerTimestamp), signature, notice.Body)
	f.Add(notice.ID+".", "-1", "v1, v1,"+signature, []byte("{}"))
	f.Add("", "1e9", "v1a,AAAA v2", []byte{})
	first := strings.Fields(signature)[0]
	f.Fuzz(func(t *testing.T, id, timestamp, signatures string, body []byte) {
		h := http.Header{headerID: {id}, headerTimestamp: {timestamp}, headerSignature: {signatures}}
		err := Verify(h, body, noon, secret)
		if err != nil && !errors.Is(err, ErrUnverified) {
			t.Error(err)
		}
		signed := id == notice.ID && timestamp == good.Get(headerTimestamp) && string(body) == string(notice.Body) && strings.Contains(signatures, first)
		if err == nil && !signed {
			t.Errorf("%q %q %q verified", id, timestamp, signatures)
		}
	})
}

// What parses prints as it was.
func FuzzParseSecret(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Add("whsec_" + strings.Repeat("A", 43) + "=")
	f.Add("whsec_\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecret(text)
		if err != nil {
			if !s.IsZero() {
				t.Error("a secret and an error")
			}
			return
		}
		if s.Reveal() != text || len(s.key()) < minSecret || len(s.key()) > maxSecret {
			t.Errorf("%q became another secret", text)
		}
		h := mustSign(t, notice, s)
		if err := Verify(h, notice.Body, noon, s); err != nil {
			t.Error(err)
		}
	})
}
