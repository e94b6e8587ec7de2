// Package plan says what each tier may have: how many keys, which limits, and whether its keys may be managed at all.
// It decides nothing about a request and knows no store.
package plan

import "math"

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

// Managed says whether the plan has keys at all.
func (p Plan) Managed() bool { return p.Keys > 0 }

// Allows says whether a limit (nil: none) is within the highest one.
func Allows(highest int64, limit *int64) bool {
	return highest == Unlimited || limit != nil && *limit <= highest
}
