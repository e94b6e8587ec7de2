package lifecycle

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
)

// need refuses a caller without the scope.
func need(by caller.Caller, scope string) error {
	if by.Holds(scope) {
		return nil
	}
	return &apikey.Error{Code: apikey.InsufficientScope, Scope: scope, Message: "This needs the scope " + scope + "."}
}

// notItself refuses a change that would cut off the key that asks for it, or the successor that is to take its place: a
// key that is being retired, perhaps because it leaked, has no power over the one that replaces it.
func notItself(by caller.Caller, r *apikey.Record) error {
	if by.Kind != caller.Key {
		return nil
	}
	if by.ID == r.ID.String() {
		return apikey.Errorf(apikey.OwnKey, "A key cannot do this to itself. Use another key of your organization.")
	}
	if r.Predecessor != nil && by.ID == r.Predecessor.String() {
		return apikey.Errorf(apikey.OwnKey, "A rotated key cannot do this to its successor. Use another key of your organization.")
	}
	return nil
}

// mayGrant refuses a key that would be able to do to the service what the caller cannot: management scopes that it does
// not hold, and, on a key that has any, a longer life or more networks than its own.
func mayGrant(by caller.Caller, k *apikey.Key) error {
	manages := false
	for _, scope := range k.Scopes {
		if !apikey.IsManagement(scope) {
			continue
		}
		manages = true
		if !by.Holds(scope) {
			return apikey.Errorf(apikey.ScopeNotHeld, "You cannot give the scope %s: you do not hold it.", scope)
		}
	}
	end := k.End()
	switch {
	case !manages:
		return nil
	case by.Own:
		return apikey.Errorf(apikey.Escalation, "Members make and change keys without management scopes alone: such a key would reach beyond their own.")
	case !by.Until.IsZero() && (end == nil || end.After(by.Until)):
		return apikey.Errorf(apikey.Escalation, "A key with management scopes cannot outlive the key that makes or changes it: expires_at must be %s or earlier.",
			by.Until.Format("2006-01-02T15:04:05.999Z07:00"))
	case !within(k.AllowedCIDRs, by.CIDRs):
		return apikey.Errorf(apikey.Escalation, "A key with management scopes cannot be used from more networks than the key that makes or changes it.")
	}
	return nil
}

// mayManage refuses a caller who does not hold all of a key's management scopes.
func mayManage(by caller.Caller, k *apikey.Key) error {
	by.Until, by.CIDRs = time.Time{}, nil
	return mayGrant(by, k)
}

// within says whether every address allowed by inner is allowed by outer, where an empty list allows all.
func within(inner []string, outer []netip.Prefix) bool {
	if len(outer) == 0 {
		return true
	}
	for _, text := range inner {
		p, err := netip.ParsePrefix(text)
		contains := func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }
		if err != nil || !slices.ContainsFunc(outer, contains) {
			return false
		}
	}
	return len(inner) > 0
}

// mayServe refuses service scopes that the organization may not have.
func mayServe(allowed, scopes []string) error {
	for _, scope := range scopes {
		if !apikey.IsManagement(scope) && !slices.ContainsFunc(allowed, func(a string) bool { return covers(a, scope) }) {
			return apikey.Errorf(apikey.ScopeNotAllowed, "The scope %s is not among those that your organization may use. Ask whoever runs this service.", scope)
		}
	}
	return nil
}

// covers says whether an allowed scope, which may end in "*", covers scope.
func covers(allowed, scope string) bool {
	if prefix, ok := strings.CutSuffix(allowed, "*"); ok {
		return strings.HasPrefix(scope, prefix)
	}
	return allowed == scope
}
