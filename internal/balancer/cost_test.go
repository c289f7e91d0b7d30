package balancer_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// fleet makes calls, one after the other, on a clock of its own.
type fleet struct {
	members []balancer.Member
	picker  *balancer.Picker
	now     time.Time
	random  *rand.Rand
	latency func(at int) time.Duration
	outcome func(at int) balancer.Outcome
}

func newFleet(config balancer.Config, members []balancer.Member, latency func(at int) time.Duration) *fleet {
	return &fleet{
		members: members, picker: balancer.New(config, members, nil), now: time.Now(), random: rand.New(rand.NewPCG(1, 2)),
		latency: latency, outcome: func(int) balancer.Outcome { return balancer.OutcomeAnswered },
	}
}

// call makes calls with a pause between them, and returns how many each member got.
func (f *fleet) call(calls int, pause time.Duration) []int {
	counts := make([]int, len(f.members))
	for range calls {
		at := f.picker.Pick(balancer.Call{Now: f.now, Random: f.random.Uint64() | 1}, all)
		counts[at]++
		latency := f.latency(at)
		f.members[at].Stats.Begin()
		f.now = f.now.Add(latency)
		f.members[at].Stats.End(f.now, latency, f.outcome(at))
		f.now = f.now.Add(pause)
	}
	return counts
}

func constant(latency time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return latency }
}

// noisy is a latency of some hundred microseconds with the pauses of a busy machine.
func noisy(random *rand.Rand, typical time.Duration) func(int) time.Duration {
	return func(int) time.Duration {
		latency := typical/2 + time.Duration(random.ExpFloat64()*float64(typical)/2)
		if random.IntN(100) == 0 {
			latency += time.Duration(random.IntN(20)) * typical
		}
		return latency
	}
}

// TestNoiseChangesNoShares: among instances that are alike, calls one after the other follow the weights, however the measurements fall.
// Where one call in a hundred takes up to 40 ms instead of 2, chance looks like a slow instance now and then, and the shares are only near.
func TestNoiseChangesNoShares(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, 10 * time.Second, time.Hour} {
		for _, weights := range [][]int{{1, 1, 1}, {1, 3}, {1, 2, 3, 4}} {
			f := newFleet(balancer.Config{}, weighing(balancer.Config{}, weights...), noisy(rand.New(rand.NewPCG(3, 4)), 100*time.Microsecond))
			expectShares(t, f.call(20_000, pause), weights)

			f = newFleet(balancer.Config{}, weighing(balancer.Config{}, weights...), noisy(rand.New(rand.NewPCG(3, 4)), 2*time.Millisecond))
			counts, total := f.call(20_000, pause), 0
			for _, weight := range weights {
				total += weight
			}
			for at, weight := range weights {
				if want := 20_000 * weight / total; counts[at] < want*8/10 || counts[at] > want*12/10 {
					t.Errorf("pause %v, weights %v, much noise: %v", pause, weights, counts)
				}
			}
		}
	}
}

// TestSlowIsAvoided by a caller who makes one call after the other, and not for ever.
func TestSlowIsAvoided(t *testing.T) {
	t.Parallel()
	slow := 100 * time.Millisecond
	f := newFleet(balancer.Config{}, equal(balancer.Config{}, 3), func(at int) time.Duration {
		if at == 0 {
			return slow
		}
		return 10 * time.Millisecond
	})
	f.call(100, 0)
	if counts := f.call(1000, 0); counts[0] > 2 {
		t.Errorf("in 10 s, an instance ten times as slow got %v", counts)
	}
	if counts := f.call(10_000, 0); counts[0] < 2 || counts[0] > 50 {
		t.Errorf("in 100 s, an instance ten times as slow got %v, want a few calls that see whether it still is", counts)
	}
	slow = 10 * time.Millisecond
	f.call(2_500, 0) // some 25 s, two decays and a half
	expectShares(t, f.call(10_000, 0), []int{1, 1, 1})
}

// TestNewcomerIsNoMagnet: one of which nothing is known gets its share, not all.
func TestNewcomerIsNoMagnet(t *testing.T) {
	t.Parallel()
	f := newFleet(balancer.Config{}, equal(balancer.Config{}, 4), constant(50*time.Millisecond))
	f.call(1000, 0)
	f.members[2].Stats = balancer.NewStats(balancer.Config{})
	f.picker = balancer.New(balancer.Config{}, f.members, f.picker)
	expectShares(t, picks(t, f.picker, 4, 10_000, all), []int{1, 1, 1, 1}) // without answers
	for range 100 {                                                        // calls that last
		f.members[f.picker.Pick(balancer.Call{Now: f.now}, all)].Stats.Begin()
	}
	if got := f.members[2].Stats.InFlight(); got < 20 || got > 30 {
		t.Errorf("the newcomer has %d in flight of 100 among 4", got)
	}
}

