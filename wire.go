//go:build wireinject

package goplt

import (
	"github.com/google/wire"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/services"
)

// InitializeClients returns a client of each core service, with all that they need. The caller calls the function returned to close it all.
func InitializeClients(cfg *config.Config, options ...Option) (*Clients, func(), error) {
	panic(wire.Build(RegistrySet, ClientSet))
}

// InitializeAuthClient returns a client of the auth service, with all that it needs. The caller calls the function returned to close it all.
func InitializeAuthClient(cfg *config.Config, options ...Option) (services.AuthServiceClient, func(), error) {
	panic(wire.Build(RegistrySet, FactorySet, AuthSet))
}

// InitializeIdentityClient returns a client of the identity service, with all that it needs. The caller calls the function returned to close
// it all.
func InitializeIdentityClient(cfg *config.Config, options ...Option) (services.IdentityServiceClient, func(), error) {
	panic(wire.Build(RegistrySet, FactorySet, IdentitySet))
}

// InitializeAuthzClient returns a client of the authz service, with all that it needs. The caller calls the function returned to close it all.
func InitializeAuthzClient(cfg *config.Config, options ...Option) (services.AuthzServiceClient, func(), error) {
	panic(wire.Build(RegistrySet, FactorySet, AuthzSet))
}

// InitializeAuditClient returns a client of the audit service, with all that it needs. The caller calls the function returned to close it all.
func InitializeAuditClient(cfg *config.Config, options ...Option) (services.AuditServiceClient, func(), error) {
	panic(wire.Build(RegistrySet, FactorySet, AuditSet))
}

// InitializeClientsWith is [InitializeClients] over a registry of the caller's, who closes it after calling the function returned.
func InitializeClientsWith(cfg *config.Config, reg registry.ServiceRegistry, options ...Option) (*Clients, func(), error) {
	panic(wire.Build(ClientSet))
}
