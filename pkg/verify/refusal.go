package verify

import (
	"slices"

	"github.com/latchkey/latchkey/pkg/apikey"
)

// Refusal says why hot may not pass d, or Valid. It is the rule that every Store's write obeys.
func Refusal(hot *Hot, d *Debit) apikey.Code {
	switch {
	case !hot.Hash.Equal(d.Hash), d.OrganizationID != "" && d.OrganizationID != hot.OrganizationID:
		return apikey.UnknownKey
	case hot.State == apikey.Revoked:
		return apikey.RevokedKey
	case hot.State == apikey.Archived:
		return apikey.ArchivedKey
	case hot.State != apikey.Active:
		return apikey.DisabledKey
	case !hot.End.IsZero() && !d.At.Before(hot.End):
		return apikey.ExpiredKey
	case hot.missing(d.Scopes) != "":
		return apikey.InsufficientScope
	case full(hot.DayLimit, hot.DayCount, d.Cost):
		return apikey.DailyLimitExceeded
	case full(hot.MinuteLimit, hot.MinuteCount, d.Cost):
		return apikey.RateLimited
	}
	return apikey.Valid
}

// full says whether nothing is left of a limit, or it could never hold the cost.
func full(limit *int64, count, cost int64) bool {
	return limit != nil && (count >= *limit || cost > *limit)
}

// missing is the first of the scopes that the key lacks, or "".
func (id *Identity) missing(scopes []string) string {
	for _, s := range scopes {
		if !slices.Contains(id.Scopes, s) {
			return s
		}
	}
	return ""
}

// managementOnly says whether the key has scopes and all are management scopes.
func (id *Identity) managementOnly() bool {
	service := func(s string) bool { return !apikey.IsManagement(s) }
	return len(id.Scopes) > 0 && !slices.ContainsFunc(id.Scopes, service)
}
