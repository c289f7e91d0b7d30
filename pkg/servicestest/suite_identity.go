package servicestest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

func identitySuite() []suiteTest {
	return []suiteTest{
		{"CreateReturnsTheUser", testCreateReturnsTheUser},
		{"CreateIgnoresWhatTheServiceSets", testCreateIgnoresWhatTheServiceSets},
		{"CreateSendsAVerificationToken", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			s.sent(t, "ada@example.com", EmailVerification)
		}},
		{"CreateWithTakenEmail", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			for _, email := range []string{"ada@example.com", "Ada@Example.COM", "  ada@example.com "} {
				_, err := s.Identity.CreateUser(t.Context(), services.User{Email: email, Name: "Ada", Password: suitePassword})
				wantError(t, "create "+email, err, services.ErrAlreadyExists, "email is taken")
				wantHidden(t, err, suitePassword)
			}
		}},
		{"CreateRaced", func(t *testing.T, s Services) {
			race(8, func() (*services.User, error) {
				return s.Identity.CreateUser(t.Context(), services.User{Email: "ada@example.com", Name: "Ada", Password: suitePassword})
			}).check(t, services.ErrAlreadyExists)
		}},
		{"CreateWithInvalidField", testCreateWithInvalidField},
		{"PasswordLengthIsInCharacters", testPasswordLengthIsInCharacters},
		{"GetUnknownUser", func(t *testing.T, s Services) {
			for _, id := range []string{"", "usr_nobody", "ada@example.com", "../x"} {
				_, err := s.Identity.GetUser(t.Context(), id)
				wantError(t, "get user "+id, err, services.ErrNotFound, "no user has the ID")
			}
		}},
		{"GetUnknownEmail", func(t *testing.T, s Services) {
			_, err := s.Identity.GetUserByEmail(t.Context(), "nobody@example.com")
			wantError(t, "get by unknown email", err, services.ErrNotFound, "no user has this email")
			_, err = s.Identity.GetUserByEmail(t.Context(), "")
			wantError(t, "get by empty email", err, services.ErrInvalidArgument, "email is required")
			_, err = s.Identity.GetUserByEmail(t.Context(), "ada")
			wantError(t, "get by malformed email", err, services.ErrInvalidArgument, "email is malformed")
		}},
		{"UpdateReplaces", testUpdateReplaces},
		{"UpdateKeepsThePassword", testUpdateKeepsThePassword},
		{"UpdateOfEmailMovesTheAccount", testUpdateOfEmail},
		{"UpdateOfEmailsCaseOnly", func(t *testing.T, s Services) {
			user := s.newUser(t, "ada@example.com")
			if err := s.Identity.VerifyEmail(t.Context(), s.sent(t, "ada@example.com", EmailVerification)); err != nil {
				t.Fatalf("verify: %v", err)
			}
			updated, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "ADA@example.com", Name: "Ada"})
			if err != nil || !updated.EmailVerified {
				t.Errorf("got %v, %v; want the address, which is the same, still verified", updated, err)
			}
		}},
		{"UpdateRepeatedChangesNothing", testUpdateRepeated},
		{"UpdateFails", testUpdateFails},
		{"DeleteRemoves", testDeleteRemoves},
		{"DeleteUnknownUser", func(t *testing.T, s Services) {
			for _, id := range []string{"", "usr_nobody"} {
				wantError(t, "delete user "+id, s.Identity.DeleteUser(t.Context(), id), services.ErrNotFound, "no user has the ID")
			}
		}},
		{"DeleteRaced", func(t *testing.T, s Services) {
			user := s.newUser(t, "ada@example.com")
			race(8, func() (struct{}, error) { return struct{}{}, s.Identity.DeleteUser(t.Context(), user.ID) }).check(t, services.ErrNotFound)
		}},
	}
}

// wantUser checks that two users are the same in every field.
func wantUser(t *testing.T, what string, got, want *services.User) {
	t.Helper()
	if got.ID != want.ID || got.Email != want.Email || got.Name != want.Name || got.Password != want.Password ||
		!slices.Equal(got.Roles, want.Roles) || got.EmailVerified != want.EmailVerified ||
		!got.CreatedAt.Equal(want.CreatedAt) || !got.UpdatedAt.Equal(want.UpdatedAt) {
		t.Errorf("%s: got %v %q, created %v, updated %v; want %v %q, created %v, updated %v", what,
			got, got.Name, got.CreatedAt, got.UpdatedAt, want, want.Name, want.CreatedAt, want.UpdatedAt)
	}
}

