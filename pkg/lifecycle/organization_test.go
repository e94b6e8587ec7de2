package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// person is an admin of the scene's organization whose token names a plan, or none.
func (s *scene) person(plan string) context.Context {
	return as(caller.Caller{OrganizationID: s.organization, Kind: caller.User, ID: "ann", Plan: plan,
		Scopes: []string{apikey.KeysRead, apikey.KeysWrite, apikey.KeysVerify, apikey.AuditRead}})
}

// unknown makes the scene's organization another one, of which nothing is stored.
func (s *scene) unknown() *scene {
	s.organization += "+2"
	return s
}

// asStored is the organization as the store has it.
func (s *scene) asStored(t *testing.T) lifecycle.Organization {
	t.Helper()
	o, err := s.store.Organization(t.Context(), s.organization)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWhatOperatorsSaidGoesBeforeTheTokensClaimBeforeTheDefault(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, c := range []struct{ stored, claim, theDefault, want string }{
			{"team", "starter", "pro", "team"},
			{"team", "", "pro", "team"},
			{"team", "no such plan", "pro", "team"},
			{"", "starter", "pro", "starter"},
			{"", "", "pro", "pro"},
			{"", "", "", "free"},
		} {
			s := newScene(t, open(t), "trial").unknown()
			s.DefaultPlan, s.AllowedScopes = c.theDefault, []string{"orders:read"}
			if c.stored != "" {
				s.puts(t, onPlan(c.stored))
			}
			got, err := s.OwnOrganization(s.person(c.claim))
			if err != nil || got.Plan != c.want || got.ID != s.organization || !slices.Equal(got.AllowedScopes, s.AllowedScopes) {
				t.Errorf("%+v: got %s, %v", c, asJSON(got), err)
			}
			if (got.CreatedAt != nil) != (c.stored != "") {
				t.Errorf("%+v: made at %v", c, got.CreatedAt)
			}
		}
	})
}

func TestAStandingTellsThePlansBounds(t *testing.T) {
	h := newHouse(t, "trial")
	h.mustCreate(t, basic())
	got, err := h.OwnOrganization(as(holder(apikey.KeysRead)))
	want := `{"id":"acme","plan":"trial","key_limit":1,"active_keys":1,"default_rate_limit_per_minute":60,` +
		`"highest_rate_limit_per_minute":600,"highest_daily_limit":null,"allowed_scopes":["orders:*"],"created_at":"2026-11-22T10:00:30Z"}`
	if err != nil || string(asJSON(got)) != want {
		t.Errorf("got %s, %v,\nwant %s", asJSON(got), err, want)
	}
	if _, err := h.SetOrganization(admin(), "acme", onPlan("enterprise")); err != nil {
		t.Fatal(err)
	}
	got, err = h.OrganizationOf(admin(), "acme")
	if err != nil || got.KeyLimit != nil || got.HighestRateLimitPerMinute != nil || got.ActiveKeys != 1 {
		t.Errorf("got %s, %v", asJSON(got), err)
	}
	delete(h.Plans, "enterprise") // a plan that is not offered any more has nothing
	got, err = h.OwnOrganization(admin())
	if err != nil || got.Plan != "enterprise" || got.KeyLimit == nil || *got.KeyLimit != 0 {
		t.Errorf("got %s, %v", asJSON(got), err)
	}
	_, err = h.Create(admin(), basic())
	wantCode(t, err, apikey.PlanRefused)
}

func TestWhoMaySeeAndChangeOrganizations(t *testing.T) {
	h := newHouse(t, "trial")
	verbs := map[string]struct {
		needs string
		do    func(context.Context) error
	}{
		"own": {apikey.KeysRead, func(ctx context.Context) error { _, err := h.OwnOrganization(ctx); return err }},
		"any": {apikey.OrgAdmin, func(ctx context.Context) error { _, err := h.OrganizationOf(ctx, "acme"); return err }},
		"set": {apikey.OrgAdmin, func(ctx context.Context) error {
			_, err := h.SetOrganization(ctx, "acme", lifecycle.OrganizationPatch{})
			return err
		}},
		"trail": {apikey.AuditRead, func(ctx context.Context) error { _, _, err := h.Audit(ctx, lifecycle.AuditFilter{}); return err }},
	}
	for name, verb := range verbs {
		wantCode(t, verb.do(context.Background()), apikey.InsufficientScope)
		for _, scope := range append(apikey.ManagementScopes(), "orders:read") {
			if err := verb.do(as(holder(scope))); scope == verb.needs && err != nil || scope != verb.needs && apikey.CodeOf(err) != apikey.InsufficientScope {
				t.Errorf("%s with %s: %v", name, scope, err)
			}
		}
	}
	_, err := h.OrganizationOf(admin(), "nobody")
	wantCode(t, err, apikey.NotFound)
}

