//go:build integration

package faults_test

import (
	"math"
	"net"
	"testing"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry"
)

// entry is what a test tells the agent of an instance, in Consul's terms.
type entry map[string]any

// TestRow11Instances: what is registered in Consul by others than goplt, with all that Consul lets pass.
func TestRow11Instances(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	executions := newLedger()
	onNode, elsewhere, six := host{}.start(t, executions), host{}.start(t, executions), host{addr: loopback6(t)}.start(t, executions)
	register := func(fields entry) {
		fields["Name"] = service
		agent.PutJSON("/v1/agent/service/register", fields)
	}
	register(entry{"ID": "no-address", "Port": onNode.port(t)}) // which is the node's, 127.0.0.1
	register(entry{"ID": "no-port", "Address": "127.0.0.1"})
	register(entry{"ID": "six", "Address": "::1", "Port": six.port(t)})
	agent.PutJSON("/v1/catalog/register", map[string]any{ // the same ID, of another node
		"Node": "other", "Address": "127.0.0.1", "Service": entry{"Service": service, "ID": "no-address", "Port": elsewhere.port(t)},
	})
	transport := connect(t, settings(agent.Address))
	awaitServers(t, transport, onNode, elsewhere, six)
	if known := ids(transport); known[0] == known[1] || known[1] == known[2] {
		t.Errorf("instances share an ID: %q", known)
	}
	for _, server := range []*instance{onNode, elsewhere, six} {
		await(t, "calls to "+server.Addr(), func() bool {
			succeed(t, transport, executions, unrepeatable)
			return server.executed.Load() > 0
		})
	}
}

// loopback6 returns a free port of this machine's own IPv6 address.
func loopback6(t testing.TB) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestRow11Weights: calls are shared out as the weights say, however far they are apart, and none goes where the weight is 0.
func TestRow11Weights(t *testing.T) {
	for name, weights := range map[string][]int{
		"like": {1, 1, 1}, "unlike": {1, 2, 5}, "none": {0, 3, 3}, "far apart": {1, registry.MaxWeight}, "only none": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			agent := consultest.Start(t)
			cfg := settings(agent.Address)
			reg, executions := newRegistry(t, cfg), newLedger()
			var servers []*instance
			total := 0.0
			for at, weight := range weights {
				server := host{}.start(t, executions)
				_, err := reg.Register(t.Context(), registry.Instance{
					ID: instanceID(at), Service: service, Host: "127.0.0.1", Port: server.port(t), Weight: weight,
				})
				if err != nil {
					t.Fatal(err)
				}
				servers, total = append(servers, server), total+float64(weight)
			}
			transport := connect(t, cfg)
			awaitServers(t, transport, servers...)
			const calls = 2000
			for range calls {
				succeed(t, transport, executions, unrepeatable)
			}
			for at, weight := range weights {
				share := 1 / float64(len(weights))
				if total > 0 {
					share = float64(weight) / total
				}
				// Picks are random: five standard deviations happen to one right balancer in two million.
				deviation := 5 * math.Sqrt(calls*share*(1-share))
				if got, want := float64(servers[at].executed.Load()), calls*share; math.Abs(got-want) > deviation {
					t.Errorf("of weights %v, number %d got %v calls of %d, want %.0f ± %.0f", weights, at, got, calls, want, deviation)
				}
			}
		})
	}
}
