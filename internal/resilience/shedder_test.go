package resilience_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivethrottler"

	"github.com/0x1d/goplt/internal/resilience"
)

func shedderConfig() resilience.ShedderConfig {
	return resilience.ShedderConfig{FailureRate: 0.1, MinCalls: 20, Window: 10 * time.Second, Least: 2}
}

// admitAll is a server without shedding.
func admitAll(time.Time) func(error) { return func(error) {} }

// throttled sheds load by failsafe-go's throttler alone, which is told of its own rejections as in the SRE book: without that it does worse.
func throttled() admission {
	throttler := adaptivethrottler.NewBuilder[any]().WithFailureRateThreshold(0.1, 20, 10*time.Second).Build()
	return func(time.Time) func(error) {
		if !throttler.TryAcquirePermit() {
			throttler.RecordFailure()
			return nil
		}
		return throttler.RecordError
	}
}

// shedder is one whose calls are all of one method.
type shedder struct {
	*resilience.Shedder

	method resilience.Method
}

func newShedder() *shedder { return &shedder{Shedder: resilience.NewShedder(shedderConfig())} }

// admit admits a call that begins at once.
func (s *shedder) admit(deadline time.Time) (*resilience.Permit, bool) {
	permit, ok := s.Admit(&s.method)
	if ok {
		permit.Begin(0, deadline)
	}
	return &permit, ok
}

// shedBy has a shedder decide about calls of one method.
func shedBy(s *resilience.Shedder) admission {
	of := &shedder{Shedder: s}
	return func(deadline time.Time) func(error) {
		permit, ok := of.admit(deadline)
		if !ok {
			return nil
		}
		return func(err error) {
			if err != nil {
				permit.End(resilience.OutOfTime)
			} else {
				permit.End(resilience.InTime)
			}
		}
	}
}

// TestShedderKeepsGoodput: a server that gets more calls than it can serve goes on serving as many as it can, in time, and all of them as soon
// as there are fewer. Without shedding, it serves hardly any.
func TestShedderKeepsGoodput(t *testing.T) {
	t.Parallel()
	const normal = 70
	for _, row := range []struct {
		name          string
		start         func() server
		over          float64 // calls per second, of which the server can serve 100
		allowed, last time.Duration
	}{
		{"a queue", func() server { return queueing(5, lengths(50*time.Millisecond), true) }, 300, 500 * time.Millisecond, 20 * time.Second},
		{"a queue of patient callers", func() server { return queueing(5, lengths(50*time.Millisecond), true) }, 300, 3 * time.Second, 40 * time.Second},
		{"a queue that nobody leaves", func() server { return queueing(5, lengths(50*time.Millisecond), false) }, 300, time.Second, 30 * time.Second},
		{"processors", func() server { return sharing(2, lengths(20*time.Millisecond)) }, 300, 500 * time.Millisecond, 20 * time.Second},
		{"processors under siege", func() server { return sharing(2, lengths(20*time.Millisecond)) }, 600, time.Second, 30 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			run := func(admit func() admission) (before, during, after perSecond) {
				synctest.Test(t, func(*testing.T) {
					var calls traffic
					serve, admit := row.start(), admit()
					before = calls.offer(serve, admit, normal, row.allowed, 5*time.Second)
					during = calls.offer(serve, admit, row.over, row.allowed, row.last)
					after = calls.offer(serve, admit, normal, row.allowed, 20*time.Second)
					pass(time.Hour) // until the last is through
				})
				return before, during, after
			}
			healthy := func(got perSecond) bool { return got.served >= normal-10 && got.late+got.rejected == 0 }

			before, during, after := run(func() admission { return admitAll })
			if !healthy(before) || during.served > 10 {
				t.Fatalf("without shedding: %+v, then %+v per second: the server is not overloaded", before, during)
			}
			t.Logf("without shedding: %+v, then %+v", during, after)
			if testing.Verbose() { // to compare
				_, during, after = run(throttled)
				t.Logf("failsafe-go's throttler alone: %+v, then %+v", during, after)
			}
			before, during, after = run(func() admission { return shedBy(resilience.NewShedder(shedderConfig())) })
			t.Logf("shedder: %+v, then %+v", during, after)
			if !healthy(before) {
				t.Errorf("before the overload: %+v per second", before)
			}
			if during.served < 90 {
				t.Errorf("under overload: %+v per second, want 90 of 100 served", during)
			}
			if !healthy(after) {
				t.Errorf("after the overload: %+v per second", after)
			}
		})
	}
}

// TestShedderOnAColdStart: a server that is overloaded from its first moment on, of which nothing is known, recovers too.
func TestShedderOnAColdStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls traffic
		serve := sharing(2, lengths(20*time.Millisecond))
		got := calls.offer(serve, shedBy(resilience.NewShedder(shedderConfig())), 300, 500*time.Millisecond, 30*time.Second)
		if got.served < 90 {
			t.Errorf("%+v per second, want 90 of 100 served", got)
		}
		pass(time.Hour)
	})
}

