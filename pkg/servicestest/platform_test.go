package servicestest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/services"
	"github.com/0x1d/goplt/pkg/servicestest"
)

const password = "a long password"

// atNoon is a clock that stands still unless the platform is advanced.
func atNoon() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 987654321, time.UTC) }

func createUser(tb testing.TB, p *servicestest.Platform, email string, roles ...string) *services.User {
	tb.Helper()
	user, err := p.Identity().CreateUser(tb.Context(), services.User{Email: email, Name: "Ada", Password: password, Roles: roles})
	if err != nil {
		tb.Fatalf("create %s: %v", email, err)
	}
	return user
}

func login(tb testing.TB, p *servicestest.Platform, email, password string) *services.TokenResponse {
	tb.Helper()
	tokens, err := p.Auth().Login(tb.Context(), email, password)
	if err != nil {
		tb.Fatalf("log in %s: %v", email, err)
	}
	return tokens
}

func TestTimesAreTheClocks(t *testing.T) {
	p := newPlatform(servicestest.WithClock(func() time.Time { return atNoon().In(time.FixedZone("elsewhere", 3600)) }))
	user := createUser(t, p, "ada@example.com")
	if user.CreatedAt != atNoon() || user.UpdatedAt != atNoon() {
		t.Errorf("got created %v, updated %v; want %v, in UTC", user.CreatedAt, user.UpdatedAt, atNoon())
	}
	p.Advance(time.Hour)
	if err := p.Audit().Record(t.Context(), services.Action{Action: "x"}); err != nil {
		t.Fatal(err)
	}
	page, err := p.Audit().Query(t.Context(), services.AuditFilters{})
	if err != nil || len(page) != 1 || page[0].RecordedAt != atNoon().Add(time.Hour) || page[0].OccurredAt != atNoon().Add(time.Hour) {
		t.Errorf("got %+v, %v; want an entry at %v", page, err, atNoon().Add(time.Hour))
	}
	if sent := p.Outbox(); len(sent) != 1 || sent[0].SentAt != atNoon() || sent[0].Kind != servicestest.EmailVerification {
		t.Errorf("got %+v, want a message at %v", sent, atNoon())
	}
}

// A token is good until the very moment at which it expires.
func TestLifetimes(t *testing.T) {
	const access, refresh, verify, reset = 90 * time.Second, time.Hour, 2 * time.Hour, 3 * time.Hour
	for _, test := range []struct {
		name string
		ttl  time.Duration
		use  func(ctx context.Context, p *servicestest.Platform, tokens *services.TokenResponse) error
	}{
		// Access tokens are dated in whole seconds: 987654321 ns earlier than they were issued.
		{"access", access - 987654321, func(ctx context.Context, p *servicestest.Platform, tokens *services.TokenResponse) error {
			_, err := p.Auth().ValidateToken(ctx, tokens.AccessToken)
			return err
		}},
		{"refresh", refresh, func(ctx context.Context, p *servicestest.Platform, tokens *services.TokenResponse) error {
			_, err := p.Auth().RefreshToken(ctx, tokens.RefreshToken)
			return err
		}},
		{"verification", verify, func(ctx context.Context, p *servicestest.Platform, _ *services.TokenResponse) error {
			token, _ := p.LastToken("ada@example.com", servicestest.EmailVerification)
			return p.Identity().VerifyEmail(ctx, token)
		}},
		{"reset", reset, func(ctx context.Context, p *servicestest.Platform, _ *services.TokenResponse) error {
			token, _ := p.LastToken("ada@example.com", servicestest.PasswordReset)
			return p.Identity().ResetPassword(ctx, token, password)
		}},
	} {
		for _, at := range []struct {
			offset time.Duration
			want   error
		}{{-1, nil}, {0, services.ErrUnauthenticated}, {1, services.ErrUnauthenticated}} {
			p := newPlatform(servicestest.WithClock(atNoon), servicestest.WithAccessTokenTTL(access), servicestest.WithRefreshTokenTTL(refresh),
				servicestest.WithOneTimeTokenTTL(servicestest.EmailVerification, verify),
				servicestest.WithOneTimeTokenTTL(servicestest.PasswordReset, reset))
			createUser(t, p, "ada@example.com")
			tokens := login(t, p, "ada@example.com", password)
			if err := p.Identity().RequestPasswordReset(t.Context(), "ada@example.com"); err != nil {
				t.Fatal(err)
			}
			p.Advance(test.ttl + at.offset)
			if err := test.use(t.Context(), p, tokens); !errors.Is(err, at.want) {
				t.Errorf("%s token, %v from its end: got %v, want %v", test.name, at.offset, err, at.want)
			}
		}
	}
}

