package servicestest

import (
	"testing"

	"github.com/0x1d/goplt/pkg/services"
)

// oneTimeTokenSuite is about the tokens that are sent by mail.
func oneTimeTokenSuite() []suiteTest {
	return []suiteTest{
		{"VerifyEmail", testVerifyEmail},
		{"VerifyWithUnusableToken", func(t *testing.T, s Services) {
			user := s.newUser(t, "ada@example.com")
			if err := s.Identity.RequestPasswordReset(t.Context(), "ada@example.com"); err != nil {
				t.Fatalf("request a reset: %v", err)
			}
			for _, token := range []string{"", "x", user.ID, s.sent(t, "ada@example.com", PasswordReset)} {
				err := s.Identity.VerifyEmail(t.Context(), token)
				wantError(t, "verify", err, services.ErrUnauthenticated, "verification token")
				wantHidden(t, err, s.sent(t, "ada@example.com", PasswordReset))
			}
			token := s.sent(t, "ada@example.com", EmailVerification)
			s.expireEverything()
			err := s.Identity.VerifyEmail(t.Context(), token)
			wantError(t, "verify with an expired token", err, services.ErrUnauthenticated, "verification token", "expired")
			wantHidden(t, err, token)
		}},
		{"VerifyRaced", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			token := s.sent(t, "ada@example.com", EmailVerification)
			race(8, func() (struct{}, error) { return struct{}{}, s.Identity.VerifyEmail(t.Context(), token) }).check(t, services.ErrUnauthenticated)
		}},
		{"RequestResetSendsATokenEachTime", testRequestResetSends},
		{"RequestResetOfUnknownEmail", func(t *testing.T, s Services) {
			if err := s.Identity.RequestPasswordReset(t.Context(), "nobody@example.com"); err != nil {
				t.Errorf("got %v, want success as for a known address", err)
			}
			if _, sent := s.Controls.LastToken("nobody@example.com", PasswordReset); sent {
				t.Error("a reset token was sent to an address that no user has")
			}
		}},
		{"RequestResetOfInvalidEmail", func(t *testing.T, s Services) {
			err := s.Identity.RequestPasswordReset(t.Context(), "")
			wantError(t, "empty email", err, services.ErrInvalidArgument, "email is required")
			err = s.Identity.RequestPasswordReset(t.Context(), "ada")
			wantError(t, "malformed email", err, services.ErrInvalidArgument, "email is malformed")
		}},
		{"ResetSetsThePassword", testResetSetsThePassword},
		{"ResetEndsSessions", testResetEndsSessions},
		{"ResetWithUnusableToken", testResetWithUnusableToken},
		{"ResetWithBadPasswordKeepsTheToken", testResetWithBadPassword},
		{"ResetRaced", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			token := s.resetToken(t, "ada@example.com")
			race(8, func() (struct{}, error) {
				return struct{}{}, s.Identity.ResetPassword(t.Context(), token, "another password")
			}).check(t, services.ErrUnauthenticated)
		}},
	}
}

// resetToken has a reset token sent to an address and returns it.
func (s Services) resetToken(t *testing.T, email string) string {
	t.Helper()
	if err := s.Identity.RequestPasswordReset(t.Context(), email); err != nil {
		t.Fatalf("request a reset for %s: %v", email, err)
	}
	return s.sent(t, email, PasswordReset)
}

func testVerifyEmail(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	token := s.sent(t, "Ada@Example.com", EmailVerification)
	if err := s.Identity.VerifyEmail(t.Context(), token); err != nil {
		t.Fatalf("verify: %v", err)
	}
	got, err := s.Identity.GetUser(t.Context(), user.ID)
	if err != nil || !got.EmailVerified {
		t.Errorf("got %v, %v; want the address verified", got, err)
	}
	err = s.Identity.VerifyEmail(t.Context(), token)
	wantError(t, "verify with a used token", err, services.ErrUnauthenticated, "verification token", "used")
	wantHidden(t, err, token)
}

func testRequestResetSends(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	if _, sent := s.Controls.LastToken("ada@example.com", PasswordReset); sent {
		t.Error("a reset token was sent before anybody asked for it")
	}
	first, second := s.resetToken(t, "ada@example.com"), s.resetToken(t, "ADA@example.com")
	if first == second {
		t.Error("two requests were sent the same token")
	}
	// Either can be used, and makes the other useless: whoever asked twice, or did not ask, keeps the one mail that works.
	if err := s.Identity.ResetPassword(t.Context(), first, "another password"); err != nil {
		t.Errorf("reset by the first of two tokens: %v", err)
	}
	err := s.Identity.ResetPassword(t.Context(), second, "yet another password")
	wantError(t, "reset by the other token", err, services.ErrUnauthenticated)
}

func testResetSetsThePassword(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	s.newUser(t, "grace@example.com")
	token := s.resetToken(t, "ada@example.com")
	s.login(t, "ada@example.com") // The old password holds until then.
	if err := s.Identity.ResetPassword(t.Context(), token, "another password"); err != nil {
		t.Fatalf("reset: %v", err)
	}
	if _, err := s.Auth.Login(t.Context(), "ada@example.com", "another password"); err != nil {
		t.Errorf("log in with the new password: %v", err)
	}
	_, err := s.Auth.Login(t.Context(), "ada@example.com", suitePassword)
	wantError(t, "log in with the old password", err, services.ErrUnauthenticated)
	err = s.Identity.ResetPassword(t.Context(), token, "yet another password")
	wantError(t, "reset by a used token", err, services.ErrUnauthenticated, "reset token", "used")
	wantHidden(t, err, token, "yet another password")
	s.login(t, "grace@example.com")
}

func testResetEndsSessions(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	s.newUser(t, "grace@example.com")
	first, second, other := s.login(t, "ada@example.com"), s.login(t, "ada@example.com"), s.login(t, "grace@example.com")
	if err := s.Identity.ResetPassword(t.Context(), s.resetToken(t, "ada@example.com"), "another password"); err != nil {
		t.Fatalf("reset: %v", err)
	}
	for _, tokens := range []*services.TokenResponse{first, second} {
		_, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
		wantError(t, "refresh a session from before the reset", err, services.ErrUnauthenticated)
	}
	if _, err := s.Auth.RefreshToken(t.Context(), other.RefreshToken); err != nil {
		t.Errorf("another user's session ended too: %v", err)
	}
}

func testResetWithUnusableToken(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	verification := s.sent(t, "ada@example.com", EmailVerification)
	for _, token := range []string{"", "x", user.ID, verification} {
		err := s.Identity.ResetPassword(t.Context(), token, "another password")
		wantError(t, "reset", err, services.ErrUnauthenticated, "reset token")
		wantHidden(t, err, verification, "another password")
	}
	token := s.resetToken(t, "ada@example.com")
	s.expireEverything()
	err := s.Identity.ResetPassword(t.Context(), token, "another password")
	wantError(t, "reset with an expired token", err, services.ErrUnauthenticated, "reset token", "expired")
	wantHidden(t, err, token)
	s.login(t, "ada@example.com")
}

func testResetWithBadPassword(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	token := s.resetToken(t, "ada@example.com")
	for _, password := range []string{"", "1234567"} {
		err := s.Identity.ResetPassword(t.Context(), token, password)
		wantError(t, "reset to a short password", err, services.ErrInvalidArgument, "password is too short")
		wantHidden(t, err, token, password)
	}
	if err := s.Identity.ResetPassword(t.Context(), token, "12345678"); err != nil {
		t.Errorf("reset by the token of refused resets: %v", err)
	}
}
