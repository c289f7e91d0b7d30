//go:build integration

package faults_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// patience is how long calls may take that have to succeed.
const patience = 10 * time.Second

// serve executes what comes until the connection ends.
func (c *peerConn) serve() {
	for request, ok := c.Next(); ok; request, ok = c.Next() {
		c.execute(request)
	}
}

// TestRow19GoAwayInFlight: the instance says goodbye to a connection that carries three calls, and names the second as the last that it processes.
// The third is sent again elsewhere; the first two are waited for, while new calls go over a new connection.
func TestRow19GoAwayInFlight(t *testing.T) {
	t.Parallel()
	for name, goodbye := range map[string]func(conn *peerConn, last uint32){
		"at once": func(conn *peerConn, last uint32) { conn.GoAway(last, http2.ErrCodeNo) },
		// As servers do that end gracefully, so that what is on its way is still taken.
		"announced": func(conn *peerConn, last uint32) {
			conn.GoAway(1<<31-1, http2.ErrCodeNo)
			conn.GoAway(last, http2.ErrCodeNo)
		},
		"with an error": func(conn *peerConn, last uint32) { conn.GoAway(last, http2.ErrCodeEnhanceYourCalm) },
	} {
		for _, what := range both {
			t.Run(name+" "+what.String(), func(t *testing.T) {
				row(t)
				executions := newLedger()
				arrived, leave := make(chan struct{}, 3), make(chan struct{})
				peer := startPeer(t, executions, func(number int, conn *peerConn) {
					conn.Greet()
					if number > 1 {
						conn.serve()
						return
					}
					var held []*servicestest.HTTP2Request
					for len(held) < 3 {
						request, ok := conn.Next()
						if !ok {
							return
						}
						held = append(held, request)
						arrived <- struct{}{}
					}
					goodbye(conn, held[1].Stream)
					<-leave
					for _, request := range held[:2] {
						conn.execute(request)
					}
					conn.Drain()
				})
				transport := reach(t, inMemory(speaking(rpc.ProtocolGRPC)), peer.Addr)
				made := make([]outcome, 3)
				over := make([]chan struct{}, 3)
				for at := range made {
					over[at] = make(chan struct{})
					go func() {
						defer close(over[at])
						made[at] = invoke(context.Background(), transport, what, patience)
					}()
					<-arrived
				}
				<-over[2]
				made[2].expect(t, executions, 0, 1)
				for _, other := range both {
					invoke(t.Context(), transport, other, patience).expect(t, executions, 0, 1)
				}
				if accepted, requests := peer.Accepted.Load(), peer.Requests.Load(); accepted != 2 || requests != 6 {
					t.Errorf("%d requests on %d connections; want the third call to be the only one sent twice, and one new connection", requests, accepted)
				}
				select {
				case <-over[0]:
					t.Error("the first call did not wait for its answer")
				case <-over[1]:
					t.Error("the second call did not wait for its answer")
				default:
				}
				close(leave)
				for at := range 2 {
					<-over[at]
					made[at].expect(t, executions, 0, 1)
				}
				await(t, "the connection to be swept", func() bool { return peer.Open.Load() == 1 })
				expectAtRest(t, transport)
				if got := statusOf(transport, instanceID(0)); got.Protocol != rpc.ProtocolGRPC || got.Breaker != "closed" {
					t.Errorf("status %+v; want gRPC and a closed breaker", got)
				}
			})
		}
	}
}

// TestRow20GoAwayAndClose: the instance says goodbye, takes responsibility for all calls under way, and is gone without an answer. Nobody knows which
// of them were executed.
func TestRow20GoAwayAndClose(t *testing.T) {
	t.Parallel()
	const calls = 8
	for name, code := range map[string]http2.ErrCode{"gracefully": http2.ErrCodeNo, "with an error": http2.ErrCodeInternal} {
		for _, executes := range []bool{true, false} {
			for _, what := range both {
				t.Run(name+map[bool]string{true: " executed ", false: " not executed "}[executes]+what.String(), func(t *testing.T) {
					row(t)
					executions := newLedger()
					peer := startPeer(t, executions, func(number int, conn *peerConn) {
						conn.Greet()
						if number > 1 {
							conn.serve()
							return
						}
						last := uint32(0)
						for range calls {
							request, ok := conn.Next()
							if !ok {
								return
							}
							last = max(last, request.Stream)
							if executes {
								conn.note(request)
							}
						}
						conn.GoAway(last, code)
					})
					transport := reach(t, inMemory(speaking(rpc.ProtocolGRPC)), peer.Addr)
					times := map[bool]int{true: 1, false: 0}[executes]
					for _, made := range invokeAtOnce(transport, what, calls) {
						if what == idempotent {
							made.expect(t, executions, 0, times+1)
							continue
						}
						made.expect(t, executions, connectrpc.CodeUnavailable, times)
						if attempts := made.attempts(t); len(attempts) != 1 || attempts[0].Verdict != "maybe processed" {
							t.Errorf("attempts %v; want one that was maybe processed", attempts)
						}
					}
					want := int64(calls)
					if what == idempotent {
						want *= 2
					}
					if got := peer.Requests.Load(); got != want {
						t.Errorf("%d requests for %d calls, want %d", got, calls, want)
					}
					expectAtRest(t, transport)
					invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1)
				})
			}
		}
	}
}

