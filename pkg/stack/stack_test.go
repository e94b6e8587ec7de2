package stack_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/stack"
)

// cloud answers as CloudFormation does.
func cloud(t *testing.T, status int, outputs string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(asked), "Action=DescribeStacks") || !strings.Contains(string(asked), "StackName=latchkey") {
			t.Errorf("asked %s", asked)
		}
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		fmt.Fprint(w, outputs)
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{"AWS_ENDPOINT_URL_CLOUDFORMATION": server.URL, "AWS_REGION": "eu-central-1",
		"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token", "HOME": t.TempDir(), "AWS_PROFILE": ""} {
		t.Setenv(name, value)
	}
}

func described(members string) string {
	return `<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member>` +
		`<StackName>latchkey</StackName><StackStatus>CREATE_COMPLETE</StackStatus><CreationTime>2026-11-22T10:00:00Z</CreationTime>` +
		members + `</member></Stacks></DescribeStacksResult></DescribeStacksResponse>`
}

func TestAStackTellsWhereItsTablesAreAndHowItsKeysBegin(t *testing.T) {
	cloud(t, http.StatusOK, described(`<Parameters><member><ParameterKey>Brand</ParameterKey><ParameterValue>acme</ParameterValue></member></Parameters>
		<Outputs><member><OutputKey>KeysTable</OutputKey><OutputValue>latchkey-Keys-1</OutputValue></member>
		<member><OutputKey>AuditTable</OutputKey><OutputValue>latchkey-Audit-1</OutputValue></member>
		<member><OutputKey>ChainTable</OutputKey><OutputValue>latchkey-Chain-1</OutputValue></member>
		<member><OutputKey>EventBus</OutputKey><OutputValue>latchkey-Events-1</OutputValue></member></Outputs>`))
	got, err := stack.Environment(context.Background(), "latchkey")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_SESSION_TOKEN": "token", "LATCHKEY_KEYS_TABLE": "latchkey-Keys-1", "LATCHKEY_AUDIT_TABLE": "latchkey-Audit-1", "LATCHKEY_CHAIN_TABLE": "latchkey-Chain-1", "LATCHKEY_EVENT_BUS": "latchkey-Events-1", "LATCHKEY_BRAND": "acme"} {
		if got[name] != want {
			t.Errorf("%s is %q", name, got[name])
		}
	}
}

func TestAStackThatIsNotOursOrNotThereIsSaidToBeSo(t *testing.T) {
	cloud(t, http.StatusOK, described(""))
	if _, err := stack.Environment(context.Background(), "latchkey"); err == nil || !strings.Contains(err.Error(), "no outputs KeysTable") {
		t.Errorf("got %v", err)
	}
	cloud(t, http.StatusBadRequest, `<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>Stack with id latchkey does not exist</Message></Error></ErrorResponse>`)
	if _, err := stack.Environment(context.Background(), "latchkey"); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
}
