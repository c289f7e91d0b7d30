package servicestest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

func TestPasswordHash(t *testing.T) {
	hasher := newPasswordHasher(PasswordCost{MemoryKiB: 64, Iterations: 3, Parallelism: 2}, 1)
	first, err := hasher.hash(t.Context(), "a password")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first, "$argon2id$v=19$m=64,t=3,p=2$") || strings.Contains(first, "password") {
		t.Errorf("got %q, want a PHC string with the cost", first)
	}
	second, err := hasher.hash(t.Context(), "a password")
	if err != nil || first == second {
		t.Errorf("two hashes of one password are %q and %q, %v; want different salts", first, second, err)
	}
	// A hash is verified at its own cost, whatever new ones cost.
	cheap := newPasswordHasher(TestPasswordCost(), 1)
	for _, test := range []struct {
		encoded, password string
		want              bool
	}{
		{first, "a password", true},
		{second, "a password", true},
		{first, "a passwore", false},
		{first, "", false},
		{"", "a password", false},
		{"", "", false},
	} {
		if got, err := cheap.verify(t.Context(), test.encoded, test.password); err != nil || got != test.want {
			t.Errorf("verify %q against %q: got %t, %v; want %t", test.password, test.encoded, got, err, test.want)
		}
	}
}

func TestPasswordHashOfAnotherFormIsAnError(t *testing.T) {
	hasher := newPasswordHasher(TestPasswordCost(), 1)
	good, err := hasher.hash(t.Context(), "a password")
	if err != nil {
		t.Fatal(err)
	}
	for _, encoded := range []string{
		"x", "$2a$10$abc", strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "m=8", "m=x", 1), good + "$", good + "!", strings.TrimPrefix(good, "$"), strings.Replace(good, "p=1$", "p=1$*", 1),
	} {
		if ok, err := hasher.verify(t.Context(), encoded, "a password"); err == nil || ok {
			t.Errorf("verify against %q: got %t, %v; want an error", encoded, ok, err)
		}
	}
}

func TestPasswordCostIsRaisedToTheLeastThereIs(t *testing.T) {
	for given, want := range map[PasswordCost]PasswordCost{
		{}:                    {MemoryKiB: 8, Iterations: 1, Parallelism: 1},
		{Parallelism: 4}:      {MemoryKiB: 32, Iterations: 1, Parallelism: 4},
		DefaultPasswordCost(): {MemoryKiB: 19456, Iterations: 2, Parallelism: 1},
	} {
		if got := given.raised(); got != want {
			t.Errorf("%+v: got %+v, want %+v", given, got, want)
		}
	}
}

// Hashing waits for its turn no longer than its context lives.
func TestPasswordHashingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hasher := newPasswordHasher(TestPasswordCost(), 1)
		if err := hasher.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := hasher.hash(ctx, "a password")
		if !errors.Is(err, services.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hash: got %v, want deadline exceeded", err)
		}
		if _, err = hasher.verify(ctx, "", "a password"); !errors.Is(err, services.ErrDeadlineExceeded) {
			t.Errorf("verify: got %v, want deadline exceeded", err)
		}
		hasher.release()
		if _, err = hasher.hash(t.Context(), "a password"); err != nil {
			t.Errorf("hash when its turn has come: %v", err)
		}
	})
}

// Whoever reads the state learns no password and no token that works.
func TestSecretsAreKeptHashed(t *testing.T) {
	p := NewPlatform(WithPasswordCost(TestPasswordCost()))
	ctx := t.Context()
	user, err := p.Identity().CreateUser(ctx, services.User{Email: "ada@example.com", Name: "Ada", Password: "a long password"})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := p.Auth().Login(ctx, "ada@example.com", "a long password")
	if err != nil {
		t.Fatal(err)
	}
	if kept := p.users[user.ID]; kept.Password != "" || strings.Contains(kept.passwordHash, "password") {
		t.Errorf("kept %+v", kept.passwordHash)
	}
	verification, _ := p.LastToken("ada@example.com", EmailVerification)
	for _, hash := range slices.Concat(slices.Collect(maps.Keys(p.refresh.byHash)), slices.Collect(maps.Keys(p.oneTime.byHash))) {
		if kept := string(hash[:]); strings.Contains(tokens.RefreshToken, kept) || strings.Contains(verification, kept) {
			t.Errorf("a token is kept as it is")
		}
	}
	if len(p.refresh.byHash) != 1 || len(p.oneTime.byHash) != 1 {
		t.Errorf("got %d refresh tokens and %d others, want one of each", len(p.refresh.byHash), len(p.oneTime.byHash))
	}
}

// Tokens that nobody used do not stay for ever.
func TestExpiredTokensAreSwept(t *testing.T) {
	store := newSecretStore[int]()
	now := time.Unix(0, 0)
	for i := range firstSweep {
		store.add(i, now, time.Duration(i+1)*time.Second)
	}
	now = now.Add(firstSweep / 2 * time.Second)
	token := store.add(-1, now, time.Second)
	if got, want := len(store.byHash), firstSweep/2+1; got != want {
		t.Errorf("kept %d tokens, want %d", got, want)
	}
	if value, ok := store.find(token, now); !ok || value != -1 {
		t.Errorf("got %d, %t; want the token that was added last", value, ok)
	}
	if _, ok := store.find(token, now.Add(time.Second)); ok {
		t.Error("a token is known at the time it expires")
	}
}
