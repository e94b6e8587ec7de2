package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/keytest"
	"github.com/latchkey/latchkey/pkg/lifecycle"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// everything is a key that has every field.
func everything(s *scene) lifecycle.New {
	return lifecycle.New{ProjectID: "shop", EnvironmentID: new("live"), ExternalID: new("customer-7"), Name: "everything",
		Scopes: []string{"orders:read", "orders:write"}, RateLimitPerMinute: said(int64(100)), DailyLimit: new(int64(1000)),
		AllowedCIDRs: []string{"10.0.0.0/8", "192.0.2.0/24"}, Metadata: []byte(`{"z": {"y": 1, "x": [2]}, "a": "<b> & c"}`),
		ExpiresAt: moment(s.clock().Add(100 * time.Hour)), RotationIntervalDays: new(30),
		RotationWebhookURL: new("https://example.com/hook"), RotationToSecretsManager: true}
}

// said is a member that is there.
func said[T any](v T) lifecycle.Maybe[T] { return lifecycle.Maybe[T]{Said: true, V: &v} }

// null is a member that is null.
func null[T any]() lifecycle.Maybe[T] { return lifecycle.Maybe[T]{Said: true} }

func moment(at time.Time) *lifecycle.Moment { return &lifecycle.Moment{Time: at} }

// until is a patch of a key's expiry.
func until(at time.Time) lifecycle.Patch { return lifecycle.Patch{ExpiresAt: said(*moment(at))} }

var enable, disable = lifecycle.Patch{Enabled: new(true)}, lifecycle.Patch{Enabled: new(false)}

// members is what a patch may say, and all that it does to a key that has everything.
var members = []struct {
	name   string
	patch  func(now time.Time) lifecycle.Patch
	does   func(k *apikey.Key, now time.Time)
	action audit.Action
	fields string // that the audit tells of
}{
	{"a name", same(lifecycle.Patch{Name: new("other")}), func(k *apikey.Key, _ time.Time) { k.Name = "other" }, audit.Updated, "name"},
	{"scopes", same(lifecycle.Patch{Scopes: &[]string{"orders:write", "orders:list"}}),
		func(k *apikey.Key, _ time.Time) { k.Scopes = []string{"orders:list", "orders:write"} }, audit.Updated, "scopes"},
	{"no scopes", same(lifecycle.Patch{Scopes: &[]string{}}), func(k *apikey.Key, _ time.Time) { k.Scopes = []string{} }, audit.Updated, "scopes"},
	{"a rate", same(lifecycle.Patch{RateLimitPerMinute: said(int64(7))}),
		func(k *apikey.Key, _ time.Time) { k.RateLimitPerMinute = new(int64(7)) }, audit.Updated, "rate_limit_per_minute"},
	{"no rate", same(lifecycle.Patch{RateLimitPerMinute: null[int64]()}),
		func(k *apikey.Key, _ time.Time) { k.RateLimitPerMinute = nil }, audit.Updated, "rate_limit_per_minute"},
	{"a day's limit", same(lifecycle.Patch{DailyLimit: said(int64(7))}), func(k *apikey.Key, _ time.Time) { k.DailyLimit = new(int64(7)) }, audit.Updated, "daily_limit"},
	{"no day's limit", same(lifecycle.Patch{DailyLimit: null[int64]()}), func(k *apikey.Key, _ time.Time) { k.DailyLimit = nil }, audit.Updated, "daily_limit"},
	{"networks", same(lifecycle.Patch{AllowedCIDRs: &[]string{"2001:DB8::1/32", "10.1.2.3"}}),
		func(k *apikey.Key, _ time.Time) { k.AllowedCIDRs = []string{"10.1.2.3/32", "2001:db8::/32"} }, audit.Updated, "allowed_cidrs"},
	{"no networks", same(lifecycle.Patch{AllowedCIDRs: &[]string{}}), func(k *apikey.Key, _ time.Time) { k.AllowedCIDRs = []string{} }, audit.Updated, "allowed_cidrs"},
	{"an expiry", func(now time.Time) lifecycle.Patch { return until(now.Add(time.Hour)) },
		func(k *apikey.Key, now time.Time) { k.ExpiresAt = new(now.Add(time.Hour)) }, audit.Updated, "expires_at"},
	{"no expiry", same(lifecycle.Patch{ExpiresAt: null[lifecycle.Moment]()}), func(k *apikey.Key, _ time.Time) { k.ExpiresAt = nil }, audit.Updated, "expires_at"},
	{"disabled", same(disable), func(k *apikey.Key, _ time.Time) { k.Enabled, k.Status = false, apikey.Disabled }, audit.Disabled, "enabled"},
	{"an interval, from now on", same(lifecycle.Patch{RotationIntervalDays: said(7)}),
		func(k *apikey.Key, now time.Time) {
			k.RotationIntervalDays, k.NextRotationAt = new(7), new(now.AddDate(0, 0, 7))
		},
		audit.Updated, "next_rotation_at rotation_interval_days"},
	{"no interval", same(lifecycle.Patch{RotationIntervalDays: null[int]()}),
		func(k *apikey.Key, _ time.Time) { k.RotationIntervalDays, k.NextRotationAt = nil, nil },
		audit.Updated, "next_rotation_at rotation_interval_days"},
	{"a webhook", same(lifecycle.Patch{RotationWebhookURL: said("https://example.org/")}),
		func(k *apikey.Key, _ time.Time) { k.RotationWebhookURL = new("https://example.org/") }, audit.Updated, "rotation_webhook_url"},
	{"no webhook", same(lifecycle.Patch{RotationWebhookURL: null[string]()}),
		func(k *apikey.Key, _ time.Time) { k.RotationWebhookURL = nil }, audit.Updated, "rotation_webhook_url"},
	{"no Secrets Manager", same(lifecycle.Patch{RotationToSecretsManager: new(false)}),
		func(k *apikey.Key, _ time.Time) { k.RotationToSecretsManager = false }, audit.Updated, "rotation_to_secrets_manager"},
	{"metadata merged", same(lifecycle.Patch{Metadata: []byte(`{"n": null, "z": {"x": null}, "a": [1]}`)}),
		func(k *apikey.Key, _ time.Time) { k.Metadata = []byte(`{"a":[1],"z":{"y":1}}`) }, audit.Updated, "metadata"},
	{"no metadata", same(lifecycle.Patch{Metadata: []byte("null")}), func(k *apikey.Key, _ time.Time) { k.Metadata = []byte("{}") }, audit.Updated, "metadata"},
	{"several at once", same(lifecycle.Patch{Name: new("both"), Enabled: new(false), DailyLimit: null[int64]()}),
		func(k *apikey.Key, _ time.Time) {
			k.Name, k.Enabled, k.Status, k.DailyLimit = "both", false, apikey.Disabled, nil
		},
		audit.Disabled, "daily_limit enabled name"},
}

