package servicestest

import (
	"crypto/rand"
	"time"
)

// Option configures a [Platform]; every Option is a [StartOption] too. Options are made by this package's functions only.
type Option interface {
	StartOption
	applyPlatform(*settings)
}

// StartOption configures what [Start] starts: the platform, the server or the clients.
type StartOption interface{ applyStart(*startSettings) }

type settings struct {
	clock        func() time.Time
	secret       []byte
	passwordCost PasswordCost
	accessTTL    time.Duration
	refreshTTL   time.Duration
	oneTimeTTL   map[TokenKind]time.Duration
	deliver      func(Message)
	demoData     bool
}

func defaultSettings() settings {
	return settings{
		clock:        time.Now,
		secret:       []byte(rand.Text() + rand.Text()),
		passwordCost: DefaultPasswordCost(),
		accessTTL:    15 * time.Minute,
		refreshTTL:   30 * 24 * time.Hour,
		oneTimeTTL:   map[TokenKind]time.Duration{EmailVerification: 48 * time.Hour, PasswordReset: time.Hour},
		deliver:      func(Message) {},
	}
}

// platformOption is every Option.
type platformOption func(*settings)

func (o platformOption) applyPlatform(s *settings)   { o(s) }
func (o platformOption) applyStart(s *startSettings) { s.platform = append(s.platform, o) }

// positive keeps the default where a duration cannot be meant.
func positive(target *time.Duration, ttl time.Duration) {
	if ttl > 0 {
		*target = ttl
	}
}

// WithClock has the platform take the time from now, which must be safe for concurrent use. Default [time.Now].
func WithClock(now func() time.Time) Option {
	return platformOption(func(s *settings) { s.clock = now })
}

// WithSecret derives the keys of access tokens and page tokens from secret, so that several platforms with the same secret, in
// processes of their own, accept each other's. Default, and where secret is empty, a random one.
func WithSecret(secret string) Option {
	return platformOption(func(s *settings) {
		if secret != "" {
			s.secret = []byte(secret)
		}
	})
}

// WithPasswordCost sets what a password's hash costs. Default [DefaultPasswordCost]; tests want [TestPasswordCost].
func WithPasswordCost(cost PasswordCost) Option {
	return platformOption(func(s *settings) { s.passwordCost = cost })
}

// WithAccessTokenTTL sets how long access tokens are valid, rounded up to whole seconds, in which they are dated. Default, and where
// ttl is not positive, 15 minutes.
func WithAccessTokenTTL(ttl time.Duration) Option {
	return platformOption(func(s *settings) { positive(&s.accessTTL, ttl) })
}

// WithRefreshTokenTTL sets how long a refresh token can be used. Each rotation begins anew. Default, and where ttl is not positive,
// 30 days.
func WithRefreshTokenTTL(ttl time.Duration) Option {
	return platformOption(func(s *settings) { positive(&s.refreshTTL, ttl) })
}

// WithOneTimeTokenTTL sets how long a token of a kind can be used. Default, and where ttl is not positive, 48 hours for
// [EmailVerification] and one hour for [PasswordReset].
func WithOneTimeTokenTTL(kind TokenKind, ttl time.Duration) Option {
	return platformOption(func(s *settings) {
		if ttl > 0 {
			s.oneTimeTTL[kind] = ttl
		}
	})
}

// WithDelivery has the platform call deliver for each message that it puts into the [Platform.Outbox], in the goroutine of the call
// that sends it and without a lock held, so that a development server can show what a mail would have said.
func WithDelivery(deliver func(Message)) Option {
	return platformOption(func(s *settings) { s.deliver = deliver })
}

// WithDemoData begins with a few roles, users and audit entries to try things out with. The IDs are the same on every platform:
//
//	usr_ada    ada@example.com    admin       *:*
//	usr_grace  grace@example.com  accountant  invoices:*, customers:read
//	usr_alan   alan@example.com   auditor     *:read
//
// Everybody's password is [DemoPassword]. Only alan has not verified his address; the token for it is in the outbox.
func WithDemoData() Option {
	return platformOption(func(s *settings) { s.demoData = true })
}
