// Package goplt gives a program typed clients of the platform's core services, auth, identity, authz and audit, and any other Connect
// service the same machinery: found in Consul, spoken to by gRPC or, where that cannot get through, by Connect/JSON over HTTP, and repeated
// where that is safe.
//
//	cfg, err := config.Load("goplt.yaml", os.Environ())
//	...
//	clients, cleanup, err := goplt.InitializeClients(cfg)
//	...
//	defer cleanup()
//	claims, err := clients.Auth.ValidateToken(ctx, token)
//
// The same by hand, with each part at its caller's disposal:
//
//	config.Config ─▶ NewRegistry ─▶ registry.ServiceRegistry      where instances are
//	      └─────────────▶ NewFactory ─▶ *Factory                  connections, one transport per service
//	                          ├─▶ NewClients ─▶ *Clients          all four clients
//	                          └─▶ NewAuthClient, …                or one of them
//
// In a Wire graph (github.com/google/wire) these constructors are providers: [ProviderSet] provides all from a *config.Config. An application names
// it in wire.Build and takes a *[Clients], or any of the four interfaces of package services, as it takes its own types.
//
// Nothing here connects to anything before the first call. A cleanup function closes what its constructor made, and waits for it: clients first,
// which lets calls under way finish, then the registry. Wire calls them in that order.
//
// A server of these services implements the interfaces of package services, passes the implementations to [RegisterAuthService] and its
// siblings, and is hosted by [github.com/0x1d/goplt/pkg/rpc.Server].
package goplt

import (
	"log/slog"

	"connectrpc.com/connect/v2"

	internal "github.com/0x1d/goplt/internal/services"
	"github.com/0x1d/goplt/pkg/services"
)

// Clients holds a client of each core service. Its fields are interfaces: a test, or a program that hosts a service itself, puts its own in.
type Clients struct {
	// Auth signs users in and checks their tokens.
	Auth services.AuthServiceClient
	// Identity keeps users.
	Identity services.IdentityServiceClient
	// Authz tells who may do what.
	Authz services.AuthzServiceClient
	// Audit keeps a log of who did what.
	Audit services.AuditServiceClient
}

// Option changes what a constructor of this package makes. Options that do not concern it are passed over, so that one list serves all.
type Option interface{ apply(settings *settings) }

type settings struct {
	logger       *slog.Logger
	interceptors []connect.ClientInterceptor
	inProcess    *connect.Server
}

type option func(*settings)

func (o option) apply(settings *settings) { o(settings) }

func settingsOf(options []Option) settings {
	var all settings
	for _, option := range options {
		option.apply(&all)
	}
	return all
}

// WithLogger has changes of state logged: instances that come and go, Consul out of reach and back, fallbacks to HTTP. Without it the
// registry of Consul logs to [slog.Default], and clients log nothing.
func WithLogger(logger *slog.Logger) Option {
	return option(func(settings *settings) { settings.logger = logger })
}

// WithInterceptors wraps every call of every client, the first outermost, with all its attempts. Given twice, the later ones are within.
// [NewTransport] has no use for them: pass them to [connect.NewClient].
func WithInterceptors(interceptors ...connect.ClientInterceptor) Option {
	return option(func(settings *settings) { settings.interceptors = append(settings.interceptors, interceptors...) })
}

// WithInProcess gives services whose protocol is inprocess the server in this process that answers their calls.
func WithInProcess(server *connect.Server) Option {
	return option(func(settings *settings) { settings.inProcess = server })
}

// ServerErrors returns an interceptor for the [connect.NewServer] that hosts services of one's own: their handlers then fail with the sentinels
// of package services, alone or by services.Errorf, as the core services do, and any other error reaches its caller as internal and goes to
// logger, [slog.Default] if it is nil.
func ServerErrors(logger *slog.Logger) connect.ServerInterceptor {
	return internal.ServerErrors(logger)
}

// ClientErrors returns an interceptor for the [connect.NewClient] of a service of one's own: its errors then match the sentinels of package
// services under errors.Is, as those of the core services do.
func ClientErrors() connect.ClientInterceptor { return internal.ClientErrors() }

// RegisterAuthService makes server answer the calls of the auth service with impl. A failure that callers must not learn of goes to logger,
// [slog.Default] if it is nil. The same holds for its siblings.
func RegisterAuthService(server *connect.Server, impl services.AuthServiceClient, logger *slog.Logger) {
	internal.RegisterAuth(server, impl, logger)
}

// RegisterIdentityService makes server answer the calls of the identity service with impl. A password in a user that impl returns is not sent.
func RegisterIdentityService(server *connect.Server, impl services.IdentityServiceClient, logger *slog.Logger) {
	internal.RegisterIdentity(server, impl, logger)
}

// RegisterAuthzService makes server answer the calls of the authz service with impl.
func RegisterAuthzService(server *connect.Server, impl services.AuthzServiceClient, logger *slog.Logger) {
	internal.RegisterAuthz(server, impl, logger)
}

// RegisterAuditService makes server answer the calls of the audit service with impl. An action whose caller left out the ID reaches impl
// without one.
func RegisterAuditService(server *connect.Server, impl services.AuditServiceClient, logger *slog.Logger) {
	internal.RegisterAudit(server, impl, logger)
}
