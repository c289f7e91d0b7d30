package balancer_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// zoned returns members, of which the first few are in zone a and the others in b.
func zoned(config balancer.Config, local, remote int) []balancer.Member {
	members := equal(config, local+remote)
	for at := range members {
		members[at].Zone = "b"
		if at < local {
			members[at].Zone = "a"
		}
	}
	return members
}

func sum(counts []int) (total int) {
	for _, count := range counts {
		total += count
	}
	return total
}

// hashedPicks counts picks of calls with hashes.
func hashedPicks(picker *balancer.Picker, members, calls int, usable func(at int) bool) []int {
	counts, random := make([]int, members), rand.New(rand.NewPCG(1, 2))
	for range calls {
		counts[picker.Pick(balancer.Call{Hash: random.Uint64(), Hashed: true}, usable)]++
	}
	return counts
}

// TestLocalZone is preferred by every policy while its members are usable; without a zone, or with nobody in it, all share.
func TestLocalZone(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		local := balancer.Config{Policy: policy, LocalZone: "a"}
		picker := balancer.New(local, zoned(local, 4, 12), nil)
		for _, counts := range [][]int{picks(t, picker, 16, 10_000, all), hashedPicks(picker, 16, 10_000, all)} {
			if n := sum(counts[4:]); n > 0 {
				t.Errorf("%s: %d of 10000 calls left the zone", policy, n)
			}
		}
		expectShares(t, picks(t, picker, 16, 10_000, all)[:4], []int{1, 1, 1, 1})
		for _, zone := range []string{"", "elsewhere"} {
			nowhere := balancer.Config{Policy: policy, LocalZone: zone}
			counts := picks(t, balancer.New(nowhere, zoned(nowhere, 1, 3), nil), 4, 10_000, all)
			expectShares(t, counts, []int{1, 1, 1, 1})
		}
	}
}

// TestZoneSpillsOver where local members are not usable: the more, the more calls, and no local member gets more than twice its usual
// share.
func TestZoneSpillsOver(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		for _, broken := range []int{1, 5, 8, 9, 10} {
			config := balancer.Config{Policy: policy, LocalZone: "a"}
			picker := balancer.New(config, zoned(config, 10, 10), nil)
			usable := func(at int) bool { return at >= broken }
			const calls = 20_000
			counts := picks(t, picker, 20, calls, usable)
			away := float64(broken) / 10 // the chance that a draw finds nobody
			low, high := 0.8*away*away*calls-20, 1.2*away*away*calls+20
			if policy == balancer.RoundRobin { // which meets each broken one at its turn, at regular intervals
				low, high = 0, 1.25*away*calls
			}
			if n := float64(sum(counts[10:])); n < low || n > high {
				t.Errorf("%s with %d of 10 broken: %.0f of %d calls left the zone, want %.0f to %.0f", policy, broken, n, calls, low, high)
			}
			for at, count := range counts[:10] {
				if count > 2*calls/10*11/10 {
					t.Errorf("%s with %d of 10 broken: local member %d got %d of %d calls", policy, broken, at, count, calls)
				}
			}
			if broken == 10 {
				expectShares(t, counts[10:], []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
			}
		}
	}
}

// TestZoneOverload: calls are sent away while local members answer much later than remote ones, and no longer.
func TestZoneOverload(t *testing.T) {
	t.Parallel()
	for _, policy := range []balancer.Policy{balancer.P2C, balancer.RoundRobin, balancer.Random, balancer.LeastRequest} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			testZoneOverload(t, balancer.Config{Policy: policy, LocalZone: "a", SubsetKey: "client"})
		})
	}
}

func testZoneOverload(t *testing.T, config balancer.Config) {
	t.Helper()
	members := zoned(config, 2, 2)
	picker := balancer.New(config, members, nil)
	now, random := time.Now(), rand.New(rand.NewPCG(1, 2))
	local, remote := 10*time.Millisecond, 10*time.Millisecond
	// rounds of calls that are in flight together; it returns how many left the zone.
	rounds := func(count, together int) (away int) {
		for range count {
			var inFlight []int
			for range together {
				at := picker.Pick(balancer.Call{Now: now, Random: random.Uint64() | 1}, all)
				members[at].Stats.Begin()
				inFlight = append(inFlight, at)
			}
			now = now.Add(100 * time.Millisecond)
			for _, at := range inFlight {
				latency := local
				if at >= 2 {
					latency = remote
					away++
				}
				members[at].Stats.End(now, latency, balancer.OutcomeAnswered)
			}
		}
		return away
	}
	if away := rounds(100, 4); away > 0 {
		t.Errorf("a few callers: %d calls of 400 left the zone", away)
	}
	if away := rounds(100, 100); away > 20 { // those that see how fast remote ones are
		t.Errorf("many callers, none of them late: %d calls of 10000 left the zone", away)
	}
	local, remote = 200*time.Millisecond, 15*time.Millisecond
	rounds(5, 100)
	if away := rounds(100, 100); away < 5000 {
		t.Errorf("while local members are overloaded: %d calls of 10000 left the zone, want most", away)
	}
	local = 10 * time.Millisecond
	rounds(600, 100)
	if away := rounds(100, 100); away > 100 {
		t.Errorf("a minute after local members have recovered: %d calls of 10000 left the zone", away)
	}
}
