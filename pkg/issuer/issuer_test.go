package issuer_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/latchkey/latchkey/pkg/issuer"
)

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// start serves an issuer as latchkeyd does, below a path.
func start(t *testing.T) *issuer.Issuer {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i, err := issuer.New(server.URL+"/dev/issuer", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for pattern, h := range i.Handlers() {
		mux.Handle(pattern, h)
	}
	return i
}

// ask sends a request, with headers in pairs of a name and a value, and returns the answer and its body.
func ask(t *testing.T, method, address, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(headers); n += 2 {
		r.Header.Set(headers[n], headers[n+1])
	}
	r.Host = r.Header.Get("Host")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(b)
}

const form = "application/x-www-form-urlencoded"

// claims are those of a token, checked with the keys that the issuer publishes where its discovery document says.
func claims(t *testing.T, i *issuer.Issuer, token string) map[string]any {
	t.Helper()
	var document struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	_, body := ask(t, "GET", i.URL()+"/.well-known/openid-configuration", "")
	if err := json.Unmarshal([]byte(body), &document); err != nil || document.Issuer != i.URL() {
		t.Fatalf("%s: %v", body, err)
	}
	var keys jose.JSONWebKeySet
	_, body = ask(t, "GET", document.JWKS, "")
	if err := json.Unmarshal([]byte(body), &keys); err != nil || len(keys.Keys) != 1 || !keys.Keys[0].IsPublic() || strings.Contains(body, `"d"`) {
		t.Fatalf("%s: %v", body, err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := signed.Verify(keys)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestATokenHasWhatAnIssuersTokensHave(t *testing.T) {
	i := start(t)
	asked := map[string]any{"sub": "ada"}
	one, err := i.Sign(asked)
	if err != nil {
		t.Fatal(err)
	}
	got := claims(t, i, one)
	if got["iss"] != i.URL() || got["aud"] != "latchkey" || got["sub"] != "ada" || got["jti"] == "" ||
		got["iat"] != float64(now.Unix()) || got["exp"] != float64(now.Add(12*time.Hour).Unix()) || len(got) != 6 || len(asked) != 1 {
		t.Errorf("got %v", got)
	}
	two, err := i.Sign(map[string]any{"aud": "other", "exp": 1, "iss": "https://issuer.example", "jti": "x", "iat": 0})
	if err != nil {
		t.Fatal(err)
	}
	if got := claims(t, i, two); got["aud"] != "other" || got["exp"] != 1.0 || got["iss"] != "https://issuer.example" || got["jti"] != "x" || got["iat"] != 0.0 {
		t.Errorf("got %v", got)
	}
}

func TestWhoeverAsksIsWhoeverTheySay(t *testing.T) {
	i := start(t)
	for body, media := range map[string]string{
		`{"user":"ada","organization":"acme","role":"viewer","plan":"pro"}`: "application/json; charset=utf-8",
		"user=ada&organization=acme&role=viewer&plan=pro":                   form,
	} {
		answer, text := ask(t, "POST", i.URL()+"/token", body, "Content-Type", media)
		var got struct {
			Token   string `json:"access_token"`
			Type    string `json:"token_type"`
			Expires int    `json:"expires_in"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || answer.StatusCode != 200 || got.Type != "Bearer" || got.Expires != 12*3600 || answer.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %s", answer.StatusCode, text)
		}
		if c := claims(t, i, got.Token); c["sub"] != "ada" || c["org_id"] != "acme" || c["role"] != "viewer" || c["plan"] != "pro" {
			t.Errorf("got %v", c)
		}
	}
	_, text := ask(t, "POST", i.URL()+"/token", "user=ada&plan=", "Content-Type", form)
	token := regexp.MustCompile(`[\w-]+\.[\w-]+\.[\w-]+`).FindString(text)
	if c := claims(t, i, token); c["sub"] != "ada" || len(c) != 6 {
		t.Errorf("what was left out is a claim: %v", c)
	}
}

func TestThePageSignsInAndSaysWhatItIs(t *testing.T) {
	i := start(t)
	answer, page := ask(t, "GET", i.URL(), "")
	if answer.StatusCode != 200 || !strings.Contains(page, "whoever reaches this issuer is whoever they say") || !strings.Contains(page, `action="/dev/issuer/token"`) {
		t.Errorf("%d %s", answer.StatusCode, page)
	}
	if csp := answer.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("the page allows %q", csp)
	}
	const script = `"><script>alert(1)</script>`
	body := url.Values{"user": {script}, "organization": {script}, "plan": {script}, "role": {"member"}}.Encode()
	answer, page = ask(t, "POST", i.URL()+"/token", body, "Content-Type", form, "Accept", "text/html,*/*", "Sec-Fetch-Site", "same-origin")
	token := regexp.MustCompile(`<textarea[^>]*>([^<]*)</textarea>`).FindStringSubmatch(page)
	if answer.StatusCode != 200 || token == nil || strings.Contains(page, "<script>") || !strings.Contains(page, `value="member" selected`) {
		t.Fatalf("%d %s", answer.StatusCode, page)
	}
	if c := claims(t, i, token[1]); c["role"] != "member" {
		t.Errorf("got %v", c)
	}
}

func TestAnotherSitesPageCannotSignAnybodyIn(t *testing.T) {
	i := start(t)
	own, err := url.Parse(i.URL())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		headers []string
		status  int
	}{
		"no browser":                   {nil, 200},
		"its own page":                 {[]string{"Sec-Fetch-Site", "same-origin", "Origin", "http://" + own.Host}, 200},
		"its own page, an old browser": {[]string{"Origin", "http://" + own.Host}, 200},
		"another site":                 {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"another port":                 {[]string{"Sec-Fetch-Site", "same-site"}, 403},
		"another origin":               {[]string{"Origin", "https://evil.example"}, 403},
		"another port's origin":        {[]string{"Origin", "http://127.0.0.1:1"}, 403},
		"a sandbox":                    {[]string{"Origin", "null"}, 403},
		"a name that leads here":       {[]string{"Host", "evil.example:" + own.Port(), "Sec-Fetch-Site", "same-origin", "Origin", "http://evil.example:" + own.Port()}, 403},
		"this machine's name":          {[]string{"Host", "localhost:" + own.Port(), "Sec-Fetch-Site", "same-origin"}, 200},
	} {
		answer, body := ask(t, "POST", i.URL()+"/token", "user=ada", append(c.headers, "Content-Type", form)...)
		if answer.StatusCode != c.status || strings.Contains(body, "access_token") != (c.status == 200) {
			t.Errorf("%s: %d", name, answer.StatusCode)
		}
	}
	for _, path := range []string{"", "/jwks", "/.well-known/openid-configuration"} {
		if answer, _ := ask(t, "GET", i.URL()+path, "", "Host", "evil.example"); answer.StatusCode != 403 {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
}

func TestWhatIsNoWishIsRefused(t *testing.T) {
	i := start(t)
	for body, media := range map[string]string{
		"user=ada": "text/plain", `{"user":1}`: "application/json", `{"admin":true}`: "application/json", `[]`: "application/json", "%zz": form,
		"user=" + strings.Repeat("a", 20<<10): form, "": "",
	} {
		if answer, text := ask(t, "POST", i.URL()+"/token", body, "Content-Type", media); answer.StatusCode != 400 || !strings.Contains(text, "organization, user, role and plan") {
			t.Errorf("%.30q: %d %s", body, answer.StatusCode, text)
		}
	}
}

func TestItIsOfThisMachineAlone(t *testing.T) {
	for _, base := range []string{"", "/dev/issuer", "https://issuer.example", "http://192.0.2.1/dev/issuer", "http://127.0.0.1.example/x", "http://127.0.0.1:8080/", "ftp://127.0.0.1/x", "http://127.0.0.1/x?y", "http://0.0.0.0/x", "http://localhost.example"} {
		if _, err := issuer.New(base, time.Now); err == nil {
			t.Errorf("%q is taken", base)
		}
	}
	for _, base := range []string{"http://127.0.0.1:8080/dev/issuer", "http://[::1]:8080/dev/issuer", "http://localhost", "https://127.0.0.2/x"} {
		if i, err := issuer.New(base, time.Now); err != nil || i.URL() != base {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestTwoIssuersHaveTwoKeys(t *testing.T) {
	_, a := ask(t, "GET", start(t).URL()+"/jwks", "")
	_, b := ask(t, "GET", start(t).URL()+"/jwks", "")
	if a == b {
		t.Error("both have the same key")
	}
}
