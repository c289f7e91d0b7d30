package servicestest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

// Controls do what [RunSuite] needs and no service offers. A [Platform] has them.
type Controls interface {
	// LastToken returns the token of a kind that was last sent to an address, and whether one was.
	LastToken(email string, kind TokenKind) (string, bool)
	// Advance moves the clock of the services forward. In a year, every token expires.
	Advance(d time.Duration)
	// DefineRole says what holders of a role may do.
	DefineRole(role string, permissions ...string) error
	// Grant gives a permission to a user directly.
	Grant(userID, permission string) error
}

var _ Controls = (*Platform)(nil)

// Services are the four services, or clients of them, and the controls of what is behind them. All fields are required by [RunSuite].
type Services struct {
	Auth     services.AuthServiceClient
	Identity services.IdentityServiceClient
	Authz    services.AuthzServiceClient
	Audit    services.AuditServiceClient
	Controls Controls
}

// RunSuite checks that four services do what the interfaces in package services promise: each method's success and each error that it
// documents, told apart by its sentinel and by the words that its text must hold, and what happens when calls race. It works through
// the interfaces only, so it runs over an implementation as well as over clients of it in another process:
//
//	servicestest.RunSuite(t, func(t *testing.T) servicestest.Services {
//		platform := servicestest.NewPlatform(servicestest.WithPasswordCost(servicestest.TestPasswordCost()))
//		return platform.Services()
//	})
//
// It calls open once for each of its subtests, which share nothing: open returns services without users, or with others' only, and
// releases with t.Cleanup what it holds.
func RunSuite(t *testing.T, open func(t *testing.T) Services) {
	t.Helper()
	for _, part := range []struct {
		name  string
		tests []suiteTest
	}{
		{"Auth", authSuite()},
		{"Identity", identitySuite()},
		{"Tokens", oneTimeTokenSuite()},
		{"Authz", authzSuite()},
		{"Audit", auditSuite()},
		{"Context", contextSuite()},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, test := range part.tests {
				t.Run(test.name, func(t *testing.T) {
					opened := open(t)
					if opened.Auth == nil || opened.Identity == nil || opened.Authz == nil || opened.Audit == nil || opened.Controls == nil {
						t.Fatalf("open returned %+v: every field is required", opened)
					}
					test.run(&suite{T: t, Services: opened})
				})
			}
		})
	}
}

// suite is one subtest with the services that it tests.
type suite struct {
	*testing.T
	Services
}

// What the users of the suite are called.
const (
	ada      = "ada@example.com"
	countess = "countess@example.com" // Ada, later.
	grace    = "grace@example.com"
	nobodyID = "usr_nobody"
)

// suiteTest is one subtest of the suite, with services of its own.
type suiteTest struct {
	name string
	run  func(s *suite)
}

// suitePassword is the password of the users that the suite creates.
const suitePassword = "a password of the suite"

// newUser creates a user with [suitePassword].
func (s *suite) newUser(email string, roles ...string) *services.User {
	s.Helper()
	user, err := s.Identity.CreateUser(s.Context(), services.User{Email: email, Name: "Ada", Password: suitePassword, Roles: roles})
	if err != nil {
		s.Fatalf("create user %s: %v", email, err)
	}
	return user
}

// login begins a session of a user with [suitePassword].
func (s *suite) login(email string) *services.TokenResponse {
	s.Helper()
	tokens, err := s.Auth.Login(s.Context(), email, suitePassword)
	if err != nil {
		s.Fatalf("log in %s: %v", email, err)
	}
	return tokens
}

// sent returns the token that was last sent to an address.
func (s *suite) sent(email string, kind TokenKind) string {
	s.Helper()
	token, ok := s.Controls.LastToken(email, kind)
	if !ok || token == "" {
		s.Fatalf("no %s token was sent to %s", kind, email)
	}
	return token
}

// expireEverything moves the clock past the life of every token.
func (s *suite) expireEverything() { s.Controls.Advance(366 * 24 * time.Hour) }

// allSentinels are the errors of which a failed call's error matches exactly one.
func allSentinels() []error {
	return []error{
		services.ErrInvalidArgument, services.ErrUnauthenticated, services.ErrPermissionDenied, services.ErrNotFound,
		services.ErrAlreadyExists, services.ErrFailedPrecondition, services.ErrAborted, services.ErrOutOfRange,
		services.ErrResourceExhausted, services.ErrUnimplemented, services.ErrUnavailable, services.ErrDeadlineExceeded,
		services.ErrCanceled, services.ErrDataLoss, services.ErrInternal, services.ErrUnknown,
	}
}

