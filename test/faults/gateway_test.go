//go:build integration

package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// TestRow31BadGateway: the gateway has lost the instance for a moment, before or after that has executed the call. It would have done so by any
// protocol.
func TestRow31BadGateway(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for name, when := range map[string][]servicestest.FaultOption{"before execution": nil, "after execution": {servicestest.AfterExecution()}} {
			t.Run(string(spokenBy(spoken))+" "+name, func(t *testing.T) {
				row(t)
				executions := newLedger()
				gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
				transport := reach(t, inMemory(speaking(spoken)), gateway.Addr)
				executed := len(when) // by each request that is struck
				for _, what := range both {
					before := gateway.Requests("auth")
					gateway.InjectStatus("auth", http.StatusBadGateway, append(slices.Clone(when), servicestest.Times(2))...)
					made := invoke(t.Context(), transport, what, patience)
					if what == idempotent {
						made.expect(t, executions, 0, 2*executed+1)
					} else {
						made.expect(t, executions, connectrpc.CodeUnavailable, executed)
					}
					want := map[kind]int{idempotent: 3, unrepeatable: 1}[what]
					if got := gateway.Requests("auth") - before; got != want {
						t.Errorf("the call was sent %d times, want %d", got, want)
					}
				}
				expectAtRest(t, transport)
				if got := statusOf(transport, instanceID(0)); got.Protocol != spokenBy(spoken) || got.Failures != 3 {
					t.Errorf("status %+v; want %s, and a failure for each request that was struck", got, spokenBy(spoken))
				}
				expectNotSuspected(t, transport)
			})
		}
	}
}

// TestRow31Bursts: bursts of 502, each of another of three gateways, under load.
func TestRow31Bursts(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			var gateways []*servicestest.HTTPProxy
			var addrs []string
			for range 3 {
				gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
				gateways, addrs = append(gateways, gateway), append(addrs, gateway.Addr)
			}
			transport := reach(t, inMemory(speaking(spoken)), addrs...)
			l := startCrowd(t, transport, executions, mixed, patience)
			var hits int
			for at := range 9 {
				l.goOn(t, 150)
				burst := gateways[at%3].InjectStatus("auth", http.StatusBadGateway, servicestest.Times(8), afterExecutionIf(at%2 == 1))
				l.goOn(t, 150)
				hits += burst.Hits()
				burst.Remove()
			}
			failures := l.finish(t)
			for _, made := range failures {
				if code := connectrpc.CodeOf(made.err); made.kind == idempotent || code != connectrpc.CodeUnavailable {
					t.Errorf("%s, %s, failed: %v", made.id, made.kind, made.err)
				}
			}
			if hits == 0 || len(failures) == 0 || len(failures) > hits {
				t.Errorf("%d requests met a 502, and %d calls failed", hits, len(failures))
			}
			expectAtRest(t, transport)
			for at := range gateways {
				if got := statusOf(transport, instanceID(at)).Protocol; got != spokenBy(spoken) {
					t.Errorf("%s is spoken to by %s", instanceID(at), got)
				}
			}
			expectNotSuspected(t, transport)
		})
	}
}

func afterExecutionIf(after bool) servicestest.FaultOption {
	if after {
		return servicestest.AfterExecution()
	}
	return servicestest.Rate(1)
}

// expectNotSuspected fails if gRPC was suspected not to get through.
func expectNotSuspected(t testing.TB, transport *rpc.Transport) {
	t.Helper()
	for _, sign := range []string{"is probed, because", "spoken to by", "is tried by"} {
		if hasChange(transport, sign) {
			t.Errorf("changes %+v; want none of the protocol", transport.Status().Changes)
		}
	}
}

// TestRow32ApplicationErrors: the service says something that a broken connection might be taken for. It is the answer.
func TestRow32ApplicationErrors(t *testing.T) {
	t.Parallel()
	const words = "the service's own words"
	for _, spoken := range byBoth {
		for _, code := range []connectrpc.Code{connectrpc.CodeUnimplemented, connectrpc.CodeUnknown, connectrpc.CodeInternal} {
			t.Run(fmt.Sprintf("%s %s", spokenBy(spoken), code), func(t *testing.T) {
				row(t)
				executions := newLedger()
				failing := host{before: func(context.Context, string) error { return connectrpc.NewError(code, words) }}
				gateways := []*servicestest.HTTPProxy{
					servicestest.StartHTTPProxy(t, failing.start(t, executions).Addr()), servicestest.StartHTTPProxy(t, failing.start(t, executions).Addr()),
				}
				transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
					cfg.Defaults.Breaker.MinCalls, cfg.Defaults.Outlier.ConsecutiveFailures = 1, 1
				}), gateways[0].Addr, gateways[1].Addr)
				const calls = 20
				for at := range calls {
					made, protocol := invokeBy(t.Context(), transport, both[at%2])
					made.expect(t, executions, code, 1)
					if want := code.String() + ": " + words; made.err != nil && made.err.Error() != want {
						t.Errorf("the error is %q, want %q", made.err, want)
					}
					if want := map[rpc.Protocol]string{rpc.ProtocolGRPC: byGRPC, rpc.ProtocolHTTP: byJSON}[spokenBy(spoken)]; protocol != want {
						t.Errorf("the answer came by %q, want %q", protocol, want)
					}
				}
				if got := gateways[0].Requests("*") + gateways[1].Requests("*"); got != calls {
					t.Errorf("%d requests for %d calls: something was sent again, or probed", got, calls)
				}
				expectUntouched(t, transport, spokenBy(spoken))
				expectNotSuspected(t, transport)
			})
		}
	}
}
