package rpc_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
)

// ledger is an auth service that keeps how often each login was executed, by its email.
type ledger struct {
	authHandler

	mu    sync.Mutex
	times map[string]int
}

func newLedger() *ledger {
	l := &ledger{times: make(map[string]int)}
	l.login = func(_ context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
		l.mu.Lock()
		l.times[request.GetEmail()]++
		l.mu.Unlock()
		return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}, nil
	}
	return l
}

// load makes calls from many callers until it is stopped.
type load struct {
	succeeded atomic.Int64
	stop      context.CancelFunc
	callers   sync.WaitGroup
}

// startLoad makes half of its calls Login, each with an ID of its own, and half ValidateToken, or all the latter.
func startLoad(t *testing.T, transport *rpc.Transport, logins bool) *load {
	t.Helper()
	l := &load{}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	client := newAuthClient(transport)
	for caller := range 16 {
		l.callers.Go(func() {
			for number := 0; ctx.Err() == nil; number++ {
				id := fmt.Sprintf("%d/%d", caller, number)
				var err error
				if number%2 == 0 && logins {
					_, err = client.Login(t.Context(), &authv1.LoginRequest{Email: id})
				} else {
					_, err = client.ValidateToken(t.Context(), &authv1.ValidateTokenRequest{Token: id})
				}
				if err != nil {
					t.Errorf("call %s: %v", id, err)
					return
				}
				l.succeeded.Add(1)
			}
		})
	}
	return l
}

// goOn waits until many more calls have succeeded.
func (l *load) goOn(t *testing.T) {
	t.Helper()
	before := l.succeeded.Load()
	await(t, "calls to go on", func() bool { return l.succeeded.Load() > before+200 || t.Failed() })
}

// TestFault42RollingRestart: all instances are stopped gracefully and started again, one after the other, under load.
func TestFault42RollingRestart(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			reg := memory.New()
			t.Cleanup(func() { _ = reg.Close() })
			config := rpc.DefaultClientConfig()
			config.Protocol = spoken
			transport, err := rpc.NewTransport("memory:///auth", reg, rpc.WithClientConfig(config))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = transport.Close() })
			handler := newLedger()
			start := func(addr string) *rpc.Server {
				t.Helper()
				handlers := connect.NewServer()
				authv1connect.RegisterAuthServiceHandler(handlers, handler)
				serverConfig := testConfig()
				// HTTP/1.1 has no GOAWAY: that no call is on its way when connections close takes time for the news to spread.
				serverConfig.Listen, serverConfig.DeregisterDelay = addr, 300*time.Millisecond
				return startServer(t, handlers, serverConfig, rpc.WithRegistration(reg, "auth"))
			}
			servers := []*rpc.Server{start("127.0.0.1:0"), start("127.0.0.1:0"), start("127.0.0.1:0")}
			l := startLoad(t, transport, true)
			for range 2 {
				for at, server := range servers {
					l.goOn(t)
					addr := server.Addr()
					if err := server.Stop(t.Context()); err != nil {
						t.Errorf("stop: %v", err)
					}
					l.goOn(t)
					servers[at] = start(addr)
				}
			}
			l.goOn(t)
			l.stop()
			l.callers.Wait()
			for id, times := range handler.times {
				if times != 1 {
					t.Errorf("login %s was executed %d times", id, times)
				}
			}
			if got := handler.logins.Load() + handler.validations.Load(); got != l.succeeded.Load() {
				t.Errorf("%d executions of %d calls", got, l.succeeded.Load())
			}
			expectReleased(t, transport)
		})
	}
}

// TestHardKillUnderLoad: an instance that dies without a word costs idempotent calls nothing but a retry.
func TestHardKillUnderLoad(t *testing.T) {
	for _, spoken := range []rpc.Protocol{rpc.ProtocolGRPC, rpc.ProtocolHTTP} {
		t.Run(string(spoken), func(t *testing.T) {
			handler := &authHandler{}
			reg := memory.New()
			t.Cleanup(func() { _ = reg.Close() })
			var victims []*http.Server
			for at := range 3 {
				listener := listen(t)
				victims = append(victims, serveOn(t, listener, handler.mount(), http1And2))
				instance := instanceAt(t, fmt.Sprint(at), listener.Addr().String())
				if _, err := reg.Register(t.Context(), instance); err != nil {
					t.Fatal(err)
				}
			}
			config := rpc.DefaultClientConfig()
			config.Protocol = spoken
			transport, err := rpc.NewTransport("memory:///auth", reg, rpc.WithClientConfig(config))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = transport.Close() })
			l := startLoad(t, transport, false)
			l.goOn(t)
			if err := victims[0].Close(); err != nil { // listener and connections, in the middle of whatever they carry
				t.Error(err)
			}
			l.goOn(t)
			l.goOn(t)
			l.stop()
			l.callers.Wait()
			if got := transport.Status().Instances[0]; got.Failures == 0 {
				t.Errorf("status %+v; want it to show that the instance failed", got)
			}
			expectReleased(t, transport)
		})
	}
}
