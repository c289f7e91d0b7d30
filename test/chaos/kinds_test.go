//go:build integration && linux

package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// traits say what can break of a target.
type traits struct {
	agent         bool // it is the agent, and no instance
	ownProcess    bool // its server is in a process of its own
	behindGateway bool // what stands before it knows HTTP
}

// kind is a way to break.
type kind struct {
	name    string
	strikes func(traits) bool
	// rejoins says that the instance registers anew at the end.
	rejoins bool
	// orderly says that callers are not to notice, as long as there is an agent to tell them.
	orderly bool
	// begin breaks it until end is called. What there is to choose is chosen by random, and said in detail.
	begin func(t *testing.T, on *struck, random *rand.Rand) (end func(), detail string)
}

// struck is what a fault strikes: an instance, or the agent.
type struck struct {
	*instance

	agent *consultest.Agent
}

func anyInstance(of traits) bool { return !of.agent }
func anyAgent(of traits) bool    { return of.agent }
func gateways(of traits) bool    { return of.behindGateway }
func children(of traits) bool    { return of.ownProcess }
func insiders(of traits) bool    { return !of.ownProcess && !of.agent }

// kinds are all the ways to break.
var kinds = []*kind{
	// The network.
	{name: "refused", strikes: anyInstance, begin: network(func(on *struck) func() {
		accept := on.proxy.Refuse()
		on.proxy.DropConnections()
		return accept
	})},
	{name: "refused anew", strikes: anyInstance, begin: network(func(on *struck) func() { return on.proxy.Refuse() })},
	{name: "resets", strikes: anyInstance, begin: resets},
	{name: "frozen", strikes: anyInstance, begin: network(func(on *struck) func() { return on.proxy.Freeze() })},
	{name: "black hole", strikes: anyInstance, begin: func(t *testing.T, on *struck, _ *rand.Rand) (func(), string) {
		return on.proxy.BlackHole(t), ""
	}},
	{name: "drip", strikes: anyInstance, begin: drip},

	// The gateway.
	{name: "HTTP/1.1 only", strikes: gateways, begin: network(func(on *struck) func() {
		restore := on.gateway.HTTP1Only()
		on.gateway.DropConnections()
		return restore
	})},
	{name: "no trailers", strikes: gateways, begin: network(func(on *struck) func() { return on.gateway.StripTrailers("*").Remove })},
	{name: "415", strikes: gateways, begin: exchanges(func(on *struck, name string, _ *rand.Rand) (*servicestest.Fault, string) {
		return on.gateway.InjectStatus(name, http.StatusUnsupportedMediaType, servicestest.GRPCOnly()), "to gRPC"
	})},
	{name: "502", strikes: gateways, begin: exchanges(func(on *struck, name string, _ *rand.Rand) (*servicestest.Fault, string) {
		return on.gateway.InjectStatus(name, http.StatusBadGateway), ""
	})},
	{name: "502 after execution", strikes: gateways, begin: exchanges(func(on *struck, name string, _ *rand.Rand) (*servicestest.Fault, string) {
		return on.gateway.InjectStatus(name, http.StatusBadGateway, servicestest.AfterExecution()), ""
	})},
	{name: "late", strikes: gateways, begin: exchanges(func(on *struck, name string, random *rand.Rand) (*servicestest.Fault, string) {
		by := lateness(random)
		return on.gateway.Delay(name, by, servicestest.Rate(0.5)), fmt.Sprintf("by %v, every other", by)
	})},
	{name: "late answers", strikes: gateways, begin: exchanges(func(on *struck, name string, random *rand.Rand) (*servicestest.Fault, string) {
		by := lateness(random)
		return on.gateway.Delay(name, by, servicestest.AfterExecution(), servicestest.Rate(0.5)), fmt.Sprintf("by %v, every other", by)
	})},
	{name: "killed mid-response", strikes: gateways, begin: exchanges(func(on *struck, name string, random *rand.Rand) (*servicestest.Fault, string) {
		after := random.IntN(8)
		return on.gateway.KillMidResponse(name, after, servicestest.Rate(0.2)), fmt.Sprintf("every fifth after %d bytes", after)
	})},
	{name: "dropped after execution", strikes: gateways, begin: exchanges(func(on *struck, name string, _ *rand.Rand) (*servicestest.Fault, string) {
		return on.gateway.Drop(name, servicestest.AfterExecution(), servicestest.Rate(0.2)), "every fifth"
	})},

	// The process.
	{name: "killed", strikes: children, rejoins: true, begin: func(t *testing.T, on *struck, _ *rand.Rand) (func(), string) {
		on.process.Kill()
		return func() { on.start(t) }, ""
	}},
	{name: "stopped", strikes: children, begin: func(_ *testing.T, on *struck, _ *rand.Rand) (func(), string) {
		on.process.Pause()
		return on.process.Continue, ""
	}},
	{name: "restarted", strikes: anyInstance, rejoins: true, orderly: true, begin: restarted},

	// The handlers.
	{name: "unavailable", strikes: insiders, begin: handlers(func(faults *servicestest.Faults, _ *rand.Rand) (*servicestest.Fault, string) {
		return faults.Fail("*", connectrpc.CodeUnavailable, servicestest.Rate(0.1)), "every tenth"
	})},
	{name: "unavailable after execution", strikes: insiders, begin: handlers(
		func(faults *servicestest.Faults, _ *rand.Rand) (*servicestest.Fault, string) {
			return faults.Fail("*", connectrpc.CodeUnavailable, servicestest.Rate(0.1), servicestest.AfterExecution()), "every tenth"
		})},
	{name: "slow", strikes: insiders, begin: handlers(func(faults *servicestest.Faults, random *rand.Rand) (*servicestest.Fault, string) {
		by := lateness(random)
		return faults.Delay("*", by, servicestest.Rate(0.5)), fmt.Sprintf("by %v, every other", by)
	})},
	{name: "slow to answer", strikes: insiders, begin: handlers(func(faults *servicestest.Faults, random *rand.Rand) (*servicestest.Fault, string) {
		by := lateness(random)
		return faults.Delay("*", by, servicestest.Rate(0.5), servicestest.AfterExecution()), fmt.Sprintf("by %v, every other", by)
	})},
	{name: "drops connections", strikes: insiders, begin: handlers(func(faults *servicestest.Faults, _ *rand.Rand) (*servicestest.Fault, string) {
		return faults.Drop("*", servicestest.Rate(0.1)), "every tenth"
	})},

	// The agent, which forgets everything whenever it ends.
	{name: "agent killed", strikes: anyAgent, begin: func(_ *testing.T, on *struck, _ *rand.Rand) (func(), string) {
		on.agent.Kill()
		return on.agent.Restart, ""
	}},
	{name: "agent restarted", strikes: anyAgent, begin: func(_ *testing.T, on *struck, _ *rand.Rand) (func(), string) {
		on.agent.Stop()
		return on.agent.Restart, ""
	}},
	{name: "agent stopped", strikes: anyAgent, begin: func(_ *testing.T, on *struck, _ *rand.Rand) (func(), string) {
		on.agent.Pause()
		return on.agent.Continue, ""
	}},
}