// wantError checks that err matches sentinel and no other, and that its text holds each of words.
func (s *suite) wantError(what string, err, sentinel error, words ...string) {
	s.Helper()
	if err == nil {
		s.Errorf("%s: succeeded, want the error %q", what, sentinel)
		return
	}
	for _, other := range allSentinels() {
		if got, want := errors.Is(err, other), errors.Is(sentinel, other); got != want {
			s.Errorf("%s: got the error %q: matching %q is %t, want %t", what, err, other, got, want)
		}
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			s.Errorf("%s: got the error %q, want %q in its text", what, err, word)
		}
	}
}

// wantHidden checks that an error does not show a secret.
func (s *suite) wantHidden(err error, secrets ...string) {
	s.Helper()
	for _, secret := range secrets {
		if err != nil && secret != "" && strings.Contains(err.Error(), secret) {
			s.Errorf("the error %q shows the secret %q", err, secret)
		}
	}
}

// contextSuite checks of every method that it heeds a context that has ended.
func contextSuite() []suiteTest {
	tests := make([]suiteTest, 0, len(everyMethod()))
	for _, method := range everyMethod() {
		tests = append(tests, suiteTest{method.name, func(s *suite) {
			canceled, cancel := context.WithCancel(s.Context())
			cancel()
			err := method.call(canceled, s.Services)
			s.wantError("canceled before the call", err, services.ErrCanceled)
			if !errors.Is(err, context.Canceled) {
				s.Errorf("got %v, which does not match context.Canceled", err)
			}
			late, cancel := context.WithDeadline(s.Context(), time.Unix(0, 0))
			defer cancel()
			err = method.call(late, s.Services)
			s.wantError("deadline before the call", err, services.ErrDeadlineExceeded)
			if !errors.Is(err, context.DeadlineExceeded) {
				s.Errorf("got %v, which does not match context.DeadlineExceeded", err)
			}
		}})
	}
	return tests
}

type suiteMethod struct {
	name string
	call func(ctx context.Context, s Services) error
}

// everyMethod calls each method of the four services once, with arguments that fail in their own ways while the context lives.
func everyMethod() []suiteMethod {
	return []suiteMethod{
		{"Login", func(ctx context.Context, s Services) error { _, err := s.Auth.Login(ctx, "", ""); return err }},
		{"RefreshToken", func(ctx context.Context, s Services) error { _, err := s.Auth.RefreshToken(ctx, ""); return err }},
		{"ValidateToken", func(ctx context.Context, s Services) error { _, err := s.Auth.ValidateToken(ctx, ""); return err }},
		{"GetUser", func(ctx context.Context, s Services) error { _, err := s.Identity.GetUser(ctx, ""); return err }},
		{"GetUserByEmail", func(ctx context.Context, s Services) error { _, err := s.Identity.GetUserByEmail(ctx, ""); return err }},
		{"CreateUser", func(ctx context.Context, s Services) error {
			_, err := s.Identity.CreateUser(ctx, services.User{})
			return err
		}},
		{"UpdateUser", func(ctx context.Context, s Services) error {
			_, err := s.Identity.UpdateUser(ctx, "", services.User{})
			return err
		}},
		{"DeleteUser", func(ctx context.Context, s Services) error { return s.Identity.DeleteUser(ctx, "") }},
		{"VerifyEmail", func(ctx context.Context, s Services) error { return s.Identity.VerifyEmail(ctx, "") }},
		{"RequestPasswordReset", func(ctx context.Context, s Services) error { return s.Identity.RequestPasswordReset(ctx, "") }},
		{"ResetPassword", func(ctx context.Context, s Services) error { return s.Identity.ResetPassword(ctx, "", "") }},
		{"Authorize", func(ctx context.Context, s Services) error { return s.Authz.Authorize(ctx, "", "") }},
		{"HasPermission", func(ctx context.Context, s Services) error { _, err := s.Authz.HasPermission(ctx, "", ""); return err }},
		{"GetUserPermissions", func(ctx context.Context, s Services) error {
			_, err := s.Authz.GetUserPermissions(ctx, "")
			return err
		}},
		{"Record", func(ctx context.Context, s Services) error { return s.Audit.Record(ctx, services.Action{}) }},
		{"Query", func(ctx context.Context, s Services) error {
			_, err := s.Audit.Query(ctx, services.AuditFilters{PageSize: -1})
			return err
		}},
	}
}
