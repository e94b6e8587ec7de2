"""Breaks the code one way at a time, in a git worktree of its own at HEAD, and prints what sees each: a table of docs/testing.md.

Words on the command line name the breaks to make, by part of their names; without any all are made. A break whose text does
not stand in its file once, or that does not compile, is an error: it must be written anew.
"""

import contextlib
import os
import subprocess
import sys
import tempfile


def table(columns, breaks, checks):
    """Prints a row for each break: its name, the file's, and what checks(tree) returns, a cell for each further column.

    breaks are what each is called, the file, what stands there, and what is to stand there instead.
    """
    wanted = sys.argv[1:]
    with worktree() as tree:
        print(line(["broken", "in", *columns]))
        print(line(["---"] * (len(columns) + 2)))
        for name, path, good, bad in breaks:
            if wanted and not any(word in name for word in wanted):
                continue
            with broken(tree, name, path, good, bad):
                print(line([name, os.path.basename(path), *checks(tree)]), flush=True)


def line(cells):
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


@contextlib.contextmanager
def worktree():
    """A checkout of HEAD that is gone afterwards."""
    root = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, "tree")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, "HEAD"], cwd=root, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=root, check=True)


@contextlib.contextmanager
def broken(tree, name, path, good, bad):
    """One break, which is mended afterwards."""
    file = os.path.join(tree, path)
    with open(file, encoding="utf-8") as f:
        before = f.read()
    if before.count(good) != 1:
        sys.exit(f"{name}: {path} does not say {good!r} once")
    try:
        with open(file, "w", encoding="utf-8") as f:
            f.write(before.replace(good, bad))
        failed, output = go_test(tree, "./" + os.path.dirname(path), "-run", "^$")
        if failed:
            sys.exit(f"{name}: it does not compile:\n{output}")
        yield
    finally:
        with open(file, "w", encoding="utf-8") as f:
            f.write(before)


def go_test(tree, *arguments, patience=None):
    """Whether go test fails, on the memory store alone, and all that it prints. Patience is in seconds."""
    environment = dict(os.environ, LATCHKEY_DYNAMODB_LOCAL="/nonexistent", LATCHKEY_REQUIRE_DYNAMODB="")
    try:
        done = subprocess.run(["go", "test", "-count=1", *arguments], cwd=tree, env=environment, capture_output=True,
                              text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired:
        return True, "it does not come to an end"
    return done.returncode != 0, done.stdout + done.stderr
