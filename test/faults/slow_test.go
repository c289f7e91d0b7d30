//go:build integration

package faults_test

import (
	"strings"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// unhurried lets an attempt, and the reading of a request, take as long as the machine needs for what is slow on purpose.
func unhurried(cfg *config.Config) {
	cfg.Defaults.Timeout, cfg.Defaults.AttemptTimeout = within, 0
}

func unhurriedServer(config *rpc.ServerConfig) { config.ReadHeaderTimeout = within }

// longestGreeting is how long a peer may take to show that it speaks HTTP/2.
const longestGreeting = 2 * time.Second

// TestRow39OneByteAtATime: what passes passes one byte at a time, also of the greeting, so that everything arrives in pieces. It is understood.
func TestRow39OneByteAtATime(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			way := servicestest.StartProxy(t, host{config: unhurriedServer, padding: strings.Repeat("x", 200)}.start(t, executions).Addr())
			way.SlowDrip(1, time.Microsecond)
			transport := reach(t, inMemory(speaking(spoken), unwarmed, unhurried), way.Addr)
			first := invoke(t.Context(), transport, unrepeatable, within)
			first.expect(t, executions, 0, 1)
			for range 2 {
				for _, what := range both {
					invoke(t.Context(), transport, what, within).expect(t, executions, 0, 1)
				}
			}
			want := spokenBy(spoken)
			if first.took > longestGreeting { // the machine is so busy that even these few bytes came too late
				want = statusOf(transport, instanceID(0)).Protocol
			}
			expectUntouched(t, transport, want)
		})
	}
}

// TestRow39Bandwidth: an answer that takes a second to come, at 1 Mbit/s, comes whole, where there is time for it.
func TestRow39Bandwidth(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			way := servicestest.StartProxy(t, host{padding: incompressible(oneMegabit)}.start(t, executions).Addr())
			transport := reach(t, inMemory(speaking(spoken), unhurried), way.Addr)
			invoke(t.Context(), transport, unrepeatable, within).expect(t, executions, 0, 1)
			way.SlowDrip(oneMegabit/10, 100*time.Millisecond)
			for _, what := range both {
				before := way.FromServer.Load()
				made := invoke(t.Context(), transport, what, within)
				made.expect(t, executions, 0, 1)
				if came := way.FromServer.Load() - before; came < oneMegabit/2 || made.took < 400*time.Millisecond {
					t.Errorf("%d bytes came in %v: the test tests nothing", came, made.took)
				}
			}
			expectUntouched(t, transport, spokenBy(spoken))
		})
	}
}

const oneMegabit = 125_000 // in bytes

// TestRow39TooSlow: where there is not time enough, the call ends in time, be it while the connection is opened, or with a part of the answer come.
func TestRow39TooSlow(t *testing.T) {
	t.Parallel()
	const short = 300 * time.Millisecond
	for _, spoken := range byBoth {
		for _, what := range both {
			t.Run(string(spokenBy(spoken))+" "+what.String()+" greeting", func(t *testing.T) {
				row(t)
				executions := newLedger()
				way := servicestest.StartProxy(t, host{}.start(t, executions).Addr())
				transport := reach(t, inMemory(speaking(spoken), unwarmed, unhurried), way.Addr)
				end := way.SlowDrip(1, 20*time.Millisecond)
				made := invoke(t.Context(), transport, what, short)
				made.expect(t, executions, connectrpc.CodeDeadlineExceeded, 0)
				end()
				invoke(t.Context(), transport, unrepeatable, within).expect(t, executions, 0, 1)
				expectAtRest(t, transport)
			})
			t.Run(string(spokenBy(spoken))+" "+what.String()+" answer", func(t *testing.T) {
				row(t)
				executions := newLedger()
				way := servicestest.StartProxy(t, host{padding: incompressible(oneMegabit)}.start(t, executions).Addr())
				transport := reach(t, inMemory(speaking(spoken), unhurried), way.Addr)
				invoke(t.Context(), transport, unrepeatable, within).expect(t, executions, 0, 1)
				end := way.SlowDrip(oneMegabit/100, 10*time.Millisecond)
				made := invoke(t.Context(), transport, what, short)
				made.check(t, executions)
				code, times := connectrpc.CodeOf(made.err), executions.executions(made.id)
				if made.err == nil || code != connectrpc.CodeDeadlineExceeded || times > 1 {
					t.Errorf("%s was executed %d times, and ends after %v with %v, want deadline exceeded", made.id, times, made.took, made.err)
				}
				end()
				for _, other := range both {
					invoke(t.Context(), transport, other, within).expect(t, executions, 0, 1)
				}
				expectAtRest(t, transport)
				if got := statusOf(transport, instanceID(0)); got.Protocol != spokenBy(spoken) {
					t.Errorf("status %+v", got)
				}
			})
		}
	}
}
