package dynamo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

const (
	skHot     = "hot"
	skProfile = "profile"
)

// Attributes of a hot item, beside the counters, whose names are their windows'. They are short because every verify
// pays for the whole item.
const (
	attrHash         = "h"
	attrState        = "st" // Record.State
	attrEnd          = "e"  // Record.Deadline
	attrMinuteLimit  = "lm"
	attrDayLimit     = "ld"
	attrScopes       = "sc"
	attrCIDRs        = "ip"
	attrOrganization = "o"
	attrProject      = "p"
	attrEnvironment  = "en"
	attrExternal     = "x"
	attrCounted      = "c"
	attrVersion      = "n" // of both items; they are one key only when equal
	attrClosing      = "cl"
	attrLastUse      = "u"
)

// managed lists the hot attributes that a management change replaces. Counters and last use belong to verifies.
var managed = []string{attrSchema, attrHash, attrState, attrEnd, attrMinuteLimit, attrDayLimit, attrScopes, attrCIDRs,
	attrOrganization, attrProject, attrEnvironment, attrExternal, attrCounted, attrVersion, attrClosing}

// Attributes of the indexes, on profiles alone.
const (
	attrByOrganization = "by_organization"
	attrByProject      = "by_project"
	attrNewest         = "newest"
)

// pkOf is the partition of a key. Its form is known to IAM policies: K#*.
func pkOf(id apikey.ID) string { return "K#" + strings.TrimPrefix(id.String(), "key_") }

func idOf(pk string) (apikey.ID, error) { return apikey.ParseID("key_" + strings.TrimPrefix(pk, "K#")) }

// hotFacts are the managed attributes of r's hot item.
func hotFacts(r *apikey.Record) (item, error) {
	cidrs, err := canonical(r.AllowedCIDRs)
	if err != nil {
		return nil, err
	}
	i := item{
		attrSchema: number(schemaVersion), attrHash: binary(r.Hash.Bytes()), attrState: text(string(r.State())),
		attrOrganization: text(r.OrganizationID), attrProject: text(r.ProjectID),
		attrCounted: flag(r.Counted), attrVersion: number(r.Version),
	}
	put(i, attrEnd, r.Deadline(), moment)
	put(i, attrMinuteLimit, r.RateLimitPerMinute, number)
	put(i, attrDayLimit, r.DailyLimit, number)
	put(i, attrEnvironment, r.EnvironmentID, text)
	put(i, attrExternal, r.ExternalID, text)
	set(i, attrScopes, r.Scopes)
	set(i, attrCIDRs, cidrs)
	if r.Closing != nil {
		b, err := json.Marshal(r.Closing)
		if err != nil {
			return nil, err
		}
		i[attrClosing] = text(string(b))
	}
	return i, nil
}

// canonical writes networks as a verify reads them.
func canonical(cidrs []string) ([]string, error) {
	out := make([]string, len(cidrs))
	for i, s := range cidrs {
		p, err := lifecycle.ParseCIDR(s)
		if err != nil {
			return nil, err
		}
		out[i] = p.String()
	}
	return out, nil
}

// hotItem is the whole hot item of a new key.
func hotItem(r *apikey.Record) (item, error) {
	i, err := hotFacts(r)
	if err != nil {
		return nil, err
	}
	i[attrPK], i[attrSK] = text(pkOf(r.ID)), text(skHot)
	put(i, attrLastUse, r.LastUsedAt, moment)
	for w, n := range r.Counts {
		i[string(w)] = number(n)
	}
	return i, nil
}

// profileItem is the whole profile of r.
func profileItem(r *apikey.Record) item {
	i := primaryKey(pkOf(r.ID), skProfile)
	i[attrSchema], i[attrVersion] = number(schemaVersion), number(r.Version)
	i[attrByOrganization] = text(byOrganization(r.OrganizationID, r.Ended()))
	i[attrByProject] = text(byProject(r.OrganizationID, r.ProjectID, r.Ended()))
	i[attrNewest] = text(newest(lifecycle.PositionOf(r)))
	i["name"], i["key_prefix"], i["created_by"] = text(r.Name), text(r.KeyPrefix), text(r.CreatedBy)
	i["enabled"], i["rotation_to_secrets_manager"] = flag(r.Enabled), flag(r.RotationToSecretsManager)
	i["created_at"], i["updated_at"] = moment(r.CreatedAt), moment(r.UpdatedAt)
	i["scopes"], i["allowed_cidrs"] = list(r.Scopes), list(r.AllowedCIDRs) // in their order, which sets lose
	i["last_change"] = text(r.LastChange)
	if r.Lone {
		i["lone"] = flag(true)
	}
	if r.Metadata != nil {
		i["metadata"] = text(string(r.Metadata))
	}
	if r.First != 0 {
		i["first"] = keyID(r.First)
	}
	timed(i, r)
	if r.Sealed != nil {
		i["sealed"], i["sealed_until"] = text(r.Sealed.ID), moment(r.Sealed.Until)
	}
	put(i, "expires_at", r.ExpiresAt, moment)
	put(i, "archived_at", r.ArchivedAt, moment)
	put(i, "revoked_at", r.RevokedAt, moment)
	put(i, "revoked_reason", r.RevokedReason, text)
	put(i, "predecessor", r.Predecessor, keyID)
	put(i, "replaced_by", r.ReplacedByKeyID, keyID)
	put(i, "grace_expires_at", r.GraceExpiresAt, moment)
	put(i, "rotation_interval_days", r.RotationIntervalDays, days)
	put(i, "next_rotation_at", r.NextRotationAt, moment)
	put(i, "rotation_webhook_url", r.RotationWebhookURL, text)
	return i
}

