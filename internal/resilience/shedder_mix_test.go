package resilience_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/resilience"
)

// kind is calls of one kind that come to a server at a rate, each with so much time.
type kind struct {
	serve   server
	admit   admission
	rate    float64
	allowed time.Duration
}

// mix offers calls of several kinds for a time, and returns what became of those of each kind in the second half of it.
func mix(last time.Duration, kinds ...kind) []perSecond {
	got := make([]perSecond, len(kinds))
	var all sync.WaitGroup
	for at, kind := range kinds {
		all.Go(func() {
			var calls traffic
			got[at] = calls.offer(kind.serve, kind.admit, kind.rate, kind.allowed, last)
		})
	}
	all.Wait()
	return got
}

// free is a server that is never overloaded.
func free(length func() time.Duration) server { return queueing(1<<20, length, true) }

// either draws one of two lengths, as of calls that are answered from a cache and of the others.
func either(short, long time.Duration) func() time.Duration {
	draw := lengths(2)
	return func() time.Duration {
		if draw() < 2 {
			return short
		}
		return long
	}
}

// mixTest runs a test of a shedder in virtual time, until the last of its calls is through.
func mixTest(t *testing.T, name string, test func(*testing.T, *resilience.Shedder)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			test(t, resilience.NewShedder(shedderConfig()))
			pass(time.Hour)
		})
	})
}

// TestShedderCallsWithoutHope: calls with less time than their method takes are no evidence, however many, nor are methods that differ.
func TestShedderCallsWithoutHope(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{150, 250, 2500} {
		mixTest(t, fmt.Sprintf("%v impatient calls per second", rate), func(t *testing.T, s *resilience.Shedder) {
			serve, admit := free(lengths(20*time.Millisecond)), shedBy(s)
			got := mix(15*time.Second, kind{serve, admit, 1000, time.Second}, kind{serve, admit, rate, 5 * time.Millisecond})
			if got[0].served < 950 || got[0].rejected+got[1].rejected > 0 {
				t.Errorf("patient %+v, impatient %+v, want none rejected", got[0], got[1])
			}
		})
	}
	mixTest(t, "fast and slow", func(t *testing.T, s *resilience.Shedder) {
		got := mix(2*time.Minute, kind{free(lengths(time.Millisecond)), shedBy(s), 200, 50 * time.Millisecond},
			kind{free(lengths(2 * time.Second)), shedBy(s), 10, 10 * time.Second})
		if got[0].served < 180 || got[1].served < 9 || got[0].rejected+got[1].rejected > 0 {
			t.Errorf("fast %+v, slow %+v, want none rejected", got[0], got[1])
		}
	})
	// The calls of the attack are of the slow method, and the fast one does not make them look as if they had time enough.
	mixTest(t, "fast and slow, of which many impatient", func(t *testing.T, s *resilience.Shedder) {
		slow, admit := free(lengths(2*time.Second)), shedBy(s)
		mix(5*time.Second, kind{slow, admit, 10, 10 * time.Second})
		got := mix(2*time.Minute, kind{free(lengths(time.Millisecond)), shedBy(s), 100, 50 * time.Millisecond},
			kind{slow, admit, 10, 10 * time.Second}, kind{slow, admit, 100, 500 * time.Millisecond})
		if got[0].served < 90 || got[1].served < 9 || got[0].rejected+got[1].rejected > 0 {
			t.Errorf("fast %+v, slow %+v, want none rejected", got[0], got[1])
		}
	})
}

