//go:build integration

package faults_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"
)

// TestRow34Pushback: a service that is unavailable says when to come back, or, by what is no time, that there is no coming back. A call that is not
// idempotent does not come back whatever it says.
func TestRow34Pushback(t *testing.T) {
	t.Parallel()
	for _, spoken := range byBoth {
		for name, pushed := range map[string]struct {
			values []string
			least  time.Duration // before the next attempt, 0 for none
		}{
			"250": {[]string{"250"}, 250 * time.Millisecond}, "-1": {[]string{"-1"}, 0}, "x": {[]string{"x"}, 0}, "repeated": {[]string{"250", "250"}, 0},
		} {
			for _, code := range []connectrpc.Code{connectrpc.CodeUnavailable, connectrpc.CodeResourceExhausted} {
				t.Run(fmt.Sprintf("%s %s %s", spokenBy(spoken), name, code), func(t *testing.T) {
					row(t)
					executions := newLedger()
					busy := &busyOnce{values: pushed.values, code: code, ended: make(map[string]time.Time)}
					// Two instances: that another one might have time is no reason to come earlier.
					transport := reach(t, inMemory(speaking(spoken)),
						host{before: busy.execute}.start(t, executions).Addr(), host{before: busy.execute}.start(t, executions).Addr())
					for range 3 {
						made := invoke(t.Context(), transport, idempotent, patience)
						if pushed.least == 0 {
							made.expect(t, executions, code, 1)
						} else {
							made.expect(t, executions, 0, 2)
							if pause := busy.pauseOf(made.id); pause < pushed.least {
								t.Errorf("%s came back after %v, want at least %v", made.id, pause, pushed.least)
							}
						}
						invoke(t.Context(), transport, unrepeatable, patience).expect(t, executions, code, 1)
					}
					expectUntouched(t, transport, spokenBy(spoken))
				})
			}
		}
	}
}

// busyOnce fails the first execution of each call, with pushback.
type busyOnce struct {
	values []string
	code   connectrpc.Code

	mu    sync.Mutex
	ended map[string]time.Time // the first execution of a call
	pause map[string]time.Duration
}

func (b *busyOnce) execute(ctx context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ended, again := b.ended[id]; again {
		if b.pause == nil {
			b.pause = make(map[string]time.Duration)
		}
		b.pause[id] = time.Since(ended)
		return nil
	}
	b.ended[id] = time.Now()
	if info, ok := connectrpc.CallInfoForServerContext(ctx); ok {
		info.ResponseTrailer().SetValues("grpc-retry-pushback-ms", b.values)
	}
	return connectrpc.NewError(b.code, "busy")
}

// pauseOf returns how long after its first execution a call was executed again, as the servers saw it.
func (b *busyOnce) pauseOf(id string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause[id]
}