// TestFailingFastIsNotAttractive: neither by its latency nor by having nothing in flight.
func TestFailingFastIsNotAttractive(t *testing.T) {
	t.Parallel()
	for _, answersFirst := range []int{0, 100} {
		f := newFleet(balancer.Config{}, equal(balancer.Config{}, 3), constant(20*time.Millisecond))
		f.call(answersFirst, 0)
		f.latency = func(at int) time.Duration {
			if at == 0 {
				return 100 * time.Microsecond
			}
			return 20 * time.Millisecond
		}
		f.outcome = func(at int) balancer.Outcome {
			if at == 0 {
				return balancer.OutcomeFailed
			}
			return balancer.OutcomeAnswered
		}
		for _, other := range f.members[1:] {
			for range 3 { // others are busy, the failing one never is
				other.Stats.Begin()
			}
		}
		if counts := f.call(1000, 0); counts[0] > 20 { // four of them, in 20 s, to see whether it is back
			t.Errorf("after %d answers, one that fails at once got %v", answersFirst, counts)
		}
	}
}

// TestFailedIsTriedAgain once in a while, as for all that is known it may be back; and it has its share again as soon as it is.
func TestFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	const decay = 10 * time.Second
	f := newFleet(balancer.Config{Decay: decay}, equal(balancer.Config{Decay: decay}, 3), constant(5*time.Millisecond))
	f.call(100, 0)
	dead := true
	f.outcome = func(at int) balancer.Outcome {
		if at == 0 && dead {
			return balancer.OutcomeFailed
		}
		return balancer.OutcomeAnswered
	}
	f.call(100, 0)
	for range 8 { // all that was in flight there
		f.members[0].Stats.Begin()
		f.members[0].Stats.End(f.now, time.Millisecond, balancer.OutcomeFailed)
	}
	if counts := f.call(10_000, 5*time.Millisecond); counts[0] < 17 || counts[0] > 20 {
		t.Errorf("in 100 s, one that fails got %v, want a call each 5 s", counts)
	}
	dead = false
	if counts := f.call(1000, 6*time.Millisecond); counts[0] == 0 {
		t.Errorf("in 11 s, one that is back got %v", counts)
	}
	expectShares(t, f.call(10_000, 0), []int{1, 1, 1})
}

// TestFailedIsTriedAloneAgain: while one call sees whether an instance is back, no others do.
func TestFailedIsTriedAloneAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(balancer.Config{}, equal(balancer.Config{}, 2), constant(5*time.Millisecond))
	f.call(100, 0)
	for range 8 {
		f.members[0].Stats.Begin()
		f.members[0].Stats.End(f.now, time.Millisecond, balancer.OutcomeFailed)
	}
	f.now = f.now.Add(15 * time.Second)
	f.members[1].Stats.Begin()
	f.members[1].Stats.End(f.now, 5*time.Millisecond, balancer.OutcomeAnswered)
	for range 100 {
		f.members[f.picker.Pick(balancer.Call{Now: f.now, Random: f.random.Uint64() | 1}, all)].Stats.Begin()
	}
	if got := f.members[0].Stats.InFlight(); got != 1 {
		t.Errorf("%d of 100 calls that last see whether it is back, want 1", got)
	}
}

// TestMostFail: where two that are drawn are mostly two that fail, calls go to those that serve all the same, but for one each now and then; and to those
// that fail as well where the only one that serves has far too much to do.
func TestMostFail(t *testing.T) {
	t.Parallel()
	for _, count := range []int{6, 500} {
		f := newFleet(balancer.Config{}, equal(balancer.Config{}, count), constant(2*time.Millisecond))
		f.call(20*count, 0)
		f.outcome = func(at int) balancer.Outcome {
			if at > 0 {
				return balancer.OutcomeFailed
			}
			return balancer.OutcomeAnswered
		}
		f.call(20*count, 0) // in which it shows
		if counts := f.call(1000, 0); counts[0] < 990-count {
			t.Errorf("of %d of which one serves, that gets %d calls of 1000 in 2 s", count, counts[0])
		}
		for range 100_000 {
			f.members[0].Stats.Begin()
		}
		if counts := f.call(100, 0); counts[0] > 0 {
			t.Errorf("of %d of which one serves and has 100000 calls in flight, that gets %d of 100 more", count, counts[0])
		}
	}
}

