package services

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// NewServiceClient returns a client of a core service, found by its name in reg, with the default configuration. The value also implements the
// service's interface: assert client.(services.AuthServiceClient) and so on. An unknown name is an error that lists the known ones.
//
// It does no I/O: the first call does. Closing the client releases all that it holds; reg stays the caller's to close, after the client.
func NewServiceClient(serviceName string, reg registry.ServiceRegistry) (services.ServiceClient, error) {
	if !slices.Contains(services.Names(), serviceName) {
		return nil, unknownService(serviceName)
	}
	if reg == nil {
		return nil, fmt.Errorf("client of %s: no registry to find its instances in", serviceName)
	}
	factory, err := NewFactory(FactoryConfig{Registry: reg})
	if err != nil {
		return nil, err
	}
	return factory.newServiceClient(serviceName, factory.Close)
}

// FactoryConfig configures a [Factory]. Its functions are called one at a time, with the name of a service; they must not call the factory.
type FactoryConfig struct {
	// Registry finds the instances. It stays the caller's to close, after the factory. Required, but for services that are called in process.
	Registry registry.ServiceRegistry
	// Client returns the effective client configuration of a service. Nil means [rpc.DefaultClientConfig] for all.
	Client func(service string) rpc.ClientConfig
	// Target returns the text form of the [registry.Target] to watch for a service. Nil means the service's name.
	Target func(service string) string
	// Interceptors wrap every call of every client, the first outermost.
	Interceptors []connect.ClientInterceptor
	// InProcess is the server that answers the calls of services whose protocol is inprocess.
	InProcess *connect.Server
	// Logger is told of instances that come and go, registry failures and the like. Nil means that nothing is logged.
	Logger *slog.Logger
}

// Factory makes clients by service name. It keeps one [rpc.Transport] for each service, which all its clients of that service share:
// connections, circuit breakers, and the watch on the registry. Safe for concurrent use.
type Factory struct {
	config FactoryConfig

	mu         sync.Mutex
	transports map[string]*rpc.Transport // nil once the factory is closed

	close func() error
}

// NewFactory returns a factory. The configurations of the core services are validated here; it does no I/O.
func NewFactory(config FactoryConfig) (*Factory, error) {
	if config.Registry == nil && config.InProcess == nil {
		return nil, errors.New("client factory: no registry to find services in, nor a server in this process to call instead")
	}
	if config.Client == nil {
		config.Client = func(string) rpc.ClientConfig { return rpc.DefaultClientConfig() }
	}
	if config.Target == nil {
		config.Target = func(service string) string { return service }
	}
	var problems []error
	for _, name := range services.Names() {
		if err := config.Client(name).Validate(); err != nil {
			problems = append(problems, fmt.Errorf("client configuration of %s: %w", name, err))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	config.Interceptors = slices.Clone(config.Interceptors)
	factory := &Factory{config: config, transports: make(map[string]*rpc.Transport)}
	factory.close = sync.OnceValue(factory.closeTransports)
	return factory, nil
}

// NewServiceClient returns a client of a core service by name. The value also implements the service's interface. An unknown name is an
// error that lists the known ones.
//
// Closing the client makes it refuse further calls, and lets those under way go on. It leaves the connections to the factory, which owns
// them, for the other clients of the service.
func (f *Factory) NewServiceClient(name string) (services.ServiceClient, error) {
	return f.newServiceClient(name, func() error { return nil })
}

// Auth returns a client of the auth service.
func (f *Factory) Auth() (services.AuthServiceClient, error) {
	return typed(f, services.AuthService, NewAuthClient)
}

// Identity returns a client of the identity service.
func (f *Factory) Identity() (services.IdentityServiceClient, error) {
	return typed(f, services.IdentityService, NewIdentityClient)
}

// Authz returns a client of the authz service.
func (f *Factory) Authz() (services.AuthzServiceClient, error) {
	return typed(f, services.AuthzService, NewAuthzClient)
}

// Audit returns a client of the audit service.
func (f *Factory) Audit() (services.AuditServiceClient, error) {
	return typed(f, services.AuditService, NewAuditClient)
}

// Transport returns the factory's transport to a service, core or not, for generated clients of your own and for its Status. The factory
// closes it. The factory's interceptors are not part of it.
func (f *Factory) Transport(service string) (*rpc.Transport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.transports == nil {
		return nil, fmt.Errorf("client of %s: factory is closed: %w", service, rpc.ErrClosed)
	}
	if transport, ok := f.transports[service]; ok {
		return transport, nil
	}
	config := f.config.Client(service)
	if f.config.Registry == nil && config.Protocol != rpc.ProtocolInProcess {
		return nil, fmt.Errorf("client of %s: no registry to find its instances in; protocol %q needs one", service, config.Protocol)
	}
	options := []rpc.Option{rpc.WithClientConfig(config), rpc.WithInProcess(f.config.InProcess)}
	if f.config.Logger != nil {
		options = append(options, rpc.WithLogger(f.config.Logger))
	}
	transport, err := rpc.NewTransport(f.config.Target(service), f.config.Registry, options...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", service, err)
	}
	f.transports[service] = transport
	return transport, nil
}

// Close closes all transports, which lets calls under way finish for up to each one's drain timeout, and returns their errors joined.
// Clients made before refuse further calls. It may be called more than once and concurrently; each call returns the same error.
func (f *Factory) Close() error { return f.close() }

func (f *Factory) closeTransports() error {
	f.mu.Lock()
	transports := f.transports
	f.transports = nil
	f.mu.Unlock()
	// Together, so that the longest drain bounds them all.
	var (
		closing  sync.WaitGroup
		mu       sync.Mutex
		problems []error
	)
	for name, transport := range transports {
		closing.Go(func() {
			if err := transport.Close(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, fmt.Errorf("close client of %s: %w", name, err))
			}
		})
	}
	closing.Wait()
	return errors.Join(problems...)
}

// typed returns a client of a service with its own interface.
func typed[C any](f *Factory, name string, construct func(*connect.Client) C) (C, error) {
	client, err := f.client(name)
	if err != nil {
		return *new(C), err
	}
	return construct(client), nil
}

// client returns a Connect client over a service's transport, with outer interceptors around the factory's.
func (f *Factory) client(service string, outer ...connect.ClientInterceptor) (*connect.Client, error) {
	transport, err := f.Transport(service)
	if err != nil {
		return nil, err
	}
	return connect.NewClient(transport, slices.Concat(outer, f.config.Interceptors)...), nil
}
