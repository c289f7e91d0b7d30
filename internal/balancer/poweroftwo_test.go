package balancer_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/0x1d/goplt/internal/balancer"
)

type candidate struct {
	number   int
	weight   int64
	inFlight atomic.Int64
}

var _ balancer.Candidate = (*candidate)(nil)

func (c *candidate) InFlight() int64 { return c.inFlight.Load() }
func (c *candidate) Weight() int64   { return c.weight }

func candidatesOf(weights ...int64) []*candidate {
	candidates := make([]*candidate, len(weights))
	for number, weight := range weights {
		candidates[number] = &candidate{number: number, weight: weight}
	}
	return candidates
}

func equalCandidates(count int) []*candidate {
	return candidatesOf(slices.Repeat([]int64{1}, count)...)
}

func anyone(*candidate) bool { return true }

// picks counts how often each candidate is picked.
func candidatePicks(t *testing.T, candidates []*candidate, allowed func(*candidate) bool, calls int) []int {
	t.Helper()
	counts := make([]int, len(candidates))
	for range calls {
		chosen, ok := balancer.PowerOfTwo(candidates, allowed)
		if !ok {
			t.Fatal("none was picked")
		}
		if !allowed(chosen) {
			t.Fatalf("candidate %d was picked, which is not allowed", chosen.number)
		}
		counts[chosen.number]++
	}
	return counts
}

// TestIdleCandidates get the shares that their weights say.
func TestIdleCandidates(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int64{
		{1},
		{1, 1},
		{1, 1, 1},
		{1, 3},
		{1, 1, 2},
		{10, 1, 5},
		{65535, 1, 65535},
		{1, 2, 3, 4, 5, 6, 7, 8},
		{0, 1, 3},
		{5, 0, 0, 5},
		slices.Repeat([]int64{7}, 8), slices.Repeat([]int64{7}, 9), slices.Repeat([]int64{1}, 100),
	} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			t.Parallel()
			expectCandidateShares(t, candidatePicks(t, candidatesOf(weights...), anyone, 30_000), weights)
		})
	}
}

// TestManyWeights: among more candidates than a pick looks at, the shares are those of the weights but for a few per cent.
func TestManyWeights(t *testing.T) {
	t.Parallel()
	weights := append(slices.Repeat([]int64{1}, 50), slices.Repeat([]int64{3}, 50)...)
	counts := candidatePicks(t, candidatesOf(weights...), anyone, 100_000)
	heavy := 0
	for _, count := range counts[50:] {
		heavy += count
	}
	if heavy < 70_000 || heavy > 80_000 {
		t.Errorf("the heavier half was picked %d times of 100000, want about 75000", heavy)
	}
}

// TestLessLoadedIsPreferred: of two, the one with less in flight for its weight, always.
func TestCandidateLessLoadedIsPreferred(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		weights, inFlight [2]int64
		want              int
	}{
		{[2]int64{1, 1}, [2]int64{5, 4}, 1},
		{[2]int64{1, 1}, [2]int64{0, 1}, 0},
		{[2]int64{1, 3}, [2]int64{1, 2}, 1},
		{[2]int64{1, 3}, [2]int64{1, 4}, 0},
		{[2]int64{1, 65535}, [2]int64{1, 65534}, 1},
	} {
		candidates := candidatesOf(row.weights[:]...)
		for number, inFlight := range row.inFlight {
			candidates[number].inFlight.Store(inFlight)
		}
		if counts := candidatePicks(t, candidates, anyone, 1000); counts[row.want] != 1000 {
			t.Errorf("weights %v, in flight %v: picked %v, want always %d", row.weights, row.inFlight, counts, row.want)
		}
	}
}

// TestMostLoadedIsAvoided: of many, the most loaded is never picked, and the others still are, each.
func TestMostLoadedIsAvoided(t *testing.T) {
	t.Parallel()
	candidates := equalCandidates(20)
	for _, c := range candidates {
		c.inFlight.Store(int64(c.number))
	}
	counts := candidatePicks(t, candidates, anyone, 100_000)
	if counts[19] > 100_000/20/8 { // where it is all that was looked at, for the few are drawn with repetition
		t.Errorf("the most loaded was picked %d times", counts[19])
	}
	for number := 1; number < 19; number++ {
		if counts[number] == 0 || counts[number-1]*9 < counts[number]*8 {
			t.Errorf("picked %v: not falling with the load", counts)
			break
		}
	}
}

