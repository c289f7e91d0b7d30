package resilience_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/resilience"
)

// inTime has a shedder see so many calls that take so long, at a time, and are in time.
func inTime(s *shedder, calls int, took time.Duration) {
	permits := admitMany(s, calls, time.Hour)
	pass(took)
	endAll(permits, resilience.InTime)
}

func admitMany(s *shedder, calls int, allowed time.Duration) []*resilience.Permit {
	var permits []*resilience.Permit
	for range calls {
		if permit, ok := s.admit(time.Now().Add(allowed)); ok {
			permits = append(permits, permit)
		}
	}
	return permits
}

func endAll(permits []*resilience.Permit, outcome resilience.Outcome) {
	for _, permit := range permits {
		permit.End(outcome)
	}
}

func expectLimit(t *testing.T, s *shedder, want int) {
	t.Helper()
	if _, limit := s.Load(); limit != want {
		t.Errorf("limit %d, want %d", limit, want)
	}
}

// TestShedderConfig: each of its values, other than the default, decides.
func TestShedderConfig(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		set   func(*resilience.ShedderConfig)
		calls func(*shedder)
		want  int
	}{
		{"a share below failure_rate", func(c *resilience.ShedderConfig) { c.FailureRate = 0.5 }, func(s *shedder) {
			inTime(s, 60, time.Millisecond)
			overload(s, 50)
		}, 0},
		{"a share above failure_rate", func(c *resilience.ShedderConfig) { c.FailureRate = 0.5 }, func(s *shedder) {
			inTime(s, 40, time.Millisecond)
			overload(s, 50)
		}, 4}, // of the nine that were in flight when they were too many
		{"a small share above failure_rate", func(c *resilience.ShedderConfig) { c.FailureRate = 0.02 }, func(s *shedder) {
			inTime(s, 96, time.Millisecond)
			overload(s, 4)
		}, 2},
		{"a share below failure_rate of the calls within a limit", func(c *resilience.ShedderConfig) { c.FailureRate = 0.5 }, func(s *shedder) {
			inTime(s, 200, time.Millisecond)
			overload(s, 1000)
			pass(2 * time.Second)
			endAll(admitMany(s, 60, time.Second), resilience.InTime)
			endAll(admitMany(s, 40, time.Second), resilience.OutOfTime)
			pass(2 * time.Second)
		}, 100},
		{"fewer calls than min_calls", func(c *resilience.ShedderConfig) { c.MinCalls = 100 }, func(s *shedder) { overload(s, 99) }, 0},
		{"min_calls", func(c *resilience.ShedderConfig) { c.MinCalls = 5 }, func(s *shedder) { overload(s, 5) }, 2},
		{"min_calls within a limit, before it is looked at", func(c *resilience.ShedderConfig) { c.MinCalls = 5 }, func(s *shedder) {
			inTime(s, 200, time.Millisecond)
			overload(s, 1000)
			endAll(admitMany(s, 5, time.Second), resilience.OutOfTime)
		}, 2}, // of the five that were in flight
		{"calls within a long window", func(c *resilience.ShedderConfig) { c.Window = time.Minute }, func(s *shedder) {
			overload(s, 10)
			pass(30 * time.Second)
			overload(s, 10)
		}, 5},
		{"calls not within a short window", func(c *resilience.ShedderConfig) { c.Window = time.Second }, func(s *shedder) {
			overload(s, 10)
			pass(3 * time.Second)
			overload(s, 10)
		}, 0},
		{"within a long window after the last rejection", func(c *resilience.ShedderConfig) { c.Window = time.Minute }, func(s *shedder) {
			overload(s, 20)
			pass(time.Minute - 1)
		}, 10},
		{"a short window after the last rejection", func(c *resilience.ShedderConfig) { c.Window = time.Second }, func(s *shedder) {
			overload(s, 20)
			pass(time.Second)
		}, 0},
		{"least", func(c *resilience.ShedderConfig) { c.Least = 7 }, func(s *shedder) { overload(s, 20); overload(s, 20); overload(s, 20) }, 7},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				config := shedderConfig()
				row.set(&config)
				s := &shedder{Shedder: resilience.NewShedder(config)}
				row.calls(s)
				expectLimit(t, s, row.want)
			})
		})
	}
}

