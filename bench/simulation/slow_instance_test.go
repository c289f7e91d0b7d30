package simulation_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// TestSimulationSlowInstance: one of ten instances is ten times as slow. With p2c, of ten callers or of one process, almost all calls
// go elsewhere, and the slowest call in a hundred is as fast as without the slow instance.
func TestSimulationSlowInstance(t *testing.T) {
	fmt.Fprintln(t.Output(), "One of 10 instances 10 times as slow: 10 ms of work on average, 16 at a time per instance, 1000 calls/s for 60 s")
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "clients\tpolicy\tp50 ms\tp99 ms\tp99.9 ms\tto the slow one\t")
	for _, clients := range []int{1, 20} {
		p99 := map[balancer.Policy]time.Duration{}
		for _, policy := range []balancer.Policy{balancer.P2C, balancer.LeastRequest, balancer.RoundRobin, balancer.Random} {
			synctest.Test(t, func(t *testing.T) {
				servers := []*server{newServer(0, 16, steady(10))}
				for number := 1; number < 10; number++ {
					servers = append(servers, newServer(number, 16, steady(1)))
				}
				f := newFleet(balancer.Config{Policy: policy}, clients, servers...)
				calls := f.run(1000, 10*time.Millisecond, time.Minute)
				p99[policy] = quantile(calls, 0.99)
				fmt.Fprintf(table, "%d\t%s\t%.1f\t%.1f\t%.1f\t%.2f %%\t\n", clients, policy, milliseconds(quantile(calls, 0.5)),
					milliseconds(p99[policy]), milliseconds(quantile(calls, 0.999)), 100*share(calls, 0))
			})
		}
		// The 99th percentile of an exponential distribution with a mean of 10 ms is 46 ms.
		if p99[balancer.P2C] > 60*time.Millisecond {
			t.Errorf("%d clients: p99 of p2c is %v, want hardly more than 46 ms", clients, p99[balancer.P2C])
		}
		for _, blind := range []balancer.Policy{balancer.RoundRobin, balancer.Random} {
			if p99[blind] < 3*p99[balancer.P2C] {
				t.Errorf("%d clients: p99 of %s is %v, of p2c %v: want at least three times as much", clients, blind, p99[blind], p99[balancer.P2C])
			}
		}
		if p99[balancer.LeastRequest] < p99[balancer.P2C] {
			t.Errorf("%d clients: p99 of least_request is %v, of p2c %v", clients, p99[balancer.LeastRequest], p99[balancer.P2C])
		}
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}
