package balancer_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

var roundRobin = balancer.Config{Policy: balancer.RoundRobin}

// TestRoundsAreExact: over any cycle, each member has exactly as many turns as its weight says.
func TestRoundsAreExact(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1}, {1, 1}, {5, 1, 1}, {2, 4, 6}, {1, 2, 3, 4, 5, 6, 7}, {65535, 1}, {1, 65535, 1, 30}, slices.Repeat([]int{3}, 100)} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			t.Parallel()
			picker := balancer.New(roundRobin, weighing(roundRobin, weights...), nil)
			cycle := 0
			for _, weight := range weights {
				cycle += weight
			}
			picks(t, picker, len(weights), rand.IntN(cycle), all) // begin anywhere
			if counts := picks(t, picker, len(weights), cycle, all); !slices.Equal(counts, weights) {
				t.Errorf("over a cycle: %v", counts)
			}
		})
	}
}

// TestRoundsAreStrict: of equal ones, each is taken once before any is taken again, also while some are not usable.
func TestRoundsAreStrict(t *testing.T) {
	t.Parallel()
	for _, count := range []int{2, 3, 10, 17} {
		picker := balancer.New(roundRobin, equal(roundRobin, count), nil)
		usable := func(at int) bool { return at%3 != 1 }
		remaining := 0
		for at := range count {
			if usable(at) {
				remaining++
			}
		}
		for round := range 20 {
			for at, n := range picks(t, picker, count, count, all) {
				if n != 1 {
					t.Fatalf("%d members, round %d: member %d was picked %d times", count, round, at, n)
				}
			}
		}
		for round := range 20 {
			for at, n := range picks(t, picker, count, remaining, usable) {
				if usable(at) && n != 1 {
					t.Fatalf("%d members, %d of them usable, round %d: member %d was picked %d times", count, remaining, round, at, n)
				}
			}
		}
	}
}

// TestRoundsAreSmooth: a heavy member's turns are spread over the cycle, a light one's too.
func TestRoundsAreSmooth(t *testing.T) {
	t.Parallel()
	weights := []int{10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1} // every second turn is the first's
	picker := balancer.New(roundRobin, weighing(roundRobin, weights...), nil)
	row, longest := 0, 0
	for range 200 {
		if picker.Pick(balancer.Call{}, all) == 0 {
			row++
			longest = max(longest, row)
		} else {
			row = 0
		}
	}
	if longest > 2 {
		t.Errorf("the heavy member was picked %d times in a row, want at most 2", longest)
	}
}

// TestRoundsBeginAnywhere, so that many clients do not march in step, but where the client's key says if it has one.
func TestRoundsBeginAnywhere(t *testing.T) {
	t.Parallel()
	begins := map[int]bool{}
	for range 100 {
		begins[balancer.New(roundRobin, equal(roundRobin, 10), nil).Pick(balancer.Call{}, all)] = true
	}
	if len(begins) < 5 {
		t.Errorf("100 rounds began at %d of 10 members", len(begins))
	}
	keyed := roundRobin
	keyed.SubsetKey = "client"
	one, other := balancer.New(keyed, equal(keyed, 10), nil), balancer.New(keyed, equal(keyed, 10), nil)
	if a, b := one.Pick(balancer.Call{}, all), other.Pick(balancer.Call{}, all); a != b {
		t.Errorf("two rounds of one key began at %d and at %d", a, b)
	}
}

// TestRoundGoesOn over an update of the set.
func TestRoundGoesOn(t *testing.T) {
	t.Parallel()
	members := equal(roundRobin, 10)
	picker := balancer.New(roundRobin, members, nil)
	counts := make([]int, 10)
	for range 10 {
		counts[picker.Pick(balancer.Call{}, all)]++
		picker = balancer.New(roundRobin, members, picker)
	}
	if !slices.Equal(counts, slices.Repeat([]int{1}, 10)) {
		t.Errorf("a round with an update before each turn: %v", counts)
	}
}

// TestRoundsOfMany callers at once are exact too.
func TestRoundsOfMany(t *testing.T) {
	t.Parallel()
	weights := []int{1, 2, 3, 4}
	picker := balancer.New(roundRobin, weighing(roundRobin, weights...), nil)
	var counts [4]atomic.Int64
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 1000 {
				counts[picker.Pick(balancer.Call{}, all)].Add(1)
			}
		})
	}
	wg.Wait()
	for at, weight := range weights {
		if got := counts[at].Load(); got != int64(1000*weight) {
			t.Errorf("member %d of weight %d was picked %d times of 10000", at, weight, got)
		}
	}
}

// TestRoundsStartSlowly: a newcomer's turns are passed on until its time has come.
func TestRoundsStartSlowly(t *testing.T) {
	t.Parallel()
	config := balancer.Config{Policy: balancer.RoundRobin, SlowStart: 10 * time.Second}
	members := equal(config, 4)
	picker := balancer.New(config, members, nil)
	begin := time.Now()
	members[1].Stats.StartSlowly(begin)
	for _, row := range []struct {
		after time.Duration
		share int // per cent of its weight
	}{{0, 10}, {500 * time.Millisecond, 10}, {2 * time.Second, 20}, {5 * time.Second, 50}, {10 * time.Second, 100}, {time.Hour, 100}} {
		counts, random := make([]int, 4), rand.New(rand.NewPCG(1, 2))
		for range 20_000 {
			counts[picker.Pick(balancer.Call{Now: begin.Add(row.after), Random: random.Uint64() | 1}, all)]++
		}
		expectShares(t, counts, []int{100, row.share, 100, 100})
	}
}
