package servicestest

import (
	"slices"
	"strings"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

func identitySuite() []suiteTest {
	return []suiteTest{
		{"CreateReturnsTheUser", testCreateReturnsTheUser},
		{"CreateIgnoresWhatTheServiceSets", testCreateIgnoresWhatTheServiceSets},
		{"CreateSendsAVerificationToken", func(s *suite) {
			s.newUser(ada)
			s.sent(ada, EmailVerification)
		}},
		{"CreateWithTakenEmail", func(s *suite) {
			s.newUser(ada)
			for _, email := range []string{ada, "Ada@Example.COM", "  ada@example.com "} {
				_, err := s.Identity.CreateUser(s.Context(), services.User{Email: email, Name: "Ada", Password: suitePassword})
				s.wantError("create "+email, err, services.ErrAlreadyExists, "email is taken")
				s.wantHidden(err, suitePassword)
			}
		}},
		{"CreateRaced", func(s *suite) {
			race(8, func() (*services.User, error) {
				return s.Identity.CreateUser(s.Context(), services.User{Email: ada, Name: "Ada", Password: suitePassword})
			}).check(s, services.ErrAlreadyExists)
		}},
		{"CreateWithInvalidField", testCreateWithInvalidField},
		{"PasswordLengthIsInCharacters", testPasswordLengthIsInCharacters},
		{"GetUnknownUser", func(s *suite) {
			for _, id := range []string{"", nobodyID, ada, "../x"} {
				_, err := s.Identity.GetUser(s.Context(), id)
				s.wantError("get user "+id, err, services.ErrNotFound, "no user has the ID")
			}
		}},
		{"GetUnknownEmail", func(s *suite) {
			_, err := s.Identity.GetUserByEmail(s.Context(), "nobody@example.com")
			s.wantError("get by unknown email", err, services.ErrNotFound, "no user has this email")
			_, err = s.Identity.GetUserByEmail(s.Context(), "")
			s.wantError("get by empty email", err, services.ErrInvalidArgument, "email is required")
			_, err = s.Identity.GetUserByEmail(s.Context(), "ada")
			s.wantError("get by malformed email", err, services.ErrInvalidArgument, "email is malformed")
		}},
		{"UpdateReplaces", testUpdateReplaces},
		{"UpdateKeepsThePassword", testUpdateKeepsThePassword},
		{"UpdateOfEmailMovesTheAccount", testUpdateOfEmail},
		{"UpdateOfEmailsCaseOnly", func(s *suite) {
			user := s.newUser(ada)
			if err := s.Identity.VerifyEmail(s.Context(), s.sent(ada, EmailVerification)); err != nil {
				s.Fatalf("verify: %v", err)
			}
			updated, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: "ADA@example.com", Name: "Ada"})
			if err != nil || !updated.EmailVerified {
				s.Errorf("got %v, %v; want the address, which is the same, still verified", updated, err)
			}
		}},
		{"UpdateRepeatedChangesNothing", testUpdateRepeated},
		{"UpdateFails", testUpdateFails},
		{"DeleteRemoves", testDeleteRemoves},
		{"DeleteUnknownUser", func(s *suite) {
			for _, id := range []string{"", nobodyID} {
				s.wantError("delete user "+id, s.Identity.DeleteUser(s.Context(), id), services.ErrNotFound, "no user has the ID")
			}
		}},
		{"DeleteRaced", func(s *suite) {
			user := s.newUser(ada)
			race(8, func() (struct{}, error) { return struct{}{}, s.Identity.DeleteUser(s.Context(), user.ID) }).check(s, services.ErrNotFound)
		}},
	}
}

// wantUser checks that two users are the same in every field.
func (s *suite) wantUser(what string, got, want *services.User) {
	s.Helper()
	if got.ID != want.ID || got.Email != want.Email || got.Name != want.Name || got.Password != want.Password ||
		!slices.Equal(got.Roles, want.Roles) || got.EmailVerified != want.EmailVerified ||
		!got.CreatedAt.Equal(want.CreatedAt) || !got.UpdatedAt.Equal(want.UpdatedAt) {
		s.Errorf("%s: got %v %q, created %v, updated %v; want %v %q, created %v, updated %v", what,
			got, got.Name, got.CreatedAt, got.UpdatedAt, want, want.Name, want.CreatedAt, want.UpdatedAt)
	}
}

