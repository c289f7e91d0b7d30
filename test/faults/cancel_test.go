//go:build integration

package faults_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/rpc"
	"github.com/0x1d/goplt/pkg/servicestest"
)

// hurry is how soon a call that its caller cancels has to be over.
const hurry = 10 * time.Millisecond

// cancelled makes a call and cancels it as soon as under has returned, which waits until the call is where it is to be cancelled. It fails unless the
// call ends as cancelled, and returns it and how long that took.
func cancelled(t testing.TB, transport *rpc.Transport, what kind, under func()) (outcome, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan outcome, 1)
	go func() { over <- invoke(ctx, transport, what, patience) }()
	under()
	began := time.Now()
	cancel()
	made := <-over
	if connectrpc.CodeOf(made.err) != connectrpc.CodeCanceled || !errors.Is(made.err, context.Canceled) {
		t.Errorf("%s ends with %v, want canceled", made.id, made.err)
	}
	return made, made.ended.Sub(began)
}

// expectHurry fails unless the quickest of some calls was over in time. One alone may have had to wait for a processor.
func expectHurry(t testing.TB, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	t.Logf("calls were over within %v to %v of being cancelled", took[0], took[len(took)-1])
	if took[0] > hurry || took[len(took)-1] > most {
		t.Errorf("calls that were cancelled took %v to be over, want %v", took, hurry)
	}
}

// TestRow36CancelInCall: the caller gives up while the instance is at work. That says nothing of the instance, whatever the kind of the call.
func TestRow36CancelInCall(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for _, what := range both {
			t.Run(string(spokenBy(spoken))+" "+what.String(), func(t *testing.T) {
				row(t)
				executions := newLedger()
				entered, left := make(chan struct{}), make(chan struct{}, 100)
				at := host{before: func(ctx context.Context, _ string) error {
					select {
					case entered <- struct{}{}:
						<-ctx.Done() // so the instance hears of it, too
						left <- struct{}{}
						return ctx.Err()
					case <-ctx.Done():
						return ctx.Err()
					}
				}}.start(t, executions)
				transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
					cfg.Defaults.Breaker.MinCalls, cfg.Defaults.Outlier.ConsecutiveFailures = 1, 1
				}), at.Addr())
				var took []time.Duration
				for range 10 {
					made, d := cancelled(t, transport, what, func() { <-entered })
					made.expect(t, executions, connectrpc.CodeCanceled, 1)
					took = append(took, d)
					<-left
				}
				expectHurry(t, took)
				expectUntouched(t, transport, spokenBy(spoken))
			})
		}
	}
}

// TestRow36CancelInBackoff: the caller gives up while the call waits for its next attempt.
func TestRow36CancelInBackoff(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			busy := &busyOnce{values: []string{"5000"}, code: connectrpc.CodeUnavailable, ended: make(map[string]time.Time)}
			transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) { cfg.Defaults.Breaker.MinCalls = 1 }),
				host{before: busy.execute}.start(t, executions).Addr())
			var took []time.Duration
			for at := range uint64(10) {
				made, d := cancelled(t, transport, idempotent, func() {
					await(t, "the first attempt to be over", func() bool { return statusOf(transport, instanceID(0)).Calls == at+1 })
				})
				made.expect(t, executions, connectrpc.CodeCanceled, 1)
				if attempts := made.attempts(t); len(attempts) != 1 || attempts[0].Code != connectrpc.CodeUnavailable {
					t.Errorf("attempts %v; want the one that was told to come back", attempts)
				}
				took = append(took, d)
			}
			expectHurry(t, took)
			expectUntouched(t, transport, spokenBy(spoken))
		})
	}
}

