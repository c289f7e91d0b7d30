package interop_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	adapters "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/registry/static"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// patience bounds what a test waits for that happens at once unless something is broken.
const patience = 20 * time.Second

func newPlatform() *servicestest.Platform {
	return servicestest.NewPlatform(servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
}

// handlersOf registers the handlers of all four services.
func handlersOf(platform *servicestest.Platform) *connect.Server {
	handlers, logger := connect.NewServer(), slog.New(slog.DiscardHandler)
	adapters.RegisterAuth(handlers, platform.Auth(), logger)
	adapters.RegisterIdentity(handlers, platform.Identity(), logger)
	adapters.RegisterAuthz(handlers, platform.Authz(), logger)
	adapters.RegisterAudit(handlers, platform.Audit(), logger)
	return handlers
}

// clientsOf makes clients of all four services over one connect client.
func clientsOf(client *connect.Client, controls servicestest.Controls) servicestest.Services {
	return servicestest.Services{
		Auth: adapters.NewAuthClient(client), Identity: adapters.NewIdentityClient(client),
		Authz: adapters.NewAuthzClient(client), Audit: adapters.NewAuditClient(client), Controls: controls,
	}
}

// authStub is an auth service whose ValidateToken a test writes.
type authStub struct {
	authv1connect.UnimplementedAuthServiceHandler

	validate func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error)
}

func (s authStub) ValidateToken(ctx context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	return s.validate(ctx, request)
}

// serveStub starts goplt's server with an auth service whose ValidateToken is validate.
func serveStub(
	t *testing.T, validate func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error),
	configure ...func(*rpc.ServerConfig),
) *rpc.Server {
	t.Helper()
	handlers := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, authStub{validate: validate})
	return startServer(t, handlers, configure...)
}

// startServer starts goplt's server and stops it when the test ends.
func startServer(t *testing.T, handlers *connect.Server, configure ...func(*rpc.ServerConfig)) *rpc.Server {
	t.Helper()
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	for _, change := range configure {
		change(&config)
	}
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithServerLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return server
}

// dialGRPCGo connects grpc-go to a target.
func dialGRPCGo(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connection.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
	})
	return connection
}

// startGRPCGo starts a grpc-go server, returns its address, and stops it when the test ends.
func startGRPCGo(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // which it says if it was stopped before it began
			t.Errorf("serve: %v", err)
		}
	})
	return server, listener.Addr().String()
}

// native describes the auth service to grpc-go as generated code would, with handlers written against grpc-go's API.
type native struct {
	login    func(context.Context, *authv1.LoginRequest) (*authv1.LoginResponse, error)
	validate func(context.Context, *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error)
}

func (n native) register(server *grpc.Server) {
	description := grpc.ServiceDesc{ServiceName: authv1connect.AuthServiceName}
	if n.login != nil {
		description.Methods = append(description.Methods, grpc.MethodDesc{MethodName: "Login", Handler: unary(n.login)})
	}
	if n.validate != nil {
		description.Methods = append(description.Methods, grpc.MethodDesc{MethodName: "ValidateToken", Handler: unary(n.validate)})
	}
	server.RegisterService(&description, nil)
}

func unary[Req, Res any](serve func(context.Context, *Req) (*Res, error)) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		request := new(Req)
		if err := decode(request); err != nil {
			return nil, err
		}
		return serve(ctx, request)
	}
}

// transportTo returns goplt's transport to fixed addresses, and closes it when the test ends.
func transportTo(t *testing.T, addrs []string, configure ...func(*rpc.ClientConfig)) *rpc.Transport {
	t.Helper()
	addresses, err := static.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	config := rpc.DefaultClientConfig()
	for _, change := range configure {
		change(&config)
	}
	transport, err := rpc.NewTransport("static:///"+strings.Join(addrs, ","), addresses, rpc.WithClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Errorf("close the transport: %v", err)
		}
		if err := addresses.Close(); err != nil {
			t.Errorf("close the registry: %v", err)
		}
	})
	return transport
}

// within returns the test's context, bounded by patience.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
