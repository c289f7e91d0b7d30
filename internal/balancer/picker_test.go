package balancer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// members returns members with the weights, of whose latency nothing is known.
func members(config balancer.Config, weights ...int) []balancer.Member {
	all := make([]balancer.Member, len(weights))
	for at, weight := range weights {
		all[at] = balancer.Member{ID: fmt.Sprintf("instance-%04d", at), Weight: weight, Stats: balancer.NewStats(config)}
	}
	return all
}

func all(int) bool { return true }

// TestIdleMembers get the shares that their weights say.
func TestIdleMembers(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1}, {1, 1}, {1, 3}, {10, 1, 5}, {65535, 1, 65535}, {0, 1, 3}, {5, 0, 0, 5}, {0, 0}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			t.Parallel()
			picker := balancer.New(balancer.Config{}, members(balancer.Config{}, weights...), nil)
			counts, shares := make([]int, len(weights)), make([]int64, len(weights))
			for range 30_000 {
				counts[picker.Pick(balancer.Call{}, all)]++
			}
			for at, weight := range weights {
				shares[at] = int64(weight)
				if len(weights) == 2 && weights[0] == 0 && weights[1] == 0 {
					shares[at] = 1
				}
			}
			expectShares(t, counts, shares)
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for _, count := range []int{3, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("p2c/members=%d", count), func(b *testing.B) {
			now := time.Now()
			weights := make([]int, count)
			for at := range weights {
				weights[at] = 1 + at%7
			}
			set := members(balancer.Config{}, weights...)
			for _, member := range set {
				for range 3 {
					member.Stats.Begin()
					member.Stats.End(now, time.Millisecond, balancer.OutcomeAnswered)
				}
			}
			picker := balancer.New(balancer.Config{}, set, nil)
			tried := -1
			b.ReportAllocs()
			for b.Loop() {
				tried = picker.Pick(balancer.Call{Now: now}, func(at int) bool { return at != tried })
			}
		})
	}
}
