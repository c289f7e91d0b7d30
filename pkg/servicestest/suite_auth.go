package servicestest

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/0x1d/goplt/pkg/services"
)

func authSuite() []suiteTest {
	return []suiteTest{
		{"LoginGivesTokens", testLoginGivesTokens},
		{"LoginIgnoresCaseOfEmail", func(s *suite) {
			s.newUser(ada)
			s.login("ADA@Example.com")
		}},
		{"LoginWithWrongCredentials", testLoginWithWrongCredentials},
		{"LoginWithoutCredentials", func(s *suite) {
			_, err := s.Auth.Login(s.Context(), "", suitePassword)
			s.wantError("empty email", err, services.ErrInvalidArgument, "email is required")
			s.wantHidden(err, suitePassword)
			_, err = s.Auth.Login(s.Context(), ada, "")
			s.wantError("empty password", err, services.ErrInvalidArgument, "password is required")
		}},
		{"LoginsAreApart", testLoginsAreApart},
		{"RefreshRotates", testRefreshRotates},
		{"RefreshShowsTheUserAsIs", testRefreshShowsTheUserAsIs},
		{"RefreshWithUnknownToken", testRefreshWithUnknownToken},
		{"RefreshReusedEndsTheSession", testRefreshReused},
		{"RefreshRaced", testRefreshRaced},
		{"RefreshExpires", func(s *suite) {
			s.newUser(ada)
			tokens := s.login(ada)
			s.expireEverything()
			_, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
			s.wantError("expired refresh token", err, services.ErrUnauthenticated, "expired")
			s.wantHidden(err, tokens.RefreshToken)
		}},
		{"ValidateMalformedToken", func(s *suite) {
			for _, token := range []string{"", ".", "..", "x", "a.b.c", "a.b.c.d", strings.Repeat(".", 1000), "Bearer x", "ümlaut", "a\nb"} {
				_, err := s.Auth.ValidateToken(s.Context(), token)
				s.wantError("token "+token, err, services.ErrUnauthenticated, "malformed")
			}
		}},
		{"ValidateForgedToken", testValidateForgedToken},
		{"ValidateExpires", func(s *suite) {
			s.newUser(ada)
			tokens := s.login(ada)
			s.expireEverything()
			_, err := s.Auth.ValidateToken(s.Context(), tokens.AccessToken)
			s.wantError("expired access token", err, services.ErrUnauthenticated, "expired")
			s.wantHidden(err, tokens.AccessToken)
		}},
		{"TokensAreNotExchangeable", func(s *suite) {
			s.newUser(ada)
			tokens := s.login(ada)
			_, err := s.Auth.ValidateToken(s.Context(), tokens.RefreshToken)
			s.wantError("validate a refresh token", err, services.ErrUnauthenticated)
			_, err = s.Auth.RefreshToken(s.Context(), tokens.AccessToken)
			s.wantError("refresh with an access token", err, services.ErrUnauthenticated)
			s.wantHidden(err, tokens.AccessToken)
		}},
	}
}

func testLoginGivesTokens(s *suite) {
	user := s.newUser(ada, "admin", "auditor")
	tokens := s.login(ada)
	if tokens.AccessToken == "" || tokens.RefreshToken == "" || tokens.AccessToken == tokens.RefreshToken || tokens.TokenType != "Bearer" {
		s.Errorf("got access token of %d bytes, refresh token of %d bytes, type %q; want two different tokens, Bearer",
			len(tokens.AccessToken), len(tokens.RefreshToken), tokens.TokenType)
	}
	claims, err := s.Auth.ValidateToken(s.Context(), tokens.AccessToken)
	if err != nil {
		s.Fatalf("validate the token of a login: %v", err)
	}
	if claims.UserID != user.ID || claims.Email != user.Email || !slices.Equal(claims.Roles, user.Roles) || claims.TokenID == "" {
		s.Errorf("got claims %+v, want those of %v", claims, user)
	}
	if !claims.ExpiresAt.Equal(tokens.ExpiresAt) || !claims.IssuedAt.Before(claims.ExpiresAt) {
		s.Errorf("claims are issued at %v and expire at %v, the response says %v", claims.IssuedAt, claims.ExpiresAt, tokens.ExpiresAt)
	}
}

func testLoginWithWrongCredentials(s *suite) {
	s.newUser(ada)
	for _, test := range []struct{ name, email, password string }{
		{"wrong password", ada, "not the password"},
		{"password in other case", ada, strings.ToUpper(suitePassword)},
		{"password with a blank behind", ada, suitePassword + " "},
		{"unknown email", "nobody@example.com", suitePassword},
		{"malformed email", "ada", suitePassword},
	} {
		_, err := s.Auth.Login(s.Context(), test.email, test.password)
		s.wantError(test.name, err, services.ErrUnauthenticated, "email or password is wrong")
		s.wantHidden(err, test.password)
	}
}

