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

var policies = []balancer.Policy{balancer.P2C, balancer.RoundRobin, balancer.Random, balancer.LeastRequest, balancer.ConsistentHash}

// weighing returns members with the weights, of whose latency nothing is known.
func weighing(config balancer.Config, weights ...int) []balancer.Member {
	members := make([]balancer.Member, len(weights))
	for at, weight := range weights {
		members[at] = balancer.Member{ID: fmt.Sprintf("instance-%04d", at), Weight: weight, Stats: balancer.NewStats(config)}
	}
	return members
}

func equal(config balancer.Config, count int) []balancer.Member {
	return weighing(config, slices.Repeat([]int{1}, count)...)
}

func all(int) bool { return true }

// picks counts how often each member is picked, by the same chance each time.
func picks(t *testing.T, picker *balancer.Picker, members, calls int, usable func(at int) bool) []int {
	t.Helper()
	counts := make([]int, members)
	random, now := rand.New(rand.NewPCG(1, 2)), time.Now()
	for range calls {
		at := picker.Pick(balancer.Call{Now: now, Random: random.Uint64() | 1}, usable)
		if at < 0 {
			t.Fatal("none was picked")
		}
		if !usable(at) {
			t.Fatalf("member %d was picked, which is not usable", at)
		}
		counts[at]++
	}
	return counts
}

// TestIdleMembers get the shares that their weights say, also where some are not usable.
func TestIdleMembers(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		for _, weights := range [][]int{
			{1},
			{1, 1},
			{1, 1, 1},
			{1, 3},
			{10, 1, 5},
			{65535, 1, 65535},
			{1, 2, 3, 4, 5, 6, 7, 8},
			{0, 1, 3},
			{5, 0, 0, 5},
			slices.Repeat([]int{7}, 9), append(slices.Repeat([]int{1}, 50), slices.Repeat([]int{3}, 50)...),
		} {
			t.Run(fmt.Sprint(policy, weights), func(t *testing.T) {
				t.Parallel()
				config := balancer.Config{Policy: policy}
				picker := balancer.New(config, weighing(config, weights...), nil)
				expectShares(t, picks(t, picker, len(weights), 30_000, all), weights)
				if len(weights) < 3 {
					return
				}
				remaining := slices.Clone(weights)
				for at := range weights[1:] {
					if at%3 == 1 {
						remaining[at] = 0
					}
				}
				usable := func(at int) bool { return remaining[at] > 0 }
				expectShares(t, picks(t, picker, len(weights), 30_000, usable), remaining)
			})
		}
	}
}

// TestWeightZero: picked only where all usable ones have weight 0.
func TestWeightZero(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		config := balancer.Config{Policy: policy}
		picker := balancer.New(config, weighing(config, 0, 0, 1), nil)
		expectShares(t, picks(t, picker, 3, 1000, all), []int{0, 0, 1})
		expectShares(t, picks(t, picker, 3, 10_000, func(at int) bool { return at != 2 }), []int{1, 1, 0})
		none := balancer.New(config, weighing(config, 0, 0), nil)
		expectShares(t, picks(t, none, 2, 10_000, all), []int{1, 1})
		rare := balancer.New(config, weighing(config, append(slices.Repeat([]int{0}, 999), 1)...), nil)
		expectShares(t, picks(t, rare, 1000, 1000, all), append(slices.Repeat([]int{0}, 999), 1))
	}
}

// TestUsable: who is not is never picked, however rare the rest, and none is if none is usable.
func TestUsable(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		for _, config := range []balancer.Config{
			{Policy: policy},
			{Policy: policy, LocalZone: "a"},
			{Policy: policy, SubsetSize: 5, SubsetKey: "client"},
			{Policy: policy, SubsetSize: 5, SubsetKey: "client", LocalZone: "a"},
			{Policy: policy, SubsetSize: 1, LocalZone: "b"},
		} {
			for _, count := range []int{1, 2, 3, 8, 9, 200} {
				members := equal(config, count)
				for at := range members {
					members[at].Zone = string(rune('a' + at%3))
					members[at].Weight = at % 4
				}
				picker := balancer.New(config, members, nil)
				for only := range count {
					for _, hashed := range []bool{false, true} {
						call := balancer.Call{Hash: rand.Uint64(), Hashed: hashed}
						if at := picker.Pick(call, func(at int) bool { return at == only }); at != only {
							t.Fatalf("%+v, %d members: picked %d, want %d", config, count, at, only)
						}
					}
				}
				if at := picker.Pick(balancer.Call{Hashed: true}, func(int) bool { return false }); at != -1 {
					t.Errorf("%+v, %d members, none usable: picked %d", config, count, at)
				}
			}
			if at := balancer.New(config, nil, nil).Pick(balancer.Call{}, all); at != -1 {
				t.Errorf("%+v, no members: picked %d", config, at)
			}
		}
	}
}

