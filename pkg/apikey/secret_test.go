package apikey_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
)

func TestNeitherKeyNorHashCanBePrinted(t *testing.T) {
	minted := mustFormat(t, "lk").Mint("")
	token, err := mustFormat(t, "lk").Parse(minted.Plaintext.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	type inner struct {
		plaintext apikey.Plaintext // unexported: fmt reads it by reflection and calls no method
		hash      apikey.Hash
		token     apikey.Token
		pointer   *apikey.Plaintext
		list      []apikey.Hash
	}
	p, h := minted.Plaintext, minted.Plaintext.Hash()
	record := apikey.Record{Key: apikey.Key{ID: minted.ID}, Hash: h}
	issued := apikey.Issued{Plaintext: p}
	values := []any{p, h, &p, &h, token, &token, minted, &minted, record, &record, issued, &issued, inner{p, h, token, &p, []apikey.Hash{h}},
		&inner{p, h, token, &p, []apikey.Hash{h}}, []any{p, h}, map[string]any{"k": p, "h": h}, [1]apikey.Hash{h}}
	var out bytes.Buffer
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t", "%U", "%c", "%p", "%T"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		fmt.Fprintln(&out, fmt.Errorf("wrapped: %v", v), errors.Join(fmt.Errorf("%+v", v)))
		b, _ := json.Marshal(v)
		out.Write(b)
		for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(handler).Info("m", "v", v, slog.Group("g", "v", v))
		}
	}
	secret := p.Reveal()[len(minted.Prefix)+1:]
	for _, leak := range []string{secret, secret[:12], hex.EncodeToString(h.Bytes()), strings.ToUpper(hex.EncodeToString(h.Bytes())),
		fmt.Sprint(h.Bytes()), fmt.Sprintf("%#v", h.Bytes()), string(h.Bytes()), hex.EncodeToString([]byte(secret)),
		strings.ToUpper(hex.EncodeToString([]byte(secret)))} {
		if strings.Contains(out.String(), leak) {
			t.Fatal("something printed a key or a hash")
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Fatal("nothing was redacted: the test looks at nothing")
	}
}

func TestARecordIsNeverMarshalled(t *testing.T) {
	if _, err := json.Marshal(apikey.Record{}); err == nil {
		t.Fatal("it was")
	}
}

func TestHashesCompare(t *testing.T) {
	a, b := apikey.NewPlaintext("a").Hash(), apikey.NewPlaintext("b").Hash()
	again, err := apikey.ParseHash(a.Bytes())
	if err != nil || !a.Equal(again) || a.Equal(b) {
		t.Fatalf("equal: %v, %v", a.Equal(again), err)
	}
	var zero apikey.Hash
	if zero.Equal(zero) || zero.Equal(a) || a.Equal(zero) {
		t.Fatal("the zero hash equals something")
	}
	if _, err := apikey.ParseHash(a.Bytes()[:31]); err == nil {
		t.Fatal("31 bytes are a hash")
	}
}
