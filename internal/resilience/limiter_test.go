package resilience_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/resilience"
)

// TestLimiter: both kinds let in as many as there is room for, have others wait in order, and end the waiting in time.
func TestLimiter(t *testing.T) {
	t.Parallel()
	for name, adaptive := range map[string]bool{"bulkhead": false, "adaptive": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := resilience.NewLimiter(resilience.LimiterConfig{Most: 2, MaxWait: time.Second, Adaptive: adaptive})
				if got := l.Limit(); got != 2 {
					t.Errorf("limit %d, want 2", got)
				}
				first, ok := l.TryAcquire()
				second, err := l.Acquire(t.Context())
				if !ok || err != nil {
					t.Fatalf("no room for two: %t, %v", ok, err)
				}
				if _, ok := l.TryAcquire(); ok {
					t.Error("room for three")
				}
				began := time.Now()
				if _, err := l.Acquire(t.Context()); !errors.Is(err, resilience.ErrLimit) || time.Since(began) != time.Second {
					t.Errorf("got %v after %v, want the limit after 1s", err, time.Since(began))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				if _, err := l.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the end of the context", err)
				}
				var entered atomic.Int64
				for number := range int64(3) {
					go func() {
						place, err := l.Acquire(t.Context())
						if err != nil || entered.Add(1) != number+1 {
							t.Errorf("got in as number %d, %v; want %d", entered.Load(), err, number+1)
						}
						pass(time.Millisecond)
						place.Leave(true)
					}()
					synctest.Wait()
				}
				first.Leave(true)
				pass(10 * time.Millisecond)
				second.Leave(false)
				pass(10 * time.Millisecond)
				if got := entered.Load(); got != 3 {
					t.Errorf("%d of 3 got in", got)
				}
			})
		})
	}
}

// TestLimiterDoesNotWait: without a time to wait, who finds no room is told at once.
func TestLimiterDoesNotWait(t *testing.T) {
	t.Parallel()
	for _, adaptive := range []bool{false, true} {
		l := resilience.NewLimiter(resilience.LimiterConfig{Most: 1, Adaptive: adaptive})
		place, err := l.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Acquire(t.Context()); !errors.Is(err, resilience.ErrLimit) {
			t.Errorf("got %v, want the limit", err)
		}
		place.Leave(true)
		if place, err = l.Acquire(t.Context()); err != nil {
			t.Errorf("no room after one has left: %v", err)
		}
		place.Leave(false)
	}
}

// TestLimiterAdapts: an adaptive limit finds the concurrency from which on calls only wait for each other, from above and from below.
func TestLimiterAdapts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const capacity, work = 10, 100 * time.Millisecond // a service that does so many at a time, each so long; others queue
		l := resilience.NewLimiter(resilience.LimiterConfig{Most: 200, Adaptive: true})
		service := make(chan struct{}, capacity)
		ctx, cancel := context.WithCancel(t.Context())
		for range 40 {
			go func() {
				for ctx.Err() == nil {
					place, err := l.Acquire(ctx)
					if err != nil {
						pass(work / 10)
						continue
					}
					service <- struct{}{}
					pass(work)
					<-service
					place.Leave(true)
				}
			}()
		}
		pass(2 * time.Minute)
		if got := l.Limit(); got < capacity/2 || got > 3*capacity {
			t.Errorf("limit %d after two minutes, want about %d, what the service can do at a time", got, capacity)
		}
		cancel()
		synctest.Wait()
		pass(2 * time.Minute)
	})
}
