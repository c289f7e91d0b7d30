package balancer

import (
	"cmp"
	"math"
	"slices"
)

// choice is a member with the weight that it is drawn with.
type choice struct {
	at     int32
	weight float64
}

// subset divides candidates into size that this client uses, as many that stand in for them, and the rest.
//
// Each client ranks all members by a hash of itself and the member (rendezvous hashing), the heavy ahead in proportion, and uses the first.
// So a change of the set moves only what it has to: a member that leaves is replaced by the next in rank, and one that joins replaces the last of
// those whose rank it beats. Neither the order nor the number of clients matters.
//
// A heavy member is in more subsets than a light one, so within a subset it must not have all of its weight again. Weights are divided by
// the probability to be in the subset, which makes each member's expected share of all clients' calls that of its weight (Cohen and Kaplan,
// "Summarizing Data Using Bottom-k Sketches", 2007: ranks that are exponentially distributed, conditioned on the first rank left out).
func subset(candidates []choice, ids func(at int32) string, key string, size int) (used, standIn, rest []choice) {
	if size <= 0 || len(candidates) <= size {
		return candidates, nil, nil
	}
	type ranked struct {
		choice

		rank float64
	}
	all := make([]ranked, len(candidates))
	seed := Hash(key)
	for nth, candidate := range candidates {
		uniform := (float64(mix(seed^Hash(ids(candidate.at)))>>11) + 0.5) / (1 << 53)
		all[nth] = ranked{choice: candidate, rank: -math.Log(uniform) / candidate.weight}
	}
	slices.SortFunc(all, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(ids(a.at), ids(b.at))) })
	bound := all[size].rank
	for nth, next := range all {
		switch {
		case nth < size:
			next.weight /= -math.Expm1(-next.weight * bound)
			used = append(used, next.choice)
		case nth < 2*size:
			standIn = append(standIn, next.choice)
		default:
			rest = append(rest, next.choice)
		}
	}
	return used, standIn, rest
}
