package servicestest

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/0x1d/goplt/pkg/services"
)

func authSuite() []suiteTest {
	return []suiteTest{
		{"LoginGivesTokens", testLoginGivesTokens},
		{"LoginIgnoresCaseOfEmail", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			s.login(t, "ADA@Example.com")
		}},
		{"LoginWithWrongCredentials", testLoginWithWrongCredentials},
		{"LoginWithoutCredentials", func(t *testing.T, s Services) {
			_, err := s.Auth.Login(t.Context(), "", suitePassword)
			wantError(t, "empty email", err, services.ErrInvalidArgument, "email is required")
			wantHidden(t, err, suitePassword)
			_, err = s.Auth.Login(t.Context(), "ada@example.com", "")
			wantError(t, "empty password", err, services.ErrInvalidArgument, "password is required")
		}},
		{"LoginsAreApart", testLoginsAreApart},
		{"RefreshRotates", testRefreshRotates},
		{"RefreshShowsTheUserAsIs", testRefreshShowsTheUserAsIs},
		{"RefreshWithUnknownToken", testRefreshWithUnknownToken},
		{"RefreshReusedEndsTheSession", testRefreshReused},
		{"RefreshRaced", testRefreshRaced},
		{"RefreshExpires", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			tokens := s.login(t, "ada@example.com")
			s.expireEverything()
			_, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
			wantError(t, "expired refresh token", err, services.ErrUnauthenticated, "expired")
			wantHidden(t, err, tokens.RefreshToken)
		}},
		{"ValidateMalformedToken", func(t *testing.T, s Services) {
			for _, token := range []string{"", ".", "..", "x", "a.b.c", "a.b.c.d", strings.Repeat(".", 1000), "Bearer x", "ümlaut", "a\nb"} {
				_, err := s.Auth.ValidateToken(t.Context(), token)
				wantError(t, "token "+token, err, services.ErrUnauthenticated, "malformed")
			}
		}},
		{"ValidateForgedToken", testValidateForgedToken},
		{"ValidateExpires", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			tokens := s.login(t, "ada@example.com")
			s.expireEverything()
			_, err := s.Auth.ValidateToken(t.Context(), tokens.AccessToken)
			wantError(t, "expired access token", err, services.ErrUnauthenticated, "expired")
			wantHidden(t, err, tokens.AccessToken)
		}},
		{"TokensAreNotExchangeable", func(t *testing.T, s Services) {
			s.newUser(t, "ada@example.com")
			tokens := s.login(t, "ada@example.com")
			_, err := s.Auth.ValidateToken(t.Context(), tokens.RefreshToken)
			wantError(t, "validate a refresh token", err, services.ErrUnauthenticated)
			_, err = s.Auth.RefreshToken(t.Context(), tokens.AccessToken)
			wantError(t, "refresh with an access token", err, services.ErrUnauthenticated)
			wantHidden(t, err, tokens.AccessToken)
		}},
	}
}

func testLoginGivesTokens(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com", "admin", "auditor")
	tokens := s.login(t, "ada@example.com")
	if tokens.AccessToken == "" || tokens.RefreshToken == "" || tokens.AccessToken == tokens.RefreshToken || tokens.TokenType != "Bearer" {
		t.Errorf("got access token of %d bytes, refresh token of %d bytes, type %q; want two different tokens, Bearer",
			len(tokens.AccessToken), len(tokens.RefreshToken), tokens.TokenType)
	}
	claims, err := s.Auth.ValidateToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatalf("validate the token of a login: %v", err)
	}
	if claims.UserID != user.ID || claims.Email != user.Email || !slices.Equal(claims.Roles, user.Roles) || claims.TokenID == "" {
		t.Errorf("got claims %+v, want those of %v", claims, user)
	}
	if !claims.ExpiresAt.Equal(tokens.ExpiresAt) || !claims.IssuedAt.Before(claims.ExpiresAt) {
		t.Errorf("claims are issued at %v and expire at %v, the response says %v", claims.IssuedAt, claims.ExpiresAt, tokens.ExpiresAt)
	}
}

