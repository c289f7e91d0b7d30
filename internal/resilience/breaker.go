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
	// OnChange is told of changes of state. It is called from within the attempt that caused it, or one at the same time, with no lock held. Calls
	// come one after the other, and the last one names the state that the breaker is in: changes that undo each other at the same time may be left
	// out.
	OnChange func(from, to string)
}

// Breaker is the circuit breaker of one instance, by failsafe-go, used by hand: each permit acquired is answered by exactly one of RecordSuccess,
// RecordFailure and Release. What is recorded while the breaker is open changes nothing. Safe for concurrent use.
//
// It tells of changes after the fact. failsafe-go's own listener runs in the middle of a change, with the breaker's lock released: two changes at a
// time may be told in the wrong order, and a listener that panics ends the process, because the lock is then unlocked twice.
type Breaker struct {
	inner    circuitbreaker.CircuitBreaker[any]
	onChange func(from, to string)
	changed  atomic.Bool // whether there may be something to tell
	// probing says that there may be permits of a half-open breaker out. What answers them then takes mu, so that Release is not in between.
	probing atomic.Bool

	mu      sync.Mutex
	told    circuitbreaker.State
	telling bool // whether onChange is running
}

// NewBreaker returns a closed breaker that opens when the share of failures within the window reaches the rate.
func NewBreaker(config BreakerConfig) *Breaker {
	b := &Breaker{onChange: config.OnChange, told: circuitbreaker.ClosedState}
	b.inner = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(config.FailureRate, config.MinCalls, max(config.Window, minWindow)).
		WithDelay(config.OpenFor).
		WithSuccessThreshold(config.HalfOpenSuccesses).
		OnStateChanged(func(circuitbreaker.StateChangedEvent) { b.changed.Store(true) }).
		Build()
	return b
}

// minWindow is the least that failsafe-go can divide into its ten slices.
const minWindow = 10 * time.Nanosecond

// State returns "closed", "open" or "half-open".
func (b *Breaker) State() string { return b.inner.State().String() }

// MayServe reports whether there may be a permit: the breaker is not open, or has been for long enough.
func (b *Breaker) MayServe() bool { return !b.inner.IsOpen() || b.inner.RemainingDelay() == 0 }

// TryAcquirePermit asks for a permit, and may half-open the breaker.
func (b *Breaker) TryAcquirePermit() bool {
	b.mu.Lock()
	b.probing.Store(true)
	acquired := b.inner.TryAcquirePermit()
	b.mu.Unlock()
	told := false
	defer func() {
		if acquired && !told { // onChange panicked: nobody will answer the permit
			b.Release()
		}
	}()
	b.tell()
	told = true
	return acquired
}

// RecordSuccess answers a permit, and may close a half-open breaker.
func (b *Breaker) RecordSuccess() {
	b.record(b.inner.RecordSuccess)
}

// RecordFailure answers a permit, and may open the breaker.
func (b *Breaker) RecordFailure() {
	b.record(b.inner.RecordFailure)
}

func (b *Breaker) record(outcome func()) {
	if b.probing.Load() {
		b.mu.Lock()
		outcome()
		b.mu.Unlock()
	} else {
		outcome()
	}
	b.tell()
}

// Release gives a permit back that was not used, or whose use showed nothing. failsafe-go has no such thing: its half-open state begins anew, with
// all its permits and without the successes so far. Permits that are out then count beyond those, as long as they are out.
func (b *Breaker) Release() {
	b.mu.Lock() // so that none of this is told
	if b.inner.IsHalfOpen() {
		b.inner.Open()
		b.inner.HalfOpen()
	}
	b.mu.Unlock()
	b.tell()
}

// tell tells of what has changed, unless somebody is telling: whoever does looks again afterwards.
func (b *Breaker) tell() {
	if !b.changed.Load() || b.onChange == nil {
		return
	}
	for from, to := b.nextChange(); from != to; from, to = b.nextChange() {
		b.tellOf(from, to)
	}
}

// nextChange returns a change that is the caller's to tell; none if the two are equal.
func (b *Breaker) nextChange() (from, to circuitbreaker.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.telling {
		return b.told, b.told
	}
	// Lowered before looking, so that a change after the look raises it again and is told by whoever caused it.
	b.changed.Store(false)
	from, to = b.told, b.inner.State()
	b.probing.Store(b.probing.Load() && to != circuitbreaker.ClosedState)
	b.told, b.telling = to, from != to
	return from, to
}

func (b *Breaker) tellOf(from, to circuitbreaker.State) {
	defer func() { // also if onChange panics
		b.mu.Lock()
		defer b.mu.Unlock()
		b.telling = false
	}()
	b.onChange(from.String(), to.String())
}
