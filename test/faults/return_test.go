//go:build integration

package faults_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// longestReprobe is the longest that it takes until gRPC is looked at again where it was learned not to get through: a minute, and a fifth more.
const longestReprobe = 72 * time.Second

// TestRow33Restored: whatever kept gRPC from getting through is repaired. Within the interval, calls go by gRPC again, and none of them fails for
// that. All ways to be broken wait at the same time, as each takes a minute.
func TestRow33Restored(t *testing.T) {
	row(t)
	ways := []struct {
		name string
		// damage breaks a gateway until repair.
		damage func(gateway *servicestest.HTTPProxy) (repair func())
	}{
		{"HTTP/1.1 only", (*servicestest.HTTPProxy).HTTP1Only},
		{"415", func(gateway *servicestest.HTTPProxy) func() {
			return gateway.InjectStatus("*", http.StatusUnsupportedMediaType, servicestest.GRPCOnly()).Remove
		}},
		{"trailers stripped", func(gateway *servicestest.HTTPProxy) func() { return gateway.StripTrailers("*").Remove }},
	}
	type broken struct {
		name       string
		load       *load
		transport  *rpc.Transport
		executions *ledger
		learned    time.Time
	}
	var all []broken
	for _, way := range ways {
		executions := newLedger()
		gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
		repair := way.damage(gateway)
		transport := reach(t, inMemory(), gateway.Addr)
		invoke(t.Context(), transport, idempotent, patience).check(t, executions)
		await(t, "the instance to be spoken to by JSON", func() bool { return statusOf(transport, instanceID(0)).Protocol == rpc.ProtocolHTTP })
		learned := time.Now()
		repair()
		l := startCallers(t, 2, 50*time.Millisecond, executions, mixed, func(what kind) outcome { // a minute is long enough without a crowd
			return invoke(context.Background(), transport, what, patience)
		})
		all = append(all, broken{way.name, l, transport, executions, learned})
	}
	for _, b := range all {
		awaitFor(t, 3*longestReprobe+within, b.name+": gRPC to be back", func() bool {
			return statusOf(b.transport, instanceID(0)).Protocol == rpc.ProtocolGRPC
		})
		t.Logf("%s: gRPC is back after %v", b.name, time.Since(b.learned))
		expectWithin(t, longestReprobe+time.Second, b.learned, "the return of gRPC") // a probe, and until it is seen here
		if !hasChange(b.transport, "speaks gRPC again: a probe brought a message and a trailer") {
			t.Errorf("%s: changes %+v; want one that says that gRPC is back, and why", b.name, b.transport.Status().Changes)
		}
		b.load.goOn(t, 50)
		made, protocol := invokeBy(t.Context(), b.transport, unrepeatable)
		made.expect(t, b.executions, 0, 1)
		if protocol != byGRPC {
			t.Errorf("%s: a call was answered by %q, want %q", b.name, protocol, byGRPC)
		}
		b.load.mustSucceed(t)
		expectOnce(t, b.load, b.executions)
		expectAtRest(t, b.transport)
	}
}

// TestRow33RegisteredAnew: an instance that was repaired by being started anew registers anew, which is reason enough to speak gRPC at once.
func TestRow33RegisteredAnew(t *testing.T) {
	row(t)
	executions := newLedger()
	gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
	repair := gateway.HTTP1Only()
	cfg := inMemory()
	reg := newRegistry(t, cfg)
	registerAt(t, reg, instanceID(0), gateway.Addr)
	transport := reachBy(t, cfg, reg, instanceID(0))
	l := startLoad(t, transport, executions, mixed, patience)
	await(t, "the instance to be spoken to by JSON", func() bool { return statusOf(transport, instanceID(0)).Protocol == rpc.ProtocolHTTP })
	l.goOn(t, 100)
	repair()
	host, port := split(t, gateway.Addr)
	await(t, "calls to go by gRPC", func() bool { // at the first registration, but for a machine that is too busy for the greeting
		register(t, reg, registry.Instance{ID: instanceID(0), Service: service, Host: host, Port: port, Weight: 1})
		made, protocol := invokeBy(t.Context(), transport, unrepeatable)
		made.expect(t, executions, 0, 1)
		return protocol == byGRPC
	})
	l.goOn(t, 100)
	l.mustSucceed(t)
	expectOnce(t, l, executions)
	expectAtRest(t, transport)
}