// same is a patch whatever the time.
func same(p lifecycle.Patch) func(time.Time) lifecycle.Patch {
	return func(time.Time) lifecycle.Patch { return p }
}

func TestAPatchChangesWhatItSaysAndNothingElse(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		for _, m := range members {
			t.Run(m.name, func(t *testing.T) {
				want := s.creates(t, everything(s)).Key
				s.advance(time.Second)
				now := s.clock()
				m.does(&want, now)
				want.UpdatedAt, want.Version = now, want.Version+1

				got := s.updates(t, want.ID, m.patch(now))
				if !reflect.DeepEqual(got, want) {
					t.Errorf("the answer is %s,\nwant %s", asJSON(got), asJSON(want))
				}
				stored, err := s.Get(s.admin(), want.ID)
				if err != nil || !reflect.DeepEqual(stored, want) {
					t.Errorf("stored is %s, %v,\nwant %s", asJSON(stored), err, asJSON(want))
				}
				if e := s.lastEntry(t, want.ID); e.Action != m.action || names(e.Changes) != m.fields {
					t.Errorf("the audit tells of %s, %s", e.Action, names(e.Changes))
				}
			})
		}
		s.sound(t)
	})
}

// lastEntry is what the trail tells of a key's last change.
func (s *scene) lastEntry(t *testing.T, id apikey.ID) audit.Entry {
	t.Helper()
	entries, _ := s.trail(t)
	e := entries[s.record(t, id).LastChange]
	if e.KeyID == nil || *e.KeyID != id {
		t.Fatalf("the last entry of %s is %+v", id, e)
	}
	return e
}

func asJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

func names(changes []audit.Change) string {
	var names []string
	for _, c := range changes {
		names = append(names, c.Field)
	}
	return strings.Join(names, " ")
}

func TestTheAuditTellsWhatAPatchChangedFromWhatToWhat(t *testing.T) {
	h := newHouse(t, "enterprise")
	k := h.mustCreate(t, lifecycle.New{ProjectID: "p", Name: "old", Scopes: []string{"orders:read"}}).Key
	if _, err := h.Update(admin(), k.ID, 0, lifecycle.Patch{Name: new("new"), Scopes: &[]string{}, DailyLimit: said(int64(5))}); err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.Audit(admin(), lifecycle.AuditFilter{KeyID: k.ID, Action: audit.Updated})
	if err != nil || len(entries) != 1 {
		t.Fatalf("got %v, %v", entries, err)
	}
	got, _ := json.Marshal(entries[0].Changes)
	want := `[{"field":"daily_limit","from":null,"to":5},{"field":"name","from":"old","to":"new"},{"field":"scopes","from":["orders:read"],"to":[]}]`
	if string(got) != want {
		t.Errorf("got %s,\nwant %s", got, want)
	}
}

