package outlier

import (
	"sync/atomic"
	"time"
)

// Phase says what may be done with a host.
type Phase int

const (
	// Serving hosts take calls.
	Serving Phase = iota
	// Ejected hosts take none until their ejection has passed.
	Ejected
	// AwaitingProbe hosts take none until a probe has succeeded.
	AwaitingProbe
)

// String returns "serving", "ejected" or "awaiting probe".
func (p Phase) String() string { return [...]string{"serving", "ejected", "awaiting probe"}[p] }

// Cause is the kind of reason for a change of phase, for metrics.
type Cause string

const (
	// CauseNone is that of a host that was never ejected.
	CauseNone Cause = ""
	// CauseConsecutiveFailures ejects: that many calls in a row failed.
	CauseConsecutiveFailures Cause = "consecutive failures"
	// CauseFailedProbes ejects: that many probes in a row failed.
	CauseFailedProbes Cause = "failed probes"
	// CauseSuccessRate ejects: the success rate lay far below that of the others.
	CauseSuccessRate Cause = "success rate"
	// CauseFailurePercentage ejects: too many calls of the interval failed.
	CauseFailurePercentage Cause = "failure percentage"
	// CauseEjectionPassed has a host await its probe.
	CauseEjectionPassed Cause = "ejection passed"
	// CauseProbeSucceeded re-admits.
	CauseProbeSucceeded Cause = "probe succeeded"
)

// State is what is known of a host at one moment.
type State struct {
	Phase Phase
	// Cause and Reason say why the latest change of phase came; empty if there was none. Reason is a text with the numbers that led to it.
	Cause  Cause
	Reason string
	// Since is when the latest change of phase came; zero if there was none.
	Since time.Time
	// Until is when an ejection will have passed, or when the next probe is due; zero for a host that serves.
	Until time.Time
	// Ejections counts the ejections so far.
	Ejections int
}

// Change tells of a change of phase: the state after it.
type Change struct {
	State

	From Phase
}

// Host is the record of one instance. It outlives the sets that hold it: an instance that leaves and returns goes on where it was, if its
// owner kept its Host. Made by [Detector.NewHost]. Safe for concurrent use.
type Host struct {
	detector *Detector
	onChange func(Change)

	// successes and failures count for ever. What an interval brought is a difference, so that nothing is lost when one ends.
	successes, failures atomic.Uint64
	inARow              atomic.Int64 // failures since the latest success
	out                 atomic.Bool  // whether state.Phase is anything but Serving

	// What follows is guarded by detector.mu.
	member       bool // of the current set
	state        State
	multiplier   int    // of the ejection time
	failedProbes int    // in a row
	probing      bool   // whether a probe that it awaits is under way
	seen         counts // when the interval began
}

// counts are results of calls.
type counts struct{ successes, failures uint64 }

func (c counts) total() uint64 { return c.successes + c.failures }

func (h *Host) counts() counts { return counts{h.successes.Load(), h.failures.Load()} }

// Succeeded records a call that the host served, be it with an error of its own.
func (h *Host) Succeeded() {
	h.successes.Add(1)
	if h.inARow.Load() != 0 { // a store by each call would have all cores fight for the line
		h.inARow.Store(0)
	}
	h.detector.stir()
}

// Failed records a call that the host failed to serve, and reports whether it was ejected for it.
func (h *Host) Failed(now time.Time) (ejected bool) {
	h.failures.Add(1)
	h.detector.stir()
	limit := int64(h.detector.config.ConsecutiveFailures)
	// Each climb to the limit is answered by the one failure that reaches it.
	if limit == 0 || h.inARow.Add(1) != limit {
		return false
	}
	h.inARow.Store(0)
	return h.detector.tooManyInARow(h, now)
}

// Ejected reports whether the host is to be given no calls: it is ejected, or awaits its probe.
func (h *Host) Ejected() bool { return h.out.Load() }

// State returns what is known of the host now.
func (h *Host) State() State {
	h.detector.mu.Lock()
	defer h.detector.mu.Unlock()
	return h.state
}

// BeginProbe reports whether the host is to be probed now. If so, the caller does, and reports the result by Probed; until then it is
// not asked for another.
func (h *Host) BeginProbe(now time.Time) bool {
	h.detector.mu.Lock()
	defer h.detector.mu.Unlock()
	due := h.state.Phase == AwaitingProbe && !h.probing && !now.Before(h.state.Until)
	h.probing = h.probing || due
	return due
}

// Probed records the result of a probe, whether it was awaited or not; err is why it failed, nil if it succeeded. A host that awaits it
// is re-admitted by success, and after a failure awaits another. A host that serves is ejected by as many failures in a row as of calls; a
// success takes none of its calls' failures back: a health endpoint that answers must not hide calls that fail. An ejection lasts as long as
// it has to, whatever probes say.
func (h *Host) Probed(now time.Time, err error) { h.detector.probed(h, now, err) }
