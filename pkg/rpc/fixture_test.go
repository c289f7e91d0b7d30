package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// authHandler is a service whose executions are counted: the proof of how often a call ran.
type authHandler struct {
	logins, refreshes, validations atomic.Int64

	login    func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error)
	validate func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error)
}

func (h *authHandler) Login(ctx context.Context, request *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	h.logins.Add(1)
	if h.login != nil {
		return h.login(ctx, request)
	}
	return &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "access of " + request.GetEmail()}}, nil
}

func (h *authHandler) RefreshToken(context.Context, *authv1.RefreshTokenRequest) (*authv1.RefreshTokenResponse, error) {
	h.refreshes.Add(1)
	return &authv1.RefreshTokenResponse{}, nil
}

func (h *authHandler) ValidateToken(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	h.validations.Add(1)
	if h.validate != nil {
		return h.validate(ctx, request)
	}
	return &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "user of " + request.GetToken(), Roles: []string{"admin"}}}, nil
}

// mount returns an HTTP handler for the service, without anything else of rpc.Server's.
func (h *authHandler) mount() http.Handler {
	handlers := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, h)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, handlers, connecthttp.WithCompressMinBytes(1<<10))
	return mux
}

// protocols says which HTTP versions a test server speaks in the clear.
type protocols int

const (
	http1Only protocols = iota
	http2Only
	http1And2
)

// startHTTP serves handler on a real socket until the test ends.
func startHTTP(t testing.TB, handler http.Handler, speaks protocols) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(speaks != http2Only)
	server.Config.Protocols.SetUnencryptedHTTP2(speaks != http1Only)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// instanceAt describes the instance that listens at addr.
func instanceAt(t testing.TB, id, addr string) registry.Instance {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return registry.Instance{ID: id, Service: "auth", Host: host, Port: number, Weight: 1}
}

// scripted is a registry whose answers the test decides.
type scripted struct {
	mu      sync.Mutex
	set     []registry.Instance
	err     error
	known   bool
	changed chan struct{}
}

func newScripted(instances ...registry.Instance) *scripted {
	return &scripted{set: instances, known: true, changed: make(chan struct{})}
}

// silent returns a registry that does not answer until it is told to.
func silent() *scripted { return &scripted{changed: make(chan struct{})} }

func (s *scripted) Set(instances ...registry.Instance) { s.answer(instances, nil) }
func (s *scripted) Fail(err error)                     { s.answer(nil, err) }

func (s *scripted) answer(instances []registry.Instance, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set, s.err, s.known = instances, err, true
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *scripted) Watch(target registry.Target) (registry.Watcher, error) {
	if target.Scheme != "" && target.Scheme != "scripted" {
		return nil, fmt.Errorf("%w %q: scheme %q", registry.ErrInvalidTarget, target, target.Scheme)
	}
	return &scriptedWatcher{registry: s, closed: make(chan struct{})}, nil
}

func (s *scripted) Register(context.Context, registry.Instance) (registry.Registration, error) {
	return nil, errors.New("scripted registry registers nothing")
}

func (s *scripted) Close() error { return nil }

type scriptedWatcher struct {
	registry *scripted
	seen     chan struct{}
	closed   chan struct{}
	once     sync.Once
}

func (w *scriptedWatcher) Next(ctx context.Context) ([]registry.Instance, error) {
	for {
		w.registry.mu.Lock()
		set, err, known, changed := slices.Clone(w.registry.set), w.registry.err, w.registry.known, w.registry.changed
		w.registry.mu.Unlock()
		if known && w.seen != changed {
			w.seen = changed
			return set, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.closed:
			return nil, registry.ErrClosed
		}
	}
}

func (w *scriptedWatcher) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// newTransport returns a transport that is closed when the test ends.
func newTransport(t testing.TB, reg registry.ServiceRegistry, adjust func(*rpc.ClientConfig)) *rpc.Transport {
	t.Helper()
	config := rpc.DefaultClientConfig()
	if adjust != nil {
		adjust(&config)
	}
	transport, err := rpc.NewTransport("scripted:///auth", reg, rpc.WithClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return transport
}

func newAuthClient(transport connect.Transport) authv1connect.AuthServiceClient {
	return authv1connect.NewAuthServiceClient(connect.NewClient(transport))
}

func protocol(p rpc.Protocol) func(*rpc.ClientConfig) {
	return func(config *rpc.ClientConfig) { config.Protocol = p }
}
