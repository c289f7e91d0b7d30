package balancer

import "math/bits"

// aliasTable draws from weights in constant time (Walker's method, as built by Vose in 1991): each slot is shared by at most
// two, and a draw takes a slot and one of the two.
type aliasTable []aliasSlot

type aliasSlot struct {
	own   uint32 // the share of the slot's own index, out of 2^32-1
	other int32  // whose the rest is
}

// newAliasTable takes weights that are positive.
func newAliasTable(weights []float64) aliasTable {
	total := 0.0
	for _, weight := range weights {
		total += weight
	}
	count := len(weights)
	table := make(aliasTable, count)
	scaled := make([]float64, count)
	var small, large []int
	for at, weight := range weights {
		scaled[at] = weight / total * float64(count)
		if scaled[at] < 1 {
			small = append(small, at)
		} else {
			large = append(large, at)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		low, high := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		table[low] = aliasSlot{own: uint32(scaled[low] * (1<<32 - 1)), other: int32(high)} //nolint:gosec // an index of int32
		if scaled[high] -= 1 - scaled[low]; scaled[high] < 1 {
			large = large[:len(large)-1]
			small = append(small, high)
		}
	}
	for _, at := range append(small, large...) { // what is left is 1 but for rounding
		table[at] = aliasSlot{own: 1<<32 - 1, other: int32(at)} //nolint:gosec // as above
	}
	return table
}

// draw returns an index with its weight's probability.
func (t aliasTable) draw(random *chance) int {
	at, rest := bits.Mul64(random.next(), uint64(len(t)))
	slot := t[at]
	if rest>>32 > uint64(slot.own) {
		return int(slot.other)
	}
	return int(at) //nolint:gosec // less than len(t)
}
