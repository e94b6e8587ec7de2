package httpapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// who asks, by column: people of acme by their role, keys of acme by the one scope they have (service has none of the
// service's own, and manager has all), and other, a key of another organization with all of them.
const who = `nobody viewer member admin read write verify audit org service manager other`

// cells is who is answered how. In a target, $own is a key that the asker made, $id one that somebody else of acme made,
// $managing one that holds keys:read, and $archived one that holds it and is archived; all but $own are somebody else's. $hook is a webhook of acme, and
// $delivery one to it.
const cells = `
                                                  nobody viewer member admin read write verify audit org service manager other
POST   /v1/api-keys                                  401    403    201   201  403   201    403   403 403     403     201   201
POST   /v1/api-keys           granting:keys:read     401    403    403   201  403   403    403   403 403     403     201   201
POST   /v1/api-keys           granting:org:admin     401    403    403   403  403   403    403   403 403     403     201   201
POST   /v1/api-keys           granting:orders:read   401    403    201   201  403   201    403   403 403     403     201   201
POST   /v1/api-keys           granting:billing:read  401    403    403   403  403   403    403   403 403     403     403   403
GET    /v1/api-keys                                  401    200    200   200  200   403    403   403 403     403     200   200
GET    /v1/api-keys/$id                              401    200    404   200  200   403    403   403 403     403     200   404
GET    /v1/api-keys/$own                             401    200    200   200  200   403    403   403 403     403     200   404
PATCH  /v1/api-keys/$id       name                   401    403    404   200  403   200    403   403 403     403     200   404
PATCH  /v1/api-keys/$own      name                   401    403    200   200  403   200    403   403 403     403     200   404
PATCH  /v1/api-keys/$own      granting:keys:read     401    403    403   200  403   403    403   403 403     403     200   404
PATCH  /v1/api-keys/$own      granting:org:admin     401    403    403   403  403   403    403   403 403     403     200   404
PATCH  /v1/api-keys/$managing daily_limit            401    403    404   200  403   403    403   403 403     403     200   404
PATCH  /v1/api-keys/$managing disabled               401    403    404   200  403   403    403   403 403     403     200   404
POST   /v1/api-keys/$id/archive                      401    403    404   200  403   200    403   403 403     403     200   404
POST   /v1/api-keys/$own/archive                     401    403    200   200  403   200    403   403 403     403     200   404
PUT    /v1/api-keys/$archived/reactivate             401    403    404   200  403   403    403   403 403     403     200   404
POST   /v1/api-keys/$id/rotate                       401    403    404   200  403   200    403   403 403     403     200   404
POST   /v1/api-keys/$own/rotate                      401    403    200   200  403   200    403   403 403     403     200   404
POST   /v1/api-keys/$managing/rotate                 401    403    404   200  403   403    403   403 403     403     200   404
POST   /v1/api-keys/$own/rotate/end                  401    403    409   409  403   409    403   403 403     403     409   404
POST   /v1/api-keys/$id/rotate/end                   401    403    404   409  403   409    403   403 403     403     409   404
POST   /v1/api-keys/$own/rotate/extend grace         401    403    409   409  403   409    403   403 403     403     409   404
POST   /v1/api-keys/$id/rotate/extend grace          401    403    404   409  403   409    403   403 403     403     409   404
DELETE /v1/api-keys/$id                              401    403    404   204  403   204    403   403 403     403     204   404
DELETE /v1/api-keys/$own                             401    403    204   204  403   204    403   403 403     403     204   404
DELETE /v1/api-keys/$managing                        401    403    404   204  403   204    403   403 403     403     204   404
POST   /v1/api-keys/verify    key                    401    403    403   200  403   403    200   403 403     403     200   200
GET    /v1/api-keys/me                               401    404    404   404  200   200    200   200 200     200     200   200
GET    /v1/authorize                                 401    401    401   401  403   403    403   403 403     200     403   403
GET    /v1/audit                                     401    403    403   200  403   403    403   200 403     403     200   200
GET    /v1/audit/chain                               401    403    403   200  403   403    403   200 403     403     200   200
POST   /v1/webhooks           hook                   401    403    403   201  403   201    403   403 403     403     201   201
GET    /v1/webhooks                                  401    403    403   200  403   200    403   403 403     403     200   200
GET    /v1/webhooks/$hook                            401    403    403   200  403   200    403   403 403     403     200   404
PATCH  /v1/webhooks/$hook     disabled               401    403    403   200  403   200    403   403 403     403     200   404
DELETE /v1/webhooks/$hook                            401    403    403   204  403   204    403   403 403     403     204   404
POST   /v1/webhooks/$hook/test                       401    403    403   200  403   200    403   403 403     403     200   404
GET    /v1/webhooks/deliveries                       401    403    403   200  403   200    403   403 403     403     200   200
GET    /v1/webhooks/deliveries/$delivery             401    403    403   200  403   200    403   403 403     403     200   404
POST   /v1/webhooks/deliveries/$delivery/redeliver   401    403    403   202  403   202    403   403 403     403     202   404
GET    /v1/webhooks/secret                           401    403    403   200  403   200    403   403 403     403     200   200
POST   /v1/webhooks/secret/rotate                    401    403    403   200  403   200    403   403 403     403     200   200
GET    /v1/organization                              401    200    200   200  200   403    403   403 403     403     200   200
GET    /v1/organizations/acme                        401    403    403   403  403   403    403   403 200     403     200   200
PUT    /v1/organizations/acme nothing                401    403    403   403  403   403    403   403 200     403     200   200
POST   /v1/keys               name                   401    403    201   201  403   201    403   403 403     403     201   201
GET    /v1/keys                                      401    200    200   200  200   403    403   403 403     403     200   200
DELETE /v1/keys/$id                                  401    403    404   200  403   200    403   403 403     403     200   404
DELETE /v1/keys/$own                                 401    403    200   200  403   200    403   403 403     403     200   404
POST   /envelope/v1/api-keys  name                   401    403    201   201  403   403    403   403 403     403     403   403
GET    /envelope/v1/api-keys                         401    200    200   200  403   403    403   403 403     403     403   403
DELETE /envelope/v1/api-keys/$id                     401    403    404   404  403   403    403   403 403     403     403   403
DELETE /envelope/v1/api-keys/$own                    401    403    200   200  403   403    403   403 403     403     403   403
POST   /organizations/api-keys name                  401    403    201   201  403   201    403   403 403     403     201   201
GET    /organizations/api-keys                       401    200    200   200  200   403    403   403 403     403     200   200
DELETE /organizations/api-keys/$id                   401    403    404   200  403   200    403   403 403     403     200   404
DELETE /organizations/api-keys/$own                  401    403    200   200  403   200    403   403 403     403     200   404
PUT    /organizations/api-keys/$archived/reactivate  401    403    404   200  403   403    403   403 403     403     200   404
`

