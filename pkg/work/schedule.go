package work

import "time"

// waits are those between attempts (Standard Webhooks, "Retry Schedule").
var waits = []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

// Attempts is how many attempts the schedule has.
const Attempts = 10

// Wait is the time until the attempt after the nth, with up to a tenth more, which follows from seed: things that began
// together do not go on together. After the schedule's end its last wait is repeated.
func Wait(seed uint64, n int) time.Duration {
	d := waits[min(n, len(waits)-1)]
	part := (seed + uint64(n)) * 0x9e3779b97f4a7c15 >> 54 // of 1024
	return (d + d/10*time.Duration(part)/1024).Truncate(time.Millisecond)
}