// TestRow36CancelBeforeSent: the caller gives up before the request can be sent: while the connection is opened to a peer that says nothing, while
// all connections are taken, and before the call was even begun.
func TestRow36CancelBeforeSent(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		t.Run("no greeting "+string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			way := servicestest.StartProxy(t, host{}.start(t, executions).Addr())
			transport := reach(t, inMemory(speaking(spoken), unwarmed, func(cfg *config.Config) { cfg.Defaults.Breaker.MinCalls = 1 }), way.Addr)
			thaw := way.Freeze()
			var took []time.Duration
			for at := range 10 {
				made, d := cancelled(t, transport, both[at%2], func() {
					await(t, "the attempt to begin", func() bool { return statusOf(transport, instanceID(0)).InFlight == 1 })
				})
				made.expect(t, executions, connectrpc.CodeCanceled, 0)
				took = append(took, d)
			}
			expectHurry(t, took)
			expectUntouched(t, transport, spokenBy(spoken))
			thaw()
			invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1)
		})
		t.Run("no connection "+string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			entered, leave := make(chan struct{}, 1), make(chan struct{})
			at := host{
				config: func(config *rpc.ServerConfig) { config.MaxConcurrentStreams = 1 },
				before: func(context.Context, string) error {
					entered <- struct{}{}
					<-leave
					return nil
				},
			}.start(t, executions)
			transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
				cfg.Defaults.Pool.MaxConnections, cfg.Defaults.Pool.MaxHTTPConnections, cfg.Defaults.Breaker.MinCalls = 1, 1, 1
			}), at.Addr())
			holding := make(chan outcome, 1)
			go func() { holding <- invoke(context.Background(), transport, unrepeatable, patience) }()
			<-entered
			var took []time.Duration
			for number := range 10 {
				made, d := cancelled(t, transport, both[number%2], func() {
					await(t, "the attempt to begin", func() bool { return statusOf(transport, instanceID(0)).InFlight == 2 })
				})
				made.expect(t, executions, connectrpc.CodeCanceled, 0)
				took = append(took, d)
			}
			expectHurry(t, took)
			close(leave)
			made := <-holding
			made.expect(t, executions, 0, 1)
			expectUntouched(t, transport, spokenBy(spoken))
		})
		t.Run("not begun "+string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			transport := reach(t, inMemory(speaking(spoken)), host{}.start(t, executions).Addr())
			invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1) // so that there is a connection
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			var took []time.Duration
			for number := range 10 {
				made := invoke(ctx, transport, both[number%2], patience)
				made.expect(t, executions, connectrpc.CodeCanceled, 0)
				took = append(took, made.took)
			}
			expectHurry(t, took)
			expectUntouched(t, transport, spokenBy(spoken))
		})
	}
}

// TestRow36CancelProbe: the caller gives up a call that a half-open breaker let through to see whether the instance is well again. That nobody knows
// then: the breaker does not open again for it, and the next call is let through in its place.
func TestRow36CancelProbe(t *testing.T) {
	t.Parallel()
	const openFor = 100 * time.Millisecond
	for _, spoken := range byBoth {
		t.Run(string(spokenBy(spoken)), func(t *testing.T) {
			row(t)
			executions := newLedger()
			var hold atomic.Bool
			entered := make(chan struct{})
			gateway := servicestest.StartHTTPProxy(t, host{before: func(ctx context.Context, _ string) error {
				if hold.Load() {
					entered <- struct{}{}
					<-ctx.Done()
				}
				return ctx.Err()
			}}.start(t, executions).Addr())
			transport := reach(t, inMemory(speaking(spoken), func(cfg *config.Config) {
				cfg.Defaults.Breaker.MinCalls, cfg.Defaults.Breaker.OpenFor, cfg.Defaults.Breaker.HalfOpenSuccesses = 1, openFor, 1
				cfg.Defaults.Outlier.Enabled = false
			}), gateway.Addr)
			expectBreaker := func(when, want string) {
				t.Helper()
				if got := statusOf(transport, instanceID(0)).Breaker; got != want {
					t.Errorf("%s, the breaker is %s, want %s", when, got, want)
				}
			}
			gateway.InjectStatus("*", http.StatusBadGateway, servicestest.Times(1))
			invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, connectrpc.CodeUnavailable, 0)
			expectBreaker("after a failure", "open")
			pass(t, 2*openFor)
			hold.Store(true)
			var took []time.Duration
			for range 10 { // more often than there are permits
				made, d := cancelled(t, transport, unrepeatable, func() {
					<-entered
					expectBreaker("while a call tries the instance", "half-open")
				})
				made.expect(t, executions, connectrpc.CodeCanceled, 1)
				took = append(took, d)
				expectAtRest(t, transport)
				expectBreaker("after that call was cancelled", "half-open")
			}
			expectHurry(t, took)
			hold.Store(false)
			invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, 0, 1)
			expectBreaker("after a call that succeeded", "closed")
		})
	}
}
