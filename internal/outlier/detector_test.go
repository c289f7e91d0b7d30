package outlier_test

import (
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/outlier"
)

// TestConsecutiveFailures ejects at the limit, at once, and a success in between begins anew.
func TestConsecutiveFailures(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		limit   int
		results string // + succeeded, - failed, x failed and ejected
	}{
		{"five in a row", 5, "----x"},
		{"a success between", 5, "----+----x"},
		{"two", 2, "-+-+-x"},
		{"one", 1, "+x"},
		{"off", 0, "--------------------"},
		{"none more while it is out", 5, "----x----------"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := defaults()
			config.ConsecutiveFailures = row.limit
			f := newFleet(t, 3, config)
			for at, result := range row.results {
				if result == '+' {
					f.hosts[1].Succeeded()
				} else if got := f.hosts[1].Failed(f.now); got != (result == 'x') {
					t.Fatalf("result %d of %q: ejected %t", at+1, row.results, got)
				}
			}
			if got := f.hosts[1].Ejected(); got != strings.Contains(row.results, "x") {
				t.Errorf("ejected %t", got)
			}
		})
	}
}

// TestConsecutiveFailuresWithoutRoom: a host that may not be ejected is asked about again after as many failures more.
func TestConsecutiveFailuresWithoutRoom(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 10, defaults())
	f.inARow(0)
	f.inARow(1)
	f.expectOut(0)
	f.pass(30 * time.Second)
	f.hosts[0].BeginProbe(f.now)
	f.hosts[0].Probed(f.now, nil)
	f.expectOut()
	for range 4 {
		f.hosts[1].Failed(f.now)
	}
	f.expectOut()
	f.hosts[1].Failed(f.now)
	f.expectOut(1)
}

// TestEjectionTimes grow with each ejection, are capped, and shrink with each interval served.
func TestEjectionTimes(t *testing.T) {
	t.Parallel()
	config := defaults()
	config.BaseEjection, config.MaxEjection = 30*time.Second, 100*time.Second
	f := newFleet(t, 3, config)
	back := func() {
		t.Helper()
		f.now = f.hosts[0].State().Until
		f.Sweep(f.now)
		if !f.hosts[0].BeginProbe(f.now) {
			t.Fatal("no probe is due")
		}
		f.hosts[0].Probed(f.now, nil)
		f.expectOut()
	}
	for _, want := range []int{30, 60, 90, 100, 100} {
		f.inARow(0)
		if got := f.hosts[0].State().Until.Sub(f.now); got != time.Duration(want)*time.Second {
			t.Errorf("ejected for %v, want %d s", got, want)
		}
		back()
	}
	if got := f.hosts[0].Multiplier(); got != 5 {
		t.Fatalf("multiplier %d after five ejections", got)
	}
	f.pass(0)
	for range 3 {
		f.pass(10 * time.Second)
	}
	f.inARow(0)
	if got := f.hosts[0].State(); got.Until.Sub(f.now) != 90*time.Second || got.Ejections != 6 {
		t.Errorf("after three intervals: ejection %d, for %v, want the sixth, for 90s", got.Ejections, got.Until.Sub(f.now))
	}
	config.BaseEjection, config.MaxEjection = 30*time.Second, time.Second
	f = newFleet(t, 3, config)
	f.inARow(0)
	if got := f.hosts[0].State().Until.Sub(f.now); got != 30*time.Second {
		t.Errorf("ejected for %v, want the base of 30s", got)
	}
}

// TestMultiplierStaysWhileOut: only intervals served take a step back.
func TestMultiplierStaysWhileOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, defaults())
	f.inARow(0)
	for range 20 {
		f.hosts[1].Succeeded()
		f.pass(10 * time.Second)
	}
	f.expectPhase(0, outlier.AwaitingProbe)
	if got := f.hosts[0].Multiplier(); got != 1 {
		t.Errorf("multiplier %d", got)
	}
}

