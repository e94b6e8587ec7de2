package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// How often: each run's figure is a median of so many.
const (
	runs       = 5
	coldStarts = 40
	warmCalls  = 400
	warmUp     = 100 // calls that are not counted
)

// How many times the bare bootstrap the authorizer may take, and, warm, what is aimed at.
const (
	coldLimit = 1.25
	warmGoal  = 1.15
	warmLimit = 1.35
)

// run is what one run found, in the order of the bootstraps.
type run struct{ cold, warm []time.Duration }

// measure does one run for the database alone, which is slow at first, and then those that count. Within a run the
// bootstraps take turns, so that what else the machine does meets all of them.
func (s *scene) measure(ctx context.Context) ([]run, error) {
	list := make([]run, 1+runs)
	for i := range list {
		var err error
		if list[i].cold, err = s.cold(ctx); err != nil {
			return nil, err
		}
		if list[i].warm, err = s.warm(ctx); err != nil {
			return nil, err
		}
	}
	return list[1:], nil
}

// cold is the median time of each bootstrap from the start of the process to its first answer.
func (s *scene) cold(ctx context.Context) ([]time.Duration, error) {
	took := make([][]time.Duration, len(s.bootstraps))
	for range coldStarts {
		for i, b := range s.bootstraps {
			p, err := b.start(ctx)
			if err != nil {
				return nil, err
			}
			whole, _, err := p.invoke(ctx, s.event)
			p.stop()
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], whole)
		}
	}
	return medians(took), nil
}

// warm is the median time of each bootstrap from an event to its answer.
func (s *scene) warm(ctx context.Context) ([]time.Duration, error) {
	processes := make([]*process, len(s.bootstraps))
	for i, b := range s.bootstraps {
		p, err := b.start(ctx)
		if err != nil {
			return nil, err
		}
		defer p.stop()
		processes[i] = p
	}
	took := make([][]time.Duration, len(s.bootstraps))
	for n := range warmUp + warmCalls {
		for i, p := range processes {
			_, warm, err := p.invoke(ctx, s.event)
			if err != nil {
				return nil, err
			}
			if n >= warmUp {
				took[i] = append(took[i], warm)
			}
		}
	}
	return medians(took), nil
}

func medians[T time.Duration | float64](lists [][]T) []T {
	out := make([]T, len(lists))
	for i, list := range lists {
		out[i] = median(list)
	}
	return out
}

func median[T time.Duration | float64](list []T) T {
	return slices.Sorted(slices.Values(list))[len(list)/2]
}

// report prints the medians of the runs, each with its least and its most, and says what is above its limit.
func report(w io.Writer, list []run) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "median of %d runs (least - most)\tauthorizer\tbare\thello\tauthorizer / bare\n", len(list))
	err := errors.Join(
		row(t, "cold start, ms", coldLimit, list, func(r run) []time.Duration { return r.cold }),
		row(t, "warm call, ms", warmLimit, list, func(r run) []time.Duration { return r.warm }))
	if flushed := t.Flush(); flushed != nil {
		return flushed
	}
	fmt.Fprintf(w, "limits: cold start %.2f, warm call %.2f (the goal is %.2f)\n", coldLimit, warmLimit, warmGoal)
	return err
}

// row prints one line, and is an error when the ratio is above the limit. The ratio is that of each run, not of the
// medians: what slows a run slows both.
func row(w io.Writer, what string, limit float64, list []run, of func(run) []time.Duration) error {
	fmt.Fprint(w, what)
	for i := range of(list[0]) {
		ms := make([]float64, len(list))
		for n, r := range list {
			ms[n] = float64(of(r)[i]) / float64(time.Millisecond)
		}
		fmt.Fprintf(w, "\t%.2f (%.2f - %.2f)", median(ms), slices.Min(ms), slices.Max(ms))
	}
	ratios := make([]float64, len(list))
	for n, r := range list {
		ratios[n] = float64(of(r)[0]) / float64(of(r)[1])
	}
	fmt.Fprintf(w, "\t%.2f (%.2f - %.2f)\n", median(ratios), slices.Min(ratios), slices.Max(ratios))
	if m := median(ratios); m > limit {
		return fmt.Errorf("%s: %.2f times the bare bootstrap is above %.2f", what, m, limit)
	}
	return nil
}
