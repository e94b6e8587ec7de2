package audit

import (
	"fmt"
	"strings"
)

// Verdict is what an export proves of one organization's chain.
type Verdict struct {
	OrganizationID string
	Links, Entries int
	First          int64    // the number of the first link there is
	Held           int64    // up to which link nothing is wrong; 0: not even the first
	Head           Head     // the last link there is
	Broken         int64    // the number of the first link that is broken; 0: none is
	What           string   // is wrong with it
	Inserted       []string // entries without a link that are too old to wait for one
	Waiting        []string // entries without a link that may get one yet, or whose links were cut off
	Earlier        int      // entries older than the first link there is, which begins later than the chain
	Kept           []Kept   // what became of the heads that were kept elsewhere
}

// Kept is a head that was kept elsewhere, and whether its link is still the same.
type Kept struct {
	Head Head
	Same bool
	What string // is wrong, where it is not
}

// Proven says whether there are links, all hold, every entry that should have one has, and every kept head is the same.
func (v *Verdict) Proven() bool {
	for _, k := range v.Kept {
		if !k.Same {
			return false
		}
	}
	return v.Links > 0 && v.Broken == 0 && len(v.Inserted) == 0
}

// shown is how many entries a report names.
const shown = 5

// String is a report for people.
func (v *Verdict) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	fmt.Fprintf(&b, "%s: %s\n", printable(v.OrganizationID), v.title())
	v.chain(say)
	v.unlinked(say)
	v.heads(say)
	return b.String()
}

func (v *Verdict) title() string {
	switch {
	case v.Links == 0:
		return "NOTHING IS PROVEN: there is no link"
	case v.Broken > 0:
		return fmt.Sprintf("BROKEN at link %d", v.Broken)
	case len(v.Inserted) > 0:
		return fmt.Sprintf("BROKEN: %s without a link", some(len(v.Inserted), "entry", "entries"))
	case !v.Proven():
		return "BROKEN: the chain holds, but is not the one that was kept"
	}
	return "proven, " + v.held()
}

// held is what holds.
func (v *Verdict) held() string {
	if v.First == v.Held {
		return fmt.Sprintf("link %d", v.First)
	}
	return fmt.Sprintf("links %d to %d", v.First, v.Held)
}

func (v *Verdict) chain(say func(string, ...any)) {
	if v.Broken > 0 {
		say("%s", v.What)
		if v.Held >= v.First {
			say("Before it, %s: nothing is wrong. From link %d on nothing is proven.", v.held(), v.Broken)
		}
	} else if v.Links > 0 {
		say("Every link holds: no entry of theirs was changed, deleted, or put in another order.")
	} else if v.Entries > 0 {
		say("Entries alone prove nothing. Give their links too: the pages of /v1/audit/chain, or an export, which has both.")
	}
	say("%s, %s.", some(v.Links, "link", "links"), some(v.Entries, "entry", "entries"))
	if v.Proven() {
		say("Head: %s", printable(v.Head.String()))
	} else if v.Links > 0 {
		say("Head, not proven and not one to keep: %s", printable(v.Head.String()))
	}
	if v.First > 1 {
		say("These files begin with link %d: of what came before it nothing is proven.", v.First)
	}
}

func (v *Verdict) unlinked(say func(string, ...any)) {
	if n := len(v.Inserted); n > 0 {
		say("%s no link, although newer entries have: put in afterwards, or never published (`latchkey audit publish` would link %s now).",
			some(n, "entry has", "entries have"), either(n, "it", "them"))
		list(say, v.Inserted)
	}
	if n := len(v.Waiting); n > 0 {
		say("%s no link yet, which is usual for some seconds after a change. NOT PROVEN: %s may as well have been put in or changed since,",
			some(n, "entry has", "entries have"), either(n, "it", "they"))
		say("or the newest links have been cut off.")
		list(say, v.Waiting)
	}
	if v.Earlier > 0 {
		say("%s from before link %d, and not checked.", some(v.Earlier, "entry is", "entries are"), v.First)
	}
}

func (v *Verdict) heads(say func(string, ...any)) {
	proven := int64(0)
	for _, k := range v.Kept {
		if k.Same && v.Held < k.Head.Sequence && k.Head.Sequence >= v.First {
			say("Kept head %d:%s: the same, but the links up to it do not hold.", k.Head.Sequence, k.Head.Hash)
		} else if k.Same {
			proven = max(proven, k.Head.Sequence)
			say("Kept head %d:%s: the same. Up to there nothing was cut off or written anew.", k.Head.Sequence, k.Head.Hash)
		} else {
			say("Kept head %d:%s: NOT THE SAME, %s.", k.Head.Sequence, k.Head.Hash, k.What)
		}
	}
	switch {
	case v.Links == 0, v.Broken > 0, proven == 0 && len(v.Kept) > 0:
	case proven == 0:
		say("NOT PROVEN: that no newer links and entries were cut off, and that not the whole chain was written anew. A head that was kept")
		say("elsewhere would show both: --head SEQUENCE:HASH.")
	case proven < v.Head.Sequence:
		say("NOT PROVEN: that after link %d nothing was cut off or written anew.", proven)
	default:
		say("NOT PROVEN: that after link %d nothing was cut off. A newer head would show it.", proven)
	}
}

func list(say func(string, ...any), entries []string) {
	for i, e := range entries {
		if i == shown {
			say("  and %d more", len(entries)-shown)
			return
		}
		say("  %s", e)
	}
}

// some is a number of things.
func some(n int, one, many string) string { return fmt.Sprintf("%d %s", n, either(n, one, many)) }

func either(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
