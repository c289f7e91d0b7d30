package services_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

const (
	password     = "the-password-itself"
	accessToken  = "the-access-token-itself"
	refreshToken = "the-refresh-token-itself"
)

// holders are the types with secrets, in all the shapes in which they get into a log: each maps a name to a value and to something
// that must be seen of it, so that no test passes because nothing at all was printed.
func holders() []struct {
	name  string
	value any
	seen  string
} {
	user := services.User{ID: "u1", Email: "ada@example.com", Name: "Ada", Password: password, Roles: []string{"admin"}}
	pair := services.TokenResponse{
		AccessToken: accessToken, RefreshToken: refreshToken, TokenType: "Bearer", ExpiresAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	type login struct {
		User   *services.User
		Tokens services.TokenResponse
	}
	return []struct {
		name  string
		value any
		seen  string
	}{
		{"user", user, "ada@example.com"},
		{"pointer to user", &user, "ada@example.com"},
		{"slice of users", []services.User{user, user}, "ada@example.com"},
		{"map of users", map[string]services.User{"ada": user}, "ada@example.com"},
		{"tokens", pair, "Bearer"},
		{"pointer to tokens", &pair, "Bearer"},
		{"slice of tokens", []services.TokenResponse{pair}, "Bearer"},
		{"struct of both", login{User: &user, Tokens: pair}, "Bearer"},
		{"pointer to struct of both", &login{User: &user, Tokens: pair}, "Bearer"},
		{"slice of any", []any{user, &user, pair, &pair}, "Bearer"},
	}
}

func checkHidden(t *testing.T, output, seen string) {
	t.Helper()
	for _, secret := range []string{password, accessToken, refreshToken} {
		if strings.Contains(output, secret) {
			t.Errorf("%s shows the secret %q", output, secret)
		}
	}
	if seen != "" && !strings.Contains(output, seen) {
		t.Errorf("%s does not show %q", output, seen)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	for _, holder := range holders() {
		t.Run(holder.name, func(t *testing.T) {
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				seen := holder.seen
				if strings.HasPrefix(holder.name, "struct of") || strings.HasPrefix(holder.name, "pointer to struct") {
					// A *User within a struct prints as an address, so only the tokens of these are seen.
					seen = "Bearer"
				}
				checkHidden(t, fmt.Sprintf(format, holder.value), seen)
			}
			checkHidden(t, fmt.Errorf("log in %v: %w", holder.value, services.ErrInternal).Error(), holder.seen)
		})
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	for _, holder := range holders() {
		t.Run(holder.name, func(t *testing.T) {
			var output bytes.Buffer
			for name, handler := range map[string]slog.Handler{
				"json": slog.NewJSONHandler(&output, nil),
				"text": slog.NewTextHandler(&output, nil),
			} {
				output.Reset()
				log := slog.New(handler)
				log.InfoContext(t.Context(), "logged in", "holder", holder.value)
				log.With("holder", holder.value).InfoContext(t.Context(), "logged in")
				log.InfoContext(t.Context(), "logged in", slog.Group("group", slog.Any("holder", holder.value)))
				if name == "json" && strings.Count(output.String(), "\n") != 3 {
					t.Fatalf("got %q, want three lines", output.String())
				}
				checkHidden(t, output.String(), "")
			}
		})
	}
}

func TestSecretsAreNotMarshalled(t *testing.T) {
	for _, holder := range holders() {
		output, err := json.Marshal(holder.value)
		if err != nil {
			t.Fatalf("marshal %s: %v", holder.name, err)
		}
		checkHidden(t, string(output), holder.seen)
	}
}

func TestLogValues(t *testing.T) {
	user := services.User{ID: "u1", Email: "ada@example.com", Roles: []string{"admin"}, EmailVerified: true, Password: password}
	pair := services.TokenResponse{TokenType: "Bearer", ExpiresAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), AccessToken: accessToken}
	for _, test := range []struct {
		name string
		got  any
		want string
	}{
		{"user as text", user.String(), `user "u1" <ada@example.com> roles=[admin] verified=true`},
		{"user as Go", fmt.Sprintf("%#v", user), `user "u1" <ada@example.com> roles=[admin] verified=true`},
		{"user in a log", user.LogValue(), "[id=u1 email=ada@example.com roles=[admin] email_verified=true]"},
		{"tokens as text", pair.String(), "Bearer token expiring 2026-01-02T03:04:05Z"},
		{"tokens as Go", fmt.Sprintf("%#v", pair), "Bearer token expiring 2026-01-02T03:04:05Z"},
		{"tokens in a log", pair.LogValue(), "[token_type=Bearer expires_at=2026-01-02 03:04:05 +0000 UTC]"},
		{"permission", services.Permission{Resource: "invoices", Action: "read"}, "invoices:read"},
	} {
		if got := fmt.Sprint(test.got); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