func network(begin func(on *struck) (end func())) func(*testing.T, *struck, *rand.Rand) (func(), string) {
	return func(_ *testing.T, on *struck, _ *rand.Rand) (func(), string) { return begin(on), "" }
}

// resets resets all connections, again and again.
func resets(_ *testing.T, on *struck, random *rand.Rand) (end func(), detail string) {
	every := 50*time.Millisecond + time.Duration(random.Int64N(int64(450*time.Millisecond)))
	stop := make(chan struct{})
	var resetting sync.WaitGroup
	resetting.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			on.proxy.DropConnections()
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
		}
	})
	return func() {
		close(stop)
		resetting.Wait()
	}, fmt.Sprintf("every %v", every.Round(time.Millisecond))
}

// drip lets bytes pass one at a time, or at a few KiB a second.
func drip(_ *testing.T, on *struck, random *rand.Rand) (end func(), detail string) {
	bytes, every := 1, 2*time.Millisecond
	if random.IntN(2) == 0 {
		bytes, every = 200, 50*time.Millisecond
	}
	return on.proxy.SlowDrip(bytes, every), fmt.Sprintf("%d bytes every %v", bytes, every)
}

// exchanges are faults of a gateway that strike the calls of the service, or all requests, those of the agent's check included.
func exchanges(
	begin func(on *struck, name string, random *rand.Rand) (*servicestest.Fault, string),
) func(*testing.T, *struck, *rand.Rand) (func(), string) {
	return func(_ *testing.T, on *struck, random *rand.Rand) (func(), string) {
		name, what := service, "calls"
		if random.IntN(2) == 0 {
			name, what = "*", "all requests"
		}
		fault, detail := begin(on, name, random)
		if detail != "" {
			what += ", " + detail
		}
		return fault.Remove, what
	}
}

func handlers(
	begin func(faults *servicestest.Faults, random *rand.Rand) (*servicestest.Fault, string),
) func(*testing.T, *struck, *rand.Rand) (func(), string) {
	return func(_ *testing.T, on *struck, random *rand.Rand) (func(), string) {
		fault, detail := begin(on.faults, random)
		return fault.Remove, detail
	}
}

func lateness(random *rand.Rand) time.Duration {
	return (100*time.Millisecond + time.Duration(random.Int64N(int64(2*time.Second)))).Round(time.Millisecond)
}

// restarted stops the instance in order, which callers are not to notice, and starts it again.
func restarted(t *testing.T, on *struck, _ *rand.Rand) (end func(), detail string) {
	stopped := make(chan error, 1)
	go func() { stopped <- on.stop() }()
	return func() {
		if err := <-stopped; err != nil {
			t.Logf("%s stops with: %v", on.name(), err)
		}
		on.start(t)
	}, "in order"
}
