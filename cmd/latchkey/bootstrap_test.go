package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/dynamo"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/storetest"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "latchkey")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "latchkey")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := keytest.Main(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// typed runs latchkey as typed and tells what it printed and how it ended.
func typed(t *testing.T, environment []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), binary, args...)
	var out, said bytes.Buffer
	c.Env, c.Stdout, c.Stderr = append([]string{}, environment...), &out, &said
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), said.String(), c.ProcessState.ExitCode()
}

func TestBootstrapMakesTheFirstKeyOnceAndItWorks(t *testing.T) {
	endpoint, name := storetest.DynamoDBLocal(t), rand.Text()
	client, err := dynamo.NewClient(dynamo.Config{Endpoint: endpoint, LoopbackOnly: true, AttemptTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := dynamo.CreateTables(context.Background(), client, dynamo.Tables{Keys: "keys-" + name, Audit: "audit-" + name, Chain: "chain-" + name}); err != nil {
		t.Fatal(err)
	}
	tables := []string{"LATCHKEY_KEYS_TABLE=keys-" + name, "LATCHKEY_AUDIT_TABLE=audit-" + name, "LATCHKEY_CHAIN_TABLE=chain-" + name}

	key, said, code := typed(t, tables, "bootstrap", "--dynamodb", endpoint)
	if code != 0 || !strings.HasPrefix(key, "lk_live_") || strings.Contains(said, key) {
		t.Fatalf("exit %d: %s", code, said)
	}
	if again, said, code := typed(t, tables, "bootstrap", "--dynamodb", endpoint); code != 0 || again != "" || !strings.Contains(said, "--new-key") {
		t.Errorf("again: exit %d, %s", code, said)
	}
	other, said, code := typed(t, tables, "bootstrap", "--dynamodb", endpoint, "--new-key", "--plan", "free")
	if code != 0 || other == "" || other == key || !strings.Contains(said, "left as it is") {
		t.Errorf("a new key: exit %d, %s", code, said)
	}

	if small, said, code := typed(t, append(tables, "LATCHKEY_DYNAMODB_ENDPOINT=http://127.0.0.1:1"), "bootstrap", "--dynamodb", endpoint,
		"--organization", "small", "--plan", "free"); code != 0 || small == "" {
		t.Errorf("on a small plan, and with another address in the environment: exit %d, %s", code, said)
	}

	d := keytest.StartIn(t, append(tables, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"), "-dynamodb", endpoint)
	for _, admin := range []string{key, other} {
		a := d.Call("POST", "/v1/api-keys", admin, map[string]any{"project_id": "shop", "name": "first", "scopes": []string{"orders:read"}})
		if a.Status != http.StatusCreated {
			t.Errorf("with the key: %d %s", a.Status, a.Body)
		}
	}
}

func TestWhatIsTypedWrongIsExplained(t *testing.T) {
	endpoint := storetest.DynamoDBLocal(t)
	for name, c := range map[string]struct {
		args string
		want string
	}{
		"nowhere":         {"bootstrap", "--stack NAME, or --dynamodb URL"},
		"two places":      {"bootstrap --stack a --dynamodb " + endpoint, "can't be used together"},
		"no such table":   {"bootstrap --dynamodb " + endpoint, "latchkey-keys"},
		"no such command": {"bootstrip", "unexpected argument"},
		"no such flag":    {"bootstrap --nothing", "unknown flag"},
		"no credentials":  {"bootstrap --stack latchkey", "AWS"},
	} {
		t.Run(name, func(t *testing.T) {
			environment := []string{"AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=us-east-1", "HOME=" + t.TempDir()}
			out, said, code := typed(t, environment, strings.Fields(c.args)...)
			if code == 0 || out != "" && !strings.Contains(out, "Usage") || !strings.Contains(said, c.want) {
				t.Errorf("exit %d: %s%s", code, out, said)
			}
		})
	}
}