// TestReadmission: an ejection lasts its time whatever probes say, then one probe at a time decides.
func TestReadmission(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, defaults())
	host := f.hosts[0]
	f.inARow(0)
	host.Probed(f.now, nil) // an active probe, begun before
	f.pass(30*time.Second - 1)
	f.expectPhase(0, outlier.Ejected)
	if host.BeginProbe(f.now) {
		t.Error("probed before its time")
	}
	f.pass(1)
	f.expectPhase(0, outlier.AwaitingProbe)
	f.expectOut(0)
	if !host.BeginProbe(f.now) || host.BeginProbe(f.now) {
		t.Error("not exactly one probe is due")
	}
	// Probes that fail come ever less often, up to the base ejection, for as long as it takes. There is no jitter: see newFleet.
	for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second} {
		host.Probed(f.now, errProbe)
		if got := host.State().Until.Sub(f.now); got != pause {
			t.Errorf("next after %v, want %v", got, pause)
		}
		if host.BeginProbe(f.now) {
			t.Error("probed again at once")
		}
		f.pass(pause - 1)
		if host.BeginProbe(f.now) {
			t.Error("probed again too soon")
		}
		f.pass(1)
		if !host.BeginProbe(f.now) {
			t.Fatal("not probed again")
		}
	}
	if got, want := host.State().Reason, "the ejection has passed, but the probe failed: connection refused"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	host.Probed(f.now, nil)
	f.expectOut()
	want := outlier.State{Phase: outlier.Serving, Cause: outlier.CauseProbeSucceeded, Reason: "a probe succeeded", Since: f.now, Ejections: 1}
	if got := host.State(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestReadmittedBeginsAnew: what a host did before it was re-admitted is not held against it.
func TestReadmittedBeginsAnew(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 5, defaults())
	f.inARow(0)
	f.pass(30 * time.Second)
	f.pass(0)
	for range 204 { // in a panic it would be given calls
		f.hosts[0].Failed(f.now)
	}
	f.hosts[0].BeginProbe(f.now)
	f.hosts[0].Probed(f.now, nil)
	for range 4 {
		f.hosts[0].Failed(f.now)
	}
	f.expectOut()
	f.pass(10 * time.Second)
	f.expectOut()
}

// TestProbeJitter: within a fifth to either side.
func TestProbeJitter(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		random func(int) int
		want   time.Duration
	}{
		{func(int) int { return 0 }, 4 * time.Second},
		{func(n int) int { return n - 1 }, 6*time.Second - 2*time.Second/1024},
	} {
		f := newFleet(t, 3, defaults())
		f.SetRandom(row.random)
		f.inARow(0)
		f.pass(30 * time.Second)
		f.hosts[0].BeginProbe(f.now)
		f.hosts[0].Probed(f.now, errProbe)
		if got := f.hosts[0].State().Until.Sub(f.now); (got - row.want).Abs() > time.Microsecond {
			t.Errorf("next probe after %v, want %v", got, row.want)
		}
	}
}

// TestActiveProbes: as many failures in a row as of calls eject; successes of one kind take no failures of the other back.
func TestActiveProbes(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, defaults())
	for range 4 {
		f.hosts[0].Probed(f.now, errProbe)
		f.hosts[0].Succeeded()
		f.hosts[1].Failed(f.now)
		f.hosts[1].Probed(f.now, nil)
		f.hosts[2].Probed(f.now, errProbe)
	}
	f.expectOut()
	f.hosts[2].Probed(f.now, nil)
	f.hosts[2].Probed(f.now, errProbe)
	f.expectOut()
	f.wakes = 0
	f.hosts[0].Probed(f.now, errProbe)
	f.expectOut(0)
	if f.wakes == 0 {
		t.Error("nobody was told to sweep")
	}
	if got := f.hosts[0].State(); got.Cause != outlier.CauseFailedProbes || got.Reason != "5 probes in a row failed: connection refused" {
		t.Errorf("ejected for %s", got.Reason)
	}
	f.pass(30 * time.Second)
	f.hosts[0].BeginProbe(f.now)
	f.hosts[0].Probed(f.now, errProbe) // the first of those that it awaits, not the sixth
	if got := f.hosts[0].State().Until.Sub(f.now); got != 5*time.Second {
		t.Errorf("next probe after %v, want 5s", got)
	}
	f = newFleet(t, 3, defaults())
	for range 4 {
		f.hosts[1].Failed(f.now)
		f.hosts[1].Probed(f.now, nil)
	}
	f.hosts[1].Failed(f.now)
	f.expectOut(1)
}

// TestPanic: when most hosts left and one that is out remains, it is given calls again. That alone does not re-admit it.
func TestPanic(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ percent, size, out, want int }{
		{50, 4, 2, 0}, {50, 3, 2, 1}, {50, 1, 1, 1}, {50, 2, 1, 0}, {51, 2, 1, 1}, {0, 1, 1, 0}, {1, 1, 1, 1}, {100, 4, 1, 1}, {100, 4, 0, 0}, {50, 0, 0, 0},
	} {
		config := defaults()
		config.PanicPercent, config.MaxEjectedPercent = row.percent, 100
		f := newFleet(t, 10, config)
		for at := range row.out {
			f.inARow(at)
		}
		if f.Panic() && row.percent <= 50 {
			t.Error("panic with most serving")
		}
		f.SetHosts(f.hosts[:row.size])
		if got := f.Panic(); got != (row.want == 1) {
			t.Errorf("%d of %d out, threshold %d %%: panic %t", row.out, row.size, row.percent, got)
		}
	}
}