// nothing is patches of a key that has everything, and of one that has as little as may be, that say what is so already.
func nothing(s *scene) (of map[string]lifecycle.New, patches map[string]map[string]lifecycle.Patch) {
	full, bare := everything(s), basic()
	bare.RateLimitPerMinute = null[int64]()
	return map[string]lifecycle.New{"full": full, "bare": bare}, map[string]map[string]lifecycle.Patch{
		"full": {
			"says nothing":                   {},
			"the same name":                  {Name: &full.Name},
			"the same scopes, other order":   {Scopes: &[]string{"orders:write", "orders:read"}},
			"the same limits":                {RateLimitPerMinute: full.RateLimitPerMinute, DailyLimit: said(*full.DailyLimit)},
			"the same networks, other words": {AllowedCIDRs: &[]string{"192.0.2.77/24", "10.1.2.3/8", "10.0.0.0/8"}},
			"the same expiry":                until(full.ExpiresAt.Time),
			"enabled":                        enable,
			"the same rotation": {RotationIntervalDays: said(30), RotationWebhookURL: said(*full.RotationWebhookURL),
				RotationToSecretsManager: new(true)},
			"no member of the metadata":       {Metadata: []byte(`{}`)},
			"a member as it is":               {Metadata: []byte(`{"a": "<b> & c"}`)},
			"a member as it is, other words":  {Metadata: []byte(`{"a": "\u003cb> \u0026 c"}`)},
			"a member within, other order":    {Metadata: []byte(`{"z": {"x": [2], "y": 1}}`)},
			"a member removed that is not in": {Metadata: []byte(`{"n": null, "z": {"n": null}}`)},
		},
		"bare": {
			"says nothing": {},
			"null": {Scopes: &[]string{}, AllowedCIDRs: &[]string{}, RateLimitPerMinute: null[int64](), DailyLimit: null[int64](),
				ExpiresAt: null[lifecycle.Moment](), RotationIntervalDays: null[int](), RotationWebhookURL: null[string](),
				RotationToSecretsManager: new(false), Metadata: []byte(" null ")},
		},
	}
}

func TestAPatchThatChangesNothingLeavesNoTrace(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		of, patches := nothing(s)
		for key, n := range of {
			before := s.creates(t, n).Key
			s.advance(time.Second)
			for name, p := range patches[key] {
				after := s.updates(t, before.ID, p)
				if !reflect.DeepEqual(after, before) {
					t.Errorf("%s: %s: it is %s,\nand was %s", key, name, asJSON(after), asJSON(before))
				}
				if _, err := s.Update(s.admin(), before.ID, before.Version, p); err != nil {
					t.Errorf("%s: %s: %v", key, name, err)
				}
			}
		}
		if entries, _ := s.trail(t); len(entries) != 3 { // the organization and the keys
			t.Errorf("there are %d entries", len(entries))
		}
	})
}

func TestMetadataIsPatchedAsRFC7396Says(t *testing.T) {
	h := newHouse(t, "enterprise")
	for _, c := range []struct{ metadata, patch, want string }{
		// Appendix A, as far as both are objects, as metadata are.
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		// Section 1.
		{`{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["example","sample"],"content":"This will be unchanged"}`,
			`{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},"tags":["example"]}`,
			`{"author":{"givenName":"John"},"content":"This will be unchanged","phoneNumber":"+01-123-456-7890","tags":["example"],"title":"Hello!"}`},
		// What is not its own.
		{`{"a":"c"}`, `null`, `{}`},
		{`{"a":1}`, ` { "b" : "<&>" } `, `{"a":1,"b":"<&>"}`},
		{`{"a":{"b":1}}`, `{"a":{"b":{"c":{"d":1}}}}`, `{"a":{"b":{"c":{"d":1}}}}`},
		{`{"a":1.0}`, `{"a":1}`, `{"a":1}`},
		{`{"a":12345678901234567890}`, `{"b":1e400}`, `{"a":12345678901234567890,"b":1e400}`},
		{`{"a":[null,{"b":null}]}`, `{"c":[null,{"d":null}]}`, `{"a":[null,{"b":null}],"c":[null,{"d":null}]}`},
	} {
		n := basic()
		n.Metadata = []byte(c.metadata)
		k, err := h.Update(admin(), h.mustCreate(t, n).Key.ID, 0, lifecycle.Patch{Metadata: []byte(c.patch)})
		if err != nil || string(k.Metadata) != c.want {
			t.Errorf("%s with %s: got %s, %v, want %s", c.metadata, c.patch, k.Metadata, err, c.want)
		}
	}
}

