package services

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// IdentityServiceClient keeps the users of the platform. Safe for concurrent use.
type IdentityServiceClient interface {
	// GetUser returns the user with an ID, or [ErrNotFound].
	GetUser(ctx context.Context, id string) (*User, error)

	// GetUserByEmail returns the user with an email address, compared without regard to case, or [ErrNotFound]. An empty or malformed
	// address is [ErrInvalidArgument].
	GetUserByEmail(ctx context.Context, email string) (*User, error)

	// CreateUser adds a user and returns it with the fields that the service sets. An address that is taken is [ErrAlreadyExists]; a
	// malformed one, an empty name or a password that is too short is [ErrInvalidArgument]. Not idempotent: never sent twice.
	CreateUser(ctx context.Context, user User) (*User, error)

	// UpdateUser replaces email, name and roles of the user with an ID and returns the result; user's other fields are ignored. An
	// address that changes has to be verified again. Errors are those of CreateUser and [ErrNotFound].
	UpdateUser(ctx context.Context, id string, user User) (*User, error)

	// DeleteUser removes the user with an ID, or fails with [ErrNotFound]. Not idempotent: never sent twice.
	DeleteUser(ctx context.Context, id string) error

	// VerifyEmail marks an address as verified and uses up the token that was sent to it; [ErrUnauthenticated] if the token is unknown,
	// expired or used. Not idempotent.
	VerifyEmail(ctx context.Context, token string) error

	// RequestPasswordReset has a reset token sent to an address. It succeeds just the same where no user has the address, so that
	// nobody can probe for accounts; only an empty or malformed address is [ErrInvalidArgument]. Not idempotent: each run sends
	// another token.
	RequestPasswordReset(ctx context.Context, email string) error

	// ResetPassword sets a new password and uses up the reset token; [ErrUnauthenticated] if the token is unknown, expired or used,
	// [ErrInvalidArgument] if the password is too short. Not idempotent.
	ResetPassword(ctx context.Context, token, newPassword string) error
}

// User is one account of the platform. Its password is a secret: String, LogValue and encoding/json leave it out, so that a log that
// prints or marshals what it is given cannot show it.
type User struct {
	// ID is unique and chosen by the service.
	ID string
	// Email is unique among users without regard to case.
	Email string
	// Name is what to show.
	Name string
	// Password is set by callers of CreateUser only; the service never returns it.
	Password string `json:"-"`
	// Roles are the names of the user's roles.
	Roles []string
	// EmailVerified says that the owner proved to read mail at the address. Set by the service.
	EmailVerified bool
	// CreatedAt is when the account was created. Set by the service.
	CreatedAt time.Time
	// UpdatedAt is when the account was last changed. Set by the service.
	UpdatedAt time.Time
}

// String describes the user without the password.
func (u User) String() string {
	return fmt.Sprintf("user %q <%s> roles=%v verified=%t", u.ID, u.Email, u.Roles, u.EmailVerified)
}

// GoString is [User.String], so that %#v hides the password too.
func (u User) GoString() string { return u.String() }

// LogValue describes the user without the password.
func (u User) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", u.ID), slog.String("email", u.Email), slog.Any("roles", u.Roles),
		slog.Bool("email_verified", u.EmailVerified))
}
