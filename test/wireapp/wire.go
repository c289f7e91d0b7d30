//go:build wireinject

package wireapp

import (
	"log/slog"

	"github.com/google/wire"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
)

// InitializeDoor builds the application. The whole of goplt comes by one name; what the application does not take is not made.
func InitializeDoor(cfg *config.Config) (*Door, func(), error) {
	panic(wire.Build(goplt.ProviderSet, NewDoor))
}

// InitializeDoorWithOptions builds the application with options for goplt, which it makes from its own types.
func InitializeDoorWithOptions(cfg *config.Config, logger *slog.Logger, token Token) (*Door, func(), error) {
	panic(wire.Build(goplt.RegistrySet, goplt.ClientSet, newOptions, NewDoor))
}

// InitializeDoorWith builds the application with a registry of its own, and the sets of the two clients that it takes.
func InitializeDoorWith(cfg *config.Config, reg registry.ServiceRegistry) (*Door, func(), error) {
	panic(wire.Build(goplt.FactorySet, goplt.AuthSet, goplt.AuditSet, goplt.DefaultOptions, NewDoor))
}
