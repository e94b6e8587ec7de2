package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/gateway"
)

func TestTheAuthorizerAnswersEveryShape(t *testing.T) {
	golden(t, "authorizer", func(t *testing.T, event json.RawMessage) any {
		var log bytes.Buffer
		a := &gateway.Authorizer{Verifier: verifier(t), People: whose, Log: slog.New(slog.NewJSONHandler(&log, nil))}
		answer := outcome(a.Handle, event)
		for name, key := range plaintexts {
			if secret := key[strings.LastIndexByte(key, '_')+1:]; strings.Contains(log.String(), secret) {
				t.Errorf("the log has the secret of %s: %s", name, &log)
			}
		}
		for name, token := range tokens {
			for part := range strings.SplitSeq(token, ".") {
				if strings.Contains(log.String(), part) || strings.Contains(string(pretty(t, answer)), part) {
					t.Errorf("the log or the answer has a part of the token %s: %s", name, &log)
				}
			}
		}
		return answer
	})
}

// What a golden file cannot say of itself: no answer of them all lets in a key that is not to be let in.
func TestNoAnswerAllowsWhatItShouldNot(t *testing.T) {
	allowed := 0
	golden(t, "authorizer", func(t *testing.T, event json.RawMessage) any {
		a := &gateway.Authorizer{Verifier: verifier(t), People: whose, Log: slog.New(slog.DiscardHandler)}
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

// Whatever event holds a person's token: only the management door of a REST or an HTTP API opens for it, and elsewhere it
// is a malformed key.
func TestATokenCountsOnlyAtTheManagementDoor(t *testing.T) {
	looked := 0
	golden(t, "authorizer", func(t *testing.T, event json.RawMessage) any {
		asked := false
		a := &gateway.Authorizer{Verifier: verifier(t), Log: slog.New(slog.DiscardHandler),
			People: func(ctx context.Context, token string) (caller.Caller, error) {
				asked = true
				return whose(ctx, token)
			}}
		answer := outcome(a.Handle, event)
		var e struct {
			Type           string
			StageVariables struct {
				Door string `json:"latchkey_door"`
			}
		}
		if err := json.Unmarshal(event, &e); err != nil {
			return answer
		}
		door := e.Type == "REQUEST" && e.StageVariables.Door == "management" && !strings.Contains(t.Name(), "websocket")
		if asked && !door {
			t.Errorf("a token was looked at where it does not count: %s", event)
		}
		for name, token := range tokens {
			text := string(pretty(t, answer))
			refused := strings.Contains(text, `"error"`) || strings.Contains(text, `"isAuthorized": false`)
			if strings.Contains(string(event), token) && !door && !refused {
				t.Errorf("the token of %s got in: %s", name, text)
			}
			if strings.Contains(string(event), token) {
				looked++
			}
		}
		return answer
	})
	if looked < 10 {
		t.Errorf("only %d events have a token: the test looks at nothing", looked)
	}
}

// Without People, as where no issuer is set, a token is no more than a malformed key.
func TestWithoutPeopleKeysAloneSignIn(t *testing.T) {
	event := json.RawMessage(`{"version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:eu-west-1:1:a/b/GET/",
		"headers": {"authorization": "Bearer ` + tokens["admin"] + `"}, "stageVariables": {"latchkey_door": "management"}}`)
	a := &gateway.Authorizer{Verifier: verifier(t), Log: slog.New(slog.DiscardHandler)}
	if _, err := a.Handle(t.Context(), event); err == nil || err.Error() != "Unauthorized" {
		t.Errorf("%v", err)
	}
}

// The gateway's 401 cannot say what is wrong with a token, so the log does.
func TestTheLogSaysWhyATokenWasRefused(t *testing.T) {
	for name, want := range map[string]string{
		"admin":       `"level":"INFO","msg":"decision","shape":"http-2.0","api":"","gateway_request_id":"","code":"valid","client":"invalid IP","error":"","organization_id":"acme","user_id":"auth0|ann"`,
		"forged":      `"level":"INFO","msg":"decision","shape":"http-2.0","api":"","gateway_request_id":"","code":"invalid_token","client":"invalid IP","error":"invalid_token: The token is not signed by a key of its issuer: sign in again."`,
		"unreachable": `"level":"ERROR","msg":"decision","shape":"http-2.0","api":"","gateway_request_id":"","code":"unavailable","client":"invalid IP","error":"unavailable: The keys of the token's issuer cannot be had at the moment. (issuer https://login.example.com: no keys)"`,
	} {
		var log bytes.Buffer
		a := &gateway.Authorizer{Verifier: verifier(t), People: whose, Log: slog.New(slog.NewJSONHandler(&log, nil))}
		_, _ = a.Handle(t.Context(), json.RawMessage(`{"version": "2.0", "type": "REQUEST", "routeArn": "arn:aws:execute-api:eu-west-1:1:a/b/GET/",
			"headers": {"authorization": "Bearer `+tokens[name]+`"}, "stageVariables": {"latchkey_door": "management"}}`))
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s: %s", name, &log)
		}
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
		event = bytes.ReplaceAll(event, []byte("<admin>"), []byte(tokens["admin"]))
		f.Add(bytes.ReplaceAll(event, []byte("<active>"), []byte(plaintexts["active"])))
	}
	a := &gateway.Authorizer{Verifier: verifier(f), People: whose, Log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, event []byte) {
		answer, err := a.Handle(t.Context(), event)
		if err != nil {
			return
		}
		text := string(pretty(t, answer))
		isAllow := strings.Contains(text, `"Effect": "Allow"`) || strings.Contains(text, `"isAuthorized": true`)
		isPerson := strings.Contains(text, `"user_id": "auth0|ann"`) && strings.Contains(text, `"door": "management"`)
		if isAllow && !isPerson && !strings.Contains(text, `"key_id": "key_00000001"`) {
			t.Errorf("%s\nis answered\n%s", event, text)
		}
	})
}
