package balancer_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// owners returns the IDs of the members that keys belong to while nothing is in flight.
func owners(config balancer.Config, members []balancer.Member, keys int) []string {
	picker := balancer.New(config, members, nil)
	owned := make([]string, keys)
	for key := range owned {
		owned[key] = members[picker.Pick(balancer.Call{Hash: balancer.Hash(fmt.Sprint("key-", key)), Hashed: true}, all)].ID
	}
	return owned
}

func moved(before, after []string) (count int) {
	for key := range before {
		if before[key] != after[key] {
			count++
		}
	}
	return count
}

// TestOwners: all clients agree on them, whatever the order of the members.
func TestOwners(t *testing.T) {
	t.Parallel()
	config := balancer.Config{Policy: balancer.ConsistentHash}
	members := weighing(config, 1, 2, 3, 4, 5, 6, 7)
	one := owners(config, members, 1000)
	slices.Reverse(members)
	if n := moved(one, owners(config, members, 1000)); n != 0 {
		t.Errorf("%d of 1000 keys have another owner in another order", n)
	}
}

// TestOwnersFollowWeights within what 64 points each are good for.
func TestOwnersFollowWeights(t *testing.T) {
	t.Parallel()
	config := balancer.Config{Policy: balancer.ConsistentHash}
	weights := make([]int, 50)
	total := 0
	for at := range weights {
		weights[at] = 1 + at%5
		total += weights[at]
	}
	const keys = 100_000
	members := weighing(config, weights...)
	counts := map[string]int{}
	for _, owner := range owners(config, members, keys) {
		counts[owner]++
	}
	for _, member := range members {
		want := float64(keys*member.Weight) / float64(total)
		if got := float64(counts[member.ID]); math.Abs(got-want) > 0.6*want {
			t.Errorf("%s of weight %d owns %.0f keys, want about %.0f", member.ID, member.Weight, got, want)
		}
	}
}

// TestFewKeysMove when the set changes: those of a member that left, and none to others than one that joined.
func TestFewKeysMove(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	config := balancer.Config{Policy: balancer.ConsistentHash}
	for _, count := range []int{2, 10, 100, 1000} {
		members := equal(config, count)
		before := owners(config, members, keys)
		joined := owners(config, append(slices.Clone(members), balancer.Member{ID: "new", Weight: 1, Stats: balancer.NewStats(config)}), keys)
		for key := range before {
			if before[key] != joined[key] && joined[key] != "new" {
				t.Fatalf("%d members: key %d went from %s to %s when another joined", count, key, before[key], joined[key])
			}
		}
		gone := members[count/2].ID
		left := owners(config, slices.Concat(members[:count/2], members[count/2+1:]), keys)
		for key := range before {
			if before[key] != left[key] && before[key] != gone {
				t.Fatalf("%d members: key %d went from %s to %s when %s left", count, key, before[key], left[key], gone)
			}
		}
		for _, n := range []int{moved(before, joined), moved(before, left)} {
			if share := float64(n) * float64(count) / keys; share < 0.4 || share > 1.8 {
				t.Errorf("%d members: %d of %d keys moved, want about %d", count, n, keys, keys/count)
			}
		}
	}
}

// TestUnusableOwner: the others keep their keys, and its own go to many.
func TestUnusableOwner(t *testing.T) {
	t.Parallel()
	config := balancer.Config{Policy: balancer.ConsistentHash}
	picker := balancer.New(config, equal(config, 20), nil)
	heirs := map[int]bool{}
	for key := range 2000 {
		call := balancer.Call{Hash: balancer.Hash(fmt.Sprint(key)), Hashed: true}
		owner := picker.Pick(call, all)
		substitute := picker.Pick(call, func(at int) bool { return at != 7 })
		if owner != 7 && substitute != owner {
			t.Fatalf("key %d went from %d to %d though only 7 is not usable", key, owner, substitute)
		}
		if owner == 7 {
			heirs[substitute] = true
		}
		few := func(at int) bool { return at%10 == 0 }
		if a, b := picker.Pick(call, few), picker.Pick(call, few); a != b {
			t.Fatalf("key %d went to %d and to %d of the few that are usable", key, a, b)
		}
	}
	if len(heirs) < 10 {
		t.Errorf("the keys of one went to %d others, want most of 19", len(heirs))
	}
}

// TestBoundedLoad: however hot a key, no member has more in flight than 1.25 times its share, rounded up.
func TestBoundedLoad(t *testing.T) {
	t.Parallel()
	for _, balance := range []float64{0, 1.25, 2} {
		config := balancer.Config{Policy: balancer.ConsistentHash, HashBalance: balance}
		weights := []int{1, 1, 2, 4, 8, 1, 1, 1, 1}
		members := weighing(config, weights...)
		picker := balancer.New(config, members, nil)
		now, hot := time.Now(), balancer.Hash("hot")
		bound := max(balance, 1.25)
		for total := range 1000 {
			now = now.Add(10 * time.Microsecond) // several calls between two sums of what is in flight
			call := balancer.Call{Now: now, Hash: hot, Hashed: true}
			at := picker.Pick(call, all)
			members[at].Stats.Begin()
			if got, most := members[at].Stats.InFlight(), math.Ceil(bound*float64(total+1)*float64(weights[at])/20); float64(got) > most {
				t.Fatalf("with %d in flight, member %d of weight %d has %d, want at most %.0f", total+1, at, weights[at], got, most)
			}
		}
		owner := picker.Pick(balancer.Call{Now: now.Add(time.Hour), Hash: hot, Hashed: true}, all)
		for _, member := range members {
			for member.Stats.InFlight() > 0 {
				member.Stats.End(now, 0, balancer.OutcomeNone)
			}
		}
		now = now.Add(2 * time.Hour)
		first := picker.Pick(balancer.Call{Now: now, Hash: hot, Hashed: true}, all)
		if again := picker.Pick(balancer.Call{Now: now, Hash: hot, Hashed: true}, all); again != first {
			t.Errorf("idle again, the key is %d's and %d's (%d's under load)", first, again, owner)
		}
	}
}

// TestKeysMoveOnceInSlowStart: a newcomer takes over its keys one after the other, and each stays with it.
func TestKeysMoveOnceInSlowStart(t *testing.T) {
	t.Parallel()
	config := balancer.Config{Policy: balancer.ConsistentHash, SlowStart: 10 * time.Second}
	members := equal(config, 5)
	picker := balancer.New(config, members, nil)
	begin := time.Now()
	members[2].Stats.StartSlowly(begin)
	const keys = 5000
	taken := map[int]bool{}
	counts := []int{}
	for second := range 11 {
		for key := range keys {
			call := balancer.Call{Now: begin.Add(time.Duration(second) * time.Second), Hash: balancer.Hash(fmt.Sprint(key)), Hashed: true}
			switch at := picker.Pick(call, all); {
			case at == 2:
				taken[key] = true
			case taken[key]:
				t.Fatalf("key %d went to the newcomer and away again", key)
			}
		}
		counts = append(counts, len(taken))
	}
	for second, count := range counts {
		want := float64(counts[10]) * max(0.1, float64(second)/10)
		if math.Abs(float64(count)-want) > 0.1*float64(counts[10]) {
			t.Errorf("after %d s the newcomer has %d keys, want about %.0f of %d", second, count, want, counts[10])
		}
	}
}
