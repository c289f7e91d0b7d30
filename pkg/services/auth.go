package services

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// AuthServiceClient signs users in and issues, rotates and checks their tokens. Safe for concurrent use.
type AuthServiceClient interface {
	// Login exchanges an email address and a password for a pair of tokens. Wrong credentials are [ErrUnauthenticated], whichever of
	// the two is wrong; an empty email or password is [ErrInvalidArgument]. Not idempotent: never sent twice.
	Login(ctx context.Context, email, password string) (*TokenResponse, error)

	// RefreshToken exchanges a refresh token for a new pair and invalidates the old one. A token that is unknown, expired or was used
	// before is [ErrUnauthenticated]; one used before also ends its session, because one of its two holders stole it. Not idempotent.
	RefreshToken(ctx context.Context, refreshToken string) (*TokenResponse, error)

	// ValidateToken returns the claims of an access token, or [ErrUnauthenticated] if it is malformed, forged or expired.
	ValidateToken(ctx context.Context, token string) (*TokenClaims, error)
}

// TokenResponse is the pair of tokens of a session. Its tokens are secrets: String, LogValue and encoding/json leave them out, so that a
// log that prints or marshals what it is given cannot show them. Copy them out to hand them on.
type TokenResponse struct {
	// AccessToken authenticates calls until ExpiresAt.
	AccessToken string `json:"-"`
	// RefreshToken obtains the next pair, once.
	RefreshToken string `json:"-"`
	// TokenType is the scheme to send the access token with, "Bearer".
	TokenType string
	// ExpiresAt is when the access token stops being valid.
	ExpiresAt time.Time
}

// String describes the pair without its tokens.
func (t TokenResponse) String() string {
	return fmt.Sprintf("%s token expiring %s", t.TokenType, t.ExpiresAt.UTC().Format(time.RFC3339))
}

// GoString is [TokenResponse.String], so that %#v hides the tokens too.
func (t TokenResponse) GoString() string { return t.String() }

// LogValue describes the pair without its tokens.
func (t TokenResponse) LogValue() slog.Value {
	return slog.GroupValue(slog.String("token_type", t.TokenType), slog.Time("expires_at", t.ExpiresAt))
}

// TokenClaims is what a valid access token says of its owner.
type TokenClaims struct {
	// UserID is the user the token was issued to.
	UserID string
	// Email is the user's address when the token was issued.
	Email string
	// Roles are the user's roles when the token was issued.
	Roles []string
	// TokenID is unique to the token.
	TokenID string
	// IssuedAt is when the token was issued.
	IssuedAt time.Time
	// ExpiresAt is when the token stops being valid.
	ExpiresAt time.Time
}

// HasRole reports whether the token was issued to a holder of role.
func (c TokenClaims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }
