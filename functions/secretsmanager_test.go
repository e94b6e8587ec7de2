package functions_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/latchkey/latchkey/pkg/amazon"
	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/secrets"
)

// asked are the functions that another service of AWS asks in a form of its own. They serve no route.
var asked = map[string]bool{"secretsmanager": true}

// vault is a Secrets Manager that is played, by ourselves or by moto.
type vault interface {
	url() string
	set(t *testing.T, name, value string)
	begin(t *testing.T, name string) (arn, token string) // a rotation, as Secrets Manager does
	reads(t *testing.T, name string) string              // what everybody who reads the secret gets
}

type ours struct{ *keytest.SecretsManager }

func (v ours) url() string                          { return v.URL }
func (v ours) set(_ *testing.T, name, value string) { v.Set(name, version(1), value) }
func (v ours) begin(_ *testing.T, name string) (arn, token string) {
	return keytest.ARN(name), v.Begin(name, version(2))
}
func (v ours) reads(_ *testing.T, name string) string {
	value, _ := v.Value(name)
	return value
}

func version(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// moto is the one of PyPI, which plays AWS by the answers that were seen of it.
type moto struct {
	endpoint string
	api      *secretsmanager.Client
}

// newMoto starts moto where tools/sam has put it. With LATCHKEY_REQUIRE_PYTHON it must be there.
func newMoto(t *testing.T) moto {
	t.Helper()
	cache, err := os.UserCacheDir()
	found, _ := filepath.Glob(filepath.Join(cache, "latchkey", "sam-*", "lib", "python3*", "site-packages", "moto", "server.py"))
	if err != nil || len(found) == 0 {
		without := t.Skip
		if os.Getenv("LATCHKEY_REQUIRE_PYTHON") != "" {
			without = t.Fatal
		}
		without("NOT TESTED against moto, which plays Secrets Manager: it is not there. tools/sam/install installs it")
	}
	home := strings.Split(found[0], string(filepath.Separator)+"lib"+string(filepath.Separator))[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(address)
	server := exec.Command(filepath.Join(home, "bin", "python3"), "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	config, err := amazon.Access{Endpoint: "http://" + address, LoopbackOnly: true, AttemptTimeout: patience}.Config()
	if err != nil {
		t.Fatal(err)
	}
	m := moto{"http://" + address, secretsmanager.NewFromConfig(config)}
	deadline, tick := time.After(patience), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return m
		}
		select {
		case <-deadline:
			t.Fatal("moto does not start")
		case <-tick.C:
		}
	}
}

func (m moto) url() string { return m.endpoint }

func (m moto) set(t *testing.T, name, value string) {
	t.Helper()
	if _, err := m.api.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: &name, SecretString: &value}); err != nil {
		t.Fatal(err)
	}
}