// TestLoadFollowsWeights: calls that last are spread so that each has in flight what its weight says.
func TestCandidateLoadFollowsWeights(t *testing.T) {
	t.Parallel()
	candidates := candidatesOf(1, 2, 3, 4)
	for range 1000 {
		chosen, _ := balancer.PowerOfTwo(candidates, anyone)
		chosen.inFlight.Add(1)
	}
	for _, c := range candidates {
		if want := 100 * c.weight; c.InFlight() < want-10 || c.InFlight() > want+10 {
			t.Errorf("weight %d has %d in flight, want about %d", c.weight, c.InFlight(), want)
		}
	}
}

// TestWeightZero: picked only where all that are allowed have weight 0, and then the less loaded.
func TestCandidateWeightZero(t *testing.T) {
	t.Parallel()
	candidates := candidatesOf(0, 0, 1)
	candidates[2].inFlight.Store(1000)
	expectCandidateShares(t, candidatePicks(t, candidates, anyone, 1000), []int64{0, 0, 1})
	notTheLast := func(c *candidate) bool { return c.number != 2 }
	expectCandidateShares(t, candidatePicks(t, candidates, notTheLast, 10_000), []int64{1, 1, 0})
	candidates[0].inFlight.Store(1)
	expectCandidateShares(t, candidatePicks(t, candidates, notTheLast, 1000), []int64{0, 1, 0})

	many := candidatesOf(append(slices.Repeat([]int64{0}, 999), 1)...) // rarely among the few that are looked at
	expectCandidateShares(t, candidatePicks(t, many, anyone, 2000), append(slices.Repeat([]int64{0}, 999), 1))
}

// TestAllowed: what is not allowed is never picked, however rare the rest, and none is if none is allowed.
func TestAllowed(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, 2, 3, 8, 9, 1000} {
		candidates := equalCandidates(count)
		for only := 0; only < count; only += max(1, count/3) {
			for range 100 {
				chosen, ok := balancer.PowerOfTwo(candidates, func(c *candidate) bool { return c.number == only })
				if !ok || chosen.number != only {
					t.Fatalf("%d candidates: got %v, %t, want %d", count, chosen, ok, only)
				}
			}
		}
		if chosen, ok := balancer.PowerOfTwo(candidates, func(*candidate) bool { return false }); ok || chosen != nil {
			t.Errorf("%d candidates, none allowed: got %v, %t", count, chosen, ok)
		}
	}
	if chosen, ok := balancer.PowerOfTwo(nil, anyone); ok || chosen != nil {
		t.Errorf("no candidates: got %v, %t", chosen, ok)
	}
	even := func(c *candidate) bool { return c.number%2 == 0 }
	weights := []int64{1, 0, 1, 0, 1, 0}
	expectCandidateShares(t, candidatePicks(t, equalCandidates(6), even, 10_000), weights)
}

// TestAllocations: none, also with a predicate that looks at its surroundings.
func TestCandidateAllocations(t *testing.T) {
	for _, count := range []int{3, 1000} {
		candidates := equalCandidates(count)
		tried := []*candidate{candidates[0]}
		avoid := [4]*candidate{candidates[1]}
		refused := 1
		if n := testing.AllocsPerRun(1000, func() {
			chosen, ok := balancer.PowerOfTwo(candidates, func(c *candidate) bool {
				return !slices.Contains(tried, c) && !slices.Contains(avoid[:refused], c)
			})
			if !ok || chosen == candidates[0] {
				t.Error("wrong pick")
			}
		}); n > 0 {
			t.Errorf("%d candidates: %v allocations", count, n)
		}
	}
}

func BenchmarkPowerOfTwo(b *testing.B) {
	for _, count := range []int{3, 100, 1000, 10_000} {
		candidates := equalCandidates(count)
		half := func(c *candidate) bool { return c.number%2 == 0 }
		for name, allowed := range map[string]func(*candidate) bool{"all": anyone, "half": half} {
			b.Run(fmt.Sprintf("candidates=%d/allowed=%s", count, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := balancer.PowerOfTwo(candidates, allowed); !ok {
						b.Fatal("none was picked")
					}
				}
			})
		}
	}
}

func expectCandidateShares(t *testing.T, counts []int, weights []int64) {
	t.Helper()
	shares := make([]int, len(weights))
	for at, weight := range weights {
		shares[at] = int(weight)
	}
	expectShares(t, counts, shares)
}
