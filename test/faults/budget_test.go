//go:build integration

package faults_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
)

// TestRow35Unavailable: executions fail, all of them, or a few more than the budget for retries can bear, or just as many, for as long as the load
// goes on. Once what the budget held at first is used up, retries add at most a tenth to the load, as the servers see it.
func TestRow35Unavailable(t *testing.T) {
	t.Parallel()
	lasts := 8 * time.Second
	if *long {
		lasts = time.Minute
	}
	for _, spoken := range byBoth {
		for name, fails := range map[string]struct {
			every  int64
			tokens float64
		}{
			"all": {1, 100}, "every tenth": {10, 10}, "every eleventh": {11, 100},
		} {
			t.Run(string(spokenBy(spoken))+" "+name, func(t *testing.T) {
				row(t)
				executions := newLedger()
				failing := &failingNow{every: fails.every}
				var servers []*instance
				var addrs []string
				for range 3 {
					server := host{before: failing.execute}.start(t, executions)
					servers, addrs = append(servers, server), append(addrs, server.Addr())
				}
				transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
					cfg.Defaults.Retry.BudgetTokens = fails.tokens
					cfg.Defaults.Timeout, cfg.Defaults.AttemptTimeout = time.Minute, 0 // a busy machine is not what fails here
				}), addrs...)
				executed := func() (total int64) {
					for _, server := range servers {
						total += server.executed.Load()
					}
					return total
				}
				l := startLoad(t, transport, executions, idempotent, time.Minute)
				l.goOn(t, 600) // for half of the tokens to be used up
				calls, attempts := l.made.Load(), executed()
				pass(t, lasts)
				calls, attempts = l.made.Load()-calls, executed()-attempts
				ratio := float64(attempts) / float64(calls)
				t.Logf("%d attempts at %d calls, %.3f for each", attempts, calls, ratio)
				// Attempts of calls that are under way at the beginning are counted, but their calls are not, and the other way round at the end.
				if spare := float64(callers*3) / float64(calls); ratio > 1.1+spare {
					t.Errorf("%.3f attempts for each call, want at most 1.1", ratio)
				}
				for _, made := range l.finish(t) {
					if connectrpc.CodeOf(made.err) != connectrpc.CodeUnavailable {
						t.Errorf("%s ends with %v", made.id, made.err)
					}
				}
				expectUntouched(t, transport, spokenBy(spoken))
			})
		}
	}
}

// failingNow fails each so many-th execution.
type failingNow struct {
	every int64
	met   atomic.Int64
}

func (f *failingNow) execute(context.Context, string) error {
	if f.met.Add(1)%f.every == 0 {
		return connectrpc.NewError(connectrpc.CodeUnavailable, "not now")
	}
	return nil
}
