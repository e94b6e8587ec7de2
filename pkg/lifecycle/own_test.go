package lifecycle_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// changes is every verb that a member may try on a key.
var changes = map[string]func(*scene, context.Context, apikey.ID) error{
	"get": func(s *scene, by context.Context, id apikey.ID) error { _, err := s.Get(by, id); return err },
	"update": func(s *scene, by context.Context, id apikey.ID) error {
		_, err := s.Update(by, id, 0, lifecycle.Patch{Name: new("x")})
		return err
	},
	"disable": func(s *scene, by context.Context, id apikey.ID) error {
		_, err := s.Update(by, id, 0, disable)
		return err
	},
	"archive":    func(s *scene, by context.Context, id apikey.ID) error { _, err := s.Archive(by, id); return err },
	"reactivate": func(s *scene, by context.Context, id apikey.ID) error { _, err := s.Reactivate(by, id); return err },
	"rotate":     func(s *scene, by context.Context, id apikey.ID) error { _, err := s.Rotate(by, id, nil); return err },
	"rotate now": func(s *scene, by context.Context, id apikey.ID) error {
		_, err := s.Rotate(by, id, seconds(0))
		return err
	},
	"rotate once": func(s *scene, by context.Context, id apikey.ID) error {
		_, err := s.RotateOnce(by, token("a"), id, nil)
		return err
	},
	"end": func(s *scene, by context.Context, id apikey.ID) error { _, err := s.EndGrace(by, id); return err },
	"extend": func(s *scene, by context.Context, id apikey.ID) error {
		_, err := s.ExtendGrace(by, id, lifecycle.MaxGrace)
		return err
	},
	"revoke": func(s *scene, by context.Context, id apikey.ID) error { return s.Revoke(by, id, "") },
}

func TestMembersSeeAndChangeTheirOwnKeysAlone(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		ann, bob := s.member("ann"), s.member("bob")
		first, err := s.CreateOnce(ann, token("a"), basic())
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.Rotate(s.admin(), first.Key.ID, nil) // whoever rotates it, it stays hers
		if err != nil {
			t.Fatal(err)
		}
		foreign := s.creates(t, basic()).Key
		for _, id := range []apikey.ID{first.Key.ID, second.New.Key.ID, foreign.ID} {
			before := s.record(t, id)
			for name, do := range changes {
				if err := do(s, bob, id); apikey.CodeOf(err) != apikey.NotFound {
					t.Errorf("%s of another's key: %v", name, err)
				}
			}
			if !reflect.DeepEqual(s.record(t, id), before) {
				t.Error("another's key was changed")
			}
		}
		s.wantListed(t, bob, lifecycle.Filter{}, 0)
		s.wantListed(t, bob, lifecycle.Filter{CreatedBy: "ann"}, 0)
		s.wantListed(t, ann, lifecycle.Filter{}, 2)
		s.wantListed(t, ann, lifecycle.Filter{CreatedBy: "ann"}, 2)
		s.wantListed(t, ann, lifecycle.Filter{CreatedBy: "operator"}, 0)
		s.wantListed(t, s.admin(), lifecycle.Filter{}, 3)
		s.wantListed(t, s.admin(), lifecycle.Filter{CreatedBy: "ann"}, 2)
		again, err := s.CreateOnce(ann, token("a"), basic())
		if err != nil || again.Key.ID != first.Key.ID {
			t.Errorf("asking again: %v", err)
		}
		_, _, err = s.Audit(ann, lifecycle.AuditFilter{})
		wantCode(t, err, apikey.InsufficientScope)
		s.sound(t)
	})
}

func (s *scene) wantListed(t *testing.T, by context.Context, f lifecycle.Filter, want int) {
	t.Helper()
	for _, limit := range []int{0, 1} {
		f.Limit, f.Cursor = limit, ""
		n := 0
		for more := true; more; more = f.Cursor != "" {
			list, next, err := s.List(by, f)
			if err != nil {
				t.Fatal(err)
			}
			n, f.Cursor = n+len(list), next
		}
		if n != want {
			t.Errorf("%+v lists %d keys, want %d", f, n, want)
		}
	}
}

func TestMembersMayDoEverythingToTheirOwnKeysAndWhatReplacesThem(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		ann := s.member("ann")
		k, err := s.Create(ann, basic())
		if err != nil {
			t.Fatal(err)
		}
		id := k.Key.ID
		for _, name := range []string{"get", "update", "disable", "archive", "reactivate", "rotate", "extend", "end"} {
			if err := changes[name](s, ann, id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		next := *s.record(t, id).ReplacedByKeyID
		if r := s.record(t, next); r.CreatedBy != "ann" {
			t.Errorf("the successor was made by %s", r.CreatedBy)
		}
		for _, name := range []string{"get", "update", "archive", "reactivate", "rotate now"} {
			if err := changes[name](s, ann, next); err != nil {
				t.Errorf("%s of the successor: %v", name, err)
			}
		}
		third := *s.record(t, next).ReplacedByKeyID
		for _, id := range []apikey.ID{third, next, id} {
			if err := changes["revoke"](s, ann, id); err != nil {
				t.Errorf("revoke: %v", err)
			}
		}
		s.sound(t)
	})
}

func TestMembersGiveNoManagementScopes(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		ann := s.member("ann")
		for _, scope := range []string{apikey.KeysRead, apikey.KeysWrite} { // which they hold themselves
			_, err := s.Create(ann, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{scope}})
			wantCode(t, err, apikey.Escalation)
			k, err := s.Create(ann, basic())
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Update(ann, k.Key.ID, 0, lifecycle.Patch{Scopes: &[]string{"orders:read", scope}})
			wantCode(t, err, apikey.Escalation)
		}
		for _, scope := range []string{apikey.KeysVerify, apikey.AuditRead, apikey.OrgAdmin} {
			_, err := s.Create(ann, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{scope}})
			wantCode(t, err, apikey.ScopeNotHeld)
		}

		// Ann was an admin when she made this one. Now she may only take it out of use.
		admin := caller.From(ann)
		admin.Own = false
		k, err := s.Create(as(admin), lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]apikey.Code{"update": apikey.Escalation, "disable": apikey.Escalation, "rotate": apikey.Escalation, "rotate now": apikey.Escalation} {
			wantCode(t, changes[name](s, ann, k.Key.ID), want)
		}
		for _, name := range []string{"get", "archive", "revoke"} {
			if err := changes[name](s, ann, k.Key.ID); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.sound(t)
	})
}