func TestLifetimesThatCannotBeMeantAreIgnored(t *testing.T) {
	p := newPlatform(servicestest.WithClock(atNoon), servicestest.WithAccessTokenTTL(0), servicestest.WithRefreshTokenTTL(-1),
		servicestest.WithOneTimeTokenTTL(servicestest.EmailVerification, 0))
	createUser(t, p, "ada@example.com")
	tokens := login(t, p, "ada@example.com", password)
	if want := atNoon().Truncate(time.Second).Add(15 * time.Minute); !tokens.ExpiresAt.Equal(want) {
		t.Errorf("the access token expires at %v, want the default, %v", tokens.ExpiresAt, want)
	}
	if _, err := p.Auth().RefreshToken(t.Context(), tokens.RefreshToken); err != nil {
		t.Errorf("refresh: %v", err)
	}
	token, _ := p.LastToken("ada@example.com", servicestest.EmailVerification)
	if err := p.Identity().VerifyEmail(t.Context(), token); err != nil {
		t.Errorf("verify: %v", err)
	}
}

func TestAccessTokenIsAStandardJWT(t *testing.T) {
	p := newPlatform(servicestest.WithClock(atNoon), servicestest.WithAccessTokenTTL(1500*time.Millisecond))
	user := createUser(t, p, "ada@example.com", "admin")
	tokens := login(t, p, "ada@example.com", password)
	parts := strings.Split(tokens.AccessToken, ".")
	if len(parts) != 3 {
		t.Fatalf("got %d parts, want 3", len(parts))
	}
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	noon := float64(atNoon().Unix())
	if header["alg"] != "HS256" || claims["iss"] != "goplt" || claims["sub"] != user.ID || claims["email"] != "ada@example.com" ||
		claims["iat"] != noon || claims["exp"] != noon+2 || claims["jti"] == "" || fmt.Sprint(claims["roles"]) != "[admin]" {
		t.Errorf("got header %v, claims %v", header, claims)
	}
}

