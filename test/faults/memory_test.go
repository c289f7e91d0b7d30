//go:build integration

package faults_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// inMemory returns the default configuration with a registry in memory, for the rows in which nothing is wrong with discovery.
func inMemory(changes ...func(*config.Config)) *config.Config {
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderMemory
	for _, change := range changes {
		change(cfg)
	}
	return cfg
}

// speaking has the client speak a protocol; gRPC over connections that are opened beforehand: on a machine that is busy, a peer may take longer to
// show that it speaks HTTP/2 than a call waits for that. Over HTTP/1.1, net/http's server takes no request any more on a connection that has none for
// some seconds.
func speaking(spoken rpc.Protocol) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.Defaults.Protocol = spoken
		if spoken != rpc.ProtocolHTTP {
			cfg.Defaults.Pool.MinConnections = 1
		}
	}
}

// unwarmed has the first call to an instance wait for its connection.
func unwarmed(cfg *config.Config) { cfg.Defaults.Pool.MinConnections = 0 }

// byBoth are the protocols that a row applies to: gRPC, as the default has it, and Connect/JSON.
var byBoth = []rpc.Protocol{rpc.ProtocolAuto, rpc.ProtocolHTTP}

// spokenBy is how an instance is spoken to where nothing is wrong with it.
func spokenBy(configured rpc.Protocol) rpc.Protocol {
	if configured == rpc.ProtocolAuto {
		return rpc.ProtocolGRPC
	}
	return configured
}

// reach returns a transport to the instances at addresses, which are "auth-1", "auth-2" and so on.
func reach(t *testing.T, cfg *config.Config, addrs ...string) *rpc.Transport {
	t.Helper()
	reg := newRegistry(t, cfg)
	var known []string
	for at, addr := range addrs {
		registerAt(t, reg, instanceID(at), addr)
		known = append(known, instanceID(at))
	}
	return reachBy(t, cfg, reg, known...)
}

// reachBy is reach for instances that are registered.
func reachBy(t *testing.T, cfg *config.Config, reg registry.ServiceRegistry, known ...string) *rpc.Transport {
	t.Helper()
	transport := newTransport(t, cfg, reg)
	awaitIDs(t, transport, known...)
	if cfg.Defaults.Pool.MinConnections > 0 {
		await(t, "connections to all", func() bool {
			return !slices.ContainsFunc(transport.Status().Instances, func(instance rpc.InstanceStatus) bool { return instance.Connections == 0 })
		})
	}
	return transport
}

// expect fails the test unless the call ended with a code, 0 for success, and was executed so many times.
func (o outcome) expect(t testing.TB, executions *ledger, code connectrpc.Code, times int) {
	t.Helper()
	o.check(t, executions)
	switch {
	case code == 0 && o.err != nil:
		t.Errorf("%s: %v", o.id, o.err)
	case code != 0 && (o.err == nil || connectrpc.CodeOf(o.err) != code):
		t.Errorf("%s ends with %v, want %v", o.id, o.err, code)
	}
	if got := executions.executions(o.id); got != times {
		t.Errorf("%s was executed %d times, want %d", o.id, got, times)
	}
}

// attempts returns what became of the attempts of a call that failed.
func (o outcome) attempts(t testing.TB) []rpc.Attempt {
	t.Helper()
	failure, ok := errors.AsType[*rpc.CallError](o.err)
	if !ok {
		t.Fatalf("%s ends with %v, want a CallError", o.id, o.err)
	}
	return failure.Attempts
}

// invokeBy is invoke with the protocol by which the answer came.
func invokeBy(ctx context.Context, transport *rpc.Transport, what kind) (made outcome, protocol string) {
	ctx, info := connectrpc.NewClientContext(ctx)
	made = invoke(ctx, transport, what, patience)
	return made, info.Protocol
}

// expectAtRest waits until nothing is under way at any instance: each attempt has given back what it held.
func expectAtRest(t testing.TB, transport *rpc.Transport) {
	t.Helper()
	await(t, "all attempts to be over", func() bool {
		for _, instance := range transport.Status().Instances {
			if instance.InFlight != 0 {
				return false
			}
		}
		return true
	})
}

// expectUntouched fails unless all instances are at rest, spoken to by a protocol, and have nothing that counts against them.
func expectUntouched(t testing.TB, transport *rpc.Transport, spoken rpc.Protocol) {
	t.Helper()
	expectAtRest(t, transport)
	for _, instance := range transport.Status().Instances {
		if instance.Protocol != spoken || instance.Breaker != "closed" || instance.Ejection != "serving" || instance.Failures != 0 {
			t.Errorf("status %+v; want protocol %s, a closed breaker, no ejection and no failure", instance, spoken)
		}
	}
}

// hasChange reports whether something happened to an instance.
func hasChange(transport *rpc.Transport, what string) bool {
	for _, change := range transport.Status().Changes {
		if strings.Contains(change.What, what) {
			return true
		}
	}
	return false
}
