package services

import (
	"context"
	"log/slog"

	"connectrpc.com/connect/v2"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

type authClient struct {
	rpc authv1connect.AuthServiceClient
}

var _ services.AuthServiceClient = (*authClient)(nil)

// NewAuthClient returns a client of the auth service that calls through client.
func NewAuthClient(client *connect.Client) services.AuthServiceClient {
	return &authClient{rpc: authv1connect.NewAuthServiceClient(client)}
}

// Login implements [services.AuthServiceClient].
func (c *authClient) Login(ctx context.Context, email, password string) (*services.TokenResponse, error) {
	res, err := call(ctx, "auth.Login", c.rpc, authv1connect.AuthServiceClient.Login, &authv1.LoginRequest{Email: email, Password: password})
	return tokensFromProto(res.GetTokens()), err
}

// RefreshToken implements [services.AuthServiceClient].
func (c *authClient) RefreshToken(ctx context.Context, refreshToken string) (*services.TokenResponse, error) {
	res, err := call(ctx, "auth.RefreshToken", c.rpc, authv1connect.AuthServiceClient.RefreshToken,
		&authv1.RefreshTokenRequest{RefreshToken: refreshToken})
	return tokensFromProto(res.GetTokens()), err
}

// ValidateToken implements [services.AuthServiceClient].
func (c *authClient) ValidateToken(ctx context.Context, token string) (*services.TokenClaims, error) {
	res, err := call(ctx, "auth.ValidateToken", c.rpc, authv1connect.AuthServiceClient.ValidateToken, &authv1.ValidateTokenRequest{Token: token})
	return claimsFromProto(res.GetClaims()), err
}

type authHandler struct {
	impl   services.AuthServiceClient
	logger *slog.Logger
}

var _ authv1connect.AuthServiceHandler = (*authHandler)(nil)

// RegisterAuth makes server answer the calls of the auth service with impl. What callers must not learn of its failures goes to logger,
// [slog.Default] if it is nil.
func RegisterAuth(server *connect.Server, impl services.AuthServiceClient, logger *slog.Logger) {
	authv1connect.RegisterAuthServiceHandler(server, &authHandler{impl: impl, logger: logger})
}

// Login implements [authv1connect.AuthServiceHandler].
func (h *authHandler) Login(ctx context.Context, req *authv1.LoginRequest) (*authv1.LoginResponse, error) {
	tokens, err := h.impl.Login(ctx, req.GetEmail(), req.GetPassword())
	return reply(ctx, h.logger, &authv1.LoginResponse{Tokens: tokensToProto(tokens)}, err)
}

// RefreshToken implements [authv1connect.AuthServiceHandler].
func (h *authHandler) RefreshToken(ctx context.Context, req *authv1.RefreshTokenRequest) (*authv1.RefreshTokenResponse, error) {
	tokens, err := h.impl.RefreshToken(ctx, req.GetRefreshToken())
	return reply(ctx, h.logger, &authv1.RefreshTokenResponse{Tokens: tokensToProto(tokens)}, err)
}

// ValidateToken implements [authv1connect.AuthServiceHandler].
func (h *authHandler) ValidateToken(ctx context.Context, req *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	claims, err := h.impl.ValidateToken(ctx, req.GetToken())
	return reply(ctx, h.logger, &authv1.ValidateTokenResponse{Claims: claimsToProto(claims)}, err)
}

func tokensToProto(tokens *services.TokenResponse) *authv1.TokenPair {
	if tokens == nil {
		return nil
	}
	return &authv1.TokenPair{
		AccessToken:  tokens.AccessToken,
		RefreshToken: tokens.RefreshToken,
		TokenType:    tokens.TokenType,
		ExpiresAt:    timeToProto(tokens.ExpiresAt),
	}
}

func tokensFromProto(pair *authv1.TokenPair) *services.TokenResponse {
	if pair == nil {
		return nil
	}
	return &services.TokenResponse{
		AccessToken:  pair.GetAccessToken(),
		RefreshToken: pair.GetRefreshToken(),
		TokenType:    pair.GetTokenType(),
		ExpiresAt:    timeFromProto(pair.GetExpiresAt()),
	}
}

func claimsToProto(claims *services.TokenClaims) *authv1.TokenClaims {
	if claims == nil {
		return nil
	}
	return &authv1.TokenClaims{
		UserId:    claims.UserID,
		Email:     claims.Email,
		Roles:     claims.Roles,
		TokenId:   claims.TokenID,
		IssuedAt:  timeToProto(claims.IssuedAt),
		ExpiresAt: timeToProto(claims.ExpiresAt),
	}
}

func claimsFromProto(claims *authv1.TokenClaims) *services.TokenClaims {
	if claims == nil {
		return nil
	}
	return &services.TokenClaims{
		UserID:    claims.GetUserId(),
		Email:     claims.GetEmail(),
		Roles:     claims.GetRoles(),
		TokenID:   claims.GetTokenId(),
		IssuedAt:  timeFromProto(claims.GetIssuedAt()),
		ExpiresAt: timeFromProto(claims.GetExpiresAt()),
	}
}
