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
	// OutcomeNone says nothing, of latency neither: the caller gave up, or nothing was sent.
	OutcomeNone Outcome = iota
	// OutcomeAnswered means that the instance answered, be it with an error of its own.
	OutcomeAnswered
	// OutcomeFailed means that the instance was not reached, kept silent, or that something answered in its place.
	OutcomeFailed
)

// Stats is what a client knows of the load of one instance. It outlives pickers, so that an update of the set forgets nothing. Safe for
// concurrent use; no method locks or allocates.
type Stats struct {
	inFlight atomic.Int64
	// latency holds what [estimate] packs.
	latency atomic.Uint64
	// slowSince is when a slow start began, by [nanos]; 0 if none is under way.
	slowSince atomic.Int64
	// failures in a row.
	failures atomic.Int32
	// answers counts up to warmAnswers.
	answers atomic.Int32

	decay, slowStart float64 // nanoseconds
}

const (
	// warmAnswers is how many answers it takes to say something of a latency. The first is often slower than all others, as caches are
	// cold; of two, the faster counts.
	warmAnswers = 2
	// maxRise is how much one answer may raise the estimate. Two estimates within slack of each other count as equal, so a single
	// slow answer changes nothing, and the second in a row does.
	maxRise = 2
	// minFall is the least say of an answer that is faster than estimated, however short the time since the last.
	minFall = 1.0 / 16
	// doubtful is how many failures in a row raise the estimate, as if the instance had answered failureRise times as slowly:
	// else a dead instance, which fails fast and has little in flight, would draw all calls. One failure alone is chance.
	doubtful    = 2
	failureRise = 4
	minFailure  = 100 * time.Millisecond
	maxFailure  = 30 * time.Second
	// minSlowStart is the part of its weight that a slow start begins with; Envoy's min_weight_percent is the same.
	minSlowStart = 0.1
)

// NewStats returns the statistics of an instance of which nothing is known yet.
func NewStats(config Config) *Stats {
	config = config.withDefaults()
	return &Stats{decay: float64(config.Decay), slowStart: float64(config.SlowStart)}
}

// Begin counts an attempt in. It has to be followed by one End.
func (s *Stats) Begin() { s.inFlight.Add(1) }

// End counts an attempt out, and returns how many are left in flight. Latency is the time from when the request could be sent, a connection
// being there, to the answer's first byte, or to the failure.
func (s *Stats) End(now time.Time, latency time.Duration, outcome Outcome) (left int64) {
	switch outcome {
	case OutcomeAnswered:
		if s.failures.Load() != 0 {
			s.failures.Store(0)
		}
		s.observe(now, latency)
	case OutcomeFailed:
		s.fail(now, latency)
	case OutcomeNone:
	}
	return s.inFlight.Add(-1)
}

// InFlight returns how many attempts the instance serves for this client now.
func (s *Stats) InFlight() int64 { return s.inFlight.Load() }

// EWMA returns the latency that is expected, a moving average which rises faster than it falls; 0 if too little is known. It is as of the last
// answer: with time, what it says counts less against the other of two instances.
func (s *Stats) EWMA() time.Duration {
	value, _ := s.estimate(0)
	return time.Duration(value)
}

// StartSlowly begins a slow start, if the config has any, and forgets what was measured. It is for an instance that joins others (not for
// those of a client's first set, which are all alike), and for one that is let in again after an ejection.
func (s *Stats) StartSlowly(now time.Time) {
	s.answers.Store(0)
	s.failures.Store(0)
	s.latency.Store(0)
	if s.slowStart > 0 {
		s.slowSince.Store(nanos(now))
	}
}

// share returns the part of its weight that the member has, 0.1 to 1.
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
	return max(part, minSlowStart)
}

// The estimate of the latency and its time are one word, so that they change together: the upper half is a float32 of nanoseconds, the lower
// half the time in ticks of 2^20 ns. Ticks wrap after 52 days, when an instance that was idle for so long is held for
// one that was not.
const tick = 20

func pack(value float64, ticks uint32) uint64 {
	return uint64(math.Float32bits(float32(value)))<<32 | uint64(ticks)
}

// estimate returns the latency in nanoseconds, and how much that says at a time: 1 when it was measured just now, falling to 0 with
// age. Both are 0 if too little was measured.
func (s *Stats) estimate(now int64) (value, trust float64) {
	packed := s.latency.Load()
	if packed == 0 || s.answers.Load() < warmAnswers {
		return 0, 0
	}
	return float64(math.Float32frombits(uint32(packed >> 32))), fade(age(now, packed), s.decay)
}

// age returns how many nanoseconds ago an estimate was made. Time that seems to run backwards, between callers, is none.
func age(now int64, packed uint64) float64 {
	return float64(max(0, int32(uint32(now>>tick)-uint32(packed)))) * (1 << tick)
}

// fade is close to exp(-age/decay), at a fraction of its price, and is 0 from eight times decay on.
func fade(age, decay float64) float64 {
	part := 1 - age/(8*decay)
	if part <= 0 {
		return 0
	}
	part *= part
	part *= part
	return part * part
}

// observe takes an answer into the estimate.
func (s *Stats) observe(now time.Time, latency time.Duration) {
	at, sample := nanos(now), max(1, float64(latency))
	warm := s.answers.Load()
	if warm < warmAnswers {
		s.answers.Add(1)
	}
	for {
		packed := s.latency.Load()
		value := float64(math.Float32frombits(uint32(packed >> 32)))
		switch {
		case packed == 0:
			value = sample
		case warm < warmAnswers:
			value = min(value, sample)
		case sample > value:
			value = min(sample, maxRise*value)
		default:
			value += (sample - value) * max(minFall, 1-fade(age(at, packed), s.decay))
		}
		if s.latency.CompareAndSwap(packed, pack(value, uint32(at>>tick))) {
			return
		}
	}
}

// fail takes a failure into the estimate: nothing if it is the first in a row and was not slow either.
func (s *Stats) fail(now time.Time, latency time.Duration) {
	at, row := nanos(now), s.failures.Add(1)
	if row >= doubtful {
		s.answers.Store(warmAnswers)
	}
	for {
		packed := s.latency.Load()
		value := float64(math.Float32frombits(uint32(packed >> 32)))
		sample := min(float64(latency), maxRise*value)
		if row >= doubtful {
			sample = max(float64(latency), float64(minFailure), min(failureRise*value, float64(maxFailure)))
		}
		if sample <= value && row < doubtful {
			return
		}
		if s.latency.CompareAndSwap(packed, pack(max(value, sample), uint32(at>>tick))) {
			return
		}
	}
}

// epoch is what [nanos] counts from.
var epoch = time.Now() //nolint:gochecknoglobals // a constant but for its value

// nanos returns a time on the monotonic clock as a number that is not 0.
func nanos(now time.Time) int64 { return int64(now.Sub(epoch)) | 1 }
