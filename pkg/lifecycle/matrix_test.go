package lifecycle_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The matrix says who may do what to which key. Each block is one target, each row a caller, each column a verb; a cell is
// what the caller is answered, by the short words of cells. It is written from the design, and every cell is tried in a
// house of its own.
//
//	viewer, member, admin  people; hers, another's: who made the target
//	R W V A O              keys with keys:read, keys:write, keys:verify, audit:read, org:admin
//	RW-soon, RW-net        keys that end before the target, or may be used from 10.0.0.0/8 alone
//	service                a key without management scopes
//	foreign-…              callers of another organization
//
// rename changes the name, limit a limit; end and extend are about the grace of a target that was rotated, reactivate is
// tried on one that was archived.
const matrix = `
a service key      get   describe rename limit disable rotate end   extend archive reactivate revoke
viewer             ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
member-hers        ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
member-another's   none  scope    none   none  none    none   none  none   none    none       none
admin              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
operator           ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RW                 ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RWA                ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RWVAO              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
RW-soon            ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RW-net             ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
foreign-admin      none  none     none   none  none    none   none  none   none    none       none
foreign-viewer     none  scope    scope  scope scope   scope  scope scope  scope   scope      scope
foreign-RWVAO      none  none     none   none  none    none   none  none   none    none       none
foreign-service    scope scope    scope  scope scope   scope  scope scope  scope   scope      scope

a key with R       get   describe rename limit disable rotate end   extend archive reactivate revoke
viewer             ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
member-hers        ok    scope    esc    esc   esc     esc    ok    esc    ok      esc        ok
member-another's   none  scope    none   none  none    none   none  none   none    none       none
admin              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
operator           ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    held   held  held    held   ok    held   ok      held       ok
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    held   held  held    held   ok    held   ok      held       ok
RW                 ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RWA                ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RWVAO              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
RW-soon            ok    scope    ok     esc   ok      esc    ok    esc    ok      esc        ok
RW-net             ok    scope    ok     esc   ok      esc    ok    esc    ok      esc        ok
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
foreign-admin      none  none     none   none  none    none   none  none   none    none       none
foreign-RWVAO      none  none     none   none  none    none   none  none   none    none       none

a key with RA      get   describe rename limit disable rotate end   extend archive reactivate revoke
viewer             ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
member-hers        ok    scope    held   held  held    held   ok    held   ok      held       ok
member-another's   none  scope    none   none  none    none   none  none   none    none       none
admin              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
operator           ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    held   held  held    held   ok    held   ok      held       ok
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    held   held  held    held   ok    held   ok      held       ok
RW                 ok    scope    held   held  held    held   ok    held   ok      held       ok
RWA                ok    scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RWVAO              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
RW-soon            ok    scope    held   held  held    held   ok    held   ok      held       ok
RW-net             ok    scope    held   held  held    held   ok    held   ok      held       ok
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
foreign-admin      none  none     none   none  none    none   none  none   none    none       none
foreign-RWVAO      none  none     none   none  none    none   none  none   none    none       none

a key with O       get   describe rename limit disable rotate end   extend archive reactivate revoke
viewer             ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
member-hers        ok    scope    held   held  held    held   ok    held   ok      held       ok
member-another's   none  scope    none   none  none    none   none  none   none    none       none
admin              ok    ok       held   held  held    held   ok    held   ok      held       ok
operator           ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    held   held  held    held   ok    held   ok      held       ok
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    ok     ok    ok      ok     ok    ok     ok      ok         ok
RW                 ok    scope    held   held  held    held   ok    held   ok      held       ok
RWA                ok    scope    held   held  held    held   ok    held   ok      held       ok
RWVAO              ok    ok       ok     ok    ok      ok     ok    ok     ok      ok         ok
RW-soon            ok    scope    held   held  held    held   ok    held   ok      held       ok
RW-net             ok    scope    held   held  held    held   ok    held   ok      held       ok
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
foreign-admin      none  none     none   none  none    none   none  none   none    none       none
foreign-RWVAO      none  none     none   none  none    none   none  none   none    none       none

itself             get   describe rename limit disable rotate end   extend archive reactivate revoke
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    ok     esc   own     own    own   esc    own     own        own
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    ok     esc   own     own    own   esc    own     own        own
RW                 ok    scope    ok     esc   own     own    own   esc    own     own        own
RWA                ok    scope    ok     esc   own     own    own   esc    own     own        own
RWVAO              ok    ok       ok     esc   own     own    own   esc    own     own        own
RW-soon            ok    scope    ok     esc   own     own    own   field  own     own        own
RW-net             ok    scope    ok     esc   own     own    own   esc    own     own        own
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope

its successor      get   describe rename limit disable rotate end   extend archive reactivate revoke
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    ok     esc   own     own    own   esc    own     own        own
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    ok     esc   own     own    own   esc    own     own        own
RW                 ok    scope    ok     esc   own     own    own   esc    own     own        own
RWA                ok    scope    ok     esc   own     own    own   esc    own     own        own
RWVAO              ok    ok       ok     esc   own     own    own   esc    own     own        own
RW-soon            ok    scope    ok     esc   own     own    own   field  own     own        own
RW-net             ok    scope    ok     esc   own     own    own   esc    own     own        own
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope

its predecessor    get   describe rename limit disable rotate end   extend archive reactivate revoke
R                  ok    scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    ok     ok    ok      again  ok    ok     ok      ok         ok
V                  scope ok       scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    ok     ok    ok      again  ok    ok     ok      ok         ok
RW                 ok    scope    ok     ok    ok      again  ok    ok     ok      ok         ok
RWA                ok    scope    ok     ok    ok      again  ok    ok     ok      ok         ok
RWVAO              ok    ok       ok     ok    ok      again  ok    ok     ok      ok         ok
RW-soon            ok    scope    ok     ok    ok      again  ok    field  ok      ok         ok
RW-net             ok    scope    ok     ok    ok      again  ok    ok     ok      ok         ok
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope

a foreign key      get   describe rename limit disable rotate end   extend archive reactivate revoke
viewer             none  scope    scope  scope scope   scope  scope scope  scope   scope      scope
member-hers        none  scope    none   none  none    none   none  none   none    none       none
member-another's   none  scope    none   none  none    none   none  none   none    none       none
admin              none  none     none   none  none    none   none  none   none    none       none
operator           none  none     none   none  none    none   none  none   none    none       none
R                  none  scope    scope  scope scope   scope  scope scope  scope   scope      scope
W                  scope scope    none   none  none    none   none  none   none    none       none
V                  scope none     scope  scope scope   scope  scope scope  scope   scope      scope
A                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
O                  scope scope    scope  scope scope   scope  scope scope  scope   scope      scope
WO                 scope scope    none   none  none    none   none  none   none    none       none
RW                 none  scope    none   none  none    none   none  none   none    none       none
RWA                none  scope    none   none  none    none   none  none   none    none       none
RWVAO              none  none     none   none  none    none   none  none   none    none       none
RW-soon            none  scope    none   none  none    none   none  none   none    none       none
RW-net             none  scope    none   none  none    none   none  none   none    none       none
service            scope scope    scope  scope scope   scope  scope scope  scope   scope      scope

a new key with     none  orders:read R   A     O       bills
viewer             scope scope    scope  scope scope   scope
member-hers        ok    ok       esc    held  held    serve
admin              ok    ok       ok     ok    held    serve
operator           ok    ok       ok     ok    ok      serve
R                  scope scope    scope  scope scope   scope
W                  ok    ok       held   held  held    serve
V                  scope scope    scope  scope scope   scope
A                  scope scope    scope  scope scope   scope
O                  scope scope    scope  scope scope   scope
WO                 ok    ok       held   held  ok      serve
RW                 ok    ok       ok     held  held    serve
RWA                ok    ok       ok     ok    held    serve
RWVAO              ok    ok       ok     ok    ok      serve
RW-soon            ok    ok       esc    held  held    serve
RW-net             ok    ok       esc    held  held    serve
service            scope scope    scope  scope scope   scope
foreign-admin      ok    ok       ok     ok    held    ok
foreign-RWVAO      ok    ok       ok     ok    ok      ok

itself given       R     A        O      keys  longer-life no-net
W                  esc   esc      esc    esc   esc     esc
RW                 esc   esc      esc    esc   esc     esc
RWVAO              esc   esc      esc    esc   esc     esc
RW-soon            esc   esc      esc    esc   esc     esc
RW-net             esc   esc      esc    esc   esc     esc

a key with R given R     A        O      keys  longer-life no-net
member-hers        esc   esc      esc    esc   esc     esc
admin              ok    ok       held   ok    ok      ok
operator           ok    ok       ok     ok    ok      ok
W                  held  held     held   held  held    held
RW                 ok    held     held   held  ok      ok
RWA                ok    ok       held   held  ok      ok
RWVAO              ok    ok       ok     ok    ok      ok
RW-soon            esc   esc      esc    esc   esc     esc
RW-net             esc   esc      esc    esc   esc     esc

a service key given R    A        O      keys  longer-life no-net
member-hers        esc   held     held   held  ok      ok
admin              ok    ok       held   ok    ok      ok
operator           ok    ok       ok     ok    ok      ok
W                  held  held     held   held  ok      ok
WO                 held  held     ok     held  ok      ok
RW                 ok    held     held   held  ok      ok
RWA                ok    ok       held   held  ok      ok
RWVAO              ok    ok       ok     ok    ok      ok
RW-soon            esc   held     held   held  ok      ok
RW-net             esc   held     held   held  ok      ok

no key             list  trail chain own   any   set
viewer             ok    scope scope ok    scope scope
member-hers        ok    scope scope ok    scope scope
admin              ok    ok    ok    ok    scope scope
operator           ok    ok    ok    ok    ok    ok
R                  ok    scope scope ok    scope scope
W                  scope scope scope scope scope scope
V                  scope scope scope scope scope scope
A                  scope ok    ok    scope scope scope
O                  scope scope scope scope ok    ok
WO                 scope scope scope scope ok    ok
RW                 ok    scope scope ok    scope scope
RWA                ok    ok    ok    ok    scope scope
RWVAO              ok    ok    ok    ok    ok    ok
RW-soon            ok    scope scope ok    scope scope
RW-net             ok    scope scope ok    scope scope
service            scope scope scope scope scope scope
foreign-admin      ok    ok    ok    ok    scope scope
foreign-RWVAO      ok    ok    ok    ok    ok    ok
`

