package balancer_test

import (
	"math"
	"testing"
)

// expectShares fails if the counts are not spread like the weights: each within five standard deviations, and a few for the rare,
// which chance exceeds once in millions of times.
func expectShares(t *testing.T, counts, weights []int) {
	t.Helper()
	calls, total := 0, 0
	for number, count := range counts {
		calls += count
		total += weights[number]
	}
	for number, count := range counts {
		share := float64(weights[number]) / float64(total)
		mean := share * float64(calls)
		if deviation := math.Sqrt(mean * (1 - share)); math.Abs(float64(count)-mean) > 5*deviation+5 {
			t.Errorf("candidate %d of weight %d was picked %d times of %d, want %.0f ± %.0f", number, weights[number], count, calls, mean, 5*deviation)
		}
	}
}
