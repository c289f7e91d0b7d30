package rpc_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/pkg/rpc"
)

// TestKeyPoolMaxConnections: further connections are opened while those there are busy, and no more than allowed; further calls wait.
func TestKeyPoolMaxConnections(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		for _, most := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s %d", spoken, most), func(t *testing.T) {
				entered, release := make(chan struct{}, 8), make(chan struct{})
				handler := &authHandler{login: func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error) {
					entered <- struct{}{}
					<-release
					return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}, nil
				}}
				listener := listen(t)
				server := &http.Server{
					Handler: handler.mount(), Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1},
					ReadHeaderTimeout: time.Minute,
				}
				server.Protocols.SetHTTP1(true)
				server.Protocols.SetUnencryptedHTTP2(true)
				var serving, calls sync.WaitGroup
				serving.Go(func() { _ = server.Serve(listener) })
				t.Cleanup(func() {
					_ = server.Close()
					serving.Wait()
				})
				transport, status := only(t, listener.Addr().String(), func(config *rpc.ClientConfig) {
					config.Protocol, config.Pool.MaxConnections, config.Pool.MaxHTTPConnections = spoken, most, 100
					if spoken == rpc.ProtocolHTTP {
						config.Pool.MaxConnections, config.Pool.MaxHTTPConnections = 100, most
					}
				})
				const callers = 8
				for range callers {
					calls.Go(func() {
						if err := login(t.Context(), transport); err != nil {
							t.Error(err)
						}
					})
				}
				for range most {
					<-entered
				}
				await(t, "all calls to be under way or waiting", func() bool { return status().InFlight == callers })
				if got := handler.logins.Load(); got != int64(most) {
					t.Errorf("%d calls arrived at once, want %d", got, most)
				}
				if got := status().Connections; got != most {
					t.Errorf("%d connections, want %d", got, most)
				}
				close(release)
				calls.Wait()
				expectCount(t, "logins", &handler.logins, callers)
				if all, _, _ := listener.begins(); all != most {
					t.Errorf("%d connections in all, want %d", all, most)
				}
			})
		}
	}
}

func TestKeyPoolDialTimeout(t *testing.T) {
	listener := listen(t)
	serveOn(t, deaf{Listener: listener, toAll: true}, http.NotFoundHandler(), http1Only)
	for _, secure := range []bool{false, true} {
		transport, status := only(t, listener.Addr().String(), func(config *rpc.ClientConfig) {
			config.Pool.DialTimeout, config.Retry.MaxAttempts, config.TLS.Enabled = 50*time.Millisecond, 1, secure
		})
		began := time.Now()
		err := login(t.Context(), transport)
		expectCode(t, err, connect.CodeUnavailable)
		if took := time.Since(began); took > 500*time.Millisecond || !strings.Contains(err.Error(), "no connection within 50ms") {
			t.Errorf("TLS %t: got %v after %v", secure, err, took)
		}
		if got := status(); got.Protocol != rpc.ProtocolGRPC {
			t.Errorf("TLS %t: protocol %s; a slow dial says nothing of it", secure, got.Protocol)
		}
	}
}

func TestKeyPoolIdleTimeout(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		handler := &authHandler{}
		addr := startHTTP(t, handler.mount(), http1And2).Listener.Addr().String()
		short, shortStatus := only(t, addr, func(config *rpc.ClientConfig) { config.Protocol, config.Pool.IdleTimeout = spoken, 30*time.Millisecond })
		never, neverStatus := only(t, addr, func(config *rpc.ClientConfig) { config.Protocol, config.Pool.IdleTimeout = spoken, 0 })
		for range 2 {
			for _, transport := range []*rpc.Transport{never, short} {
				if err := login(t.Context(), transport); err != nil {
					t.Fatal(err)
				}
			}
			await(t, "the idle connection to be closed", func() bool { return shortStatus().Connections == 0 })
		}
		if got := neverStatus().Connections; got != 1 {
			t.Errorf("%s: %d connections without an idle timeout, want 1", spoken, got)
		}
	}
}