// begin has moto, which knows no rotation without a function of its own, make a version without a value, and gives it the
// stages that it has on AWS.
func (m moto) begin(t *testing.T, name string) (arn, token string) {
	t.Helper()
	before, err := m.api.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		t.Fatal(err)
	}
	token = version(2)
	begun, err := m.api.RotateSecret(t.Context(), &secretsmanager.RotateSecretInput{SecretId: &name, ClientRequestToken: &token,
		RotationRules: &types.RotationRulesType{AutomaticallyAfterDays: aws.Int64(30)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, move := range []secretsmanager.UpdateSecretVersionStageInput{
		{VersionStage: aws.String("AWSCURRENT"), RemoveFromVersionId: &token, MoveToVersionId: before.VersionId},
		{VersionStage: aws.String("AWSPREVIOUS"), RemoveFromVersionId: &token},
		{VersionStage: aws.String("AWSPENDING"), MoveToVersionId: &token},
	} {
		move.SecretId = &name
		if _, err := m.api.UpdateSecretVersionStage(t.Context(), &move); err != nil {
			t.Fatal(err)
		}
	}
	return *begun.ARN, token
}

func (m moto) reads(t *testing.T, name string) string {
	t.Helper()
	out, err := m.api.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
	if err != nil {
		t.Fatal(err)
	}
	return *out.SecretString
}

// keyed is the key in a secret's value, and its id.
func keyed(t *testing.T, value string) (key string, id apikey.ID) {
	t.Helper()
	var v struct {
		Key string
		ID  apikey.ID `json:"key_id"`
	}
	if err := json.Unmarshal([]byte(value), &v); err != nil || v.Key == "" {
		t.Fatalf("a secret's value is not an object with a key: %v", err)
	}
	return v.Key, v.ID
}

// onBoth runs a test with each Secrets Manager that there is.
func onBoth(t *testing.T, test func(*testing.T, deployed, vault)) {
	for name, open := range map[string]func(t *testing.T) vault{
		"ours": func(t *testing.T) vault { return ours{keytest.NewSecretsManager(t)} },
		"moto": func(t *testing.T) vault { return newMoto(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, d := open(t), deploy(t)
			d.environment = append(d.environment, "LATCHKEY_SECRETS_MANAGER=true", "LATCHKEY_SECRETSMANAGER_ENDPOINT="+v.url())
			test(t, d, v)
		})
	}
}

// quiet demands that functions printed no key.
func quiet(t *testing.T, keys []string, functions ...*function) {
	t.Helper()
	for _, f := range functions {
		if printed := f.output(); keytest.Leaked(printed, keys) != "" || aKey.MatchString(printed) || strings.Contains(printed, keytest.Words) {
			t.Errorf("%s printed a key, or words of AWS", f.name)
		}
	}
}

func TestAKeyIsPutIntoItsSecretByTheFunctionsOfTheSchedule(t *testing.T) {
	onBoth(t, func(t *testing.T, d deployed, v vault) {
		before := d.yesterday(t)
		first := before.key(t, lifecycle.New{Name: "kept", RotationIntervalDays: new(1), RotationToSecretsManager: true})
		token, err := d.app.Keys.Format.Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		sweep, deliver := start(t, "sweep", d.environment...), start(t, "deliver", d.environment...)
		sweep.run()
		for range 2 {
			deliver.run()
		}
		key, id := keyed(t, v.reads(t, secrets.Name("acme", token.ID())))
		old, err := d.app.Keys.Get(d.operator(), token.ID())
		if err != nil || old.ReplacedByKeyID == nil || *old.ReplacedByKeyID != id || old.GraceExpiresAt == nil {
			t.Errorf("%+v, %v", old, err)
		}
		if seen := d.app.Verifier.Look(t.Context(), key, "acme"); !seen.Allowed() {
			t.Errorf("the secret's key is %s", seen.Code)
		}
		quiet(t, []string{first, key}, sweep, deliver)
	})
}

func TestSecretsManagerHasAKeyRotatedByItsFunction(t *testing.T) {
	onBoth(t, func(t *testing.T, d deployed, v vault) {
		first := d.key(t, lifecycle.New{Name: "kept", RotationToSecretsManager: true})
		parsed, err := d.app.Keys.Format.Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		name := secrets.Name("acme", parsed.ID())
		v.set(t, name, fmt.Sprintf(`{"key": %q}`, first))
		arn, token := v.begin(t, name)
		f := []*function{start(t, "secretsmanager", d.environment...), start(t, "secretsmanager", d.environment...)}
		for _, step := range []string{"createSecret", "setSecret", "testSecret", "finishSecret"} {
			event := map[string]string{"SecretId": arn, "ClientRequestToken": token, "Step": step}
			for n := range 3 { // a repeat changes nothing, whoever makes it
				if r := f[n%2].invoke(event); r.failed != "" || string(r.answer) != "null" {
					t.Fatalf("%s: %q, %s", step, r.answer, r.failed)
				}
			}
			reads, _ := keyed(t, v.reads(t, name))
			for _, key := range []string{first, reads} {
				if seen := d.app.Verifier.Look(t.Context(), key, "acme"); !seen.Allowed() {
					t.Fatalf("after %s a key is %s", step, seen.Code)
				}
			}
		}
		key, id := keyed(t, v.reads(t, name))
		old, err := d.app.Keys.Get(d.operator(), parsed.ID())
		if err != nil || key == first || *old.ReplacedByKeyID != id || old.GraceExpiresAt == nil {
			t.Errorf("%+v, %v", old, err)
		}
		if actions, active := d.told(t); strings.Count(strings.Join(actions, " "), "api_key.rot") != 2 || active != 1 {
			t.Errorf("%v, %d keys count", actions, active)
		}
		quiet(t, []string{first, key}, f...)
	})
}

// Whatever fails is an error that says what to do, for whoever looks at the rotation, and holds no secret and no words of AWS.
func TestARotationThatCannotGoOnSaysWhy(t *testing.T) {
	aws := keytest.NewSecretsManager(t)
	d := deploy(t)
	d.environment = append(d.environment, "LATCHKEY_SECRETSMANAGER_ENDPOINT="+aws.URL)
	key := d.key(t, lifecycle.New{Name: "not meant for it"})
	parsed, err := d.app.Keys.Format.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	name := secrets.Name("acme", parsed.ID())
	aws.Set(name, version(1), fmt.Sprintf(`{"key": %q}`, key))
	token := aws.Begin(name, version(2))
	f := start(t, "secretsmanager", d.environment...)
	create := map[string]string{"SecretId": keytest.ARN(name), "ClientRequestToken": token, "Step": "createSecret"}
	fails := func(event any, says string) {
		t.Helper()
		r := f.invoke(event)
		if !strings.Contains(r.failed, says) || keytest.Leaked(r.failed, []string{key}) != "" || strings.Contains(r.failed, keytest.Words) {
			t.Errorf("it says %q, want %q", r.failed, says)
		}
	}
	fails(create, "rotation_to_secrets_manager")
	fails(tick(t, "secretsmanager"), "ResourceNotFoundException")
	fails("nonsense", "cannot be read")
	aws.Fail(func(string) keytest.SecretsFault { return keytest.SecretsFault{Code: "AccessDeniedException"} })
	fails(create, "AccessDeniedException")
	aws.Delete(name)
	aws.Fail(nil)
	fails(create, "scheduled for deletion")
	quiet(t, []string{key}, f)
}
