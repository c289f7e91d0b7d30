package consul

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
	// tokenInterval is how often the token's and TLS' files are looked at while access is denied.
	tokenInterval = time.Second
)

// trouble is what a feed knows of its failures since the last good answer. The zero value is none.
type trouble struct {
	failures    int        // in a row
	retryAt     time.Time  // at the latest
	notBefore   time.Time  // at the earliest, where the end of an outage calls
	unreachable bool       // the last failure was no answer at all
	denied      *string    // the token that the last failure refused, if another one may come
	state       WatchState // as logged; empty when well
}

// failed notes an error, and logs it if it is news. Where no instances stand it looks for those of a snapshot.
func (f *feed) failed(err error) {
	t := &f.trouble
	t.failures++
	delay := backoff(t.failures)
	state, level := stateOf(err), slog.LevelError
	t.denied, t.unreachable = nil, false
	answered, isAnswer := errors.AsType[*answeredError](err)
	switch state {
	case StateForbidden:
		if f.agent.rotates() {
			token := "" // if the file could not be read
			if isAnswer {
				token = answered.token
			}
			t.denied = new(f.agent.credentials(token))
		}
	case StateRefused:
		delay = jitter(maxBackoff)
	default:
		level, f.doubt = slog.LevelWarn, true
		_, isReached := errors.AsType[*unusableError](err)
		if t.unreachable = !isReached && !isAnswer; t.unreachable && f.agent.outage.lost(f) {
			delay = min(delay, jitter(probeInterval))
		}
	}
	now := time.Now()
	t.retryAt, t.notBefore = now.Add(delay), now.Add(min(delay, jitter(probeInterval)))
	f.index, f.emptyFrom = 0, time.Time{}
	f.damping.restart(now)
	f.restore()
	if f.restored {
		f.report.enter(StateSnapshot, err)
	} else {
		f.report.enter(state, err)
	}
	if t.state != state {
		t.state = state
		if f.answered {
			f.logger.Log(context.Background(), level, "consul: the watch fails; the last instances stand", "error", err, "instances", len(f.last))
		} else {
			f.logger.Log(context.Background(), level, "consul: the watch fails; no instances are known yet", "error", err)
		}
	}
}

func (f *feed) recovered() {
	wasLogged := f.trouble.state != ""
	f.trouble = trouble{}
	if wasLogged {
		f.logger.Info("consul: the watch works again")
	}
}

// pause waits out the time after a failure: less if access was denied and the credentials have changed since, or if the agent was out of reach and
// answers another feed. Those that return share a limit.
func (f *feed) pause(ctx context.Context) error {
	if f.trouble.failures == 0 {
		return nil
	}
	for {
		left := time.Until(f.trouble.retryAt)
		if left <= 0 {
			break
		}
		if f.trouble.denied != nil {
			if token, err := f.agent.tokens.current(); err == nil && f.agent.credentials(token) != *f.trouble.denied {
				break
			}
			left = min(left, tokenInterval)
		}
		early, err := f.rest(ctx, left)
		if err != nil {
			return err
		}
		if early {
			break
		}
	}
	return f.agent.outage.await(ctx)
}

// rest waits for a time, and reports whether the end of an outage cut it short.
func (f *feed) rest(ctx context.Context, d time.Duration) (early bool, err error) {
	var over <-chan struct{}
	if f.trouble.unreachable {
		if wait := min(d, time.Until(f.trouble.notBefore)); wait > 0 {
			return false, sleep(ctx, wait)
		}
		over = f.agent.outage.ended()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-over:
		return true, nil
	case <-timer.C:
		return false, nil
	}
}

// backoff returns how long to wait after so many failures in a row: twice as long after each, at most [maxBackoff], with jitter.
func backoff(failures int) time.Duration {
	return jitter(min(maxBackoff, minBackoff<<min(failures-1, 10)))
}

// jitter returns half to all of a time, so that many clients do not come back at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