// TestShedderGenerations: what becomes of the calls that a limit let in is what says whether it is right, not of those from before it.
func TestShedderGenerations(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		before func(*shedder) (after func())
		want   int
	}{
		{"a call ends late", func(s *shedder) func() {
			old := admitMany(s, 200, time.Hour)
			return func() { endAll(old, resilience.OutOfTime) }
		}, 50},
		{"a call runs out of time", func(s *shedder) func() {
			admitMany(s, 200, 1500*time.Millisecond)
			return func() {}
		}, 50},
		{"a call begins, and then runs out of time", func(s *shedder) func() {
			var old []resilience.Permit
			for range 200 {
				permit, _ := s.Admit(&s.method)
				old = append(old, permit)
			}
			return func() {
				for at := range old {
					old[at].Begin(0, time.Now().Add(500*time.Millisecond))
				}
			}
		}, 50},
		{"a call of this one ends late, and many of before in time", func(s *shedder) func() {
			old := admitMany(s, 200, time.Hour)
			return func() {
				endAll(old, resilience.InTime)
				endAll(admitMany(s, 2, time.Second), resilience.OutOfTime)
			}
		}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newShedder()
				inTime(s, 100, time.Millisecond) // so many per second
				pass(20 * time.Second)           // longer than the window
				after := row.before(s)
				overloaded := admitMany(s, 100, time.Second)
				pass(1050 * time.Millisecond)
				expectLimit(t, s, 50)
				endAll(overloaded, resilience.OutOfTime)
				after()
				pass(900 * time.Millisecond)
				expectLimit(t, s, 50)
				pass(1200 * time.Millisecond)
				expectLimit(t, s, row.want)
			})
		})
	}
}

// TestShedderForgets: what was a while ago does not count.
func TestShedderForgets(t *testing.T) {
	t.Parallel()
	bubble := func(name string, test func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, test)
		})
	}
	bubble("the rate of a minute ago", func(t *testing.T) {
		s := newShedder()
		inTime(s, 1000, time.Millisecond)
		pass(time.Minute)
		inTime(s, 10, time.Millisecond)
		pass(30 * time.Second)
		overload(s, 100)
		expectLimit(t, s, 5) // half of what ten per second are within a second
	})
	bubble("the time that calls had long ago", func(t *testing.T) {
		config := shedderConfig()
		config.FailureRate, config.Window = 0.8, time.Hour
		s := &shedder{Shedder: resilience.NewShedder(config)}
		late := func(calls int, allowed time.Duration) {
			permits := admitMany(s, calls, allowed)
			for range allowed / time.Second {
				inTime(s, 40, time.Second)
			}
			endAll(permits, resilience.OutOfTime)
		}
		late(3000, 20*time.Second)
		for range 30 {
			late(100, time.Second)
		}
		expectLimit(t, s, 0)
		late(3000, time.Second)
		if _, limit := s.Load(); limit < 15 || limit > 25 {
			t.Errorf("limit %d, want half of what forty per second are within the second that the latest had, not within ten", limit)
		}
	})
	bubble("how fast a method was minutes ago", func(t *testing.T) {
		s := newShedder()
		inTime(s, 20, time.Millisecond)
		pass(time.Minute)
		inTime(s, 1, 2*time.Second)
		overload(s, 18)
		if inFlight, limit := s.Load(); inFlight != 0 || limit != 0 {
			t.Fatalf("%d in flight, limit %d, before there were enough", inFlight, limit)
		}
		overload(s, 1)
		if _, limit := s.Load(); limit == 0 {
			t.Error("a minute later, calls with a second are no evidence")
		}
		other := newShedder()
		inTime(other, 20, time.Millisecond)
		for range 4 {
			pass(time.Minute)
			inTime(other, 1, 2*time.Second)
		}
		overload(other, 100)
		expectLimit(t, other, 0)
	})
	bubble("that it had to give up", func(t *testing.T) {
		s := newShedder()
		inTime(s, 1, time.Millisecond)
		var trials []time.Duration // when
		limited := false
		for began := time.Now(); time.Since(began) < 45*time.Minute; pass(100 * time.Millisecond) {
			for at := range 10 { // of which always as many are late, whatever the limit
				outcome := resilience.InTime
				if at >= 6 {
					outcome = resilience.OutOfTime
				}
				endAll(admitMany(s, 1, time.Second), outcome)
			}
			_, limit := s.Load()
			if limit > 0 && !limited {
				trials = append(trials, time.Since(began).Round(time.Second))
			}
			limited = limit > 0
		}
		const longest = 640 * time.Second
		if len(trials) < 9 {
			t.Fatalf("load was shed on trial after %v, want nine times or more", trials)
		}
		for at, pause := 1, 10*time.Second; at < len(trials); at, pause = at+1, min(2*pause, longest) {
			if got := trials[at] - trials[at-1]; got < pause || got > pause+5*time.Second {
				t.Fatalf("load was shed on trial %s after the time before, the %dth, want %s", got, at, pause)
			}
		}
	})
}

// TestShedderWaitsForMessages: the time for which a call waits for its caller is none that it has, or takes.
func TestShedderWaitsForMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		call := func(allowed, took time.Duration, outcome resilience.Outcome) {
			permit, _ := s.Admit(&s.method)
			pass(10 * time.Second)
			permit.Begin(10*time.Second, time.Now().Add(allowed))
			pass(took)
			permit.End(outcome)
		}
		call(time.Second, 100*time.Millisecond, resilience.InTime)
		for range 100 {
			go call(50*time.Millisecond, 100*time.Millisecond, resilience.OutOfTime)
		}
		pass(11 * time.Second)
		expectLimit(t, s, 0)
		for range 100 {
			go call(150*time.Millisecond, time.Second, resilience.OutOfTime)
		}
		pass(11 * time.Second)
		synctest.Wait()
		expectLimit(t, s, 2)
	})
}
