package oidc

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// Issuer is the settings of one issuer of tokens. The zero value of a field that has a default stands for it.
type Issuer struct {
	Issuer        string            `json:"issuer"`         // the iss claim to the letter; https, or http on a loopback host
	Audiences     []string          `json:"audience"`       // the token must be for one of them; at least one
	AudienceClaim string            `json:"audience_claim"` // where a token says for whom it is; default "aud"
	JWKS          string            `json:"jwks_url"`       // default: what the issuer's discovery document names
	Algorithms    []string          `json:"algorithms"`     // of RS256, ES256, EdDSA and PS256; default all four
	Claims        Claims            `json:"claims"`
	Roles         map[string]string `json:"roles"`         // value of the role claim -> role; default the roles' own names
	DefaultRole   string            `json:"default_role"`  // where the role claim is missing or names no known role; default member
	Organizations []string          `json:"organizations"` // those it may name: ids, or beginnings followed by *; default any
}

// Claims names the claims that are read. A name that begins with "/" is a JSON Pointer (RFC 6901) into the claims.
type Claims struct {
	Organization string `json:"organization"` // default "org_id"
	User         string `json:"user"`         // default "sub"
	Plan         string `json:"plan"`         // default "plan"
	Role         string `json:"role"`         // default "role"
}

// The roles, from the least to the most.
const (
	viewer = "viewer"
	member = "member"
	admin  = "admin"
)

// ranks orders the roles.
var ranks = []string{viewer, member, admin}

// algorithms is every algorithm that a token may be signed with. None of them is symmetric.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA, jose.PS256}

// Parse reads a JSON list of issuers; "" is none. What is unknown, ill-formed or in conflict is an error that names it.
func Parse(text string) ([]Issuer, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if err := readStrictly(text); err != nil {
		return nil, fmt.Errorf("must be a JSON list of issuers: %w", err)
	}
	var issuers []Issuer
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&issuers); err != nil {
		return nil, fmt.Errorf("must be a JSON list of issuers: %w", err)
	}
	return settled(issuers)
}

// readStrictly refuses what encoding/json would take: members that stand twice, something after the list, and names of members
// in other letters.
func readStrictly(text string) error {
	items, err := readList([]byte(text))
	for _, item := range items {
		members, _ := readObject(item) // of other kinds encoding/json tells
		claims, _ := readObject(members["claims"])
		for _, name := range slices.Concat(slices.Sorted(maps.Keys(members)), slices.Sorted(maps.Keys(claims))) {
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
				return fmt.Errorf("unknown member %q", name)
			}
		}
	}
	return err
}

// settled checks all issuers, each and with one another, and returns them with their defaults.
func settled(issuers []Issuer) ([]Issuer, error) {
	all := slices.Clone(issuers)
	for i := range all {
		if err := all[i].settle(); err != nil {
			return nil, fmt.Errorf("issuer %d (%q): %w", i+1, all[i].Issuer, err)
		}
		if len(all) > 1 && len(all[i].Organizations) == 0 {
			return nil, fmt.Errorf("issuer %d (%q): organizations is required where there are several issuers", i+1, all[i].Issuer)
		}
		for j := range i {
			if err := apart(all[j], all[i]); err != nil {
				return nil, fmt.Errorf("issuers %d and %d: %w", j+1, i+1, err)
			}
		}
	}
	return all, nil
}

// settle checks the settings of one issuer and fills in its defaults.
func (i *Issuer) settle() error {
	i.AudienceClaim = cmp.Or(i.AudienceClaim, "aud")
	i.DefaultRole = cmp.Or(i.DefaultRole, member)
	i.Claims.Organization = cmp.Or(i.Claims.Organization, "org_id")
	i.Claims.User = cmp.Or(i.Claims.User, "sub")
	i.Claims.Plan = cmp.Or(i.Claims.Plan, "plan")
	i.Claims.Role = cmp.Or(i.Claims.Role, "role")
	if len(i.Roles) == 0 {
		i.Roles = map[string]string{viewer: viewer, member: member, admin: admin}
	}
	return errors.Join(i.checkAddresses(), i.checkAudiences(), i.checkAlgorithms(), i.checkClaims(), i.checkRoles(), i.checkOrganizations())
}

