package issuer

import (
	"cmp"
	"encoding/json"
	"errors"
	"html"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const maxBody = 16 << 10 // bytes

// Handlers is what the issuer serves, by method and path: its discovery document, its keys, its token endpoint and its
// sign-in page.
func (i *Issuer) Handlers() map[string]http.Handler {
	path := i.base.EscapedPath()
	page := path
	if page == "" {
		page = "/{$}"
	}
	return map[string]http.Handler{
		"GET " + path + "/.well-known/openid-configuration": i.local(i.discovery),
		"GET " + path + "/jwks":                             i.local(i.keys),
		"POST " + path + "/token":                           i.local(i.token),
		"GET " + page:                                       i.local(i.page),
	}
}

// local lets nobody in who names another host than this machine: a name that somebody else's DNS leads here would make
// their page ours in the eyes of a browser.
func (i *Issuer) local(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if !loopback(strings.Trim(host, "[]")) {
			refuse(w, http.StatusForbidden, "Development's issuer is for this machine alone.")
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next(w, r)
	})
}

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer":                                i.URL(),
		"jwks_uri":                              i.URL() + "/jwks",
		"token_endpoint":                        i.URL() + "/token",
		"authorization_endpoint":                i.URL(),
		"response_types_supported":              []string{"token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []jose.SignatureAlgorithm{jose.ES256},
		"development":                           warning,
	})
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{i.key}})
}

// wish is who somebody wants to be. What is empty is no claim.
type wish struct {
	Organization string `json:"organization"`
	User         string `json:"user"`
	Role         string `json:"role"`
	Plan         string `json:"plan"`
}

// token signs whatever it is asked for, but not by a page of another site.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		refuse(w, http.StatusForbidden, "Another site's page may not sign in here.")
		return
	}
	asked, err := readWish(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	token, err := i.Sign(asked.claims())
	if err != nil {
		refuse(w, http.StatusInternalServerError, "The token could not be signed.")
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		i.show(w, shown{Asked: asked, Token: token})
		return
	}
	answer(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(Lifetime.Seconds())})
}

func readWish(w http.ResponseWriter, r *http.Request) (asked wish, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch media {
	case "application/json":
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		err = d.Decode(&asked)
	case "application/x-www-form-urlencoded":
		err = r.ParseForm()
		asked = formWish(r.PostForm)
	default:
		err = errors.New("another type")
	}
	if err != nil {
		return wish{}, errors.New("send organization, user, role and plan, each of them optional, as a form or as JSON of at most 16 KB")
	}
	return asked, nil
}

func formWish(form url.Values) wish {
	return wish{form.Get("organization"), form.Get("user"), form.Get("role"), form.Get("plan")}
}

// claims are those that pkg/oidc reads by default.
func (a wish) claims() map[string]any {
	claims := map[string]any{"sub": "dev"}
	for name, value := range map[string]string{"sub": a.User, "org_id": a.Organization, "role": a.Role, "plan": a.Plan} {
		if value != "" {
			claims[name] = value
		}
	}
	return claims
}

func (i *Issuer) page(w http.ResponseWriter, _ *http.Request) {
	i.show(w, shown{Asked: wish{Organization: "org_dev", User: "dev", Role: "admin"}})
}

const warning = "For development alone: whoever reaches this issuer is whoever they say."

// shown is what the page shows.
type shown struct {
	Action, Warning, Token string
	Asked                  wish
	Roles                  []string
}

func (i *Issuer) show(w http.ResponseWriter, s shown) {
	s.Action, s.Warning, s.Roles = i.base.EscapedPath()+"/token", warning, []string{"", "viewer", "member", "admin"}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	_, _ = io.WriteString(w, s.html()) // a client that hung up
}

// html is the page with what is shown in its places, each of them between quotes or tags. Package html/template would
// escape by itself, and be a part of every Lambda.
func (s *shown) html() string {
	token, roles := "", ""
	if s.Token != "" {
		token = strings.NewReplacer("{token}", html.EscapeString(s.Token)).Replace(signedIn)
	}
	for _, role := range s.Roles {
		selected := ""
		if role == s.Asked.Role {
			selected = " selected"
		}
		role = html.EscapeString(role)
		roles += "\n<option value=\"" + role + "\"" + selected + ">" + cmp.Or(role, "(none)") + "</option>"
	}
	return strings.NewReplacer("{warning}", html.EscapeString(s.Warning), "{signed in}", token, "{action}", html.EscapeString(s.Action),
		"{user}", html.EscapeString(s.Asked.User), "{organization}", html.EscapeString(s.Asked.Organization), "{roles}", roles,
		"{plan}", html.EscapeString(s.Asked.Plan)).Replace(signIn)
}

const signedIn = `
<label>Your token, for 12 hours. Send it as <code>Authorization: Bearer …</code>
<textarea readonly autofocus>{token}</textarea></label>`

const signIn = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sign in for development</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
.warning { border: 2px solid #b00; padding: .5rem 1rem; font-weight: bold }
label { display: block; margin: .75rem 0 }
input, select, textarea { font: inherit; display: block; width: 100%; box-sizing: border-box }
textarea { font-family: monospace; height: 12rem }
</style>
</head>
<body>
<h1>Sign in for development</h1>
<p class="warning">{warning}</p>{signed in}
<form method="post" action="{action}" autocomplete="off">
<label>User <input name="user" value="{user}" required></label>
<label>Organization (empty: the user's own) <input name="organization" value="{organization}"></label>
<label>Role <select name="role">{roles}
</select></label>
<label>Plan (empty: none) <input name="plan" value="{plan}"></label>
<button>Sign in</button>
</form>
</body>
</html>
`

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": "invalid_request", "error_description": message})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that hung up
}