// cells are the answers by their short words.
var cells = map[string]apikey.Code{
	"ok": "", "none": apikey.NotFound, "scope": apikey.InsufficientScope, "held": apikey.ScopeNotHeld, "esc": apikey.Escalation,
	"own": apikey.OwnKey, "serve": apikey.ScopeNotAllowed, "again": apikey.AlreadyRotated, "field": apikey.InvalidFields,
}

// letters are the management scopes as the matrix writes them.
var letters = map[rune]string{'R': apikey.KeysRead, 'W': apikey.KeysWrite, 'V': apikey.KeysVerify, 'A': apikey.AuditRead, 'O': apikey.OrgAdmin}

func scopesOf(word string) (scopes []string) {
	for _, letter := range word {
		scopes = append(scopes, letters[letter])
	}
	return scopes
}

// scenario is one cell of the matrix in the making.
type scenario struct {
	*house
	target string
	row    string
	verb   string
}

func TestMatrix(t *testing.T) {
	tried := 0
	for _, block := range strings.Split(strings.TrimSpace(matrix), "\n\n") {
		lines := strings.Split(block, "\n")
		head := strings.Fields(lines[0])
		width := len(strings.Fields(lines[1])) - 1
		target, verbs := strings.Join(head[:len(head)-width], " "), head[len(head)-width:]
		for _, line := range lines[1:] {
			row := strings.Fields(line)
			for i, word := range row[1:] {
				want, ok := cells[word]
				if !ok || len(row) != width+1 {
					t.Fatalf("no answer is written %q, in %q", word, line)
				}
				tried++
				s := &scenario{newHouse(t, "enterprise"), target, row[0], verbs[i]}
				if err := s.play(t); err == nil && want != "" || err != nil && apikey.CodeOf(err) != want {
					t.Errorf("%s: %s by %s: got %v, want %q", target, verbs[i], row[0], err, want)
				}
			}
		}
	}
	t.Logf("%d cells", tried)
}