// TestUnusableAreNotSearched: a pick looks at a few members while most are usable, however many there are.
func TestUnusableAreNotSearched(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		config := balancer.Config{Policy: policy}
		picker := balancer.New(config, equal(config, 3000), nil)
		asked := 0
		for range 1000 {
			picker.Pick(balancer.Call{Hash: rand.Uint64(), Hashed: true}, func(at int) bool {
				asked++
				return at%10 != 0
			})
		}
		if asked > 4000 {
			t.Errorf("%s asked for %d members in 1000 picks", policy, asked)
		}
	}
}

// TestAllocations: none, also with a function that looks at its surroundings.
func TestAllocations(t *testing.T) {
	for _, policy := range policies {
		for _, config := range []balancer.Config{{Policy: policy}, {Policy: policy, LocalZone: "a", SubsetSize: 20, SlowStart: time.Minute}} {
			for _, count := range []int{3, 1000} {
				members := equal(config, count)
				members[1].Zone = "a"
				members[2].Stats.StartSlowly(time.Now())
				picker := balancer.New(config, members, nil)
				tried, hash := []int{0}, uint64(0)
				if n := testing.AllocsPerRun(1000, func() {
					hash += 1 << 50
					at := picker.Pick(balancer.Call{Hash: hash, Hashed: true}, func(at int) bool { return !slices.Contains(tried, at) })
					members[at].Stats.Begin()
					members[at].Stats.End(time.Now(), time.Millisecond, balancer.OutcomeAnswered)
				}); n > 0 {
					t.Errorf("%+v, %d members: %v allocations", config, count, n)
				}
			}
		}
	}
}

// TestConcurrentUse is for the race detector, and shows that no attempt is counted twice or lost.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		config := balancer.Config{Policy: policy, LocalZone: "a", SubsetSize: 4, SlowStart: time.Millisecond}
		members := equal(config, 10)
		members[3].Zone = "a"
		var current atomic.Pointer[balancer.Picker]
		current.Store(balancer.New(config, members, nil))
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				for nth := range 1000 {
					at := current.Load().Pick(balancer.Call{Hash: rand.Uint64(), Hashed: true}, func(at int) bool { return at != worker })
					members[at].Stats.Begin()
					if nth%100 == 0 {
						members[at].Stats.StartSlowly(time.Now())
						current.Store(balancer.New(config, members, current.Load()))
					}
					members[at].Stats.End(time.Now(), time.Duration(nth)*time.Microsecond, balancer.Outcome(nth%4))
				}
			})
		}
		wg.Wait()
		for at, member := range members {
			if left := member.Stats.InFlight(); left != 0 {
				t.Errorf("%s: member %d has %d in flight at the end", policy, at, left)
			}
		}
	}
}

// TestRandomIsRepeatable: with the same numbers for chance, the same members are picked.
func TestRandomIsRepeatable(t *testing.T) {
	t.Parallel()
	for _, policy := range []balancer.Policy{balancer.P2C, balancer.Random, balancer.LeastRequest} {
		picker := balancer.New(balancer.Config{Policy: policy}, equal(balancer.Config{}, 1000), nil)
		for seed := uint64(1); seed < 100; seed++ {
			call := balancer.Call{Random: seed}
			if a, b := picker.Pick(call, all), picker.Pick(call, all); a != b {
				t.Fatalf("%s with %d: picked %d, then %d", policy, seed, a, b)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range policies {
		for _, count := range []int{3, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/members=%d", policy, count), func(b *testing.B) {
				config := balancer.Config{Policy: policy}
				now := time.Now()
				members := equal(config, count)
				for at := range members {
					members[at].Weight = 1 + at%7
					for range 3 {
						members[at].Stats.Begin()
						members[at].Stats.End(now, time.Millisecond, balancer.OutcomeAnswered)
					}
				}
				picker, broken, hash := balancer.New(config, members, nil), -1, uint64(0)
				b.ReportAllocs()
				for b.Loop() {
					hash += 0x9e3779b97f4a7c15
					if picker.Pick(balancer.Call{Now: now, Hash: hash, Hashed: true}, func(at int) bool { return at != broken }) < 0 {
						b.Fatal("none was picked")
					}
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, policy := range policies {
		for _, count := range []int{3, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/members=%d", policy, count), func(b *testing.B) {
				config := balancer.Config{Policy: policy}
				members := equal(config, count)
				b.ReportAllocs()
				for b.Loop() {
					balancer.New(config, members, nil)
				}
			})
		}
	}
}
