package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

func TestFault15ConnectionRefusedOnOneOfThree(t *testing.T) {
	first, second, third := &authHandler{}, &authHandler{}, &authHandler{}
	down := listen(t) // an address where nobody listens until the end
	addr := down.Addr().String()
	if err := down.Close(); err != nil {
		t.Fatal(err)
	}
	transport := newTransport(t, newScripted(
		instanceAt(t, "first", startHTTP(t, first.mount(), http1And2).Listener.Addr().String()),
		instanceAt(t, "second", startHTTP(t, second.mount(), http1And2).Listener.Addr().String()),
		instanceAt(t, "third", addr),
	), func(config *rpc.ClientConfig) {
		config.Breaker.MinCalls, config.Breaker.OpenFor, config.Retry.InitialBackoff = 3, 50*time.Millisecond, time.Millisecond
		// p2c would itself avoid what failed twice in a row, and five failures eject.
		config.Balancer.Policy, config.Outlier.Enabled = rpc.BalancerRandom, false
	})
	const calls = 100
	for range calls {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		if err := validate(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	if got := first.logins.Load() + second.logins.Load(); got != calls {
		t.Errorf("%d logins executed, want %d", got, calls)
	}
	third503 := func() rpc.InstanceStatus { return transport.Status().Instances[2] }
	if got := third503(); got.Breaker == "closed" || got.Failures < 3 || got.Failures > calls/2 {
		t.Errorf("status %+v; want its breaker to keep calls away after 3 failures, but for probes", got)
	}
	revived, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("the port was taken: %v", err)
	}
	serveOn(t, revived, third.mount(), http1And2)
	for third503().Breaker != "closed" || third.logins.Load() == 0 {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFault17RefusedStream(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		var executed atomic.Int64
		peer := startH2Peer(t, func(_ int, conn *h2Conn) {
			conn.Greet()
			if request, ok := conn.Next(); ok {
				conn.Reset(request.Stream, http2.ErrCodeRefusedStream)
			}
			conn.Serve(&executed)
		})
		transport, status := only(t, peer.Addr, nil)
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		expectCount(t, "executions", &executed, 1)
		expectCount(t, "requests", &peer.Requests, 2)
		expectAtRest(t, status(), rpc.ProtocolGRPC)
	})
	t.Run("always", func(t *testing.T) {
		peer := startH2Peer(t, func(_ int, conn *h2Conn) {
			conn.Greet()
			for request, ok := conn.Next(); ok; request, ok = conn.Next() {
				conn.Reset(request.Stream, http2.ErrCodeRefusedStream)
			}
		})
		transport, status := only(t, peer.Addr, nil)
		expectCode(t, login(t.Context(), transport), connect.CodeUnavailable)
		expectCount(t, "requests of a login", &peer.Requests, 2) // the peer may refuse for ever, so it is taken at its word but once
		expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
		expectCount(t, "requests of both", &peer.Requests, 2+int64(rpc.DefaultClientConfig().Retry.MaxAttempts)+1)
		expectAtRest(t, status(), rpc.ProtocolGRPC)
	})
}

// TestFault17Disowned: a GOAWAY that names no stream as processed disowns the first one too, of which net/http does not say so.
func TestFault17Disowned(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeInternal} {
		t.Run(code.String(), func(t *testing.T) {
			var executed atomic.Int64
			peer := startH2Peer(t, func(number int, conn *h2Conn) {
				conn.Greet()
				if number == 1 {
					if _, ok := conn.Next(); ok {
						conn.GoAway(0, code)
					}
					return
				}
				conn.Serve(&executed)
			})
			transport, status := only(t, peer.Addr, func(config *rpc.ClientConfig) { config.Retry.MaxAttempts = 1 })
			if err := login(t.Context(), transport); err != nil {
				t.Fatal(err)
			}
			expectCount(t, "executions", &executed, 1)
			expectCount(t, "requests", &peer.Requests, 2)
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}

func TestFault18GoAwayWhileIdle(t *testing.T) {
	var executed, connections atomic.Int64
	peer := startH2Peer(t, func(_ int, conn *h2Conn) {
		connections.Add(1)
		conn.Greet()
		request, ok := conn.Next()
		if !ok {
			return
		}
		executed.Add(1)
		conn.AnswerAuth(request)
		conn.GoAway(request.Stream, http2.ErrCodeNo) // perhaps before, perhaps while the next call begins
		conn.Drain()
	})
	transport, status := only(t, peer.Addr, nil)
	const calls = 10
	for range calls {
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
	}
	expectCount(t, "executions", &executed, calls)
	expectCount(t, "connections", &connections, calls)
	expectAtRest(t, status(), rpc.ProtocolGRPC)
}

// TestMaybeProcessed: once the message has left and no answer tells what became of it, only an idempotent call may be sent again.
func TestMaybeProcessed(t *testing.T) {
	for _, row := range []struct {
		name string
		fail func(*h2Conn, *h2Request) (goesOn bool)
	}{
		{"GOAWAY and close", func(conn *h2Conn, request *h2Request) bool {
			conn.GoAway(request.Stream, http2.ErrCodeNo)
			return false
		}},
		{"GOAWAY with an error and close", func(conn *h2Conn, request *h2Request) bool {
			conn.GoAway(request.Stream, http2.ErrCodeInternal)
			return false
		}},
		{"close", func(*h2Conn, *h2Request) bool { return false }},
		{"RST_STREAM INTERNAL_ERROR", func(conn *h2Conn, request *h2Request) bool {
			conn.Reset(request.Stream, http2.ErrCodeInternal)
			return true
		}},
		{"RST_STREAM CANCEL", func(conn *h2Conn, request *h2Request) bool {
			conn.Reset(request.Stream, http2.ErrCodeCancel)
			return true
		}},
		{"RST_STREAM NO_ERROR", func(conn *h2Conn, request *h2Request) bool {
			conn.Reset(request.Stream, http2.ErrCodeNo)
			return true
		}},
		{"reset of the connection", func(conn *h2Conn, _ *h2Request) bool {
			conn.Abort()
			return false
		}},
		{"bytes that are no HTTP/2", func(conn *h2Conn, _ *h2Request) bool {
			_, _ = conn.Write([]byte(strings.Repeat("garbage ", 100)))
			return false
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			start := func() (*h2Peer, *atomic.Int64) {
				executed := new(atomic.Int64)
				return startH2Peer(t, func(number int, conn *h2Conn) {
					conn.Greet()
					if number == 1 {
						request, ok := conn.Next()
						if !ok {
							return
						}
						executed.Add(1)
						if !row.fail(conn, request) {
							return
						}
					}
					conn.Serve(executed)
				}), executed
			}

			peer, executed := start()
			transport, status := only(t, peer.Addr, nil)
			failure := callError(t, login(t.Context(), transport))
			if len(failure.Attempts) != 1 || failure.Attempts[0].Verdict != "maybe processed" {
				t.Errorf("attempts %v; want one that was maybe processed", failure.Attempts)
			}
			expectCount(t, "executions of a login", executed, 1)
			expectCount(t, "requests", &peer.Requests, 1)
			expectAtRest(t, status(), rpc.ProtocolGRPC)

			peer, executed = start()
			transport, status = only(t, peer.Addr, nil)
			if err := validate(t.Context(), transport); err != nil {
				t.Errorf("idempotent: %v", err)
			}
			expectCount(t, "executions of a validation", executed, 2)
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}

// callError returns the error of a call that failed.
func callError(t *testing.T, err error) *rpc.CallError {
	t.Helper()
	failure, ok := errors.AsType[*rpc.CallError](err)
	if !ok {
		t.Fatalf("got %v, want a CallError", err)
	}
	return failure
}

// TestMaybeProcessedOverHTTP1: the connection's own bytes tell whether the request left.
func TestMaybeProcessedOverHTTP1(t *testing.T) {
	handler := &authHandler{}
	var left atomic.Int64
	service := handler.mount()
	server := startHTTP(t, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if left.Add(-1) >= 0 {
			handler.logins.Add(1)
			panic(http.ErrAbortHandler)
		}
		service.ServeHTTP(response, request)
	}), http1Only)
	transport, status := only(t, server.Listener.Addr().String(), protocol(rpc.ProtocolHTTP))
	left.Store(1)
	failure := callError(t, login(t.Context(), transport))
	expectCode(t, failure, connect.CodeUnavailable)
	if len(failure.Attempts) != 1 || failure.Attempts[0].Verdict != "maybe processed" {
		t.Errorf("attempts %v; want one that was maybe processed", failure.Attempts)
	}
	expectCount(t, "logins", &handler.logins, 1)
	left.Store(1)
	if err := validate(t.Context(), transport); err != nil {
		t.Error(err)
	}
	expectCount(t, "validations", &handler.validations, 1)
	expectAtRest(t, status(), rpc.ProtocolHTTP)
}

// TestBrokenAnswer: an answer that breaks off was given by somebody who executed the call, and the connection failed all the same.
func TestBrokenAnswer(t *testing.T) {
	for name, call := range map[string]func(context.Context, connect.Transport) error{"Login": login, "ValidateToken": validate} {
		t.Run(name, func(t *testing.T) {
			var executed atomic.Int64
			broken := startH2Peer(t, func(number int, conn *h2Conn) {
				conn.Greet()
				if number == 1 {
					if request, ok := conn.Next(); ok {
						executed.Add(1)
						conn.Begin(request.Stream)
					}
					return
				}
				conn.Serve(&executed)
			})
			transport, status := only(t, broken.Addr, nil)
			err := call(t.Context(), transport)
			if name == "Login" {
				expectCode(t, err, connect.CodeUnavailable)
				if attempts := callError(t, err).Attempts; len(attempts) != 1 || attempts[0].Verdict != "processed" {
					t.Errorf("attempts %v; want one that was processed", attempts)
				}
				expectCount(t, "executions", &executed, 1)
			} else if err != nil {
				t.Error(err)
			}
			if got := status(); got.Failures != 1 {
				t.Errorf("%d failures, want 1", got.Failures)
			}
		})
	}
}

func TestFault25FreshConnectionClosed(t *testing.T) {
	for _, row := range []struct {
		name  string
		first func(*h2Conn)
	}{
		{"before the greeting", func(*h2Conn) {}},
		{"by a reset", func(conn *h2Conn) { conn.Abort() }},
		{"after GOAWAY", func(conn *h2Conn) {
			conn.Greet()
			conn.GoAway(0, http2.ErrCodeNo)
			conn.Drain()
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var executed atomic.Int64
			peer := startH2Peer(t, func(number int, conn *h2Conn) {
				if number == 1 {
					row.first(conn)
					return
				}
				conn.Greet()
				conn.Serve(&executed)
			})
			transport, status := only(t, peer.Addr, nil)
			for range 3 {
				if err := login(t.Context(), transport); err != nil {
					t.Fatal(err)
				}
			}
			expectCount(t, "executions", &executed, 3)
			expectAtRest(t, status(), rpc.ProtocolGRPC)
		})
	}
}

// TestRetryOfUnavailable: what an idempotent call is retried for, and when, of what the service says in the least and the most words.
func TestRetryOfUnavailable(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		for _, row := range []struct {
			values   []string
			code     connect.Code
			attempts int64
		}{
			{nil, connect.CodeUnavailable, 2},
			{nil, connect.CodeResourceExhausted, 1},
			{[]string{"0"}, connect.CodeUnavailable, 2},
			{[]string{"99999999999"}, connect.CodeUnavailable, 1},
		} {
			t.Run(fmt.Sprintf("%s %v %s", spoken, row.values, row.code), func(t *testing.T) {
				handler := &authHandler{}
				handler.validate = func(ctx context.Context, _ *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
					if handler.validations.Load() > 1 {
						return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}, nil
					}
					if info, _ := connect.CallInfoForServerContext(ctx); len(row.values) > 0 {
						info.ResponseTrailer().SetValues("Grpc-Retry-Pushback-Ms", row.values)
					}
					return nil, connect.NewError(row.code, "busy")
				}
				server := startHTTP(t, handler.mount(), http1And2)
				transport, status := only(t, server.Listener.Addr().String(), protocol(spoken))
				err := validate(t.Context(), transport)
				if (err == nil) != (row.attempts == 2) {
					t.Errorf("got %v", err)
				}
				expectCount(t, "executions", &handler.validations, row.attempts)
				expectAtRest(t, status(), spoken)
			})
		}
	}
}

// TestBudgetBoundsRetries: when everything is unavailable, retries soon cease to add to the load.
func TestBudgetBoundsRetries(t *testing.T) {
	handler := &authHandler{validate: func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
		return nil, connect.NewError(connect.CodeUnavailable, "down")
	}}
	server := startHTTP(t, handler.mount(), http1And2)
	transport, _ := only(t, server.Listener.Addr().String(), func(config *rpc.ClientConfig) {
		config.Retry.BudgetTokens, config.Retry.InitialBackoff = 20, time.Microsecond
	})
	const calls = 500
	for range calls {
		expectCode(t, validate(t.Context(), transport), connect.CodeUnavailable)
	}
	// The half of the bucket, and not one more: each retry was paid for with a token.
	if got := handler.validations.Load() - calls; got < 5 || got > 10 {
		t.Errorf("%d retries of %d calls, want at most 10", got, calls)
	}
}