func (i *Issuer) checkAddresses() error {
	if err := checkAddress(i.Issuer); err != nil {
		return fmt.Errorf("issuer %w", err)
	}
	if u, _ := url.Parse(i.Issuer); u.RawQuery != "" || u.ForceQuery {
		return errors.New("issuer must have no query")
	}
	if i.JWKS != "" {
		if err := checkAddress(i.JWKS); err != nil {
			return fmt.Errorf("jwks_url %w", err)
		}
	}
	return nil
}

// checkAddress says what is wrong with the address of something that must not be read or answered by others on the way.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return errors.New("must be a URL with a host")
	case u.User != nil || u.Fragment != "" || strings.HasSuffix(address, "#"):
		return errors.New("must have no user information and no fragment")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return errors.New("must be https, or http on a loopback host")
	}
	return nil
}

// loopback says whether a host is this machine.
func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (i *Issuer) checkAudiences() error {
	if len(i.Audiences) == 0 || slices.Contains(i.Audiences, "") {
		return errors.New("audience must be a list of at least one name, none of them empty")
	}
	return nil
}

func (i *Issuer) checkAlgorithms() error {
	for _, a := range i.Algorithms {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(a)) {
			return fmt.Errorf("algorithms has %q: it may hold RS256, ES256, EdDSA and PS256", a)
		}
	}
	return nil
}

// allowed is the algorithms that the issuer may sign with.
func (i *Issuer) allowed() []jose.SignatureAlgorithm {
	return slices.DeleteFunc(slices.Clone(algorithms), func(a jose.SignatureAlgorithm) bool {
		return len(i.Algorithms) > 0 && !slices.Contains(i.Algorithms, string(a))
	})
}

func (i *Issuer) checkClaims() error {
	for _, name := range []string{i.AudienceClaim, i.Claims.Organization, i.Claims.User, i.Claims.Plan, i.Claims.Role} {
		if strings.HasPrefix(name, "/") && !validPointer(name) {
			return fmt.Errorf("the claim %q is no JSON Pointer (RFC 6901): ~ is written ~0, and / in a name ~1", name)
		}
	}
	return nil
}

func (i *Issuer) checkRoles() error {
	if !slices.Contains(ranks, i.DefaultRole) {
		return fmt.Errorf("default_role is %q: it must be viewer, member or admin", i.DefaultRole)
	}
	for value, role := range i.Roles {
		if value == "" || !slices.Contains(ranks, role) {
			return fmt.Errorf("roles has %q: %q: a value of the role claim must be given viewer, member or admin", value, role)
		}
	}
	return nil
}

func (i *Issuer) checkOrganizations() error {
	for _, o := range i.Organizations {
		beginning := strings.TrimSuffix(o, "*")
		switch {
		case o != "*" && !apikey.ValidID(beginning):
			return fmt.Errorf("organizations has %q: it may hold ids of 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + -, and beginnings of ids followed by *", o)
		case strings.HasPrefix(beginning, personal):
			return fmt.Errorf("organizations has %q: what begins with %s is a person's own organization, which no token may name", o, personal)
		}
	}
	return nil
}

// apart says that two issuers can be told from one another and cannot name the same organization: otherwise the same
// user id of both would be one person.
func apart(a, b Issuer) error {
	if a.Issuer == b.Issuer {
		return fmt.Errorf("both are %q: give its audiences in one entry", a.Issuer)
	}
	for _, x := range a.Organizations {
		for _, y := range b.Organizations {
			if names(x, strings.TrimSuffix(y, "*")) || names(y, strings.TrimSuffix(x, "*")) {
				return fmt.Errorf("organizations %q and %q overlap: no organization may be named by two issuers", x, y)
			}
		}
	}
	return nil
}

// names says whether an entry of organizations names the organization: as its id, or by its beginning.
func names(entry, organization string) bool {
	beginning, open := strings.CutSuffix(entry, "*")
	return entry == organization || open && strings.HasPrefix(organization, beginning)
}

// mayName says whether the issuer may name the organization.
func (i *Issuer) mayName(organization string) bool {
	return len(i.Organizations) == 0 ||
		slices.ContainsFunc(i.Organizations, func(entry string) bool { return names(entry, organization) })
}