func testCreateReturnsTheUser(s *suite) {
	created, err := s.Identity.CreateUser(s.Context(), services.User{
		Email: "Ada@Example.com", Name: "Ada Lovelace, Gräfin 🎩", Password: suitePassword, Roles: []string{"zeta", "alpha"},
	})
	if err != nil {
		s.Fatalf("create: %v", err)
	}
	if created.ID == "" || !strings.EqualFold(created.Email, ada) || created.Name != "Ada Lovelace, Gräfin 🎩" ||
		!slices.Equal(created.Roles, []string{"zeta", "alpha"}) || created.EmailVerified || created.Password != "" {
		s.Errorf("got %#v %q, want what was given, with an ID, not verified, without the password", created, created.Name)
	}
	if created.CreatedAt.IsZero() || !created.UpdatedAt.Equal(created.CreatedAt) {
		s.Errorf("got created %v, updated %v; want the same time", created.CreatedAt, created.UpdatedAt)
	}
	byID, err := s.Identity.GetUser(s.Context(), created.ID)
	if err != nil {
		s.Fatalf("get: %v", err)
	}
	s.wantUser("by ID", byID, created)
	for _, email := range []string{ada, "ADA@EXAMPLE.COM"} {
		byEmail, err := s.Identity.GetUserByEmail(s.Context(), email)
		if err != nil {
			s.Fatalf("get by %s: %v", email, err)
		}
		s.wantUser("by "+email, byEmail, created)
	}
	other := s.newUser(grace)
	if other.ID == created.ID {
		s.Errorf("two users have the ID %s", other.ID)
	}
	// Callers own what they were given.
	byID.Roles[0] = "changed"
	if again, err := s.Identity.GetUser(s.Context(), created.ID); err != nil || again.Roles[0] != "zeta" {
		s.Errorf("a caller's change of a user shows: %v, %v", again, err)
	}
}

func testCreateIgnoresWhatTheServiceSets(s *suite) {
	epoch := time.Unix(0, 0)
	created, err := s.Identity.CreateUser(s.Context(), services.User{
		ID: "usr_mine", Email: ada, Name: "Ada", Password: suitePassword,
		EmailVerified: true, CreatedAt: epoch, UpdatedAt: epoch,
	})
	if err != nil {
		s.Fatalf("create: %v", err)
	}
	if created.ID == "usr_mine" || created.EmailVerified || created.CreatedAt.Equal(epoch) || created.UpdatedAt.Equal(epoch) {
		s.Errorf("got %v, created %v, updated %v: the caller chose what the service sets", created, created.CreatedAt, created.UpdatedAt)
	}
}

// invalidUsers are users that can be neither created nor the result of an update, each with words of the reason.
func invalidUsers() []struct {
	name string
	user services.User
	text string
} {
	const malformed = "email is malformed"
	return []struct {
		name string
		user services.User
		text string
	}{
		{"empty email", services.User{Name: "Ada"}, "email is required"},
		{"blank email", services.User{Email: " ", Name: "Ada"}, "email is required"},
		{"email without domain", services.User{Email: "ada", Name: "Ada"}, malformed},
		{"email with empty domain", services.User{Email: "ada@", Name: "Ada"}, malformed},
		{"email without local part", services.User{Email: "@example.com", Name: "Ada"}, malformed},
		{"email with a blank", services.User{Email: "a da@example.com", Name: "Ada"}, malformed},
		{"email with a display name", services.User{Email: "Ada <ada@example.com>", Name: "Ada"}, malformed},
		{"two emails", services.User{Email: "ada@example.com, bob@example.com", Name: "Ada"}, malformed},
		{"email with a line break", services.User{Email: "ada@example.com\r\nBcc: x@example.com", Name: "Ada"}, malformed},
		{"email too long", services.User{Email: strings.Repeat("a", 250) + "@example.com", Name: "Ada"}, malformed},
		{"empty name", services.User{Email: ada}, "name is required"},
		{"blank name", services.User{Email: ada, Name: " \t"}, "name is required"},
		{"empty role", services.User{Email: ada, Name: "Ada", Roles: []string{"admin", ""}}, "roles must not be empty"},
	}
}