func TestEveryFieldOfAPatchOutOfBoundsIsNamed(t *testing.T) {
	h := newHouse(t, "enterprise")
	id := h.mustCreate(t, basic()).Key.ID
	_, err := h.Update(admin(), id, 0, lifecycle.Patch{
		Name: new(""), Scopes: &[]string{"a b", "x", "x"}, RateLimitPerMinute: said(int64(0)), DailyLimit: said(int64(-1)),
		AllowedCIDRs: &[]string{"10.0.0.0/33"}, Metadata: []byte(`"foo"`), ExpiresAt: said(*moment(h.clock())),
		RotationIntervalDays: said(0), RotationWebhookURL: said("http://example.com/"),
	})
	wantCode(t, err, apikey.InvalidFields)
	want := "/allowed_cidrs/0 /daily_limit /expires_at /metadata /name /rate_limit_per_minute /rotation_interval_days /rotation_webhook_url /scopes/0 /scopes/2"
	if got := pointers(err); got != want {
		t.Errorf("got %s,\nwant %s", got, want)
	}
	for _, patch := range []string{"[]", `["c"]`, `"bar"`, "7", "{", " ", `{"a":}`} {
		_, err := h.Update(admin(), id, 0, lifecycle.Patch{Metadata: []byte(patch)})
		wantCode(t, err, apikey.InvalidFields)
	}
}

// pointers is the fields that an error names, in order.
func pointers(err error) string {
	var names []string
	for _, f := range err.(*apikey.Error).Fields {
		names = append(names, f.Pointer)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestMetadataDoNotGrowBeyondTheirBoundByPatches(t *testing.T) {
	h := newHouse(t, "enterprise")
	n := basic()
	n.Metadata = fmt.Appendf(nil, `{"a":%q}`, strings.Repeat("x", 4000))
	k := h.mustCreate(t, n).Key
	_, err := h.Update(admin(), k.ID, 0, lifecycle.Patch{Metadata: fmt.Appendf(nil, `{"b":%q}`, strings.Repeat("y", 82))})
	wantCode(t, err, apikey.InvalidFields)
	if got := pointers(err); got != "/metadata" {
		t.Errorf("got %s", got)
	}
	k, err = h.Update(admin(), k.ID, 0, lifecycle.Patch{Metadata: fmt.Appendf(nil, `{"b":%q}`, strings.Repeat("y", 81))})
	if err != nil || len(k.Metadata) != lifecycle.MaxMetadata {
		t.Errorf("got %d bytes, %v", len(k.Metadata), err)
	}
}

func TestAPatchOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		issued := s.creates(t, basic())
		k := issued.Key
		s.wantCodes(t, []apikey.Issued{issued}, apikey.Valid) // a verify is no new version
		for i, version := range []int64{k.Version, 0, k.Version + 2} {
			after, err := s.Update(s.admin(), k.ID, version, lifecycle.Patch{Name: new(fmt.Sprint("name ", i))})
			if err != nil || after.Version != k.Version+int64(i)+1 {
				t.Fatalf("got %+v, %v", after, err)
			}
		}
		for _, version := range []int64{k.Version, k.Version + 2, k.Version + 4, -1} {
			_, err := s.Update(s.admin(), k.ID, version, lifecycle.Patch{Name: new("other")})
			wantCode(t, err, apikey.VersionMismatch)
			_, err = s.Update(s.admin(), k.ID, version, disable)
			wantCode(t, err, apikey.VersionMismatch)
		}
		if after, err := s.Get(s.admin(), k.ID); err != nil || after.Name != "name 2" || !after.Enabled {
			t.Errorf("got %+v, %v", after, err)
		}
	})
}

func TestOfManyPatchesOfOneVersionExactlyOneIsMade(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		k := s.creates(t, basic()).Key
		won := atOnce(8, func(i int) error {
			_, err := s.Update(s.admin(), k.ID, k.Version, lifecycle.Patch{Name: new(fmt.Sprint("name ", i))})
			return err
		}, func(err error) { wantCode(t, err, apikey.VersionMismatch) })
		if won != 1 || s.record(t, k.ID).Version != k.Version+1 {
			t.Errorf("%d were made", won)
		}
		s.sound(t)
	})
}

func TestPatchesOfDifferentFieldsAtOnceLoseNone(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		id := s.creates(t, basic()).Key.ID
		patches := []lifecycle.Patch{{Name: new("other")}, disable, {Scopes: &[]string{"orders:read"}}, {DailyLimit: said(int64(5))},
			{Metadata: []byte(`{"a":1}`)}, {Metadata: []byte(`{"b":2}`)}}
		won := atOnce(len(patches), asClientsDo(func(i int) error {
			_, err := s.Update(s.admin(), id, 0, patches[i])
			return err
		}), func(err error) { t.Error(err) })
		k := s.record(t, id).Key
		if won != len(patches) || k.Name != "other" || k.Enabled || len(k.Scopes) != 1 || *k.DailyLimit != 5 || string(k.Metadata) != `{"a":1,"b":2}` {
			t.Errorf("%d were made: %+v", won, k)
		}
		s.sound(t)
	})
}

