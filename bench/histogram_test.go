package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantileIsWithinOnePart128(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []time.Duration{100, time.Microsecond, time.Millisecond, time.Minute} {
		var h histogram
		recorded := make([]time.Duration, 10_000)
		for i := range recorded {
			recorded[i] = time.Duration(random.ExpFloat64() * float64(scale))
			h.record(recorded[i])
		}
		slices.Sort(recorded)
		for _, q := range []float64{0.001, 0.5, 0.99, 1} {
			exact := recorded[max(0, int(q*float64(len(recorded))+0.999999)-1)]
			if got := h.quantile(q); got < exact || got > exact+exact/128+1 {
				t.Errorf("scale %v: quantile %v is %v, want %v", scale, q, got, exact)
			}
		}
	}
}

func TestBucketsFollowOneAnother(t *testing.T) {
	for bucket := range buckets - 1 {
		end := bucketEnd(bucket)
		if bucketOf(end) != bucket || bucketOf(end+1) != bucket+1 {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d, and the next value in %d", bucket, end, bucketOf(end), bucketOf(end+1))
		}
	}
	if got := bucketOf(1 << 62); got != buckets-1 {
		t.Errorf("a huge value is in bucket %d, want the last, %d", got, buckets-1)
	}
	if got := bucketOf(-1); got != 0 {
		t.Errorf("a negative value is in bucket %d, want 0", got)
	}
}

func TestHistogramsAddUp(t *testing.T) {
	var a, b histogram
	if got := a.quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v, want 0", got)
	}
	a.record(10)
	b.record(20)
	b.record(30)
	a.add(&b)
	if a.count != 3 || a.quantile(0.5) != 20 || a.quantile(1) != 30 {
		t.Errorf("count %d, median %d, maximum %d, want 3, 20, 30", a.count, a.quantile(0.5), a.quantile(1))
	}
	if allocations := testing.AllocsPerRun(100, func() { a.record(time.Millisecond) }); allocations != 0 {
		t.Errorf("record allocates %v times", allocations)
	}
}
