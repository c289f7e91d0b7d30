package services

import (
	"context"
	"log/slog"

	"connectrpc.com/connect/v2"

	authzv1 "github.com/0x1d/goplt/gen/goplt/authz/v1"
	"github.com/0x1d/goplt/gen/goplt/authz/v1/authzv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

type authzClient struct {
	rpc authzv1connect.AuthzServiceClient
}

var _ services.AuthzServiceClient = (*authzClient)(nil)

// NewAuthzClient returns a client of the authz service that calls through client.
func NewAuthzClient(client *connect.Client) services.AuthzServiceClient {
	return &authzClient{rpc: authzv1connect.NewAuthzServiceClient(client)}
}

// Authorize implements [services.AuthzServiceClient].
func (c *authzClient) Authorize(ctx context.Context, userID, permission string) error {
	_, err := call(ctx, "authz.Authorize", c.rpc, authzv1connect.AuthzServiceClient.Authorize,
		&authzv1.AuthorizeRequest{UserId: userID, Permission: permission})
	return err
}

// HasPermission implements [services.AuthzServiceClient].
func (c *authzClient) HasPermission(ctx context.Context, userID, permission string) (bool, error) {
	res, err := call(ctx, "authz.HasPermission", c.rpc, authzv1connect.AuthzServiceClient.HasPermission,
		&authzv1.HasPermissionRequest{UserId: userID, Permission: permission})
	return res.GetAllowed(), err
}

// GetUserPermissions implements [services.AuthzServiceClient].
func (c *authzClient) GetUserPermissions(ctx context.Context, userID string) ([]services.Permission, error) {
	res, err := call(ctx, "authz.GetUserPermissions", c.rpc, authzv1connect.AuthzServiceClient.GetUserPermissions,
		&authzv1.GetUserPermissionsRequest{UserId: userID})
	return permissionsFromProto(res.GetPermissions()), err
}

type authzHandler struct {
	impl   services.AuthzServiceClient
	logger *slog.Logger
}

var _ authzv1connect.AuthzServiceHandler = (*authzHandler)(nil)

// RegisterAuthz makes server answer the calls of the authz service with impl. What callers must not learn of its failures goes to
// logger, [slog.Default] if it is nil.
func RegisterAuthz(server *connect.Server, impl services.AuthzServiceClient, logger *slog.Logger) {
	authzv1connect.RegisterAuthzServiceHandler(server, &authzHandler{impl: impl, logger: logger})
}

// Authorize implements [authzv1connect.AuthzServiceHandler].
func (h *authzHandler) Authorize(ctx context.Context, req *authzv1.AuthorizeRequest) (*authzv1.AuthorizeResponse, error) {
	err := h.impl.Authorize(ctx, req.GetUserId(), req.GetPermission())
	return reply(ctx, h.logger, &authzv1.AuthorizeResponse{}, err)
}

// HasPermission implements [authzv1connect.AuthzServiceHandler].
func (h *authzHandler) HasPermission(ctx context.Context, req *authzv1.HasPermissionRequest) (*authzv1.HasPermissionResponse, error) {
	allowed, err := h.impl.HasPermission(ctx, req.GetUserId(), req.GetPermission())
	return reply(ctx, h.logger, &authzv1.HasPermissionResponse{Allowed: allowed}, err)
}

// GetUserPermissions implements [authzv1connect.AuthzServiceHandler].
func (h *authzHandler) GetUserPermissions(
	ctx context.Context, req *authzv1.GetUserPermissionsRequest,
) (*authzv1.GetUserPermissionsResponse, error) {
	permissions, err := h.impl.GetUserPermissions(ctx, req.GetUserId())
	return reply(ctx, h.logger, &authzv1.GetUserPermissionsResponse{Permissions: permissionsToProto(permissions)}, err)
}

func permissionsToProto(permissions []services.Permission) []*authzv1.Permission {
	if len(permissions) == 0 {
		return nil
	}
	converted := make([]*authzv1.Permission, len(permissions))
	for i, permission := range permissions {
		converted[i] = &authzv1.Permission{Resource: permission.Resource, Action: permission.Action}
	}
	return converted
}

func permissionsFromProto(permissions []*authzv1.Permission) []services.Permission {
	if len(permissions) == 0 {
		return nil
	}
	converted := make([]services.Permission, len(permissions))
	for i, permission := range permissions {
		converted[i] = services.Permission{Resource: permission.GetResource(), Action: permission.GetAction()}
	}
	return converted
}