func testCreateReturnsTheUser(t *testing.T, s Services) {
	created, err := s.Identity.CreateUser(t.Context(), services.User{
		Email: "Ada@Example.com", Name: "Ada Lovelace, Gräfin 🎩", Password: suitePassword, Roles: []string{"zeta", "alpha"},
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if created.ID == "" || !strings.EqualFold(created.Email, "ada@example.com") || created.Name != "Ada Lovelace, Gräfin 🎩" ||
		!slices.Equal(created.Roles, []string{"zeta", "alpha"}) || created.EmailVerified || created.Password != "" {
		t.Errorf("got %#v %q, want what was given, with an ID, not verified, without the password", created, created.Name)
	}
	if created.CreatedAt.IsZero() || !created.UpdatedAt.Equal(created.CreatedAt) {
		t.Errorf("got created %v, updated %v; want the same time", created.CreatedAt, created.UpdatedAt)
	}
	byID, err := s.Identity.GetUser(t.Context(), created.ID)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	wantUser(t, "by ID", byID, created)
	for _, email := range []string{"ada@example.com", "ADA@EXAMPLE.COM"} {
		byEmail, err := s.Identity.GetUserByEmail(t.Context(), email)
		if err != nil {
			t.Fatalf("get by %s: %v", email, err)
		}
		wantUser(t, "by "+email, byEmail, created)
	}
	other := s.newUser(t, "grace@example.com")
	if other.ID == created.ID {
		t.Errorf("two users have the ID %s", other.ID)
	}
	// Callers own what they were given.
	byID.Roles[0] = "changed"
	if again, err := s.Identity.GetUser(t.Context(), created.ID); err != nil || again.Roles[0] != "zeta" {
		t.Errorf("a caller's change of a user shows: %v, %v", again, err)
	}
}

func testCreateIgnoresWhatTheServiceSets(t *testing.T, s Services) {
	epoch := time.Unix(0, 0)
	created, err := s.Identity.CreateUser(t.Context(), services.User{
		ID: "usr_mine", Email: "ada@example.com", Name: "Ada", Password: suitePassword,
		EmailVerified: true, CreatedAt: epoch, UpdatedAt: epoch,
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if created.ID == "usr_mine" || created.EmailVerified || created.CreatedAt.Equal(epoch) || created.UpdatedAt.Equal(epoch) {
		t.Errorf("got %v, created %v, updated %v: the caller chose what the service sets", created, created.CreatedAt, created.UpdatedAt)
	}
}

// invalidUsers are users that can be neither created nor the result of an update, each with words of the reason.
func invalidUsers() []struct {
	name string
	user services.User
	text string
} {
	return []struct {
		name string
		user services.User
		text string
	}{
		{"empty email", services.User{Name: "Ada"}, "email is required"},
		{"blank email", services.User{Email: " ", Name: "Ada"}, "email is required"},
		{"email without domain", services.User{Email: "ada", Name: "Ada"}, "email is malformed"},
		{"email with empty domain", services.User{Email: "ada@", Name: "Ada"}, "email is malformed"},
		{"email without local part", services.User{Email: "@example.com", Name: "Ada"}, "email is malformed"},
		{"email with a blank", services.User{Email: "a da@example.com", Name: "Ada"}, "email is malformed"},
		{"email with a display name", services.User{Email: "Ada <ada@example.com>", Name: "Ada"}, "email is malformed"},
		{"two emails", services.User{Email: "ada@example.com, bob@example.com", Name: "Ada"}, "email is malformed"},
		{"email with a line break", services.User{Email: "ada@example.com\r\nBcc: x@example.com", Name: "Ada"}, "email is malformed"},
		{"email too long", services.User{Email: strings.Repeat("a", 250) + "@example.com", Name: "Ada"}, "email is malformed"},
		{"empty name", services.User{Email: "ada@example.com"}, "name is required"},
		{"blank name", services.User{Email: "ada@example.com", Name: " \t"}, "name is required"},
		{"empty role", services.User{Email: "ada@example.com", Name: "Ada", Roles: []string{"admin", ""}}, "roles must not be empty"},
	}
}

func testCreateWithInvalidField(t *testing.T, s Services) {
	for _, test := range invalidUsers() {
		test.user.Password = suitePassword
		_, err := s.Identity.CreateUser(t.Context(), test.user)
		wantError(t, test.name, err, services.ErrInvalidArgument, test.text)
		wantHidden(t, err, suitePassword)
	}
	for _, test := range []struct{ name, password, text string }{
		{"empty password", "", "password is too short"},
		{"short password", "1234567", "password is too short"},
		{"endless password", strings.Repeat("x", 1<<16), "password is too long"},
	} {
		_, err := s.Identity.CreateUser(t.Context(), services.User{Email: "ada@example.com", Name: "Ada", Password: test.password})
		wantError(t, test.name, err, services.ErrInvalidArgument, test.text)
		wantHidden(t, err, test.password)
	}
	_, err := s.Identity.GetUserByEmail(t.Context(), "ada@example.com")
	wantError(t, "get a user that was refused", err, services.ErrNotFound)
}

func testPasswordLengthIsInCharacters(t *testing.T, s Services) {
	user := services.User{Email: "ada@example.com", Name: "Ada"}
	user.Password = "äöüäöüä"
	_, err := s.Identity.CreateUser(t.Context(), user)
	wantError(t, "seven characters of two bytes", err, services.ErrInvalidArgument, "at least 8 characters")
	user.Password = "äöüäöüäö"
	if _, err := s.Identity.CreateUser(t.Context(), user); err != nil {
		t.Fatalf("create with a password of eight characters: %v", err)
	}
	if _, err := s.Auth.Login(t.Context(), user.Email, user.Password); err != nil {
		t.Errorf("log in: %v", err)
	}
}

func testUpdateReplaces(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com", "admin")
	s.Controls.Advance(time.Minute)
	updated, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{
		ID: "usr_other", Email: "ada@example.com", Name: "Countess", Roles: []string{"auditor"},
		EmailVerified: true, CreatedAt: time.Unix(0, 0), UpdatedAt: time.Unix(0, 0),
	})
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	if !updated.UpdatedAt.After(user.UpdatedAt) {
		t.Errorf("updated at %v, a minute after %v", updated.UpdatedAt, user.UpdatedAt)
	}
	want := *user
	want.Name, want.Roles, want.UpdatedAt = "Countess", []string{"auditor"}, updated.UpdatedAt
	wantUser(t, "as returned", updated, &want)
	got, err := s.Identity.GetUser(t.Context(), user.ID)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	wantUser(t, "as kept", got, &want)

	updated, err = s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "ada@example.com", Name: "Countess"})
	if err != nil || len(updated.Roles) != 0 {
		t.Errorf("got %v, %v; want no roles, since none were given", updated, err)
	}
}

func testUpdateKeepsThePassword(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	updated, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "ada@example.com", Name: "Ada", Password: "another one"})
	if err != nil || updated.Password != "" {
		t.Fatalf("got %#v, %v; want the user without a password", updated, err)
	}
	s.login(t, "ada@example.com")
	_, err = s.Auth.Login(t.Context(), "ada@example.com", "another one")
	wantError(t, "log in with the password of an update", err, services.ErrUnauthenticated)
}

