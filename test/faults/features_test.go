//go:build integration

package faults_test

import (
	"slices"
	"testing"
	"time"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/internal/consultest/script"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestWarmStart: a client that starts while Consul is down makes its calls to the last good instances, which an earlier process left on disk, and
// follows Consul again when that is back.
func TestWarmStart(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	dir := t.TempDir()
	cfg := settings(agent.Address, func(cfg *config.Config) {
		cfg.Discovery.Consul.Snapshot.Dir = dir
		cfg.Discovery.Consul.VerifyInterval = 500 * time.Millisecond
	})
	executions := newLedger()
	serving := newRegistry(t, settings(agent.Address, func(cfg *config.Config) { cfg.Discovery.Consul.VerifyInterval = 500 * time.Millisecond }))
	servers := members(t, serving, executions, 2)
	earlier := newRegistry(t, cfg)
	before := newTransport(t, cfg, earlier)
	succeed(t, before, executions, idempotent)
	awaitServers(t, before, servers...)
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if err := earlier.Close(); err != nil { // writes what is not written yet
		t.Fatal(err)
	}

	agent.Kill()
	transport := connect(t, cfg)
	for range 20 {
		succeed(t, transport, executions, idempotent)
		succeed(t, transport, executions, unrepeatable)
	}
	expectServers(t, transport, servers...)
	without := connect(t, settings(agent.Address)) // and this is what it is without a snapshot
	if made := invoke(t.Context(), without, idempotent, time.Second); made.err == nil {
		t.Error("a call succeeded without Consul and without a snapshot")
	}

	agent.Restart()
	more := host{in: serving}.start(t, executions)
	awaitServers(t, transport, append(slices.Clone(servers), more)...)
	succeed(t, transport, executions, unrepeatable)
}

// TestFailoverBetweenDatacenters: when the last instance of a datacenter is gone, calls go to the next one's, and come back with the first that
// registers again.
func TestFailoverBetweenDatacenters(t *testing.T) {
	row(t)
	agents := consultest.StartFederation(t, "eu", "us")
	executions := newLedger()
	// One instance in each, as far as Consul goes; all of them are on this machine.
	var (
		regs          []registry.ServiceRegistry
		servers       []*instance
		registrations []registry.Registration
	)
	for at, agent := range agents {
		reg, server := newRegistry(t, settings(agent.Address)), host{}.start(t, executions)
		regs, servers = append(regs, reg), append(servers, server)
		registrations = append(registrations, registerAt(t, reg, instanceID(at), server.Addr()))
	}
	cfg := settings(agents[0].Address, func(cfg *config.Config) {
		cfg.Discovery.Consul.Failover = []string{"us"}
		cfg.Discovery.Consul.EmptyGrace = 100 * time.Millisecond
	})
	transport := connect(t, cfg)
	l := startLoad(t, transport, executions, mixed, 10*time.Second)
	awaitIDs(t, transport, instanceID(0))
	l.goOn(t, 20)
	if got := servers[1].executed.Load(); got > 0 {
		t.Errorf("%d calls to the other datacenter while there is an instance in this one", got)
	}
	if err := registrations[0].Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitIDs(t, transport, instanceID(1))
	executed := servers[1].executed.Load()
	await(t, "calls to the other datacenter", func() bool { return servers[1].executed.Load() > executed })
	registerAt(t, regs[0], instanceID(0), servers[0].Addr())
	awaitIDs(t, transport, instanceID(0))
	executed = servers[0].executed.Load()
	await(t, "calls to this datacenter again", func() bool { return servers[0].executed.Load() > executed })
	l.mustSucceed(t)
}

// TestThousandTransportsHoldOneQuery on one service, and all see the change that it brings.
func TestThousandTransportsHoldOneQuery(t *testing.T) {
	row(t)
	executions := newLedger()
	servers := []*instance{host{}.start(t, executions), host{}.start(t, executions)}
	agent := script.Start(t, script.Instance(instanceID(0), "127.0.0.1", servers[0].port(t)))
	cfg := settings(agent.Address)
	reg := newRegistry(t, cfg)
	var transports []*rpc.Transport
	for range 1000 {
		transports = append(transports, newTransport(t, cfg, reg))
	}
	for _, transport := range transports {
		awaitIDs(t, transport, instanceID(0)) // which begins to watch
	}
	await(t, "the watch to wait", func() bool { return agent.Waiting() == 1 })
	// One that brought the first set, one that waits; few more if waiting began late.
	if asked := len(agent.Asked()); asked > 3 {
		t.Errorf("%d queries for 1,000 transports, want 2", asked)
	}
	agent.Set(script.Instance(instanceID(0), "127.0.0.1", servers[0].port(t)), script.Instance(instanceID(1), "127.0.0.1", servers[1].port(t)))
	for _, transport := range transports {
		awaitIDs(t, transport, instanceID(0), instanceID(1))
	}
	if waiting := agent.Waiting(); waiting > 1 {
		t.Errorf("%d queries wait, want one", waiting)
	}
	succeed(t, transports[999], executions, unrepeatable)
}
