package simulation_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// TestSimulationZones: clients in a zone whose two instances can take 800 calls per second. Below that, calls stay in the zone. Above, what the
// zone cannot take is sent away, and not much more, whatever the policy.
func TestSimulationZones(t *testing.T) {
	fmt.Fprintln(t.Output(), "2 instances in the clients' zone, 6 in another 5 ms away: 10 ms of work on average, 4 at a time per instance, 20 clients, 60 s")
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "calls/s\tpolicy\tp50 ms\tp99 ms\tout of the zone\t")
	for _, rate := range []float64{400, 1200} {
		for _, policy := range []balancer.Policy{balancer.P2C, balancer.LeastRequest, balancer.RoundRobin, balancer.Random} {
			synctest.Test(t, func(t *testing.T) {
				var servers []*server
				for number := range 8 {
					s := newServer(number, 4, steady(1))
					s.zone = "local"
					if number >= 2 {
						s.zone, s.away = "remote", 5*time.Millisecond
					}
					servers = append(servers, s)
				}
				f := newFleet(balancer.Config{Policy: policy, LocalZone: "local"}, 20, servers...)
				calls := f.run(rate, 10*time.Millisecond, time.Minute)
				p99, away := quantile(calls, 0.99), 0.0
				for remote := 2; remote < len(servers); remote++ {
					away += share(calls, remote)
				}
				fmt.Fprintf(table, "%.0f\t%s\t%.1f\t%.1f\t%.1f %%\t\n", rate, policy, milliseconds(quantile(calls, 0.5)), milliseconds(p99), 100*away)
				switch {
				case rate < 800 && (away > 0.05 || p99 > 80*time.Millisecond):
					t.Errorf("%s at %.0f calls/s: %.1f %% left the zone, p99 is %v", policy, rate, 100*away, p99)
				case rate > 800 && (away < 0.3 || away > 0.6 || p99 > 500*time.Millisecond):
					t.Errorf("%s at %.0f calls/s: %.1f %% left the zone, p99 is %v", policy, rate, 100*away, p99)
				}
			})
		}
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}
