//go:build integration

package faults_test

import (
	"testing"
	"time"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/internal/consultest/script"
	"github.com/0x1d/goplt/pkg/registry"
)

// outage is how long Consul is away.
func outage() time.Duration {
	if *long {
		return time.Minute
	}
	return 5 * time.Second
}

// members starts so many instances that register themselves.
func members(t testing.TB, reg registry.ServiceRegistry, executions *ledger, count int) []*instance {
	t.Helper()
	var started []*instance
	for range count {
		started = append(started, host{in: reg}.start(t, executions))
	}
	return started
}

// TestRow04AgentKilled: the agent dies, stays away, and comes back without remembering anything. Instances register again, and what changed
// after that is seen.
func TestRow04AgentKilled(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address, func(cfg *config.Config) { cfg.Discovery.Consul.VerifyInterval = 500 * time.Millisecond })
	reg, executions := newRegistry(t, cfg), newLedger()
	servers := members(t, reg, executions, 3)
	transport := connect(t, cfg)
	l := startLoad(t, transport, executions, mixed, 5*time.Second)
	awaitServers(t, transport, servers...)

	agent.Kill()
	began := time.Now()
	for time.Since(began) < outage() {
		l.goOn(t, 100)
		expectServers(t, transport, servers...)
	}
	agent.Restart()
	more := host{in: reg}.start(t, executions)
	awaitServers(t, transport, append(servers, more)...)
	l.goOn(t, 200)
	expectServers(t, transport, append(servers, more)...)
	executed := more.executed.Load()
	await(t, "calls to the instance that is new", func() bool { return more.executed.Load() > executed })
	l.mustSucceed(t)
}

// TestRow05AgentStopped: the agent hangs while the watch waits for it.
func TestRow05AgentStopped(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address, func(cfg *config.Config) { cfg.Discovery.Consul.Wait = time.Second })
	reg, executions := newRegistry(t, cfg), newLedger()
	servers := fleet(t, reg, executions, host{}, host{})
	transport := connect(t, cfg)
	l := startLoad(t, transport, executions, mixed, 5*time.Second)
	awaitIDs(t, transport, instanceID(0), instanceID(1))
	agent.Pause()
	await(t, "the watch to time out", func() bool { return transport.Status().Error != "" })
	l.goOn(t, 200)
	expectIDs(t, transport, instanceID(0), instanceID(1))
	agent.Continue()
	registerAt(t, reg, instanceID(2), host{}.start(t, executions).Addr())
	awaitIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	for _, server := range servers {
		executed := server.executed.Load()
		await(t, "calls to go everywhere", func() bool { return server.executed.Load() > executed })
	}
	l.mustSucceed(t)
}

// TestRow06AgentFails: the agent answers, with errors that pass. It is asked less and less often, never in step with others, and then believed again.
func TestRow06AgentFails(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"500": 500, "429": 429, "503": 503} {
		t.Run(name, func(t *testing.T) {
			row(t)
			s := startScripted(t)
			times := 5
			if *long {
				times = 10
			}
			before := len(s.agent.Asked())
			s.agent.AnswerNext(times, script.Status(status))
			s.setInstances(t, 3)
			await(t, "the failure to show", func() bool { return s.transport.Status().Error != "" })
			expectIDs(t, s.transport, instanceID(0), instanceID(1))
			awaitFor(t, time.Duration(times)*31*time.Second, "the third instance", func() bool { return len(ids(s.transport)) == 3 })
			asked := s.agent.Asked()[before:]
			var pauses []time.Duration
			for at, query := range asked[1:] {
				pauses = append(pauses, query.At.Sub(asked[at].At).Round(time.Millisecond))
			}
			t.Logf("after each failure, the agent was left alone for %v", pauses)
			for at, longest := range pauses[:times-1] {
				if asked[at+1].Index != 0 {
					t.Errorf("after failure %d the agent was asked for what comes after index %d, want 0", at+1, asked[at+1].Index)
				}
				if least := min(15*time.Second, 200*time.Millisecond<<at); longest < least || longest > 31*time.Second {
					t.Errorf("after failure %d the agent was left alone for %v, want at least %v and at most 30s", at+1, longest, least)
				}
			}
			s.mustSucceed(t)
		})
	}
}
