//go:build integration

package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// ledger keeps how often each call was executed, by the ID that it carries, over all instances.
type ledger struct {
	mu    sync.Mutex
	times map[string]int
}

func newLedger() *ledger { return &ledger{times: make(map[string]int)} }

func (l *ledger) note(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[id]++
}

func (l *ledger) executions(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[id]
}

// instance is a server that hosts the service, in this process.
type instance struct {
	*rpc.Server

	// conns counts the connections that it accepted, over all its lives.
	conns *atomic.Int64
	// executed counts the calls that it executed.
	executed *atomic.Int64
}

// host configures an instance.
type host struct {
	// addr is where to listen; a free port of this machine by default. What is to be away for a while has a port of aside, where nobody else listens.
	addr string
	// in is where to register, by the server itself; nowhere by default.
	in registry.ServiceRegistry
	// before is called with the ID of each call before it is answered.
	before func(ctx context.Context, id string) error
	// padding is a text that makes each answer larger.
	padding string
	// config adjusts the server's.
	config func(*rpc.ServerConfig)
	// instance is continued by this one, with its counts.
	instance *instance
}

// aside is a free port of an address at which nothing listens but what is to be away for a while: its port is taken by no other server meanwhile.
const aside = "127.0.0.2:0"

// start starts an instance, which is stopped with the test.
func (h host) start(t testing.TB, executions *ledger) *instance {
	t.Helper()
	started := &instance{conns: new(atomic.Int64), executed: new(atomic.Int64)}
	if h.instance != nil {
		started.conns, started.executed, h.addr = h.instance.conns, h.instance.executed, h.instance.Addr()
	}
	if h.addr == "" {
		h.addr = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	config := rpc.DefaultServerConfig()
	if h.config != nil {
		h.config(&config)
	}
	handlers := connectrpc.NewServer()
	hosted := newHandler(executions, started.executed, h.before)
	hosted.padding = h.padding
	authv1connect.RegisterAuthServiceHandler(handlers, hosted)
	options := []rpc.ServerOption{
		rpc.WithListener(&countingListener{listener, started.conns}), rpc.WithServerConfig(config), rpc.WithServerLogger(slog.New(slog.DiscardHandler)),
	}
	if h.in != nil {
		options = append(options, rpc.WithRegistration(h.in, service))
	}
	if started.Server, err = rpc.NewServer(handlers, options...); err != nil {
		t.Fatal(err)
	}
	if err := started.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { started.halt(t) })
	return started
}

// halt ends an instance that was to end, if it has not: nothing is under way that would have to be waited for.
func (i *instance) halt(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = i.Stop(ctx) // what a row has to say of stopping, it says when it stops
}

// port returns the port that the instance listens on.
func (i *instance) port(t testing.TB) int {
	t.Helper()
	_, port := split(t, i.Addr())
	return port
}

type countingListener struct {
	net.Listener

	accepted *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// handler is the service of one instance.
type handler struct {
	authv1connect.UnimplementedAuthServiceHandler

	ledger   *ledger
	executed *atomic.Int64
	before   func(ctx context.Context, id string) error
	padding  string
}

func newHandler(executions *ledger, executed *atomic.Int64, before func(ctx context.Context, id string) error) *handler {
	return &handler{ledger: executions, executed: executed, before: before}
}

func (h *handler) execute(ctx context.Context, id string) error {
	h.executed.Add(1)
	h.ledger.note(id)
	if h.before != nil {
		return h.before(ctx, id)
	}
	return nil
}

// Login is not idempotent. The ID of the call is its email.
func (h *handler) Login(ctx context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	if err := h.execute(ctx, request.GetEmail()); err != nil {
		return nil, err
	}
	response := loginResponse(request.GetEmail())
	response.Tokens.RefreshToken = h.padding
	return response, nil
}

// ValidateToken is idempotent. The ID of the call is its token.
func (h *handler) ValidateToken(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	if err := h.execute(ctx, request.GetToken()); err != nil {
		return nil, err
	}
	response := validateResponse(request.GetToken())
	response.Claims.Email = h.padding
	return response, nil
}

func loginResponse(id string) *authv1.LoginResponse {
	return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: id}}
}

func validateResponse(id string) *authv1.ValidateTokenResponse {
	return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: id}}
}

// fleet starts instances and registers them without a check, as "auth-1", "auth-2" and so on.
func fleet(t testing.TB, reg registry.ServiceRegistry, executions *ledger, hosts ...host) []*instance {
	t.Helper()
	started := make([]*instance, len(hosts))
	for at, h := range hosts {
		started[at] = h.start(t, executions)
		registerAt(t, reg, instanceID(at), started[at].Addr())
	}
	return started
}

func instanceID(at int) string { return fmt.Sprintf("%s-%d", service, at+1) }

func split(t testing.TB, addr string) (host string, port int) {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
