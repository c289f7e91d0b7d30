//go:build integration && linux

package chaos_test

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// recovery is how long after a fault an instance counts as healthy: clients have found out by then. Breakers and ejections last for less; see
	// settings. A black hole costs as long again as it lasted, because TCP's pause before it sends again has grown to that.
	recovery = 10 * time.Second
	// news is how long it may take until a change of the instances is known to clients.
	news = 4 * time.Second
	// How long a fault lasts.
	minFault, maxFault = time.Second, 8 * time.Second
	// agentPause is the time between two faults of the agent, so that there are times at which changes become known.
	agentPause = 12 * time.Second
)

// agentTarget is the target of faults that strike the agent, and no instance.
const agentTarget = -1

// fault is what is to break.
type fault struct {
	number      int
	kind        *kind
	target      int // the number of the instance, or agentTarget
	from, until time.Duration
	details     uint64 // the seed of what else there is to choose
}

// planned is what is known of a target while a schedule is made.
type planned struct {
	traits

	until, healthy time.Duration // when its last fault ends, and from when on it is healthy; 0 if it always was
	last           int           // the number of that fault, -1 if there was none
	kinds          []*kind       // those that are left of a round, in which each comes once
}

// newSchedule returns the faults of a run, in the order in which they begin. Whenever one strikes an instance, another is healthy, and remains so.
//
// Times of calm, in which a fault comes now and then, take turns with storms, which strike whoever may be struck at once.
func newSchedule(seed uint64, length time.Duration, instances []traits) []fault {
	s := &scheduler{random: rand.New(rand.NewPCG(seed, 1)), agent: planned{traits: traits{agent: true}, last: -1}}
	for _, t := range instances {
		s.instances = append(s.instances, &planned{traits: t, last: -1})
	}
	for s.now = s.between(0, time.Second); s.now < length-minFault; {
		if s.random.IntN(3) == 0 {
			for range instances {
				s.strike()
				s.now += s.between(0, 400*time.Millisecond)
			}
			s.now += s.between(minFault, maxFault)
		} else {
			for range 1 + s.random.IntN(4) {
				s.strike()
				s.now += s.between(300*time.Millisecond, 3*time.Second)
			}
		}
	}
	for at := range s.faults {
		s.faults[at].until = min(s.faults[at].until, length)
	}
	return slices.DeleteFunc(s.faults, func(f fault) bool { return f.from >= f.until })
}

type scheduler struct {
	random    *rand.Rand
	now       time.Duration
	instances []*planned
	agent     planned
	faults    []fault
}

func (s *scheduler) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.random.Int64N(int64(most-least)))
}

// strike adds a fault that begins now, if there is one that may.
func (s *scheduler) strike() {
	if s.random.IntN(8) == 0 && s.now >= s.agent.until+agentPause {
		s.strikeAgent()
		return
	}
	var may []int
	for at, instance := range s.instances {
		if s.now > instance.until && s.otherHealthy(at) {
			may = append(may, at)
		}
	}
	if len(may) == 0 {
		return
	}
	at := may[s.random.IntN(len(may))]
	struck := s.instances[at]
	s.add(struck, at)
	added := &s.faults[len(s.faults)-1]
	if added.kind.rejoins && s.agentOut(added.until) {
		added.until = s.agent.until + time.Millisecond // whoever is to register needs an agent
	}
	struck.until = added.until
	struck.healthy = added.until + recovery
	if s.agentOut(added.from) || s.agentOut(added.until) {
		struck.healthy = max(added.until, s.agent.until) + recovery
	}
}

// strikeAgent adds a fault of the agent. Instances that have just come back, or are about to, become known only after it.
func (s *scheduler) strikeAgent() {
	s.add(&s.agent, agentTarget)
	s.agent.until = s.faults[len(s.faults)-1].until
	for _, instance := range s.instances {
		if instance.last < 0 || instance.until+news <= s.now {
			continue
		}
		if last := &s.faults[instance.last]; last.kind.rejoins && s.agentOut(last.until) {
			last.until = s.agent.until + time.Millisecond
			instance.until = last.until
		}
		instance.healthy = max(instance.until, s.agent.until) + recovery
	}
}

// agentOut reports whether there is no agent at a time, or was none just before.
func (s *scheduler) agentOut(when time.Duration) bool {
	return s.agent.last >= 0 && when >= s.faults[s.agent.last].from && when <= s.agent.until
}

func (s *scheduler) otherHealthy(than int) bool {
	for at, instance := range s.instances {
		if at != than && s.now >= instance.healthy {
			return true
		}
	}
	return false
}

func (s *scheduler) add(target *planned, at int) {
	if len(target.kinds) == 0 {
		for _, kind := range kinds {
			if kind.strikes(target.traits) {
				target.kinds = append(target.kinds, kind)
			}
		}
		s.random.Shuffle(len(target.kinds), func(a, b int) { target.kinds[a], target.kinds[b] = target.kinds[b], target.kinds[a] })
	}
	next := target.kinds[0]
	target.kinds = target.kinds[1:]
	target.last = len(s.faults)
	s.faults = append(s.faults, fault{
		number: len(s.faults) + 1, kind: next, target: at, from: s.now, until: s.now + s.between(minFault, maxFault), details: s.random.Uint64(),
	})
}
