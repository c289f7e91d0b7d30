package simulation_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// TestSimulationSlowStart: a sixth instance joins five, and takes ten times as long at first, as its caches are cold; after 20 s it is like
// the others. With its full share at once it cannot keep up, and its callers are late; with slow start they are few.
func TestSimulationSlowStart(t *testing.T) {
	const deadline = 250 * time.Millisecond
	fmt.Fprintf(t.Output(), "A cold instance joins 5: 10 times as slow at first, warm after 20 s; 10 ms of work on average, "+
		"4 at a time per instance, 600 calls/s by 10 clients; the 30 s from when it joins\n")
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "policy\tslow start\tp50 ms\tp99 ms\tp99.9 ms\tlater than %v\tto the cold one\t\n", deadline)
	for _, policy := range []balancer.Policy{balancer.RoundRobin, balancer.Random, balancer.LeastRequest, balancer.P2C} {
		lateness := map[time.Duration]float64{}
		for _, window := range []time.Duration{0, 30 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				var servers []*server
				for number := range 5 {
					servers = append(servers, newServer(number, 4, steady(1)))
				}
				f := newFleet(balancer.Config{Policy: policy, SlowStart: window}, 10, servers...)
				f.run(600, 10*time.Millisecond, 10*time.Second)
				joined := time.Now()
				f.join(newServer(5, 4, func() float64 { return max(1, 10-9*time.Since(joined).Seconds()/20) }))
				calls := f.run(600, 10*time.Millisecond, 30*time.Second)
				lateness[window] = late(calls, deadline)
				fmt.Fprintf(table, "%s\t%s\t%.1f\t%.1f\t%.1f\t%.2f %%\t%.1f %%\t\n", policy, windowText(window), milliseconds(quantile(calls, 0.5)),
					milliseconds(quantile(calls, 0.99)), milliseconds(quantile(calls, 0.999)), 100*lateness[window], 100*share(calls, 5))
			})
		}
		if with, without := lateness[30*time.Second], lateness[0]; with > without {
			t.Errorf("%s: %.2f %% of calls are late with slow start, %.2f %% without", policy, 100*with, 100*without)
		}
		if policy == balancer.RoundRobin && lateness[30*time.Second] > lateness[0]/3 {
			t.Errorf("round robin: %.2f %% of calls are late with slow start, %.2f %% without: want at most a third",
				100*lateness[30*time.Second], 100*lateness[0])
		}
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}

func windowText(window time.Duration) string {
	if window == 0 {
		return "none"
	}
	return window.String()
}
