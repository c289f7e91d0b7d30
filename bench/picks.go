package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
)

// pickCell is what a pick costs among so many instances.
type pickCell struct {
	Setting   string  `json:"setting"`
	Instances int     `json:"instances"`
	Nanos     float64 `json:"cpu_ns_per_pick"`
	Allocs    int64   `json:"allocs_per_pick"`
	Bytes     int64   `json:"bytes_per_pick"`
}

// cpuNanos is the metric that counts: time of this process on a CPU, so that what else the machine does is not taken for the pick's.
const cpuNanos = "cpu-ns/op"

// The targets of a pick with the default policy.
const (
	targetNanos     = 100
	targetInstances = 1000
)

// pickSettings are the policies alone, and the default one with all that can be asked of it.
func pickSettings() []struct {
	name   string
	config balancer.Config
} {
	return []struct {
		name   string
		config balancer.Config
	}{
		{"p2c", balancer.Config{Policy: balancer.P2C}},
		{"round_robin", balancer.Config{Policy: balancer.RoundRobin}},
		{"random", balancer.Config{Policy: balancer.Random}},
		{"least_request", balancer.Config{Policy: balancer.LeastRequest}},
		{"consistent_hash", balancer.Config{Policy: balancer.ConsistentHash}},
		{"p2c, zones, slow start", balancer.Config{LocalZone: "a", SlowStart: time.Minute}},
		{"p2c, subset of 20", balancer.Config{SubsetSize: 20, SubsetKey: "client"}},
	}
}

func runPicks(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench picks", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	duration := flags.Duration("d", 200*time.Millisecond, "`duration` of a cell: one setting at one number of instances in one round")
	rounds := flags.Int("rounds", 5, "`number` of rounds, of which the median counts")
	instances := flags.String("instances", "3,100,1000,10000", "`list` of the numbers of instances")
	asJSON := flags.Bool("json", false, "print JSON")
	err := flags.Parse(arguments)
	var counts []int
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, "usage: bench picks [flags]\n\nFlags:\n")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return exitOK
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: picks takes flags only, see bench picks -h", flags.Arg(0))
	case *duration < time.Millisecond:
		err = fmt.Errorf("-d %v: want a duration of at least 1ms, such as 200ms", *duration)
	case *rounds < 1:
		err = fmt.Errorf("-rounds %d: want 1 or more, best an odd number", *rounds)
	default:
		counts, err = parseInstances(*instances)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	cells, err := measurePicks(ctx, counts, *rounds, *duration)
	if err == nil {
		if *asJSON {
			encoder := json.NewEncoder(stdout)
			encoder.SetIndent("", "  ")
			err = encoder.Encode(cells)
		} else {
			err = writePicks(stdout, cells, *rounds)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	return exitOK
}

func parseInstances(list string) ([]int, error) {
	const most = 1_000_000
	var counts []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("-instances %q: %q is not a number within 1 to %d; want a list such as 3,1000", list, text, most)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// measurePicks measures every cell once per round, so that a slow minute of the machine falls on all of them.
func measurePicks(ctx context.Context, counts []int, rounds int, duration time.Duration) ([]pickCell, error) {
	testing.Init() // for the flag that sets how long testing.Benchmark takes
	if err := flag.Set("test.benchtime", duration.String()); err != nil {
		return nil, err
	}
	var cells []pickCell
	samples := map[pickCell][]float64{}
	for range rounds {
		for _, setting := range pickSettings() {
			for _, count := range counts {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				key := pickCell{Setting: setting.name, Instances: count}
				measured := testing.Benchmark(benchmarkPick(setting.config, count))
				if measured.N == 0 {
					return nil, fmt.Errorf("%s, %d instances: nobody was picked", setting.name, count)
				}
				if samples[key] = append(samples[key], measured.Extra[cpuNanos]); len(samples[key]) == 1 {
					key.Allocs, key.Bytes = measured.AllocsPerOp(), measured.AllocedBytesPerOp()
					cells = append(cells, key)
				}
			}
		}
	}
	for nth, cell := range cells {
		all := samples[pickCell{Setting: cell.Setting, Instances: cell.Instances}]
		slices.Sort(all)
		cells[nth].Nanos = all[len(all)/2]
	}
	return cells, nil
}

// benchmarkPick picks among instances whose weights, latencies and calls in flight differ, of which one is not usable.
func benchmarkPick(config balancer.Config, count int) func(b *testing.B) {
	now := time.Now()
	members := make([]balancer.Member, count)
	for at := range members {
		stats := balancer.NewStats(config)
		for range 3 {
			stats.Begin()
			stats.End(now, time.Duration(1+at%20)*time.Millisecond, balancer.OutcomeAnswered)
		}
		for range at % 4 {
			stats.Begin()
		}
		members[at] = balancer.Member{ID: "instance-" + strconv.Itoa(at), Weight: 1 + at%10, Zone: string(rune('a' + at%3)), Stats: stats}
	}
	if count > 1 {
		members[1].Stats.StartSlowly(now)
	}
	picker, broken := balancer.New(config, members, nil), count/2
	usable := func(at int) bool { return at != broken || count == 1 }
	return func(b *testing.B) { //nolint:thelper // the benchmark itself
		b.ReportAllocs()
		before := currentUsage()
		call := balancer.Call{Now: now, Hashed: true}
		for b.Loop() {
			call.Hash += 0x9e3779b97f4a7c15
			if picker.Pick(call, usable) < 0 {
				b.FailNow()
			}
		}
		b.ReportMetric(float64(currentUsage().since(before).CPU.Nanoseconds())/float64(b.N), cpuNanos)
	}
}

// writePicks prints a row per setting, and whether the default policy meets its targets.
func writePicks(w io.Writer, cells []pickCell, rounds int) error {
	var out strings.Builder
	about := thisMachine()
	fmt.Fprintf(&out, "%s, %s, GOMAXPROCS %d, %s\n", about.CPU, about.OS, about.GOMAXPROCS, about.Go)
	fmt.Fprintf(&out, "median of %d rounds: CPU ns per pick (allocations)\n\n", rounds)
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var verdicts []string
	for nth, cell := range cells {
		if nth == 0 {
			fmt.Fprint(table, "instances\t")
			for _, column := range cells {
				if column.Setting == cell.Setting {
					fmt.Fprintf(table, "%d\t", column.Instances)
				}
			}
		}
		if nth == 0 || cells[nth-1].Setting != cell.Setting {
			fmt.Fprintf(table, "\n%s\t", cell.Setting)
		}
		fmt.Fprintf(table, "%.0f (%d)\t", cell.Nanos, cell.Allocs)
		if cell.Setting == string(balancer.P2C) && cell.Instances == targetInstances {
			met := cell.Nanos <= targetNanos && cell.Allocs == 0
			verdicts = append(verdicts, fmt.Sprintf("target: p2c at %d instances: %.0f ns, %d allocations; at most %d ns, 0 allocations: %s\n",
				cell.Instances, cell.Nanos, cell.Allocs, targetNanos, map[bool]string{true: "met", false: "MISSED"}[met]))
		}
	}
	fmt.Fprintln(table)
	_ = table.Flush() // out is a strings.Builder, which does not fail
	out.WriteString(strings.Join(verdicts, ""))
	_, err := io.WriteString(w, out.String())
	return err
}
