package servicestest

import (
	"context"
	"fmt"

	"github.com/0x1d/goplt/pkg/services"
)

// authService is the auth service of a platform.
type authService struct{ p *Platform }

var _ services.AuthServiceClient = authService{}

// session is what one login began: a family of refresh tokens of which each replaced the one before.
type session struct{ userID string }

// refreshToken is what a refresh token stands for. A rotated one is kept until it expires, so that its reuse is noticed.
type refreshToken struct {
	session *session
	rotated bool
}

// errWrongCredentials is all that a failed login says, so that nobody learns which addresses have accounts.
func errWrongCredentials() error {
	return services.Errorf(services.ErrUnauthenticated, "email or password is wrong")
}

func errRefreshTokenInvalid() error {
	return services.Errorf(services.ErrUnauthenticated, "refresh token is unknown or expired")
}

// Login implements [services.AuthServiceClient].
func (s authService) Login(ctx context.Context, email, password string) (*services.TokenResponse, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	if email == "" {
		return nil, services.Errorf(services.ErrInvalidArgument, "email is required")
	}
	if password == "" {
		return nil, services.Errorf(services.ErrInvalidArgument, "password is required")
	}
	p := s.p
	var id, hash string
	p.mu.RLock()
	if user, ok := p.byEmail[normaliseEmail(email)]; ok {
		id, hash = user.ID, user.passwordHash
	}
	p.mu.RUnlock()

	// Without the lock, since it is meant to take long; and for an unknown address too, so that it takes just as long.
	fits, err := p.passwords.verify(ctx, hash, password)
	if err != nil {
		return nil, err
	}
	if !fits {
		return nil, errWrongCredentials()
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	user, ok := p.users[id]
	if !ok || user.passwordHash != hash {
		// Deleted, or given another password, while this one was verified.
		return nil, errWrongCredentials()
	}
	return p.issueTokens(&session{userID: id}, user)
}

// RefreshToken implements [services.AuthServiceClient].
func (s authService) RefreshToken(ctx context.Context, token string) (*services.TokenResponse, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.refresh.find(token, p.now())
	if !ok {
		return nil, errRefreshTokenInvalid()
	}
	if found.rotated {
		p.refresh.forget(func(other *refreshToken) bool { return other.session == found.session })
		return nil, services.Errorf(services.ErrUnauthenticated, "refresh token was used before: its session is ended")
	}
	user, ok := p.users[found.session.userID]
	if !ok {
		return nil, errRefreshTokenInvalid()
	}
	tokens, err := p.issueTokens(found.session, user)
	if err != nil {
		return nil, err
	}
	found.rotated = true
	return tokens, nil
}

// ValidateToken implements [services.AuthServiceClient].
func (s authService) ValidateToken(ctx context.Context, token string) (*services.TokenClaims, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	return s.p.access.check(token)
}

// issueTokens makes the next pair of a session. The caller holds the lock.
func (p *Platform) issueTokens(of *session, user *account) (*services.TokenResponse, error) {
	access, expires, err := p.access.issue(user.User)
	if err != nil {
		return nil, fmt.Errorf("sign the access token of user %s: %w", user.ID, err)
	}
	return &services.TokenResponse{
		AccessToken:  access,
		RefreshToken: p.refresh.add(&refreshToken{session: of}, p.now(), p.settings.refreshTTL),
		TokenType:    "Bearer",
		ExpiresAt:    expires,
	}, nil
}

// endSessions makes all refresh tokens of a user useless. The caller holds the lock.
func (p *Platform) endSessions(userID string) {
	p.refresh.forget(func(token *refreshToken) bool { return token.session.userID == userID })
}
