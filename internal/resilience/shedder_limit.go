package resilience

import "time"

const (
	// leastPace is how often a limit is adapted, where the calls' own time does not make it slower.
	leastPace = time.Second
	// firstGrowth is by what part of itself a limit grows at a time. Growing from half of what failed to all of it takes fourteen times.
	firstGrowth = 0.05
	// lateMemory is of how many late calls the time that they had is remembered, while nothing is shed.
	lateMemory = 1000
)

// limit is a bound on the calls in flight, and what is known of how they fare under it.
type limit struct {
	calls      int // 0 if there is none
	least      int // that a cut leaves
	generation int // counts the cuts

	// Of the calls of this generation, since the limit was last adapted.
	inTime, outOfTime, rejected int

	lastRejected time.Duration // when
	nextLook     time.Duration
	pace         time.Duration
	growth       float64
	failed       int // calls that were in flight at the last cut: so many are too many

	lateCalls   int // of any generation, since the last cut
	lateAllowed time.Duration
}

func (l *limit) reached(inFlight int) bool { return l.calls > 0 && inFlight >= l.calls }

func (l *limit) reject(now time.Duration) {
	l.rejected++
	l.lastRejected = now
}

func (l *limit) late(late lateCalls) {
	if l.lateCalls > lateMemory {
		l.lateCalls, l.lateAllowed = l.lateCalls/2, l.lateAllowed/2
	}
	l.outOfTime += late.current
	l.lateCalls += late.calls
	l.lateAllowed += late.allowed
}

// failing reports whether too many of at least so many calls of this generation ran out of time.
func (l *limit) failing(rate float64, least int) bool {
	ended := l.inTime + l.outOfTime
	return ended >= least && float64(l.outOfTime) > rate*float64(ended)
}

// limitVerdict says what should become of a limit.
type limitVerdict int

const (
	limitStands limitVerdict = iota // raised, perhaps
	limitTooHigh
	limitNeedless
)

// adapt raises the limit when it is time to.
func (l *limit) adapt(now time.Duration, config ShedderConfig) limitVerdict {
	switch {
	case l.calls == 0:
		return limitStands
	case now-l.lastRejected >= config.Window:
		return limitNeedless
	case now < l.nextLook:
		return limitStands
	case l.failing(config.FailureRate, 1):
		return limitTooHigh
	}
	if l.rejected > 0 && l.inTime > 0 {
		if l.calls > l.failed {
			l.growth = min(2*l.growth, 1)
		}
		l.calls += max(1, int(float64(l.calls)*l.growth))
	}
	l.inTime, l.outOfTime, l.rejected = 0, 0, 0
	l.nextLook = now + l.pace
	return limitStands
}

// end forgets the limit.
func (l *limit) end() { *l = limit{least: l.least, generation: l.generation + 1} }

// cut lowers the limit to half of what is too much: of what is in flight, or admitted, and of what the server can finish in the time that calls
// have, at the best rate it was seen to finish calls at.
func (l *limit) cut(now time.Duration, inFlight, perSecond int) {
	l.failed = inFlight
	if l.calls > 0 {
		l.failed = min(l.failed, l.calls)
	}
	allowed := l.lateAllowed / time.Duration(max(1, l.lateCalls))
	possible := int(float64(perSecond) * allowed.Seconds())
	l.calls = max(l.least, min(l.failed, possible)/2)
	l.generation++
	l.growth = firstGrowth
	// What follows from a change is seen when calls admitted after it end, or run out of time.
	l.pace = max(leastPace, 2*allowed)
	l.nextLook = now + l.pace
	l.lastRejected = now
	l.inTime, l.outOfTime, l.rejected, l.lateCalls, l.lateAllowed = 0, 0, 0, 0, 0
}