func TestATokensClaimIsStoredWithTheFirstChangeAndFollowsLaterTokens(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial").unknown()
		s.AllowedScopes = []string{"orders:*"}
		if _, _, err := s.List(s.person("starter"), lifecycle.Filter{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Organization(t.Context(), s.organization); !errors.Is(err, lifecycle.ErrNotFound) {
			t.Fatalf("reading stores something: %v", err)
		}
		key := caller.Caller{OrganizationID: s.organization, Kind: caller.Key, ID: "key_00000001", Scopes: []string{apikey.KeysWrite}}
		for _, step := range []struct {
			by      context.Context
			want    apikey.Code
			claim   string
			version int64
		}{
			{s.person("starter"), "", "starter", 1}, // 3 keys
			{s.person("starter"), "", "starter", 1},
			{s.person(""), "", "starter", 1},
			{as(key), apikey.PlanRefused, "starter", 1},
			{s.person("education"), "", "education", 2}, // 5 keys
			{as(key), "", "education", 2},
			{as(key), apikey.PlanRefused, "education", 2},
			{s.person("team"), "", "team", 3},
			{s.person("trial"), apikey.PlanRefused, "trial", 4}, // the token is younger
			{as(key), apikey.PlanRefused, "trial", 4},
			{s.person("free"), apikey.PlanRefused, "free", 5},
			{s.person("no such plan"), apikey.PlanRefused, "free", 5},
		} {
			_, err := s.Create(step.by, basic())
			if err != nil && apikey.CodeOf(err) != step.want || err == nil && step.want != "" {
				t.Fatalf("%+v: %v", step, err)
			}
			if o := s.asStored(t); o.Plan != "" || o.ClaimedPlan != step.claim || o.Version != step.version {
				t.Fatalf("%+v: stored is %+v", step, o)
			}
		}
		entries, actions := s.trail(t)
		if actions[audit.OrgCreated] != 1 || actions[audit.OrgUpdated] != 4 {
			t.Errorf("the trail tells of %v", actions)
		}
		for _, e := range entries {
			if e.Action == audit.OrgUpdated && (names(e.Changes) != "claimed_plan" || e.ActorID != "ann" || e.ActorKind != "user") {
				t.Errorf("the trail tells of %s", asJSON(e))
			}
		}
		s.sound(t)
	})
}

func TestOfAnOrganizationOnAPlanWithoutKeysNothingIsStored(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, claim := range []string{"", "free", "personal", "no such plan"} {
			s := newScene(t, open(t), "trial").unknown()
			by := s.person(claim)
			_, err := s.Create(by, basic())
			wantCode(t, err, apikey.PlanRefused)
			_, err = s.CreateOnce(by, token("a"), basic())
			wantCode(t, err, apikey.PlanRefused)
			if _, err := s.OwnOrganization(by); err != nil {
				t.Error(err)
			}
			if _, err := s.store.Organization(t.Context(), s.organization); !errors.Is(err, lifecycle.ErrNotFound) {
				t.Errorf("with the claim %q something is stored: %v", claim, err)
			}
			if entries, _ := s.trail(t); len(entries) != 0 {
				t.Errorf("with the claim %q there are %d entries", claim, len(entries))
			}
		}
	})
}

func TestADowngradeKillsNoKeyAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "starter") // 3 keys
		keys := []apikey.Issued{s.creates(t, basic()), s.creates(t, basic()), s.creates(t, basic())}
		away := keys[2]
		s.archives(t, away.Key.ID)
		for _, plan := range []string{"trial", "free"} {
			if o := s.puts(t, onPlan(plan)); o.ActiveKeys != 2 {
				t.Errorf("on %s %d keys are alive", plan, o.ActiveKeys)
			}
			s.wantCodes(t, keys, apikey.Valid, apikey.Valid, apikey.ArchivedKey)
			_, err := s.Create(s.admin(), basic())
			wantCode(t, err, apikey.PlanRefused)
			wantTold(t, err, "plan "+plan, "hange the plan")
			_, err = s.Reactivate(s.admin(), away.Key.ID)
			wantCode(t, err, apikey.PlanFull)
			next := s.rotates(t, keys[0].Key.ID, seconds(0)) // it takes the place that there is
			keys[0] = next
			s.updates(t, next.Key.ID, lifecycle.Patch{Name: new("on " + plan)})
		}
		s.puts(t, onPlan("starter"))
		s.reactivates(t, away.Key.ID)
		_, err := s.Create(s.admin(), basic())
		wantCode(t, err, apikey.PlanRefused)
		wantTold(t, err, "plan starter", "limited to 3", "Revoke one, or change the plan")
		s.sound(t)
	})
}

func TestOfAnOrganizationOnlyWhatIsSaidIsChanged(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial").unknown()
		s.DefaultPlan, s.AllowedScopes = "pro", []string{"default:*"}
		for i, step := range []struct {
			p       lifecycle.OrganizationPatch
			plan    string
			scopes  []string
			version int64
			told    string
		}{
			{lifecycle.OrganizationPatch{}, "pro", []string{"default:*"}, 1, ""},
			{lifecycle.OrganizationPatch{}, "pro", []string{"default:*"}, 1, ""},
			{onPlan("team"), "team", []string{"default:*"}, 2, "plan"},
			{onPlan("team"), "team", []string{"default:*"}, 2, "plan"},
			{lifecycle.OrganizationPatch{AllowedScopes: said([]string{"b", "a:*"})}, "team", []string{"b", "a:*"}, 3, "allowed_scopes"},
			{onPlan("starter"), "starter", []string{"b", "a:*"}, 4, "plan"},
			{lifecycle.OrganizationPatch{AllowedScopes: said([]string{})}, "starter", []string{}, 5, "allowed_scopes"},
			{lifecycle.OrganizationPatch{AllowedScopes: said([]string{})}, "starter", []string{}, 5, "allowed_scopes"},
			{lifecycle.OrganizationPatch{AllowedScopes: null[[]string]()}, "starter", []string{"default:*"}, 6, "allowed_scopes"},
			{lifecycle.OrganizationPatch{Plan: null[string](), AllowedScopes: said([]string{"*"})}, "pro", []string{"*"}, 7, "plan allowed_scopes"},
		} {
			s.advance(time.Millisecond)
			got := s.puts(t, step.p)
			if got.Plan != step.plan || !slices.Equal(got.AllowedScopes, step.scopes) || got.AllowedScopes == nil || got.CreatedAt == nil {
				t.Fatalf("step %d: got %s", i, asJSON(got))
			}
			if again, err := s.OrganizationOf(s.admin(), s.organization); err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("step %d: it is %s, %v, and was answered as %s", i, asJSON(again), err, asJSON(got))
			}
			if o := s.asStored(t); o.Version != step.version {
				t.Errorf("step %d: it is at version %d", i, o.Version)
			}
			entries, _, err := s.Audit(s.admin(), lifecycle.AuditFilter{Limit: 1})
			if err != nil || names(entries[0].Changes) != step.told || (entries[0].Action == audit.OrgCreated) != (step.version == 1) {
				t.Errorf("step %d: the trail tells of %s, %v", i, asJSON(entries), err)
			}
		}
		s.sound(t)
	})
}

func TestWhatNoOrganizationCanBeIsRefused(t *testing.T) {
	h := newHouse(t, "trial")
	many := make([]string, lifecycle.MaxScopes+1)
	for i := range many {
		many[i] = fmt.Sprint("scope", i)
	}
	for _, c := range []struct {
		id   string
		p    lifecycle.OrganizationPatch
		want string
	}{
		{"acme", onPlan("no such plan"), "/plan"},
		{"acme", onPlan(""), "/plan"},
		{"acme", lifecycle.OrganizationPatch{AllowedScopes: said([]string{"a b"})}, "/allowed_scopes"},
		{"acme", lifecycle.OrganizationPatch{AllowedScopes: said([]string{"a*b"})}, "/allowed_scopes"},
		{"acme", lifecycle.OrganizationPatch{AllowedScopes: said([]string{""})}, "/allowed_scopes"},
		{"acme", lifecycle.OrganizationPatch{AllowedScopes: said(many)}, "/allowed_scopes"},
		{"a#b", onPlan("trial"), ""},
		{"", onPlan("trial"), ""},
	} {
		_, err := h.SetOrganization(admin(), c.id, c.p)
		wantCode(t, err, apikey.InvalidFields)
		if got := pointers(err); got != c.want {
			t.Errorf("%q with %+v: got %s", c.id, c.p, got)
		}
	}
}

