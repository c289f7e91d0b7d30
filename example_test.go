package goplt_test

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// All clients in one call, here of services at a fixed address. A program says config.Load("goplt.yaml", os.Environ()) instead.
func ExampleInitializeClients() {
	address, stop := startServer()
	defer stop()
	cfg, err := config.Load("", []string{
		"GOPLT_DISCOVERY_PROVIDER=static", "GOPLT_DISCOVERY_STATIC_AUTH=" + address,
		"GOPLT_DISCOVERY_STATIC_IDENTITY=" + address, "GOPLT_DISCOVERY_STATIC_AUTHZ=" + address, "GOPLT_DISCOVERY_STATIC_AUDIT=" + address,
	})
	if err != nil {
		panic(err)
	}

	clients, cleanup, err := goplt.InitializeClients(cfg)
	if err != nil {
		panic(err)
	}
	defer cleanup()

	ctx := context.Background()
	tokens, err := clients.Auth.Login(ctx, "grace@example.com", servicestest.DemoPassword)
	if err != nil {
		panic(err)
	}
	claims, err := clients.Auth.ValidateToken(ctx, tokens.AccessToken)
	if err != nil {
		panic(err)
	}
	err = clients.Authz.Authorize(ctx, claims.UserID, "users:delete")
	fmt.Println(claims.Email, errors.Is(err, services.ErrPermissionDenied))
	// Output:
	// grace@example.com true
}

// The same by hand, with a registry and a factory that the program keeps for more: here, one client and one server that share a registry in memory.
func ExampleNewFactory() {
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderMemory
	cfg.Defaults.WaitForInstances = true

	registry, closeRegistry, err := goplt.NewRegistry(cfg)
	if err != nil {
		panic(err)
	}
	defer closeRegistry()
	factory, closeFactory, err := goplt.NewFactory(cfg, registry)
	if err != nil {
		panic(err)
	}
	defer closeFactory()
	identity, err := goplt.NewIdentityClient(factory)
	if err != nil {
		panic(err)
	}

	_, stop := startServer(rpc.WithRegistration(registry, services.IdentityService))
	defer stop()
	user, err := identity.GetUserByEmail(context.Background(), "ada@example.com")
	if err != nil {
		panic(err)
	}
	fmt.Println(user.Name)
	// Output:
	// Ada Lovelace
}

// startServer hosts the services, in memory and with demo data, on a port of its own.
func startServer(options ...rpc.ServerOption) (address string, stop func()) {
	platform := servicestest.NewPlatform(servicestest.WithDemoData())
	handlers := connect.NewServer()
	goplt.RegisterAuthService(handlers, platform.Auth(), nil)
	goplt.RegisterIdentityService(handlers, platform.Identity(), nil)
	goplt.RegisterAuthzService(handlers, platform.Authz(), nil)
	goplt.RegisterAuditService(handlers, platform.Audit(), nil)

	settings := rpc.DefaultServerConfig()
	settings.Listen, settings.DeregisterDelay = "127.0.0.1:0", 0
	server, err := rpc.NewServer(handlers, append(options, rpc.WithServerConfig(settings))...)
	if err != nil {
		panic(err)
	}
	if err := server.Start(context.Background()); err != nil {
		panic(err)
	}
	return server.Addr(), func() {
		if err := server.Stop(context.Background()); err != nil {
			panic(err)
		}
	}
}
