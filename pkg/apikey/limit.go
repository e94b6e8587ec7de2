package apikey

import "time"

// UseTold are the parts of a daily limit, in percent and rising, of whose use a key's organization is told.
var UseTold = [...]int{80, 100}

// Threshold is the count from which on so many percent of a limit are used.
func Threshold(limit int64, percent int) int64 {
	p := int64(percent)
	return limit/100*p + (limit%100*p+99)/100
}

// Reached is how much of a limit a count has used up: the last of UseTold, or 0. Without a limit it is 0.
func Reached(limit *int64, count int64) (percent int) {
	for _, p := range UseTold {
		if limit != nil && count >= Threshold(*limit, p) {
			percent = p
		}
	}
	return percent
}

// Day is the UTC day that now lies in, counted from the Unix epoch.
func Day(now time.Time) int64 { return now.Unix() / 86400 }

// StartOf is when a Day begins.
func StartOf(day int64) time.Time { return time.Unix(day*86400, 0).UTC() }

// WindowOf is the window of a Day.
func WindowOf(day int64) Window { return window('d', day) }
