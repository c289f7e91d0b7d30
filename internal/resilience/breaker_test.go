package resilience_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/resilience"
)

func breakerConfig() resilience.BreakerConfig {
	return resilience.BreakerConfig{FailureRate: 0.5, MinCalls: 10, Window: 10 * time.Second, OpenFor: 5 * time.Second, HalfOpenSuccesses: 2}
}

// pass lets time pass, in a bubble of synctest.
func pass(duration time.Duration) { <-time.NewTimer(duration).C }

// attempt asks for a permit and, if it gets one, records the outcome.
func attempt(b *resilience.Breaker, succeeded bool) bool {
	if !b.TryAcquirePermit() {
		return false
	}
	if succeeded {
		b.RecordSuccess()
	} else {
		b.RecordFailure()
	}
	return true
}

// TestBreakerOpens at the rate, and not before there are calls enough to speak of one.
func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name                string
		successes, failures int
		open                bool
	}{
		{"too few calls", 0, 9, false},
		{"enough", 0, 10, true},
		{"below the rate", 11, 10, false},
		{"at the rate", 10, 10, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := resilience.NewBreaker(breakerConfig())
			for range row.successes {
				attempt(b, true)
			}
			for range row.failures {
				attempt(b, false)
			}
			if (b.State() == "open") != row.open || b.TryAcquirePermit() == row.open {
				t.Errorf("%s after %d successes and %d failures", b.State(), row.successes, row.failures)
			}
		})
	}
}

// TestBreakerForgets: only the window counts.
func TestBreakerForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := resilience.NewBreaker(breakerConfig())
		for range 9 {
			attempt(b, false)
		}
		pass(11 * time.Second)
		for range 9 {
			attempt(b, false)
		}
		if b.State() != "closed" {
			t.Error("open for failures that are no longer in the window")
		}
		attempt(b, false)
		if b.State() != "open" {
			t.Error("closed after ten failures in the window")
		}
	})
}

// TestBreakerRecovers: open, it gives no permit; then as many as successes are needed; a failure opens it again, successes close it. Each
// change is told, in order.
func TestBreakerRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		config := breakerConfig()
		config.OnChange = func(from, to string) {
			changes = append(changes, fmt.Sprintf("%s → %s at %v", from, to, time.Now().Second()))
		}
		b := resilience.NewBreaker(config)
		for range 10 {
			attempt(b, false)
		}
		pass(5*time.Second - 1)
		if b.TryAcquirePermit() {
			t.Error("a permit before the time")
		}
		b.RecordFailure() // of an attempt that began while the breaker was closed
		b.RecordSuccess()
		if b.State() != "open" || b.MayServe() {
			t.Errorf("%s, may serve %t: what is recorded while it is open must not change it", b.State(), b.MayServe())
		}
		pass(1)
		permits := 0
		for b.TryAcquirePermit() {
			permits++
		}
		if permits != 2 {
			t.Errorf("%d permits, want 2", permits)
		}
		b.RecordSuccess()
		if b.State() != "half-open" {
			t.Errorf("%s after one success of two", b.State())
		}
		b.RecordFailure()
		if b.State() != "open" || b.TryAcquirePermit() {
			t.Errorf("%s after a failure", b.State())
		}
		pass(5 * time.Second)
		for range 2 { // permits come back with each record, so two are to be had again and again
			if !attempt(b, true) {
				t.Error("no permit")
			}
		}
		if b.State() != "closed" {
			t.Errorf("%s after two successes", b.State())
		}
		for range 9 {
			attempt(b, false)
		}
		if b.State() != "closed" {
			t.Errorf("%s: failures from before it opened count again", b.State())
		}
		want := []string{"closed → open at 0", "open → half-open at 5", "half-open → open at 5", "open → half-open at 10", "half-open → closed at 10"}
		if !slices.Equal(changes, want) {
			t.Errorf("told %q\nwant %q", changes, want)
		}
	})
}

// TestBreakerRelease: a permit that comes back unused leaves the breaker half-open, with a permit for another, and tells nothing.
func TestBreakerRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		config := breakerConfig()
		config.OnChange = func(from, to string) { changes = append(changes, from+" → "+to) }
		b := resilience.NewBreaker(config)
		b.Release() // of a closed one
		for range 10 {
			attempt(b, false)
		}
		b.Release() // of an open one
		if b.State() != "open" || b.TryAcquirePermit() {
			t.Errorf("%s after a release while it was open", b.State())
		}
		pass(5 * time.Second)
		for range 20 {
			for range 2 {
				if !b.TryAcquirePermit() {
					t.Fatal("no permit")
				}
			}
			b.Release()
			if b.State() != "half-open" {
				t.Fatalf("%s after a release", b.State())
			}
			b.Release()
		}
		for range 2 {
			attempt(b, true)
		}
		if b.State() != "closed" {
			t.Errorf("%s after two successes", b.State())
		}
		if want := []string{"closed → open", "open → half-open", "half-open → closed"}; !slices.Equal(changes, want) {
			t.Errorf("told %q\nwant %q", changes, want)
		}
	})
}

