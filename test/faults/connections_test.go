//go:build integration

package faults_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// toPeer returns a transport whose only instance is a peer.
func toPeer(t *testing.T, executions *ledger, serve func(number int, conn *peerConn)) (*rpc.Transport, *servicestest.HTTP2Server) {
	t.Helper()
	agent := consultest.Start(t)
	cfg := settings(agent.Address, func(cfg *config.Config) { cfg.Defaults.Breaker.Enabled = false })
	reg := newRegistry(t, cfg)
	p := startPeer(t, executions, serve)
	registerAt(t, reg, instanceID(0), p.Addr)
	return newTransport(t, cfg, reg), p
}

// both are the kinds of calls that there are.
var both = []kind{idempotent, unrepeatable}

// TestRow17RefusedStream: the instance refuses to process a call, which it may do before it has begun.
func TestRow17RefusedStream(t *testing.T) {
	t.Parallel()
	t.Run("once", func(t *testing.T) {
		row(t)
		executions, requests := newLedger(), new(atomic.Int64)
		transport, _ := toPeer(t, executions, func(_ int, conn *peerConn) {
			for conn.Greet(); ; {
				request, ok := conn.Next()
				if !ok {
					return
				}
				if requests.Add(1)%2 == 1 {
					conn.Reset(request.Stream, http2.ErrCodeRefusedStream)
				} else {
					conn.execute(request)
				}
			}
		})
		for _, what := range both {
			before := requests.Load()
			made := succeed(t, transport, executions, what)
			if times, sent := executions.executions(made.id), requests.Load()-before; times != 1 || sent != 2 {
				t.Errorf("the call was sent %d times and executed %d times, want 2 and 1", sent, times)
			}
		}
	})
	t.Run("always", func(t *testing.T) {
		row(t)
		executions, requests := newLedger(), new(atomic.Int64)
		transport, _ := toPeer(t, executions, func(_ int, conn *peerConn) {
			for conn.Greet(); ; {
				request, ok := conn.Next()
				if !ok {
					return
				}
				requests.Add(1)
				conn.Reset(request.Stream, http2.ErrCodeRefusedStream)
			}
		})
		for _, what := range both {
			before, began := requests.Load(), time.Now()
			made := invoke(t.Context(), transport, what, 10*time.Second)
			expectWithin(t, 3*time.Second, began, "a call that is refused")
			if code := connectrpc.CodeOf(made.err); made.err == nil || code != connectrpc.CodeUnavailable {
				t.Errorf("the call ends with %v, want unavailable", made.err)
			}
			if sent := requests.Load() - before; sent < 2 || sent > 5 {
				t.Errorf("the call was sent %d times, want within 2 to 5", sent)
			}
			made.check(t, executions)
		}
	})
}

// TestRow18GoAwayIdle: the instance says goodbye to a connection that carries nothing.
func TestRow18GoAwayIdle(t *testing.T) {
	row(t)
	executions := newLedger()
	transport, p := toPeer(t, executions, func(_ int, conn *peerConn) {
		conn.Greet()
		if request, ok := conn.Next(); ok {
			conn.execute(request)
			conn.GoAway(request.Stream, http2.ErrCodeNo)
			conn.Drain()
		}
	})
	for number := range 6 {
		succeed(t, transport, executions, both[number%2])
		if got := p.Accepted.Load(); got != int64(number)+1 {
			t.Errorf("%d connections after %d calls, want a new one for each", got, number+1)
		}
		await(t, "the connection to be swept", func() bool { return p.Open.Load() == 0 && statusOf(transport, instanceID(0)).Connections == 0 })
	}
}

// TestRow24StreamLimit: an instance lets a connection carry one call at a time, and a hundred callers come, one of whose calls takes long.
func TestRow24StreamLimit(t *testing.T) {
	row(t)
	agent := consultest.Start(t)
	cfg := settings(agent.Address)
	cfg.Defaults.Timeout, cfg.Defaults.AttemptTimeout = time.Minute, 0 // who waits for a stream on a busy machine is not to ask twice
	reg, executions := newRegistry(t, cfg), newLedger()
	var first atomic.Bool
	entered, leave := make(chan struct{}), make(chan struct{})
	server := host{
		config: func(config *rpc.ServerConfig) { config.MaxConcurrentStreams = 1 },
		before: func(context.Context, string) error {
			if first.CompareAndSwap(false, true) {
				close(entered)
				<-leave
			}
			return nil
		},
	}.start(t, executions)
	registerAt(t, reg, instanceID(0), server.Addr())
	transport := newTransport(t, cfg, reg)
	var slow, others sync.WaitGroup
	slow.Go(func() {
		made := invoke(t.Context(), transport, unrepeatable, time.Minute) // while all others are served
		if made.err != nil {
			t.Errorf("%s: %v", made.id, made.err)
		}
		made.check(t, executions)
	})
	<-entered
	for caller := range 99 {
		others.Go(func() {
			for range 3 {
				succeed(t, transport, executions, both[caller%2])
			}
		})
	}
	others.Wait() // with the slow one still there
	close(leave)
	slow.Wait()
	if got, most := server.conns.Load(), int64(cfg.Defaults.Pool.MaxConnections); got < 2 || got > most {
		t.Errorf("%d connections were made, want within 2 to %d", got, most)
	}
	if got := server.executed.Load(); got != 298 {
		t.Errorf("%d calls were executed, want 298", got)
	}
}

// TestRow25FreshConnectionClosed: the instance closes a connection that it has just accepted, as a proxy does that has too many, or loses its own.
func TestRow25FreshConnectionClosed(t *testing.T) {
	t.Parallel()
	for name, closes := range map[string]func(conn *peerConn){
		"at once":            func(*peerConn) {},
		"after the preface":  func(conn *peerConn) { _, _ = conn.Read(make([]byte, 1)) },
		"after its SETTINGS": func(conn *peerConn) { conn.Greet() },
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			executions := newLedger()
			transport, p := toPeer(t, executions, func(number int, conn *peerConn) {
				if number%2 == 1 {
					closes(conn)
					return
				}
				conn.Greet()
				if request, ok := conn.Next(); ok {
					conn.execute(request)
					conn.GoAway(request.Stream, http2.ErrCodeNo) // so that the next call needs another connection
					conn.Drain()
				}
			})
			for range 10 {
				succeed(t, transport, executions, idempotent)
				made := invoke(t.Context(), transport, unrepeatable, 10*time.Second)
				made.check(t, executions)
				// A request may be on its way when the connection closes after its greeting: then nobody knows whether it was executed.
				if made.err != nil && (name != "after its SETTINGS" || connectrpc.CodeOf(made.err) != connectrpc.CodeUnavailable) {
					t.Errorf("%s: %v", made.id, made.err)
				}
			}
			t.Logf("%d connections for 20 calls", p.Accepted.Load())
		})
	}
}