func TestAnExpiredKeyRevivedTakesAPlaceAgain(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial") // 1 key
		old := expired(t, s)[0]
		other := s.creates(t, basic()) // whose place it takes
		for _, p := range []lifecycle.Patch{until(s.clock().Add(time.Hour)), {ExpiresAt: null[lifecycle.Moment]()}} {
			_, err := s.Update(s.admin(), old.Key.ID, 0, p)
			wantCode(t, err, apikey.PlanFull)
			wantTold(t, err, "plan trial", "limited to 1", "Revoke one, or change the plan")
		}
		s.wantCodes(t, []apikey.Issued{old, other}, apikey.ExpiredKey, apikey.Valid)

		s.revokes(t, other.Key.ID)
		if k := s.updates(t, old.Key.ID, until(s.clock().Add(time.Hour))); k.Status != apikey.Active {
			t.Errorf("it is %s", k.Status)
		}
		s.wantCodes(t, []apikey.Issued{old}, apikey.Valid)
		if s.count(t) != 1 {
			t.Errorf("the plan counts %d", s.count(t))
		}
		s.sound(t)
	})
}

// wantTold demands that an error's message says all of this.
func wantTold(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(err.(*apikey.Error).Message, part) {
			t.Errorf("the message %q does not say %q", err.(*apikey.Error).Message, part)
		}
	}
}

func TestAnExpiredKeyThatStillHasItsPlaceIsRevivedOnAFullPlan(t *testing.T) {
	h := newHouse(t, "trial")
	n := basic()
	n.ExpiresAt = moment(h.clock().Add(time.Hour))
	k := h.mustCreate(t, n)
	h.advance(2 * time.Hour)
	if _, err := h.Update(admin(), k.Key.ID, 0, until(h.clock().Add(time.Hour))); err != nil || h.verify(k) != apikey.Valid || h.activeKeys(t) != 1 {
		t.Errorf("%v, it is %s, the plan counts %d", err, h.verify(k), h.activeKeys(t))
	}
}

func TestAnExpiryProlongsNoGrace(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial")
		n := basic()
		n.ExpiresAt = moment(s.clock().Add(30 * time.Minute))
		first := s.creates(t, n)
		keys := []apikey.Issued{first, s.rotates(t, first.Key.ID, seconds(3600))} // cut to its 30 minutes
		for _, p := range []lifecycle.Patch{until(s.clock().Add(1000 * time.Hour)), {ExpiresAt: null[lifecycle.Moment]()}} {
			if k := s.updates(t, first.Key.ID, p); k.Status != apikey.Rotated || !k.GraceExpiresAt.Equal(n.ExpiresAt.Time) {
				t.Errorf("it is %s, its grace ends at %s", k.Status, k.GraceExpiresAt)
			}
		}
		s.advance(31 * time.Minute)
		for _, p := range []lifecycle.Patch{until(s.clock().Add(1000 * time.Hour)), {ExpiresAt: null[lifecycle.Moment]()}} {
			if k := s.updates(t, first.Key.ID, p); k.Status != apikey.Expired {
				t.Errorf("once its grace is over it is %s", k.Status)
			}
		}
		s.wantCodes(t, keys, apikey.ExpiredKey, apikey.ExpiredKey) // the successor has the expiry that it was given
		s.updates(t, keys[1].Key.ID, lifecycle.Patch{ExpiresAt: null[lifecycle.Moment]()})
		s.wantCodes(t, keys, apikey.ExpiredKey, apikey.Valid)
		s.sound(t)
	})
}