func TestOfTwentyRacingChangesOfAnOrganizationNoneIsLost(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial").unknown()
		scopes := func(i int) []string { return []string{fmt.Sprintf("scope%d", i)} }
		won := atOnce(20, asClientsDo(func(i int) error {
			p := onPlan([]string{"team", "starter"}[i/2%2])
			if i%2 == 1 {
				p = lifecycle.OrganizationPatch{AllowedScopes: said(scopes(i))}
			}
			_, err := s.SetOrganization(s.admin(), s.organization, p)
			return err
		}), func(err error) { t.Error(err) })
		o := s.asStored(t)
		if won != 20 || o.Plan == "" || len(o.AllowedScopes) != 1 {
			t.Errorf("%d were made: %+v", won, o)
		}
		// Each change is told of once, and began where another had ended.
		entries, actions := s.trail(t)
		if int64(len(entries)) != o.Version || actions[audit.OrgCreated] != 1 {
			t.Errorf("there are %d entries of %d versions", len(entries), o.Version)
		}
		left, told := map[string]int{}, map[string]bool{}
		for _, e := range entries {
			for _, c := range e.Changes {
				left[c.Field+string(c.To)]--
				left[c.Field+string(c.From)]++
				told[c.Field+string(c.To)] = true
			}
		}
		for value, n := range left {
			if n < -1 || n > 1 {
				t.Errorf("%s was left %d times more often than it was come to", value, n)
			}
		}
		for i := 1; i < 20; i += 2 {
			if !told["allowed_scopes"+string(asJSON(scopes(i)))] {
				t.Errorf("%v was lost", scopes(i))
			}
		}
	})
}

func TestWhateverCallFailsAnOrganizationIsChangedOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	verbs := map[string]func(*scene, *lifecycle.Service) (lifecycle.Standing, error){
		"set": func(s *scene, on *lifecycle.Service) (lifecycle.Standing, error) {
			return on.SetOrganization(s.admin(), s.organization, onPlan("team"))
		},
		"own": func(s *scene, on *lifecycle.Service) (lifecycle.Standing, error) {
			return on.OwnOrganization(s.admin())
		},
		"any": func(s *scene, on *lifecycle.Service) (lifecycle.Standing, error) {
			return on.OrganizationOf(s.admin(), s.organization)
		},
		"a claim": func(s *scene, on *lifecycle.Service) (lifecycle.Standing, error) {
			if _, err := on.Create(s.person("team"), lifecycle.New{ProjectID: "p", Name: "n"}); err != nil {
				return lifecycle.Standing{}, err
			}
			return s.OwnOrganization(s.admin())
		},
	}
	for name, do := range verbs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
				everywhere(t, open, func(t *testing.T, bare storetest.Store, faulty *storetest.Faulty) {
					s := newScene(t, bare, "trial")
					s.puts(t, lifecycle.OrganizationPatch{Plan: null[string]()})
					_, before := s.trail(t)
					o, err := do(s, s.on(faulty))
					if err != nil {
						wantCode(t, err, apikey.Unavailable)
					}
					s.sound(t)
					after := s.asStored(t)
					_, actions := s.trail(t)
					if int64(actions[audit.OrgUpdated]-before[audit.OrgUpdated]) != after.Version-2 || after.Version > 3 {
						t.Errorf("it is at version %d, the trail tells of %v", after.Version, actions)
					}
					if changes := name == "set" || name == "a claim"; err == nil && (changes != (o.Plan == "team") || changes != (after.Version == 3)) {
						t.Errorf("it is answered as %s and at version %d", asJSON(o), after.Version)
					}
				})
			})
		})
	}
}

// bounded is a store that looks after every commit how many keys the plan counts.
type bounded struct {
	storetest.Store
	organization string
	max          int64
	t            *testing.T
}

