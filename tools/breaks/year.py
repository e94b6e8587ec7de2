"""Breaks scheduled rotation, one rule at a time, and prints what sees it: the second table of docs/testing.md.

It works in a git worktree of its own at HEAD, and leaves the one it was started in alone. Words name the breaks to make, by
part of their names; without any all are made.
"""

import os
import re
import subprocess
import sys
import tempfile

# What each break is called, the file of pkg/lifecycle, what stands there, and what is to stand there instead, once.
BREAKS = [
    ("the old key's end is set before its successor is delivered", "handover.go", "	e, err := entry(owner(&r), now, audit.RotationStarted", "	endGrace(&old.Key, now.Add(s.cap()))\n	e, err := entry(owner(&r), now, audit.RotationStarted"),
    ("a successor that may have arrived is abandoned", "handover.go", "case h.Doubt && !r.Over(now):", "case false:"),
    ("a successor that may have arrived counts as delivered", "handover.go", "case r.LastUsedAt != nil:", "case r.LastUsedAt != nil || h.Doubt:"),
    ("a successor in use does not count as delivered", "handover.go", "case r.LastUsedAt != nil:", "case false:"),
    ("an attempt that nobody spoke of again is certain", "handover.go", "h.Claimed, h.Doubt = nil, true", "h.Claimed = nil"),
    ("an unanswered attempt is certain", "handover.go", "h.Claimed, h.Doubt = nil, h.Doubt || how.how == Doubtful.how", "h.Claimed = nil"),
    ("attempts are not claimed", "handover.go", "h.Claimed, h.Next = new(now.Add(claimTime)), now.Add(work.Wait(uint64(id), h.Attempts))", "h.Next = now.Add(work.Wait(uint64(id), h.Attempts))"),
    ("an abandoned successor lives on", "handover.go", "	revoke(&next, now, why)\n", "	next.Counted = false\n"),
    ("the old key does not get its place back", "handover.go", "		old.Counted = takesPlace(&old, now)\n", ""),
    ("both keys of a rotation have a place", "handover.go", "old.NextRotationAt, old.Counted = &next.ID, nil, false\n	e", "old.NextRotationAt = &next.ID, nil\n	e"),
    ("the cap is twice as long", "handover.go", "endGrace(&last.Key, now.Add(s.cap()))", "endGrace(&last.Key, now.Add(2*s.cap()))"),
    ("a delivered secret stays sealed", "handover.go", "return Change{Entry: e, Destroy: destroy,", "return Change{Entry: e, Destroy: destroy[:0],"),
    ("each attempt brings another secret", "handover.go", "return apikey.NewPlaintext(string(b)), nil", "return apikey.NewPlaintext(string(b) + fmt.Sprint(r.Handover.Attempts)), nil"),
    ("a rotation begins untold", "handover.go", "c := Change{Entry: e, Update", "c := Change{Entry: e, Silent: true, Update"),
    ("a rotation does not wait for the end of the one before", "agenda.go", "if before != nil {", "if false {"),
    ("clocks are taken to agree", "handover.go", "clocksApart   = 2 * time.Minute", "clocksApart   = 0 * time.Minute"),
    ("a key that has ended is rotated", "agenda.go", "end != nil && !end.After(now) && len(agenda) > 0", "end != nil && false"),
    ("an end is not told", "agenda.go", "	note(r.End(), finish)\n", ""),
    ("a delivery that finds a key ended takes it off the list", "agenda.go", "return finish, dueOf(appointment{*end, finish}), nil", "return finish, nil, nil"),
    ("an end is told of again", "sweep.go", "next.Told.Over, next.Told.Confirm, next.Counted = true, nil, false", "next.Told.Confirm, next.Counted = nil, false"),
    ("a notice of an expiry is told of again", "sweep.go", "next.Told.Expiring = lead(*r.ExpiresAt, now)\n", "next.Told.Expiring = r.Told.Expiring\n"),
    ("a key in use is ended early", "sweep.go", "!quietSince.After(now) && ", ""),
    ("a key whose successor is not used is ended early", "sweep.go", "successor.LastUsedAt != nil && ", ""),
    ("a key on its way is not looked at again", "service.go", "	r.Due = s.due(&r, e.At)\n", "	if r.Due = s.due(&r, e.At); r.Handover != nil {\n		r.Due = nil\n	}\n"),
    ("a closing spreads to the key that is given its place back", "service.go", "if ends(&u.Record, verb, c.Entry.At) && ", "if "),
    ("keys with which something goes wrong stay in front", "sweep.go", "At: s.now().Add(setback)})\n			return err", "At: s.now()})\n			return err"),
    ("the latest wait behind a backlog", "sweep.go", "Until: s.now(), Latest: true,", "Until: s.now(),"),
    ("a receiver that is gone is asked again", "handover.go", "if h.Gone = how == Gone; h.Gone {", "if false {"),
    ("a receiver that is gone, of a key that is held, is asked again", "agenda.go", "case h.Gone:", "case false:"),
    ("a receiver that is gone has nothing in doubt", "handover.go", "		return s.giveUp(ctx, r, old, now, h)\n	}\n	if asked", "		h.Doubt = false\n		return s.giveUp(ctx, r, old, now, h)\n	}\n	if asked"),
    ("who asks for time is not given it", "handover.go", "asked := now.Add(how.wait)", "asked := now"),
    ("a slow receiver may have all the senders", "handover.go", "(s.Senders, perReceiver)", "(s.Senders, s.Senders)"),
]