func TestAnExpiryShortensAGrace(t *testing.T) {
	h := newHouse(t, "trial")
	old := h.mustCreate(t, basic())
	h.mustRotate(t, old, seconds(3600))
	if _, err := h.Update(admin(), old.Key.ID, 0, until(h.clock().Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	h.advance(time.Minute)
	if code := h.verify(old); code != apikey.ExpiredKey {
		t.Errorf("got %s", code)
	}
}

func TestAReplacedKeyIsNeverDueForRotation(t *testing.T) {
	h := newHouse(t, "trial")
	old := h.mustCreate(t, basic())
	h.mustRotate(t, old, seconds(3600))
	k, err := h.Update(admin(), old.Key.ID, 0, lifecycle.Patch{RotationIntervalDays: said(3)})
	if err != nil || k.NextRotationAt != nil || *k.RotationIntervalDays != 3 {
		t.Errorf("got %+v, %v", k, err)
	}
}

func TestThePlanBoundsWhatAPatchRaisesAndNothingElse(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		high := func(perMinute *int64) apikey.ID {
			n := basic()
			n.RateLimitPerMinute = lifecycle.Limit{Said: true, V: perMinute}
			return s.creates(t, n).Key.ID
		}
		id, unbounded := high(new(int64(5000))), high(nil)
		s.puts(t, onPlan("trial")) // at most 600 a minute
		for _, c := range []struct {
			name string
			id   apikey.ID
			p    lifecycle.Patch
			want apikey.Code
		}{
			{"a name", id, lifecycle.Patch{Name: new("other")}, ""},
			{"more than the plan's", id, lifecycle.Patch{RateLimitPerMinute: said(int64(5001))}, apikey.PlanRefused},
			{"none", id, lifecycle.Patch{RateLimitPerMinute: null[int64]()}, apikey.PlanRefused},
			{"as much as it has", id, lifecycle.Patch{RateLimitPerMinute: said(int64(5000))}, ""},
			{"less than it has", id, lifecycle.Patch{RateLimitPerMinute: said(int64(4000))}, ""},
			{"a day's, beside a minute's above the plan's", id, lifecycle.Patch{DailyLimit: said(int64(5))}, ""},
			{"a day's raised", id, lifecycle.Patch{DailyLimit: null[int64]()}, ""},
			{"within the plan", id, lifecycle.Patch{RateLimitPerMinute: said(int64(600))}, ""},
			{"what it had", id, lifecycle.Patch{RateLimitPerMinute: said(int64(5000))}, apikey.PlanRefused},
			{"less than none", unbounded, lifecycle.Patch{RateLimitPerMinute: said(int64(5000))}, ""},
		} {
			_, err := s.Update(s.admin(), c.id, 0, c.p)
			if err == nil && c.want == "" {
				continue
			}
			if apikey.CodeOf(err) != c.want {
				t.Errorf("%s: got %v, want %s", c.name, err, c.want)
				continue
			}
			wantTold(t, err, "plan trial", "at most 600 requests a minute", "change the plan")
		}
		s.sound(t)
	})
}

func TestTheOrganizationsScopesBoundWhatAPatchAddsAndNothingElse(t *testing.T) {
	h := newHouse(t, "enterprise")
	n := basic()
	n.Scopes = []string{"orders:read", "orders:write"}
	id := h.mustCreate(t, n).Key.ID
	allow := lifecycle.OrganizationPatch{AllowedScopes: said([]string{"billing:*"})}
	if _, err := h.SetOrganization(admin(), "acme", allow); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		scopes []string
		want   apikey.Code
	}{
		{[]string{"orders:read", "orders:write", "orders:list"}, apikey.ScopeNotAllowed},
		{[]string{"orders:read", "billing:read"}, ""},
		{[]string{"orders:write"}, apikey.ScopeNotAllowed}, // it was taken away
	} {
		_, err := h.Update(admin(), id, 0, lifecycle.Patch{Scopes: &c.scopes})
		if err != nil && apikey.CodeOf(err) != c.want || err == nil && c.want != "" {
			t.Errorf("%v: got %v, want %s", c.scopes, err, c.want)
		}
	}
}

func TestAKeyThatComesToRunTheServiceLeavesItsPlaceAndTakesOneAgain(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "trial") // 1 key
		runs, serves := lifecycle.Patch{Scopes: &[]string{apikey.OrgAdmin}}, lifecycle.Patch{Scopes: &[]string{"orders:read"}}
		first := s.creates(t, basic()).Key.ID
		s.updates(t, first, runs)
		if n := s.count(t); n != 0 {
			t.Errorf("the plan counts %d", n)
		}
		second := s.creates(t, basic()).Key.ID
		_, err := s.Update(s.admin(), first, 0, serves)
		wantCode(t, err, apikey.PlanFull)
		s.revokes(t, second)

		s.updates(t, first, lifecycle.Patch{RateLimitPerMinute: null[int64]()}) // the plan does not bind it now
		_, err = s.Update(s.admin(), first, 0, serves)
		wantCode(t, err, apikey.PlanRefused)
		s.updates(t, first, lifecycle.Patch{Scopes: serves.Scopes, RateLimitPerMinute: said(int64(600))})
		if n := s.count(t); n != 1 {
			t.Errorf("the plan counts %d", n)
		}
		s.sound(t)
	})
}

