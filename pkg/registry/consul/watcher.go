package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/0x1d/goplt/pkg/registry"
)

const (
	// A watcher asks at most twice a second, with two at once: whatever the index does, Consul is not hammered, and one change right after another
	// still gets through at once.
	queryInterval = 500 * time.Millisecond
	queryBurst    = 2

	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
	// restoredGrace is the grace of an empty set that follows an outage, or a loss of Consul's state: whoever is registered notices within
	// [Config.VerifyInterval] or so, and registers again.
	restoredGrace = time.Minute
	// tokenInterval is how often the token file is looked at while access is denied.
	tokenInterval = time.Second
)

// watcher implements [registry.Watcher]. It owns no goroutine: Next itself queries, and what it learned stays for the next Next.
type watcher struct {
	agent    *agent
	query    query // its service, tag and datacenter
	passing  passing
	wait     time.Duration
	stale    bool
	maxStale time.Duration
	grace    time.Duration
	logger   *slog.Logger
	limiter  *rate.Limiter
	onClose  func(*watcher)

	closed context.Context //nolint:containedctx // is the watcher's own life, which Close ends, and bounds each Next
	end    context.CancelFunc

	turn       sync.Mutex // held by Next; all below belongs to it
	index      uint64     // of the next query
	last       []registry.Instance
	answered   bool      // last was returned
	seen       uint64    // the index of the last answer
	doubt      bool      // Consul was out of reach or its index went backwards, and no instance was seen since
	emptyFrom  time.Time // when the empty set takes effect; zero if it is not about to
	failures   int       // in a row
	retryAt    time.Time // after a failure
	denied     *string   // the token that the last failure refused
	state      string    // of failure, as logged; empty when well
	skipLogged []string
}

var _ registry.Watcher = (*watcher)(nil)

// Next implements [registry.Watcher].
func (w *watcher) Next(ctx context.Context) ([]registry.Instance, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.closed, cancel)()

	set, err := w.next(work)
	switch {
	case w.closed.Err() != nil:
		return nil, registry.ErrClosed
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		w.failed(err)
		return nil, err
	}
	w.last, w.answered = set, true
	returned := make([]registry.Instance, len(set))
	for at, instance := range set {
		returned[at] = instance.Clone()
	}
	return returned, nil
}

// next returns the first set that differs from the last one.
func (w *watcher) next(ctx context.Context) ([]registry.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := w.pause(ctx); err != nil {
		return nil, err
	}
	for {
		wait := w.wait
		if !w.emptyFrom.IsZero() {
			if wait = min(wait, time.Until(w.emptyFrom)); wait <= 0 {
				w.emptyFrom = time.Time{}
				return []registry.Instance{}, nil
			}
		}
		set, err := w.read(ctx, w.index, wait)
		if err != nil {
			return nil, err
		}
		if len(set) == 0 && w.emptyFrom.IsZero() && (len(w.last) > 0 || !w.answered) {
			if set, err = w.confirm(ctx); err != nil {
				return nil, err
			}
		}
		w.recovered()
		if len(set) > 0 {
			w.emptyFrom = time.Time{}
		} else if !w.emptyFrom.IsZero() {
			continue
		}
		if !w.answered || !slices.EqualFunc(set, w.last, registry.Instance.Equal) {
			return set, nil
		}
	}
}

// read asks once, and again the leader if a server answered that lost it too long ago.
func (w *watcher) read(ctx context.Context, index uint64, wait time.Duration) ([]registry.Instance, error) {
	mode := leader
	if w.stale {
		mode = stale
	}
	got, err := w.ask(ctx, mode, index, wait)
	if err == nil && mode == stale && w.maxStale > 0 && got.lastContact > w.maxStale {
		got, err = w.ask(ctx, leader, 0, 0)
	}
	if err != nil {
		return nil, err
	}
	return w.accept(got)
}

