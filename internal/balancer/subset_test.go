package balancer_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/0x1d/goplt/internal/balancer"
)

// subsetOf returns the IDs that a client uses.
func subsetOf(config balancer.Config, members []balancer.Member) []string {
	picker := balancer.New(config, members, nil)
	var used []string
	for at, member := range members {
		if picker.InSubset(at) {
			used = append(used, member.ID)
		}
	}
	return used
}

func client(nth, size int) balancer.Config {
	return balancer.Config{SubsetSize: size, SubsetKey: fmt.Sprint("client-", nth)}
}

// TestSubsetBoundsWhoIsUsed: as many as configured, whatever the policy, the same each time; and all without a size.
func TestSubsetBoundsWhoIsUsed(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		config := client(1, 20)
		config.Policy = policy
		members := equal(config, 1000)
		picker := balancer.New(config, members, nil)
		used := 0
		for at, count := range picks(t, picker, 1000, 10_000, all) {
			if count > 0 {
				used++
			}
			if count > 0 != picker.InSubset(at) {
				t.Errorf("%s: member %d was picked %d times, in the subset: %t", policy, at, count, picker.InSubset(at))
			}
		}
		if used != 20 {
			t.Errorf("%s: %d members were used, want 20", policy, used)
		}
		for _, size := range []int{0, 1000, 5000} {
			if got := len(subsetOf(client(1, size), members)); got != 1000 {
				t.Errorf("%s, size %d: %d in the subset, want all", policy, size, got)
			}
		}
	}
}

// TestSubsetMovesLittle: a change of the set moves only who left, and who had to make room, whatever the order of the members.
func TestSubsetMovesLittle(t *testing.T) {
	t.Parallel()
	members := equal(balancer.Config{}, 1000)
	changed := slices.Concat(members[10:], equal(balancer.Config{}, 1010)[1000:]) // 1 % leave, as many join
	slices.Reverse(changed)
	moved := 0
	for nth := range 100 {
		before, after := subsetOf(client(nth, 20), members), subsetOf(client(nth, 20), changed)
		for _, id := range before {
			if !slices.Contains(after, id) {
				moved++
			}
		}
	}
	if moved < 20 || moved > 60 { // a hundredth of 2000 left, and as many made room
		t.Errorf("%d of 2000 places in 100 subsets moved, want about 40", moved)
	}
}

// TestSubsetsFollowWeights: over all clients, each member gets calls in proportion to its weight, though a heavy one is in more subsets.
func TestSubsetsFollowWeights(t *testing.T) {
	t.Parallel()
	weights := slices.Repeat([]int{1}, 100)
	weights[0], weights[1], weights[2] = 300, 20, 5 // 427 in all
	counts := make([]int, len(weights))
	const clients, calls = 1000, 500
	members := weighing(balancer.Config{}, weights...)
	for nth := range clients {
		picker := balancer.New(client(nth, 10), members, nil)
		for at, count := range picks(t, picker, len(weights), calls, all) {
			counts[at] += count
		}
	}
	light := sum(counts[3:]) / 97
	for at, weight := range weights[:3] {
		want := clients * calls * weight / sum(weights)
		if counts[at] < want*85/100 || counts[at] > want*115/100 {
			t.Errorf("weight %d got %d calls, want about %d; weight 1 got %d", weight, counts[at], want, light)
		}
	}
}

// TestSubsetIsNoLimit: where too few of it are usable, others stand in, and not all others at once.
func TestSubsetIsNoLimit(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		config := client(1, 20)
		config.Policy = policy
		picker := balancer.New(config, equal(config, 1000), nil)
		outside := func(at int) bool { return !picker.InSubset(at) }
		used := 0
		for _, count := range picks(t, picker, 1000, 10_000, outside) {
			if count > 0 {
				used++
			}
		}
		if used != 20 {
			t.Errorf("%s: %d members stood in for a subset of 20, want 20", policy, used)
		}
		one := 0
		for !picker.InSubset(one) {
			one++
		}
		counts := picks(t, picker, 1000, 10_000, func(at int) bool { return at == one || !picker.InSubset(at) })
		if counts[one] > 10_000*4/20*11/10 {
			t.Errorf("%s: the only usable one of a subset of 20 got %d of 10000 calls, want at most four times its share", policy, counts[one])
		}
	}
}

// TestSubsetIsLocal but for a quarter, to which calls spill over.
func TestSubsetIsLocal(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ local, remote, size, wantLocal, wantRemote int }{
		{100, 100, 20, 15, 5},
		{3, 100, 20, 3, 17},
		{100, 3, 20, 17, 3},
		{5, 5, 20, 5, 5},
		{100, 0, 20, 20, 0},
		{0, 100, 20, 0, 20},
		{10, 10, 2, 1, 1},
		{10, 10, 1, 1, 1}, // one of each at least
	} {
		config := client(1, row.size)
		config.LocalZone = "a"
		members := zoned(config, row.local, row.remote)
		picker := balancer.New(config, members, nil)
		local, remote := 0, 0
		for at, member := range members {
			switch {
			case !picker.InSubset(at):
			case member.Zone == "a":
				local++
			default:
				remote++
			}
		}
		if local != row.wantLocal || remote != row.wantRemote {
			t.Errorf("%+v: %d local and %d remote", row, local, remote)
		}
	}
}
