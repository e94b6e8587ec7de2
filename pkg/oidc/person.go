package oidc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

// personal begins the id of every person's own organization. No token may name such a one.
const personal = "user_"

// latest is the highest time that a token may name: the end of the year 9999.
const latest = 253402300799

// person is the caller that the claims describe at now.
func (i *issuer) person(claims object, now time.Time) (caller.Caller, error) {
	if err := inTime(claims, now); err != nil {
		return caller.Caller{}, err
	}
	if err := i.forUs(claims); err != nil {
		return caller.Caller{}, err
	}
	user, err := i.user(claims)
	if err != nil {
		return caller.Caller{}, err
	}
	organization, err := i.organization(claims)
	if err != nil {
		return caller.Caller{}, err
	}
	plan, err := optional(claims, i.Claims.Plan)
	if err != nil {
		return caller.Caller{}, err
	}
	role, err := i.role(claims)
	if err != nil {
		return caller.Caller{}, err
	}
	if organization == "" {
		organization = ownOrganization(i.Issuer.Issuer, user)
		if role == "" {
			role = admin
		}
	}
	c := caller.Caller{Kind: caller.User, OrganizationID: organization, ID: user, Plan: plan}
	if issued, there, _ := moment(claims, "iat"); there && plan != "" {
		c.PlanAt = issued.UTC()
	}
	c.Scopes, c.Own = rights(role, i.DefaultRole)
	return c, nil
}

// inTime says that the token has an end which has not come, and that it has begun (RFC 7519, sections 4.1.4 to 4.1.6).
func inTime(claims object, now time.Time) error {
	end, there, err := moment(claims, "exp")
	switch {
	case err != nil:
		return err
	case !there:
		return refuse("The token has no end: a token without the claim exp is not taken.", nil)
	case !now.Before(end.Add(leeway)):
		return refuse("The token has expired: sign in again.", nil)
	}
	for _, name := range []string{"nbf", "iat"} {
		begin, there, err := moment(claims, name)
		switch {
		case err != nil:
			return err
		case there && now.Add(leeway).Before(begin):
			return refuse("The token is not valid yet: check the clock of its issuer.", nil)
		}
	}
	return nil
}

// moment reads a NumericDate, which may have a fraction: seconds since 1970, not after the year 9999.
func moment(claims object, name string) (at time.Time, there bool, err error) {
	v, there := claims[name]
	if !there {
		return time.Time{}, false, nil
	}
	seconds, err := strconv.ParseFloat(string(v), 64) // of all JSON it reads numbers alone
	if err != nil || seconds < 0 || seconds > latest {
		return time.Time{}, true, wrong(name)
	}
	return time.UnixMilli(int64(seconds * 1000)), true, nil
}

// forUs says that the token is for one of the audiences.
func (i *issuer) forUs(claims object) error {
	v, err := claims.find(i.AudienceClaim)
	if err != nil {
		return wrong(i.AudienceClaim)
	}
	audiences, ok := asTexts(v)
	if one, single := asText(v); single {
		audiences, ok = []string{one}, true
	}
	if !ok || !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(i.Audiences, a) }) {
		return refuse(fmt.Sprintf("The token is not for this service: its claim %s must name it.", i.AudienceClaim), nil)
	}
	return nil
}

func (i *issuer) user(claims object) (string, error) {
	user, err := optional(claims, i.Claims.User)
	switch {
	case err != nil:
		return "", err
	case user == "":
		return "", refuse(fmt.Sprintf("The token names no user: the claim %s is missing.", i.Claims.User), nil)
	case strings.HasPrefix(user, "key_") || strings.HasPrefix(user, "latchkey"):
		return "", wrong(i.Claims.User) // it would pass for a key, or for whoever runs the service
	}
	return user, nil
}

// organization is what the claim says, "" where it is missing.
func (i *issuer) organization(claims object) (string, error) {
	organization, err := optional(claims, i.Claims.Organization)
	switch {
	case err != nil:
		return "", err
	case strings.HasPrefix(organization, personal):
		return "", wrong(i.Claims.Organization)
	case organization != "" && !i.mayName(organization):
		return "", refuse("The token is for an organization that its issuer may not name here.", nil)
	}
	return organization, nil
}

// ownOrganization is the organization of a person whose token names none. Neither the issuer's address nor the user's id
// holds a line break, so no two persons share one.
func ownOrganization(issuer, user string) string {
	sum := sha256.Sum256([]byte(issuer + "\n" + user))
	return personal + hex.EncodeToString(sum[:])[:32]
}

// optional reads a claim that must be an id if it is there, and is "" if it is not.
func optional(claims object, name string) (string, error) {
	v, err := claims.find(name)
	if err == nil && v == nil {
		return "", nil
	}
	text, ok := asText(v)
	if err != nil || !ok || !apikey.ValidID(text) {
		return "", wrong(name)
	}
	return text, nil
}

// role is the highest role that the claim names, the default one if it names no known role, and "" if it is missing.
func (i *issuer) role(claims object) (string, error) {
	v, err := claims.find(i.Claims.Role)
	if err == nil && v == nil {
		return "", nil
	}
	values, ok := i.roleValues(v)
	if err != nil || !ok {
		return "", wrong(i.Claims.Role)
	}
	highest := -1
	for _, value := range values {
		highest = max(highest, slices.Index(ranks, i.Roles[value]))
	}
	if highest < 0 {
		return i.DefaultRole, nil
	}
	return ranks[highest], nil
}

// roleValues reads a list of strings, or one string, which is a value that the settings know, or else several with spaces
// between them: one word of a known value is not another value.
func (i *issuer) roleValues(v jsontext.Value) ([]string, bool) {
	if text, ok := asText(v); ok {
		if i.Roles[text] != "" {
			return []string{text}, true
		}
		words := strings.Fields(text)
		if slices.ContainsFunc(words, func(word string) bool { return i.Roles[word] == "" }) {
			return nil, true // one name that happens to hold a role's, such as "billing admin"
		}
		return words, true
	}
	return asTexts(v)
}

// rights are what a role holds, or the default role where there is none, and whether they reach no further than the keys
// that the person made.
func rights(role, otherwise string) (scopes []string, own bool) {
	if role == "" {
		role = otherwise
	}
	switch role {
	case admin:
		return []string{apikey.KeysRead, apikey.KeysWrite, apikey.KeysVerify, apikey.AuditRead}, false
	case member:
		return []string{apikey.KeysRead, apikey.KeysWrite}, true
	case viewer:
		return []string{apikey.KeysRead}, false
	}
	return nil, true
}

// wrong refuses a token for a claim, which it names by the settings' word for it.
func wrong(claim string) error {
	return refuse(fmt.Sprintf("The token's claim %s is empty, of the wrong type, or not allowed.", claim), nil)
}
