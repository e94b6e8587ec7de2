package amazon_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/amazon"
)

func TestLoopbackOnlyNeverLeavesTheMachine(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"http://127.0.0.1:8000": true, "http://127.8.9.1:8000": true, "http://[::1]:8000": true, "http://localhost:8000": true,
		"": false, "127.0.0.1:8000": false, "http://192.0.2.1:8000": false, "http://example.com": false,
		"http://localhost.example.com": false, "http://127.0.0.1.example.com": false, "https://dynamodb.us-east-1.amazonaws.com": false,
		"http://0.0.0.0:8000": false, "http://[::]:8000": false, "http://2130706433:8000": false, "http://127.1:8000": false,
	} {
		if _, err := (amazon.Access{Endpoint: endpoint, LoopbackOnly: true}).Config(); (err == nil) != ok {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

func TestLoopbackOnlyRefusesAtTheLastMoment(t *testing.T) {
	config, err := amazon.Access{Endpoint: "http://localhost:8000", LoopbackOnly: true}.Config()
	if err != nil {
		t.Fatal(err)
	}
	web, ok := config.HTTPClient.(*http.Client)
	if !ok || web.Transport.(*http.Transport).Proxy != nil {
		t.Error("it may go through a proxy")
	}
	_, err = web.Get("http://192.0.2.1:8000") // as if a name had led there
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1:8000 is not on this machine") {
		t.Errorf("dialling 192.0.2.1 says %v", err)
	}
}

func TestAClientNeedsToBeToldWhoItIs(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_REGION", "us-east-1")
	if _, err := (amazon.Access{}).Config(); err == nil {
		t.Error("it took its credentials from the environment")
	}
}
