package resilience

import (
	"context"
	"errors"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/bulkhead"
)

// ErrLimit is returned by [Limiter.Acquire] when there is no room in time.
var ErrLimit = errors.New("limit reached")

// LimiterConfig configures a [Limiter].
type LimiterConfig struct {
	// Most is how many may be in at a time.
	Most int
	// MaxWait is how long one may wait to get in; 0 means not at all.
	MaxWait time.Duration
	// Adaptive has the limit move below Most, by how long those that are in stay: it falls when that rises with their number.
	Adaptive bool
}

// Limiter bounds how many are in at a time, by failsafe-go's bulkhead or adaptive limiter. Who waits gets in by the order of arrival. Safe for
// concurrent use.
type Limiter struct {
	most    int
	maxWait time.Duration

	bulkhead bulkhead.Bulkhead[any]               // nil if adaptive
	adaptive adaptivelimiter.AdaptiveLimiter[any] // nil if not
}

const (
	// adaptiveStart is what an adaptive limit begins with, and adaptiveLeast what it never falls below: a limit of one would have nothing to compare.
	adaptiveStart = 20
	adaptiveLeast = 2
)

// NewLimiter returns a limiter with nobody in.
func NewLimiter(config LimiterConfig) *Limiter {
	l := &Limiter{most: config.Most, maxWait: config.MaxWait}
	if !config.Adaptive {
		l.bulkhead = bulkhead.New[any](uint(config.Most))
		return l
	}
	l.adaptive = adaptivelimiter.NewBuilder[any]().
		WithLimits(uint(min(adaptiveLeast, config.Most)), uint(config.Most), uint(min(adaptiveStart, config.Most))).
		Build()
	return l
}

// Limit returns how many may be in now.
func (l *Limiter) Limit() int {
	if l.adaptive != nil {
		return l.adaptive.Limit()
	}
	return l.most
}

// TryAcquire lets one in, who has to leave by exactly one call of Leave, if there is room.
func (l *Limiter) TryAcquire() (place Place, ok bool) {
	if l.adaptive == nil {
		return Place{bulkhead: l.bulkhead}, l.bulkhead.TryAcquirePermit()
	}
	permit, ok := l.adaptive.TryAcquirePermit()
	return Place{permit: permit}, ok
}

// Acquire is TryAcquire that waits for room. It returns [ErrLimit] if there was none in time, or the error of ctx.
func (l *Limiter) Acquire(ctx context.Context) (place Place, err error) {
	if place, ok := l.TryAcquire(); ok {
		return place, nil
	}
	if l.maxWait == 0 {
		return Place{}, ErrLimit
	}
	if l.adaptive == nil {
		return Place{bulkhead: l.bulkhead}, limitError(l.bulkhead.AcquirePermitWithMaxWait(ctx, l.maxWait))
	}
	permit, err := l.adaptive.AcquirePermitWithMaxWait(ctx, l.maxWait)
	return Place{permit: permit}, limitError(err)
}

func limitError(err error) error {
	if errors.Is(err, bulkhead.ErrFull) || errors.Is(err, adaptivelimiter.ErrExceeded) {
		return ErrLimit
	}
	return err
}

// Place is that of one who is in.
type Place struct {
	bulkhead bulkhead.Bulkhead[any]
	permit   adaptivelimiter.Permit
}

// Leave gives the place back. Telling says that how long it was held tells of the load; what was given up, or failed at once, does not.
func (p Place) Leave(telling bool) {
	switch {
	case p.bulkhead != nil:
		p.bulkhead.ReleasePermit()
	case telling:
		p.permit.Record()
	default:
		p.permit.Drop()
	}
}
