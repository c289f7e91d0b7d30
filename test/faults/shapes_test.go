//go:build integration

package faults_test

import (
	"math"
	"net"
	"slices"
	"testing"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// entry is what a test tells the agent of an instance, in Consul's terms.
type entry map[string]any

// TestRow11Instances: what is registered in Consul by others than goplt, with all that Consul lets pass.
func TestRow11Instances(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	executions := newLedger()
	onNode, elsewhere := host{}.start(t, executions), host{}.start(t, executions)
	servers := []*instance{onNode, elsewhere}
	register := func(fields entry) {
		fields["Name"] = service
		agent.PutJSON("/v1/agent/service/register", fields)
	}
	register(entry{"ID": "no-address", "Port": onNode.port(t)}) // which is the node's, 127.0.0.1
	register(entry{"ID": "no-port", "Address": "127.0.0.1"})
	agent.PutJSON("/v1/catalog/register", map[string]any{ // the same ID, of another node
		"Node": "other", "Address": "127.0.0.1", "Service": entry{"Service": service, "ID": "no-address", "Port": elsewhere.port(t)},
	})
	if addr, ok := loopback6(t); ok {
		six := host{addr: addr}.start(t, executions)
		register(entry{"ID": "six", "Address": "::1", "Port": six.port(t)})
		servers = append(servers, six)
	}
	transport := connect(t, settings(agent.Address))
	awaitServers(t, transport, servers...)
	known := ids(transport)
	slices.Sort(known)
	if len(slices.Compact(known)) != len(servers) {
		t.Errorf("instances share an ID: %q", ids(transport))
	}
	for _, server := range servers {
		await(t, "calls to "+server.Addr(), func() bool {
			succeed(t, transport, executions, unrepeatable)
			return server.executed.Load() > 0
		})
	}
}

// loopback6 returns a free port of this machine's own IPv6 address, if it has one.
func loopback6(t testing.TB) (addr string, ok bool) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Logf("without the instance at an IPv6 address: %v", err)
		return "", false
	}
	defer listener.Close()
	return listener.Addr().String(), true
}

// TestRow11Weights: calls are shared out as the weights say, however far they are apart, and none goes where the weight is 0 while others have one.
func TestRow11Weights(t *testing.T) {
	t.Parallel()
	for name, weights := range map[string][]int{
		"like": {1, 1, 1}, "unlike": {1, 2, 5}, "some none": {0, 3, 3}, "far apart": {1, registry.MaxWeight}, "all none": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			agent := consultest.Start(t)
			cfg := settings(agent.Address)
			reg, executions := newRegistry(t, cfg), newLedger()
			var servers []*instance
			for at, weight := range weights {
				server := host{}.start(t, executions)
				register(t, reg, registry.Instance{ID: instanceID(at), Service: service, Host: "127.0.0.1", Port: server.port(t), Weight: weight})
				servers = append(servers, server)
			}
			for policy, allowed := range map[rpc.Balancer]func(calls, share float64) (least, most float64){
				// In turn: exact, but for where in the turn the calls begin and end.
				rpc.BalancerRoundRobin: func(calls, share float64) (least, most float64) { return calls*share - 1, calls*share + 1 },
				// Drawn: five standard deviations happen to a right balancer once in two million.
				rpc.BalancerRandom: func(calls, share float64) (least, most float64) {
					deviation := 5 * math.Sqrt(calls*share*(1-share))
					return calls*share - deviation, calls*share + deviation
				},
				// By weight and latency: of idle instances that are alike, the one that was once slow on a busy machine may be left alone for a while.
				rpc.BalancerP2C: func(calls, share float64) (least, most float64) {
					if share == 0 {
						return 0, 0
					}
					return math.Floor(min(1, calls*share/10)), calls
				},
			} {
				cfg.Defaults.Balancer.Policy = policy
				transport := newTransport(t, cfg, reg)
				awaitServers(t, transport, servers...)
				const calls = 800 // some rounds of each turn but that of far apart weights
				before := make([]int64, len(servers))
				for at, server := range servers {
					before[at] = server.executed.Load()
				}
				for range calls {
					succeed(t, transport, executions, unrepeatable)
				}
				for at, server := range servers {
					least, most := allowed(calls, shareOf(weights, at))
					if got := float64(server.executed.Load() - before[at]); got < least || got > most {
						t.Errorf("%s: of weights %v, number %d got %v calls of %d, want %.1f to %.1f", policy, weights, at, got, calls, least, most)
					}
				}
			}
		})
	}
}

// shareOf returns the part of all calls that a weight means. Where nobody has any weight, all are alike.
func shareOf(weights []int, at int) float64 {
	total := 0
	for _, weight := range weights {
		total += weight
	}
	if total == 0 {
		return 1 / float64(len(weights))
	}
	return float64(weights[at]) / float64(total)
}
