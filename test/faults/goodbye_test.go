//go:build integration

package faults_test

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// TestRow19GoodbyeIsNoFailure: an instance that says goodbye to connections of some age, as servers do that bound it, refuses the calls that cross
// its GOAWAY. They go on over a new connection, and the instance is as good as it was: it is not kept out for that.
func TestRow19GoodbyeIsNoFailure(t *testing.T) {
	row(t)
	executions := newLedger()
	const calls = 12
	peer := startPeer(t, executions, func(number int, conn *peerConn) {
		conn.Greet()
		if number > 1 {
			conn.serve()
			return
		}
		var first *servicestest.HTTP2Request
		for range calls {
			request, ok := conn.Next()
			if !ok {
				return
			}
			if first == nil || request.Stream < first.Stream {
				first = request
			}
		}
		conn.GoAway(first.Stream, http2.ErrCodeNo)
		conn.execute(first)
		conn.Drain()
	})
	cfg := inMemory(speaking(rpc.ProtocolGRPC), func(cfg *config.Config) { cfg.Defaults.Balancer.Policy = rpc.BalancerRandom })
	reg := newRegistry(t, cfg)
	for at, addr := range []string{peer.Addr, host{}.start(t, executions).Addr(), host{}.start(t, executions).Addr()} {
		weight := 1
		if at == 0 {
			weight = registry.MaxWeight // all calls are its, but for one in thousands
		}
		name, port := split(t, addr)
		register(t, reg, registry.Instance{ID: instanceID(at), Service: service, Host: name, Port: port, Weight: weight})
	}
	transport := reachBy(t, cfg, reg, instanceID(0), instanceID(1), instanceID(2))
	for _, made := range invokeAtOnce(transport, mixed, calls) {
		made.expect(t, executions, 0, 1)
	}
	expectUntouched(t, transport, rpc.ProtocolGRPC)
}
