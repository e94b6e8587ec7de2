package oidc_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/oidc"
)

func TestSettingsHaveTheDefaultsThatTheDocsName(t *testing.T) {
	got, err := oidc.Parse(` [{"issuer": "https://issuer.example/", "audience": ["latchkey"]}] `)
	want := []oidc.Issuer{{Issuer: "https://issuer.example/", Audiences: []string{"latchkey"}, AudienceClaim: "aud", DefaultRole: "member",
		Claims: oidc.Claims{Organization: "org_id", User: "sub", Plan: "plan", Role: "role"},
		Roles:  map[string]string{"viewer": "viewer", "member": "member", "admin": "admin"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, none := range []string{"", " \n", "[]"} {
		if got, err := oidc.Parse(none); err != nil || len(got) != 0 {
			t.Errorf("%q: got %v, %v", none, got, err)
		}
	}
}

func TestSettingsThatCannotBeRightAreRefusedByName(t *testing.T) {
	const head, rest = `[{"issuer": "https://issuer.example", "audience": ["latchkey"]`, `}]`
	two := func(first, second string) string {
		return `[{"issuer": "https://a.example", "audience": ["x"], "organizations": ` + first + `}, {"issuer": "https://b.example", "audience": ["x"], "organizations": ` + second + `}]`
	}
	for text, named := range map[string]string{
		`{}`: "list", `[`: "JSON", `null x`: "JSON", `[7]`: "JSON", `"x"`: "list",
		head + `, "audiences": []` + rest:                               "audiences",
		head + `, "claims": {"email": "email"}` + rest:                  "email",
		head + `, "Roles": {}` + rest:                                   "Roles",
		head + `, "audience": ["y"]` + rest:                             "audience",
		head + `, "algorithms": ["HS256"]` + rest:                       "HS256",
		head + `, "algorithms": ["RS256", "none"]` + rest:               "none",
		head + `, "default_role": "owner"` + rest:                       "owner",
		head + `, "default_role": "Admin"` + rest:                       "Admin",
		head + `, "roles": {"boss": "org:admin"}` + rest:                "org:admin",
		head + `, "roles": {"": "admin"}` + rest:                        "roles",
		head + `, "jwks_url": "http://issuer.example/jwks"` + rest:      "jwks_url",
		head + `, "jwks_url": "jwks"` + rest:                            "jwks_url",
		head + `, "claims": {"role": "/a~b"}` + rest:                    "/a~b",
		head + `, "organizations": ["a b"]` + rest:                      "a b",
		head + `, "organizations": [""]` + rest:                         "organizations",
		head + `, "organizations": ["a*b"]` + rest:                      "a*b",
		head + `, "organizations": ["user_*"]` + rest:                   "user_",
		`[{"issuer": "https://issuer.example"}]`:                        "audience",
		`[{"issuer": "https://issuer.example", "audience": []}]`:        "audience",
		`[{"issuer": "https://issuer.example", "audience": [""]}]`:      "audience",
		`[{"issuer": "https://issuer.example", "audience": "x"}]`:       "audience",
		`[{"audience": ["x"]}]`:                                         "issuer",
		`[{"issuer": "http://issuer.example", "audience": ["x"]}]`:      "https",
		`[{"issuer": "http://127.0.0.1.example", "audience": ["x"]}]`:   "https",
		`[{"issuer": "accounts.example", "audience": ["x"]}]`:           "issuer",
		`[{"issuer": "ftp://issuer.example", "audience": ["x"]}]`:       "https",
		`[{"issuer": "https://u@issuer.example", "audience": ["x"]}]`:   "user information",
		`[{"issuer": "https://issuer.example?x=1", "audience": ["x"]}]`: "query",
		`[{"issuer": "https://issuer.example#x", "audience": ["x"]}]`:   "fragment",
		`[{"issuer": "https://:443", "audience": ["x"]}]`:               "host",
		`[{"issuer": "https://a.example", "audience": ["x"], "organizations": ["a"]}, {"issuer": "https://b.example", "audience": ["x"]}]`:                         "organizations is required",
		`[{"issuer": "https://a.example", "audience": ["x"], "organizations": ["a"]}, {"issuer": "https://a.example", "audience": ["y"], "organizations": ["b"]}]`: "https://a.example",
		two(`["acme"]`, `["acme"]`): "overlap", two(`["acme", "x"]`, `["y", "ac*"]`): "overlap", two(`["ac*"]`, `["acme*"]`): "overlap", two(`["*"]`, `["globex"]`): "overlap",
		two(`["acme*"]`, `["acme"]`): "overlap",
	} {
		got, err := oidc.Parse(text)
		if err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: got %v, %v, want an error that names %s", text, got, err, named)
		}
	}
	for _, text := range []string{two(`["acme", "eu-*"]`, `["globex", "us-*", "eu"]`), two(`["acme*"]`, `["acm"]`), head + `, "organizations": ["*"]` + rest,
		`[{"issuer": "http://[::1]:8080/dev/issuer", "audience": ["x"]}]`, `[{"issuer": "http://localhost:8080", "audience": ["x"]}]`} {
		if _, err := oidc.Parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNewChecksWhatParseChecks(t *testing.T) {
	for _, bad := range [][]oidc.Issuer{{{}}, {{Issuer: "https://issuer.example"}}, {{Issuer: "https://issuer.example", Audiences: []string{"x"}, Algorithms: []string{"HS256"}}}} {
		if _, err := oidc.New(bad, time.Now, nil); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// Every block of JSON in the guide is settings that are taken.
func TestTheGuidesSettingsAreTaken(t *testing.T) {
	page, err := os.ReadFile("../../docs/sign-in.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 7 {
		t.Errorf("the guide has %d blocks of JSON", len(blocks))
	}
	for _, block := range blocks {
		if issuers, err := oidc.Parse(string(block[1])); err != nil || len(issuers) == 0 {
			t.Errorf("%s\n%v", block[1], err)
		}
	}
	for _, issuer := range []string{"cognito-idp.", "auth0.com/", "/realms/", "login.microsoftonline.com/", "https://accounts.google.com"} {
		if !strings.Contains(string(page), `"issuer": "`) || !strings.Contains(string(page), issuer) {
			t.Errorf("the guide has no settings for %s", issuer)
		}
	}
}
