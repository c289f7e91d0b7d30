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
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// The functions here stand in README.md word for word, and so do the imports, which are all that they need: TestREADMEGoSnippets checks it. The tests
// in readme_snippets_run_test.go execute those that are no tests themselves.

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