func testCreateWithInvalidField(s *suite) {
	for _, test := range invalidUsers() {
		test.user.Password = suitePassword
		_, err := s.Identity.CreateUser(s.Context(), test.user)
		s.wantError(test.name, err, services.ErrInvalidArgument, test.text)
		s.wantHidden(err, suitePassword)
	}
	for _, test := range []struct{ name, password, text string }{
		{"empty password", "", "password is too short"},
		{"short password", "1234567", "password is too short"},
		{"endless password", strings.Repeat("x", 1<<16), "password is too long"},
	} {
		_, err := s.Identity.CreateUser(s.Context(), services.User{Email: ada, Name: "Ada", Password: test.password})
		s.wantError(test.name, err, services.ErrInvalidArgument, test.text)
		s.wantHidden(err, test.password)
	}
	_, err := s.Identity.GetUserByEmail(s.Context(), ada)
	s.wantError("get a user that was refused", err, services.ErrNotFound)
}

func testPasswordLengthIsInCharacters(s *suite) {
	user := services.User{Email: ada, Name: "Ada"}
	user.Password = "äöüäöüä"
	_, err := s.Identity.CreateUser(s.Context(), user)
	s.wantError("seven characters of two bytes", err, services.ErrInvalidArgument, "at least 8 characters")
	user.Password = "äöüäöüäö"
	if _, err := s.Identity.CreateUser(s.Context(), user); err != nil {
		s.Fatalf("create with a password of eight characters: %v", err)
	}
	if _, err := s.Auth.Login(s.Context(), user.Email, user.Password); err != nil {
		s.Errorf("log in: %v", err)
	}
}

func testUpdateReplaces(s *suite) {
	user := s.newUser(ada, "admin")
	s.Controls.Advance(time.Minute)
	updated, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{
		ID: "usr_other", Email: ada, Name: "Countess", Roles: []string{"auditor"},
		EmailVerified: true, CreatedAt: time.Unix(0, 0), UpdatedAt: time.Unix(0, 0),
	})
	if err != nil {
		s.Fatalf("update: %v", err)
	}
	if !updated.UpdatedAt.After(user.UpdatedAt) {
		s.Errorf("updated at %v, a minute after %v", updated.UpdatedAt, user.UpdatedAt)
	}
	want := *user
	want.Name, want.Roles, want.UpdatedAt = "Countess", []string{"auditor"}, updated.UpdatedAt
	s.wantUser("as returned", updated, &want)
	got, err := s.Identity.GetUser(s.Context(), user.ID)
	if err != nil {
		s.Fatalf("get: %v", err)
	}
	s.wantUser("as kept", got, &want)

	updated, err = s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: ada, Name: "Countess"})
	if err != nil || len(updated.Roles) != 0 {
		s.Errorf("got %v, %v; want no roles, since none were given", updated, err)
	}
}

func testUpdateKeepsThePassword(s *suite) {
	user := s.newUser(ada)
	updated, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: ada, Name: "Ada", Password: "another one"})
	if err != nil || updated.Password != "" {
		s.Fatalf("got %#v, %v; want the user without a password", updated, err)
	}
	s.login(ada)
	_, err = s.Auth.Login(s.Context(), ada, "another one")
	s.wantError("log in with the password of an update", err, services.ErrUnauthenticated)
}

func testUpdateOfEmail(s *suite) {
	user := s.newUser(ada)
	if err := s.Identity.VerifyEmail(s.Context(), s.sent(ada, EmailVerification)); err != nil {
		s.Fatalf("verify: %v", err)
	}
	if err := s.Identity.RequestPasswordReset(s.Context(), ada); err != nil {
		s.Fatalf("request a reset: %v", err)
	}
	updated, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: countess, Name: "Ada"})
	if err != nil {
		s.Fatalf("update: %v", err)
	}
	if updated.EmailVerified || updated.Email != countess {
		s.Errorf("got %v, want the new address, not verified", updated)
	}
	err = s.Identity.ResetPassword(s.Context(), s.sent(ada, PasswordReset), "a password of a stranger")
	s.wantError("reset by a token sent to the old address", err, services.ErrUnauthenticated)
	_, err = s.Identity.GetUserByEmail(s.Context(), ada)
	s.wantError("get by the old address", err, services.ErrNotFound)
	s.login(countess)
	_, err = s.Auth.Login(s.Context(), ada, suitePassword)
	s.wantError("log in with the old address", err, services.ErrUnauthenticated)

	moved := s.sent(countess, EmailVerification)
	if _, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: "third@example.com", Name: "Ada"}); err != nil {
		s.Fatalf("update again: %v", err)
	}
	s.wantError("verify by a token sent to the address before", s.Identity.VerifyEmail(s.Context(), moved), services.ErrUnauthenticated)
	if err := s.Identity.VerifyEmail(s.Context(), s.sent("third@example.com", EmailVerification)); err != nil {
		s.Errorf("verify the new address: %v", err)
	}
	s.newUser(ada) // The address is free.
}

