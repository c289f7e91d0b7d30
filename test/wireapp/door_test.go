package wireapp_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"go.uber.org/goleak"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
	"github.com/0x1d/goplt/test/wireapp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs auth and audit on a port of their own until the test ends.
func start(t *testing.T, options ...rpc.ServerOption) (platform *servicestest.Platform, address string) {
	t.Helper()
	return startOn(t, connect.NewServer(), options...)
}

func startOn(t *testing.T, handlers *connect.Server, options ...rpc.ServerOption) (platform *servicestest.Platform, address string) {
	t.Helper()
	platform = servicestest.NewPlatform(servicestest.WithDemoData(), servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
	goplt.RegisterAuthService(handlers, platform.Auth(), nil)
	goplt.RegisterAuditService(handlers, platform.Audit(), nil)
	settings := rpc.DefaultServerConfig()
	settings.Listen, settings.DeregisterDelay = "127.0.0.1:0", 0
	server, err := rpc.NewServer(handlers, append(options, rpc.WithServerConfig(settings))...)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return platform, server.Addr()
}

// load reads the configuration as the application does when it starts.
func load(t *testing.T, environ ...string) *config.Config {
	t.Helper()
	cfg, err := config.Load("", environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func loadStatic(t *testing.T, address string) *config.Config {
	t.Helper()
	return load(t, "GOPLT_DISCOVERY_PROVIDER=static", "GOPLT_DISCOVERY_STATIC_AUTH="+address, "GOPLT_DISCOVERY_STATIC_AUDIT="+address)
}

// check has someone enter by a door, and someone else not.
func check(t *testing.T, door *wireapp.Door, platform *servicestest.Platform) {
	t.Helper()
	tokens, err := platform.Auth().Login(t.Context(), "grace@example.com", servicestest.DemoPassword)
	if err != nil {
		t.Fatal(err)
	}
	if email, err := door.Enter(t.Context(), tokens.AccessToken); err != nil || email != "grace@example.com" {
		t.Errorf("Grace entered as %q, %v", email, err)
	}
	if _, err := door.Enter(t.Context(), "forged"); !errors.Is(err, services.ErrUnauthenticated) {
		t.Errorf("a forged token: %v, want unauthenticated", err)
	}
	entries, err := platform.Audit().Query(t.Context(), services.AuditFilters{Action: "door.enter"})
	if err != nil || len(entries) != 1 || entries[0].UserID != "usr_grace" {
		t.Errorf("the record is %v, %v; want Grace's entry alone", entries, err)
	}
}

func TestInjected(t *testing.T) {
	platform, address := start(t)
	door, cleanup, err := wireapp.InitializeDoor(loadStatic(t, address))
	if err != nil {
		t.Fatal(err)
	}
	check(t, door, platform)
	cleanup()
	if _, err := door.Enter(t.Context(), "late"); !errors.Is(err, rpc.ErrClosed) {
		t.Errorf("after the cleanup: %v, want closed", err)
	}
}

func TestInjectedWithOptions(t *testing.T) {
	var mu sync.Mutex
	shown := make(map[string]int) // how often each authorization was shown
	platform, address := startOn(t, connect.NewServer(func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if info, ok := connect.CallInfoForServerContext(ctx); ok {
				mu.Lock()
				shown[info.RequestHeader().Get("Authorization")]++
				mu.Unlock()
			}
			return next(ctx, spec, stream)
		}
	}))
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	door, cleanup, err := wireapp.InitializeDoorWithOptions(loadStatic(t, address), logger, "door-1")
	if err != nil {
		t.Fatal(err)
	}
	check(t, door, platform)
	cleanup()
	if !strings.Contains(log.String(), "target=auth") || !strings.Contains(log.String(), "target=audit") {
		t.Errorf("the application's log has %q, want what goplt says of both targets", &log)
	}
	if len(shown) != 1 || shown["Bearer door-1"] == 0 {
		t.Errorf("the services were shown %v, want the application's token alone", shown)
	}
}

func TestInjectedWithRegistry(t *testing.T) {
	reg := memory.New()
	t.Cleanup(func() {
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	})
	platform, _ := start(t, rpc.WithRegistration(reg, services.AuthService, services.AuditService))
	door, cleanup, err := wireapp.InitializeDoorWith(load(t), reg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, door, platform)
	cleanup()
}

// Without Wire, the same takes as many lines as the injector has providers.
func TestByHand(t *testing.T) {
	platform, address := start(t)
	clients, cleanup, err := goplt.InitializeClients(loadStatic(t, address))
	if err == nil {
		t.Fatal("there are no addresses of identity and authz, and yet clients")
	}
	if clients != nil || cleanup != nil {
		t.Error("something came with the error")
	}

	cfg := loadStatic(t, address)
	registry, closeRegistry, err := goplt.NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeRegistry()
	factory, closeFactory, err := goplt.NewFactory(cfg, registry)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFactory()
	auth, err := goplt.NewAuthClient(factory)
	if err != nil {
		t.Fatal(err)
	}
	audit, err := goplt.NewAuditClient(factory)
	if err != nil {
		t.Fatal(err)
	}
	check(t, wireapp.NewDoor(auth, audit), platform)
}
