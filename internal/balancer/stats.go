package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// Outcome is what an attempt says of its instance when it ends.
type Outcome int

// The outcomes.
const (
	// OutcomeNone says nothing, of latency neither: nothing was sent, or the caller ended what was going well.
	OutcomeNone Outcome = iota
	// OutcomeAnswered means that the instance answered, be it with an error of its own.
	OutcomeAnswered
	// OutcomeFailed means that the instance was not reached, kept silent, or that something answered in its place.
	OutcomeFailed
	// OutcomeUnanswered means that the caller gave up before there was an answer, as on the slower of two hedged attempts. The latency
	// counts if it is longer than expected: the answer would have taken longer still.
	OutcomeUnanswered
)

// Stats is what a client knows of the load of one instance. It outlives pickers, so that an update of the set forgets nothing. Safe for
// concurrent use; no method locks or allocates. It is made by [NewStats].
type Stats struct {
	inFlight  atomic.Int64
	latency   atomic.Uint64 // an estimate
	slowSince atomic.Int64  // when a slow start began, by nanos; 0 if none is under way
	failures  atomic.Int32  // in a row

	fadePerTick, slowStart float64 // slowStart in nanoseconds
	born                   int64   // what ticks are counted from, by nanos

	_ [8]byte // fills the cache line, so that instances do not slow each other down
}

const (
	// maxRise is how much one answer may raise the estimate. Estimates within [slack] of each other count as equal, so a single slow
	// answer, be it a pause of the garbage collector, changes nothing; the second in a row does.
	maxRise = 2
	// minFall is the least say of an answer that is faster than estimated, however short the time since the last. With it, the estimate
	// climbs where more than one answer in six is slow: where the mean latency doubles, too, if slow means ten times as slow.
	minFall = 1.0 / 8
	// exploreAge is the age, as [fade] takes it, from which on an idle instance that seems slower is tried again all the same, by one call at a
	// time: half of [Config.Decay]. So whoever was slow for a moment is found well within seconds, and one that stays slow costs a call
	// now and then. Such an answer says three times as much as all that was known.
	exploreAge  = 1.0 / 2 / fadeOut
	exploreFall = 3.0 / 4
	// doubtful is how many failures in a row raise the estimate, as if the instance answered failureRise times as slowly each time. Else a
	// dead instance, which fails fast and so has little in flight, would draw all calls. One failure alone is chance.
	doubtful    = 2
	failureRise = 4
	minFailure  = 100 * time.Millisecond
	maxFailure  = 30 * time.Second
	// minShare is the part of its weight that a slow start begins with, as Envoy's min_weight_percent.
	minShare = 0.1
)

// NewStats returns the statistics of an instance of which nothing is known yet.
func NewStats(config Config) *Stats {
	config = config.withDefaults()
	return &Stats{
		fadePerTick: nanosPerTick / (fadeOut * float64(config.Decay)), slowStart: float64(config.SlowStart), born: nanos(time.Now()),
	}
}

// Begin counts an attempt in. One End has to follow.
func (s *Stats) Begin() { s.inFlight.Add(1) }

// End counts an attempt out, and returns how many are left in flight. Latency is the time from when the request could be sent, a connection
// being there, to the answer, or to the failure.
func (s *Stats) End(now time.Time, latency time.Duration, outcome Outcome) (left int64) {
	switch outcome {
	case OutcomeAnswered:
		again := false
		if s.failures.Load() != 0 {
			again = s.failures.Swap(0) >= doubtful
		}
		s.update(now, func(known estimate, at uint32) estimate { return s.answered(known, at, float64(latency), again) })
	case OutcomeFailed:
		row := s.failures.Add(1)
		s.update(now, func(known estimate, at uint32) estimate { return failed(known, at, float64(latency), row) })
	case OutcomeUnanswered:
		s.update(now, func(known estimate, at uint32) estimate { return raised(known, at, float64(latency)) })
	case OutcomeNone:
	}
	return s.inFlight.Add(-1)
}

// InFlight returns how many attempts the instance serves for this client now.
func (s *Stats) InFlight() int64 { return s.inFlight.Load() }

// EWMA returns the latency that is expected, a moving average that rises faster than it falls, as of the last answer, or of the last of several
// failures in a row, which raise it; 0 before the second answer. With time it counts less in the comparison of two instances, but stays what it is.
func (s *Stats) EWMA() time.Duration {
	known := estimate(s.latency.Load())
	if !known.warm() {
		return 0
	}
	return time.Duration(known.value())
}

// failing reports whether the latest attempts failed, several in a row, and it is not this one's turn to see whether that has changed.
func (s *Stats) failing(now int64) bool {
	if s.failures.Load() < doubtful {
		return false
	}
	return s.inFlight.Load() > 0 || !s.stale(estimate(s.latency.Load()), s.ticks(now))
}