// TestChanceFailuresChangeNoShares: one in fifty, at one instance only.
func TestChanceFailuresChangeNoShares(t *testing.T) {
	t.Parallel()
	f := newFleet(balancer.Config{}, equal(balancer.Config{}, 3), constant(5*time.Millisecond))
	calls := 0
	f.outcome = func(at int) balancer.Outcome {
		if at == 1 {
			calls++
			if calls%50 == 0 {
				return balancer.OutcomeFailed
			}
		}
		return balancer.OutcomeAnswered
	}
	expectShares(t, f.call(10_000, 0), []int{1, 1, 1})
}

// TestLessLoadedIsPreferred: of two, the one with less in flight for its weight, always.
func TestLessLoadedIsPreferred(t *testing.T) {
	t.Parallel()
	for _, policy := range []balancer.Policy{balancer.P2C, balancer.LeastRequest} {
		for _, row := range []struct {
			weights, inFlight [2]int
			want              int
		}{
			{[2]int{1, 1}, [2]int{5, 4}, 1},
			{[2]int{1, 1}, [2]int{0, 1}, 0},
			{[2]int{1, 3}, [2]int{1, 2}, 1},
			{[2]int{1, 3}, [2]int{1, 4}, 0},
			{[2]int{1, 65535}, [2]int{1, 65534}, 1},
		} {
			members := weighing(balancer.Config{}, row.weights[:]...)
			for at, inFlight := range row.inFlight {
				for range inFlight {
					members[at].Stats.Begin()
				}
			}
			picker := balancer.New(balancer.Config{Policy: policy}, members, nil)
			if counts := picks(t, picker, 2, 1000, all); counts[row.want] != 1000 {
				t.Errorf("%s, weights %v, in flight %v: picked %v, want always %d", policy, row.weights, row.inFlight, counts, row.want)
			}
		}
	}
}

// TestLoadFollowsWeights: calls that last are spread so that each has in flight what its weight says.
func TestLoadFollowsWeights(t *testing.T) {
	t.Parallel()
	for _, policy := range []balancer.Policy{balancer.P2C, balancer.LeastRequest} {
		members := weighing(balancer.Config{}, 1, 2, 3, 4)
		picker := balancer.New(balancer.Config{Policy: policy}, members, nil)
		for range 1000 {
			members[picker.Pick(balancer.Call{}, all)].Stats.Begin()
		}
		for _, m := range members {
			if got, want := int(m.Stats.InFlight()), 100*m.Weight; got < want-10 || got > want+10 {
				t.Errorf("%s: weight %d has %d in flight, want about %d", policy, m.Weight, got, want)
			}
		}
	}
}

// TestSlowStart: the share of a newcomer grows with time from a tenth to all, whatever the policy, and so does what it has in flight.
func TestSlowStart(t *testing.T) {
	for _, policy := range []balancer.Policy{balancer.P2C, balancer.Random, balancer.LeastRequest} {
		synctest.Test(t, func(t *testing.T) {
			config := balancer.Config{Policy: policy, SlowStart: 30 * time.Second}
			members := equal(config, 5)
			picker := balancer.New(config, members, nil)
			members[3].Stats.StartSlowly(time.Now())
			for _, row := range []struct {
				wait  time.Duration
				share int
			}{{0, 10}, {3 * time.Second, 10}, {3 * time.Second, 20}, {9 * time.Second, 50}, {12 * time.Second, 90}, {3 * time.Second, 100}, {time.Hour, 100}} {
				time.Sleep(row.wait) //nolint:forbidigo // on synctest's clock
				expectShares(t, picks(t, picker, 5, 20_000, all), []int{100, 100, 100, row.share, 100})
				if policy != balancer.Random {
					checkLoad(t, members, picker, row.share)
				}
			}
		})
	}
}

func checkLoad(t *testing.T, members []balancer.Member, picker *balancer.Picker, share int) {
	t.Helper()
	for range 4000 + 10*share {
		members[picker.Pick(balancer.Call{}, all)].Stats.Begin()
	}
	if got := int(members[3].Stats.InFlight()); got < 9*share || got > 11*share {
		t.Errorf("the newcomer at %d %% has %d in flight where others have about 1000", share, got)
	}
	for _, member := range members {
		for member.Stats.InFlight() > 0 {
			member.Stats.End(time.Now(), 0, balancer.OutcomeNone)
		}
	}
}

// TestAllStartSlowly alike: then it makes no difference.
func TestAllStartSlowly(t *testing.T) {
	t.Parallel()
	config := balancer.Config{SlowStart: time.Minute}
	members := weighing(config, 1, 2, 3)
	for _, member := range members {
		member.Stats.StartSlowly(time.Now())
	}
	expectShares(t, picks(t, balancer.New(config, members, nil), 3, 30_000, all), []int{1, 2, 3})
}
