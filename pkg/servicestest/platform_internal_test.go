package servicestest

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/0x1d/goplt/pkg/services"
)

// What is signed with the right key is not good for that alone.
func TestAccessTokensUnderTheRightKey(t *testing.T) {
	key, now := deriveKey([]byte("secret"), "test"), time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	tokens := newAccessTokens(key, time.Hour, func() time.Time { return now })
	complete := func(without ...string) jwt.MapClaims {
		claims := jwt.MapClaims{"iss": "goplt", "sub": "usr_ada", "jti": "tok_1", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		for _, claim := range without {
			delete(claims, claim)
		}
		return claims
	}
	elsewhere := complete()
	elsewhere["iss"] = "elsewhere"
	for _, test := range []struct {
		name   string
		method jwt.SigningMethod
		claims jwt.MapClaims
		want   string
	}{
		{"complete", jwt.SigningMethodHS256, complete(), ""},
		{"another issuer", jwt.SigningMethodHS256, elsewhere, "another issuer"},
		{"no issuer", jwt.SigningMethodHS256, complete("iss"), "invalid"},
		{"no expiry", jwt.SigningMethodHS256, complete("exp"), "invalid"},
		{"no user", jwt.SigningMethodHS256, complete("sub"), "incomplete"},
		{"no ID", jwt.SigningMethodHS256, complete("jti"), "incomplete"},
		{"no time of issue", jwt.SigningMethodHS256, complete("iat"), "incomplete"},
		{"another algorithm", jwt.SigningMethodHS512, complete(), "forged"},
	} {
		token, err := jwt.NewWithClaims(test.method, test.claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tokens.check(token)
		if (err == nil) != (test.want == "") || err != nil && (!errors.Is(err, services.ErrUnauthenticated) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// A token has one spelling: the bits that the last character of a signature has to spare are not free to choose.
func TestAccessTokensHaveOneSpelling(t *testing.T) {
	tokens := newAccessTokens([]byte("key"), time.Hour, time.Now)
	token, _, err := tokens.issue(services.User{ID: "usr_ada", Email: ada})
	if err != nil {
		t.Fatal(err)
	}
	for last := range byte(128) {
		other := token[:len(token)-1] + string(rune(last))
		if _, err := tokens.check(other); (err == nil) != (other == token) {
			t.Errorf("%q in place of %q at the end: got %v", last, token[len(token)-1], err)
		}
	}
}

// A login does not go through on what was true when it began.
func TestLoginWhileTheAccountChanges(t *testing.T) {
	for name, change := range map[string]func(p *Platform, id string) error{
		"password reset": func(p *Platform, id string) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.users[id].passwordHash = p.passwords.dummy
			return nil
		},
		"deleted": func(p *Platform, id string) error { return p.Identity().DeleteUser(t.Context(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPlatform(WithPasswordCost(TestPasswordCost()))
				p.passwords = newPasswordHasher(TestPasswordCost(), 1)
				user, err := p.Identity().CreateUser(t.Context(), services.User{Email: ada, Name: "Ada", Password: "a long password"})
				if err != nil {
					t.Fatal(err)
				}
				if err := p.passwords.acquire(t.Context()); err != nil {
					t.Fatal(err)
				}
				failed := make(chan error)
				go func() {
					_, err := p.Auth().Login(t.Context(), ada, "a long password")
					failed <- err
				}()
				synctest.Wait() // It waits for its turn to hash.
				if err := change(p, user.ID); err != nil {
					t.Fatal(err)
				}
				p.passwords.release()
				if err := <-failed; !errors.Is(err, services.ErrUnauthenticated) {
					t.Errorf("got %v, want unauthenticated", err)
				}
			})
		})
	}
}

func TestDeleteLeavesNothingBehind(t *testing.T) {
	p := NewPlatform(WithPasswordCost(TestPasswordCost()))
	ctx := t.Context()
	user, err := p.Identity().CreateUser(ctx, services.User{Email: ada, Name: "Ada", Password: "a long password"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Auth().Login(ctx, ada, "a long password")
	if err = errors.Join(err, p.Grant(user.ID, "invoices:read"), p.Identity().RequestPasswordReset(ctx, ada)); err != nil {
		t.Fatal(err)
	}
	if len(p.refresh.byHash) != 1 || len(p.oneTime.byHash) != 2 || len(p.grants) != 1 {
		t.Fatalf("before: %d refresh tokens, %d others, %d grants", len(p.refresh.byHash), len(p.oneTime.byHash), len(p.grants))
	}
	if err := p.Identity().DeleteUser(ctx, user.ID); err != nil {
		t.Fatal(err)
	}
	if n := len(p.users) + len(p.byEmail) + len(p.refresh.byHash) + len(p.oneTime.byHash) + len(p.grants); n != 0 {
		t.Errorf("%d things are left of the only user: %v %v", n, p.refresh.byHash, p.grants)
	}
}