// confirm asks for what was just found to be empty a second time, such that no lagging server can answer. If it is empty still, that takes effect
// after the grace, if there is anything to keep until then.
func (w *watcher) confirm(ctx context.Context) ([]registry.Instance, error) {
	w.index = 0 // the answer that is to be confirmed was not returned: if this ends early, the next query must not wait for a later one
	got, err := w.ask(ctx, consistent, 0, 0)
	if err != nil {
		return nil, err
	}
	set, err := w.accept(got)
	if err != nil || len(set) > 0 || len(w.last) == 0 {
		return set, err
	}
	grace := w.grace
	if w.doubt {
		grace = max(grace, restoredGrace)
		w.logger.Warn("consul: no instance is registered since Consul was away; the last instances stand for now",
			"instances", len(w.last), "for", grace)
	}
	if grace > 0 {
		w.emptyFrom = time.Now().Add(grace)
	}
	return set, nil
}

// ask sends one query, when the limiter lets it.
func (w *watcher) ask(ctx context.Context, mode consistency, index uint64, wait time.Duration) (answer, error) {
	if err := w.limiter.Wait(ctx); err != nil {
		// The limiter refuses a wait that the context's deadline would cut short; Next blocks until then.
		<-ctx.Done()
		return answer{}, ctx.Err()
	}
	question := w.query
	question.consistency, question.index, question.wait = mode, index, wait
	return w.agent.health(ctx, question)
}

// accept maps an answer, and remembers its index.
func (w *watcher) accept(got answer) ([]registry.Instance, error) {
	w.index = nextIndex(w.index, got.index)
	set, skipped := usable(got.entries, w.passing)
	w.doubt = len(set) == 0 && (w.doubt || got.index > 0 && got.index < w.seen)
	w.seen = got.index
	if len(set) == 0 && got.withheld {
		return nil, &answeredError{mark: ErrForbidden, token: got.token, text: fmt.Sprintf("consul agent %s: query service %q: no usable instance "+
			"is visible, and access control may withhold some; want a token with service:read and node:read", w.agent.where, w.query.service)}
	}
	for _, what := range skipped {
		if !slices.Contains(w.skipLogged, what) {
			w.logger.Warn("consul: an instance is left out", "reason", what)
		}
	}
	w.skipLogged = skipped
	return set, nil
}

// nextIndex returns the index to query with after one answer has come, by the rules of Consul's documentation of blocking queries: an index that
// went backwards means that the state was restored, so start afresh; below 1 a query would not block.
func nextIndex(previous, received uint64) uint64 {
	switch {
	case received < 1:
		return 1
	case received < previous:
		return 0
	default:
		return received
	}
}

// failed notes an error that Next returns, and logs it if it is news.
func (w *watcher) failed(err error) {
	w.failures++
	delay := backoff(w.failures)
	state, level := "failing", slog.LevelWarn
	w.denied = nil
	switch {
	case errors.Is(err, ErrForbidden):
		state, level = "forbidden", slog.LevelError
		if w.agent.tokens.rotates() {
			w.denied = new(string) // none, if the file could not be read
			if answered, ok := errors.AsType[*answeredError](err); ok {
				*w.denied = answered.token
			}
		}
	case errors.Is(err, ErrRefused):
		state, level = "refused", slog.LevelError
		delay = jitter(maxBackoff)
	default:
		w.doubt = true
	}
	w.retryAt = time.Now().Add(delay)
	w.index, w.emptyFrom = 0, time.Time{}
	if w.state != state {
		w.state = state
		w.logger.Log(context.Background(), level, "consul: the watch fails; the last instances stand", "error", err, "instances", len(w.last))
	}
}

func (w *watcher) recovered() {
	w.failures, w.retryAt, w.denied = 0, time.Time{}, nil
	if w.state != "" {
		w.state = ""
		w.logger.Info("consul: the watch works again")
	}
}

// pause waits out the time after a failure; less if access was denied and the token has changed since.
func (w *watcher) pause(ctx context.Context) error {
	for {
		left := time.Until(w.retryAt)
		if left <= 0 {
			return nil
		}
		if w.denied != nil {
			if token, err := w.agent.tokens.current(); err == nil && token != *w.denied {
				return nil
			}
			left = min(left, tokenInterval)
		}
		if err := sleep(ctx, left); err != nil {
			return err
		}
	}
}

// Close implements [registry.Watcher].
func (w *watcher) Close() error {
	w.end()
	w.turn.Lock() // waits for a Next under way
	defer w.turn.Unlock()
	w.onClose(w)
	return nil
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