func TestAKeyDoesNotChangeItselfNorItsSuccessorButForTheName(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		n := everything(s)
		n.Scopes = []string{apikey.KeysWrite}
		old := s.creates(t, n)
		next := s.rotates(t, old.Key.ID, nil).Key
		me := as(s.key(s.record(t, old.Key.ID).Key))
		for _, target := range []apikey.ID{old.Key.ID, next.ID} {
			for _, m := range members {
				before := s.record(t, target)
				_, err := s.Update(me, target, 0, m.patch(s.clock()))
				switch {
				case strings.HasSuffix(m.fields, "name") && m.action == audit.Updated, m.fields == "metadata":
					if err != nil {
						t.Errorf("%s: %v", m.name, err)
					}
					continue
				case m.action == audit.Disabled:
					wantCode(t, err, apikey.OwnKey)
				case err != nil || m.fields != "scopes": // a scope that is not allowed is refused all the same
					wantCode(t, err, apikey.Escalation)
				}
				if after := s.record(t, target); after.Version != before.Version {
					t.Errorf("%s: it was changed", m.name)
				}
			}
		}
		s.sound(t)
	})
}

// may is a table of who may patch what of a key with which scopes.
type may struct {
	name string
	by   caller.Caller
	of   apikey.ID
	p    lifecycle.Patch
	want apikey.Code
}

func (s *scene) holds(t *testing.T, table []may) {
	t.Helper()
	for _, c := range table {
		before := s.record(t, c.of)
		_, err := s.Update(as(c.by), c.of, 0, c.p)
		after := s.record(t, c.of)
		switch {
		case c.want == "" && (err != nil || after.Version == before.Version):
			t.Errorf("%s: not made: %v", c.name, err)
		case c.want != "" && (err == nil || apikey.CodeOf(err) != c.want || !reflect.DeepEqual(after, before)):
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestNobodyPatchesAKeyThatCanDoMoreThanThey(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		writer := s.manager(t, apikey.KeysWrite)
		auditor := s.creates(t, lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.AuditRead}}).Key.ID
		service := s.creates(t, basic()).Key.ID
		s.holds(t, []may{
			{"a name of a key with a scope not held", writer, auditor, lifecycle.Patch{Name: new("x")}, apikey.ScopeNotHeld},
			{"metadata of it", writer, auditor, lifecycle.Patch{Metadata: []byte(`{"a":1}`)}, apikey.ScopeNotHeld},
			{"disabling it", writer, auditor, disable, apikey.ScopeNotHeld},
			{"its webhook", writer, auditor, lifecycle.Patch{RotationWebhookURL: said("https://example.org/")}, apikey.ScopeNotHeld},
			{"taking the scope off", writer, auditor, lifecycle.Patch{Scopes: &[]string{}}, apikey.ScopeNotHeld},
			{"giving a scope not held", writer, service, lifecycle.Patch{Scopes: &[]string{apikey.AuditRead}}, apikey.ScopeNotHeld},
			{"giving a scope held", writer, service, lifecycle.Patch{Scopes: &[]string{apikey.KeysWrite}}, ""},
			{"taking it off", writer, service, lifecycle.Patch{Scopes: &[]string{}}, ""},
		})
		reader := s.manager(t, apikey.KeysRead, apikey.KeysVerify, apikey.AuditRead, apikey.OrgAdmin)
		for _, m := range members {
			_, err := s.Update(as(reader), service, 0, m.patch(s.clock()))
			wantCode(t, err, apikey.InsufficientScope)
		}
	})
}

func TestAMortalKeyGivesNoLongerLifeNorWiderNetworks(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		bounded := lifecycle.New{ProjectID: "p", Name: "n", Scopes: []string{apikey.KeysWrite}, AllowedCIDRs: []string{"10.0.0.0/8"},
			ExpiresAt: moment(s.clock().Add(time.Hour))}
		by := s.key(s.creates(t, bounded).Key)
		sibling, service := s.creates(t, bounded).Key.ID, s.creates(t, basic()).Key.ID
		endless := s.manager(t, apikey.KeysWrite)
		elder, err := apikey.ParseID(endless.ID)
		if err != nil {
			t.Fatal(err)
		}
		webhook := lifecycle.Patch{RotationWebhookURL: said("https://example.org/")}
		s.holds(t, []may{
			{"a longer life", by, sibling, until(s.clock().Add(2 * time.Hour)), apikey.Escalation},
			{"an endless life", by, sibling, lifecycle.Patch{ExpiresAt: null[lifecycle.Moment]()}, apikey.Escalation},
			{"a wider network", by, sibling, lifecycle.Patch{AllowedCIDRs: &[]string{"10.0.0.0/7"}}, apikey.Escalation},
			{"another network", by, sibling, lifecycle.Patch{AllowedCIDRs: &[]string{"10.1.0.0/16", "192.0.2.0/24"}}, apikey.Escalation},
			{"every network", by, sibling, lifecycle.Patch{AllowedCIDRs: &[]string{}}, apikey.Escalation},
			{"a shorter life", by, sibling, until(s.clock().Add(time.Minute)), ""},
			{"a narrower network", by, sibling, lifecycle.Patch{AllowedCIDRs: &[]string{"10.1.0.0/16"}}, ""},
			{"a webhook", by, sibling, webhook, ""},
			{"disabling it", by, sibling, disable, ""},
			{"enabling it", by, sibling, enable, ""},
			{"any life of a service key", by, service, until(s.clock().Add(1000 * time.Hour)), ""},
			{"rights for one that outlives it", by, service, lifecycle.Patch{Scopes: &[]string{apikey.KeysWrite}}, apikey.Escalation},

			{"the name of one that outlives it", by, elder, lifecycle.Patch{Name: new("x")}, ""},
			{"the webhook of one that outlives it", by, elder, webhook, apikey.Escalation},
			{"its limits", by, elder, lifecycle.Patch{DailyLimit: said(int64(1))}, apikey.Escalation},
			{"disabling it and its webhook", by, elder, lifecycle.Patch{Enabled: new(false), RotationWebhookURL: webhook.RotationWebhookURL}, apikey.Escalation},
			{"disabling it: a leak must be answerable", by, elder, disable, ""},
			{"enabling it again", by, elder, enable, apikey.Escalation},
		})
		s.sound(t)
	})
}

