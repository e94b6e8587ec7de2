package main_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/storetest"
)

var credentials = []string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}

// run runs latchkeyd to its end and returns what it said and its exit code.
func run(t *testing.T, environment []string, flags ...string) (said string, code int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), keytest.Binary(t), append([]string{"-listen", "127.0.0.1:0"}, flags...)...) // 8080 may be in use
	c.Env = append([]string{}, environment...)
	out, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

func TestLatchkeydRefusesToStartWrongAndSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		environment []string
		flags       string
		want        string
	}{
		"development in public":        {nil, "-listen 0.0.0.0:0", "development mode serves on this machine only"},
		"development by every address": {nil, "-listen :0", "development mode serves on this machine only"},
		"development elsewhere":        {nil, "-dev -dynamodb http://192.0.2.1:8000", "not on this machine"},
		"development on AWS":           {nil, "-dev -dynamodb https://dynamodb.us-east-1.amazonaws.com", "not on this machine"},
		"a clock of its own, for real": {nil, "-dynamodb http://127.0.0.1:1 -clock-offset 1h", "add -dev"},
		"no credentials":               {nil, "-dynamodb http://127.0.0.1:1", "AWS_ACCESS_KEY_ID"},
		"an unknown flag":              {nil, "-no-such-flag", "flag provided but not defined"},
		"an argument":                  {nil, "serve", "unexpected argument"},
		"a port alone":                 {nil, "-listen 8081", "with host and port"},
		"no such database":             {nil, "-dev -dynamodb http://127.0.0.1:1", "is DynamoDB Local running"},
		"a wrong brand":                {[]string{"LATCHKEY_BRAND=Not A Brand"}, "-listen 127.0.0.1:0", "LATCHKEY_BRAND"},
		"people alone, and none":       {append(credentials, "LATCHKEY_MANAGEMENT_AUTH=jwt"), "-dynamodb http://127.0.0.1:1", "needs LATCHKEY_ISSUERS"},
		"a wrong origin":               {[]string{"LATCHKEY_ALLOWED_ORIGINS=example.com"}, "-listen 127.0.0.1:0", "https://example.com"},
		"a wrong number":               {[]string{"LATCHKEY_TRUSTED_HOPS=many"}, "-listen 127.0.0.1:0", "LATCHKEY_TRUSTED_HOPS"},
		"too long a grace":             {[]string{"LATCHKEY_GRACE_SECONDS=604801"}, "-listen 127.0.0.1:0", "604800"},
		"a bus on AWS":                 {[]string{"LATCHKEY_EVENT_BUS=mine"}, "-listen 127.0.0.1:0", "LATCHKEY_EVENTBRIDGE_ENDPOINT: development speaks to this machine alone"},
		"secrets on AWS":               {[]string{"LATCHKEY_SECRETS_MANAGER=true"}, "-listen 127.0.0.1:0", "LATCHKEY_SECRETSMANAGER_ENDPOINT"},
		"secrets elsewhere":            {[]string{"LATCHKEY_SECRETS_MANAGER=true", "LATCHKEY_SECRETSMANAGER_ENDPOINT=https://secretsmanager.us-east-1.amazonaws.com"}, "-dev", "not on this machine"},
		"secrets, perhaps":             {[]string{"LATCHKEY_SECRETS_MANAGER=yes"}, "-dev", "must be true or false"},
		"a ready file nowhere":         {nil, "-listen 127.0.0.1:0 -ready-file /nowhere/ready.json", "ready file"},
	} {
		t.Run(name, func(t *testing.T) {
			said, code := run(t, c.environment, strings.Fields(c.flags)...)
			if code != 1 || !strings.Contains(said, c.want) {
				t.Errorf("exit %d: %s", code, said)
			}
		})
	}
	if said, code := run(t, nil, "-help"); code != 0 || !strings.Contains(said, "-ready-file") {
		t.Errorf("help: exit %d: %s", code, said)
	}
}

func TestAnAddressInUseIsSaid(t *testing.T) {
	d := keytest.Start(t)
	said, code := run(t, nil, "-listen", strings.TrimPrefix(d.URL, "http://"))
	if code != 1 || !strings.Contains(said, "choose another address, such as -listen") {
		t.Errorf("exit %d: %s", code, said)
	}
}

func TestTheReadyFileIsForItsOwnerAlone(t *testing.T) {
	d := keytest.Start(t)
	info, err := os.Stat(d.ReadyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %v, %v", info, err)
	}
	b, err := os.ReadFile(d.ReadyFile)
	if err != nil {
		t.Fatal(err)
	}
	var ready map[string]string
	if err := json.Unmarshal(b, &ready); err != nil || len(ready) != 6 || ready["organization_id"] != "org_dev" ||
		ready["url"] != d.URL || ready["demo_url"] != d.URL+"/demo/orders" || ready["issuer_url"] != d.URL+"/dev/issuer" || ready["jwt"] == "" {
		t.Errorf("got %v, %v", slices.Sorted(maps.Keys(ready)), err)
	}
}