// StartSlowly begins a slow start, if the config has any, and forgets what was measured. It is for an instance that joins others (not for
// those of a client's first set, which are all alike), and for one that is let in again after an ejection.
func (s *Stats) StartSlowly(now time.Time) {
	s.failures.Store(0)
	s.latency.Store(0)
	if s.slowStart > 0 {
		s.slowSince.Store(nanos(now))
	}
}

// share returns the part of its weight that the instance is to have: 1, or less during a slow start.
func (s *Stats) share(now int64) float64 {
	since := s.slowSince.Load()
	if since == 0 {
		return 1
	}
	part := float64(now-since) / s.slowStart
	if part >= 1 {
		s.slowSince.CompareAndSwap(since, 0)
		return 1
	}
	return max(part, minShare)
}

// answered takes an answer into what is known. The first answer is often slower than all others, as caches are cold and code is loaded: of
// the first two, the faster counts. The first after failures in a row, again, replaces what they raised the estimate to, which was no latency:
// else an instance that is back would have to climb down from there, by an eighth with each of the few answers that it is let give.
func (s *Stats) answered(known estimate, at uint32, latency float64, again bool) estimate {
	latency = max(latency, 1)
	value := known.value()
	switch {
	case again:
		return newEstimate(latency, at)
	case known == 0:
		return newEstimate(-latency, at)
	case !known.warm():
		return newEstimate(min(value, latency), at)
	case latency > value:
		return newEstimate(min(latency, maxRise*value), at)
	default:
		say := max(minFall, 1-s.trust(known, at))
		if s.stale(known, at) {
			say = max(say, exploreFall)
		}
		return newEstimate(value+(latency-value)*say, at)
	}
}

// failed takes the nth failure in a row into what is known. The first counts only if it was slow, as a timeout is.
func failed(known estimate, at uint32, latency float64, nth int32) estimate {
	value := known.value()
	if nth >= doubtful {
		return newEstimate(max(latency, float64(minFailure), value, min(failureRise*value, float64(maxFailure))), at)
	}
	return raised(known, at, latency)
}

// raised takes in that an answer takes at least so long.
func raised(known estimate, at uint32, latency float64) estimate {
	if !known.warm() || latency <= known.value() {
		return known
	}
	return newEstimate(min(latency, maxRise*known.value()), at)
}

func (s *Stats) update(now time.Time, next func(known estimate, at uint32) estimate) {
	at := s.ticks(nanos(now))
	for {
		known := s.latency.Load()
		changed := uint64(next(estimate(known), at))
		if changed == known || s.latency.CompareAndSwap(known, changed) {
			return
		}
	}
}

// trust returns how much an estimate says: 1 when it was just made, less with age.
func (s *Stats) trust(known estimate, at uint32) float64 { return fade(s.age(known, at)) }

// stale reports whether an estimate is so old that it is worth a call to renew it.
func (s *Stats) stale(known estimate, at uint32) bool { return s.age(known, at) >= exploreAge }

// age returns how old an estimate is, in units of fadeOut times [Config.Decay].
func (s *Stats) age(known estimate, at uint32) float64 {
	ticks := int32(at - known.at()) //nolint:gosec // negative where time seems to run backwards, between callers: then it is none
	return float64(max(0, ticks)) * s.fadePerTick
}

// fade is close to exp(-8·age), at a fraction of its price, and 0 from age 1 on.
func fade(age float64) float64 {
	left := max(0, 1-age)
	left *= left
	left *= left
	return left * left
}

// fadeOut is how many times [Config.Decay] old an estimate is when it says nothing any more.
const fadeOut = 8

// estimate is a latency and the time when it was estimated, in one word, so that they change together: the upper half is a float32 of
// nanoseconds, negative until the second answer; the lower half is a time in ticks, which wrap after 52 days. An instance that was idle for so
// long is held for one that was not. 0 is nothing known.
type estimate uint64

func newEstimate(value float64, at uint32) estimate {
	return estimate(math.Float32bits(float32(value)))<<32 | estimate(at)
}

func (e estimate) value() float64 { return math.Abs(float64(math.Float32frombits(uint32(e >> 32)))) }
func (e estimate) at() uint32     { return uint32(e & math.MaxUint32) }
func (e estimate) warm() bool     { return e != 0 && e>>63 == 0 }

const nanosPerTick = 1 << 20

// ticks of one instance begin with it, and not with the process, so that a simulation on a clock of its own sees the same ones each time.
func (s *Stats) ticks(now int64) uint32 { return uint32((now - s.born) / nanosPerTick) } //nolint:gosec // wraps, as said at estimate

// nanos returns a time as a number that is not 0.
func nanos(now time.Time) int64 { return int64(now.Sub(epoch)) | 1 }

// epoch is what times are counted from, as the monotonic clock has no zero of its own.
var epoch = time.Now() //nolint:gochecknoglobals // a constant but for its value
