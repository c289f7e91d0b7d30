//go:build !race

package simulation_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
)

// hedgedAfter configures hedging.
func hedgedAfter(hedge rpc.HedgeConfig) func(*rpc.ClientConfig) {
	return func(config *rpc.ClientConfig) {
		config.Methods = map[string]rpc.MethodConfig{"goplt.auth.v1.AuthService": {Hedge: hedge}}
	}
}

// TestSimulationHedging: one of a hundred answers takes a hundred times as long. Hedges after a delay, fixed or the quantile of the latencies, have
// the slowest calls take a few milliseconds more than the delay, and cost as many attempts as calls take longer than that. A delay too short costs
// a tenth of the load, which is what the budget gives, and never more.
func TestSimulationHedging(t *testing.T) {
	const rate, instances, warm, duration = 1000, 10, 2 * time.Second, 10 * time.Second
	fmt.Fprintf(t.Output(), "1 %% of the answers 100 times as slow: %d instances, %d calls/s for %v; half of the work is exponentially distributed\n",
		instances, rate, duration-warm)
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "work\thedges\tp50 ms\tp99 ms\tp99.9 ms\textra load\t")
	for _, row := range []struct {
		work    time.Duration // of an answer that is not slow, on average
		name    string
		hedge   rpc.HedgeConfig
		slowest time.Duration // that p99 may be; 0 where it is not mended
		extra   float64       // that hedges may add to the load
	}{
		{time.Millisecond, "none", rpc.HedgeConfig{}, 0, 0},
		{time.Millisecond, "after 5 ms", rpc.HedgeConfig{Delay: 5 * time.Millisecond}, 7 * time.Millisecond, 0.02},
		{time.Millisecond, "after the 0.95 quantile", rpc.HedgeConfig{Quantile: 0.95}, 5 * time.Millisecond, 0.06},
		{time.Millisecond, "after the 0.99 quantile", rpc.HedgeConfig{Quantile: 0.99}, 8 * time.Millisecond, 0.02},
		{time.Millisecond, "after 1 ms, too soon", rpc.HedgeConfig{Delay: time.Millisecond}, 0, budgetRatio},
		{5 * time.Millisecond, "none", rpc.HedgeConfig{}, 0, 0},
		{5 * time.Millisecond, "after the 0.95 quantile", rpc.HedgeConfig{Quantile: 0.95}, 25 * time.Millisecond, 0.06},
		{5 * time.Millisecond, "after the 0.99 quantile", rpc.HedgeConfig{Quantile: 0.99}, 40 * time.Millisecond, 0.02},
		{5 * time.Millisecond, "after 1 ms, too soon", rpc.HedgeConfig{Delay: time.Millisecond}, 0, budgetRatio},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := startService(t, instances, func(ctx context.Context, random *rand.Rand) error {
				took := row.work/2 + time.Duration(random.ExpFloat64()*float64(row.work/2))
				if random.IntN(100) == 0 {
					took *= 100
				}
				rest(ctx, took)
				return ctx.Err()
			})
			seen := s.load(rate, duration, s.dial(t, hedgedAfter(row.hedge)))
			s.close(t)
			steady := seen.between(warm, duration)
			p99, extra := quantile(steady.calls, 0.99), steady.amplification()-1
			fmt.Fprintf(table, "%v\t%s\t%.1f\t%.1f\t%.1f\t%.1f %%\t\n", row.work, row.name, milliseconds(quantile(steady.calls, 0.5)), milliseconds(p99),
				milliseconds(quantile(steady.calls, 0.999)), 100*extra)
			if row.slowest > 0 && p99 > row.slowest {
				t.Errorf("%v, hedges %s: p99 is %v, want at most %v", row.work, row.name, p99, row.slowest)
			}
			if row.extra == 0 && p99 < 30*row.work {
				t.Errorf("%v, no hedges: p99 is %v: there is nothing to mend", row.work, p99)
			}
			if extra > row.extra+0.005 { // the calls of the window are not quite those whose attempts fall into it
				t.Errorf("%v, hedges %s: they add %.3f to the load, want at most %.3f", row.work, row.name, extra, row.extra)
			}
			if steady.failing() > 0 {
				t.Errorf("%v, hedges %s: %.4f of the calls fail", row.work, row.name, steady.failing())
			}
		})
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}

// budgetRatio is what successes give back of the budget by default.
const budgetRatio = 0.1