func testUpdateOfEmail(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	if err := s.Identity.VerifyEmail(t.Context(), s.sent(t, "ada@example.com", EmailVerification)); err != nil {
		t.Fatalf("verify: %v", err)
	}
	if err := s.Identity.RequestPasswordReset(t.Context(), "ada@example.com"); err != nil {
		t.Fatalf("request a reset: %v", err)
	}
	updated, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "countess@example.com", Name: "Ada"})
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	if updated.EmailVerified || updated.Email != "countess@example.com" {
		t.Errorf("got %v, want the new address, not verified", updated)
	}
	err = s.Identity.ResetPassword(t.Context(), s.sent(t, "ada@example.com", PasswordReset), "a password of a stranger")
	wantError(t, "reset by a token sent to the old address", err, services.ErrUnauthenticated)
	_, err = s.Identity.GetUserByEmail(t.Context(), "ada@example.com")
	wantError(t, "get by the old address", err, services.ErrNotFound)
	s.login(t, "countess@example.com")
	_, err = s.Auth.Login(t.Context(), "ada@example.com", suitePassword)
	wantError(t, "log in with the old address", err, services.ErrUnauthenticated)

	moved := s.sent(t, "countess@example.com", EmailVerification)
	if _, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "third@example.com", Name: "Ada"}); err != nil {
		t.Fatalf("update again: %v", err)
	}
	wantError(t, "verify by a token sent to the address before", s.Identity.VerifyEmail(t.Context(), moved), services.ErrUnauthenticated)
	if err := s.Identity.VerifyEmail(t.Context(), s.sent(t, "third@example.com", EmailVerification)); err != nil {
		t.Errorf("verify the new address: %v", err)
	}
	s.newUser(t, "ada@example.com") // The address is free.
}

