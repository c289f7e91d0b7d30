package balancer

import "time"

const (
	// slack is how many times as slow as another an instance may seem and count as equally fast. Equals share calls by their
	// weights; without slack, the noise of two measurements would send all calls of an idle client to the luckier instance.
	slack = 2.0
	// granularity is a latency below which differences are the scheduler's, not the instance's.
	granularity = float64(time.Millisecond)
	// exploreLoad is how much a local member has in flight when it becomes worth to know how fast a remote one is.
	exploreLoad = 4
	// minTrust is how much what is known of a remote member has to say; some seven seconds, with the usual decay.
	minTrust = 0.5
)

// member is what picks need of a member; no more, as many fit a cache then.
type member struct {
	stats *Stats
	// relief is the mean weight over the member's weight: what one attempt in flight there counts.
	relief float64
}

// load returns what a call would find in flight, itself included.
func (m *member) load(now int64) float64 {
	inFlight := m.stats.inFlight.Load()
	if inFlight == 0 {
		return 1
	}
	return 1 + float64(inFlight)*m.relief/m.stats.share(now)
}

// better reports whether challenger is to be preferred to the one that was drawn before it. Weights have their say in the draw, which gives
// idle members their shares, and in the load, which keeps these shares under load. Counting them in latency too would count them
// twice: so of two that are alike, the first drawn is taken.
func (p *Picker) better(challenger, drawn int, now int64) bool {
	one, other := &p.members[challenger], &p.members[drawn]
	ratio := 1.0
	if p.config.Policy == P2C {
		switch a, b := latencies(one.stats, other.stats, now); {
		case a > slack*b:
			ratio = a / (slack * b)
		case b > slack*a:
			ratio = slack * a / b
		}
	}
	return one.load(now)*ratio < other.load(now)
}

// spills reports whether a remote member is to be preferred to the local one that was chosen. What is in flight says nothing by itself: with
// many callers there is much in flight at local members that are well. A local member that is overloaded answers late. A remote one of
// which nothing recent is known is tried, one call at a time, once there is enough in flight for this to matter.
func (p *Picker) spills(remote, local int, now int64) bool {
	one, other := &p.members[remote], &p.members[local]
	knownA, knownB := estimate(one.stats.latency.Load()), estimate(other.stats.latency.Load())
	if !knownA.warm() || one.stats.trust(knownA, one.stats.ticks(now)) < minTrust {
		return one.stats.inFlight.Load() == 0 && other.stats.inFlight.Load() >= exploreLoad
	}
	a, b := knownA.value()+granularity, knownB.value()+granularity
	return knownB.warm() && b > p.config.ZoneSpill*a && b*other.load(now) > a*one.load(now)
}

// latencies returns what is to be expected of two instances, for comparison. What is known of one fades with age towards what is known of the
// other, not towards zero: an instance that was slow is tried again after a while, and then trusted again in time; one never measured is
// presumed to be like others,
// and two that are idle for long are alike, whichever was used last.
func latencies(one, other *Stats, now int64) (a, b float64) {
	knownA, knownB := estimate(one.latency.Load()), estimate(other.latency.Load())
	if !knownA.warm() || !knownB.warm() {
		return 1, 1
	}
	a, b = knownA.value(), knownB.value()
	if max(a, b) > slack*min(a, b)+granularity { // else they are alike at any age
		slower, known := one, knownA
		if b > a {
			slower, known = other, knownB
		}
		if slower.inFlight.Load() == 0 && slower.stale(known, slower.ticks(now)) {
			return 1, 1
		}
		trustA, trustB := one.trust(knownA, one.ticks(now)), other.trust(knownB, other.ticks(now))
		if trustA+trustB == 0 {
			return 1, 1
		}
		typical := (a*trustA + b*trustB) / (trustA + trustB)
		a, b = typical+(a-typical)*trustA, typical+(b-typical)*trustB
	}
	return a + granularity, b + granularity
}
