package resilience_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/resilience"
)

// failure is a failure with a text.
type failure struct {
	text      string
	retryable bool
	delay     time.Duration
}

var _ resilience.Failure = (*failure)(nil)

func (f *failure) Error() string        { return f.text }
func (f *failure) Retryable() bool      { return f.retryable }
func (f *failure) Delay() time.Duration { return f.delay }

func retryConfig(attempts int) resilience.RetryConfig {
	return resilience.RetryConfig{MaxAttempts: attempts, InitialBackoff: 100 * time.Millisecond, MaxBackoff: time.Second, Multiplier: 2}
}

var errFirst = &failure{text: "first", retryable: true}

// TestRetrierAttempts: as many as allowed, the first included, and the last one's error is returned.
func TestRetrierAttempts(t *testing.T) {
	t.Parallel()
	for attempts := 1; attempts <= 5; attempts++ {
		synctest.Test(t, func(t *testing.T) {
			made := 1
			last := error(errFirst)
			err := resilience.NewRetrier(retryConfig(attempts)).After(t.Context(), errFirst, func() error {
				made++
				last = &failure{text: "later", retryable: true}
				return last
			})
			if made != attempts || err != last { //nolint:errorlint // the very error is wanted
				t.Errorf("%d attempts of %d, error %v, want the last one's", made, attempts, err)
			}
		})
	}
}

// TestRetrierStops at a success, at a failure that must not be repeated, and at an error that is no [resilience.Failure].
func TestRetrierStops(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		first *failure
		later error
		made  int
		want  string
	}{
		{"success", errFirst, nil, 1, ""},
		{"not to be repeated", errFirst, &failure{text: "final"}, 1, "final"},
		{"another error", errFirst, errors.New("odd"), 1, "odd"},
		{"first not to be repeated", &failure{text: "final"}, nil, 0, "final"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				made := 0
				err := resilience.NewRetrier(retryConfig(5)).After(t.Context(), row.first, func() error {
					made++
					return row.later
				})
				if made != row.made || (err == nil) != (row.want == "") || err != nil && err.Error() != row.want {
					t.Errorf("%d attempts, error %v, want %d and %q", made, err, row.made, row.want)
				}
			})
		})
	}
}

// delays returns how long each retry of many calls was waited for.
func delays(t *testing.T, config resilience.RetryConfig, calls int) [][]time.Duration {
	t.Helper()
	waited := make([][]time.Duration, config.MaxAttempts-1)
	synctest.Test(t, func(t *testing.T) {
		retrier := resilience.NewRetrier(config)
		for range calls {
			retry, since := 0, time.Now()
			_ = retrier.After(t.Context(), errFirst, func() error {
				waited[retry] = append(waited[retry], time.Since(since))
				retry, since = retry+1, time.Now()
				return errFirst
			})
		}
	})
	return waited
}

// TestRetrierBackoff: each delay is anywhere between nothing and a cap that grows up to the largest.
func TestRetrierBackoff(t *testing.T) {
	t.Parallel()
	config := retryConfig(5)
	config.Multiplier = 4
	const calls = 2000
	for retry, limit := range []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, time.Second, time.Second} {
		waited := delays(t, config, calls)[retry]
		var sum, longest time.Duration
		low := 0
		for _, delay := range waited {
			sum += delay
			longest = max(longest, delay)
			if delay < limit/10 {
				low++
			}
		}
		if mean := sum / calls; longest > limit || longest < limit*9/10 || mean < limit*45/100 || mean > limit*55/100 || low < calls/20 || low > calls/5 {
			t.Errorf("retry %d: longest %v, mean %v, %d of %d below a tenth: not evenly spread below %v", retry+1, longest, mean, low, calls, limit)
		}
	}
}

// TestRetrierDelay: what the server asked for is waited for to the moment, however long, and holds for that retry alone.
func TestRetrierDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retrier := resilience.NewRetrier(retryConfig(3))
		for range 200 {
			started, made := time.Now(), 0
			err := retrier.After(t.Context(), &failure{text: "first", retryable: true, delay: 7 * time.Second}, func() error {
				made++
				elapsed := time.Since(started)
				started = time.Now()
				if made == 1 {
					if elapsed != 7*time.Second {
						t.Errorf("waited %v, want 7s", elapsed)
					}
					return errFirst
				}
				if elapsed > 200*time.Millisecond {
					t.Errorf("waited %v for the second retry", elapsed)
				}
				return nil
			})
			if err != nil || made != 2 {
				t.Fatalf("%d retries, error %v", made, err)
			}
		}
	})
}

// TestRetrierContextEnds during a wait: the earlier failure is returned at once. Before the first wait, nothing is tried.
func TestRetrierContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retrier := resilience.NewRetrier(retryConfig(5))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		started, made := time.Now(), 0
		pushed := &failure{text: "second", retryable: true, delay: time.Minute}
		err := retrier.After(ctx, errFirst, func() error {
			made++
			return pushed
		})
		if elapsed := time.Since(started); err != pushed || made != 1 || elapsed != 3*time.Second { //nolint:errorlint // the very error is wanted
			t.Errorf("%d retries, error %v after %v, want the second failure after 3s", made, err, elapsed)
		}
		started = time.Now()
		err = retrier.After(ctx, errFirst, func() error {
			t.Error("tried after the context's end")
			return nil
		})
		if err != errFirst || time.Since(started) != 0 { //nolint:errorlint // the very error is wanted
			t.Errorf("got %v after %v, want the first failure at once", err, time.Since(started))
		}
	})
}

// TestRetrierContextEndsInAttempt: what the attempt brought is what counts.
func TestRetrierContextEndsInAttempt(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, &failure{text: "cancelled", retryable: true}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			made := 0
			err := resilience.NewRetrier(retryConfig(5)).After(ctx, errFirst, func() error {
				made++
				cancel()
				return want
			})
			if made != 1 || err != want { //nolint:errorlint // the very error is wanted
				t.Errorf("%d retries, error %v, want 1 and %v", made, err, want)
			}
		})
	}
}

// TestRetrierConcurrently: calls at a time do not count each other's attempts.
func TestRetrierConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retrier := resilience.NewRetrier(retryConfig(3))
		if retrier.MaxAttempts() != 3 {
			t.Errorf("%d attempts at most, want 3", retrier.MaxAttempts())
		}
		var running sync.WaitGroup
		for range 100 {
			running.Go(func() {
				made := 1
				_ = retrier.After(t.Context(), errFirst, func() error {
					made++
					return errFirst
				})
				if made != 3 {
					t.Errorf("%d attempts, want 3", made)
				}
			})
		}
		running.Wait()
	})
}
