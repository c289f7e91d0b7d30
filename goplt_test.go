package goplt_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	authzv1 "github.com/0x1d/goplt/gen/goplt/authz/v1"
	"github.com/0x1d/goplt/gen/goplt/authz/v1/authzv1connect"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHandlers returns the four services in memory, with the demo data, as an application would host its own.
func newHandlers() *connect.Server {
	platform := servicestest.NewPlatform(servicestest.WithDemoData(), servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
	handlers := connect.NewServer()
	goplt.RegisterAuthService(handlers, platform.Auth(), nil)
	goplt.RegisterIdentityService(handlers, platform.Identity(), nil)
	goplt.RegisterAuthzService(handlers, platform.Authz(), nil)
	goplt.RegisterAuditService(handlers, platform.Audit(), nil)
	return handlers
}

// serve hosts handlers on a port of its own until the test ends, and returns its address.
func serve(t *testing.T, handlers *connect.Server, options ...rpc.ServerOption) (address string) {
	t.Helper()
	settings := rpc.DefaultServerConfig()
	settings.Listen, settings.DeregisterDelay = "127.0.0.1:0", 0
	server, err := rpc.NewServer(handlers, slices.Concat([]rpc.ServerOption{rpc.WithServerConfig(settings)}, options)...)
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
	return server.Addr()
}

// staticConfig returns a configuration by which every core service is at one address.
func staticConfig(address string) *config.Config {
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderStatic
	cfg.Discovery.Static = make(map[string][]string)
	for _, name := range services.Names() {
		cfg.Discovery.Static[name] = []string{address}
	}
	return cfg
}

// checkAuth, and its siblings, check that a client reaches its service.
func checkAuth(t *testing.T, client services.AuthServiceClient) {
	t.Helper()
	tokens, err := client.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	if claims, err := client.ValidateToken(t.Context(), tokens.AccessToken); err != nil || claims.UserID != "usr_ada" {
		t.Errorf("claims are %+v, %v; want those of usr_ada", claims, err)
	}
}

func checkIdentity(t *testing.T, client services.IdentityServiceClient) {
	t.Helper()
	if user, err := client.GetUser(t.Context(), "usr_ada"); err != nil || user.Email != "ada@example.com" {
		t.Errorf("user is %v, %v; want Ada", user, err)
	}
	if _, err := client.GetUser(t.Context(), "usr_nobody"); !errors.Is(err, services.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
}

func checkAuthz(t *testing.T, client services.AuthzServiceClient) {
	t.Helper()
	if err := client.Authorize(t.Context(), "usr_grace", "invoices:approve"); err != nil {
		t.Errorf("authorize: %v", err)
	}
	if err := client.Authorize(t.Context(), "usr_grace", "users:delete"); !errors.Is(err, services.ErrPermissionDenied) {
		t.Errorf("got %v, want permission denied", err)
	}
}

func checkAudit(t *testing.T, client services.AuditServiceClient) {
	t.Helper()
	if entries, err := client.Query(t.Context(), services.AuditFilters{UserID: "usr_grace"}); err != nil || len(entries) != 1 {
		t.Errorf("entries are %v, %v; want the one of Grace", entries, err)
	}
}

func checkAll(t *testing.T, clients *goplt.Clients) {
	t.Helper()
	checkAuth(t, clients.Auth)
	checkIdentity(t, clients.Identity)
	checkAuthz(t, clients.Authz)
	checkAudit(t, clients.Audit)
}

func TestInjectors(t *testing.T) {
	cfg := staticConfig(serve(t, newHandlers()))
	t.Run("all", func(t *testing.T) {
		clients, cleanup, err := goplt.InitializeClients(cfg)
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, clients)
		cleanup()
		cleanup()
		if _, err := clients.Auth.ValidateToken(t.Context(), "token"); !errors.Is(err, rpc.ErrClosed) || !errors.Is(err, services.ErrUnavailable) {
			t.Errorf("after the cleanup: %v, want closed and unavailable", err)
		}
	})
	t.Run("auth", func(t *testing.T) {
		client, cleanup, err := goplt.InitializeAuthClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cleanup()
		checkAuth(t, client)
	})
	t.Run("identity", func(t *testing.T) {
		client, cleanup, err := goplt.InitializeIdentityClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cleanup()
		checkIdentity(t, client)
	})
	t.Run("authz", func(t *testing.T) {
		client, cleanup, err := goplt.InitializeAuthzClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cleanup()
		checkAuthz(t, client)
	})
	t.Run("audit", func(t *testing.T) {
		client, cleanup, err := goplt.InitializeAuditClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cleanup()
		checkAudit(t, client)
	})
}

// Servers and clients of one process meet in one registry in memory.
func TestMemory(t *testing.T) {
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderMemory
	reg, closeRegistry, err := goplt.NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeRegistry)
	clients, cleanup, err := goplt.InitializeClientsWith(cfg, reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients.Auth.ValidateToken(t.Context(), "token"); !errors.Is(err, rpc.ErrNoInstances) {
		t.Errorf("before any server: %v, want no instances", err)
	}
	serve(t, newHandlers(), rpc.WithRegistration(reg, services.Names()...))
	instances := make(map[string]int)
	for _, name := range services.Names() {
		watcher, err := reg.Watch(registry.Target{Scheme: "memory", Service: name})
		if err != nil {
			t.Fatal(err)
		}
		found, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		instances[name] = len(found)
		if err := watcher.Close(); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(map[string]int{"auth": 1, "identity": 1, "authz": 1, "audit": 1}, instances); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	cfg.Defaults.WaitForInstances = true // the news may still be on its way
	waiting, cleanupWaiting, err := goplt.InitializeClientsWith(cfg, reg)
	if err != nil {
		t.Fatal(err)
	}
	checkAll(t, waiting)
	cleanupWaiting()
	cleanup()
}

// Each service may be somewhere else than the provider says.
func TestTargets(t *testing.T) {
	handlers := newHandlers()
	address := serve(t, handlers)
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderMemory
	for name, change := range map[string]func(*config.ServiceConfig){
		"auth":     func(s *config.ServiceConfig) { s.Target = "static:///" + address },
		"identity": func(s *config.ServiceConfig) { s.Target, s.Client.Protocol = "static:///"+address, rpc.ProtocolHTTP },
		"authz":    func(s *config.ServiceConfig) { s.Client.Protocol = rpc.ProtocolInProcess },
		"audit":    func(s *config.ServiceConfig) { s.Target = "consul://127.0.0.1:1/audit" },
	} {
		service := cfg.Service(name)
		change(&service)
		cfg.Services[name] = service
	}
	clients, cleanup, err := goplt.InitializeClients(cfg, goplt.WithInProcess(handlers))
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	checkAuth(t, clients.Auth)
	checkIdentity(t, clients.Identity)
	checkAuthz(t, clients.Authz)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := clients.Audit.Query(ctx, services.AuditFilters{}); err == nil {
		t.Error("the audit service was found without Consul")
	}
}

func TestInterceptorsSeeEveryCall(t *testing.T) {
	cfg := staticConfig(serve(t, newHandlers()))
	var seen []string
	note := func(name string) connect.ClientInterceptor {
		return func(next connect.ClientFunc) connect.ClientFunc {
			return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
				seen = append(seen, name+" "+spec.Procedure)
				return next(ctx, spec)
			}
		}
	}
	clients, cleanup, err := goplt.InitializeClients(cfg, goplt.WithInterceptors(note("outer")), goplt.WithInterceptors(note("inner")))
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	checkIdentity(t, clients.Identity)
	checkAudit(t, clients.Audit)
	const get, query = " /goplt.identity.v1.IdentityService/GetUser", " /goplt.audit.v1.AuditService/Query"
	want := []string{"outer" + get, "inner" + get, "outer" + get, "inner" + get, "outer" + query, "inner" + query}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*config.Config)
		want   string
	}{
		"provider": {
			func(cfg *config.Config) { cfg.Discovery.Provider = "etcd" }, `discovery.provider: "etcd" is not one of consul, static, memory`,
		},
		"static address": {
			func(cfg *config.Config) { cfg.Discovery.Static["auth"] = []string{"nowhere"} }, `static registry: service "auth": `,
		},
		"service without address": {
			func(cfg *config.Config) { delete(cfg.Discovery.Static, "audit") },
			`client of audit: registry: invalid target "audit": no addresses are configured for service "audit"; known are [auth, authz, identity]`,
		},
		"client": {
			func(cfg *config.Config) { cfg.Defaults.Retry.MaxAttempts = 0 }, "client configuration of auth: retry.max_attempts: 0 is not within 1 to 5",
		},
		"no server in process": {
			func(cfg *config.Config) { cfg.Defaults.Protocol = rpc.ProtocolInProcess },
			`client of auth: transport to "auth": protocol inprocess needs the server to call, see WithInProcess`,
		},
		"consul": {
			func(cfg *config.Config) {
				cfg.Discovery.Provider = config.ProviderConsul
				cfg.Discovery.Consul.Check.Kind = "http"
			},
			`check.kind: "http" is not one of grpc, ttl, none`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := staticConfig("127.0.0.1:1")
			test.change(cfg)
			clients, cleanup, err := goplt.InitializeClients(cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if clients != nil || cleanup != nil {
				t.Error("something came with the error")
			}
		})
	}
}

