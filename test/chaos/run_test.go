//go:build integration && linux

package chaos_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// event is the beginning or the end of a fault.
type event struct {
	at    time.Duration
	fault *fault
	ends  bool
}

// run follows the schedule. Things that take long, such as the agent's start, delay all that is to come: then what the schedule promises of instances that
// are healthy holds on a machine that is busy, too.
func (w *world) run(t *testing.T) {
	t.Helper()
	var events []event
	for at := range w.schedule {
		f := &w.schedule[at]
		events = append(events, event{at: f.from, fault: f}, event{at: f.until, fault: f, ends: true})
	}
	slices.SortStableFunc(events, func(a, b event) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.fault.target, b.fault.target)) // the agent first
	})
	ends := make(map[*fault]func())
	t.Cleanup(func() {
		for _, end := range ends { // those that the test did not come to
			end()
		}
	})
	began := time.Now()
	for _, next := range events {
		began = began.Add(w.awaitTime(began.Add(next.at)))
		if next.ends {
			end := ends[next.fault]
			delete(ends, next.fault)
			end()
			w.diary.write(fmt.Sprintf("fault %d is over", next.fault.number))
			w.healed(next.fault)
		} else {
			ends[next.fault] = w.strike(t, next.fault)
		}
		w.ledger.settle(time.Now().Add(-remembered))
	}
	w.awaitTime(began.Add(w.length))
}

// awaitTime waits until it is time, and returns by how much it is later.
func (w *world) awaitTime(when time.Time) (late time.Duration) {
	timer := time.NewTimer(time.Until(when))
	defer timer.Stop()
	<-timer.C
	const usual = 50 * time.Millisecond
	if late = time.Since(when); late < usual {
		return 0
	}
	return late
}

// strike begins a fault.
func (w *world) strike(t *testing.T, f *fault) (end func()) {
	t.Helper()
	on, name := &struck{agent: w.agent}, "the agent"
	if f.target != agentTarget {
		on.instance = w.instances[f.target]
		name = on.name()
	}
	what := fmt.Sprintf("%s is %s", name, f.kind.name)
	w.diary.write(fmt.Sprintf("fault %d: %s, for %v", f.number, what, (f.until - f.from).Round(time.Millisecond)))
	w.breaks(f, what)
	end, detail := f.kind.begin(t, on, rand.New(rand.NewPCG(f.details, 0)))
	t.Logf("%8v fault %d: %s %s, for %v", w.diary.now(), f.number, what, detail, (f.until - f.from).Round(time.Millisecond))
	return end
}
