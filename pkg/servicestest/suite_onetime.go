package servicestest

import (
	"github.com/0x1d/goplt/pkg/services"
)

// oneTimeTokenSuite is about the tokens that are sent by mail.
func oneTimeTokenSuite() []suiteTest {
	return []suiteTest{
		{"VerifyEmail", testVerifyEmail},
		{"VerifyWithUnusableToken", func(s *suite) {
			user := s.newUser(ada)
			if err := s.Identity.RequestPasswordReset(s.Context(), ada); err != nil {
				s.Fatalf("request a reset: %v", err)
			}
			for _, token := range []string{"", "x", user.ID, s.sent(ada, PasswordReset)} {
				err := s.Identity.VerifyEmail(s.Context(), token)
				s.wantError("verify", err, services.ErrUnauthenticated, "verification token")
				s.wantHidden(err, s.sent(ada, PasswordReset))
			}
			token := s.sent(ada, EmailVerification)
			s.expireEverything()
			err := s.Identity.VerifyEmail(s.Context(), token)
			s.wantError("verify with an expired token", err, services.ErrUnauthenticated, "verification token", "expired")
			s.wantHidden(err, token)
		}},
		{"VerifyRaced", func(s *suite) {
			s.newUser(ada)
			token := s.sent(ada, EmailVerification)
			race(8, func() (struct{}, error) { return struct{}{}, s.Identity.VerifyEmail(s.Context(), token) }).check(s, services.ErrUnauthenticated)
		}},
		{"RequestResetSendsATokenEachTime", testRequestResetSends},
		{"RequestResetOfUnknownEmail", func(s *suite) {
			if err := s.Identity.RequestPasswordReset(s.Context(), "nobody@example.com"); err != nil {
				s.Errorf("got %v, want success as for a known address", err)
			}
			if _, sent := s.Controls.LastToken("nobody@example.com", PasswordReset); sent {
				s.Error("a reset token was sent to an address that no user has")
			}
		}},
		{"RequestResetOfInvalidEmail", func(s *suite) {
			err := s.Identity.RequestPasswordReset(s.Context(), "")
			s.wantError("empty email", err, services.ErrInvalidArgument, "email is required")
			err = s.Identity.RequestPasswordReset(s.Context(), "ada")
			s.wantError("malformed email", err, services.ErrInvalidArgument, "email is malformed")
		}},
		{"ResetSetsThePassword", testResetSetsThePassword},
		{"ResetEndsSessions", testResetEndsSessions},
		{"ResetWithUnusableToken", testResetWithUnusableToken},
		{"ResetWithBadPasswordKeepsTheToken", testResetWithBadPassword},
		{"ResetRaced", func(s *suite) {
			s.newUser(ada)
			token := s.resetToken(ada)
			race(8, func() (struct{}, error) {
				return struct{}{}, s.Identity.ResetPassword(s.Context(), token, "another password")
			}).check(s, services.ErrUnauthenticated)
		}},
	}
}

// resetToken has a reset token sent to an address and returns it.
func (s *suite) resetToken(email string) string {
	s.Helper()
	if err := s.Identity.RequestPasswordReset(s.Context(), email); err != nil {
		s.Fatalf("request a reset for %s: %v", email, err)
	}
	return s.sent(email, PasswordReset)
}

func testVerifyEmail(s *suite) {
	user := s.newUser(ada)
	token := s.sent("Ada@Example.com", EmailVerification)
	if err := s.Identity.VerifyEmail(s.Context(), token); err != nil {
		s.Fatalf("verify: %v", err)
	}
	got, err := s.Identity.GetUser(s.Context(), user.ID)
	if err != nil || !got.EmailVerified {
		s.Errorf("got %v, %v; want the address verified", got, err)
	}
	err = s.Identity.VerifyEmail(s.Context(), token)
	s.wantError("verify with a used token", err, services.ErrUnauthenticated, "verification token", "used")
	s.wantHidden(err, token)
}

func testRequestResetSends(s *suite) {
	s.newUser(ada)
	if _, sent := s.Controls.LastToken(ada, PasswordReset); sent {
		s.Error("a reset token was sent before anybody asked for it")
	}
	first, second := s.resetToken(ada), s.resetToken("ADA@example.com")
	if first == second {
		s.Error("two requests were sent the same token")
	}
	// Either can be used, and makes the other useless: whoever asked twice, or did not ask, keeps the one mail that works.
	if err := s.Identity.ResetPassword(s.Context(), first, "another password"); err != nil {
		s.Errorf("reset by the first of two tokens: %v", err)
	}
	err := s.Identity.ResetPassword(s.Context(), second, "yet another password")
	s.wantError("reset by the other token", err, services.ErrUnauthenticated)
}

func testResetSetsThePassword(s *suite) {
	s.newUser(ada)
	s.newUser(grace)
	token := s.resetToken(ada)
	s.login(ada) // The old password holds until then.
	if err := s.Identity.ResetPassword(s.Context(), token, "another password"); err != nil {
		s.Fatalf("reset: %v", err)
	}
	if _, err := s.Auth.Login(s.Context(), ada, "another password"); err != nil {
		s.Errorf("log in with the new password: %v", err)
	}
	_, err := s.Auth.Login(s.Context(), ada, suitePassword)
	s.wantError("log in with the old password", err, services.ErrUnauthenticated)
	err = s.Identity.ResetPassword(s.Context(), token, "yet another password")
	s.wantError("reset by a used token", err, services.ErrUnauthenticated, "reset token", "used")
	s.wantHidden(err, token, "yet another password")
	s.login(grace)
}

func testResetEndsSessions(s *suite) {
	s.newUser(ada)
	s.newUser(grace)
	first, second, other := s.login(ada), s.login(ada), s.login(grace)
	if err := s.Identity.ResetPassword(s.Context(), s.resetToken(ada), "another password"); err != nil {
		s.Fatalf("reset: %v", err)
	}
	for _, tokens := range []*services.TokenResponse{first, second} {
		_, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
		s.wantError("refresh a session from before the reset", err, services.ErrUnauthenticated)
	}
	if _, err := s.Auth.RefreshToken(s.Context(), other.RefreshToken); err != nil {
		s.Errorf("another user's session ended too: %v", err)
	}
}

func testResetWithUnusableToken(s *suite) {
	user := s.newUser(ada)
	verification := s.sent(ada, EmailVerification)
	for _, token := range []string{"", "x", user.ID, verification} {
		err := s.Identity.ResetPassword(s.Context(), token, "another password")
		s.wantError("reset", err, services.ErrUnauthenticated, "reset token")
		s.wantHidden(err, verification, "another password")
	}
	token := s.resetToken(ada)
	s.expireEverything()
	err := s.Identity.ResetPassword(s.Context(), token, "another password")
	s.wantError("reset with an expired token", err, services.ErrUnauthenticated, "reset token", "expired")
	s.wantHidden(err, token)
	s.login(ada)
}

func testResetWithBadPassword(s *suite) {
	s.newUser(ada)
	token := s.resetToken(ada)
	for _, password := range []string{"", "1234567"} {
		err := s.Identity.ResetPassword(s.Context(), token, password)
		s.wantError("reset to a short password", err, services.ErrInvalidArgument, "password is too short")
		s.wantHidden(err, token, password)
	}
	if err := s.Identity.ResetPassword(s.Context(), token, "12345678"); err != nil {
		s.Errorf("reset by the token of refused resets: %v", err)
	}
}
