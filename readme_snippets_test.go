package goplt_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// The functions here stand in README.md word for word, which TestREADMEGoSnippets checks. The tests after them execute them.

func TestWithServices(t *testing.T) {
	platform := servicestest.Start(t, servicestest.WithDemoData())
	tokens, err := platform.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := platform.Auth.ValidateToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if !claims.HasRole("admin") {
		t.Errorf("ada has the roles %v", claims.Roles)
	}
}

func TestBehindBadGateway(t *testing.T) {
	platform := servicestest.Start(t, servicestest.WithDemoData(), servicestest.WithProxy())
	platform.Proxy.HTTP1Only() // so that gRPC does not get through
	bad := platform.Proxy.InjectStatus("authz.HasPermission", http.StatusBadGateway, servicestest.Times(1))
	allowed, err := platform.Authz.HasPermission(t.Context(), "usr_ada", "invoices:read")
	if err != nil || !allowed {
		t.Fatalf("allowed: %t, %v", allowed, err)
	}
	if bad.Hits() != 1 {
		t.Errorf("the gateway was bad %d times", bad.Hits())
	}
}

func byHand(ctx context.Context, cfg *config.Config) error {
	clients, cleanup, err := goplt.InitializeClients(cfg)
	if err != nil {
		return err
	}
	defer cleanup()
	if err := clients.Authz.Authorize(ctx, "usr_ada", "invoices:read"); errors.Is(err, services.ErrPermissionDenied) {
		return fmt.Errorf("ada may not read invoices: %w", err)
	} else if err != nil {
		return err
	}
	return clients.Audit.Record(ctx, services.Action{UserID: "usr_ada", Action: "invoice.read", Resource: "invoice/42"})
}

func callsAnyService(ctx context.Context, cfg *config.Config, reg registry.ServiceRegistry) error {
	transport, err := goplt.NewTransport(cfg, reg, "orders")
	if err != nil {
		return err
	}
	defer func() { _ = transport.Close() }()
	return callOrders(ctx, connect.NewClient(transport, goplt.ClientErrors()))
}

func serves(ctx context.Context, cfg *config.Config, reg registry.ServiceRegistry, auth services.AuthServiceClient) error {
	handlers := connect.NewServer(goplt.ServerErrors(slog.Default()))
	goplt.RegisterAuthService(handlers, auth, slog.Default())
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(cfg.Server), rpc.WithRegistration(reg, "auth"))
	if err != nil {
		return err
	}
	return server.Run(ctx) // listens, registers; when ctx ends: deregisters, lets it spread, drains, closes
}

// callOrders calls a service through its generated client; the auth service stands in for one of the reader's own.
func callOrders(ctx context.Context, client *connect.Client) error {
	_, err := authv1connect.NewAuthServiceClient(client).ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: "x"})
	if !errors.Is(err, services.ErrUnauthenticated) {
		return fmt.Errorf("want the service's own answer, got %w", err)
	}
	return nil
}

func TestREADMEByHand(t *testing.T) {
	platform := servicestest.Start(t, servicestest.WithDemoData())
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderStatic
	cfg.Discovery.Static = map[string][]string{}
	for _, name := range services.Names() {
		cfg.Discovery.Static[name] = []string{platform.URL[len("http://"):]}
	}
	if err := byHand(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	logs, err := platform.Audit.Query(t.Context(), services.AuditFilters{Action: "invoice.read"})
	if err != nil || len(logs) != 1 {
		t.Errorf("%d entries recorded, %v", len(logs), err)
	}
}

func TestREADMECallsAnyService(t *testing.T) {
	platform := servicestest.Start(t)
	reg := memory.New()
	defer func() { _ = reg.Close() }()
	found, err := platform.Registry.Watch(registry.Target{Service: services.AuthService})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = found.Close() }()
	set, err := found.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set[0].Service = "orders"
	if err := reg.Set("orders", set...); err != nil {
		t.Fatal(err)
	}
	if err := callsAnyService(t.Context(), config.Default(), reg); err != nil {
		t.Error(err)
	}
}

func TestREADMEServes(t *testing.T) {
	reg := memory.New()
	defer func() { _ = reg.Close() }()
	cfg := config.Default()
	cfg.Server.Listen = "127.0.0.1:0"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serves(ctx, cfg, reg, servicestest.NewPlatform().Auth()) }()
	watcher, err := reg.Watch(registry.Target{Service: "auth"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	for set := []registry.Instance(nil); len(set) == 0; {
		if set, err = watcher.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
