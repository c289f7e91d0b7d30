package consul_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Fault 1.
func TestIndexGoesBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		f.index = 100
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		go f.update(func() { f.index = 5 }) // the servers' state was restored; the content is the same
		untilQuiet(t, w, 5*time.Second)
		queries := healthQueries(f)
		if got := queries[len(queries)-2].URL.Query(); got.Has("index") {
			t.Errorf("after the index went backwards the query has index %s, want none, which is 0", got.Get("index"))
		}
		began := time.Now()
		f.set(entry("2", 80))
		expect(t, w, "2")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the update was seen after %v", took)
		}
	})
}

// Fault 2.
func TestIndexUnusable(t *testing.T) {
	for _, index := range []string{"0", "", "garbage", "-1", "18446744073709551616"} {
		t.Run("index "+index, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAgent(entry("1", 80))
				f.setHeader("X-Consul-Index", index)
				r, _ := open(t, f)
				w := watch(t, r)
				expect(t, w, "1")
				untilQuiet(t, w, time.Minute)
				queries := healthQueries(f)
				for _, q := range queries[1:] {
					if got := q.URL.Query().Get("index"); got != "1" {
						t.Fatalf("the query after has index %q, want 1", got)
					}
				}
				if len(queries) > 125 {
					t.Errorf("%d queries in a minute", len(queries))
				}
			})
		})
	}
}

// Fault 3.
func TestIndexChurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		churn, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			for ticker := time.NewTicker(time.Millisecond); churn.Err() == nil; {
				select {
				case <-ticker.C:
					f.update(func() {})
				case <-churn.Done():
					ticker.Stop()
				}
			}
		}()
		before := len(healthQueries(f))
		untilQuiet(t, w, time.Minute)
		if asked := len(healthQueries(f)) - before; asked > 125 {
			t.Errorf("%d queries in a minute of churn", asked)
		}
		began := time.Now()
		f.set(entry("2", 80))
		expect(t, w, "2")
		if took := time.Since(began); took > time.Second {
			t.Errorf("a change in the churn was seen after %v", took)
		}
	})
}
