package resilience

import (
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// BreakerConfig configures [NewBreaker]. All fields are required.
type BreakerConfig struct {
	FailureRate       float64
	MinCalls          uint
	Window            time.Duration
	OpenFor           time.Duration
	HalfOpenSuccesses uint
	// OnChange is told of every change of state; it is called from within the attempt that caused it and must not block.
	OnChange func(from, to string)
}

// Breaker is the circuit breaker of one instance, used by hand: each permit acquired is answered by exactly one record.
type Breaker = circuitbreaker.CircuitBreaker[any]

// NewBreaker returns a closed breaker that opens when the share of failures within the window reaches the rate.
func NewBreaker(config BreakerConfig) Breaker {
	builder := circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(config.FailureRate, config.MinCalls, config.Window).
		WithDelay(config.OpenFor).
		WithSuccessThreshold(config.HalfOpenSuccesses)
	if config.OnChange != nil {
		builder = builder.OnStateChanged(func(event circuitbreaker.StateChangedEvent) {
			config.OnChange(event.OldState.String(), event.NewState.String())
		})
	}
	return builder.Build()
}
