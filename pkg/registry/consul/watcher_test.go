package consul_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/pkg/registry"
)

func healthQueries(f *fakeAgent) []request { return f.asked("/v1/health/") }

// untilQuiet lets Next run for a time in which no set may come.
func untilQuiet(t *testing.T, w registry.Watcher, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for {
		set, err := w.Next(ctx)
		if err == nil {
			t.Fatalf("a set came: %v", set)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func TestCloseEndsTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		ended := make(chan error)
		go func() {
			_, err := w.Next(t.Context())
			ended <- err
		}()
		synctest.Wait() // until the query waits
		began := time.Now()
		go w.Close()
		if err := <-ended; !errors.Is(err, registry.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("Next ended after %v: %v", time.Since(began), err)
		}
		synctest.Wait() // Next ends beside the query, not after it
		queries := healthQueries(f)
		if queries[len(queries)-1].Context().Err() == nil {
			t.Error("the query goes on")
		}
	})
}

// A watcher that is being closed when the registry is, is waited for too. In real time: the waiting is for a mutex.
func TestRegistryCloseWaitsForWatchersThatEnd(t *testing.T) {
	f := newFakeAgent(entry("1", 80))
	r, _ := open(t, f)
	w := watch(t, r)
	expect(t, w, "1")
	cut := make(chan struct{})
	var ended atomic.Bool
	f.answerWith(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		close(cut)
		pass(50 * time.Millisecond) // of the transport's own time
		ended.Store(true)
		return nil, r.Context().Err()
	})
	var closing sync.WaitGroup
	closing.Go(func() { _ = w.Close() })
	<-cut
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if !ended.Load() {
		t.Error("closed while a query of its own was under way")
	}
	closing.Wait()
}
