package simulation_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"text/tabwriter"

	"github.com/0x1d/goplt/internal/balancer"
)

// connections returns by client which members it uses, by ID.
func connections(clients, size int, members []balancer.Member) []map[string]bool {
	used := make([]map[string]bool, clients)
	for nth := range used {
		used[nth] = map[string]bool{}
		picker := balancer.New(balancer.Config{SubsetSize: size, SubsetKey: "client-" + strconv.Itoa(nth)}, members, nil)
		for at, member := range members {
			if picker.InSubset(at) {
				used[nth][member.ID] = true
			}
		}
	}
	return used
}

func idleMembers(from, to int) []balancer.Member {
	var members []balancer.Member
	for number := from; number < to; number++ {
		members = append(members, balancer.Member{ID: "instance-" + strconv.Itoa(number), Weight: 1, Stats: balancer.NewStats(balancer.Config{})})
	}
	return members
}

// TestSimulationSubsets: the connections of 100 clients to 1000 instances. Clients know nothing of each other, so connections are spread as by
// chance, and evenly where there are many per instance; and a change of one instance in a hundred moves two places in a hundred.
func TestSimulationSubsets(t *testing.T) {
	const clients, instances, changed = 100, 1000, 10
	fmt.Fprintf(t.Output(), "Subsets of %d clients among %d instances; then %d instances leave and %d others join\n", clients, instances, changed, changed)
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "subset\tconnections\tmean\tmax/mean\tmin/mean\tplaces moved\tat least\t")
	before, after := idleMembers(0, instances), idleMembers(changed, instances+changed)
	for _, row := range []struct {
		size        int
		mostAtMean  float64 // what max/mean may be
		leastAtMean float64
	}{{20, 5, 0}, {50, 3, 0}, {100, 2.5, 0.1}, {200, 2, 0.3}, {500, 1.5, 0.6}, {0, 1, 1}} {
		counts, moved, total := map[string]int{}, 0, 0
		then := connections(clients, row.size, after)
		for nth, used := range connections(clients, row.size, before) {
			for id := range used {
				counts[id]++
				total++
				if !then[nth][id] {
					moved++
				}
			}
		}
		var each []int
		for _, member := range before {
			each = append(each, counts[member.ID])
		}
		mean := float64(total) / instances
		most, least := float64(slices.Max(each))/mean, float64(slices.Min(each))/mean
		gone := 100 * changed / float64(instances)
		share := 100 * float64(moved) / float64(total)
		fmt.Fprintf(table, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.1f %%\t%.1f %%\t\n", sizeText(row.size), total, mean, most, least, share, gone)
		if want := clients * min(instances, max(row.size, instances*(1-min(1, row.size)))); total != want {
			t.Errorf("subsets of %d: %d connections, want %d", row.size, total, want)
		}
		if most > row.mostAtMean || least < row.leastAtMean {
			t.Errorf("subsets of %d: %.2f to %.2f times the mean, want %.2f to %.2f", row.size, least, most, row.leastAtMean, row.mostAtMean)
		}
		if share > 3*gone {
			t.Errorf("subsets of %d: %.1f %% of places moved, want about %.1f", row.size, share, 2*gone)
		}
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}

func sizeText(size int) string {
	if size == 0 {
		return "all"
	}
	return strconv.Itoa(size)
}
