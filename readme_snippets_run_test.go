package goplt_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

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