// TestPanicEnds with the share: by a host that is re-admitted, and by the set.
func TestPanicEnds(t *testing.T) {
	t.Parallel()
	config := defaults()
	config.MaxEjectedPercent = 100
	f := newFleet(t, 3, config)
	f.inARow(0)
	f.inARow(1)
	if !f.Panic() {
		t.Fatal("no panic with one of three serving")
	}
	f.hosts[0].Failed(f.now) // goes on recording
	f.pass(30 * time.Second)
	if !f.Panic() {
		t.Error("a host that awaits its probe serves")
	}
	f.hosts[0].BeginProbe(f.now)
	f.hosts[0].Probed(f.now, nil)
	if f.Panic() {
		t.Error("panic with two of three serving")
	}
}

// TestHostsThatLeave: their share counts no longer, they are not ejected, and they return as they were.
func TestHostsThatLeave(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, defaults())
	all := f.hosts
	f.inARow(0)
	f.SetHosts(all[1:])
	f.inARow(1) // there is room again
	f.expectOut(0, 1)
	f.SetHosts(all[2:])
	f.inARow(0)
	if got := all[0].State().Ejections; got != 1 {
		t.Errorf("ejected %d times, the last while it was not of the set", got)
	}
	leaver := f.NewHost(nil)
	for range 10 {
		if leaver.Failed(f.now) || leaver.Ejected() {
			t.Fatal("a host of no set was ejected")
		}
	}
	f.pass(time.Hour)
	f.expectPhase(0, outlier.Ejected) // nobody looks at it
	f.SetHosts(all)
	f.expectOut(0, 1)
	f.inARow(2)
	f.expectOut(0, 1) // both count again
	if f.wakes == 0 {
		t.Error("nobody was told to sweep")
	}
	f.pass(0)
	f.expectPhase(0, outlier.AwaitingProbe)
}

// TestRest: without calls, and with nobody out, nothing is due; the first call ends the rest.
func TestRest(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 5, defaults())
	f.pass(0)
	if !f.next.IsZero() {
		t.Errorf("due at %v before the first call", f.next)
	}
	f.wakes = 0
	for range 3 {
		f.hosts[0].Succeeded()
	}
	if f.wakes != 1 {
		t.Errorf("%d wakes for the first calls, want 1", f.wakes)
	}
	f.pass(0)
	if want := f.now.Add(10 * time.Second); f.next != want {
		t.Errorf("due at %v, want %v", f.next, want)
	}
	f.pass(time.Second) // too early, and harmless
	if want := f.now.Add(9 * time.Second); f.next != want {
		t.Errorf("due at %v, want %v", f.next, want)
	}
	f.pass(9 * time.Second)
	if want := f.now.Add(10 * time.Second); f.next != want {
		t.Errorf("there were calls: due at %v, want %v", f.next, want)
	}
	f.pass(10 * time.Second)
	if !f.next.IsZero() {
		t.Errorf("due at %v though there were no calls", f.next)
	}
	f.hosts[4].Failed(f.now)
	if f.wakes != 2 {
		t.Errorf("%d wakes, want one more", f.wakes)
	}
	f.pass(0)
	if f.next.IsZero() {
		t.Error("nothing due after a call")
	}
}

// TestRestWithOneOut: only the end of its ejection and its probes are due.
func TestRestWithOneOut(t *testing.T) {
	t.Parallel()
	config := defaults()
	config.SuccessRate.Enabled, config.FailurePercentage.Enabled = false, false
	f := newFleet(t, 3, config)
	f.hosts[1].Succeeded()
	f.pass(0)
	if !f.next.IsZero() {
		t.Errorf("due at %v though no rates are looked at", f.next)
	}
	f.wakes = 0
	f.inARow(0)
	if f.wakes != 1 {
		t.Errorf("%d wakes for an ejection, want 1", f.wakes)
	}
	f.pass(0)
	if want := start.Add(30 * time.Second); f.next != want {
		t.Errorf("due at %v, want %v", f.next, want)
	}
	f.pass(30 * time.Second)
	if !f.next.IsZero() || !f.hosts[0].BeginProbe(f.now) {
		t.Errorf("next %v: what is due now is not due later", f.next)
	}
	f.hosts[0].Probed(f.now, nil)
	f.pass(0)
	if want := f.now.Add(10 * time.Second); f.next != want {
		t.Errorf("due at %v, want %v: the multiplier steps back", f.next, want)
	}
	f.pass(10 * time.Second)
	if !f.next.IsZero() || f.hosts[0].Multiplier() != 0 {
		t.Errorf("next %v, multiplier %d", f.next, f.hosts[0].Multiplier())
	}
}