// Any other Connect service gets a transport by the configuration of its name, for its own generated client.
func TestTransportToAnotherService(t *testing.T) {
	address := serve(t, newHandlers())
	cfg := config.Default()
	cfg.Discovery.Provider = config.ProviderStatic
	cfg.Discovery.Static = map[string][]string{"orders": {address}}
	settings := cfg.Service("orders")
	settings.Client.Protocol = rpc.ProtocolHTTP
	cfg.Services["orders"] = settings
	reg, closeRegistry, err := goplt.NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeRegistry()
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	transport, err := goplt.NewTransport(cfg, reg, "orders", goplt.WithLogger(logger))
	if err != nil {
		t.Fatal(err)
	}
	orders := authzv1connect.NewAuthzServiceClient(connect.NewClient(transport)) // a service of the user's own, but for its name
	answer, err := orders.HasPermission(t.Context(), &authzv1.HasPermissionRequest{UserId: "usr_grace", Permission: "invoices:approve"})
	if err != nil || !answer.GetAllowed() {
		t.Errorf("got %v, %v; want that Grace may", answer, err)
	}
	if status := transport.Status(); len(status.Instances) != 1 || status.Instances[0].Protocol != rpc.ProtocolHTTP {
		t.Errorf("status is %+v, want one instance, by HTTP as configured", status)
	}
	if err := transport.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "orders") {
		t.Errorf("the logger was told %q, want the instance that came", &log)
	}
	if _, err := goplt.NewTransport(cfg, reg, "bills"); !errors.Is(err, registry.ErrInvalidTarget) ||
		!strings.HasPrefix(err.Error(), `client of bills: registry: invalid target "bills"`) {
		t.Errorf("got %v, want that there is no such service", err)
	}
}

