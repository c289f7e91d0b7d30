package outlier

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Sweep does what is due: it ends the interval, if its time has come, and has hosts whose ejection has passed await a probe. It returns when
// to call it next; zero means not before wake is called. To call it earlier does no harm. After it, [Host.BeginProbe] says which hosts
// to probe.
//
// Without calls, and with the multipliers of all hosts that serve back at their start, no interval runs.
func (d *Detector) Sweep(now time.Time) (next time.Time) {
	d.mu.Lock()
	if !d.intervalEnd.IsZero() && !now.Before(d.intervalEnd) {
		busy := d.endIntervalLocked(now)
		d.intervalEnd = time.Time{}
		if !busy {
			d.restLocked()
		}
	}
	// A50, step 5: what was ejected at this very moment stays.
	for _, host := range d.hosts {
		if host.state.Phase == Ejected && !now.Before(host.state.Until) {
			d.moveLocked(host, State{Phase: AwaitingProbe, Cause: CauseEjectionPassed, Reason: "the ejection has passed", Since: now, Until: now})
		}
	}
	if d.intervalEnd.IsZero() && (d.awake.Load() || slices.ContainsFunc(d.hosts, (*Host).stepsBackLocked)) {
		d.intervalEnd = now.Add(d.config.Interval)
	}
	next = d.nextLocked(now)
	d.mu.Unlock()
	d.tell()
	return next
}

// nextLocked returns when something will be due, beyond what is due now.
func (d *Detector) nextLocked(now time.Time) time.Time {
	next := d.intervalEnd
	for _, host := range d.hosts {
		if until := host.state.Until; until.After(now) && (next.IsZero() || until.Before(next)) {
			next = until
		}
	}
	return next
}

// stepsBackLocked reports whether the end of an interval lowers the host's multiplier.
func (h *Host) stepsBackLocked() bool { return h.state.Phase == Serving && h.multiplier > 0 }

// sample is what a host that serves did in the interval.
type sample struct {
	counts

	host *Host
}

func (s sample) successRate() float64       { return float64(s.successes) / float64(s.total()) }
func (s sample) failurePercentage() float64 { return float64(s.failures) / float64(s.total()) * 100 }

// endIntervalLocked is A50's timer, with its steps in order. It reports whether there were calls.
//
// Hosts that are out already are in no mean and are not ejected again, as in Envoy: they have results only because calls were given to all in
// a panic, or began before.
func (d *Detector) endIntervalLocked(now time.Time) (busy bool) {
	samples := make([]sample, 0, len(d.hosts))
	for _, host := range d.hosts {
		counted := host.counts()
		s := sample{host: host, counts: counts{counted.successes - host.seen.successes, counted.failures - host.seen.failures}}
		host.seen = counted
		busy = busy || s.total() > 0
		if host.state.Phase == Serving {
			samples = append(samples, s)
		}
	}
	if d.config.SuccessRate.Enabled {
		d.bySuccessRateLocked(samples, now)
	}
	if d.config.FailurePercentage.Enabled {
		d.byFailurePercentageLocked(samples, now)
	}
	for _, host := range d.hosts {
		if host.stepsBackLocked() {
			host.multiplier--
		}
	}
	return busy
}

// restLocked has no further interval begin until there are calls.
func (d *Detector) restLocked() {
	d.awake.Store(false)
	// A call either finds the detector at rest, and wakes it, or is found here.
	if slices.ContainsFunc(d.hosts, func(host *Host) bool { return host.counts() != host.seen }) {
		d.awake.Store(d.rates)
	}
}

// bySuccessRateLocked ejects the hosts whose success rate lies too many standard deviations below the mean.
func (d *Detector) bySuccessRateLocked(samples []sample, now time.Time) {
	config := d.config.SuccessRate
	eligible := withVolume(samples, config.RequestVolume)
	if len(eligible) < max(config.MinHosts, 1) {
		return
	}
	mean, deviation := spread(eligible)
	if deviation < alike {
		return
	}
	threshold := mean - deviation*float64(config.StdevFactor)/1000
	d.ejectWorstLocked(eligible, now, config.EnforcementPercent, CauseSuccessRate,
		func(s sample) bool { return s.successRate() < threshold },
		func(s sample) string {
			return fmt.Sprintf("%.1f%% of %d calls succeeded, below %.1f%% (mean %.1f%%, standard deviation %.1f%%)",
				s.successRate()*100, s.total(), threshold*100, mean*100, deviation*100)
		})
}

// alike is a standard deviation that comes from rounding alone.
const alike = 1e-9

// spread returns the mean and the standard deviation of the success rates.
func spread(samples []sample) (mean, deviation float64) {
	for _, s := range samples {
		mean += s.successRate() / float64(len(samples))
	}
	for _, s := range samples {
		deviation += (s.successRate() - mean) * (s.successRate() - mean) / float64(len(samples))
	}
	return mean, math.Sqrt(deviation)
}

// byFailurePercentageLocked ejects the hosts of whose calls too many failed.
func (d *Detector) byFailurePercentageLocked(samples []sample, now time.Time) {
	config := d.config.FailurePercentage
	if len(d.hosts) < config.MinHosts {
		return
	}
	d.ejectWorstLocked(withVolume(samples, config.RequestVolume), now, config.EnforcementPercent, CauseFailurePercentage,
		func(s sample) bool { return s.failurePercentage() > float64(config.Threshold) },
		func(s sample) string {
			return fmt.Sprintf("%.1f%% of %d calls failed, above %d%%", s.failurePercentage(), s.total(), config.Threshold)
		})
}

func withVolume(samples []sample, volume int) []sample {
	return slices.DeleteFunc(slices.Clone(samples), func(s sample) bool { return s.total() < uint64(volume) }) //nolint:gosec // 1 or more
}

// ejectWorstLocked ejects the outliers, the worst first, as far as chance and the share allow. A50 leaves the order open; where not all may go,
// it should be the worst.
func (d *Detector) ejectWorstLocked(
	samples []sample, now time.Time, percent int, cause Cause, outlier func(sample) bool, reason func(sample) string,
) {
	slices.SortStableFunc(samples, func(a, b sample) int { return cmp.Compare(a.successRate(), b.successRate()) })
	for _, s := range samples {
		if !d.mayEjectLocked() {
			return
		}
		if outlier(s) && d.random(100) < percent {
			d.ejectLocked(s.host, now, cause, func() string { return reason(s) })
		}
	}
}
