// Package plan says what each tier may have: how many keys, which limits, and whether its keys may be managed at all.
// It decides nothing about a request and knows no store.
package plan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// Free is the plan of organizations for which nobody said another.
const Free = "free"

// Unlimited stands for no bound, in a number of keys and in a limit.
const Unlimited = math.MaxInt64

// Plan is one tier.
type Plan struct {
	Name             string
	Keys             int64 // how many live keys; 0: none, so keys cannot be managed
	DefaultPerMinute int64 // requests a minute of a key that does not say
	HighestPerMinute int64 // requests a minute that a key may be given; Unlimited: also no limit
	HighestPerDay    int64 // requests a day that a key may be given; Unlimited: also no limit
}

// Table is the plans of a deployment by name.
type Table map[string]Plan

// Default is the table of a deployment that brings none of its own.
func Default() Table {
	table := Table{}
	for _, p := range []Plan{
		{Free, 0, 60, 60, Unlimited},
		{"personal", 0, 60, 60, Unlimited},
		{"trial", 1, 60, 600, Unlimited},
		{"pro", 1, 60, 600, Unlimited},
		{"starter", 3, 60, 600, Unlimited},
		{"education", 5, 60, 600, Unlimited},
		{"professional", 10, 60, 6000, Unlimited},
		{"team", 25, 60, 6000, Unlimited},
		{"enterprise", Unlimited, 60, Unlimited, Unlimited},
	} {
		table[p.Name] = p
	}
	return table
}

// written is a plan in a deployment's own table. What is null has no bound; so has a highest limit that is not there.
type written struct {
	Keys             json.RawMessage `json:"keys"`
	DefaultPerMinute *int64          `json:"default_per_minute"`
	HighestPerMinute *int64          `json:"highest_per_minute"`
	HighestPerDay    *int64          `json:"highest_per_day"`
}

// Parse reads a deployment's own table, such as
//
//	{"free": {"keys": 0}, "team": {"keys": 25, "default_per_minute": 60, "highest_per_minute": 6000, "highest_per_day": null}}
//
// where keys must be there and may be null for any number, and the other members may be left out. "" is the Default. What
// is ill-formed is an error that names it.
func Parse(text string) (Table, error) {
	if text == "" {
		return Default(), nil
	}
	var all map[string]written
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("reading the plans: %w", err)
	}
	if _, err := d.Token(); err != io.EOF || len(all) == 0 {
		return nil, errors.New("reading the plans: they must be one JSON object with a member for each plan")
	}
	table := Table{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p, err := all[name].plan(name)
		if err != nil {
			return nil, fmt.Errorf("the plan %q: %w", name, err)
		}
		table[name] = p
	}
	return table, nil
}

func (w written) plan(name string) (Plan, error) {
	p := Plan{Name: name, Keys: Unlimited, DefaultPerMinute: 60, HighestPerMinute: Unlimited, HighestPerDay: Unlimited}
	if w.DefaultPerMinute != nil {
		p.DefaultPerMinute = *w.DefaultPerMinute
	}
	if w.HighestPerMinute != nil {
		p.HighestPerMinute = *w.HighestPerMinute
	}
	if w.HighestPerDay != nil {
		p.HighestPerDay = *w.HighestPerDay
	}
	switch unlimited := string(w.Keys) == "null"; {
	case name == "":
		return p, errors.New("it has no name")
	case w.Keys == nil:
		return p, errors.New("keys is missing: a number, or null for any number")
	case !unlimited && json.Unmarshal(w.Keys, &p.Keys) != nil, p.Keys < 0:
		return p, errors.New("keys must be a whole number from 0, or null for any number")
	case p.DefaultPerMinute < 1 || p.DefaultPerMinute > p.HighestPerMinute:
		return p, errors.New("default_per_minute must be from 1 to highest_per_minute; it is 60 when it is not there")
	case p.HighestPerDay < 1:
		return p, errors.New("highest_per_day must be at least 1, or null for no bound")
	}
	return p, nil
}

// Largest is the name of the plan with the most keys; of several, with the highest limits.
func (t Table) Largest() string {
	return slices.MaxFunc(slices.Sorted(maps.Keys(t)), func(a, b string) int {
		return cmp.Or(cmp.Compare(t[a].Keys, t[b].Keys), cmp.Compare(t[a].HighestPerMinute, t[b].HighestPerMinute))
	})
}

// Managed says whether the plan has keys at all.
func (p Plan) Managed() bool { return p.Keys > 0 }

// Allows says whether a limit (nil: none) is within the highest one.
func Allows(highest int64, limit *int64) bool {
	return highest == Unlimited || limit != nil && *limit <= highest
}
