package balancer

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// ring gives each hash an owner (Karger and others, 1997): the member of the first point at or after it. A member's points follow from its ID
// alone, so all clients agree on owners, and a change of the set moves only the keys that it has to. As the ring alone is uneven, and keys are
// even more so, a member that has much more in flight than its share passes calls on to the next (bounded loads).
type ring struct {
	points []point  // sorted
	starts []uint32 // of the points whose hashes' first bits, without the last shift, are the index
	shift  int
	bounds []float64 // by seat: what a member may have in flight, as a part of all that is
	flight flight
}

type point struct {
	hash uint64
	seat int32
}

const (
	// pointsPerMember of mean weight: with 64, shares deviate by an eighth of themselves.
	pointsPerMember = 64
	// maxPoints of one member, so that a ring with one of weight 65535 among light ones stays small; its share is too small then.
	maxPoints = 64 * pointsPerMember
	// maxSteps bounds how far along the ring a pick looks.
	maxSteps = 64
	// flightAge is how old the sum of all that is in flight may be.
	flightAge = time.Millisecond
)

func newRing(choices []choice, ids func(at int32) string, balance float64) *ring {
	total := 0.0
	for _, c := range choices {
		total += c.weight
	}
	r := &ring{bounds: make([]float64, len(choices)), points: make([]point, 0, 2*pointsPerMember*len(choices))}
	// A power of two, so that it does not change, and with it everyone's points, each time the mean does.
	norm := math.Exp2(math.Round(math.Log2(total / float64(len(choices)))))
	for seat, c := range choices {
		r.bounds[seat] = balance * c.weight / total
		hash := Hash(ids(c.at))
		for nth := range min(maxPoints, max(1, int(math.Round(pointsPerMember*c.weight/norm)))) {
			r.points = append(r.points, point{hash: mix(hash + uint64(nth)*0x9e3779b97f4a7c15), seat: int32(seat)})
		}
	}
	r.sortPoints()
	return r
}

// sortPoints sorts the points by hash, in linear time, as hashes are spread evenly: into about as many buckets as there are points, and
// within each by insertion. It leaves where each bucket starts, so that no search is needed later.
func (r *ring) sortPoints() {
	width := bits.Len(uint(len(r.points)))
	r.shift = 64 - width
	r.starts = make([]uint32, 1<<width+1)
	for _, p := range r.points {
		r.starts[p.hash>>r.shift+1]++
	}
	for bucket := range 1 << width {
		r.starts[bucket+1] += r.starts[bucket]
	}
	sorted, filled := make([]point, len(r.points)), slices.Clone(r.starts)
	for _, p := range r.points {
		bucket := p.hash >> r.shift
		at := filled[bucket]
		filled[bucket]++
		for ; at > r.starts[bucket] && p.before(sorted[at-1]); at-- {
			sorted[at] = sorted[at-1]
		}
		sorted[at] = p
	}
	r.points = sorted
}

func (p point) before(other point) bool {
	return p.hash < other.hash || p.hash == other.hash && p.seat < other.seat
}

// from returns the index of the first point at or after the hash.
func (r *ring) from(hash uint64) int {
	at := int(r.starts[hash>>r.shift])
	for at < len(r.points) && r.points[at].hash < hash {
		at++
	}
	return at
}

// pickByHash returns the owner of the hash in the tier, or one that takes its place; -1 where a few members from the owner on are not
// usable.
func (p *Picker) pickByHash(t *tier, now int64, hash uint64, usable func(at int) bool) int {
	inFlight := float64(t.ring.flight.estimate(p, t, now))
	overloaded, last, misses := -1, int32(-1), 0
	for step, begin := 0, t.ring.from(hash); step < min(maxSteps, len(t.ring.points)) && misses < t.tries; step++ {
		next := &t.ring.points[(begin+step)%len(t.ring.points)]
		if next.seat == last {
			continue
		}
		last = next.seat
		at := int(t.choices[next.seat].at)
		if !usable(at) {
			misses++
			continue
		}
		stats := p.members[at].stats
		share := stats.share(now)
		// Whether a member that starts slowly takes a key follows from the key: so each moves once, as the share grows past it.
		if share < 1 && float64(mix(hash^next.hash)>>11)/(1<<53) >= share ||
			float64(stats.inFlight.Load()) >= math.Ceil(t.ring.bounds[next.seat]*(inFlight+1)*share) {
			if overloaded < 0 {
				overloaded = at
			}
			continue
		}
		return at
	}
	return overloaded
}

// flight estimates how many attempts are in flight at all members of a tier: their sum a moment ago, and all that began since. It is not less
// than there are, so that no call is passed on without need.
type flight struct {
	summed, sum, begun atomic.Int64
}

func (f *flight) estimate(p *Picker, t *tier, now int64) int64 {
	if summed := f.summed.Load(); now-summed > int64(flightAge) && f.summed.CompareAndSwap(summed, now) {
		sum := int64(0)
		for _, c := range t.choices {
			sum += p.members[c.at].stats.inFlight.Load()
		}
		f.begun.Store(0)
		f.sum.Store(sum)
		return sum
	}
	return f.sum.Load() + f.begun.Add(1) - 1
}
