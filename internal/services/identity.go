package services

import (
	"context"
	"log/slog"
	"slices"

	"connectrpc.com/connect/v2"

	identityv1 "github.com/0x1d/goplt/gen/goplt/identity/v1"
	"github.com/0x1d/goplt/gen/goplt/identity/v1/identityv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

type identityClient struct {
	rpc identityv1connect.IdentityServiceClient
}

var _ services.IdentityServiceClient = (*identityClient)(nil)

// NewIdentityClient returns a client of the identity service that calls through client.
func NewIdentityClient(client *connect.Client) services.IdentityServiceClient {
	return &identityClient{rpc: identityv1connect.NewIdentityServiceClient(client)}
}

// GetUser implements [services.IdentityServiceClient].
func (c *identityClient) GetUser(ctx context.Context, id string) (*services.User, error) {
	res, err := call(ctx, "identity.GetUser", c.rpc, identityv1connect.IdentityServiceClient.GetUser, &identityv1.GetUserRequest{Id: id})
	return userFromProto(res.GetUser()), err
}

// GetUserByEmail implements [services.IdentityServiceClient].
func (c *identityClient) GetUserByEmail(ctx context.Context, email string) (*services.User, error) {
	res, err := call(ctx, "identity.GetUserByEmail", c.rpc, identityv1connect.IdentityServiceClient.GetUserByEmail,
		&identityv1.GetUserByEmailRequest{Email: email})
	return userFromProto(res.GetUser()), err
}

// CreateUser implements [services.IdentityServiceClient].
func (c *identityClient) CreateUser(ctx context.Context, user services.User) (*services.User, error) {
	res, err := call(ctx, "identity.CreateUser", c.rpc, identityv1connect.IdentityServiceClient.CreateUser,
		&identityv1.CreateUserRequest{User: userToProto(&user)})
	return userFromProto(res.GetUser()), err
}

// UpdateUser implements [services.IdentityServiceClient]. A password in user is not sent, because it would be ignored.
func (c *identityClient) UpdateUser(ctx context.Context, id string, user services.User) (*services.User, error) {
	user.Password = ""
	res, err := call(ctx, "identity.UpdateUser", c.rpc, identityv1connect.IdentityServiceClient.UpdateUser,
		&identityv1.UpdateUserRequest{Id: id, User: userToProto(&user)})
	return userFromProto(res.GetUser()), err
}

// DeleteUser implements [services.IdentityServiceClient].
func (c *identityClient) DeleteUser(ctx context.Context, id string) error {
	_, err := call(ctx, "identity.DeleteUser", c.rpc, identityv1connect.IdentityServiceClient.DeleteUser, &identityv1.DeleteUserRequest{Id: id})
	return err
}

// VerifyEmail implements [services.IdentityServiceClient].
func (c *identityClient) VerifyEmail(ctx context.Context, token string) error {
	_, err := call(ctx, "identity.VerifyEmail", c.rpc, identityv1connect.IdentityServiceClient.VerifyEmail,
		&identityv1.VerifyEmailRequest{Token: token})
	return err
}

// RequestPasswordReset implements [services.IdentityServiceClient].
func (c *identityClient) RequestPasswordReset(ctx context.Context, email string) error {
	_, err := call(ctx, "identity.RequestPasswordReset", c.rpc, identityv1connect.IdentityServiceClient.RequestPasswordReset,
		&identityv1.RequestPasswordResetRequest{Email: email})
	return err
}

// ResetPassword implements [services.IdentityServiceClient].
func (c *identityClient) ResetPassword(ctx context.Context, token, newPassword string) error {
	_, err := call(ctx, "identity.ResetPassword", c.rpc, identityv1connect.IdentityServiceClient.ResetPassword,
		&identityv1.ResetPasswordRequest{Token: token, NewPassword: newPassword})
	return err
}

type identityHandler struct {
	impl   services.IdentityServiceClient
	logger *slog.Logger
}

var _ identityv1connect.IdentityServiceHandler = (*identityHandler)(nil)

// RegisterIdentity makes server answer the calls of the identity service with impl. What callers must not learn of its failures goes to
// logger, [slog.Default] if it is nil. A password in a user that impl returns is not sent.
func RegisterIdentity(server *connect.Server, impl services.IdentityServiceClient, logger *slog.Logger) {
	identityv1connect.RegisterIdentityServiceHandler(server, &identityHandler{impl: impl, logger: logger})
}

// GetUser implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) GetUser(ctx context.Context, req *identityv1.GetUserRequest) (*identityv1.GetUserResponse, error) {
	user, err := h.impl.GetUser(ctx, req.GetId())
	return reply(ctx, h.logger, &identityv1.GetUserResponse{User: withoutPassword(userToProto(user))}, err)
}

