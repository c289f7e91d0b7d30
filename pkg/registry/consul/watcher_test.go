package consul_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
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
	asked, cut, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.answerWith(func(r *http.Request) (*http.Response, error) {
		if !r.URL.Query().Has("index") {
			return nil, nil // the fake agent answers what need not wait
		}
		close(asked)
		<-r.Context().Done()
		close(cut)
		ending := time.NewTimer(50 * time.Millisecond) // a transport may take that long
		defer ending.Stop()
		select {
		case <-closed:
			t.Error("closed while a query of its own was under way")
		case <-ending.C:
		}
		return nil, r.Context().Err()
	})
	r, _ := open(t, f)
	w := watch(t, r)
	expect(t, w, "1")
	<-asked
	var closing sync.WaitGroup
	closing.Go(func() { _ = w.Close() })
	<-cut
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	close(closed)
	closing.Wait()
}