func (b *bounded) Commit(ctx context.Context, c lifecycle.Change) error {
	err := b.Store.Commit(ctx, c)
	if o, readErr := b.Store.Organization(ctx, b.organization); readErr == nil && o.ActiveKeys > b.max {
		b.t.Errorf("the plan of %d keys counts %d", b.max, o.ActiveKeys)
	}
	return err
}

// full is a scene on a plan of 10 keys, with 8 alive, 6 archived and 2 expired ones that nobody ended.
func full(t *testing.T, store storetest.Store) (s *scene, alive, archived, gone []apikey.ID) {
	s = newScene(t, store, "enterprise")
	expiring := basic()
	expiring.ExpiresAt = moment(s.clock().Add(time.Hour))
	for i := range 16 {
		n, ids := basic(), &alive
		switch {
		case i < 2:
			n, ids = expiring, &gone
		case i < 8:
			ids = &archived
		}
		id := s.creates(t, n).Key.ID
		if *ids = append(*ids, id); ids == &archived {
			s.archives(t, id)
		}
	}
	s.advance(time.Hour)
	s.puts(t, onPlan("professional"))
	return s, alive, archived, gone
}

func TestHoweverCreationsRotationsAndReturnsRaceNoKeyIsOneTooMany(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for _, failing := range []bool{false, true} {
			random := chance(t)
			s, alive, archived, gone := full(t, open(t))
			on := s.on(storetest.NewFaulty(&bounded{s.store, s.organization, 10, t}, func(storetest.Call) storetest.Fault {
				if faults := storetest.Faults(); failing && random.IntN(5) == 0 {
					return faults[random.IntN(len(faults))]
				}
				return storetest.Fault{}
			}))
			atOnce(40, func(i int) (err error) {
				switch i % 5 {
				case 0:
					_, err = on.Rotate(s.admin(), alive[i/5], seconds(i%2*3600))
				case 1:
					_, err = on.Reactivate(s.admin(), archived[i/5%len(archived)])
				case 2:
					_, err = on.Update(s.admin(), gone[i/5%len(gone)], 0, until(s.clock().Add(time.Hour)))
				default:
					_, err = on.Create(s.admin(), basic())
				}
				return err
			}, func(err error) {
				switch apikey.CodeOf(err) {
				case apikey.PlanRefused, apikey.PlanFull, apikey.WrongState:
				case apikey.Unavailable:
					if !failing {
						t.Error(err)
					}
				default:
					t.Error(err)
				}
			})
			s.sound(t)
			if n := s.alive(t); n > 10 || !failing && n != 10 || n > int(s.count(t)) {
				t.Errorf("%d keys are alive, the plan counts %d", n, s.count(t))
			}
		}
	})
}

// alive is how many keys of the organization would pass now and take a place.
func (s *scene) alive(t *testing.T) (n int) {
	t.Helper()
	for _, r := range s.records(t) {
		if r.StatusAt(s.clock()) == apikey.Active {
			n++
		}
	}
	return n
}

func TestAPlanChangedWhileKeysAreMadeHoldsFromThatMomentOn(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for range 5 {
			s := newScene(t, open(t), "professional")
			var whenSet int64
			atOnce(20, func(i int) error {
				if i == 10 {
					s.puts(t, onPlan("trial"))
					whenSet = s.count(t)
					return nil
				}
				_, err := s.Create(s.admin(), basic())
				return err
			}, func(err error) {
				if code := apikey.CodeOf(err); code != apikey.PlanRefused && code != apikey.Unavailable {
					t.Error(err)
				}
			})
			if n := s.count(t); n != max(whenSet, 1) {
				t.Errorf("when the plan was set to 1 key there were %d, and at last %d", whenSet, n)
			}
			s.sound(t)
		}
	})
}

func TestWithAClaimThatChangesWhileKeysAreMadeNoneIsTooMany(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial").unknown()
		atOnce(20, func(i int) error {
			_, err := s.Create(s.person([]string{"starter", "education"}[i%2]), basic())
			return err
		}, func(err error) {
			if code := apikey.CodeOf(err); code != apikey.PlanRefused && code != apikey.Unavailable {
				t.Error(err)
			}
		})
		if n := s.count(t); n > 5 {
			t.Errorf("there are %d keys", n)
		}
		s.sound(t)
	})
}
