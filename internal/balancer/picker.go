package balancer

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Picker chooses among the members of one set. It is immutable but for counters, and safe for concurrent use; a change of the set makes a
// new one.
//
// Its members are divided into tiers: the local ones, the remote ones, and those that stand in for a subset. A pick draws from
// the first tier, and turns to the next where a few draws find nobody usable. So no counting of the usable is needed, and there is no
// threshold at which calls move all at once: with a part u of the local members usable and two draws, (1-u)² of the calls spill over, 1 % at
// u = 0.9 and a quarter at 0.5, and no local member gets more than twice its usual load (2-u times). Calls also spill over from local members
// that are overloaded: see [Config.ZoneSpill].
type Picker struct {
	config  Config
	members []member
	tiers   []tier
	zoned   bool       // whether the first two tiers are local and remote
	rest    [][]choice // those in no tier: beyond the subset and its stand-ins, and last those without weight
	inside  []bool     // by member, whether this client uses it; nil if all
	rounds  [maxTiers]*atomic.Uint64
}

// tier is a part of the members that is drawn from together.
type tier struct {
	choices  []choice
	table    aliasTable
	rotation *rotation // for RoundRobin only
	ring     *ring     // for ConsistentHash only
	tries    int
}

const (
	maxTiers = 3 // local, remote, stand-in
	// How often a pick draws from a tier before it turns to the next: local members, a subset, and the last tier, before all of them are
	// looked at.
	localTries  = 2
	subsetTries = 4
	lastTries   = 8
	// maxHolds bounds how many draws of members that start slowly are put back.
	maxHolds = 6
)

// New makes the picker of a set. Of previous, which may be nil, it takes over how far a round has come. The indices that it returns are
// those of members, whose order matters for nothing else than where a round has come to: keep them sorted by ID.
func New(config Config, members []Member, previous *Picker) *Picker {
	p := &Picker{config: config.withDefaults(), members: make([]member, len(members))}
	for nth := range p.rounds {
		if previous != nil {
			p.rounds[nth] = previous.rounds[nth]
		} else {
			p.rounds[nth] = newPosition(config.SubsetKey)
		}
	}
	ids := func(at int32) string { return members[at].ID }
	var local, remote, weightless []choice
	for at, m := range members {
		p.members[at].stats = m.Stats
		switch {
		case m.Weight <= 0:
			weightless = append(weightless, choice{at: int32(at), weight: 1})
		case config.LocalZone != "" && m.Zone == config.LocalZone:
			local = append(local, choice{at: int32(at), weight: float64(m.Weight)})
		default:
			remote = append(remote, choice{at: int32(at), weight: float64(m.Weight)})
		}
	}
	p.zoned = len(local) > 0 && len(remote) > 0
	if len(local)+len(remote) == 0 {
		remote, weightless = weightless, nil
	}
	p.divide(local, remote, ids)
	p.rest = append(p.rest, weightless)
	p.weigh()
	return p
}

// divide makes the tiers of the members that have a weight.
func (p *Picker) divide(local, remote []choice, ids func(at int32) string) {
	localSize, remoteSize := 0, p.config.SubsetSize
	if size := p.config.SubsetSize; size > 0 && p.zoned {
		// A quarter of the subset is remote, so that there are connections to spill over to.
		localSize = max(1, min(len(local), size-min(len(remote), max(1, size/4))))
		remoteSize = max(1, size-localSize)
	} else if len(remote) == 0 {
		localSize = size
	}
	usedLocal, standInLocal, restLocal := subset(local, ids, p.config.SubsetKey, localSize)
	usedRemote, standInRemote, restRemote := subset(remote, ids, p.config.SubsetKey, remoteSize)
	standIn := slices.Concat(standInLocal, standInRemote)
	p.rest = [][]choice{restLocal, restRemote}
	if len(standIn) > 0 {
		p.inside = make([]bool, len(p.members))
	}
	for _, used := range [][]choice{usedLocal, usedRemote} {
		p.add(used, ids)
		for _, c := range used {
			if p.inside != nil {
				p.inside[c.at] = true
			}
		}
	}
	p.add(standIn, ids)
	for nth := range p.tiers {
		switch {
		case nth == len(p.tiers)-1:
			p.tiers[nth].tries = lastTries
		case nth == 0 && p.zoned:
			p.tiers[nth].tries = localTries
		default:
			p.tiers[nth].tries = subsetTries
		}
	}
}

func (p *Picker) add(choices []choice, ids func(at int32) string) {
	if len(choices) == 0 {
		return
	}
	weights := make([]float64, len(choices))
	for seat, c := range choices {
		weights[seat] = c.weight
	}
	t := tier{choices: choices, table: newAliasTable(weights)}
	switch p.config.Policy {
	case RoundRobin:
		t.rotation = newRotation(weights, p.rounds[len(p.tiers)])
	case ConsistentHash:
		t.ring = newRing(choices, ids, p.config.HashBalance)
	case P2C, Random, LeastRequest:
	}
	p.tiers = append(p.tiers, t)
}