func TestPlatformsShareASecretOrDoNot(t *testing.T) {
	p := newPlatform(servicestest.WithSecret("shared"), servicestest.WithDemoData())
	token := login(t, p, "ada@example.com", servicestest.DemoPassword).AccessToken
	page, err := p.Audit().Query(t.Context(), services.AuditFilters{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	filters := services.AuditFilters{PageSize: 1, PageToken: page[0].PageToken}

	other := newPlatform(servicestest.WithSecret("shared"), servicestest.WithDemoData())
	if _, err = other.Auth().ValidateToken(t.Context(), token); err != nil {
		t.Errorf("access token of a platform with the same secret: %v", err)
	}
	if _, err = other.Audit().Query(t.Context(), filters); err != nil {
		t.Errorf("page token of a platform with the same secret and log: %v", err)
	}
	_, err = newPlatform(servicestest.WithSecret("shared")).Audit().Query(t.Context(), filters)
	if !errors.Is(err, services.ErrInvalidArgument) || !strings.Contains(err.Error(), "another log") {
		t.Errorf("page token of a longer log: got %v", err)
	}
	for _, secret := range []string{"", "Shared", "shared "} {
		stranger := newPlatform(servicestest.WithSecret(secret), servicestest.WithDemoData())
		_, err = stranger.Auth().ValidateToken(t.Context(), token)
		if !errors.Is(err, services.ErrUnauthenticated) || !strings.Contains(err.Error(), "forged") || strings.Contains(err.Error(), token) {
			t.Errorf("access token, by a platform with the secret %q: got %v, want forged", secret, err)
		}
		if _, err = stranger.Audit().Query(t.Context(), filters); !errors.Is(err, services.ErrInvalidArgument) {
			t.Errorf("page token, by a platform with the secret %q: got %v, want invalid argument", secret, err)
		}
	}
}

// An unknown address takes a login as long as a wrong password does. Only a floor is checked, and of the fastest of several runs, so
// that a busy machine does not matter.
func TestLoginOfUnknownEmailTakesAsLong(t *testing.T) {
	p := servicestest.NewPlatform(servicestest.WithPasswordCost(servicestest.PasswordCost{MemoryKiB: 8 << 10, Iterations: 1, Parallelism: 1}))
	createUser(t, p, "ada@example.com")
	fastest := func(email string) time.Duration {
		best := time.Hour
		for range 5 {
			begin := time.Now()
			if _, err := p.Auth().Login(t.Context(), email, "not the password"); !errors.Is(err, services.ErrUnauthenticated) {
				t.Fatalf("log in %s: %v", email, err)
			}
			best = min(best, time.Since(begin))
		}
		return best
	}
	known := fastest("ada@example.com")
	for _, email := range []string{"nobody@example.com", "malformed"} {
		if unknown := fastest(email); unknown < known/3 {
			t.Errorf("a login of %s takes %v, of a user %v", email, unknown, known)
		}
	}
}

func TestEmailsAreNormalised(t *testing.T) {
	p := newPlatform()
	user := createUser(t, p, " Ada@Example.COM\t")
	if user.Email != "ada@example.com" {
		t.Errorf("got %q, want it in lower case", user.Email)
	}
	if _, ok := p.LastToken("ADA@example.com ", servicestest.EmailVerification); !ok {
		t.Error("the outbox is not asked without regard to case")
	}
}

func TestOutbox(t *testing.T) {
	var delivered []servicestest.Message
	p := newPlatform(servicestest.WithClock(atNoon), servicestest.WithDelivery(func(m servicestest.Message) { delivered = append(delivered, m) }))
	if _, ok := p.LastToken("ada@example.com", servicestest.EmailVerification); ok {
		t.Error("a new platform has sent something")
	}
	createUser(t, p, "ada@example.com")
	for range 1200 {
		if err := p.Identity().RequestPasswordReset(t.Context(), "ada@example.com"); err != nil {
			t.Fatal(err)
		}
	}
	sent := p.Outbox()
	if len(delivered) != 1201 || !slices.Equal(sent, delivered[201:]) {
		t.Errorf("delivered %d and kept %d messages, want 1201 and the last thousand of them", len(delivered), len(sent))
	}
	last, ok := p.LastToken("ada@example.com", servicestest.PasswordReset)
	if !ok || last != delivered[1200].Token {
		t.Error("the last token is not that of the last message")
	}
	if got := fmt.Sprint(servicestest.EmailVerification, ", ", servicestest.PasswordReset, ", ", servicestest.TokenKind(7)); got !=
		"email verification, password reset, TokenKind(7)" {
		t.Errorf("the kinds are named %s", got)
	}
}

func TestRolesAndGrantsAreChecked(t *testing.T) {
	p := newPlatform()
	user := createUser(t, p, "ada@example.com")
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"role with a malformed permission", p.DefineRole("admin", "*:*", "invoices"), services.ErrInvalidArgument},
		{"role without a name", p.DefineRole("", "*:*"), services.ErrInvalidArgument},
		{"role without permissions", p.DefineRole("nothing"), nil},
		{"malformed grant", p.Grant(user.ID, "invoices"), services.ErrInvalidArgument},
		{"grant to an unknown user", p.Grant("usr_nobody", "invoices:read"), services.ErrNotFound},
		{"grant", p.Grant(user.ID, "invoices:read"), nil},
		{"grant again", p.Grant(user.ID, "invoices:read"), nil},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, test.err, test.want)
		}
	}
}