// byOrganization and byProject name an index's partitions. Ids hold no "#", so none can pass for another.
func byOrganization(organization string, ended bool) string {
	if ended {
		return organization + "#ended"
	}
	return organization
}

func byProject(organization, project string, ended bool) string {
	return byOrganization(organization+"#"+project, ended)
}

// newest sorts as lifecycle.Position does, backwards: base62 digits are in the order of their bytes.
func newest(p lifecycle.Position) string {
	return fmt.Sprintf("%013d%s", p.CreatedAt.UnixMilli(), strings.TrimPrefix(p.ID.String(), "key_"))
}

// errTorn reports two items that are not one key: either a change was being made while they were read, or one is lost.
var errTorn = errors.New("the key is not whole")

// join makes a Record of a key's two items, nil where one is not there. Its Status is left for whoever knows the time.
func join(id apikey.ID, hot, profile item) (apikey.Record, error) {
	switch {
	case hot == nil:
		return apikey.Record{}, fmt.Errorf("%w: its hot item is missing", errTorn)
	case profile == nil:
		return apikey.Record{}, fmt.Errorf("%w: its profile is missing", errTorn)
	}
	h, p := read(hot), read(profile)
	if h.number(attrVersion) != p.number(attrVersion) {
		return apikey.Record{}, fmt.Errorf("%w: its hot item and its profile are of different changes", errTorn)
	}
	r := apikey.Record{Key: p.key(), Hash: h.hash(), Counted: h.flag(attrCounted), Closing: h.closing(), Counts: h.counts(),
		Predecessor: optional(p, "predecessor", p.keyID), Lone: profile["lone"] != nil, LastChange: p.text("last_change")}
	if profile["first"] != nil {
		r.First = p.keyID("first")
	}
	if profile["sealed"] != nil {
		r.Sealed = &apikey.Sealed{ID: p.text("sealed"), Until: p.moment("sealed_until")}
	}
	r.ID, r.Version = id, h.number(attrVersion)
	p.time(&r)
	r.OrganizationID, r.ProjectID = h.text(attrOrganization), h.text(attrProject)
	r.EnvironmentID, r.ExternalID = optional(h, attrEnvironment, h.text), optional(h, attrExternal, h.text)
	r.RateLimitPerMinute, r.DailyLimit = optional(h, attrMinuteLimit, h.number), optional(h, attrDayLimit, h.number)
	r.LastUsedAt = optional(h, attrLastUse, h.moment)
	return r, errors.Join(wrong("hot item", h.err), wrong("profile", p.err))
}

func wrong(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the key's %s: %w", what, err)
}

// key is what a profile knows of a Key.
func (p *reader) key() apikey.Key {
	return apikey.Key{
		Name:                     p.text("name"),
		KeyPrefix:                p.text("key_prefix"),
		Scopes:                   p.list("scopes"),
		Enabled:                  p.flag("enabled"),
		AllowedCIDRs:             p.list("allowed_cidrs"),
		Metadata:                 p.json("metadata"),
		CreatedBy:                p.text("created_by"),
		CreatedAt:                p.moment("created_at"),
		UpdatedAt:                p.moment("updated_at"),
		ExpiresAt:                optional(p, "expires_at", p.moment),
		ArchivedAt:               optional(p, "archived_at", p.moment),
		RevokedAt:                optional(p, "revoked_at", p.moment),
		RevokedReason:            optional(p, "revoked_reason", p.text),
		ReplacedByKeyID:          optional(p, "replaced_by", p.keyID),
		GraceExpiresAt:           optional(p, "grace_expires_at", p.moment),
		RotationIntervalDays:     optional(p, "rotation_interval_days", p.days),
		NextRotationAt:           optional(p, "next_rotation_at", p.moment),
		RotationWebhookURL:       optional(p, "rotation_webhook_url", p.text),
		RotationToSecretsManager: p.flag("rotation_to_secrets_manager"),
	}
}

// json is nil for an absent attribute.
func (p *reader) json(name string) json.RawMessage {
	if s := optional(p, name, p.text); s != nil {
		return json.RawMessage(*s)
	}
	return nil
}

// counts is what was debited in each window whose counter is still there.
func (r *reader) counts() map[apikey.Window]int64 {
	counts := map[apikey.Window]int64{}
	for name := range r.item {
		if window(name) {
			counts[apikey.Window(name)] = r.number(name)
		}
	}
	return counts
}

// window says whether an attribute of a hot item is a counter.
func window(name string) bool {
	return len(name) > 1 && (name[0] == 'm' || name[0] == 'd') && strings.Trim(name[1:], "0123456789") == ""
}

func (r *reader) hash() apikey.Hash {
	h, err := apikey.ParseHash(r.binary(attrHash))
	if err != nil {
		r.fail(err)
	}
	return h
}

func (r *reader) closing() *apikey.Closing {
	if r.item[attrClosing] == nil {
		return nil
	}
	c := new(apikey.Closing)
	if err := json.Unmarshal([]byte(r.text(attrClosing)), c); err != nil {
		r.fail(fmt.Errorf("its closing: %w", err))
	}
	return c
}

func (r *reader) prefixes() []netip.Prefix {
	texts := r.set(attrCIDRs)
	if len(texts) == 0 {
		return nil
	}
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			r.fail(fmt.Errorf("its networks: %w", err))
		}
		out[i] = p
	}
	return out
}
