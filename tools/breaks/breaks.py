"""Breaks pkg/lifecycle and what it stands on, one way at a time, and prints which check sees it: the table of docs/testing.md.

broken.py says how.
"""

import re

import broken
from broken import go_test

# What each break is called, the file, what stands there, and what is to stand there instead.
BREAKS = [
    ("archive leaves the place taken","pkg/lifecycle/archive.go","next.ArchivedAt, next.Counted = &now, false","next.ArchivedAt = &now"),
    ("revoke leaves the place taken","pkg/lifecycle/revoke.go","r.RevokedAt, r.NextRotationAt, r.Counted = &now, nil, false","r.RevokedAt, r.NextRotationAt = &now, nil"),
    ("reactivate takes no place","pkg/lifecycle/archive.go","next.Counted = takesPlace(&next, now)","next.Counted = false"),
    ("reactivate does not ask the plan","pkg/lifecycle/organization.go","o, p, err := s.room(ctx, by, true)\n","o, p, err := s.room(ctx, by, false)\n\tp.Keys = plan.Unlimited\n"),
    ("a full plan does not end its expired keys","pkg/lifecycle/organization.go","place && p.Managed() && o.ActiveKeys >= p.Keys {","false && o.ActiveKeys >= p.Keys {"),
    ("a token's plan goes before the operators'","pkg/lifecycle/organization.go","cmp.Or(o.Plan, o.ClaimedPlan,","cmp.Or(o.ClaimedPlan, o.Plan,"),
    ("a token's plan is not noted","pkg/lifecycle/organization.go","func(o *Organization) { o.hear(by) })","func(*Organization) {})"),
    ("update forgets the allowed scopes","pkg/lifecycle/update.go","mayServe(s.allowed(o), added)","mayServe(append(s.allowed(o), \"*\"), added)"),
    ("update forgets the plan's highest limits","pkg/lifecycle/update.go","perMinute := joins || raised(before.RateLimitPerMinute, after.RateLimitPerMinute)","perMinute := joins"),
    ("a key that stops to run the service is not bound by the plan","pkg/lifecycle/update.go","joins := !runsTheService(after.Scopes) &&","joins := false && !runsTheService(after.Scopes) &&"),
    ("update ignores If-Match","pkg/lifecycle/update.go","version != 0 && version != r.Version","false"),
    ("an archived key can be enabled","pkg/lifecycle/update.go","before.ArchivedAt != nil && before.Enabled != after.Enabled","false"),
    ("a later expiry brings a grace back","pkg/lifecycle/update.go","if k.GraceExpiresAt != nil {","if false {"),
    ("update regards the key as it was alone","pkg/lifecycle/update.go","return mayGrant(by, &after.Key)","return nil"),
    ("update regards the key as it becomes alone","pkg/lifecycle/update.go","if err := mayGrant(by, &before.Key); err != nil {","if false {\n\t\tvar err error"),
    ("members touch others' keys","pkg/lifecycle/service.go"," || by.Own && r.CreatedBy != by.ID",""),
    ("members list others' keys","pkg/lifecycle/list.go","if by.Own {","if false {"),
    ("another organization's keys exist","pkg/lifecycle/service.go","r.OrganizationID != by.OrganizationID || ",""),
    ("a key may act on itself","pkg/lifecycle/rights.go","if by.ID == r.ID.String() {","if false {"),
    ("a rotated key may act on its successor","pkg/lifecycle/rights.go","if r.Predecessor != nil && by.ID == r.Predecessor.String() {","if false {"),
    ("management scopes that one lacks may be given","pkg/lifecycle/rights.go","if !by.Holds(scope) {","if false {"),
    ("members make keys with management scopes","pkg/lifecycle/rights.go","case by.Own:","case false:"),
    ("a key gives a longer life than its own","pkg/lifecycle/rights.go","case !by.Until.IsZero() &&","case false &&"),
    ("a key gives more networks than its own","pkg/lifecycle/rights.go","return len(inner) > 0","return true"),
    ("a grace outlasts the expiry","pkg/lifecycle/rotate.go","if k.ExpiresAt != nil && k.ExpiresAt.Before(at) {","if false {"),
    ("the successor does not inherit the day's count","pkg/lifecycle/rotate.go","n := old.Counts[w]; n > 0","n := old.Counts[w]; n > 1<<40"),
    ("the successor lives for ever","pkg/lifecycle/rotate.go","k.Enabled, k.LastUsedAt = true, nil","k.Enabled, k.LastUsedAt, k.ExpiresAt = true, nil, nil"),
    ("the old key keeps its place","pkg/lifecycle/rotate.go","old.ReplacedByKeyID, old.NextRotationAt, old.Counted = &next.ID, nil, false","old.ReplacedByKeyID, old.NextRotationAt = &next.ID, nil"),
    ("a rotation does not mind the grace before","pkg/lifecycle/rotate.go","if before != nil && grace > 0 {","if false {"),
    ("a rotation without grace leaves the grace before","pkg/lifecycle/rotate.go","\t\tendGrace(&before.Key, now)\n",""),
    ("the grace of a key whose successor was rotated is extended","pkg/lifecycle/rotate.go","case next.ReplacedByKeyID != nil:\n\t\treturn apikey.Errorf(apikey.AlreadyRotated, \"The key's successor","case false:\n\t\treturn apikey.Errorf(apikey.AlreadyRotated, \"The key's successor"),
    ("a grace may be of any length","pkg/lifecycle/rotate.go"," || period > MaxGrace",""),
    ("an expired key can be reactivated","pkg/lifecycle/archive.go","if next.Over(now) {","if false {"),
    ("a revoked key can be reactivated","pkg/lifecycle/archive.go","case r.RevokedAt != nil:\n\t\treturn apikey.Errorf(apikey.WrongState, \"The key is revoked for good.","case false:\n\t\treturn apikey.Errorf(apikey.WrongState, \"The key is revoked for good."),
    ("a token that comes with another body is answered","pkg/lifecycle/once.go","case !bytes.Equal(kept.Fingerprint, o.fingerprint()):","case false:"),
    ("a token is anybody's","pkg/lifecycle/once.go","string(by.Kind), by.ID, o.Method","o.Method"),
    ("a revoked key's answer mints anew","pkg/lifecycle/once.go","\tcase r.State() == apikey.Revoked,","\tcase r.State() == apikey.Revoked:\n\t\treturn nil, nil\n\tcase"),
    ("a replay is not authorized afresh","pkg/lifecycle/once.go","if err := mayGrant(by, &r.Key); err != nil {","if false {\n\t\tvar err error"),
    ("an answer is kept for ever","pkg/lifecycle/once.go","!kept.Until.After(s.now())","false"),
    ("revoke leaves the sealed answer","pkg/lifecycle/service.go","if after.RevokedAt != nil && after.Sealed != nil {","if false {"),
    ("an older key destroys a later answer","pkg/memory/memory.go"," && kept.Until.Equal(sealed.Until)",""),
    ("stale_days does not regard the last use","pkg/lifecycle/list.go","if k.LastUsedAt != nil {","if false {"),
    ("a list has archived keys unasked","pkg/lifecycle/list.go","(f.IncludeArchived || k.Status != apikey.Archived)","true"),
    ("the trail is not filtered by time","pkg/lifecycle/trail.go","After: audit.FirstID(f.Since)","After: \"\""),
    ("the trail needs no scope","pkg/lifecycle/trail.go","if err := need(by, apikey.AuditRead); err != nil {\n\t\treturn nil, \"\", err","if err := error(nil); err != nil {\n\t\treturn nil, \"\", err"),
    ("updated_at goes back with a slow clock","pkg/lifecycle/service.go","if e.At.After(r.UpdatedAt) {","if true {"),
    ("what was ended lives on for slow clocks","pkg/apikey/key.go","(!end.After(now) || !end.After(k.UpdatedAt))","!end.After(now)"),
    ("an archived key passes","pkg/apikey/key.go","case r.ArchivedAt != nil, r.Closing","case r.Closing"),
    ("audit entries do not say what changed","pkg/lifecycle/service.go","KeyID: &after.ID, Changes: changes}","KeyID: &after.ID, Changes: changes[:0]}"),
    ("a change is not conditional on the version","pkg/memory/memory.go","old.Version != u.Record.Version-1","false"),
    ("the count is not conditional on the plan's room","pkg/memory/memory.go"," || o.ActiveKeys > c.Count.Max-c.Count.Delta",""),
    ("a rotation without grace does not freeze the counts","pkg/lifecycle/rotate.go","c.Update[0].Frozen = kept","_ = kept"),
    ("a closing key under fire is not finished by readers","pkg/lifecycle/service.go","for err == nil && r.Closing != nil &&","for false && r.Closing != nil &&"),
]


