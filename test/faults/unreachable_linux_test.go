//go:build integration

package faults_test

import (
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// awaitKeptOut waits until an instance gets next to none of the attempts, of which one in three are its share if nothing keeps it out.
func awaitKeptOut(t testing.TB, transport *rpc.Transport, l *load, id string) {
	t.Helper()
	const calls = 300
	await(t, id+" to be kept out", func() bool {
		before := statusOf(transport, id).Calls
		l.goOn(t, calls)
		return statusOf(transport, id).Calls-before <= calls/20
	})
}

// TestRow15ConnectionRefused: one of three instances is registered but not there, from the beginning or after a while, and comes back.
func TestRow15ConnectionRefused(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address)
	reg, executions := newRegistry(t, cfg), newLedger()
	servers := fleet(t, reg, executions, host{}, host{}, host{addr: aside})
	gone := servers[2]
	for _, when := range []string{"from the beginning", "after a while"} {
		gone.halt(t)
		transport := connect(t, cfg)
		if when == "after a while" {
			gone = host{instance: gone}.start(t, executions)
		}
		l := startLoad(t, transport, executions, mixed, 5*time.Second)
		if when == "after a while" {
			executed := gone.executed.Load()
			await(t, "calls to it", func() bool { return gone.executed.Load() > executed })
			gone.halt(t)
		}
		await(t, "attempts to reach it to fail", func() bool { return statusOf(transport, instanceID(2)).Failures > 0 })
		awaitKeptOut(t, transport, l, instanceID(2))
		expectIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))

		executed := gone.executed.Load()
		gone = host{instance: gone}.start(t, executions)
		await(t, "calls to the instance that is back", func() bool { return gone.executed.Load() > executed+10 })
		l.mustSucceed(t)
	}
}

// TestRow16BlackHole: what is sent to one of three instances gets no answer from the first packet on.
func TestRow16BlackHole(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address)
	reg, executions := newRegistry(t, cfg), newLedger()
	servers := fleet(t, reg, executions, host{}, host{})
	way := servicestest.StartProxy(t, servers[0].Addr())
	way.BlackHole(t)
	registerAt(t, reg, instanceID(2), way.Addr)
	transport := connect(t, cfg)
	awaitIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	l := startLoad(t, transport, executions, mixed, 5*time.Second)
	await(t, "an attempt to reach it to fail", func() bool { return statusOf(transport, instanceID(2)).Failures > 0 })
	hurried := startLoad(t, transport, executions, mixed, 300*time.Millisecond) // less than a dial may take
	hurried.goOn(t, 100)
	awaitKeptOut(t, transport, l, instanceID(2))
	l.mustSucceed(t)
	for _, made := range hurried.finish(t) {
		if code := connectrpc.CodeOf(made.err); code != connectrpc.CodeDeadlineExceeded && code != connectrpc.CodeUnavailable {
			t.Errorf("%s, which had too little time, ends with %v", made.id, made.err)
		}
	}
}

