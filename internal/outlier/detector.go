package outlier

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Detector watches the hosts of one service. Safe for concurrent use.
type Detector struct {
	config Config
	wake   func()
	rates  bool // whether results are looked at when an interval ends
	random func(n int) int

	awake atomic.Bool // whether intervals follow one another, because there were calls or there may be
	panic atomic.Bool

	mu          sync.Mutex
	hosts       []*Host
	out         int       // how many of hosts do not serve
	intervalEnd time.Time // zero while no interval runs
	pending     []told    // changes not told yet
	telling     bool
}

type told struct {
	host   *Host
	change Change
}

// New returns a detector without hosts, for a configuration that is valid. wake is called whenever Sweep has to be called although it asked
// for a later call or for none: when calls begin, a host was ejected or probed, or the set changed. It may be called from within what records
// a result, so it must not block; no lock is held.
func New(config Config, wake func()) *Detector {
	return &Detector{
		config: config, wake: wake, rates: config.SuccessRate.Enabled || config.FailurePercentage.Enabled, random: rand.IntN,
	}
}

// NewHost returns a host that serves and belongs to no set yet. onChange is told of each change of its phase, in order and one at a time for
// all hosts of the detector, with no lock held, by whoever caused this change or an earlier one. It must not block. It may be nil.
func (d *Detector) NewHost(onChange func(Change)) *Host {
	return &Host{detector: d, onChange: onChange}
}

// SetHosts makes hosts, each of which occurs once, the complete set. Those that left go on recording, but their share does not count, and
// nothing ejects them.
func (d *Detector) SetHosts(hosts []*Host) {
	d.mu.Lock()
	for _, host := range d.hosts {
		host.member = false
	}
	d.hosts, d.out = append([]*Host(nil), hosts...), 0
	for _, host := range d.hosts {
		host.member = true
		if host.out.Load() {
			d.out++
		}
	}
	d.weighLocked()
	d.mu.Unlock()
	d.wake()
}

// Panic reports whether too few hosts serve for ejections to be honoured: calls are then to be given to all.
func (d *Detector) Panic() bool { return d.panic.Load() }

// stir has intervals begin when calls do.
func (d *Detector) stir() {
	if d.rates && !d.awake.Load() && d.awake.CompareAndSwap(false, true) {
		d.wake()
	}
}

func (d *Detector) tooManyInARow(host *Host, now time.Time) (ejected bool) {
	d.mu.Lock()
	ejected = d.ejectLocked(host, now, CauseConsecutiveFailures, func() string {
		return fmt.Sprintf("%d calls in a row failed", d.config.ConsecutiveFailures)
	})
	d.mu.Unlock()
	if ejected {
		d.wake()
		d.tell()
	}
	return ejected
}

func (d *Detector) probed(host *Host, now time.Time, err error) {
	d.mu.Lock()
	host.probing = false
	if err == nil {
		host.failedProbes = 0
	} else {
		host.failedProbes++
	}
	switch limit := d.config.ConsecutiveFailures; {
	case host.state.Phase == AwaitingProbe && err == nil:
		host.inARow.Store(0)
		host.seen = host.counts() // what it did while it was out is not held against it
		d.moveLocked(host, State{Phase: Serving, Cause: CauseProbeSucceeded, Reason: "a probe succeeded", Since: now})
	case host.state.Phase == AwaitingProbe:
		host.state.Reason = "the ejection has passed, but the probe failed: " + err.Error()
		host.state.Until = now.Add(d.jitter(d.config.probePause(host.failedProbes)))
	case host.state.Phase == Serving && limit > 0 && host.failedProbes >= limit:
		d.ejectLocked(host, now, CauseFailedProbes, func() string {
			return fmt.Sprintf("%d probes in a row failed: %v", host.failedProbes, err)
		})
	}
	d.mu.Unlock()
	d.wake()
	d.tell()
}

// jitter spreads a time by a fifth to either side, so that clients do not probe in step.
func (d *Detector) jitter(duration time.Duration) time.Duration {
	return duration*4/5 + duration*time.Duration(d.random(jitterSteps))/jitterSteps*2/5
}

const jitterSteps = 1024

// mayEjectLocked reports whether one more host may be taken out.
func (d *Detector) mayEjectLocked() bool {
	switch {
	case len(d.hosts)-d.out <= 1:
		return false // the last one that serves
	case d.out == 0:
		return true // one may always be
	default:
		return (d.out+1)*100 <= d.config.MaxEjectedPercent*len(d.hosts)
	}
}

// ejectLocked ejects a host that serves, if the share allows it.
func (d *Detector) ejectLocked(host *Host, now time.Time, cause Cause, reason func() string) bool {
	if !host.member || host.state.Phase != Serving || !d.mayEjectLocked() {
		return false
	}
	host.multiplier++
	d.moveLocked(host, State{
		Phase: Ejected, Cause: cause, Reason: reason(), Since: now, Until: now.Add(d.config.ejectionTime(host.multiplier)),
	})
	host.failedProbes = 0
	return true
}

// moveLocked changes a host's phase, and counts its ejections.
func (d *Detector) moveLocked(host *Host, next State) {
	from := host.state.Phase
	next.Ejections = host.state.Ejections
	if next.Phase == Ejected {
		next.Ejections++
	}
	host.state = next
	out := next.Phase != Serving
	if was := host.out.Swap(out); host.member && was != out {
		if out {
			d.out++
		} else {
			d.out--
		}
		d.weighLocked()
	}
	if host.onChange != nil {
		d.pending = append(d.pending, told{host, Change{From: from, State: next}})
	}
}

// weighLocked decides whether too few hosts serve.
func (d *Detector) weighLocked() {
	d.panic.Store((len(d.hosts)-d.out)*100 < d.config.PanicPercent*len(d.hosts))
}

// tell tells of the changes that are pending, unless someone is at it, who will then tell of these too.
func (d *Detector) tell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.telling {
		return
	}
	d.telling = true
	defer func() { d.telling = false }() // also if a listener panics
	for len(d.pending) > 0 {
		next := d.pending[0]
		d.pending = d.pending[1:]
		d.unlocked(func() { next.host.onChange(next.change) })
	}
}

func (d *Detector) unlocked(call func()) {
	d.mu.Unlock()
	defer d.mu.Lock()
	call()
}
