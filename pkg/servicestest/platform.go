package servicestest

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/0x1d/goplt/pkg/services"
)

// Platform is the state that the four in-memory services share: users, sessions, tokens, grants and the audit log. Make one with
// [NewPlatform]; it starts no goroutine and needs no closing. It and its services are safe for concurrent use.
type Platform struct {
	settings settings
	advanced atomic.Int64 // Nanoseconds by which Advance moved the clock.

	passwords passwordHasher
	access    accessTokens
	pageKey   []byte

	mu      sync.RWMutex
	users   map[string]*account // By ID.
	byEmail map[string]*account // By normalised address.
	refresh secretStore[*refreshToken]
	oneTime secretStore[oneTimeToken]
	roles   map[string][]services.Permission
	grants  map[string]map[services.Permission]struct{} // By user ID.

	outbox outbox
	log    auditLog
}

// NewPlatform returns a platform without users, or with those of [WithDemoData].
func NewPlatform(opts ...Option) *Platform {
	settings := defaultSettings()
	for _, opt := range opts {
		opt.applyPlatform(&settings)
	}
	p := &Platform{
		settings:  settings,
		passwords: newPasswordHasher(settings.passwordCost, runtime.GOMAXPROCS(0)),
		pageKey:   deriveKey(settings.secret, "goplt audit page tokens"),
		users:     make(map[string]*account),
		byEmail:   make(map[string]*account),
		refresh:   newSecretStore[*refreshToken](),
		oneTime:   newSecretStore[oneTimeToken](),
		roles:     make(map[string][]services.Permission),
		grants:    make(map[string]map[services.Permission]struct{}),
		outbox:    outbox{deliver: settings.deliver},
		log:       auditLog{byID: make(map[string]struct{})},
	}
	p.access = newAccessTokens(deriveKey(settings.secret, "goplt access tokens"), settings.accessTTL, p.now)
	if settings.demoData {
		p.addDemoData()
	}
	return p
}

// Auth returns the auth service of the platform.
func (p *Platform) Auth() services.AuthServiceClient { return authService{p} }

// Identity returns the identity service of the platform.
func (p *Platform) Identity() services.IdentityServiceClient { return identityService{p} }

// Authz returns the authz service of the platform.
func (p *Platform) Authz() services.AuthzServiceClient { return authzService{p} }

// Audit returns the audit service of the platform.
func (p *Platform) Audit() services.AuditServiceClient { return auditService{p} }

// Services returns the four services with the platform as their controls, which is what [RunSuite] takes.
func (p *Platform) Services() Services {
	return Services{Auth: p.Auth(), Identity: p.Identity(), Authz: p.Authz(), Audit: p.Audit(), Controls: p}
}

// Advance moves the platform's clock forward by d, on top of whatever clock it has, so that tokens expire.
func (p *Platform) Advance(d time.Duration) { p.advanced.Add(int64(d)) }

// now returns the time in the form in which the services show it: in UTC, without a monotonic reading, as it comes off a wire.
func (p *Platform) now() time.Time {
	return p.settings.clock().Add(time.Duration(p.advanced.Load())).UTC().Round(0)
}

// deriveKey makes a key for one purpose out of a secret of any length, so that no two purposes share a key.
func deriveKey(secret []byte, purpose string) []byte {
	// Hashed first, which makes a key of the right length of a short secret.
	key := sha256.Sum256(secret)
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// newID returns a random ID that begins with prefix.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// alive is the first thing every method calls: it returns nil while ctx is alive, and an error that matches both the service's
// sentinel and the context's once it is not.
func alive(ctx context.Context) error {
	err := ctx.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", services.ErrDeadlineExceeded, err)
	default:
		return fmt.Errorf("%w: %w", services.ErrCanceled, err)
	}
}
