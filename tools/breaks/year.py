"""Breaks scheduled rotation, one rule at a time, and prints what sees it: the second table of docs/testing.md.

broken.py says how.
"""

import re

import broken
from broken import go_test

# What each break is called, the file, what stands there, and what is to stand there instead.
BREAKS = [
    ("the old key's end is set before its successor is delivered", "pkg/lifecycle/handover.go", "	e, err := entry(owner(&r), now, audit.RotationStarted", "	endGrace(&old.Key, now.Add(s.cap()))\n	e, err := entry(owner(&r), now, audit.RotationStarted"),
    ("a successor that may have arrived is abandoned", "pkg/lifecycle/handover.go", "case (h.Doubt || used) && !r.Over(now):", "case false:"),
    ("a successor that may have arrived counts as delivered", "pkg/lifecycle/handover.go", "case used && s.useTells(&r):", "case used || h.Doubt:"),
    ("a successor in use does not count as delivered", "pkg/lifecycle/handover.go", "case used && s.useTells(&r):", "case false:"),
    ("an attempt that nobody spoke of again is certain", "pkg/lifecycle/handover.go", "h.Claimed, h.Doubt = nil, true", "h.Claimed = nil"),
    ("an unanswered attempt is certain", "pkg/lifecycle/handover.go", "h.Claimed, h.Doubt = nil, h.Doubt || how.how == Doubtful.how", "h.Claimed = nil"),
    ("attempts are not claimed", "pkg/lifecycle/handover.go", "h.Claimed, h.Next = new(now.Add(claimTime)), now.Add(work.Wait(uint64(id), h.Attempts))", "h.Next = now.Add(work.Wait(uint64(id), h.Attempts))"),
    ("an abandoned successor lives on", "pkg/lifecycle/handover.go", "	revoke(&next, now, why)\n", "	_, next.Counted = why, false\n"),
    ("the old key does not get its place back", "pkg/lifecycle/handover.go", "		old.Counted = takesPlace(&old, now)\n", ""),
    ("both keys of a rotation have a place", "pkg/lifecycle/handover.go", "old.NextRotationAt, old.Counted = &next.ID, nil, false\n	e", "old.NextRotationAt = &next.ID, nil\n	e"),
    ("the cap is twice as long", "pkg/lifecycle/handover.go", "endGrace(&last.Key, now.Add(s.cap()))", "endGrace(&last.Key, now.Add(2*s.cap()))"),
    ("a delivered secret stays sealed", "pkg/lifecycle/handover.go", "return Change{Entry: e, Destroy: destroy,", "return Change{Entry: e, Destroy: destroy[:0],"),
    ("each attempt brings another secret", "pkg/lifecycle/handover.go", "return apikey.NewPlaintext(string(b)), nil", "return apikey.NewPlaintext(string(b) + fmt.Sprint(r.Handover.Attempts)), nil"),
    ("a rotation begins untold", "pkg/lifecycle/handover.go", "c := Change{Entry: e, Update", "c := Change{Entry: e, Silent: true, Update"),
    ("a rotation does not wait for the end of the one before", "pkg/lifecycle/agenda.go", "if before != nil {", "if false {"),
    ("clocks are taken to agree", "pkg/lifecycle/handover.go", "clocksApart   = 2 * time.Minute", "clocksApart   = 0 * time.Minute"),
    ("a key that has ended is rotated", "pkg/lifecycle/agenda.go", "end != nil && !end.After(now) && len(agenda) > 0", "end != nil && false"),
    ("an end is not told", "pkg/lifecycle/agenda.go", "	note(r.End(), finish)\n", ""),
    ("a delivery that finds a key ended takes it off the list", "pkg/lifecycle/agenda.go", "return finish, dueOf(appointment{*end, finish}), nil", "return finish, nil, nil"),
    ("an end is told of again", "pkg/lifecycle/sweep.go", "next.Told.Over, next.Told.Confirm, next.Counted = true, nil, false", "next.Told.Confirm, next.Counted = nil, false"),
    ("a notice of an expiry is told of again", "pkg/lifecycle/sweep.go", "next.Told.Expiring = lead(*r.ExpiresAt, now)\n", "next.Told.Expiring = r.Told.Expiring\n"),
    ("a key in use is ended early", "pkg/lifecycle/sweep.go", "!quietSince.After(now) && ", ""),
    ("a key whose successor is not used is ended early", "pkg/lifecycle/sweep.go", "successor.LastUsedAt != nil && ", ""),
    ("a key on its way is not looked at again", "pkg/lifecycle/service.go", "	r.Due = s.due(&r, e.At)\n", "	if r.Due = s.due(&r, e.At); r.Handover != nil {\n		r.Due = nil\n	}\n"),
    ("a closing spreads to the key that is given its place back", "pkg/lifecycle/service.go", "if ends(&u.Record, verb, c.Entry.At) && ", "if "),
    ("keys with which something goes wrong stay in front", "pkg/lifecycle/sweep.go", "At: s.now().Add(setback)})\n			return err", "At: s.now()})\n			return err"),
    ("the latest wait behind a backlog", "pkg/lifecycle/sweep.go", "Until: s.now(), Latest: true,", "Until: s.now(),"),
    ("a receiver that is gone is asked again", "pkg/lifecycle/handover.go", "if h.Gone = how.how == Gone.how; h.Gone {", "if false {"),
    ("a receiver that is gone, of a key that is held, is asked again", "pkg/lifecycle/agenda.go", "case h.Gone:", "case false:"),
    ("a receiver that is gone has nothing in doubt", "pkg/lifecycle/handover.go", "		return s.giveUp(ctx, r, old, now, h)\n	}\n	if asked", "		h.Doubt = false\n		return s.giveUp(ctx, r, old, now, h)\n	}\n	if asked"),
    ("who asks for time is not given it", "pkg/lifecycle/handover.go", "asked := now.Add(how.wait)", "asked := now"),
    ("a slow receiver may have all the senders", "pkg/lifecycle/handover.go", "(s.Senders, perReceiver)", "(s.Senders, s.Senders)"),
    ("an entry that has a link is linked again", "pkg/memory/chain.go", "	if _, there := c.of[e.ID]; there {\n", "	if false {\n"),
    ("what is linked is not what was written", "pkg/memory/chain.go", "	next, err := audit.Next(head, e)\n", "	e.RequestID = \"another\"\n	next, err := audit.Next(head, e)\n"),
    ("an event has another hash than its link", "pkg/event/event.go", "l.Link.Previous, l.Link.Hash}", "l.Link.Previous, l.Link.Previous}"),
    ("an event that the bus refused is passed over", "pkg/publish/publish.go", "				l.err = fmt.Errorf(\"sending %s: %w\", l.events[l.next].ID, err)\n", "				l.next++\n"),
    ("an announcement that failed counts as made", "pkg/publish/publish.go", "l.next, l.err = 0, errors.Join(", "l.err = errors.Join("),
    ("what an abandoned rotation writes is not brought by the feed", "pkg/memory/feed.go", "	s.order = append(s.order, ref{e.OrganizationID, e.ID})\n", "	if e.Action != audit.RotationAbandoned {\n		s.order = append(s.order, ref{e.OrganizationID, e.ID})\n	}\n"),
    ("what is left of a batch counts as done", "pkg/publish/take.go", "return remaining(records, undone, behind), ", "_ = behind\n	return remaining(records, undone, nil), "),
    ("an event is given up after three attempts", "pkg/notify/deliver.go", "came.Outcome == webhook.Gone || d.Tries >= work.Attempts):", "came.Outcome == webhook.Gone || d.Tries >= 3):"),
    ("what was claimed is not tried again", "pkg/notify/deliver.go", "new(now.Add(claimTime)), new(now.Add(max(claimTime, d.wait())))", "new(now.Add(claimTime)), nil"),
    ("any answer is a delivery", "pkg/notify/deliver.go", "case came.Outcome == webhook.Delivered && d.Round", "case came.Status > 0 && d.Round"),
    ("a webhook that fails is disabled", "pkg/notify/deliver.go", "	if came.Outcome == webhook.Gone {", "	if came.Outcome != webhook.Delivered {"),
    ("an attempt has an id of its own", "pkg/notify/deliver.go", "webhook.Message{ID: d.EventID,", "webhook.Message{ID: d.ID,"),
    ("the latest event goes first", "pkg/memory/notify.go", "cmp.Compare(a.Sequence, b.Sequence)", "cmp.Compare(b.Sequence, a.Sequence)"),
]


def by_year(tree):
    """What the years say, in words without keys and numbers."""
    failed, output = go_test(tree, "./pkg/lifecycle", "-run", "^TestYear$", "-year.seed", "42", "-year.seeds", "8", patience=200)
    said = re.findall(r"(?:whose receiver is|the events of) \w+:\n\s*(.*)", output)
    said = [re.sub(r"org_\w+: ", "", s) for s in said]
    said = sorted({re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \S+ UTC", "some time", re.sub(r"key_\w+", "a key", s)) for s in said})
    return (said[0][:100] if said else output.strip().splitlines()[-1]) if failed else ""


def by_others(tree):
    """The other tests that fail."""
    failed, output = go_test(tree, "./pkg/lifecycle", "-skip", "^(TestModel|TestMatrix|TestYear)$", "-timeout", "150s", patience=200)
    names = re.findall(r"^--- FAIL: (\w+)", output, re.MULTILINE)
    return ", ".join(f"`{name}`" for name in names[:2]) or ("the package's tests do not end" if failed else "**no**")


def checks(tree):
    """What the year says or, where it does not, what other tests do."""
    said = by_year(tree)
    return said or "no", "" if said else by_others(tree)


broken.table(["the year says", "where it does not, other tests"], BREAKS, checks)
