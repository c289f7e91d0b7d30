package balancer

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync/atomic"
)

// rotation takes turns by weight, without a lock: one counter, however many members. A cycle has as many turns as the weights add up to, after
// their common divisor is taken out, and each member has a range of turns as long as its weight. Turns are not taken in order but in
// strides that have no divisor in common with the cycle, so that all of them are taken once, and are close to the golden section of it, so
// that those of each range lie evenly over the cycle (the three-distance theorem). A turn costs one search, whatever the weights, where
// the static stride scheduler of gRFC A58 passes over 65535 light members on the way to the next heavy one.
type rotation struct {
	position      *atomic.Uint64
	cycle, stride uint64
	ends          []uint64 // of the ranges of turns; nil where each is 1 long
}

// maxTurns bounds a cycle, so that turn times stride fits 64 bits.
const maxTurns = 1 << 32

// newRotation takes weights that are positive.
func newRotation(weights []float64, position *atomic.Uint64) *rotation {
	turns := wholeNumbers(weights)
	r := &rotation{position: position}
	for _, count := range turns {
		r.cycle += count
		r.ends = append(r.ends, r.cycle)
	}
	if r.cycle == uint64(len(weights)) {
		r.ends = nil
	}
	r.stride = max(1, uint64(float64(r.cycle)/math.Phi))
	for divisor(r.stride, r.cycle) != 1 {
		r.stride++
	}
	return r
}

// next returns the index of the member whose turn it is.
func (r *rotation) next() int {
	turn := r.position.Add(1) % r.cycle * r.stride % r.cycle
	if r.ends == nil {
		return int(turn) //nolint:gosec // less than the number of members
	}
	return sort.Search(len(r.ends), func(at int) bool { return turn < r.ends[at] })
}

// newPosition returns where a client's round begins: each somewhere else, so that many clients do not march in step.
func newPosition(key string) *atomic.Uint64 {
	begin := rand.Uint64()
	if key != "" {
		begin = Hash(key)
	}
	position := new(atomic.Uint64)
	position.Store(begin >> 1) // far from where it would wrap
	return position
}

// wholeNumbers returns weights as the smallest integers that have their proportions; rounded where they are no integers, or too many.
func wholeNumbers(weights []float64) []uint64 {
	scale := min(1, float64(maxTurns)/2/(slices.Max(weights)*float64(len(weights))))
	if slices.ContainsFunc(weights, func(weight float64) bool { return weight != math.Trunc(weight) }) {
		scale = 65535 / slices.Max(weights)
	}
	whole := make([]uint64, len(weights))
	common := uint64(0)
	for at, weight := range weights {
		whole[at] = uint64(max(1, math.Round(weight*scale)))
		common = divisor(whole[at], common)
	}
	for at := range whole {
		whole[at] /= common
	}
	return whole
}

// divisor returns the greatest common one.
func divisor(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
