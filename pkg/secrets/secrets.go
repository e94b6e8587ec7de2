// Package secrets brings keys into AWS Secrets Manager, where those who use a key read it under one name for as long as its
// line of successors lasts. Two ways lead there:
//
//   - A key that Latchkey rotates by schedule is put into its secret by [Client.Put], as another is posted to an address.
//   - A secret that Secrets Manager rotates itself has its steps made by [Rotation].
//
// It promises that the key which a secret gives to everybody (AWSCURRENT) is accepted at every moment, as long as nobody
// ends it by hand, whatever step fails, comes twice or never comes. It names secrets by organization and line alone,
// never as somebody asks, and no error or log of it holds a value or any words of AWS's but an error's code.
package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// folder is what the names of all our secrets begin with. IAM policies know it.
const folder = "latchkey/"

// A secret's name has letters, digits and /_+=.@- (CreateSecret). The ids of organizations have all of these but / and =,
// and beside them the two that are written with an equals sign and their hexadecimal number.
var (
	encode = strings.NewReplacer(":", "=3A", "|", "=7C")
	decode = strings.NewReplacer("=3A", ":", "=7C", "|")
)

// Name is the name of the secret for a line of keys: latchkey/<organization>/<the line's first key>. No two lines share one.
func Name(organizationID string, line apikey.ID) string {
	return folder + encode.Replace(organizationID) + "/" + line.String()
}

// parseName reads what Name writes, and nothing else.
func parseName(name string) (organizationID string, line apikey.ID, err error) {
	rest, ours := strings.CutPrefix(name, folder)
	organization, id, _ := strings.Cut(rest, "/")
	organizationID = decode.Replace(organization)
	line, err = apikey.ParseID(id)
	if !ours || err != nil || !apikey.ValidID(organizationID) || Name(organizationID, line) != name {
		return "", 0, errors.New("the secret is not named " + folder + "<organization>/<id of the line's first key>")
	}
	return organizationID, line, nil
}

// value is what a secret holds. It is an object, since those who read secrets can pick a member of one by its name (ECS,
// CloudFormation, the console), since whoever looks at it sees whose key it is without trying it, and since members can be
// added. The same key always has the same bytes: a version of a secret cannot be put twice with different ones.
type value struct {
	Key            string    `json:"key"`
	KeyID          apikey.ID `json:"key_id"`
	KeyPrefix      string    `json:"key_prefix"`
	OrganizationID string    `json:"organization_id"`
}

func print(issued apikey.Issued) string {
	k := &issued.Key
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(value{issued.Plaintext.Reveal(), k.ID, k.KeyPrefix, k.OrganizationID}) // of strings alone
	return strings.TrimSpace(b.String())
}

// read is the key in a value. What else is there is its owner's business. An error says nothing of the text.
func read(text string) (apikey.Plaintext, error) {
	var v struct {
		Key string `json:"key"`
	}
	if json.Unmarshal([]byte(text), &v) != nil || v.Key == "" {
		return apikey.Plaintext{}, errors.New(`the secret's value is not an object with the member "key"`)
	}
	return apikey.NewPlaintext(v.Key), nil
}
