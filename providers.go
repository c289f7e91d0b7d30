package goplt

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/wire"

	"github.com/0x1d/goplt/config"
	internal "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/registry/static"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// The provider sets, for wire.Build. All need a [*config.Config], and all but ProviderSet and DefaultOptions a []Option.
var (
	// ProviderSet provides everything, without options. An application that has options names RegistrySet and ClientSet instead, and a provider of
	// []Option.
	ProviderSet = wire.NewSet(RegistrySet, ClientSet, DefaultOptions)
	// RegistrySet provides the registry that is configured. An application with a registry of its own leaves it out.
	RegistrySet = wire.NewSet(NewRegistry)
	// ClientSet provides the factory, each client and all of them together, from a registry.
	ClientSet = wire.NewSet(FactorySet, AuthSet, IdentitySet, AuthzSet, AuditSet, NewClients)
	// FactorySet provides the factory, which the sets of single clients need.
	FactorySet = wire.NewSet(NewFactory)
	// AuthSet provides the client of auth alone.
	AuthSet = wire.NewSet(NewAuthClient)
	// IdentitySet provides the client of identity alone.
	IdentitySet = wire.NewSet(NewIdentityClient)
	// AuthzSet provides the client of authz alone.
	AuthzSet = wire.NewSet(NewAuthzClient)
	// AuditSet provides the client of audit alone.
	AuditSet = wire.NewSet(NewAuditClient)
	// DefaultOptions provides no options.
	DefaultOptions = wire.NewSet(wire.Value([]Option(nil)))
)

// errNoConfig is what constructors make of no configuration.
var errNoConfig = errors.New("goplt: the configuration is nil; want what config.Load or config.Default returns")

// NewRegistry returns the registry that the configuration names under discovery. Targets of services that name another kind, consul:// or
// static://, are found there. It does no I/O. The caller closes it by calling the function returned, after all that uses it.
//
// Servers in the same process that register in memory must be given this very registry: each has its own memory.
func NewRegistry(cfg *config.Config, options ...Option) (registry.ServiceRegistry, func(), error) {
	if cfg == nil {
		return nil, nil, errNoConfig
	}
	logger := settingsOf(options).logger
	fixed, err := static.New(cfg.Discovery.Static)
	if err != nil {
		return nil, nil, err
	}
	schemes := map[string]registry.ServiceRegistry{static.Scheme: fixed}
	if cfg.Discovery.Provider == config.ProviderConsul || targetsConsul(cfg) {
		settings := cfg.Discovery.Consul
		if logger != nil {
			settings.Logger = logger
		}
		agent, err := consul.New(settings)
		if err != nil {
			return nil, nil, errors.Join(err, fixed.Close())
		}
		schemes[consul.Scheme] = agent
	}
	if cfg.Discovery.Provider == config.ProviderMemory {
		schemes[memory.Scheme] = memory.New()
	}
	chosen, ok := schemes[string(cfg.Discovery.Provider)]
	if !ok {
		return nil, nil, errors.Join(cfg.Validate(), fixed.Close())
	}
	all := registry.NewMulti(chosen, schemes)
	return all, closing("registry", all.Close, logger), nil
}

// targetsConsul reports whether a service is to be found in Consul whatever the provider.
func targetsConsul(cfg *config.Config) bool {
	for _, service := range cfg.Services {
		if strings.HasPrefix(service.Target, consul.Scheme+"://") {
			return true
		}
	}
	return false
}

// Factory makes clients of services by name, and keeps what they share: one [rpc.Transport] per service, with its connections, circuit breakers
// and the watch on the registry. Safe for concurrent use. See [NewFactory].
type Factory struct{ inner *internal.Factory }

// NewFactory returns a factory of clients with the configuration of each service, whose instances reg finds. It does no I/O. The caller closes it,
// before reg, by calling the function returned: clients then refuse further calls, and those under way have pool.drain_timeout to finish.
func NewFactory(cfg *config.Config, reg registry.ServiceRegistry, options ...Option) (*Factory, func(), error) {
	if cfg == nil {
		return nil, nil, errNoConfig
	}
	settings := settingsOf(options)
	factory, err := internal.NewFactory(internal.FactoryConfig{
		Registry: reg, Client: cfg.Client, Target: cfg.Target,
		Interceptors: settings.interceptors, InProcess: settings.inProcess, Logger: settings.logger,
	})
	if err != nil {
		return nil, nil, err
	}
	return &Factory{factory}, closing("clients", factory.Close, settings.logger), nil
}

// NewServiceClient returns a client of a core service by its name, one of [services.Names]. The value also implements the service's interface: assert
// client.(services.AuthServiceClient) and so on. An unknown name is an error that lists the known ones.
func (f *Factory) NewServiceClient(name string) (services.ServiceClient, error) {
	return f.inner.NewServiceClient(name)
}

// Transport returns the transport of a service, core or not, which its clients share: for a generated Connect client, or to ask for its status. The
// factory closes it.
func (f *Factory) Transport(service string) (*rpc.Transport, error) {
	return f.inner.Transport(service)
}

// NewClients returns a client of each core service. Closing the factory closes them.
func NewClients(factory *Factory) (*Clients, error) {
	auth, authErr := factory.inner.Auth()
	identity, identityErr := factory.inner.Identity()
	authz, authzErr := factory.inner.Authz()
	audit, auditErr := factory.inner.Audit()
	if err := errors.Join(authErr, identityErr, authzErr, auditErr); err != nil {
		return nil, err
	}
	return &Clients{Auth: auth, Identity: identity, Authz: authz, Audit: audit}, nil
}

// NewAuthClient returns a client of the auth service. Closing the factory closes it, as all of the following.
func NewAuthClient(factory *Factory) (services.AuthServiceClient, error) { return factory.inner.Auth() }

// NewIdentityClient returns a client of the identity service.
func NewIdentityClient(factory *Factory) (services.IdentityServiceClient, error) {
	return factory.inner.Identity()
}

// NewAuthzClient returns a client of the authz service.
func NewAuthzClient(factory *Factory) (services.AuthzServiceClient, error) {
	return factory.inner.Authz()
}

// NewAuditClient returns a client of the audit service.
func NewAuditClient(factory *Factory) (services.AuditServiceClient, error) {
	return factory.inner.Audit()
}

// NewTransport returns a transport to any service, core or not, with the configuration that it has under services, for a generated Connect client:
//
//	transport, err := goplt.NewTransport(cfg, reg, "orders")
//	...
//	defer transport.Close()
//	orders := ordersv1connect.NewOrdersServiceClient(connect.NewClient(transport))
//
// It does no I/O. The caller closes it, before reg.
func NewTransport(cfg *config.Config, reg registry.ServiceRegistry, service string, options ...Option) (*rpc.Transport, error) {
	if cfg == nil {
		return nil, errNoConfig
	}
	settings := settingsOf(options)
	with := []rpc.Option{rpc.WithClientConfig(cfg.Client(service)), rpc.WithInProcess(settings.inProcess)}
	if settings.logger != nil {
		with = append(with, rpc.WithLogger(settings.logger))
	}
	transport, err := rpc.NewTransport(cfg.Target(service), reg, with...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", service, err)
	}
	return transport, nil
}

// closing returns a cleanup function of Wire's kind, which has no error to return.
func closing(what string, closeAll func() error, logger *slog.Logger) func() {
	return func() {
		if err := closeAll(); err != nil && logger != nil {
			logger.Warn("close", "what", what, "error", err)
		}
	}
}