func TestDemoData(t *testing.T) {
	p := newPlatform(servicestest.WithDemoData())
	for _, test := range []struct {
		id, email, role  string
		verified         bool
		allowed, refused string
	}{
		{"usr_ada", "ada@example.com", "admin", true, "users:delete", ""},
		{"usr_grace", "grace@example.com", "accountant", true, "invoices:approve", "users:read"},
		{"usr_alan", "alan@example.com", "auditor", false, "invoices:read", "invoices:approve"},
	} {
		claims, err := p.Auth().ValidateToken(t.Context(), login(t, p, test.email, "correct horse battery staple").AccessToken)
		if err != nil || claims.UserID != test.id || !claims.HasRole(test.role) {
			t.Errorf("%s: got claims %+v, %v", test.email, claims, err)
		}
		user, err := p.Identity().GetUserByEmail(t.Context(), test.email)
		if err != nil || user.EmailVerified != test.verified {
			t.Errorf("%s: got %v, %v", test.email, user, err)
		}
		if _, sent := p.LastToken(test.email, servicestest.EmailVerification); sent == test.verified {
			t.Errorf("%s: a verification token was sent: %t", test.email, sent)
		}
		if err := p.Authz().Authorize(t.Context(), test.id, test.allowed); err != nil {
			t.Errorf("%s: %v", test.email, err)
		}
		if test.refused != "" && !errors.Is(p.Authz().Authorize(t.Context(), test.id, test.refused), services.ErrPermissionDenied) {
			t.Errorf("%s may do %s", test.email, test.refused)
		}
	}
	page, err := p.Audit().Query(t.Context(), services.AuditFilters{UserID: "usr_grace"})
	if err != nil || len(page) != 1 || page[0].Action.Action != "invoice.approve" {
		t.Errorf("got the log %+v, %v", page, err)
	}
	if _, err := newPlatform().Identity().GetUser(t.Context(), "usr_ada"); !errors.Is(err, services.ErrNotFound) {
		t.Errorf("without the option: got %v, want no users", err)
	}
}

// Everything at once, for the race detector and for what must hold after any mixture: the accounts that are left work.
func TestConcurrentUse(t *testing.T) {
	p := newPlatform(servicestest.WithDemoData())
	const workers, rounds = 8, 20
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for round := range rounds {
				email := fmt.Sprintf("user%d-%d@example.com", worker, round)
				if err := liveOneLife(t.Context(), p, email, round%2 == 0); err != nil {
					t.Errorf("%s: %v", email, err)
				}
			}
		})
	}
	group.Wait()
	entries := 0
	for entry, err := range services.AllAuditLogs(t.Context(), p.Audit(), services.AuditFilters{Action: "life", PageSize: 7}) {
		if err != nil {
			t.Fatal(err)
		}
		entries++
		if entry.ID != entry.UserID {
			t.Errorf("got entry %+v", entry)
		}
	}
	if entries != workers*rounds {
		t.Errorf("got %d entries, want %d", entries, workers*rounds)
	}
	for worker := range workers {
		for round := range rounds {
			email := fmt.Sprintf("user%d-%d@example.com", worker, round)
			user, err := p.Identity().GetUserByEmail(t.Context(), email)
			if deleted := round%2 == 0; errors.Is(err, services.ErrNotFound) != deleted || (!deleted && !user.EmailVerified) {
				t.Errorf("%s: got %v, %v", email, user, err)
			}
		}
	}
}

// liveOneLife takes a user through every method.
func liveOneLife(ctx context.Context, p *servicestest.Platform, email string, deleted bool) error {
	user, err := p.Identity().CreateUser(ctx, services.User{Email: email, Name: "Ada", Password: password, Roles: []string{"auditor"}})
	if err != nil {
		return err
	}
	tokens, err := p.Auth().Login(ctx, email, password)
	if err != nil {
		return err
	}
	_, err = p.Auth().RefreshToken(ctx, tokens.RefreshToken)
	errs := []error{err}
	_, err = p.Auth().ValidateToken(ctx, tokens.AccessToken)
	errs = append(errs, err, p.Grant(user.ID, "invoices:approve"), p.DefineRole("auditor", "*:read", "audit:export"),
		p.Authz().Authorize(ctx, user.ID, "invoices:approve"), p.Authz().Authorize(ctx, user.ID, "invoices:read"))
	_, err = p.Authz().GetUserPermissions(ctx, user.ID)
	errs = append(errs, err)
	_, err = p.Identity().UpdateUser(ctx, user.ID, services.User{Email: email, Name: "Countess", Roles: []string{"accountant"}})
	token, _ := p.LastToken(email, servicestest.EmailVerification)
	errs = append(errs, err, p.Identity().VerifyEmail(ctx, token), p.Identity().RequestPasswordReset(ctx, email))
	token, _ = p.LastToken(email, servicestest.PasswordReset)
	errs = append(errs, p.Identity().ResetPassword(ctx, token, "another password"),
		p.Audit().Record(ctx, services.Action{ID: user.ID, UserID: user.ID, Action: "life"}))
	_, err = p.Audit().Query(ctx, services.AuditFilters{UserID: user.ID})
	errs = append(errs, err)
	if deleted {
		errs = append(errs, p.Identity().DeleteUser(ctx, user.ID))
	}
	return errors.Join(errs...)
}
