package servicestest

import (
	"fmt"
	"testing"

	adapters "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// Running is a server with the four services on a real socket, or several, and clients connected to it.
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
	// Instances are the servers, one unless [WithInstances] says otherwise, and the same for all services. URL and Proxy are those of the first.
	Instances []*Instance
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
	servers  int
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

// WithProxy puts an [HTTPProxy] between the clients and the server, which is [Running.Proxy], or between them and each of [Running.Instances].
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
		servers:  1,
	}
	for _, opt := range opts {
		opt.applyStart(&settings)
	}
	running := &Running{Platform: NewPlatform(settings.platform...), faults: NewFaults()}
	if settings.servers < 1 {
		tb.Fatalf("servicestest: WithInstances(%d): want 1 or more", settings.servers)
	}
	for range settings.servers {
		running.Instances = append(running.Instances, running.start(tb, settings))
	}
	running.URL, running.Proxy = running.Instances[0].URL, running.Instances[0].Proxy
	running.connect(tb, settings.client)
	return running
}

// connect connects the clients to the servers, by way of a registry as in production.
func (r *Running) connect(tb testing.TB, config rpc.ClientConfig) {
	tb.Helper()
	reg := memory.New()
	tb.Cleanup(func() { _ = reg.Close() })
	for _, name := range services.Names() {
		var instances []registry.Instance
		for at, server := range r.Instances {
			instances = append(instances, registry.Instance{
				ID: fmt.Sprintf("%s-%d", name, at+1), Service: name, Host: server.addr.Addr().String(), Port: int(server.addr.Port()), Weight: 1,
			})
		}
		if err := reg.Set(name, instances...); err != nil {
			tb.Fatalf("servicestest: register %s: %v", name, err)
		}
	}
	r.Registry = reg

	factory, err := adapters.NewFactory(adapters.FactoryConfig{
		Registry:  reg,
		Client:    func(string) rpc.ClientConfig { return config },
		InProcess: r.Instances[0].handlers,
	})
	if err != nil {
		tb.Fatalf("servicestest: %v", err)
	}
	tb.Cleanup(func() {
		r.faults.Clear() // Lets go on what a delay still holds.
		for _, server := range r.Instances {
			server.clear()
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

// Faults returns the faults of the server, or of all of [Running.Instances] together, of which there are none at first. Adding one for a
// procedure that the server does not have ends the test.
func (r *Running) Faults() *Faults { return r.faults }

// Services returns the clients with the platform as their controls, which is what [RunSuite] takes.
func (r *Running) Services() Services {
	return Services{Auth: r.Auth, Identity: r.Identity, Authz: r.Authz, Audit: r.Audit, Controls: r.Platform}
}
