package servicestest

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/0x1d/goplt/pkg/services"
)

const (
	// minPasswordLength is what NIST SP 800-63B, section 3.1.1.2 asks of a password at least, in characters.
	minPasswordLength = 8
	// maxPasswordBytes bounds the work that one request can cause; it is far past any passphrase.
	maxPasswordBytes = 1024

	saltBytes = 16 // RFC 9106, section 3.1.
	hashBytes = 32
)

// PasswordCost is what one argon2id hash costs (RFC 9106). Values below what argon2 can do with are raised to it.
type PasswordCost struct {
	// MemoryKiB is the memory to fill, in KiB.
	MemoryKiB uint32
	// Iterations is how many times to go over it.
	Iterations uint32
	// Parallelism is how many lanes to fill it in.
	Parallelism uint8
}

// DefaultPasswordCost is the cost that OWASP's password storage cheat sheet recommends at least: 19 MiB, twice, in one lane, some
// twenty milliseconds.
func DefaultPasswordCost() PasswordCost {
	return PasswordCost{MemoryKiB: 19 << 10, Iterations: 2, Parallelism: 1}
}

// TestPasswordCost is the least that argon2id can cost, some ten microseconds: fit for tests, not for secrets.
func TestPasswordCost() PasswordCost {
	return PasswordCost{MemoryKiB: 8, Iterations: 1, Parallelism: 1}
}

func (c PasswordCost) raised() PasswordCost {
	lanes := max(c.Parallelism, 1)
	return PasswordCost{MemoryKiB: max(c.MemoryKiB, 8*uint32(lanes)), Iterations: max(c.Iterations, 1), Parallelism: lanes}
}

// passwordHasher hashes and verifies passwords, at most so many at once: each takes a core and a lot of memory, and logins beyond that
// had better wait, up to their deadline, than exhaust the process.
type passwordHasher struct {
	cost  PasswordCost
	slots chan struct{}
	// dummy is a well-formed hash that no password has, to verify against where there is no user.
	dummy string
}

func newPasswordHasher(cost PasswordCost, concurrency int) passwordHasher {
	cost = cost.raised()
	return passwordHasher{
		cost:  cost,
		slots: make(chan struct{}, concurrency),
		dummy: encodeHash(cost, randomBytes(saltBytes), randomBytes(hashBytes)),
	}
}

// checkNewPassword tells what is wrong with a password that a user wants to have, or returns nil.
func checkNewPassword(password string) error {
	switch {
	case utf8.RuneCountInString(password) < minPasswordLength:
		return services.Errorf(services.ErrInvalidArgument, "password is too short: at least %d characters are needed", minPasswordLength)
	case len(password) > maxPasswordBytes:
		return services.Errorf(services.ErrInvalidArgument, "password is too long: at most %d bytes are allowed", maxPasswordBytes)
	}
	return nil
}

// hash returns the encoded hash of a password under a new random salt.
func (h passwordHasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	salt := randomBytes(saltBytes)
	return encodeHash(h.cost, salt, h.cost.derive(password, salt)), nil
}

// verify reports whether a password has the encoded hash. An empty hash is no user's: it costs what any other costs, and never fits.
func (h passwordHasher) verify(ctx context.Context, encoded, password string) (bool, error) {
	if encoded == "" {
		encoded = h.dummy
	}
	cost, salt, want, err := decodeHash(encoded)
	if err != nil {
		return false, err
	}
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer h.release()
	got := cost.derive(password, salt)
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func (h passwordHasher) acquire(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return alive(ctx)
	}
}

func (h passwordHasher) release() { <-h.slots }

func (c PasswordCost) derive(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, c.Iterations, c.MemoryKiB, c.Parallelism, hashBytes)
}

// encodeHash writes a hash with its cost and salt in the PHC string format, which says of itself how to verify it.
func encodeHash(cost PasswordCost, salt, hash []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, cost.MemoryKiB, cost.Iterations, cost.Parallelism,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(hash))
}

func decodeHash(encoded string) (cost PasswordCost, salt, hash []byte, err error) {
	fields := strings.Split(encoded, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return PasswordCost{}, nil, nil, fmt.Errorf("password hash: not argon2id version %d in PHC format", argon2.Version)
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &cost.MemoryKiB, &cost.Iterations, &cost.Parallelism); err != nil {
		return PasswordCost{}, nil, nil, fmt.Errorf("password hash: cost %q: %w", fields[3], err)
	}
	if salt, err = base64.RawStdEncoding.Strict().DecodeString(fields[4]); err != nil {
		return PasswordCost{}, nil, nil, fmt.Errorf("password hash: salt: %w", err)
	}
	if hash, err = base64.RawStdEncoding.Strict().DecodeString(fields[5]); err != nil {
		return PasswordCost{}, nil, nil, fmt.Errorf("password hash: derived key: %w", err)
	}
	return cost, salt, hash, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // Never fails: it crashes the program instead.
	return b
}