func testLoginWithWrongCredentials(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	for _, test := range []struct{ name, email, password string }{
		{"wrong password", "ada@example.com", "not the password"},
		{"password in other case", "ada@example.com", strings.ToUpper(suitePassword)},
		{"password with a blank behind", "ada@example.com", suitePassword + " "},
		{"unknown email", "nobody@example.com", suitePassword},
		{"malformed email", "ada", suitePassword},
	} {
		_, err := s.Auth.Login(t.Context(), test.email, test.password)
		wantError(t, test.name, err, services.ErrUnauthenticated, "email or password is wrong")
		wantHidden(t, err, test.password)
	}
}

func testLoginsAreApart(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	first, second := s.login(t, "ada@example.com"), s.login(t, "ada@example.com")
	if first.AccessToken == second.AccessToken || first.RefreshToken == second.RefreshToken {
		t.Fatal("two logins were given the same token")
	}
	ids := make(map[string]bool)
	for _, tokens := range []*services.TokenResponse{first, second} {
		claims, err := s.Auth.ValidateToken(t.Context(), tokens.AccessToken)
		if err != nil {
			t.Fatalf("validate: %v", err)
		}
		ids[claims.TokenID] = true
		if _, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken); err != nil {
			t.Errorf("refresh: %v", err)
		}
	}
	if len(ids) != 2 {
		t.Errorf("two tokens have %d IDs", len(ids))
	}
}

func testRefreshRotates(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	for range 3 {
		next, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
		if err != nil {
			t.Fatalf("refresh: %v", err)
		}
		if next.RefreshToken == tokens.RefreshToken || next.AccessToken == tokens.AccessToken || next.TokenType != "Bearer" {
			t.Fatalf("got %v with the tokens of before, want new ones", next)
		}
		claims, err := s.Auth.ValidateToken(t.Context(), next.AccessToken)
		if err != nil || claims.UserID != user.ID || !claims.ExpiresAt.Equal(next.ExpiresAt) {
			t.Fatalf("validate the token of a refresh: %+v, %v", claims, err)
		}
		tokens = next
	}
}

func testRefreshShowsTheUserAsIs(t *testing.T, s Services) {
	user := s.newUser(t, "ada@example.com", "admin")
	tokens := s.login(t, "ada@example.com")
	if _, err := s.Identity.UpdateUser(t.Context(), user.ID, services.User{Email: "countess@example.com", Name: "Ada"}); err != nil {
		t.Fatalf("update: %v", err)
	}
	next, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	for _, test := range []struct {
		token, email string
		admin        bool
	}{
		{tokens.AccessToken, "ada@example.com", true},
		{next.AccessToken, "countess@example.com", false},
	} {
		claims, err := s.Auth.ValidateToken(t.Context(), test.token)
		if err != nil {
			t.Fatalf("validate: %v", err)
		}
		if claims.Email != test.email || claims.HasRole("admin") != test.admin {
			t.Errorf("got claims %+v, want email %s, admin %t", claims, test.email, test.admin)
		}
	}
}

func testRefreshWithUnknownToken(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	for _, token := range []string{"", "x", tokens.RefreshToken + "A", strings.ToLower(tokens.RefreshToken), " " + tokens.RefreshToken} {
		if token == tokens.RefreshToken {
			continue
		}
		_, err := s.Auth.RefreshToken(t.Context(), token)
		wantError(t, "unknown refresh token", err, services.ErrUnauthenticated, "refresh token", "unknown")
		wantHidden(t, err, tokens.RefreshToken)
	}
	if _, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken); err != nil {
		t.Errorf("guesses ended the session: %v", err)
	}
}