func TestKeyPoolMaxAge(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		handler, listener := &authHandler{}, listen(t)
		serveOn(t, listener, handler.mount(), http1And2)
		for _, row := range []struct {
			age   time.Duration
			dials int
		}{{0, 1}, {time.Hour, 1}, {30 * time.Millisecond, 3}} {
			before, _, _ := listener.begins()
			transport, _ := only(t, listener.Addr().String(), func(config *rpc.ClientConfig) { config.Protocol, config.Pool.MaxAge = spoken, row.age })
			dials := func() int {
				all, _, _ := listener.begins()
				return all - before
			}
			await(t, "connections to be replaced", func() bool {
				if err := login(t.Context(), transport); err != nil {
					t.Fatal(err)
				}
				return dials() >= row.dials
			})
			if row.dials == 1 {
				elapse(t, 50*time.Millisecond)
				if got := dials(); got != 1 {
					t.Errorf("%s, max_age %v: %d connections", spoken, row.age, got)
				}
			}
		}
	}
}

// TestKeyPoolMinConnections: connections are there before the first call, and come back; for the protocol that the instance is spoken to by.
func TestKeyPoolMinConnections(t *testing.T) {
	for _, speaks := range []protocols{http1And2, http1Only} {
		listener := listen(t)
		serveOn(t, listener, (&authHandler{}).mount(), speaks)
		transport := newTransport(t, newScripted(instanceAt(t, "one", listener.Addr().String())), func(config *rpc.ClientConfig) {
			config.Pool.MinConnections = 2
		})
		connections := func() int {
			instances := transport.Status().Instances // which begins to watch
			if len(instances) == 0 {
				return 0
			}
			return instances[0].Connections
		}
		if speaks == http1Only {
			if err := login(t.Context(), transport); err != nil { // learns the protocol
				t.Fatal(err)
			}
		}
		await(t, "two connections", func() bool { return connections() == 2 })
		if err := login(t.Context(), transport); err != nil {
			t.Fatal(err)
		}
		if got := connections(); got != 2 {
			t.Errorf("%d connections after a call, want the two", got)
		}
	}
}

// TestKeyPoolPing: pings ask a silent peer whether it is there, if they are wanted, and close the connection to one that is not.
func TestKeyPoolPing(t *testing.T) {
	const silence = 150 * time.Millisecond
	for _, row := range []struct {
		name              string
		interval, timeout time.Duration
		answers           bool // pings
		wantPings         bool
		wantCode          connect.Code // 0 for success
	}{
		{"ping_interval 0", 0, time.Second, false, false, 0},
		{"ping_interval 20ms, answered", 20 * time.Millisecond, time.Second, true, true, 0},
		{"ping_interval 20ms, ping_timeout 1h", 20 * time.Millisecond, time.Hour, false, true, 0},
		{"ping_interval 20ms, ping_timeout 20ms", 20 * time.Millisecond, 20 * time.Millisecond, false, true, connect.CodeUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			var pings atomic.Int64
			peer := startH2Peer(t, func(_ int, conn *h2Conn) {
				conn.Greet()
				request, ok := conn.Next()
				if !ok {
					return
				}
				if !row.wantPings {
					_ = conn.SetReadDeadline(time.Now().Add(silence))
				}
				for {
					frame, err := conn.Framer.ReadFrame()
					if err != nil {
						break
					}
					if ping, ok := frame.(*http2.PingFrame); ok {
						if pings.Add(1) == 1 && row.wantCode == 0 {
							_ = conn.SetReadDeadline(time.Now().Add(silence))
						}
						if row.answers {
							_ = conn.Framer.WritePing(true, ping.Data)
						}
					}
				}
				_ = conn.SetReadDeadline(time.Time{})
				conn.AnswerAuth(request)
				conn.Drain()
			})
			transport, _ := only(t, peer.Addr, func(config *rpc.ClientConfig) {
				config.Pool.PingInterval, config.Pool.PingTimeout = row.interval, row.timeout
			})
			err := login(t.Context(), transport)
			if row.wantCode != 0 {
				expectCode(t, err, row.wantCode)
			} else if err != nil {
				t.Error(err)
			}
			if (pings.Load() > 0) != row.wantPings {
				t.Errorf("%d pings", pings.Load())
			}
		})
	}
}
