package resilience

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// BreakerConfig configures [NewBreaker]. All fields but OnChange are required.
type BreakerConfig struct {
	// FailureRate opens the breaker; it is compared to the share of failures rounded to two decimals.
	FailureRate float64
	// MinCalls is how many calls the rate needs to mean anything.
	MinCalls uint
	// Window is how long a call counts, to a tenth.
	Window time.Duration
	// OpenFor is how long an open breaker gives no permits. The first permit after it half-opens the breaker.
	OpenFor time.Duration
	// HalfOpenSuccesses is how many permits a half-open breaker gives at a time, and how many successes close it. One failure opens it.
	HalfOpenSuccesses uint
	// OnChange is told of changes of state. It is called from within the attempt that caused it, or one at the same time, and must not
	// block. Calls come one after the other, and the last one names the state that the breaker is in: changes that undo each other at the
	// same time may be left out.
	OnChange func(from, to string)
}

// Breaker is the circuit breaker of one instance, used by hand: each permit acquired is answered by exactly one record. What is recorded
// while the breaker is open changes nothing.
type Breaker = circuitbreaker.CircuitBreaker[any]

// NewBreaker returns a closed breaker that opens when the share of failures within the window reaches the rate.
func NewBreaker(config BreakerConfig) Breaker { //nolint:ireturn // nil is how an instance without a breaker says so
	b := &breaker{onChange: config.OnChange, told: circuitbreaker.ClosedState}
	b.Breaker = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(config.FailureRate, config.MinCalls, max(config.Window, minWindow)).
		WithDelay(config.OpenFor).
		WithSuccessThreshold(config.HalfOpenSuccesses).
		OnStateChanged(func(circuitbreaker.StateChangedEvent) { b.changed.Store(true) }).
		Build()
	return b
}

// minWindow is the least that failsafe-go can divide into its ten slices.
const minWindow = 10 * time.Nanosecond

// breaker tells of changes after the fact. failsafe-go's own listener runs in the middle of a change, with the breaker's lock released:
// two changes at a time may be told in the wrong order, and a listener that panics ends the process, because the lock is then unlocked
// twice.
type breaker struct {
	Breaker

	onChange func(from, to string)
	changed  atomic.Bool // whether there may be something to tell

	mu   sync.Mutex
	told circuitbreaker.State
}

var _ Breaker = (*breaker)(nil)

// TryAcquirePermit may half-open the breaker.
func (b *breaker) TryAcquirePermit() bool {
	defer b.tell()
	return b.Breaker.TryAcquirePermit()
}

// RecordSuccess may close a half-open breaker.
func (b *breaker) RecordSuccess() {
	b.Breaker.RecordSuccess()
	b.tell()
}

// RecordFailure may open the breaker.
func (b *breaker) RecordFailure() {
	b.Breaker.RecordFailure()
	b.tell()
}

func (b *breaker) tell() {
	if !b.changed.Load() || b.onChange == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// Lowered before looking, so that a change after the look raises it again and is told by whoever caused it.
	b.changed.Store(false)
	if from, to := b.told, b.State(); from != to {
		b.told = to
		b.onChange(from.String(), to.String())
	}
}
