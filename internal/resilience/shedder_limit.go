package resilience

import "time"

const (
	// leastPace is how often a limit is adapted, where the calls' own time does not make it slower.
	leastPace = time.Second
	// firstGrowth is by what part of itself a limit grows at a time. Growing from half of what failed to all of it takes fourteen times.
	firstGrowth = 0.05
	// lateMemory is of how many late calls the time that they had is remembered, while nothing is shed.
	lateMemory = 1000
	// longestPause is for how many windows a limit is given up at the most: at the default window, for ten minutes.
	longestPause = 64
)

// limit is a bound on the calls in flight, and what is known of how they fare under it.
type limit struct {
	calls      int // 0 if there is none
	least      int // that a cut leaves
	generation int // counts the cuts

	// Of the calls of this generation, since the limit was last adapted.
	inTime, outOfTime, rejected int
	known                       int // of those out of time, how many are of methods of which any was in time

	lastRejected time.Duration // when
	nextLook     time.Duration
	pace         time.Duration
	growth       float64
	failed       int     // calls that were in flight at the last cut: so many are too many
	lateBefore   float64 // the share out of time that led to the last cut; 0 if there was no limit before

	pause    time.Duration // how long the limit was last given up for; 0 if one was of use since
	tolerant time.Duration // until when it is, unless most calls are out of time

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
	l.known += late.known
	l.lateCalls += late.calls
	l.lateAllowed += late.allowed
}

// failing reports whether too many of at least so many calls of this generation ran out of time.
func (l *limit) failing(rate float64, least int) bool {
	ended := l.inTime + l.outOfTime
	return ended >= least && float64(l.outOfTime) > rate*float64(ended)
}

func (l *limit) lateShare() float64 {
	return float64(l.outOfTime) / float64(max(1, l.inTime+l.outOfTime))
}

// mostInTime reports whether most calls are in time, but for methods of which none ever was: these do not tell what a lower load is good for.
func (l *limit) mostInTime() bool { return l.inTime > l.known }

// limitVerdict says what should become of a limit.
type limitVerdict int

const (
	limitStands limitVerdict = iota // raised, perhaps
	limitTooHigh
	limitNeedless
)

// adapt raises the limit when it is time to. Where there is none, it sees to it that a new one is not put off while most calls are out of time.
func (l *limit) adapt(now time.Duration, config ShedderConfig) limitVerdict {
	switch {
	case l.calls == 0:
		if now >= l.nextLook && l.inTime+l.outOfTime >= int(config.MinCalls) {
			if !l.mostInTime() {
				l.tolerant = now
			}
			l.pace = leastPace
			l.lookAgain(now)
		}
		return limitStands
	case now-l.lastRejected >= config.Window:
		return limitNeedless
	case now < l.nextLook:
		return limitStands
	case l.failing(config.FailureRate, 1):
		return limitTooHigh
	}
	if l.inTime+l.outOfTime >= int(config.MinCalls) {
		l.pause = 0
	}
	if l.rejected > 0 && l.inTime > 0 {
		if l.calls > l.failed {
			l.growth = min(2*l.growth, 1)
		}
		l.calls += max(1, int(float64(l.calls)*l.growth))
	}
	l.lookAgain(now)
	return limitStands
}

func (l *limit) lookAgain(now time.Duration) {
	l.inTime, l.outOfTime, l.rejected, l.known = 0, 0, 0, 0
	l.nextLook = now + l.pace
}

// end forgets the limit.
func (l *limit) end() { *l = limit{least: l.least, generation: l.generation + 1, pause: l.pause} }

// vain reports whether the last cut was for nothing: most calls are in time, and the share of the others is hardly less than before it. Then it is
// not for the load that they are out of time, and rejecting the rest helps nobody.
func (l *limit) vain() bool {
	return l.lateBefore > 0 && l.lateShare() > l.lateBefore/2 && l.mostInTime()
}

// giveUp forgets the limit, and for a while there is no other as long as most calls are in time.
func (l *limit) giveUp(now, window time.Duration) {
	pause := min(max(window, 2*l.pause), longestPause*window)
	l.end()
	l.pause, l.tolerant, l.nextLook = pause, now+pause, now+leastPace
}

// cut lowers the limit to half of what is too much: of what is in flight, or admitted, and of what the server can finish in the time that calls
// have, at the best rate it was seen to finish calls at.
func (l *limit) cut(now time.Duration, inFlight, perSecond int) {
	l.failed, l.lateBefore = inFlight, 0
	if l.calls > 0 {
		l.failed, l.lateBefore = min(l.failed, l.calls), l.lateShare()
	}
	allowed := l.lateAllowed / time.Duration(max(1, l.lateCalls))
	possible := int(float64(perSecond) * allowed.Seconds())
	if 2*l.known < l.outOfTime { // most are of methods of which nothing was seen to finish
		possible = l.failed
	}
	l.calls = max(l.least, min(l.failed, possible)/2)
	l.generation++
	l.growth = firstGrowth
	// What follows from a change is seen when calls admitted after it end, or run out of time.
	l.pace = max(leastPace, 2*allowed)
	l.lookAgain(now)
	l.lastRejected = now
	l.lateCalls, l.lateAllowed = 0, 0
}
