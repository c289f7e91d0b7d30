package servicestest

import (
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/0x1d/goplt/pkg/services"
)

// tokenIssuer is who the access tokens say they are from, and the only one they are accepted from.
const tokenIssuer = "goplt"

// accessTokens issues and checks access tokens: JWTs under HMAC-SHA256, since issuer and verifier are one here.
type accessTokens struct {
	key    []byte
	ttl    time.Duration
	parser *jwt.Parser
	now    func() time.Time
}

// accessClaims is the content of an access token.
type accessClaims struct {
	jwt.RegisteredClaims

	Email string   `json:"email"`
	Roles []string `json:"roles,omitempty"`
}

func newAccessTokens(key []byte, ttl time.Duration, now func() time.Time) accessTokens {
	return accessTokens{
		key: key,
		// JWTs are dated in whole seconds.
		ttl: (ttl + time.Second - 1).Truncate(time.Second),
		now: now,
		parser: jwt.NewParser(
			// Pinned: a token does not choose how it is verified ("none", or a public key taken for a shared one).
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithIssuer(tokenIssuer),
			jwt.WithExpirationRequired(),
			jwt.WithStrictDecoding(),
			jwt.WithTimeFunc(now),
		),
	}
}

// issue returns a token for a user and when it expires.
func (a accessTokens) issue(user services.User) (string, time.Time, error) {
	issued := a.now().Truncate(time.Second)
	expires := issued.Add(a.ttl)
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, accessClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			ID:        newID("tok_"),
			Issuer:    tokenIssuer,
			Subject:   user.ID,
			IssuedAt:  jwt.NewNumericDate(issued),
			ExpiresAt: jwt.NewNumericDate(expires),
		},
		Email: user.Email,
		Roles: user.Roles,
	}).SignedString(a.key)
	return token, expires, err
}

// check returns the claims of a token, or an error that says what is wrong with it without showing any of it.
func (a accessTokens) check(token string) (*services.TokenClaims, error) {
	var claims accessClaims
	_, err := a.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return a.key, nil })
	switch {
	case err == nil:
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, services.Errorf(services.ErrUnauthenticated, "access token is malformed")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, services.Errorf(services.ErrUnauthenticated, "access token is forged: its signature does not hold")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return nil, services.Errorf(services.ErrUnauthenticated, "access token is from another issuer")
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, services.Errorf(services.ErrUnauthenticated, "access token is expired")
	default:
		return nil, services.Errorf(services.ErrUnauthenticated, "access token is invalid")
	}
	if claims.Subject == "" || claims.ID == "" || claims.IssuedAt == nil {
		return nil, services.Errorf(services.ErrUnauthenticated, "access token is incomplete")
	}
	return &services.TokenClaims{
		UserID:    claims.Subject,
		Email:     claims.Email,
		Roles:     claims.Roles,
		TokenID:   claims.ID,
		IssuedAt:  claims.IssuedAt.UTC(),
		ExpiresAt: claims.ExpiresAt.UTC(),
	}, nil
}
