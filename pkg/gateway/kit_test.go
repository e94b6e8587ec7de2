package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/gateway"
	"github.com/latchkey/latchkey/pkg/verify"
)

var update = flag.Bool("update", false, "write what is answered now as the golden answers")

// plaintexts are the keys of the events in testdata, which name them as <active>.
var plaintexts = map[string]string{
	"active":       "lk_live_00000001_activeactiveactiveactiveactive1Y4Wlb",
	"wrong-secret": "lk_live_00000001_otherotherotherotherotherother2cDV6s",
	"scoped":       "lk_live_00000002_scopedscopedscopedscopedscoped3AZqqW",
	"unknown":      "lk_live_00000003_unknownunknownunknownunknownun20yBfa",
	"revoked":      "lk_live_00000004_revokedrevokedrevokedrevokedre2tNIkM",
	"expired":      "lk_live_00000005_expiredexpiredexpiredexpiredex2H4R4U",
	"disabled":     "lk_live_00000006_disableddisableddisableddisabl0ghipN",
	"limited":      "lk_live_00000007_limitedlimitedlimitedlimitedli46xXzJ",
	"networked":    "lk_live_00000008_networkednetworkednetworkednet2ugHiX",
	"management":   "lk_live_00000009_managementmanagementmanagement1KUk7E",
	"broken":       "lk_live_0000000A_brokenbrokenbrokenbrokenbroken4ECcJv",
}

// tokens are the people's tokens of the events in testdata, which name them as <admin>. What stands between the dots is
// made up: here nobody looks.
var tokens = map[string]string{
	"admin":       "eyJhbGciOiJFUzI1NiJ9.adminadminadmin.adminsignature",
	"member":      "eyJhbGciOiJFUzI1NiJ9.membermembermember.membersignature",
	"forged":      "eyJhbGciOiJub25lIn0.forgedforgedforged.forgedsignature",
	"unreachable": "eyJhbGciOiJFUzI1NiJ9.unreachable.unreachablesignature",
}

// people are those whom oidc would find in the tokens.
var people = map[string]caller.Caller{
	"admin": {Kind: caller.User, OrganizationID: "acme", ID: "auth0|ann", Plan: "team",
		Scopes: []string{"keys:read", "keys:write", "keys:verify", "audit:read"}},
	"member": {Kind: caller.User, OrganizationID: "user_0123456789abcdef0123456789abcdef", ID: "max@example.com", Own: true,
		Scopes: []string{"keys:read", "keys:write"}},
}

// whose is gateway.Authorizer's People.
func whose(_ context.Context, token string) (caller.Caller, error) {
	for name, c := range people {
		if token == tokens[name] {
			return c, nil
		}
	}
	if token == tokens["unreachable"] {
		e := apikey.Errorf(apikey.Unavailable, "The keys of the token's issuer cannot be had at the moment.")
		e.Cause = errors.New("issuer https://login.example.com: no keys")
		return caller.Caller{}, e
	}
	return caller.Caller{}, apikey.Errorf(apikey.InvalidToken, "The token is not signed by a key of its issuer: sign in again.")
}

var now = time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC)

// shelf is a verify.Store that never changes. It breaks at the key named broken.
type shelf map[apikey.ID]verify.Hot

func newShelf(t testing.TB) shelf {
	t.Helper()
	s := shelf{}
	s.put(t, "active", func(h *verify.Hot) { h.MinuteLimit, h.MinuteCount = new(int64(60)), 12 })
	s.put(t, "scoped", func(h *verify.Hot) {
		h.Scopes = []string{"orders:read", "orders:write", "keys:read"}
		h.End = now.Add(36*time.Hour + 125*time.Millisecond)
		h.EnvironmentID, h.ExternalID = "production", "user|1@example.com"
	})
	s.put(t, "revoked", func(h *verify.Hot) { h.State = apikey.Revoked })
	s.put(t, "expired", func(h *verify.Hot) { h.End = now })
	s.put(t, "disabled", func(h *verify.Hot) { h.State = apikey.Disabled })
	s.put(t, "limited", func(h *verify.Hot) {
		h.MinuteLimit, h.MinuteCount, h.DayLimit, h.DayCount = new(int64(60)), 60, new(int64(1000)), 500
	})
	s.put(t, "networked", func(h *verify.Hot) {
		h.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	})
	s.put(t, "management", func(h *verify.Hot) { h.Scopes = apikey.ManagementScopes() })
	return s
}

func (s shelf) put(t testing.TB, name string, change func(*verify.Hot)) {
	t.Helper()
	token, err := format(t).Parse(plaintexts[name])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	hot := verify.Hot{State: apikey.Active, Hash: token.Hash(),
		Identity: verify.Identity{KeyID: token.ID(), OrganizationID: "acme", ProjectID: "shop"}}
	change(&hot)
	s[token.ID()] = hot
}

func (s shelf) Debit(_ context.Context, d verify.Debit) (verify.Hot, bool, error) {
	hot, ok := s[d.ID]
	switch {
	case d.ID.String() == "key_0000000A":
		return hot, false, errors.New("the store is away")
	case !ok:
		return hot, false, verify.ErrNoKey
	}
	return hot, verify.Refusal(&hot, &d) == apikey.Valid, nil
}

func (s shelf) Look(ctx context.Context, d verify.Debit) (verify.Hot, error) {
	hot, _, err := s.Debit(ctx, d)
	return hot, err
}

func (s shelf) Forget(context.Context, apikey.ID, []apikey.Window) error { return nil }

func (s shelf) Hint(context.Context, apikey.ID, string, time.Time) error { return nil }

func format(t testing.TB) apikey.Format {
	t.Helper()
	f, err := apikey.NewFormat("lk")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func verifier(t testing.TB) *verify.Verifier {
	return &verify.Verifier{Store: newShelf(t), Format: format(t), Now: func() time.Time { return now }}
}

// golden gives every event of a folder to answer and compares what comes of it with the file beside the event.
func golden(t *testing.T, folder string, answer func(*testing.T, json.RawMessage) any) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.event.json"))
	if err != nil || len(files) < 20 {
		t.Fatalf("only %d events: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".event.json"), func(t *testing.T) {
			event, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, credentials := range []map[string]string{plaintexts, tokens} {
				for name, text := range credentials {
					event = bytes.ReplaceAll(event, []byte("<"+name+">"), []byte(text))
				}
			}
			compare(t, strings.TrimSuffix(file, ".event.json")+".answer.json", pretty(t, answer(t, event)))
		})
	}
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func pretty(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// outcome is what Lambda would be told.
func outcome(h gateway.Handler, event json.RawMessage) any {
	answer, err := h(context.Background(), event)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	return answer
}
