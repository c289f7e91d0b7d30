package balancer

import "math/bits"

// chance is a stream of random numbers that costs a few instructions each (Steele, Lea and Flood's SplitMix64). It lives on the stack of a
// pick, begun with one number of a better generator.
type chance uint64

func (c *chance) next() uint64 {
	*c += 0x9e3779b97f4a7c15
	return mix(uint64(*c))
}

// below returns a number in [0, n).
func (c *chance) below(n int) int {
	high, _ := bits.Mul64(c.next(), uint64(n)) //nolint:gosec // positive
	return int(high)                           //nolint:gosec // less than n
}

// float returns a number in [0, 1).
func (c *chance) float() float64 { return float64(c.next()>>11) / (1 << 53) }

// mix spreads every bit of a number over all others.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Hash returns a hash of a text that is the same in every process, so that clients agree on the owner of a key.
func Hash(text string) uint64 {
	hash := uint64(0xcbf29ce484222325) // FNV-1a, mixed, as its upper bits are weak
	for at := range len(text) {
		hash = (hash ^ uint64(text[at])) * 0x100000001b3
	}
	return mix(hash)
}