// weigh sets what an attempt in flight counts, by the weights that members are drawn with.
func (p *Picker) weigh() {
	total, count := 0.0, 0
	for _, t := range p.tiers {
		for _, c := range t.choices {
			total += c.weight
			count++
		}
	}
	for _, t := range p.tiers {
		for _, c := range t.choices {
			p.members[c.at].relief = total / float64(count) / c.weight
		}
	}
	for _, choices := range p.rest {
		for _, c := range choices {
			p.members[c.at].relief = total / float64(count) / c.weight
		}
	}
}

// InSubset reports whether the member is among those that this client uses while they are usable: all, if SubsetSize does not bound them.
func (p *Picker) InSubset(at int) bool { return len(p.inside) == 0 || p.inside[at] }

// Pick returns the index of a member that usable allows, or -1 if it allows none. It looks at a few members, however many there are, except
// where none of those is usable. It takes no lock and allocates nothing.
func (p *Picker) Pick(call Call, usable func(at int) bool) int {
	random := chance(call.Random)
	if random == 0 {
		random = chance(rand.Uint64())
	}
	if call.Now.IsZero() {
		call.Now = time.Now()
	}
	now := nanos(call.Now)
	for nth := range p.tiers {
		at := p.pickFrom(&p.tiers[nth], now, &random, &call, usable)
		if at < 0 {
			continue
		}
		if nth == 0 && p.zoned && p.config.Policy != ConsistentHash { // where the key's owner matters more
			remote := &p.tiers[1]
			if other := int(remote.choices[remote.table.draw(&random)].at); usable(other) && p.spills(other, at, now) {
				return other
			}
		}
		return at
	}
	if call.Hashed && p.config.Policy == ConsistentHash {
		random = chance(call.Hash) // so that the key goes to the same member still
	}
	return p.search(now, &random, usable)
}

// pickFrom picks from one tier; -1 if a few draws find nobody usable.
func (p *Picker) pickFrom(t *tier, now int64, random *chance, call *Call, usable func(at int) bool) int {
	if t.ring != nil && call.Hashed {
		return p.pickByHash(t, now, call.Hash, usable)
	}
	first := p.draw(t, now, random, -1, usable)
	if first < 0 {
		return -1
	}
	at := int(t.choices[first].at)
	if p.config.Policy == P2C || p.config.Policy == LeastRequest {
		if second := p.draw(t, now, random, first, usable); second >= 0 {
			if challenger := int(t.choices[second].at); p.better(challenger, at, now) {
				at = challenger
			}
		}
	}
	if p.config.Policy == P2C && p.members[at].stats.failing(now) {
		return p.surer(t, at, now, random, usable)
	}
	return at
}

// surer is asked for another than a member that fails. Where most members do, so do mostly both of two that are drawn, although there are others; it
// returns one of them, unless so much is in flight there that even one that fails is to be preferred.
func (p *Picker) surer(t *tier, than int, now int64, random *chance, usable func(at int) bool) int {
	sure := func(at int) bool { return usable(at) && !p.members[at].stats.failing(now) }
	var other int
	if seat := p.draw(t, now, random, -1, sure); seat >= 0 {
		other = int(t.choices[seat].at)
	} else {
		other = sample(t.choices, random, -1, sure)
	}
	if other < 0 || p.better(than, other, now) {
		return than
	}
	return other
}

// draw returns the seat in the tier of a member that is usable, by weight and slow start, and is not the one to avoid; -1 if a few draws
// find none.
func (p *Picker) draw(t *tier, now int64, random *chance, avoid int, usable func(at int) bool) int {
	count := len(t.choices)
	if count == 1 && avoid == 0 {
		return -1
	}
	held := -1
	for misses, holds := 0, 0; misses < t.tries && holds < maxHolds; {
		var seat int
		if t.rotation != nil {
			seat = t.rotation.next()
		} else if seat = t.table.draw(random); seat == avoid {
			seat = (seat + 1 + random.below(count-1)) % count
		}
		at := int(t.choices[seat].at)
		if !usable(at) {
			misses++
			continue
		}
		if share := p.members[at].stats.share(now); share < 1 && random.float() >= share {
			held = seat
			holds++
			continue
		}
		return seat
	}
	return held
}

// search looks at all members, tier by tier, and then at those in none.
func (p *Picker) search(now int64, random *chance, usable func(at int) bool) int {
	for nth := range p.tiers {
		if at := p.searchIn(p.tiers[nth].choices, now, random, usable); at >= 0 {
			return at
		}
	}
	for _, choices := range p.rest {
		if at := p.searchIn(choices, now, random, usable); at >= 0 {
			return at
		}
	}
	return -1
}

// searchIn returns one of two usable members among choices, drawn by weight.
func (p *Picker) searchIn(choices []choice, now int64, random *chance, usable func(at int) bool) int {
	first := sample(choices, random, -1, usable)
	if first >= 0 && (p.config.Policy == P2C || p.config.Policy == LeastRequest) {
		if second := sample(choices, random, first, usable); second >= 0 && p.better(second, first, now) {
			return second
		}
	}
	return first
}

// sample draws by weight from the usable members among choices without the one to avoid, in one pass.
func sample(choices []choice, random *chance, avoid int, usable func(at int) bool) int {
	chosen, total := -1, 0.0
	for _, c := range choices {
		if at := int(c.at); at != avoid && usable(at) {
			if total += c.weight; random.float()*total < c.weight {
				chosen = at
			}
		}
	}
	return chosen
}
