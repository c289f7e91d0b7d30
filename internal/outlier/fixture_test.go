package outlier_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/outlier"
)

// start is when all tests begin.
var start = time.Unix(1_000_000, 0)

var errProbe = errors.New("connection refused")

// defaults is A50's configuration with Envoy's failures in a row, and chance always to the outlier's disadvantage.
func defaults() outlier.Config {
	return outlier.Config{
		Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second,
		MaxEjectedPercent: 10, PanicPercent: 50, ConsecutiveFailures: 5,
		SuccessRate:       outlier.SuccessRate{Enabled: true, StdevFactor: 1900, EnforcementPercent: 100, MinHosts: 5, RequestVolume: 100},
		FailurePercentage: outlier.FailurePercentage{Enabled: true, Threshold: 85, EnforcementPercent: 100, MinHosts: 5, RequestVolume: 50},
	}
}

// fleet is a detector with a set of hosts, and the time.
type fleet struct {
	*outlier.Detector

	t     *testing.T
	hosts []*outlier.Host
	now   time.Time
	next  time.Time // when the latest Sweep asked for the next
	wakes int
}

// newFleet returns a fleet whose middle is chance: no jitter.
func newFleet(t *testing.T, size int, config outlier.Config) *fleet {
	t.Helper()
	f := &fleet{t: t, now: start}
	f.Detector = outlier.New(config, func() { f.wakes++ })
	f.SetRandom(func(n int) int { return n / 2 })
	for range size {
		f.hosts = append(f.hosts, f.NewHost(nil))
	}
	f.SetHosts(f.hosts)
	return f
}

// calls records results of one host, the failures spread so that no row of them is long while there are successes to part them.
func calls(host *outlier.Host, now time.Time, successes, failures int) {
	for successes+failures > 0 {
		if failures > 0 {
			host.Failed(now)
			failures--
		}
		for range min(successes, max(1, successes/(failures+1))) {
			host.Succeeded()
			successes--
		}
	}
}

// pass lets time pass and sweeps.
func (f *fleet) pass(duration time.Duration) {
	f.now = f.now.Add(duration)
	f.next = f.Sweep(f.now)
}

// interval gives each host its calls, successes and failures, within one interval, and ends it.
func (f *fleet) interval(results ...[2]int) {
	f.t.Helper()
	f.pass(0) // begins the interval if none runs: what wake is for
	for at, result := range results {
		calls(f.hosts[at], f.now, result[0], result[1])
	}
	f.pass(0)
	f.pass(10 * time.Second)
}

// out returns the indexes of hosts that are not to be given calls.
func (f *fleet) out() []int {
	var out []int
	for at, host := range f.hosts {
		if host.Ejected() {
			out = append(out, at)
		}
	}
	return out
}

func (f *fleet) expectOut(want ...int) {
	f.t.Helper()
	if got := f.out(); !slices.Equal(got, want) {
		f.t.Errorf("out are %v, want %v", got, want)
	}
}

func (f *fleet) expectPhase(at int, want outlier.Phase) {
	f.t.Helper()
	if got := f.hosts[at].State().Phase; got != want {
		f.t.Errorf("host %d is %v, want %v", at, got, want)
	}
}

// inARow has a host fail as often in a row as ejects it.
func (f *fleet) inARow(at int) {
	for range 5 {
		f.hosts[at].Failed(f.now)
	}
}
