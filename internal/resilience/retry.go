package resilience

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

// RetryConfig configures a [Retrier]. All fields are required.
type RetryConfig struct {
	MaxAttempts    int
	InitialBackoff time.Duration
	MaxBackoff     time.Duration
	Multiplier     float64
}

// Failure is what a failed attempt tells the [Retrier].
type Failure interface {
	error
	// Retryable reports whether another attempt may follow.
	Retryable() bool
	// Delay is the least time to wait before it; 0 leaves it to the backoff. A delay that the server asked for is not shortened.
	Delay() time.Duration
}

// Retrier repeats what failed. It is built once and used by many calls at a time.
type Retrier struct {
	policy      retrypolicy.RetryPolicy[any]
	maxAttempts int
}

// NewRetrier returns a retrier with a full-jitter exponential backoff: a random time between 0 and a cap that grows from retry to retry,
// so that clients that failed together do not come back together (gRFC A6).
func NewRetrier(config RetryConfig) *Retrier {
	retryable := func(_ any, err error) bool {
		failure, ok := err.(Failure) //nolint:errorlint // attempts return failures unwrapped
		return ok && failure.Retryable()
	}
	backoff := func(execution failsafe.ExecutionAttempt[any]) time.Duration {
		if failure, ok := execution.LastError().(Failure); ok && failure.Delay() > 0 { //nolint:errorlint // as above
			return failure.Delay()
		}
		limit := float64(config.InitialBackoff) * math.Pow(config.Multiplier, float64(execution.Retries()))
		return rand.N(time.Duration(min(limit, float64(config.MaxBackoff))) + 1)
	}
	policy := retrypolicy.NewBuilder[any]().
		HandleIf(retryable).
		WithMaxAttempts(config.MaxAttempts).
		WithDelayFunc(backoff).
		ReturnLastFailure().
		Build()
	return &Retrier{policy: policy, maxAttempts: config.MaxAttempts}
}

// MaxAttempts is how many attempts a call may have, the first included.
func (r *Retrier) MaxAttempts() int { return r.maxAttempts }

// After goes on after a first attempt that failed with first: it waits and calls attempt as long as that is allowed, and returns the last
// attempt's error, nil if it succeeded. The first attempt is made outside, so that a call that succeeds at once pays nothing for this.
// It returns early, with the failure before, when ctx ends during a wait.
func (r *Retrier) After(ctx context.Context, first Failure, attempt func() error) error {
	last := error(first)
	started := false
	err := failsafe.With(r.policy).WithContext(ctx).Run(func() error {
		if !started {
			started = true
			return first
		}
		last = attempt()
		return last
	})
	if err == nil {
		return nil
	}
	return last
}
