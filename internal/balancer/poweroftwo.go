package balancer

import "math/rand/v2"

// Candidate is what the balancer knows of an instance. Its methods are called on the hot path and concurrently: they must be cheap and
// must not block.
type Candidate interface {
	// InFlight returns how many attempts the instance serves for this client now.
	InFlight() int64
	// Weight returns the instance's share of calls relative to the others, 0 to 65535.
	Weight() int64
}

// panelSize is how many candidates a pick looks at. Up to this many candidates, the shares of idle ones are exactly their weights; of
// more, nearly so.
const panelSize = 8

// PowerOfTwo picks the less loaded, by attempts in flight over weight, of two candidates chosen at random with their weights as
// probabilities (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). Of equally loaded ones, idle ones for
// example, each so gets the share of its weight. Only candidates that are allowed are picked; it returns false if there is none.
//
// It looks at no more than a few candidates, however many there are, except when none of those is allowed. It takes no lock and
// allocates nothing.
//
// Candidates of weight 0 are picked only where all allowed ones have weight 0.
func PowerOfTwo[C Candidate](candidates []C, allowed func(C) bool) (C, bool) {
	var panel [panelSize]C
	var weights [panelSize]int64
	var total int64
	size, count := 0, len(candidates)
	for seat := range min(count, panelSize) {
		at := seat // with few candidates, the panel is all of them
		if count > panelSize {
			at = rand.IntN(count)
		}
		candidate := candidates[at]
		if weight := candidate.Weight(); weight > 0 && allowed(candidate) {
			panel[size], weights[size] = candidate, weight
			total += weight
			size++
		}
	}
	switch size {
	case 0:
		return leastLoaded(candidates, allowed)
	case 1:
		return panel[0], true
	}
	first := draw(weights[:size], total)
	// The second is drawn from the others.
	total, weights[first] = total-weights[first], 0
	second := draw(weights[:size], total)
	if lessLoaded(panel[second], panel[first]) {
		return panel[second], true
	}
	return panel[first], true
}

// draw returns an index with the weights, which add up to total, as probabilities.
func draw(weights []int64, total int64) int {
	point := rand.Int64N(total)
	for at, weight := range weights {
		if point -= weight; point < 0 {
			return at
		}
	}
	return len(weights) - 1 // not reached
}

// leastLoaded looks at all candidates. Each of those that are least loaded alike is as likely.
func leastLoaded[C Candidate](candidates []C, allowed func(C) bool) (chosen C, found bool) {
	alike := 0
	for _, candidate := range candidates {
		if alike > 0 && lessLoaded(chosen, candidate) || !allowed(candidate) {
			continue
		}
		if alike == 0 || lessLoaded(candidate, chosen) {
			chosen, alike = candidate, 1
			continue
		}
		alike++
		if rand.IntN(alike) == 0 {
			chosen = candidate
		}
	}
	return chosen, alike > 0
}

// lessLoaded compares attempts in flight per weight. Any weight is better than none.
func lessLoaded[C Candidate](a, b C) bool {
	weightA, weightB := a.Weight(), b.Weight()
	if weightA <= 0 || weightB <= 0 {
		return weightA > weightB || weightA == weightB && a.InFlight() < b.InFlight()
	}
	return a.InFlight()*weightB < b.InFlight()*weightA
}