// TestBreakerWindowOfNothing: the least that the configuration allows.
func TestBreakerWindowOfNothing(t *testing.T) {
	t.Parallel()
	config := breakerConfig()
	config.Window, config.MinCalls = 1, 1
	b := resilience.NewBreaker(config)
	attempt(b, false)
	if b.State() != "open" {
		t.Error("a failure did not open it")
	}
}

// TestBreakerToldLastIsTrue: however many change the breaker at a time, what is told is a chain, and ends with the state it is in.
func TestBreakerToldLastIsTrue(t *testing.T) {
	t.Parallel()
	config := breakerConfig()
	config.FailureRate, config.MinCalls, config.OpenFor, config.HalfOpenSuccesses = 0.1, 1, time.Nanosecond, 1
	var telling atomic.Int64
	last, changes := "closed", 0
	config.OnChange = func(from, to string) {
		if telling.Add(1) != 1 {
			t.Error("told by two at a time")
		}
		if from != last || to == from {
			t.Errorf("told %s → %s after %s", from, to, last)
		}
		last = to
		changes++
		telling.Add(-1)
	}
	b := resilience.NewBreaker(config)
	var running sync.WaitGroup
	for number := range 8 {
		running.Go(func() {
			for round := range 2000 {
				if (number+round)%7 == 0 && b.TryAcquirePermit() {
					b.Release()
				}
				attempt(b, (number+round)%3 > 0)
			}
		})
	}
	running.Wait()
	if last != b.State() {
		t.Errorf("told last that it is %s, and it is %s", last, b.State())
	}
	if changes == 0 {
		t.Error("nothing changed: the test tests nothing")
	}
}

// TestBreakerSurvivesPanic: a panic of OnChange reaches who caused the change, and the breaker goes on.
func TestBreakerSurvivesPanic(t *testing.T) {
	t.Parallel()
	config := breakerConfig()
	config.OnChange = func(_, to string) {
		if to == "open" {
			panic("user's")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		b := resilience.NewBreaker(config)
		for range 9 {
			attempt(b, false)
		}
		func() {
			defer func() {
				if recovered := recover(); recovered != "user's" {
					t.Errorf("recovered %v", recovered)
				}
			}()
			b.RecordFailure()
		}()
		if b.State() != "open" {
			t.Errorf("%s, want open", b.State())
		}
		pass(5 * time.Second)
		for range 2 {
			if !attempt(b, true) {
				t.Error("no permit")
			}
		}
		if b.State() != "closed" {
			t.Errorf("%s, want closed", b.State())
		}
	})
}

// TestBreakerAllocations: a call that succeeds at once asks and records without an allocation.
func TestBreakerAllocations(t *testing.T) {
	config := breakerConfig()
	config.OnChange = func(string, string) {}
	b := resilience.NewBreaker(config)
	if n := testing.AllocsPerRun(1000, func() { attempt(b, true) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBreakerReleaseBesideOthers: a permit given back does not undo that the breaker has closed, or opened, at the same time.
func TestBreakerReleaseBesideOthers(t *testing.T) {
	reopened, early := 0, 0
	for range 2000 {
		for _, success := range []bool{true, false} {
			b := resilience.NewBreaker(resilience.BreakerConfig{FailureRate: 0.5, MinCalls: 1, Window: time.Minute, OpenFor: time.Nanosecond, HalfOpenSuccesses: 2})
			b.RecordFailure()
			for !b.TryAcquirePermit() {
			}
			b.TryAcquirePermit()
			b.RecordSuccess()
			b.TryAcquirePermit()
			var both sync.WaitGroup
			var seen string
			start := make(chan struct{})
			both.Go(func() {
				<-start
				if success {
					b.RecordSuccess()
				} else {
					b.RecordFailure()
				}
				seen = b.State()
			})
			both.Go(func() { <-start; b.Release() })
			close(start)
			both.Wait()
			switch {
			case success && seen == "closed" && b.State() != "closed":
				reopened++
			case !success && seen == "open" && b.State() == "half-open":
				early++ // or seen in the middle of Release
			}
		}
	}
	if reopened > 0 {
		t.Errorf("%d times half-open again after it had closed; %d times half-open although a probe failed", reopened, early)
	}
}

// TestBreakerPermitOfAPanic: a permit whose acquisition panics, in OnChange, is not lost.
func TestBreakerPermitOfAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breaker := resilience.NewBreaker(resilience.BreakerConfig{
			FailureRate: 0.5, MinCalls: 1, Window: time.Second, OpenFor: time.Second, HalfOpenSuccesses: 1,
			OnChange: func(_, to string) {
				if to == "half-open" {
					panic("a log's handler")
				}
			},
		})
		breaker.RecordFailure()
		pass(2 * time.Second)
		func() {
			defer func() { _ = recover() }()
			breaker.TryAcquirePermit()
		}()
		pass(time.Hour)
		if !breaker.TryAcquirePermit() {
			t.Errorf("%s, without a permit to be had, an hour after a panic", breaker.State())
		}
	})
}