// TestShedderHarmless: nothing but calls out of time is evidence: no load that the server carries, however uneven, and no latency.
func TestShedderHarmless(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		offer func(*traffic, admission)
	}{
		{"full load from the start", func(calls *traffic, admit admission) {
			calls.offer(queueing(400, lengths(100*time.Millisecond), true), admit, 3000, time.Second, 2*time.Second)
		}},
		{"bursts after silence", func(calls *traffic, admit admission) {
			serve := queueing(20, lengths(10*time.Millisecond), true)
			for range 20 {
				pass(5 * time.Second)
				calls.offer(serve, admit, 100_000, time.Second, 5*time.Millisecond)
			}
		}},
		{"a dependency that becomes slow", func(calls *traffic, admit admission) {
			calls.offer(queueing(10_000, lengths(10*time.Millisecond), true), admit, 100, time.Second, 20*time.Second)
			calls.offer(queueing(10_000, lengths(500*time.Millisecond), true), admit, 100, time.Second, 20*time.Second)
		}},
		{"few calls out of time", func(calls *traffic, admit admission) {
			for range 20 {
				calls.offer(queueing(100, lengths(10*time.Millisecond), true), admit, 100, time.Second, time.Second)
				ended := admit(time.Now().Add(time.Second))
				pass(time.Second)
				ended(context.DeadlineExceeded)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls traffic
				row.offer(&calls, shedBy(resilience.NewShedder(shedderConfig())))
				pass(time.Minute)
				if served, rejected := calls.served.Load(), calls.rejected.Load(); rejected > 0 || served < 1000 {
					t.Errorf("%d calls served and %d rejected, want none rejected", served, rejected)
				}
			})
		})
	}
}

// overload has a shedder see so many calls run out of time, one second each, and returns after that.
func overload(s *shedder, calls int) {
	var permits []*resilience.Permit
	for range calls {
		if permit, ok := s.admit(time.Now().Add(time.Second)); ok {
			permits = append(permits, permit)
		}
	}
	pass(time.Second)
	for _, permit := range permits {
		permit.End(resilience.OutOfTime)
	}
}

// TestShedderBeginsAndEnds: not before min_calls ran out of time; then as long as calls are rejected, and a window longer.
func TestShedderBeginsAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		overload(s, 19)
		if inFlight, limit := s.Load(); inFlight != 0 || limit != 0 {
			t.Fatalf("after 19 calls out of time: %d in flight, limit %d, want none", inFlight, limit)
		}
		overload(s, 1)
		// Twenty were in flight at the most, one at the last; none was in time. So it is the least.
		if _, limit := s.Load(); limit != 2 {
			t.Fatalf("after 20 calls out of time: limit %d, want the least, 2", limit)
		}
		first, ok := s.Admit(&s.method)
		second, also := s.Admit(&s.method)
		if _, third := s.Admit(&s.method); !ok || !also || third {
			t.Errorf("admitted: %t, %t, %t, want two calls", ok, also, third)
		}
		first.End(resilience.InTime)
		second.End(resilience.InTime)
		if inFlight, _ := s.Load(); inFlight != 0 {
			t.Errorf("%d in flight after all ended", inFlight)
		}
		pass(10*time.Second - 1)
		if _, limit := s.Load(); limit == 0 {
			t.Error("no limit within the window after a rejection")
		}
		pass(1)
		if _, limit := s.Load(); limit != 0 {
			t.Errorf("limit %d, a window after the last rejection", limit)
		}
	})
}

// TestShedderCutsAndGrows: half of what was too much, half of that if it still is; a twentieth more at a time while it is not, and ever more
// beyond what was too much.
func TestShedderCutsAndGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		serve := func() { // as many calls as are admitted, in time, and one is rejected
			var permits []*resilience.Permit
			for permit, ok := s.admit(time.Now().Add(time.Second)); ok; permit, ok = s.admit(time.Now().Add(time.Second)) {
				permits = append(permits, permit)
			}
			for _, permit := range permits {
				permit.End(resilience.InTime)
			}
		}
		expect := func(want int) {
			t.Helper()
			if _, limit := s.Load(); limit != want {
				t.Fatalf("limit %d, want %d", limit, want)
			}
		}
		for range 400 { // a server that has been seen to serve 400 calls in a second
			permit, _ := s.admit(time.Now().Add(time.Second))
			permit.End(resilience.InTime)
		}
		pass(10 * time.Second)
		overloaded := make([]*resilience.Permit, 100)
		for at := range overloaded {
			overloaded[at], _ = s.admit(time.Now().Add(time.Second))
		}
		pass(1050 * time.Millisecond)
		expect(50) // noticed while they are at work
		for _, permit := range overloaded {
			permit.End(resilience.OutOfTime) // and not again
		}
		expect(50)
		overload(s, 1000)
		expect(25)
		for _, want := range []int{26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 42, 44, 46, 48, 50, 52, 57, 68, 95, 171, 342} {
			serve()
			pass(2 * time.Second) // twice the time that a call had
			expect(want)
		}
	})
}

