//go:build integration

package faults_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestRow42RollingRestart: all instances are stopped and started again, one after the other, each as soon as the one before is back, under calls.
func TestRow42RollingRestart(t *testing.T) {
	t.Parallel()
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			row(t)
			agent := consultest.Start(t)
			cfg := settings(agent.Address, func(cfg *config.Config) {
				cfg.Discovery.Consul.Check = config.Default().Discovery.Consul.Check
				cfg.Discovery.Consul.Check.Kind, cfg.Discovery.Consul.Check.Interval = consul.CheckGRPC, time.Second
				cfg.Defaults.Protocol = spoken
			})
			reg, executions := newRegistry(t, cfg), newLedger()
			servers := members(t, reg, executions, 3)
			transport := connect(t, cfg)
			awaitServers(t, transport, servers...)
			l := startCrowd(t, transport, executions, mixed, 10*time.Second)
			for at, server := range servers {
				l.goOn(t, 500)
				if err := server.Stop(t.Context()); err != nil {
					t.Errorf("stop: %v", err)
				}
				servers[at] = host{in: reg, instance: server}.start(t, executions)
				awaitServers(t, transport, servers...)
				executed := server.executed.Load()
				await(t, "calls to the instance that is back", func() bool { return server.executed.Load() > executed })
			}
			l.mustSucceed(t)
			expectOnce(t, l, executions)
		})
	}
}

// expectOnce fails unless every call that was made was executed exactly once, the idempotent ones too: nothing had to be sent again.
func expectOnce(t testing.TB, l *load, executions *ledger) {
	t.Helper()
	duplicates := 0
	for _, made := range l.outcomes {
		if executions.executions(made.id) != 1 {
			duplicates++
		}
	}
	if duplicates > 0 {
		t.Errorf("%d of %d calls were executed more than once", duplicates, len(l.outcomes))
	}
}

// TestClusterLosesItsLeader: of three Consul servers, the one that leads is killed under calls. The transport's own agent is one of the others, or
// a client agent, which keeps no state but asks the servers, or the leader itself.
func TestClusterLosesItsLeader(t *testing.T) {
	row(t)
	cluster := consultest.StartCluster(t, 3)
	client := cluster.Join()
	leader := cluster.AwaitLeader()
	agents := map[string]*consultest.Agent{"by a client agent": client, "by the leader": leader}
	var follower *consultest.Agent
	for _, server := range cluster.Servers {
		if server != leader {
			follower = server
		}
	}
	agents["by a follower"] = follower

	executions := newLedger()
	reg := newRegistry(t, settings(follower.Address))
	servers := fleet(t, reg, executions, host{}, host{}, host{})
	transports, loads := make(map[string]*rpc.Transport), make(map[string]*load)
	for name, agent := range agents {
		transports[name] = connect(t, settings(agent.Address))
		awaitIDs(t, transports[name], instanceID(0), instanceID(1), instanceID(2))
		loads[name] = startLoad(t, transports[name], executions, mixed, 5*time.Second)
	}
	leader.Kill()
	began := time.Now()
	next := cluster.AwaitLeader()
	t.Logf("another leader, at %s, after %v", next.Address, time.Since(began))
	for name, l := range loads {
		l.goOn(t, 100)
		expectIDs(t, transports[name], instanceID(0), instanceID(1), instanceID(2))
	}

	// What changes after the election is seen by all who have an agent.
	more := host{}.start(t, executions)
	register(t, reg, registry.Instance{ID: instanceID(3), Service: service, Host: "127.0.0.1", Port: more.port(t), Weight: 1})
	for _, name := range []string{"by a follower", "by a client agent"} {
		awaitIDs(t, transports[name], instanceID(0), instanceID(1), instanceID(2), instanceID(3))
	}
	t.Logf("an instance that registered after the election is seen after %v", time.Since(began))
	leader.Restart()
	awaitIDs(t, transports["by the leader"], instanceID(0), instanceID(1), instanceID(2), instanceID(3))
	for _, server := range append(servers, more) {
		executed := server.executed.Load()
		await(t, fmt.Sprintf("calls to %s", server.Addr()), func() bool { return server.executed.Load() > executed })
	}
	for name, l := range loads {
		t.Log(name)
		l.mustSucceed(t)
	}
}

// register registers an instance as soon as Consul takes it.
func register(t testing.TB, reg registry.ServiceRegistry, instance registry.Instance) {
	t.Helper()
	await(t, "the registration of "+instance.ID, func() bool {
		_, err := reg.Register(t.Context(), instance)
		return err == nil
	})
}