// play prepares a house, and does what the cell is about.
func (s *scenario) play(t *testing.T) error {
	t.Helper()
	if _, err := s.AddOrganization(foreign(), "enterprise", []string{"*"}); err != nil {
		t.Fatal(err)
	}
	asks := s.asks(t)
	switch s.target {
	case "no key":
		return s.doNothingToKeys(as(asks))
	case "a new key with":
		n := basic()
		if n.Scopes = []string{s.verb}; s.verb == "none" || scopesOf(s.verb)[0] != "" {
			n.Scopes = scopesOf(strings.TrimPrefix(s.verb, "none"))
		}
		_, err := s.Create(as(asks), n)
		return err
	}
	id, line := s.aim(t, &asks)
	if given, ok := gifts(s.clock())[s.verb]; ok {
		_, err := s.Update(as(asks), id, 0, given)
		return err
	}
	s.prepare(t, id, line, &asks)
	return s.do(as(asks), id)
}

func foreign() context.Context {
	by := caller.From(admin())
	by.OrganizationID = "corner"
	return as(by)
}

// asks is who asks in the row. A key is a real one, made by the operator.
func (s *scenario) asks(t *testing.T) caller.Caller {
	t.Helper()
	row, abroad := strings.CutPrefix(s.row, "foreign-")
	ctx := admin()
	if abroad {
		ctx = foreign()
	}
	by := caller.Caller{OrganizationID: caller.From(ctx).OrganizationID, Kind: caller.User, ID: "person"}
	role, _, _ := strings.Cut(row, "-")
	switch role {
	case "operator":
		return caller.From(ctx)
	case "viewer", "member", "admin":
		by.Scopes, by.Own = map[string][]string{"viewer": scopesOf("R"), "member": scopesOf("RW"), "admin": scopesOf("RWVA")}[role], role == "member"
		return by
	}
	n := basic()
	if role == "service" {
		n.Scopes = []string{"orders:read"}
	} else {
		n.Scopes = scopesOf(role)
	}
	if strings.HasSuffix(row, "-soon") {
		n.ExpiresAt = &lifecycle.Moment{Time: s.clock().Add(time.Hour)}
	}
	if strings.HasSuffix(row, "-net") {
		n.AllowedCIDRs = []string{"10.0.0.0/8"}
	}
	issued, err := s.Create(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return keyCaller(&issued.Key)
}

// keyCaller is a key as a door introduces it.
func keyCaller(k *apikey.Key) caller.Caller {
	by := caller.Caller{OrganizationID: k.OrganizationID, Kind: caller.Key, ID: k.ID.String(), Scopes: k.Scopes}
	if end := k.End(); end != nil {
		by.Until = *end
	}
	for _, text := range k.AllowedCIDRs {
		by.CIDRs = append(by.CIDRs, netip.MustParsePrefix(text))
	}
	return by
}

// aim finds or makes the target. line says that it stands in a line that has been rotated already.
func (s *scenario) aim(t *testing.T, asks *caller.Caller) (id apikey.ID, line bool) {
	t.Helper()
	own, _ := apikey.ParseID(asks.ID)
	switch s.target {
	case "itself", "itself given":
		return own, false
	case "its successor", "its predecessor":
		r, err := s.Rotate(admin(), own, seconds(24*3600))
		if err != nil {
			t.Fatal(err)
		}
		if s.target == "its predecessor" {
			*asks = keyCaller(&r.New.Key)
			return own, true
		}
		*asks = keyCaller(&r.Old)
		return r.New.Key.ID, true
	}
	n, maker := basic(), caller.From(admin())
	if s.target == "a foreign key" {
		maker = caller.From(foreign())
	}
	if s.row == "member-hers" {
		maker.ID = "person"
	}
	if i := strings.Index(s.target, " with "); i >= 0 {
		n.Scopes = scopesOf(strings.TrimSuffix(s.target[i+len(" with "):], " given"))
	}
	issued, err := s.Create(as(maker), n)
	if err != nil {
		t.Fatal(err)
	}
	return issued.Key.ID, false
}

// prepare brings the target into the state that the verb is about.
func (s *scenario) prepare(t *testing.T, id apikey.ID, line bool, asks *caller.Caller) {
	t.Helper()
	ctx := admin()
	if s.target == "a foreign key" {
		ctx = foreign()
	}
	var err error
	switch s.verb {
	case "end", "extend":
		if !line {
			var r lifecycle.Rotated
			if r, err = s.Rotate(ctx, id, seconds(24*3600)); err == nil && asks.ID == id.String() {
				*asks = keyCaller(&r.Old)
			}
		}
	case "reactivate":
		_, err = s.Archive(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// do is the verb itself.
func (s *scenario) do(ctx context.Context, id apikey.ID) (err error) {
	switch s.verb {
	case "get":
		_, err = s.Get(ctx, id)
	case "describe":
		_, err = s.Describe(ctx, id)
	case "rename":
		_, err = s.Update(ctx, id, 0, lifecycle.Patch{Name: new("renamed"), Metadata: []byte(`{"team":"red"}`)})
	case "limit":
		_, err = s.Update(ctx, id, 0, lifecycle.Patch{DailyLimit: said(int64(7))})
	case "disable":
		_, err = s.Update(ctx, id, 0, lifecycle.Patch{Enabled: new(false)})
	case "rotate":
		_, err = s.Rotate(ctx, id, seconds(0))
	case "end":
		_, err = s.EndGrace(ctx, id)
	case "extend":
		_, err = s.ExtendGrace(ctx, id, 48*time.Hour)
	case "archive":
		_, err = s.Archive(ctx, id)
	case "reactivate":
		_, err = s.Reactivate(ctx, id)
	case "revoke":
		err = s.Revoke(ctx, id, "")
	default:
		panic(s.verb)
	}
	return err
}

// gifts are patches that would give a key more than it has.
func gifts(now time.Time) map[string]lifecycle.Patch {
	give := func(word string) lifecycle.Patch {
		return lifecycle.Patch{Scopes: new(append(scopesOf(word), "orders:read"))}
	}
	return map[string]lifecycle.Patch{
		"R": give("R"), "A": give("A"), "O": give("O"), "keys": give("RWV"),
		"longer-life": {ExpiresAt: said(lifecycle.Moment{Time: now.Add(1000 * time.Hour)})},
		"no-net":      {AllowedCIDRs: &[]string{"0.0.0.0/0", "::/0"}},
	}
}

// doNothingToKeys is a verb that is about no key.
func (s *scenario) doNothingToKeys(ctx context.Context) (err error) {
	switch s.verb {
	case "list":
		_, _, err = s.List(ctx, lifecycle.Filter{})
	case "trail":
		_, _, err = s.Audit(ctx, lifecycle.AuditFilter{})
	case "chain":
		_, _, err = s.AuditChain(ctx, 0, 0)
	case "own":
		_, err = s.OwnOrganization(ctx)
	case "any":
		_, err = s.OrganizationOf(ctx, "acme")
	case "set":
		_, err = s.SetOrganization(ctx, "acme", lifecycle.OrganizationPatch{Plan: said("team")})
	default:
		panic(s.verb)
	}
	return err
}
