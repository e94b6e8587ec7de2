package httpapi_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/notify"
)

const contract = "../../docs/openapi.yaml"

// under lists the names that stand directly below a path of names in the contract, which is indented by two spaces.
func under(t *testing.T, path ...string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	depth, entry := 0, regexp.MustCompile(`^( *)([^ #:{-][^ :]*):`)
	for line := range strings.Lines(string(b)) {
		m := entry.FindStringSubmatch(line)
		switch {
		case m == nil || len(m[1]) > 2*depth:
		case depth == len(path) && len(m[1]) == 2*depth:
			names = append(names, m[2])
		case depth == len(path): // what path names has ended
			return names
		case m[2] == path[depth]:
			depth++
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s has nothing under %v", contract, path)
	}
	return names
}

// In the contract a route that takes any method has the seven that API Gateway's ANY has, and says that it takes others.
func TestTheContractNamesTheRoutesAndNoOthers(t *testing.T) {
	var routes, written []string
	for _, r := range new(httpapi.API).Routes() {
		methods := []string{strings.ToLower(r.Method)}
		if r.Method == httpapi.Any {
			methods = []string{"delete", "get", "head", "options", "patch", "post", "put", "x-any-method"}
		}
		for _, m := range methods {
			routes = append(routes, r.Pattern+" "+m)
		}
	}
	for _, path := range under(t, "paths") {
		for _, m := range under(t, "paths", path) {
			if m != "parameters" {
				written = append(written, path+" "+m)
			}
		}
	}
	slices.Sort(routes)
	slices.Sort(written)
	if !slices.Equal(routes, written) {
		t.Errorf("the routes are\n%s\nand the contract has\n%s", strings.Join(routes, "\n"), strings.Join(written, "\n"))
	}
}

func TestTheContractHasTheFieldsOfTheTypes(t *testing.T) {
	for name, of := range map[string]reflect.Type{"Key": reflect.TypeFor[apikey.Key](), "NewKey": reflect.TypeFor[lifecycle.New](),
		"Organization": reflect.TypeFor[lifecycle.Standing](), "NewWebhook": reflect.TypeFor[notify.New](), "Webhook": reflect.TypeFor[notify.Subscription](),
		"WebhookDelivery": reflect.TypeFor[notify.Delivery](), "DeliveryAttempt": reflect.TypeFor[notify.Attempt](), "AuditLink": reflect.TypeFor[audit.Link]()} {
		var fields []string
		for f := range of.Fields() {
			if tag := f.Tag.Get("json"); tag != "-" {
				fields = append(fields, tag)
			}
		}
		if got := under(t, "components", "schemas", name, "properties"); !slices.Equal(got, fields) {
			t.Errorf("%s has the fields\n%v\nwant\n%v", name, got, fields)
		}
	}
}

// members are the names of an object in their order, or of the first object of a list.
func members(t *testing.T, raw json.RawMessage) (names []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	for {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		name, ok := token.(string)
		if !ok && token == json.Delim('}') {
			return names
		}
		if ok {
			names = append(names, name)
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What the shapes answer has the fields that the contract says, in its order.
func TestTheContractHasTheFieldsOfTheAnswers(t *testing.T) {
	d := newDoor(t)
	jane := d.person(t, "acme", "jane", "admin")
	answers := map[string]json.RawMessage{}
	note := func(schema, part, inside string, method, target, body string) {
		t.Helper()
		raw := json.RawMessage(d.send(request(method, target, jane, body)).Body.Bytes())
		answers[schema] = raw
		if part != "" {
			raw = read[map[string]json.RawMessage](t, d.send(request(method, target, jane, body)))[inside]
			answers[part] = raw
		}
	}
	note("CreatedKeyInKeys", "IssuedInKeys", "key", "POST", "/v1/keys", `{"name":"n"}`)
	note("KeysInKeys", "ListedInKeys", "keys", "GET", "/v1/keys", "")
	note("CreatedKeyInEnvelope", "IssuedInEnvelope", "data", "POST", "/envelope/v1/api-keys", `{"name":"n"}`)
	note("KeysInEnvelope", "ListInEnvelope", "data", "GET", "/envelope/v1/api-keys", "")
	note("CreatedKeyInOrganization", "", "", "POST", "/organizations/api-keys", `{"name":"n"}`)
	note("KeysInOrganization", "KeyInOrganization", "api_keys", "GET", "/organizations/api-keys", "")
	note("RevokedInKeys", "", "", "DELETE", "/v1/keys/"+d.mustCreate(t, "acme", lifecycle.New{}).Key.ID.String(), "")
	note("EnvelopeError", "", "", "DELETE", "/envelope/v1/api-keys/lk_live_00000001", "")
	note("Organization", "", "", "GET", "/v1/organization", "")
	hook, delivery := d.subscribed(t, "acme")
	note("WebhookTest", "", "", "POST", "/v1/webhooks/"+hook+"/test", "")
	note("WebhookDeliveryWithEvent", "", "", "GET", "/v1/webhooks/deliveries/"+delivery, "")
	answers["AuditEntry"] = json.RawMessage(d.send(request("GET", "/v1/audit?limit=1", jane, "")).Body.Bytes())
	for schema, raw := range answers {
		var written []string
		if whole, ok := strings.CutSuffix(schema, "WithEvent"); ok {
			written = append(under(t, "components", "schemas", whole, "properties"), "event")
		} else {
			written = under(t, "components", "schemas", schema, "properties")
		}
		if got := members(t, raw); !slices.Equal(got, written) {
			t.Errorf("%s has the fields\n%v\nand the contract\n%v", schema, got, written)
		}
	}
}

// What create may say, a patch may say too, but for where the key belongs.
func TestTheContractsPatchHasTheFieldsOfANewKeyThatMayChange(t *testing.T) {
	got := under(t, "components", "schemas", "KeyPatch", "properties")
	want := slices.DeleteFunc(under(t, "components", "schemas", "NewKey", "properties"), func(name string) bool { return strings.HasSuffix(name, "_id") })
	slices.Sort(got)
	want = append(want, "enabled")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the patch has %v, want %v", got, want)
	}
}

func TestTheContractHasEveryAction(t *testing.T) {
	b, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	_, written, _ := strings.Cut(string(b), "\n    Action:\n      enum: [")
	written, _, _ = strings.Cut(written, "]")
	var actions []string
	for _, a := range audit.Actions() {
		actions = append(actions, string(a))
	}
	slices.Sort(actions)
	if got := slices.Sorted(slices.Values(strings.FieldsFunc(written, func(c rune) bool { return strings.ContainsRune(", \n", c) }))); !slices.Equal(got, actions) {
		t.Errorf("the contract has the actions\n%v\nwant\n%v", got, actions)
	}
}

func TestTheContractHasEveryCode(t *testing.T) {
	b, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	_, problem, _ := strings.Cut(string(b), "\n    Problem:\n")
	_, enum, _ := strings.Cut(problem, "enum: [")
	enum, _, _ = strings.Cut(enum, "]")
	written := strings.FieldsFunc(enum, func(c rune) bool { return strings.ContainsRune(", \n", c) })
	refusals := slices.DeleteFunc(codes(t), func(c apikey.Code) bool { return c == apikey.Valid })
	for _, code := range refusals {
		if !slices.Contains(written, string(code)) {
			t.Errorf("the contract's Problem does not have the code %s", code)
		}
	}
	if len(written) != len(refusals) {
		t.Errorf("the contract's Problem has %d codes, want %d", len(written), len(refusals))
	}
}
