//go:build integration && linux

package chaos_test

import (
	"reflect"
	"testing"
	"time"
)

// TestSchedule: a seed is a schedule, in which everything breaks in time, most instances at once now and then, and never all.
func TestSchedule(t *testing.T) {
	const length = 5 * time.Minute
	often := make(map[*kind]int)
	const seeds = 50
	for seed := range uint64(seeds) {
		schedule := newSchedule(seed, length, fleet)
		if !reflect.DeepEqual(schedule, newSchedule(seed, length, fleet)) {
			t.Fatalf("seed %d: two schedules", seed)
		}
		most := 0
		for _, f := range schedule {
			often[f.kind]++
			if f.from < 0 || f.until <= f.from || f.until > length {
				t.Errorf("seed %d: fault %d lasts from %v to %v", seed, f.number, f.from, f.until)
			}
			if f.kind.rejoins && f.until < length && agentIsOut(schedule, f.until, f.until) {
				t.Errorf("seed %d: fault %d is to end by a registration at %v, when there is no agent", seed, f.number, f.until)
			}
			most = max(most, len(fleet)-healthyAt(schedule, f.from))
			if healthyAt(schedule, f.from) == 0 {
				t.Errorf("seed %d: with fault %d, at %v, none is healthy", seed, f.number, f.from)
			}
		}
		if most < len(fleet)-1 {
			t.Errorf("seed %d: there are never more than %d that are not healthy", seed, most)
		}
	}
	for _, kind := range kinds {
		if often[kind] < seeds {
			t.Errorf("in %d schedules, an instance is %s %d times", seeds, kind.name, often[kind])
		}
	}
}

// healthyAt returns how many instances are healthy just after a time: nothing is wrong with them, nor was for some time in which there was an agent to
// tell of it.
func healthyAt(schedule []fault, when time.Duration) (healthy int) {
	for number := range fleet {
		well := true
		for _, f := range schedule {
			if f.target != number || f.from > when {
				continue
			}
			since := f.until
			for _, other := range schedule {
				if other.target == agentTarget && other.from <= min(when, f.until+news) && other.until >= f.from {
					since = max(since, other.until)
				}
			}
			well = well && when >= since+recovery
		}
		if well {
			healthy++
		}
	}
	return healthy
}

func agentIsOut(schedule []fault, from, until time.Duration) bool {
	for _, f := range schedule {
		if f.target == agentTarget && f.from <= until && f.until >= from {
			return true
		}
	}
	return false
}