func testLoginsAreApart(s *suite) {
	s.newUser(ada)
	first, second := s.login(ada), s.login(ada)
	if first.AccessToken == second.AccessToken || first.RefreshToken == second.RefreshToken {
		s.Fatal("two logins were given the same token")
	}
	ids := make(map[string]bool)
	for _, tokens := range []*services.TokenResponse{first, second} {
		claims, err := s.Auth.ValidateToken(s.Context(), tokens.AccessToken)
		if err != nil {
			s.Fatalf("validate: %v", err)
		}
		ids[claims.TokenID] = true
		if _, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken); err != nil {
			s.Errorf("refresh: %v", err)
		}
	}
	if len(ids) != 2 {
		s.Errorf("two tokens have %d IDs", len(ids))
	}
}

func testRefreshRotates(s *suite) {
	user := s.newUser(ada)
	tokens := s.login(ada)
	for range 3 {
		next, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
		if err != nil {
			s.Fatalf("refresh: %v", err)
		}
		if next.RefreshToken == tokens.RefreshToken || next.AccessToken == tokens.AccessToken || next.TokenType != "Bearer" {
			s.Fatalf("got %v with the tokens of before, want new ones", next)
		}
		claims, err := s.Auth.ValidateToken(s.Context(), next.AccessToken)
		if err != nil || claims.UserID != user.ID || !claims.ExpiresAt.Equal(next.ExpiresAt) {
			s.Fatalf("validate the token of a refresh: %+v, %v", claims, err)
		}
		tokens = next
	}
}

func testRefreshShowsTheUserAsIs(s *suite) {
	user := s.newUser(ada, "admin")
	tokens := s.login(ada)
	if _, err := s.Identity.UpdateUser(s.Context(), user.ID, services.User{Email: countess, Name: "Ada"}); err != nil {
		s.Fatalf("update: %v", err)
	}
	next, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
	if err != nil {
		s.Fatalf("refresh: %v", err)
	}
	for _, test := range []struct {
		token, email string
		admin        bool
	}{
		{tokens.AccessToken, ada, true},
		{next.AccessToken, countess, false},
	} {
		claims, err := s.Auth.ValidateToken(s.Context(), test.token)
		if err != nil {
			s.Fatalf("validate: %v", err)
		}
		if claims.Email != test.email || claims.HasRole("admin") != test.admin {
			s.Errorf("got claims %+v, want email %s, admin %t", claims, test.email, test.admin)
		}
	}
}

func testRefreshWithUnknownToken(s *suite) {
	s.newUser(ada)
	tokens := s.login(ada)
	for _, token := range []string{"", "x", tokens.RefreshToken + "A", strings.ToLower(tokens.RefreshToken), " " + tokens.RefreshToken} {
		if token == tokens.RefreshToken {
			continue
		}
		_, err := s.Auth.RefreshToken(s.Context(), token)
		s.wantError("unknown refresh token", err, services.ErrUnauthenticated, "refresh token", "unknown")
		s.wantHidden(err, tokens.RefreshToken)
	}
	if _, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken); err != nil {
		s.Errorf("guesses ended the session: %v", err)
	}
}

func testRefreshReused(s *suite) {
	s.newUser(ada)
	tokens, other := s.login(ada), s.login(ada)
	second, err := s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
	if err != nil {
		s.Fatalf("refresh: %v", err)
	}
	third, err := s.Auth.RefreshToken(s.Context(), second.RefreshToken)
	if err != nil {
		s.Fatalf("refresh again: %v", err)
	}
	_, err = s.Auth.RefreshToken(s.Context(), tokens.RefreshToken)
	s.wantError("first token reused", err, services.ErrUnauthenticated, "used before")
	s.wantHidden(err, tokens.RefreshToken)
	for name, token := range map[string]string{"first": tokens.RefreshToken, "second": second.RefreshToken, "third": third.RefreshToken} {
		_, err = s.Auth.RefreshToken(s.Context(), token)
		s.wantError(name+" token of the ended session", err, services.ErrUnauthenticated, "refresh token")
	}
	if _, err := s.Auth.RefreshToken(s.Context(), other.RefreshToken); err != nil {
		s.Errorf("another session of the user ended too: %v", err)
	}
	s.login(ada)
}

func testRefreshRaced(s *suite) {
	s.newUser(ada)
	tokens := s.login(ada)
	won := race(8, func() (*services.TokenResponse, error) { return s.Auth.RefreshToken(s.Context(), tokens.RefreshToken) })
	won.check(s, services.ErrUnauthenticated)
	for _, next := range won.successes {
		// Somebody else used the same token, so this session is a thief's as likely as not.
		_, err := s.Auth.RefreshToken(s.Context(), next.RefreshToken)
		s.wantError("the winner's token", err, services.ErrUnauthenticated)
	}
}

func testValidateForgedToken(s *suite) {
	s.newUser(ada)
	token := s.login(ada).AccessToken
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
		_, err := s.Auth.ValidateToken(s.Context(), forged)
		s.wantError(name, err, services.ErrUnauthenticated, "forged")
		s.wantHidden(err, forged)
	}
	if _, err := s.Auth.ValidateToken(s.Context(), token); err != nil {
		s.Errorf("the token that was not tampered with: %v", err)
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
func (r *raced[T]) check(s *suite, sentinel error) {
	s.Helper()
	if len(r.successes) != 1 {
		s.Errorf("%d calls of a race succeeded, want 1: %v", len(r.successes), errors.Join(r.failures...))
	}
	for _, err := range r.failures {
		s.wantError("a call that lost", err, sentinel)
	}
}