func testUpdateRepeated(s *suite) {
	user := s.newUser(ada)
	change := services.User{Email: countess, Name: "Countess", Roles: []string{"admin"}}
	first, err := s.Identity.UpdateUser(s.Context(), user.ID, change)
	if err != nil {
		s.Fatalf("update: %v", err)
	}
	token := s.sent(countess, EmailVerification)
	s.Controls.Advance(time.Minute)
	again, err := s.Identity.UpdateUser(s.Context(), user.ID, change)
	if err != nil {
		s.Fatalf("repeat the update: %v", err)
	}
	s.wantUser("repeated", again, first)
	if err := s.Identity.VerifyEmail(s.Context(), token); err != nil {
		s.Errorf("verify by the token of the first update: %v", err)
	}
}

func testUpdateFails(s *suite) {
	user := s.newUser(ada)
	s.newUser(grace)
	_, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: "Grace@example.com", Name: "Ada"})
	s.wantError("email of another", err, services.ErrAlreadyExists, "email is taken")
	for _, id := range []string{"", nobodyID} {
		_, err = s.Identity.UpdateUser(s.Context(), id, services.User{Email: "new@example.com", Name: "Ada"})
		s.wantError("unknown user "+id, err, services.ErrNotFound, "no user has the ID")
	}
	for _, test := range invalidUsers() {
		_, err = s.Identity.UpdateUser(s.Context(), user.ID, test.user)
		s.wantError(test.name, err, services.ErrInvalidArgument, test.text)
	}
	got, err := s.Identity.GetUser(s.Context(), user.ID)
	if err != nil {
		s.Fatalf("get: %v", err)
	}
	s.wantUser("after failed updates", got, user)
}

func testDeleteRemoves(s *suite) {
	user := s.newUser(ada, "admin")
	tokens := s.login(ada)
	if err := s.Identity.RequestPasswordReset(s.Context(), ada); err != nil {
		s.Fatalf("request a reset: %v", err)
	}
	if err := s.Controls.Grant(user.ID, "invoices:read"); err != nil {
		s.Fatalf("grant: %v", err)
	}
	if err := s.Identity.DeleteUser(s.Context(), user.ID); err != nil {
		s.Fatalf("delete: %v", err)
	}
	s.wantError("delete again", s.Identity.DeleteUser(s.Context(), user.ID), services.ErrNotFound)
	_, err := s.Identity.GetUser(s.Context(), user.ID)
	s.wantError("get by ID", err, services.ErrNotFound)
	_, err = s.Identity.GetUserByEmail(s.Context(), ada)
	s.wantError("get by email", err, services.ErrNotFound)
	_, err = s.Auth.Login(s.Context(), ada, suitePassword)
	s.wantError("log in", err, services.ErrUnauthenticated, "email or password is wrong")
	_, err = s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
	s.wantError("refresh", err, services.ErrUnauthenticated)
	s.wantError("authorize", s.Authz.Authorize(s.Context(), user.ID, "invoices:read"), services.ErrPermissionDenied)
	_, err = s.Authz.GetUserPermissions(s.Context(), user.ID)
	s.wantError("permissions", err, services.ErrNotFound)
	err = s.Identity.VerifyEmail(s.Context(), s.sent(ada, EmailVerification))
	s.wantError("verify", err, services.ErrUnauthenticated)
	err = s.Identity.ResetPassword(s.Context(), s.sent(ada, PasswordReset), suitePassword)
	s.wantError("reset", err, services.ErrUnauthenticated)
	if again := s.newUser(ada); again.ID == user.ID {
		s.Errorf("the ID %s of a deleted user was given again", user.ID)
	}
}
