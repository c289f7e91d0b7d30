package servicestest

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"

	adapters "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// Running is a server with the four services on a real socket, and clients connected to it.
type Running struct {
	// Auth is a client of the auth service.
	Auth services.AuthServiceClient
	// Identity is a client of the identity service.
	Identity services.IdentityServiceClient
	// Authz is a client of the authz service.
	Authz services.AuthzServiceClient
	// Audit is a client of the audit service.
	Audit services.AuditServiceClient
	// Platform is behind the server: it has the tokens that were sent, the clock, the roles.
	Platform *Platform
	// Registry is where the clients find the server, for further clients to find it. It is closed when the test ends.
	Registry registry.ServiceRegistry
	// URL is where the server answers, such as "http://127.0.0.1:43210", for curl and its like.
	URL string
	// Proxy stands between the clients and the server if [WithProxy] says so; otherwise it is nil, and using it panics. Adding one for a
	// procedure that the server does not have ends the test.
	Proxy *HTTPProxy

	faults *Faults
}

// startSettings is what StartOptions set.
type startSettings struct {
	platform []Option
	hosted   Services
	client   rpc.ClientConfig
	proxy    bool
}

type startOption func(*startSettings)

func (o startOption) applyStart(s *startSettings) { o(s) }

// WithServices has the server host the services that are set in place of the platform's, so that a test can bring its own Authz, say.
// Controls are ignored.
func WithServices(hosted Services) StartOption {
	return startOption(func(s *startSettings) { s.hosted = hosted })
}

// WithClientConfig configures the clients. Default [rpc.DefaultClientConfig].
func WithClientConfig(config rpc.ClientConfig) StartOption {
	return startOption(func(s *startSettings) { s.client = config })
}

// WithProtocol has the clients speak a protocol. Default [rpc.ProtocolAuto], which is gRPC here. With [rpc.ProtocolInProcess] they
// call the server's handlers without a network.
func WithProtocol(protocol rpc.Protocol) StartOption {
	return startOption(func(s *startSettings) { s.client.Protocol = protocol })
}

// WithProxy puts an [HTTPProxy] between the clients and the server, which is [Running.Proxy].
func WithProxy() StartOption {
	return startOption(func(s *startSettings) { s.proxy = true })
}

// Start starts a server with the four services of a new [Platform] on a port of its own and returns clients connected to it:
//
//	s := servicestest.Start(t, servicestest.WithDemoData())
//	tokens, err := s.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
//
// and, to see what the caller does about failures,
//
//	fault := s.Faults().Fail("auth.Login", connect.CodeUnavailable, servicestest.Times(2))
//	…
//	if fault.Hits() != 2 {
//
// Passwords have [TestPasswordCost] unless an option says otherwise. When the test ends, the clients and then the server are closed.
func Start(tb testing.TB, opts ...StartOption) *Running {
	tb.Helper()
	settings := startSettings{
		platform: []Option{WithPasswordCost(TestPasswordCost())},
		client:   rpc.DefaultClientConfig(),
	}
	for _, opt := range opts {
		opt.applyStart(&settings)
	}
	running := &Running{Platform: NewPlatform(settings.platform...), faults: NewFaults()}
	handlers := running.handlers(tb, settings.hosted)

	server, err := rpc.NewServer(handlers)
	if err != nil {
		tb.Fatalf("servicestest: %v", err)
	}
	web := httptest.NewUnstartedServer(server.Handler())
	web.Listener = running.faults.Listener(web.Listener)
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // Of connections that faults break.
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetHTTP1(true)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	tb.Cleanup(web.Close)
	running.URL = web.URL

	addr := web.Listener.Addr().String()
	if settings.proxy {
		running.Proxy = StartHTTPProxy(tb, web.URL)
		running.Proxy.faults.only(tb, append(proceduresOf(handlers), ownProcedures()...))
		addr = running.Proxy.Addr
	}
	running.connect(tb, addr, handlers, settings.client)
	return running
}