func testRefreshReused(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	tokens, other := s.login(t, "ada@example.com"), s.login(t, "ada@example.com")
	second, err := s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	third, err := s.Auth.RefreshToken(t.Context(), second.RefreshToken)
	if err != nil {
		t.Fatalf("refresh again: %v", err)
	}
	_, err = s.Auth.RefreshToken(t.Context(), tokens.RefreshToken)
	wantError(t, "first token reused", err, services.ErrUnauthenticated, "used before")
	wantHidden(t, err, tokens.RefreshToken)
	for name, token := range map[string]string{"first": tokens.RefreshToken, "second": second.RefreshToken, "third": third.RefreshToken} {
		_, err = s.Auth.RefreshToken(t.Context(), token)
		wantError(t, name+" token of the ended session", err, services.ErrUnauthenticated, "refresh token")
	}
	if _, err := s.Auth.RefreshToken(t.Context(), other.RefreshToken); err != nil {
		t.Errorf("another session of the user ended too: %v", err)
	}
	s.login(t, "ada@example.com")
}

func testRefreshRaced(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	tokens := s.login(t, "ada@example.com")
	won := race(8, func() (*services.TokenResponse, error) { return s.Auth.RefreshToken(t.Context(), tokens.RefreshToken) })
	won.check(t, services.ErrUnauthenticated)
	for _, next := range won.successes {
		// Somebody else used the same token, so this session is a thief's as likely as not.
		_, err := s.Auth.RefreshToken(t.Context(), next.RefreshToken)
		wantError(t, "the winner's token", err, services.ErrUnauthenticated)
	}
}

func testValidateForgedToken(t *testing.T, s Services) {
	s.newUser(t, "ada@example.com")
	token := s.login(t, "ada@example.com").AccessToken
	// One character in the middle of the last part, which is the signature in all common formats, becomes another.
	at := (strings.LastIndexByte(token, '.') + len(token)) / 2
	other := byte('A')
	if token[at] == other {
		other = 'B'
	}
	forgeries := map[string]string{"another signature": token[:at] + string(other) + token[at+1:]}
	if parts := strings.Split(token, "."); len(parts) == 3 {
		encode := base64.RawURLEncoding.EncodeToString
		claims := encode([]byte(`{"iss":"goplt","sub":"usr_root","jti":"x","iat":1,"exp":99999999999,"roles":["admin"]}`))
		forgeries["another's claims"] = parts[0] + "." + claims + "." + parts[2]
		for _, alg := range []string{"none", "None", "HS512", "RS256", "EdDSA", ""} {
			header := encode([]byte(`{"typ":"JWT","alg":"` + alg + `"}`))
			forgeries["algorithm "+alg] = header + "." + parts[1] + "." + parts[2]
			if alg == "none" {
				forgeries["no signature"] = header + "." + claims + "."
			}
		}
	}
	for name, forged := range forgeries {
		_, err := s.Auth.ValidateToken(t.Context(), forged)
		wantError(t, name, err, services.ErrUnauthenticated, "forged")
		wantHidden(t, err, forged)
	}
	if _, err := s.Auth.ValidateToken(t.Context(), token); err != nil {
		t.Errorf("the token that was not tampered with: %v", err)
	}
}

// raced is how calls ended that ran at the same time.
type raced[T any] struct {
	successes []T
	failures  []error
}

// race makes so many calls at the same time.
func race[T any](calls int, call func() (T, error)) *raced[T] {
	var (
		mu     sync.Mutex
		result raced[T]
		group  sync.WaitGroup
		start  = make(chan struct{})
	)
	for range calls {
		group.Go(func() {
			<-start
			value, err := call()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				result.failures = append(result.failures, err)
				return
			}
			result.successes = append(result.successes, value)
		})
	}
	close(start)
	group.Wait()
	return &result
}

// check checks that exactly one call succeeded and that the others failed as they should.
func (r *raced[T]) check(t *testing.T, sentinel error) {
	t.Helper()
	if len(r.successes) != 1 {
		t.Errorf("%d calls of a race succeeded, want 1: %v", len(r.successes), errors.Join(r.failures...))
	}
	for _, err := range r.failures {
		wantError(t, "a call that lost", err, sentinel)
	}
}