// A process died between closing a key and disabling it. What the same caller asks next is not that ending.
func TestAPatchOfAClosingKeyDoesNotOpenIt(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		for name, p := range map[string]lifecycle.Patch{"a name": {Name: new("x")}, "nothing": {}, "disabled": disable} {
			for _, end := range []string{apikey.CloseDisable, apikey.CloseArchive, apikey.CloseRevoke} {
				s := newScene(t, open(t), "trial")
				k := s.creates(t, basic())
				by := caller.From(s.admin())
				mark := apikey.Closing{Verb: end, ActorKind: string(by.Kind), ActorID: by.ID, RequestID: by.RequestID}
				if err := s.store.Close(t.Context(), k.Key.ID, 1, mark); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Update(s.admin(), k.Key.ID, 0, p); err != nil {
					if code := apikey.CodeOf(err); code != apikey.WrongState || end == apikey.CloseDisable {
						t.Errorf("%s while it is to %s: %v", name, end, err)
					}
				}
				want := map[string]apikey.Code{apikey.CloseDisable: apikey.DisabledKey, apikey.CloseArchive: apikey.ArchivedKey, apikey.CloseRevoke: apikey.RevokedKey}
				s.wantCodes(t, []apikey.Issued{k}, want[end])
				s.sound(t)
			}
		}
	})
}

func TestAPatchIsWhatTheNextRequestMeets(t *testing.T) {
	t.Parallel()
	keytest.OnBothStores(t, func(t *testing.T, open func(*testing.T) storetest.Store) {
		s := newScene(t, open(t), "enterprise")
		k := s.creates(t, basic())
		for _, step := range []struct {
			p    lifecycle.Patch
			want apikey.Code
		}{
			{lifecycle.Patch{Name: new("x")}, apikey.Valid},
			{disable, apikey.DisabledKey},
			{enable, apikey.Valid},
			{lifecycle.Patch{DailyLimit: said(int64(2))}, apikey.DailyLimitExceeded}, // two were used
			{lifecycle.Patch{DailyLimit: null[int64](), RateLimitPerMinute: said(int64(2))}, apikey.RateLimited},
			{lifecycle.Patch{RateLimitPerMinute: null[int64](), AllowedCIDRs: &[]string{"192.0.2.0/24"}}, apikey.AddressNotAllowed},
			{lifecycle.Patch{AllowedCIDRs: &[]string{}}, apikey.Valid},
		} {
			s.updates(t, k.Key.ID, step.p)
			s.wantCodes(t, []apikey.Issued{k}, step.want)
		}
		s.updates(t, k.Key.ID, until(s.clock().Add(time.Second)))
		s.advance(time.Second)
		s.wantCodes(t, []apikey.Issued{k}, apikey.ExpiredKey)
	})
}

func TestTheChangesOfAnEntryAreNeverNothing(t *testing.T) {
	h := newHouse(t, "enterprise")
	n := basic()
	n.Metadata = []byte(`{"b":1,"a":{"d":1,"c":2}}`)
	k := h.mustCreate(t, n).Key
	after, err := h.Update(admin(), k.ID, 0, lifecycle.Patch{Name: new("x"), Metadata: []byte(`{"a":{"c":2}}`)})
	if err != nil || !bytes.Equal(after.Metadata, k.Metadata) {
		t.Errorf("got %s, %v", after.Metadata, err)
	}
	entries, _, err := h.Audit(admin(), lifecycle.AuditFilter{KeyID: k.ID, Limit: 1})
	if err != nil || names(entries[0].Changes) != "name" {
		t.Errorf("got %s, %v", asJSON(entries), err)
	}
}