func TestItStopsOnRequestAndFinishesWhatIsUnderWay(t *testing.T) {
	d := keytest.Start(t)
	d.Create(nil)
	d.Stop()
	if d.ExitCode() != 0 || !strings.Contains(d.Output(), "stopping") {
		t.Errorf("exit %d: %s", d.ExitCode(), d.Output())
	}
}

func TestHealthIsToldWithoutAKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, d *keytest.Daemon) {
		for _, path := range []string{"/healthz", "/readyz"} {
			if a := d.Call("GET", path, "", nil); a.Status != http.StatusOK {
				t.Errorf("%s: %d", path, a.Status)
			}
		}
	})
}

func TestTheDemoTakesKeysWithItsScopeAlone(t *testing.T) {
	d := keytest.Start(t)
	reader, other := d.Create(map[string]any{"scopes": []string{"orders:read"}}), d.Create(nil)
	for key, want := range map[string]int{"": 401, reader.Plaintext: 200, other.Plaintext: 403, d.ManagementKey: 403} {
		if a := d.Call("GET", d.DemoURL, key, nil); a.Status != want {
			t.Errorf("got %d, want %d: %s", a.Status, want, a.Body)
		}
	}
	if a := d.Call("POST", d.DemoURL, reader.Plaintext, nil); a.Status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.Status)
	}
}

func TestEveryRequestLeavesOneLineThatNamesItsKeyByPrefix(t *testing.T) {
	d := keytest.Start(t)
	key := d.Create(map[string]any{"scopes": []string{"orders:read"}})
	d.Call("GET", d.DemoURL, key.Plaintext, nil)
	d.Call("GET", "/v1/api-keys/"+key.ID+"?x="+key.Plaintext, d.ManagementKey, nil)
	d.Call("GET", "/"+key.Plaintext, key.Plaintext, nil)
	d.Stop()
	var lines []map[string]any
	for line := range strings.Lines(d.Output()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if fields["msg"] == "request" {
			lines = append(lines, fields)
		}
	}
	if len(lines) != 4 {
		t.Fatalf("%d lines: %s", len(lines), d.Output())
	}
	for i, want := range []map[string]any{
		{"method": "POST", "route": "/v1/api-keys", "status": 201.0, "code": "valid"},
		{"method": "GET", "route": "/demo/orders", "status": 200.0, "code": "valid", "key_prefix": key.Prefix},
		{"method": "GET", "route": "/v1/api-keys/{id}", "status": 422.0, "code": "invalid_fields"},
		{"method": "GET", "status": 404.0, "code": "not_found"},
	} {
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, lines[i][name], value)
			}
		}
	}
}

func TestALaterDevelopmentProcessAddsAKeyOfItsOwnAndChangesNothingElse(t *testing.T) {
	s := newTables(t)
	first := s.start(t)
	key := first.Create(nil)
	second := s.start(t)
	if first.ManagementKey == second.ManagementKey || second.Authorize(key.Plaintext) != http.StatusOK {
		t.Error("the second process does not serve the first one's keys")
	}
	for _, admin := range []string{first.ManagementKey, second.ManagementKey} {
		var keys []keytest.Issued
		first.Call("GET", "/v1/api-keys", admin, nil).Into(t, &keys)
		if len(keys) != 3 {
			t.Errorf("%d keys", len(keys))
		}
	}
}

func TestTwoDevelopmentProcessesMayStartAtOnce(t *testing.T) {
	t.Parallel()
	s := newTables(t)
	for name := range map[string]bool{"one": true, "other": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.start(t)
		})
	}
}

func TestDevelopmentLeavesTablesAloneThatItDidNotMake(t *testing.T) {
	t.Parallel()
	s := newTables(t)
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: s.endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := dynamo.CreateTables(context.Background(), client, s.names()); err != nil {
		t.Fatal(err)
	}
	mine := newTables(t)
	for name, try := range map[string]tables{"all": s, "the keys": {s.endpoint, s.keys, mine.audit, mine.chain},
		"the audit": {s.endpoint, mine.keys, s.audit, mine.chain}, "the chain": {s.endpoint, mine.keys, mine.audit, s.chain}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a mark that nobody puts
			said, code := run(t, try.environment(), "-dev", "-dynamodb", s.endpoint, "-listen", "127.0.0.1:0")
			if code != 1 || !strings.Contains(said, "was not made for development") {
				t.Errorf("exit %d: %s", code, said)
			}
		})
	}
}

func TestItDoesNotServeWithoutItsTables(t *testing.T) {
	credentials := []string{"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "LATCHKEY_KEYS_TABLE=missing"}
	said, code := run(t, credentials, "-dynamodb", storetest.DynamoDBLocal(t), "-listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(said, "ResourceNotFoundException") || !strings.Contains(said, "missing") {
		t.Errorf("exit %d: %s", code, said)
	}
}
