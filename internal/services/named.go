package services

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/internal/spelling"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/services"
)

// A client made by name is a handle, for [services.ServiceClient], and the service's own interface.
type (
	authServiceClient struct {
		*handle
		services.AuthServiceClient
	}
	identityServiceClient struct {
		*handle
		services.IdentityServiceClient
	}
	authzServiceClient struct {
		*handle
		services.AuthzServiceClient
	}
	auditServiceClient struct {
		*handle
		services.AuditServiceClient
	}
)

var (
	_ services.ServiceClient = (*authServiceClient)(nil)
	_ services.ServiceClient = (*identityServiceClient)(nil)
	_ services.ServiceClient = (*authzServiceClient)(nil)
	_ services.ServiceClient = (*auditServiceClient)(nil)
)

// newServiceClient returns a client whose Close ends with release.
func (f *Factory) newServiceClient(name string, release func() error) (services.ServiceClient, error) {
	if !slices.Contains(services.Names(), name) {
		return nil, unknownService(name)
	}
	handle := &handle{service: name}
	handle.close = sync.OnceValue(func() error {
		handle.closed.Store(true)
		return release()
	})
	client, err := f.client(name, handle.refuseClosed)
	if err != nil {
		return nil, err
	}
	switch name {
	case services.AuthService:
		return &authServiceClient{handle, NewAuthClient(client)}, nil
	case services.IdentityService:
		return &identityServiceClient{handle, NewIdentityClient(client)}, nil
	case services.AuthzService:
		return &authzServiceClient{handle, NewAuthzClient(client)}, nil
	case services.AuditService:
		return &auditServiceClient{handle, NewAuditClient(client)}, nil
	default:
		return nil, unknownService(name)
	}
}

// handle is what makes a service's client a [services.ServiceClient].
type handle struct {
	service string
	closed  atomic.Bool
	close   func() error
}

// Service implements [services.ServiceClient].
func (h *handle) Service() string { return h.service }

// Close implements [services.ServiceClient].
func (h *handle) Close() error { return h.close() }

// refuseClosed is a [connect.ClientInterceptor] that lets no call pass after Close.
func (h *handle) refuseClosed(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		if h.closed.Load() {
			return nil, connect.NewError(connect.CodeUnavailable, "client is closed").WithCause(rpc.ErrClosed)
		}
		return next(ctx, spec)
	}
}

func unknownService(name string) error {
	names := services.Names()
	text := fmt.Sprintf("unknown service %q; known services: %s", name, strings.Join(names, ", "))
	nearest := slices.MinFunc(names, func(a, b string) int { return spelling.Distance(a, name) - spelling.Distance(b, name) })
	if spelling.Distance(nearest, name) <= 2 {
		text += fmt.Sprintf("; did you mean %q?", nearest)
	}
	return errors.New(text)
}
