package main

import (
	"math"
	"math/bits"
	"time"
)

// The buckets of a histogram: values below 2^subBits have one each, and from there on each power of two is divided into 2^subBits of
// equal width, so that a value is known to within 1/128.
const (
	subBits = 7
	octaves = 40 // up to 2^46 ns, some 20 hours
	buckets = (octaves + 1) << subBits
)

// histogram counts durations without allocating, so that measuring does not disturb what is measured. The zero value is empty.
// Not safe for concurrent use.
type histogram struct {
	count  int64
	counts [buckets]uint32
}

func (h *histogram) record(d time.Duration) {
	h.count++
	h.counts[bucketOf(d)]++
}

func (h *histogram) add(other *histogram) {
	h.count += other.count
	for i, n := range &other.counts {
		h.counts[i] += n
	}
}

// quantile returns the smallest duration, rounded up to its bucket's end, that a share q of the recorded ones does not exceed; 0 if none is
// recorded.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(1, int64(math.Ceil(q*float64(h.count))))
	var seen int64
	for i, n := range &h.counts {
		if seen += int64(n); seen >= rank {
			return bucketEnd(i)
		}
	}
	return 0
}

func bucketOf(d time.Duration) int {
	value := uint64(max(d, 0))
	if value < 1<<subBits {
		return int(value)
	}
	octave := bits.Len64(value) - subBits // 1 and up: value has subBits+octave bits
	sub := value >> (octave - 1)          // its first subBits+1 bits, the first of which is 1
	return min(octave<<subBits+int(sub-1<<subBits), buckets-1)
}

// bucketEnd returns the largest duration of a bucket.
func bucketEnd(bucket int) time.Duration {
	octave, sub := bucket>>subBits, bucket&(1<<subBits-1)
	if octave == 0 {
		return time.Duration(sub)
	}
	return time.Duration((sub+1<<subBits+1)<<(octave-1) - 1)
}