// The cleanup lets calls under way finish before it takes their connections away.
func TestCleanupDrains(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	handlers := connect.NewServer()
	goplt.RegisterAuthzService(handlers, slowAuthz{entered: entered, release: release}, nil)
	clients, cleanup, err := goplt.InitializeAuthzClient(staticConfig(serve(t, handlers)))
	if err != nil {
		t.Fatal(err)
	}
	answered, cleaned := make(chan error, 1), make(chan struct{})
	go func() { answered <- clients.Authorize(t.Context(), "usr", "a:b") }()
	<-entered
	go func() {
		defer close(cleaned)
		cleanup()
	}()
	for { // until the cleanup is at the point where it waits, which shows in what a new call is told
		if err := clients.Authorize(t.Context(), "refused", "a:b"); errors.Is(err, rpc.ErrClosed) {
			break
		}
	}
	select {
	case <-cleaned:
		t.Error("the cleanup did not wait for the call under way")
	default:
	}
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the call under way failed: %v", err)
	}
	<-cleaned
}

// slowAuthz answers a user's call only when told to.
type slowAuthz struct {
	services.AuthzServiceClient

	entered, release chan struct{}
}

func (s slowAuthz) Authorize(_ context.Context, userID, _ string) error {
	if userID == "usr" {
		s.entered <- struct{}{}
		<-s.release
	}
	return nil
}

func TestNoConfiguration(t *testing.T) {
	reg := memory.New()
	defer func() { _ = reg.Close() }()
	_, _, all := goplt.InitializeClients(nil)
	_, _, auth := goplt.InitializeAuthClient(nil)
	_, _, with := goplt.InitializeClientsWith(nil, reg)
	_, transport := goplt.NewTransport(nil, reg, "orders")
	for at, err := range []error{all, auth, with, transport} {
		if want := "goplt: the configuration is nil; want what config.Load or config.Default returns"; err == nil || err.Error() != want {
			t.Errorf("%d: got %v, want %s", at, err, want)
		}
	}
}