// invokeAtOnce makes so many calls at a time.
func invokeAtOnce(transport *rpc.Transport, what kind, calls int) []outcome {
	made := make([]outcome, calls)
	var making sync.WaitGroup
	for at := range made {
		this := what
		if what == mixed {
			this = both[at%2]
		}
		making.Go(func() { made[at] = invoke(context.Background(), transport, this, patience) })
	}
	making.Wait()
	return made
}

// TestRow21StreamReset: the instance ends a call that it has begun, or has executed, with RST_STREAM. Other calls on the connection go on.
func TestRow21StreamReset(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]http2.ErrCode{
		"INTERNAL_ERROR": http2.ErrCodeInternal, "CANCEL": http2.ErrCodeCancel, "NO_ERROR": http2.ErrCodeNo,
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			executions := newLedger()
			var resets atomic.Int64
			peer := startPeer(t, executions, func(_ int, conn *peerConn) {
				conn.Greet()
				for request, ok := conn.Next(); ok; request, ok = conn.Next() {
					if resets.Add(-1) >= 0 {
						conn.note(request)
						conn.Reset(request.Stream, code)
					} else {
						conn.execute(request)
					}
				}
			})
			transport := reach(t, inMemory(speaking(rpc.ProtocolGRPC)), peer.Addr)
			for _, what := range both {
				resets.Store(1)
				before := peer.Requests.Load()
				made := invoke(t.Context(), transport, what, patience)
				sent := peer.Requests.Load() - before
				if what == idempotent {
					made.expect(t, executions, 0, 2)
				} else {
					made.check(t, executions)
					if times := executions.executions(made.id); made.err == nil || times != 1 || sent != 1 {
						t.Errorf("the call was sent %d times and executed %d times and ends with %v; want an error and 1", sent, times, made.err)
					}
				}
			}
			invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1)
			if got := peer.Accepted.Load(); got != 1 {
				t.Errorf("%d connections, want the one to go on", got)
			}
			expectAtRest(t, transport)
		})
	}
}

// TestRow21ConnectionReset: the connection is reset (RST) once the request has arrived, before or after the server has executed it.
func TestRow21ConnectionReset(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for name, when := range map[string][]servicestest.FaultOption{"before execution": nil, "after execution": {servicestest.AfterExecution()}} {
			t.Run(string(spokenBy(spoken))+" "+name, func(t *testing.T) {
				row(t)
				executions := newLedger()
				gateway := servicestest.StartHTTPProxy(t, host{}.start(t, executions).Addr())
				transport := reach(t, inMemory(speaking(spoken)), gateway.Addr)
				for _, first := range []bool{true, false} { // on a new connection, and on one that has carried calls
					for _, what := range both {
						if !first {
							invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1)
						}
						before := gateway.Requests("*")
						gateway.Drop("*", append(slices.Clone(when), servicestest.Times(1))...)
						made := invoke(t.Context(), transport, what, patience)
						sent, executed := gateway.Requests("*")-before, len(when)
						if what == idempotent {
							made.expect(t, executions, 0, executed+1)
							if sent != 2 {
								t.Errorf("%s was sent %d times, want 2", made.id, sent)
							}
							continue
						}
						made.expect(t, executions, connectrpc.CodeUnavailable, executed)
						if sent != 1 {
							t.Errorf("%s, which is not idempotent, was sent %d times", made.id, sent)
						}
					}
				}
				expectAtRest(t, transport)
				if got := statusOf(transport, instanceID(0)); got.Protocol != spokenBy(spoken) {
					t.Errorf("the instance is spoken to by %s", got.Protocol)
				}
			})
		}
	}
}

// TestRow21ResetsUnderLoad: connections are reset again and again under calls to three instances. Of those that are idempotent none fails, and of the
// others none is executed twice.
func TestRow21ResetsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			var ways []*servicestest.Proxy
			var addrs []string
			for range 3 {
				way := servicestest.StartProxy(t, host{}.start(t, executions).Addr())
				ways, addrs = append(ways, way), append(addrs, way.Addr)
			}
			transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
				// All instances are reset alike: none is to be kept out for it.
				cfg.Defaults.Breaker.Enabled, cfg.Defaults.Outlier.Enabled = false, false
			}), addrs...)
			l := startCrowd(t, transport, executions, mixed, patience)
			reset := 0
			for at := range 15 {
				l.goOn(t, 300) // whose success pays for the retries of those that are lost
				reset += ways[at%3].DropConnections()
			}
			failures := l.finish(t)
			for _, made := range failures {
				if code := connectrpc.CodeOf(made.err); made.kind == idempotent || code != connectrpc.CodeUnavailable {
					t.Errorf("%s, idempotent: %t, failed: %v", made.id, made.kind == idempotent, made.err)
				}
			}
			if reset == 0 || len(failures) == 0 {
				t.Errorf("%d connections were reset and %d calls failed: the test tests nothing", reset, len(failures))
			}
			expectAtRest(t, transport)
		})
	}
}
