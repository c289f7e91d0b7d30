package balancer_test

import (
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// TestEWMA follows what is answered: rises at most twofold with each answer, falls with answers and with time.
func TestEWMA(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	s, now := balancer.NewStats(balancer.Config{}), time.Now()
	end := func(after, latency time.Duration, outcome balancer.Outcome, low, high time.Duration) {
		t.Helper()
		s.Begin()
		now = now.Add(after)
		s.End(now, latency, outcome)
		if got := s.EWMA(); got < low-ms/100 || got > high+ms/100 {
			t.Errorf("after %v more, latency %v, outcome %d: EWMA %v, want %v to %v", after, latency, outcome, got, low, high)
		}
	}
	end(0, 90*ms, balancer.OutcomeAnswered, 0, 0) // the first says too little
	end(0, 10*ms, balancer.OutcomeAnswered, 10*ms, 10*ms)
	end(0, 15*ms, balancer.OutcomeAnswered, 15*ms, 15*ms)
	end(0, 500*ms, balancer.OutcomeAnswered, 30*ms, 30*ms)
	end(0, 500*ms, balancer.OutcomeAnswered, 60*ms, 60*ms)
	end(0, 20*ms, balancer.OutcomeAnswered, 55*ms, 55*ms)              // an eighth of the way
	end(3*time.Second, 20*ms, balancer.OutcomeAnswered, 45*ms, 46*ms)  // a quarter of it
	end(10*time.Second, 20*ms, balancer.OutcomeAnswered, 26*ms, 27*ms) // three quarters, of an estimate so old
	end(time.Hour, 20*ms, balancer.OutcomeAnswered, 20*ms, 20*ms)
	end(0, 500*ms, balancer.OutcomeNone, 20*ms, 20*ms)
	end(0, 10*ms, balancer.OutcomeUnanswered, 20*ms, 20*ms)
	end(0, 35*ms, balancer.OutcomeUnanswered, 35*ms, 35*ms)
	end(time.Hour, 20*ms, balancer.OutcomeAnswered, 20*ms, 20*ms)
	end(0, 1*ms, balancer.OutcomeFailed, 20*ms, 20*ms) // the first failure in a row
	end(0, 1*ms, balancer.OutcomeFailed, 100*ms, 100*ms)
	end(0, 1*ms, balancer.OutcomeFailed, 400*ms, 400*ms)
	for range 10 {
		end(0, 1*ms, balancer.OutcomeFailed, 400*ms, 30*time.Second)
	}
	end(0, time.Minute, balancer.OutcomeFailed, time.Minute, time.Minute) // a timeout counts for what it was
	end(0, 30*ms, balancer.OutcomeAnswered, 30*ms, 30*ms)                 // and is over
	end(0, 5*ms, balancer.OutcomeFailed, 30*ms, 30*ms)
	end(0, 22*ms, balancer.OutcomeAnswered, 29*ms, 29*ms) // one failure raised nothing
	end(time.Hour, 20*ms, balancer.OutcomeAnswered, 20*ms, 20*ms)
	end(0, 50*ms, balancer.OutcomeFailed, 40*ms, 40*ms) // a slow one counts as slow, the first in a row too
	end(-time.Hour, 40*ms, balancer.OutcomeAnswered, 40*ms, 40*ms)
	s.StartSlowly(now)
	end(0, 5*ms, balancer.OutcomeAnswered, 0, 0)
	if got := s.InFlight(); got != 0 {
		t.Errorf("%d in flight at the end", got)
	}
}

// TestEndCountsWhatIsLeft in flight, so that whoever waits for the last one knows.
func TestEndCountsWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := balancer.NewStats(balancer.Config{})
	s.Begin()
	s.Begin()
	if got := s.InFlight(); got != 2 {
		t.Errorf("%d in flight, want 2", got)
	}
	for want := range int64(2) {
		if got := s.End(time.Now(), 0, balancer.OutcomeNone); got != 1-want {
			t.Errorf("%d left, want %d", got, 1-want)
		}
	}
}

func BenchmarkStats(b *testing.B) {
	s, now := balancer.NewStats(balancer.Config{}), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		s.Begin()
		s.End(now, time.Millisecond, balancer.OutcomeAnswered)
	}
}