// TestRow22HalfOpen: the way to the only instance is lost without a word, with calls under way and without.
func TestRow22HalfOpen(t *testing.T) {
	t.Parallel()
	calling := func(t *testing.T, transport *rpc.Transport, executions *ledger) (end func()) {
		t.Helper()
		l := startLoad(t, transport, executions, mixed, 500*time.Millisecond)
		return func() {
			for _, made := range l.finish(t) {
				if code := connectrpc.CodeOf(made.err); code != connectrpc.CodeDeadlineExceeded && code != connectrpc.CodeUnavailable {
					t.Errorf("%s ends with %v", made.id, made.err)
				}
			}
		}
	}
	for name, load := range map[string]func(t *testing.T, transport *rpc.Transport, executions *ledger) (end func()){
		"with calls": calling,
		"idle":       func(*testing.T, *rpc.Transport, *ledger) func() { return func() {} },
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			var way *servicestest.Proxy
			transport, executions := toHalfOpen(t, func(_ *config.Config, executions *ledger) string {
				way = servicestest.StartProxy(t, host{}.start(t, executions).Addr())
				return way.Addr
			})
			heal := way.BlackHole(t)
			end := load(t, transport, executions)
			expectClosed(t, func() bool { return statusOf(transport, instanceID(0)).Connections == 0 })
			heal()
			end()
			succeed(t, transport, executions, unrepeatable)
		})
	}
	// A proxy on the way acknowledges what it does not pass on, so that only the instance's own answer to a ping says that it is there.
	t.Run("beyond a proxy", func(t *testing.T) {
		row(t)
		var between *servicestest.Proxy
		transport, executions := toHalfOpen(t, func(cfg *config.Config, executions *ledger) string {
			cfg.Defaults.Pool.PingInterval, cfg.Defaults.Pool.PingTimeout = 5*time.Second, 2*time.Second
			between = servicestest.StartProxy(t, host{}.start(t, executions).Addr())
			return between.Addr
		})
		thaw := between.Freeze()
		end := calling(t, transport, executions)
		expectClosed(t, func() bool { return between.ClosedByClient.Load() > 0 })
		thaw()
		end()
		await(t, "calls to succeed again", func() bool { return invoke(t.Context(), transport, unrepeatable, time.Second).err == nil })
	})
}

// toHalfOpen returns a transport to the one instance at the address that start returns, over a connection that has carried a call.
func toHalfOpen(t *testing.T, start func(cfg *config.Config, executions *ledger) (addr string)) (*rpc.Transport, *ledger) {
	t.Helper()
	agent := consultest.Start(t)
	cfg, executions := settings(agent.Address), newLedger()
	cfg.Defaults.Breaker.Enabled = false // with one instance there is nothing to choose
	addr := start(cfg, executions)
	reg := newRegistry(t, cfg)
	registerAt(t, reg, instanceID(0), addr)
	transport := newTransport(t, cfg, reg)
	succeed(t, transport, executions, unrepeatable)
	if got := statusOf(transport, instanceID(0)).Connections; got != 1 {
		t.Fatalf("%d connections were made for one call", got)
	}
	return transport, executions
}

// expectClosed waits until the client has closed the connection whose way is lost.
func expectClosed(t testing.TB, closed func() bool) {
	t.Helper()
	began := time.Now()
	await(t, "the client to close the connection", closed)
	t.Logf("the connection was closed after %v", time.Since(began))
	expectWithin(t, 15*time.Second, began, "closing the connection")
}

// TestRow23ServerStopped: the process of one of three instances is stopped, connections and all, and continued later.
func TestRow23ServerStopped(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address)
	reg, executions := newRegistry(t, cfg), newLedger()
	fleet(t, reg, executions, host{}, host{})
	process := startChild(t, executions)
	registerAt(t, reg, instanceID(2), process.addr)
	transport := connect(t, cfg)
	awaitIDs(t, transport, instanceID(0), instanceID(1), instanceID(2))
	l := startLoad(t, transport, executions, unrepeatable, 500*time.Millisecond)
	served := func() uint64 {
		status := statusOf(transport, instanceID(2))
		return status.Calls - status.Failures
	}
	await(t, "calls to all", func() bool { return served() > 20 })

	process.Pause()
	await(t, "calls to run into their deadlines", func() bool { return l.failed() > 0 })
	awaitKeptOut(t, transport, l, instanceID(2))
	patient := startLoad(t, transport, executions, idempotent, 10*time.Second)
	patient.goOn(t, 100)

	process.Continue()
	before := served()
	await(t, "calls to the instance that is back", func() bool { return served() > before+20 })
	patient.mustSucceed(t)
	failures := l.finish(t)
	for _, made := range failures {
		if code := connectrpc.CodeOf(made.err); code != connectrpc.CodeDeadlineExceeded {
			t.Errorf("%s ends with %v", made.id, made.err)
		}
	}
	if len(failures) > 60 {
		t.Errorf("%d calls failed before the instance was kept out", len(failures))
	}
}
