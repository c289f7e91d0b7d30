package balancer

import (
	"math/rand/v2"
	"time"
)

// Picker chooses among the members of one set. It is immutable but for counters, and safe for concurrent use; a change of the set makes a
// new one.
type Picker struct {
	config  Config
	members []member
	table   aliasTable
	at      []int32 // the members of the table
}

type member struct {
	stats *Stats
	// relief is the mean weight over the member's: what one attempt in flight there counts.
	relief float64
}

// New makes the picker of a set. Of previous, which may be nil, it takes over how far a round has come. The members' order is the
// caller's, who sorts by ID for best effect.
func New(config Config, members []Member, previous *Picker) *Picker {
	_ = previous
	p := &Picker{config: config.withDefaults(), members: make([]member, len(members))}
	var weights []float64
	for at, m := range members {
		p.members[at].stats = m.Stats
		if m.Weight > 0 {
			weights = append(weights, float64(m.Weight))
			p.at = append(p.at, int32(at))
		}
	}
	if len(weights) == 0 {
		for at := range members {
			weights = append(weights, 1)
			p.at = append(p.at, int32(at))
		}
	}
	mean := 0.0
	for _, weight := range weights {
		mean += weight / float64(len(weights))
	}
	for seat, at := range p.at {
		p.members[at].relief = mean / weights[seat]
	}
	p.table = newAliasTable(weights)
	return p
}

// InSubset reports whether the member is among those that this client uses while they are usable: all without SubsetSize.
func (p *Picker) InSubset(at int) bool { return at >= 0 && at < len(p.members) }

// Pick returns the index of a member that usable allows, or -1 if it allows none. It looks at a few members, however many there are,
// except where none of those is usable. It takes no lock and allocates nothing.
func (p *Picker) Pick(call Call, usable func(at int) bool) int {
	random := chance(call.Random)
	if random == 0 {
		random = chance(rand.Uint64())
	}
	if call.Now.IsZero() {
		call.Now = time.Now()
	}
	now := nanos(call.Now)
	first := p.draw(&random, now, -1, usable)
	if first < 0 {
		return p.scan(&random, -1, usable)
	}
	if second := p.draw(&random, now, first, usable); second >= 0 && p.better(second, first, now) {
		return second
	}
	return first
}

const tries = 8

// draw returns a usable member that is not the one to avoid, or -1 if a few draws find none.
func (p *Picker) draw(random *chance, now int64, avoid int, usable func(at int) bool) int {
	if len(p.at) == 0 || len(p.at) == 1 && int(p.at[0]) == avoid {
		return -1
	}
	for range tries {
		at := int(p.at[p.table.draw(random)])
		if at == avoid {
			at = int(p.at[random.below(len(p.at))])
		}
		if at == avoid || !usable(at) {
			continue
		}
		if share := p.members[at].stats.share(now); share < 1 && random.float() >= share {
			continue
		}
		return at
	}
	return -1
}

// scan looks at all members.
func (p *Picker) scan(random *chance, avoid int, usable func(at int) bool) int {
	chosen, total := -1, 0.0
	for at := range p.members {
		if at == avoid || !usable(at) {
			continue
		}
		weight := 1e-9
		if relief := p.members[at].relief; relief > 0 {
			weight = 1 / relief
		}
		if total += weight; random.float()*total < weight {
			chosen = at
		}
	}
	return chosen
}

// better reports whether a promises to answer sooner than b, clearly.
func (p *Picker) better(a, b int, now int64) bool {
	one, other := &p.members[a], &p.members[b]
	loadA := 1 + float64(one.stats.InFlight())*one.relief/one.stats.share(now)
	loadB := 1 + float64(other.stats.InFlight())*other.relief/other.stats.share(now)
	return loadA*slower(one.stats, other.stats, now) < loadB
}

const (
	slack       = 2.0
	granularity = float64(time.Millisecond)
)

// slower returns how many times as slow as other one is, 1 if it is not clear.
func slower(one, other *Stats, now int64) float64 {
	valueA, trustA := one.estimate(now)
	valueB, trustB := other.estimate(now)
	if trustA+trustB == 0 {
		return 1
	}
	typical := (valueA*trustA + valueB*trustB) / (trustA + trustB)
	valueA = typical + (valueA-typical)*trustA + granularity
	valueB = typical + (valueB-typical)*trustB + granularity
	switch {
	case valueA > slack*valueB:
		return valueA / (slack * valueB)
	case valueB > slack*valueA:
		return slack * valueA / valueB
	default:
		return 1
	}
}