// TestShedderSeesCallsThatDoNotEnd: calls that outlast their time are evidence while they do, once, and however they end.
func TestShedderSeesCallsThatDoNotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		var permits []*resilience.Permit
		for at := range 40 {
			permit, _ := s.admit(time.Now().Add(time.Second))
			if permits = append(permits, permit); at%2 == 0 {
				permit.End(resilience.Unknown)
			}
		}
		pass(time.Second - 1)
		if _, limit := s.Load(); limit != 0 {
			t.Errorf("limit %d before their time is over", limit)
		}
		pass(50 * time.Millisecond)
		if inFlight, limit := s.Load(); inFlight != 20 || limit != 10 { // nothing is known of what the server can do
			t.Errorf("%d in flight, limit %d, want 20 and half of it", inFlight, limit)
		}
		if _, ok := s.admit(time.Now().Add(time.Second)); ok {
			t.Error("a call was admitted while too many are at work")
		}
		for at, permit := range permits {
			if at%2 == 1 {
				permit.End(resilience.InTime)
			}
		}
		if inFlight, _ := s.Load(); inFlight != 0 {
			t.Errorf("%d in flight after all ended", inFlight)
		}
	})
}

// TestShedderIgnores what tells nothing: calls given up by their callers, calls without a deadline, and what was evidence a window ago.
func TestShedderIgnores(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		for range 100 {
			permit, _ := s.admit(time.Now().Add(time.Second))
			permit.End(resilience.Unknown)
			_, _ = s.Admit(&s.method) // without a deadline, and for ever
		}
		overload(s, 19)
		pass(time.Hour)
		overload(s, 19)
		if inFlight, limit := s.Load(); inFlight != 100 || limit != 0 {
			t.Errorf("%d in flight, limit %d, want 100 and none", inFlight, limit)
		}
		(&resilience.Permit{}).End(resilience.InTime) // the zero permit is none
	})
}

// TestShedderFarDeadlines: calls due further ahead than is kept are judged when they end.
func TestShedderFarDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		var permits []*resilience.Permit
		for range 20 {
			permit, _ := s.admit(time.Now().Add(time.Hour))
			permits = append(permits, permit)
		}
		pass(2 * time.Hour)
		if _, limit := s.Load(); limit != 0 {
			t.Errorf("limit %d before a call ended", limit)
		}
		for _, permit := range permits {
			permit.End(resilience.OutOfTime)
		}
		if inFlight, limit := s.Load(); inFlight != 0 || limit != 2 {
			t.Errorf("%d in flight, limit %d, want none and a limit", inFlight, limit)
		}
		// A look after longer than the ring is long still finds every call that was in it.
		other := newShedder()
		for at := range 20 {
			_, _ = other.admit(time.Now().Add(time.Duration(at+1) * 2 * time.Second))
		}
		pass(52 * time.Second)
		if inFlight, limit := other.Load(); inFlight != 20 || limit == 0 {
			t.Errorf("%d in flight, limit %d, want 20 and a limit", inFlight, limit)
		}
	})
}

// TestShedderExtremeDeadlines: a deadline may be as far ahead, or as long past, as a duration says, and farther.
func TestShedderExtremeDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder()
		pass(time.Hour)
		reach := 1024 * 50 * time.Millisecond
		for _, from := range []time.Duration{0, time.Nanosecond, 50 * time.Millisecond, time.Hour, 2562047 * time.Hour, math.MaxInt64} {
			for _, around := range []time.Duration{0, reach} {
				for _, deadline := range []time.Time{time.Now().Add(around).Add(from), time.Now().Add(around).Add(-from), time.Time{}.Add(1), {}} {
					for range 100 { // one that is not counted out by the slot it was counted into would be evidence
						permit, _ := s.admit(deadline)
						permit.End(resilience.InTime)
					}
				}
			}
		}
		pass(time.Hour)
		if inFlight, limit := s.Load(); inFlight != 0 || limit != 0 {
			t.Errorf("%d in flight, limit %d, want none", inFlight, limit)
		}
	})
}

// TestShedderConcurrently: no call is lost count of.
func TestShedderConcurrently(t *testing.T) {
	t.Parallel()
	config := shedderConfig()
	config.MinCalls, config.Window = 1, time.Millisecond
	s := &shedder{Shedder: resilience.NewShedder(config)}
	var running sync.WaitGroup
	for number := range 8 {
		running.Go(func() {
			for round := range 2000 {
				if permit, ok := s.admit(time.Now().Add(time.Duration(round%3) * time.Millisecond)); ok {
					permit.End(resilience.Outcome((number + round) % 3))
				}
			}
		})
	}
	running.Wait()
	if inFlight, _ := s.Load(); inFlight != 0 {
		t.Errorf("%d in flight after all ended", inFlight)
	}
}

// TestShedderAllocations: a call is counted without an allocation, whether or not load is shed.
func TestShedderAllocations(t *testing.T) {
	s := newShedder()
	for _, outcome := range []resilience.Outcome{resilience.InTime, resilience.OutOfTime} {
		if n := testing.AllocsPerRun(1000, func() {
			if permit, ok := s.Admit(&s.method); ok {
				permit.Begin(0, time.Now().Add(time.Second))
				permit.End(outcome)
			}
		}); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
