package services

import "io"

// The names of the core services, as registries, configuration and factories know them.
const (
	AuthService     = "auth"
	IdentityService = "identity"
	AuthzService    = "authz"
	AuditService    = "audit"
)

// Names returns the names of the core services, in the order in which they are documented.
func Names() []string {
	return []string{AuthService, IdentityService, AuthzService, AuditService}
}

// ServiceClient is a client of one named service, as a factory returns it before the caller has said which interface it wants. The
// value also implements that service's interface: assert client.(services.AuthServiceClient) and so on. It is pooled and stateless,
// and safe for concurrent use.
type ServiceClient interface {
	// Service returns the name that the client was made for, such as "auth".
	Service() string

	// Close makes the client refuse further calls. A client that was made by itself owns what it uses: its Close then waits for calls in
	// flight, up to the configured drain time, and releases connections and the watch on the registry. What the clients of a factory share is
	// released by closing the factory. Close may be called more than once and concurrently; each call returns the same error.
	io.Closer
}