// TestShedderGivesUp: where a call's lack of time cannot be told beforehand, load is shed on trial, but not for long: less than a tenth of the
// others are lost in the minutes after the first.
func TestShedderGivesUp(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		patient   float64 // calls per second
		length    func() time.Duration
		impatient float64
		allowed   time.Duration
		ofAnother time.Duration // if the impatient ones are of a method of their own, which takes so long
	}{
		{"little time for most", 200, lengths(20 * time.Millisecond), 50, 12 * time.Millisecond, 0},
		{"time for what is cached", 200, either(time.Millisecond, 50*time.Millisecond), 200, 12 * time.Millisecond, 0},
		{"time for what is cached, of few", 50, either(time.Millisecond, 50*time.Millisecond), 50, 12 * time.Millisecond, 0},
		{"a method that is never in time", 200, lengths(20 * time.Millisecond), 50, 5 * time.Millisecond, 2 * time.Second},
		{"a method that is never in time, and most calls", 20, lengths(20 * time.Millisecond), 40, 500 * time.Millisecond, 2 * time.Second},
	} {
		mixTest(t, row.name, func(t *testing.T, s *resilience.Shedder) {
			patient := kind{free(row.length), shedBy(s), row.patient, time.Second}
			impatient := kind{patient.serve, patient.admit, row.impatient, row.allowed}
			if row.ofAnother > 0 {
				impatient.serve, impatient.admit = free(lengths(row.ofAnother)), shedBy(s)
			}
			got := mix(4*time.Minute, patient, impatient)
			t.Logf("patient %+v, impatient %+v", got[0], got[1])
			if total := got[0].served + got[0].rejected; got[0].served < total*9/10 || float64(total) < row.patient*0.9 {
				t.Errorf("patient %+v, impatient %+v, want nine tenths of the patient ones served", got[0], got[1])
			}
		})
	}
}

// TestShedderHavingGivenUp still sheds load that the server cannot carry.
func TestShedderHavingGivenUp(t *testing.T) {
	t.Parallel()
	mixTest(t, "", func(t *testing.T, s *resilience.Shedder) {
		serve, admit := queueing(5, lengths(50*time.Millisecond), false), shedBy(s)
		impatient := kind{serve, admit, 20, 40 * time.Millisecond}
		got := mix(time.Minute, kind{serve, admit, 50, 500 * time.Millisecond}, impatient)
		if got[0].served < 40 || got[1].late < 10 {
			t.Errorf("before: %+v and %+v, want them served, and some out of time", got[0], got[1])
		}
		got = mix(time.Minute, kind{serve, admit, 280, 500 * time.Millisecond}, impatient)
		t.Logf("%+v and %+v", got[0], got[1])
		if got[0].served < 50 {
			t.Errorf("under overload: %+v and %+v, want 50 of 100 served", got[0], got[1])
		}
	})
}

// TestShedderAllLate: after minutes in which no call at all was in time, a server that works again is kept from what it could not carry.
func TestShedderAllLate(t *testing.T) {
	t.Parallel()
	mixTest(t, "", func(t *testing.T, s *resilience.Shedder) {
		var calls traffic
		normal, repaired := lengths(50*time.Millisecond), time.Now().Add(4*time.Minute)
		serve := queueing(5, func() time.Duration { return normal() }, false)
		admit := shedBy(s)
		calls.offer(serve, admit, 70, 500*time.Millisecond, time.Minute)
		stuck := queueing(5, func() time.Duration { return max(time.Second, time.Until(repaired)) }, false)
		if got := calls.offer(stuck, admit, 70, 500*time.Millisecond, 3*time.Minute); got.served > 0 {
			t.Errorf("while nothing works: %+v", got)
		}
		if got := calls.offer(serve, admit, 300, 500*time.Millisecond, time.Minute); got.served < 90 {
			t.Errorf("under overload: %+v, want 90 of 100 served", got)
		}
	})
}

// TestShedderBottleneckOfOneMethod: those of its calls that get through get through in time.
func TestShedderBottleneckOfOneMethod(t *testing.T) {
	t.Parallel()
	for _, attentive := range []bool{true, false} {
		mixTest(t, fmt.Sprint("attentive ", attentive), func(t *testing.T, s *resilience.Shedder) {
			slow := kind{queueing(20, lengths(2*time.Second), attentive), shedBy(s), 30, 10 * time.Second}
			got := mix(4*time.Minute, kind{free(lengths(time.Millisecond)), shedBy(s), 10, 50 * time.Millisecond}, slow)
			t.Logf("fast %+v, slow %+v", got[0], got[1])
			if got[1].served < 6 {
				t.Errorf("fast %+v, slow %+v, want most of 10 slow ones served", got[0], got[1])
			}
		})
	}
}