func testUpdateRepeated(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	change := services.User{Email: "countess@example.com", Name: "Countess", Roles: []string{"admin"}}
	first, err := s.Identity.UpdateUser(t.Context(), user.ID, change)
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	token := s.sent(t, "countess@example.com", EmailVerification)
	s.Controls.Advance(time.Minute)
	again, err := s.Identity.UpdateUser(t.Context(), user.ID, change)
	if err != nil {
		t.Fatalf("repeat the update: %v", err)
	}
	wantUser(t, "repeated", again, first)
	if err := s.Identity.VerifyEmail(t.Context(), token); err != nil {
		t.Errorf("verify by the token of the first update: %v", err)
	}
}

func testUpdateFails(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	s.newUser(t, "grace@example.com")
	_, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "Grace@example.com", Name: "Ada"})
	wantError(t, "email of another", err, services.ErrAlreadyExists, "email is taken")
	for _, id := range []string{"", "usr_nobody"} {
		_, err = s.Identity.UpdateUser(t.Context(), id, services.User{Email: "new@example.com", Name: "Ada"})
		wantError(t, "unknown user "+id, err, services.ErrNotFound, "no user has the ID")
	}
	for _, test := range invalidUsers() {
		_, err = s.Identity.UpdateUser(t.Context(), user.ID, test.user)
		wantError(t, test.name, err, services.ErrInvalidArgument, test.text)
	}
	got, err := s.Identity.GetUser(t.Context(), user.ID)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	wantUser(t, "after failed updates", got, user)
}

func testDeleteRemoves(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com", "admin")
	tokens := s.login(t, "ada@example.com")
	if err := s.Identity.RequestPasswordReset(t.Context(), "ada@example.com"); err != nil {
		t.Fatalf("request a reset: %v", err)
	}
	if err := s.Controls.Grant(user.ID, "invoices:read"); err != nil {
		t.Fatalf("grant: %v", err)
	}
	if err := s.Identity.DeleteUser(t.Context(), user.ID); err != nil {
		t.Fatalf("delete: %v", err)
	}
	wantError(t, "delete again", s.Identity.DeleteUser(t.Context(), user.ID), services.ErrNotFound)
	_, err := s.Identity.GetUser(t.Context(), user.ID)
	wantError(t, "get by ID", err, services.ErrNotFound)
	_, err = s.Identity.GetUserByEmail(t.Context(), "ada@example.com")
	wantError(t, "get by email", err, services.ErrNotFound)
	_, err = s.Auth.Login(t.Context(), "ada@example.com", suitePassword)
	wantError(t, "log in", err, services.ErrUnauthenticated, "email or password is wrong")
	_, err = s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
	wantError(t, "refresh", err, services.ErrUnauthenticated)
	wantError(t, "authorize", s.Authz.Authorize(t.Context(), user.ID, "invoices:read"), services.ErrPermissionDenied)
	_, err = s.Authz.GetUserPermissions(t.Context(), user.ID)
	wantError(t, "permissions", err, services.ErrNotFound)
	err = s.Identity.VerifyEmail(t.Context(), s.sent(t, "ada@example.com", EmailVerification))
	wantError(t, "verify", err, services.ErrUnauthenticated)
	err = s.Identity.ResetPassword(t.Context(), s.sent(t, "ada@example.com", PasswordReset), suitePassword)
	wantError(t, "reset", err, services.ErrUnauthenticated)
	if again := s.newUser(t, "ada@example.com"); again.ID == user.ID {
		t.Errorf("the ID %s of a deleted user was given again", user.ID)
	}
}
