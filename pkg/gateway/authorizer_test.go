package gateway_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/gateway"
)

func TestTheAuthorizerAnswersEveryShape(t *testing.T) {
	golden(t, "authorizer", func(t *testing.T, event json.RawMessage) any {
		var log bytes.Buffer
		a := &gateway.Authorizer{Verifier: verifier(t), Log: slog.New(slog.NewJSONHandler(&log, nil))}
		answer := outcome(a.Handle, event)
		for name, key := range plaintexts {
			if secret := key[strings.LastIndexByte(key, '_')+1:]; strings.Contains(log.String(), secret) {
				t.Errorf("the log has the secret of %s: %s", name, &log)
			}
		}
		return answer
	})
}

// What a golden file cannot say of itself: no answer of them all lets in a key that is not to be let in.
func TestNoAnswerAllowsWhatItShouldNot(t *testing.T) {
	allowed := 0
	golden(t, "authorizer", func(t *testing.T, event json.RawMessage) any {
		a := &gateway.Authorizer{Verifier: verifier(t), Log: slog.New(slog.DiscardHandler)}
		answer := outcome(a.Handle, event)
		text := string(pretty(t, answer))
		isAllow := strings.Contains(text, `"Effect": "Allow"`) || strings.Contains(text, `"isAuthorized": true`)
		isManagement := strings.Contains(text, `"door": "management"`)
		if isAllow && !isManagement && !strings.Contains(text, `"code": "valid"`) {
			t.Errorf("allowed without being valid: %s", text)
		}
		if isAllow {
			allowed++
		}
		return answer
	})
	if allowed < 15 {
		t.Errorf("only %d answers allow: the test looks at nothing", allowed)
	}
}

func TestWithoutStageVariablesTheEnvironmentSays(t *testing.T) {
	event := func(variables string) json.RawMessage {
		return json.RawMessage(`{"version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:eu-west-1:1:a/b/GET/",
			"headers": {"authorization": "Bearer ` + plaintexts["scoped"] + `"}, "stageVariables": {` + variables + `}}`)
	}
	a := &gateway.Authorizer{Verifier: verifier(t), Log: slog.New(slog.DiscardHandler), Scopes: []string{"billing:read"}, Policy: true}
	for variables, want := range map[string]string{
		``:                                 `"Effect":"Deny"`,
		`"latchkey_scopes": "orders:read"`: `"Effect":"Allow"`,
		`"latchkey_answer": "simple"`:      `"isAuthorized":false`,
		`"latchkey_door": "management"`:    `"Effect":"Allow"`, // the scopes of protected APIs are none of its business
	} {
		answer, err := json.Marshal(outcome(a.Handle, event(variables)))
		if err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%q: %s, %v", variables, answer, err)
		}
	}
}

func TestProxiesBeforeTheGatewayAreCountedWithoutIt(t *testing.T) {
	event := func(forwarded string) json.RawMessage {
		return json.RawMessage(`{"version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:eu-west-1:1:a/b/GET/",
			"headers": {"authorization": "Bearer ` + plaintexts["networked"] + `", "x-forwarded-for": "` + forwarded + `"},
			"requestContext": {"http": {"sourceIp": "203.0.113.9"}}}`)
	}
	a := &gateway.Authorizer{Verifier: verifier(t), Log: slog.New(slog.DiscardHandler), TrustedHops: 1}
	for forwarded, want := range map[string]string{
		"192.0.2.7, 203.0.113.9":               `"isAuthorized":true`,
		"192.0.2.7":                            `"isAuthorized":true`, // should a gateway add nothing
		"192.0.2.7, 198.51.100.1, 203.0.113.9": `"isAuthorized":false`,
		"203.0.113.9":                          `"isAuthorized":false`,
		"":                                     `"isAuthorized":false`,
	} {
		answer, err := json.Marshal(outcome(a.Handle, event(forwarded)))
		if err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%q: %s, %v", forwarded, answer, err)
		}
	}
}

// No event, whatever its shape, is let in that does not hold a key which may pass.
func FuzzNoEventIsLetInWithoutAKey(f *testing.F) {
	files, err := filepath.Glob("testdata/authorizer/*.event.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		event, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.ReplaceAll(event, []byte("<active>"), []byte(plaintexts["active"])))
	}
	a := &gateway.Authorizer{Verifier: verifier(f), Log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, event []byte) {
		answer, err := a.Handle(t.Context(), event)
		if err != nil {
			return
		}
		text := string(pretty(t, answer))
		isAllow := strings.Contains(text, `"Effect": "Allow"`) || strings.Contains(text, `"isAuthorized": true`)
		if isAllow && !strings.Contains(text, `"key_id": "key_00000001"`) {
			t.Errorf("%s\nis answered\n%s", event, text)
		}
	})
}
