package resilience

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Latencies estimates a quantile of the latest latencies, by a histogram of two generations of them: once the younger is complete, the older is
// forgotten. So what is long past counts no more. The estimate is at most a sixteenth too high. Safe for concurrent use.
type Latencies struct {
	quantile float64
	enough   int // below which nothing is estimated
	complete int // how many make a generation

	estimate atomic.Int64 // nanoseconds; 0 while there are too few

	mu      sync.Mutex
	younger generation
	older   generation
	pending int // added since the latest estimate
}

// generation is a histogram. Its buckets are sixteenths of powers of two of microseconds, which end at 19 hours.
type generation struct {
	size   int
	counts [subBuckets * 33]uint32
}

const (
	subBuckets = 16
	// estimateEvery is how many latencies are added between two estimates.
	estimateEvery = 16
)

// NewLatencies returns an estimator of a quantile, which is above 0 and below 1. It estimates nothing before five latencies above the quantile are to
// be expected, and at least fifty were added; a generation has eight times as many.
func NewLatencies(quantile float64) *Latencies {
	enough := max(50, int(math.Round(5/(1-quantile))))
	return &Latencies{quantile: quantile, enough: enough, complete: 8 * enough}
}

// Add takes a latency in.
func (l *Latencies) Add(latency time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.younger.counts[bucketOf(latency)]++
	l.younger.size++
	l.pending++
	if l.younger.size+l.older.size >= l.enough && (l.pending >= estimateEvery || l.estimate.Load() == 0) {
		l.pending = 0
		l.estimate.Store(int64(l.estimateLocked()))
	}
	if l.younger.size >= l.complete {
		l.older, l.younger = l.younger, generation{}
	}
}

// Quantile returns the estimate; ok is false while too few latencies are known.
func (l *Latencies) Quantile() (latency time.Duration, ok bool) {
	estimate := l.estimate.Load()
	return time.Duration(estimate), estimate > 0
}

func (l *Latencies) estimateLocked() time.Duration {
	rank := int(l.quantile * float64(l.younger.size+l.older.size))
	for bucket := range l.younger.counts {
		rank -= int(l.younger.counts[bucket]) + int(l.older.counts[bucket])
		if rank < 0 {
			return upperEnd(bucket)
		}
	}
	return upperEnd(len(l.younger.counts) - 1)
}

// bucketOf returns the bucket of a latency: the first ones are single microseconds, then each power of two has subBuckets.
func bucketOf(latency time.Duration) int {
	micros := int(max(0, latency.Microseconds()))
	octave := max(0, bits.Len(uint(micros))-bits.Len(subBuckets))
	return min(octave*subBuckets+micros>>octave, len(generation{}.counts)-1)
}

// upperEnd returns the latency that is above all of a bucket.
func upperEnd(bucket int) time.Duration {
	octave := max(0, bucket/subBuckets-1)
	return time.Duration(bucket-octave*subBuckets+1) << octave * time.Microsecond
}
