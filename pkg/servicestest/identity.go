package servicestest

import (
	"context"
	"net/mail"
	"slices"
	"strings"

	"github.com/0x1d/goplt/pkg/services"
)

// identityService is the identity service of a platform.
type identityService struct{ p *Platform }

var _ services.IdentityServiceClient = identityService{}

// account is a user as the platform keeps it. Its User never holds a password.
type account struct {
	services.User

	passwordHash string
}

// shown returns the user as callers may have it: a copy.
func (a *account) shown() *services.User {
	user := a.User
	user.Roles = slices.Clone(user.Roles)
	return &user
}

// maxEmailBytes is the longest address that mail can be sent to (RFC 5321, section 4.5.3.1.3, less the brackets).
const maxEmailBytes = 254

// normaliseEmail returns the form in which addresses are kept and compared.
func normaliseEmail(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// parseEmail returns an address, normalised, or says what is wrong with it.
func parseEmail(email string) (string, error) {
	normal := normaliseEmail(email)
	if normal == "" {
		return "", services.Errorf(services.ErrInvalidArgument, "email is required")
	}
	parsed, err := mail.ParseAddress(normal)
	// ParseAddress also takes "Ada <ada@example.com>", comments and quoting: only a bare address comes back as it went in.
	if err != nil || parsed.Address != normal || len(normal) > maxEmailBytes {
		return "", services.Errorf(services.ErrInvalidArgument, "email is malformed: it must be like name@example.com")
	}
	return normal, nil
}

// parseUser returns what a user may choose of a user, normalised, or says what is wrong with it.
func parseUser(user services.User) (email, name string, roles []string, err error) {
	if email, err = parseEmail(user.Email); err != nil {
		return "", "", nil, err
	}
	if name = strings.TrimSpace(user.Name); name == "" {
		return "", "", nil, services.Errorf(services.ErrInvalidArgument, "name is required")
	}
	for _, role := range user.Roles {
		if role = strings.TrimSpace(role); role == "" {
			return "", "", nil, services.Errorf(services.ErrInvalidArgument, "roles must not be empty")
		}
		if !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	return email, name, roles, nil
}

func errNoUserWithID(id string) error {
	return services.Errorf(services.ErrNotFound, "no user has the ID %q", id)
}

func errEmailTaken() error {
	return services.Errorf(services.ErrAlreadyExists, "email is taken by another user")
}

// GetUser implements [services.IdentityServiceClient].
func (s identityService) GetUser(ctx context.Context, id string) (*services.User, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	s.p.mu.RLock()
	defer s.p.mu.RUnlock()
	user, ok := s.p.users[id]
	if !ok {
		return nil, errNoUserWithID(id)
	}
	return user.shown(), nil
}

// GetUserByEmail implements [services.IdentityServiceClient].
func (s identityService) GetUserByEmail(ctx context.Context, email string) (*services.User, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	email, err := parseEmail(email)
	if err != nil {
		return nil, err
	}
	s.p.mu.RLock()
	defer s.p.mu.RUnlock()
	user, ok := s.p.byEmail[email]
	if !ok {
		return nil, services.Errorf(services.ErrNotFound, "no user has this email")
	}
	return user.shown(), nil
}

// CreateUser implements [services.IdentityServiceClient].
func (s identityService) CreateUser(ctx context.Context, user services.User) (*services.User, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	email, name, roles, err := parseUser(user)
	if err != nil {
		return nil, err
	}
	if err := checkNewPassword(user.Password); err != nil {
		return nil, err
	}
	hash, err := s.p.passwords.hash(ctx, user.Password)
	if err != nil {
		return nil, err
	}
	now := s.p.now()
	created := &account{passwordHash: hash, User: services.User{
		ID: newID("usr_"), Email: email, Name: name, Roles: roles, CreatedAt: now, UpdatedAt: now,
	}}
	shown, message, err := s.p.add(created)
	if err != nil {
		return nil, err
	}
	s.p.outbox.send(message)
	return shown, nil
}

// add puts a user in and returns what to show and what to send.
func (p *Platform) add(created *account) (*services.User, Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.byEmail[created.Email]; taken {
		return nil, Message{}, errEmailTaken()
	}
	p.users[created.ID] = created
	p.byEmail[created.Email] = created
	return created.shown(), p.newOneTimeToken(EmailVerification, created), nil
}

// UpdateUser implements [services.IdentityServiceClient].
func (s identityService) UpdateUser(ctx context.Context, id string, user services.User) (*services.User, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	email, name, roles, err := parseUser(user)
	if err != nil {
		return nil, err
	}
	shown, message, err := s.p.update(id, email, name, roles)
	if err != nil {
		return nil, err
	}
	if message.Token != "" {
		s.p.outbox.send(message)
	}
	return shown, nil
}

// update changes a user and returns what to show and, if its token is not empty, what to send.
func (p *Platform) update(id, email, name string, roles []string) (*services.User, Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	user, ok := p.users[id]
	if !ok {
		return nil, Message{}, errNoUserWithID(id)
	}
	if other, taken := p.byEmail[email]; taken && other != user {
		return nil, Message{}, errEmailTaken()
	}
	if user.Email == email && user.Name == name && slices.Equal(user.Roles, roles) {
		// Nothing changes, UpdatedAt neither: repeating an update leaves the same user.
		return user.shown(), Message{}, nil
	}
	moved := user.Email != email
	delete(p.byEmail, user.Email)
	p.byEmail[email] = user
	user.Email, user.Name, user.Roles, user.UpdatedAt = email, name, roles, p.now()
	if !moved {
		return user.shown(), Message{}, nil
	}
	// Whatever was sent to the old address proves nothing about the new one, and must not open the account any more.
	user.EmailVerified = false
	p.dropOneTimeTokens(EmailVerification, id)
	p.dropOneTimeTokens(PasswordReset, id)
	return user.shown(), p.newOneTimeToken(EmailVerification, user), nil
}

// DeleteUser implements [services.IdentityServiceClient].
func (s identityService) DeleteUser(ctx context.Context, id string) error {
	if err := alive(ctx); err != nil {
		return err
	}
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	user, ok := p.users[id]
	if !ok {
		return errNoUserWithID(id)
	}
	delete(p.users, id)
	delete(p.byEmail, user.Email)
	delete(p.grants, id)
	p.endSessions(id)
	p.dropOneTimeTokens(EmailVerification, id)
	p.dropOneTimeTokens(PasswordReset, id)
	return nil
}

// VerifyEmail implements [services.IdentityServiceClient].
func (s identityService) VerifyEmail(ctx context.Context, token string) error {
	if err := alive(ctx); err != nil {
		return err
	}
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	user := p.oneTimeUser(EmailVerification, token)
	if user == nil {
		return services.Errorf(services.ErrUnauthenticated, "verification token is unknown, expired or used")
	}
	p.dropOneTimeTokens(EmailVerification, user.ID)
	user.EmailVerified, user.UpdatedAt = true, p.now()
	return nil
}

// RequestPasswordReset implements [services.IdentityServiceClient].
func (s identityService) RequestPasswordReset(ctx context.Context, email string) error {
	if err := alive(ctx); err != nil {
		return err
	}
	email, err := parseEmail(email)
	if err != nil {
		return err
	}
	p := s.p
	p.mu.Lock()
	user, ok := p.byEmail[email]
	if !ok {
		p.mu.Unlock()
		return nil
	}
	message := p.newOneTimeToken(PasswordReset, user)
	p.mu.Unlock()
	p.outbox.send(message)
	return nil
}

// ResetPassword implements [services.IdentityServiceClient].
func (s identityService) ResetPassword(ctx context.Context, token, newPassword string) error {
	if err := alive(ctx); err != nil {
		return err
	}
	// First, so that a password that is refused does not use up the token.
	if err := checkNewPassword(newPassword); err != nil {
		return err
	}
	p := s.p
	// Before the work of hashing, which a wrong token shall not cause, and again after it, since only one call may use the token.
	p.mu.RLock()
	user := p.oneTimeUser(PasswordReset, token)
	p.mu.RUnlock()
	if user == nil {
		return errResetTokenInvalid()
	}
	hash, err := p.passwords.hash(ctx, newPassword)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if user = p.oneTimeUser(PasswordReset, token); user == nil {
		return errResetTokenInvalid()
	}
	p.dropOneTimeTokens(PasswordReset, user.ID)
	p.endSessions(user.ID)
	user.passwordHash, user.UpdatedAt = hash, p.now()
	return nil
}

func errResetTokenInvalid() error {
	return services.Errorf(services.ErrUnauthenticated, "reset token is unknown, expired or used")
}