// GetUserByEmail implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) GetUserByEmail(
	ctx context.Context, req *identityv1.GetUserByEmailRequest,
) (*identityv1.GetUserByEmailResponse, error) {
	user, err := h.impl.GetUserByEmail(ctx, req.GetEmail())
	return reply(ctx, h.logger, &identityv1.GetUserByEmailResponse{User: withoutPassword(userToProto(user))}, err)
}

// CreateUser implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) CreateUser(ctx context.Context, req *identityv1.CreateUserRequest) (*identityv1.CreateUserResponse, error) {
	user, err := h.impl.CreateUser(ctx, orZero(userFromProto(req.GetUser())))
	return reply(ctx, h.logger, &identityv1.CreateUserResponse{User: withoutPassword(userToProto(user))}, err)
}

// UpdateUser implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) UpdateUser(ctx context.Context, req *identityv1.UpdateUserRequest) (*identityv1.UpdateUserResponse, error) {
	user, err := h.impl.UpdateUser(ctx, req.GetId(), orZero(userFromProto(req.GetUser())))
	return reply(ctx, h.logger, &identityv1.UpdateUserResponse{User: withoutPassword(userToProto(user))}, err)
}

// DeleteUser implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) DeleteUser(ctx context.Context, req *identityv1.DeleteUserRequest) (*identityv1.DeleteUserResponse, error) {
	err := h.impl.DeleteUser(ctx, req.GetId())
	return reply(ctx, h.logger, &identityv1.DeleteUserResponse{}, err)
}

// VerifyEmail implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) VerifyEmail(ctx context.Context, req *identityv1.VerifyEmailRequest) (*identityv1.VerifyEmailResponse, error) {
	err := h.impl.VerifyEmail(ctx, req.GetToken())
	return reply(ctx, h.logger, &identityv1.VerifyEmailResponse{}, err)
}

// RequestPasswordReset implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) RequestPasswordReset(
	ctx context.Context, req *identityv1.RequestPasswordResetRequest,
) (*identityv1.RequestPasswordResetResponse, error) {
	err := h.impl.RequestPasswordReset(ctx, req.GetEmail())
	return reply(ctx, h.logger, &identityv1.RequestPasswordResetResponse{}, err)
}

// ResetPassword implements [identityv1connect.IdentityServiceHandler].
func (h *identityHandler) ResetPassword(
	ctx context.Context, req *identityv1.ResetPasswordRequest,
) (*identityv1.ResetPasswordResponse, error) {
	err := h.impl.ResetPassword(ctx, req.GetToken(), req.GetNewPassword())
	return reply(ctx, h.logger, &identityv1.ResetPasswordResponse{}, err)
}

// userToProto copies the roles: the caller may change its slice when the call has returned, while a cancelled attempt still holds the message.
func userToProto(user *services.User) *identityv1.User {
	if user == nil {
		return nil
	}
	return &identityv1.User{
		Id:            user.ID,
		Email:         user.Email,
		Name:          user.Name,
		Password:      user.Password,
		Roles:         slices.Clone(user.Roles),
		EmailVerified: user.EmailVerified,
		CreatedAt:     timeToProto(user.CreatedAt),
		UpdatedAt:     timeToProto(user.UpdatedAt),
	}
}

func userFromProto(user *identityv1.User) *services.User {
	if user == nil {
		return nil
	}
	return &services.User{
		ID:            user.GetId(),
		Email:         user.GetEmail(),
		Name:          user.GetName(),
		Password:      user.GetPassword(),
		Roles:         user.GetRoles(),
		EmailVerified: user.GetEmailVerified(),
		CreatedAt:     timeFromProto(user.GetCreatedAt()),
		UpdatedAt:     timeFromProto(user.GetUpdatedAt()),
	}
}

// withoutPassword keeps a password that an implementation forgot to clear, or its hash, from being sent.
func withoutPassword(user *identityv1.User) *identityv1.User {
	if user != nil {
		user.Password = ""
	}
	return user
}

// orZero returns the zero value for a message that the request does not hold, which the implementation judges like any other.
func orZero[T any](value *T) T {
	if value == nil {
		return *new(T)
	}
	return *value
}