// handlers returns the services to host, behind the faults.
func (r *Running) handlers(tb testing.TB, hosted Services) *connect.Server {
	tb.Helper()
	handlers := connect.NewServer(adapters.RecoverPanics(nil), r.faults.Interceptor())
	adapters.RegisterAuth(handlers, cmp.Or(hosted.Auth, r.Platform.Auth()), nil)
	adapters.RegisterIdentity(handlers, cmp.Or(hosted.Identity, r.Platform.Identity()), nil)
	adapters.RegisterAuthz(handlers, cmp.Or(hosted.Authz, r.Platform.Authz()), nil)
	adapters.RegisterAudit(handlers, cmp.Or(hosted.Audit, r.Platform.Audit()), nil)
	r.faults.set.only(tb, proceduresOf(handlers))
	return handlers
}

// proceduresOf lists the procedures of a server, sorted.
func proceduresOf(server *connect.Server) []string {
	var procedures []string
	for spec := range server.Specs() {
		procedures = append(procedures, spec.Procedure)
	}
	slices.Sort(procedures)
	return procedures
}

// ownProcedures are those that [rpc.Server] has besides the services': calls of them pass through a proxy, and not through [Faults].
func ownProcedures() []string {
	return []string{
		"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	}
}

// only has the set refuse faults, by ending the test, whose name none of the procedures has.
func (s *faultSet) only(tb testing.TB, procedures []string) {
	tb.Helper()
	s.procedures = procedures
	s.refuse = func(name string, known []string) {
		tb.Helper()
		tb.Fatalf("servicestest: no procedure has the name %q, so the fault would never strike; the procedures are %q", name, known)
	}
}

// connect connects the clients to the server, by way of a registry as in production.
func (r *Running) connect(tb testing.TB, addr string, handlers *connect.Server, config rpc.ClientConfig) {
	tb.Helper()
	address, err := netip.ParseAddrPort(addr)
	if err != nil {
		tb.Fatalf("servicestest: address of the server: %v", err)
	}
	reg := memory.New()
	tb.Cleanup(func() { _ = reg.Close() })
	for _, name := range services.Names() {
		instance := registry.Instance{ID: name + "-1", Service: name, Host: address.Addr().String(), Port: int(address.Port()), Weight: 1}
		if err := reg.Set(name, instance); err != nil {
			tb.Fatalf("servicestest: register %s: %v", name, err)
		}
	}
	r.Registry = reg

	factory, err := adapters.NewFactory(adapters.FactoryConfig{
		Registry:  reg,
		Client:    func(string) rpc.ClientConfig { return config },
		InProcess: handlers,
	})
	if err != nil {
		tb.Fatalf("servicestest: %v", err)
	}
	tb.Cleanup(func() {
		r.faults.Clear() // Lets go on what a delay still holds.
		if r.Proxy != nil {
			r.Proxy.Clear()
		}
		if err := factory.Close(); err != nil {
			tb.Errorf("servicestest: close the clients: %v", err)
		}
	})
	r.Auth = must(tb, factory.Auth)
	r.Identity = must(tb, factory.Identity)
	r.Authz = must(tb, factory.Authz)
	r.Audit = must(tb, factory.Audit)
}

func must[C any](tb testing.TB, construct func() (C, error)) C {
	tb.Helper()
	client, err := construct()
	if err != nil {
		tb.Fatalf("servicestest: %v", err)
	}
	return client
}

// Faults returns the faults of the server, of which there are none at first. Adding one for a procedure that the server does not have
// ends the test.
func (r *Running) Faults() *Faults { return r.faults }

// Services returns the clients with the platform as their controls, which is what [RunSuite] takes.
func (r *Running) Services() Services {
	return Services{Auth: r.Auth, Identity: r.Identity, Authz: r.Authz, Audit: r.Audit, Controls: r.Platform}
}