// bodies are what a row sends besides, by the word behind its target.
var bodies = map[string]string{
	"name": `{"name":"n"}`, "daily_limit": `{"daily_limit":1}`, "disabled": `{"enabled":false}`, "grace": `{"grace_period_seconds":60}`,
	"key": `{"key":"nonsense"}`, "hook": `{"url":"https://hooks.example.com/in"}`, "nothing": `{}`,
}

func cellBody(method, target, word string) string {
	scope, granting := strings.CutPrefix(word, "granting:")
	switch {
	case granting && method == "PATCH":
		return `{"scopes":["` + scope + `"]}`
	case granting:
		return `{"project_id":"shop","name":"n","scopes":["` + scope + `"]}`
	case word == "" && method == "POST" && target == "/v1/api-keys":
		return `{"project_id":"shop","name":"n"}`
	}
	return bodies[word]
}

// asker is the credential of a column, and whom it stands for.
func (d *door) asker(t *testing.T, column string) (bearer string, by caller.Caller) {
	t.Helper()
	switch column {
	case "nobody":
		return "", caller.Caller{Kind: caller.User, ID: "nobody"}
	case "viewer", "member", "admin":
		return d.person(t, "acme", column, column), caller.Caller{Kind: caller.User, ID: column}
	}
	organization, scopes := "acme", map[string][]string{"read": {apikey.KeysRead}, "write": {apikey.KeysWrite}, "verify": {apikey.KeysVerify},
		"audit": {apikey.AuditRead}, "org": {apikey.OrgAdmin}, "service": {"orders:read"}, "manager": apikey.ManagementScopes(), "other": apikey.ManagementScopes()}[column]
	if column == "other" {
		organization = column
	}
	issued := d.mustCreate(t, organization, lifecycle.New{Name: column, Scopes: scopes})
	return issued.Plaintext.Reveal(), caller.Caller{Kind: caller.Key, ID: issued.Key.ID.String()}
}

// madeBy makes a key of acme in the name of somebody.
func (d *door) madeBy(t *testing.T, by caller.Caller, scopes ...string) apikey.ID {
	t.Helper()
	by.OrganizationID, by.Scopes = "acme", apikey.ManagementScopes()
	issued, err := d.Keys.Create(caller.With(t.Context(), by), lifecycle.New{ProjectID: "shop", Name: "n", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return issued.Key.ID
}

func TestWhoMayDoWhatAtEveryRoute(t *testing.T) {
	columns, asked := strings.Fields(who), map[string]bool{}
	somebody := caller.Caller{Kind: caller.User, ID: "somebody"}
	for line := range strings.Lines(cells) {
		fields := strings.Fields(line)
		if len(fields) < len(columns)+2 {
			continue
		}
		method, target := fields[0], fields[1]
		word := strings.Join(fields[2:len(fields)-len(columns)], "")
		for i, column := range columns {
			d := newDoor(t)
			bearer, by := d.asker(t, column)
			archived := d.madeBy(t, somebody, "keys:read")
			want(t, d.do("POST", "/v1/api-keys/"+archived.String()+"/archive", ""), 200, "")
			fill := strings.NewReplacer("$id", d.madeBy(t, somebody).String(), "$own", d.madeBy(t, by).String(),
				"$managing", d.madeBy(t, somebody, "keys:read").String(), "$archived", archived.String())
			if strings.Contains(target, "$hook") || strings.Contains(target, "$delivery") {
				hook, delivery := d.subscribed(t, "acme")
				fill = strings.NewReplacer("$hook", hook, "$delivery", delivery)
			}
			w := d.send(request(method, fill.Replace(target), bearer, cellBody(method, target, word)))
			if status := fields[len(fields)-len(columns)+i]; fmt.Sprint(w.Code) != status {
				t.Errorf("%s %s %s as %s: %d, want %s: %s", method, target, word, column, w.Code, status, w.Body)
			}
		}
		for _, name := range []string{"$id", "$own", "$managing", "$archived", "$hook", "$delivery", "acme"} {
			target = strings.ReplaceAll(target, name, "{id}")
		}
		asked[method+" "+target] = true
	}
	for _, r := range newDoor(t).Routes() {
		method := strings.Replace(r.Method, "ANY", "GET", 1)
		if !asked[method+" "+r.Pattern] {
			t.Errorf("no row is about %s %s", method, r.Pattern)
		}
	}
}
