// Package balancer chooses the instance that an attempt goes to.
package balancer

import "math/rand/v2"

// Candidate is what the balancer knows of an instance. Its methods are called on the hot path and concurrently: they must be cheap and
// must not block.
type Candidate interface {
	// InFlight returns how many attempts the instance serves for this client now.
	InFlight() int64
	// Weight returns the instance's share of calls relative to the others.
	Weight() int64
}

// PowerOfTwo picks the less loaded, by attempts in flight over weight, of two candidates chosen at random (Mitzenmacher, "The Power of
// Two Choices in Randomized Load Balancing", 2001). Where it is not allowed, it picks the least loaded of those that are, and returns
// false if none is. It takes no lock and allocates nothing.
//
// Candidates of weight 0 are picked only where all allowed ones have weight 0.
func PowerOfTwo[C Candidate](candidates []C, allowed func(C) bool) (C, bool) {
	var none C
	count := len(candidates)
	if count == 0 {
		return none, false
	}
	first := rand.IntN(count)
	chosen := candidates[first]
	if count > 1 {
		second := rand.IntN(count - 1)
		if second >= first {
			second++
		}
		if other := candidates[second]; lessLoaded(other, chosen) {
			chosen = other
		}
	}
	if chosen.Weight() > 0 && allowed(chosen) {
		return chosen, true
	}
	// Rare: a breaker is open, the candidate was tried by this very call, or weights are 0. Look at all, from a random one on, so that
	// ties do not favour the first.
	found := false
	for offset := range count {
		candidate := candidates[(first+offset)%count]
		if (!found || lessLoaded(candidate, chosen)) && allowed(candidate) {
			chosen, found = candidate, true
		}
	}
	if !found {
		return none, false
	}
	return chosen, true
}

// lessLoaded compares in-flight attempts per weight, counting the one to be placed, so that weights matter to idle instances too.
func lessLoaded[C Candidate](a, b C) bool {
	weightA, weightB := a.Weight(), b.Weight()
	if weightA == 0 || weightB == 0 {
		return weightA > weightB || weightA == weightB && a.InFlight() < b.InFlight()
	}
	return (a.InFlight()+1)*weightB < (b.InFlight()+1)*weightA
}
