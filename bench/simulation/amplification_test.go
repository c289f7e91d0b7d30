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

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
)

// retrying is a client that makes up to three attempts of a call.
type retrying struct {
	name      string
	configure func(*rpc.ClientConfig)
	attempts  int // that are made around the client, not by it
	only      int // percentage of failures that it is for; 0 for all
}

func retryings() []retrying {
	return []retrying{
		{"goplt", func(*rpc.ClientConfig) {}, 1, 0},
		{"a loop without a budget", func(config *rpc.ClientConfig) { config.Retry.MaxAttempts = 1 }, 3, 0},
		{"goplt, hedged after 1 ms", hedgedAfter(rpc.HedgeConfig{Delay: time.Millisecond}), 1, 5},
	}
}

// TestSimulationAmplification: a share of the answers is UNAVAILABLE, of calls that may be repeated. While it is small, goplt retries as much as a
// loop that counts no costs; where it is large, it stops once its bucket is half empty, and adds at most a tenth of the successes from then on. A loop
// goes on to make up to three calls of one. Hedges that come too soon must not take the retries' share. The times of backoff are drawn by goplt itself,
// so that figures may differ in their last digits.
func TestSimulationAmplification(t *testing.T) {
	const rate, warm, duration = 200, 10 * time.Second, 30 * time.Second
	fmt.Fprintf(t.Output(), "A share of the answers is UNAVAILABLE after 2 ms, %d calls/s, steady from %v to %v: attempts per call\n", rate, warm, duration)
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "failing\tclient\tin the 1st second\tin the 2nd\tsteady\tcalls that fail\t")
	for _, percent := range []int{5, 10, 50, 100} {
		failures := map[string]float64{}
		for _, client := range retryings() {
			if client.only != 0 && client.only != percent {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				s := startService(t, 5, func(ctx context.Context, random *rand.Rand) error {
					rest(ctx, 2*time.Millisecond)
					if random.IntN(100) < percent {
						return connect.NewError(connect.CodeUnavailable, "failing by chance")
					}
					return ctx.Err()
				})
				call := s.dial(t, client.configure)
				seen := s.load(rate, duration, func(ctx context.Context, number string) error {
					for attempt := 1; ; attempt++ {
						err := call(ctx, number)
						if err == nil || attempt == client.attempts {
							return err
						}
						rest(ctx, rand.N(20*time.Millisecond<<(attempt-1))) // as goplt does
					}
				})
				s.close(t)
				steady := seen.between(warm, duration)
				failures[client.name] = steady.failing()
				fmt.Fprintf(table, "%d %%\t%s\t%.2f\t%.2f\t%.3f\t%.2f %%\t\n", percent, client.name, seen.between(0, time.Second).amplification(),
					seen.between(time.Second, 2*time.Second).amplification(), steady.amplification(), 100*steady.failing())
				// A tenth of the successes, and what is in the half of the bucket that may be spent.
				if most := 1.1*float64(len(steady.calls)) + 50; client.attempts == 1 && float64(steady.executions) > most {
					t.Errorf("%d %%, %s: %d attempts of %d calls", percent, client.name, steady.executions, len(steady.calls))
				}
				if least := 1 + float64(percent)/100; client.attempts > 1 && steady.amplification() < least {
					t.Errorf("%d %%, %s: %.3f attempts per call, want at least %.2f", percent, client.name, steady.amplification(), least)
				}
			})
		}
		if worst := failures["a loop without a budget"] + 0.002; percent == 5 && (failures["goplt"] > worst || failures["goplt, hedged after 1 ms"] > worst) {
			t.Errorf("5 %%: calls that fail: %v; want that of all clients alike", failures)
		}
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}