def go_test(tree, *arguments):
    """Whether go test of pkg/lifecycle fails, and all that it prints."""
    try:
        done = subprocess.run(["go", "test", "./pkg/lifecycle", *arguments], cwd=tree, capture_output=True, text=True, timeout=200)
    except subprocess.TimeoutExpired:
        return True, "it does not come to an end"
    return done.returncode != 0, done.stdout + done.stderr


def by_year(tree):
    """What the years say, in words without keys and numbers."""
    failed, output = go_test(tree, "-run", "^TestYear$", "-year.seed", "42", "-year.seeds", "8")
    said = re.findall(r"whose receiver is \w+:\n\s*(.*)", output)
    said = sorted({re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \S+ UTC", "some time", re.sub(r"key_\w+", "a key", s)) for s in said})
    return (said[0][:100] if said else output.strip().splitlines()[-1]) if failed else ""


def by_others(tree):
    """The other tests that fail."""
    failed, output = go_test(tree, "-skip", "^(TestModel|TestMatrix|TestYear)$", "-timeout", "150s")
    names = re.findall(r"^--- FAIL: (\w+)", output, re.MULTILINE)
    return ", ".join(f"`{name}`" for name in names[:2]) or ("the package's tests do not end" if failed else "**no**")


def row(tree, name, path, good, bad):
    """Makes one break, prints what sees it, and mends it."""
    file = os.path.join(tree, "pkg/lifecycle", path)
    with open(file, encoding="utf-8") as f:
        before = f.read()
    if before.count(good) != 1:
        sys.exit(f"{name}: {path} does not say {good!r} once")
    try:
        with open(file, "w", encoding="utf-8") as f:
            f.write(before.replace(good, bad))
        failed, output = go_test(tree, "-run", "^$")
        if failed:
            sys.exit(f"{name}: it does not compile:\n{output}")
        said = by_year(tree)
        print(f"| {name} | {path} | {said or 'no'} | {'' if said else by_others(tree)} |", flush=True)
    finally:
        with open(file, "w", encoding="utf-8") as f:
            f.write(before)


def main():
    """Makes the breaks that the words name."""
    wanted = sys.argv[1:]
    root = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, "tree")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, "HEAD"], cwd=root, check=True)
        try:
            print("| broken | in | the year says | where it does not, other tests |")
            print("| --- | --- | --- | --- |")
            for name, path, good, bad in BREAKS:
                if not wanted or any(word in name for word in wanted):
                    row(tree, name, path, good, bad)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=root, check=True)


main()