def by_model(tree):
    """What the model test says first, or ""."""
    failed, output = go_test(tree, "./pkg/lifecycle", "-run", "^TestModel$/memory", "-model.steps", "20000", "-model.seed", "42")
    said = re.search(r"model_test.go:\d+: step \d+: (.*)", output)
    return (said.group(1) if said else output[-200:]) if failed else ""


def by_matrix(tree):
    """How many cells of the matrix fail."""
    _, output = go_test(tree, "./pkg/lifecycle", "-run", "^TestMatrix$")
    return len(re.findall(r"matrix_test.go:\d+: ", output))


def by_others(tree):
    """The other tests that fail, of the verbs and of the store."""
    _, output = go_test(tree, "./pkg/lifecycle", "./pkg/memory", "-skip", "^(TestModel|TestMatrix)$")
    return re.findall(r"^--- FAIL: (\w+)", output, re.MULTILINE)


def codes(text):
    """The codes that stand in a text."""
    return " or ".join(f"`{code}`" for code in sorted(set(re.findall(r'"(\w+)"', text))))


def short(said):
    """The model's complaint in a few words."""
    if not said:
        return "no"
    if got := re.match(r'got "(\w*)", want \[(.*)\]', said):
        return (f"`{got[1]}`" if got[1] else "allowed") + (", not " + codes(got[2]) if got[2] else " where it must succeed")
    if "keys are counted" in said:
        return "the plan's count"
    if got := re.search(r"#\d+ is (\w+) when shown, want (\w+)|the key is (\w+), want (\w+)", said):
        return f"a key is `{got[1] or got[3]}`, not `{got[2] or got[4]}`"
    if got := re.search(r"#\d+ has ([a-z_]+) ", said):
        return f"`{got[1]}` of a key"
    if re.search(r"#\d+ has \d+ fields at version", said):
        return "the version of a key"
    if re.search(r"got \d+ keys", said):
        return "a list"
    if "is still kept" in said:
        return "a secret that is still kept"
    return "the trail" if "trail" in said else said[:60]


def checks(tree):
    """What the model, the matrix and, where neither does, other tests see."""
    model, cells = by_model(tree), by_matrix(tree)
    others = "" if model or cells else ", ".join(f"`{test}`" for test in by_others(tree)[:3]) or "**no**"
    return short(model), f"{cells} cells" if cells else "no", others


broken.table(["the model", "the matrix", "where neither does, other tests"], BREAKS, checks)
