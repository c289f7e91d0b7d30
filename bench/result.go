package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// result is what the measurement says.
type result struct {
	Machine  machine       `json:"machine"`
	Rounds   int           `json:"rounds"`
	Cell     string        `json:"cell_duration"`
	Deadline string        `json:"call_deadline"`
	Cells    []cellSummary `json:"cells"`
	Targets  []target      `json:"targets"`
}

// cellSummary is what the rounds of one cell say together.
type cellSummary struct {
	Peer    string `json:"peer"`
	Callers int    `json:"callers"`
	// Median of the rounds.
	Median values `json:"median"`
	// Ratio to grpc-go: the median of the rounds' ratios; nil if grpc-go was not measured.
	Ratio  *values  `json:"ratio_to_grpc_go,omitempty"`
	Rounds []values `json:"rounds"`
}

// machine is what the numbers depend on.
type machine struct {
	CPU        string            `json:"cpu"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	Go         string            `json:"go"`
	OS         string            `json:"os"`
	Modules    map[string]string `json:"modules"`
}

// target is something that the project promises of its overhead.
type target struct {
	Name    string  `json:"name"`
	Callers int     `json:"callers"`
	Value   float64 `json:"value"`
	Limit   float64 `json:"limit"`
	Met     bool    `json:"met"`
}

// What the whole stack may cost: a tenth of the throughput of bare connect-go, and allocations for the snapshot, the deadline of the
// attempt, the message's mapping and the record of the call; over JSON, a fifth of the throughput of what one would write by hand.
const (
	leastOfConnect  = 0.90
	mostExtraAllocs = 15
	leastOfNetHTTP  = 0.80
)

func summarize(p plan, m measured) result {
	r := result{Machine: thisMachine(), Rounds: p.rounds, Cell: p.duration.String(), Deadline: p.deadline.String(), Targets: []target{}}
	for _, callers := range p.callers {
		base := m[cell{grpcGo, callers}]
		for _, peer := range p.peers {
			rounds := m[cell{peer.name, callers}]
			summary := cellSummary{Peer: peer.name, Callers: callers, Median: medians(rounds), Rounds: rounds}
			if base != nil {
				ratio := medians(pairwise(rounds, base, ratioOf))
				summary.Ratio = &ratio
			}
			r.Cells = append(r.Cells, summary)
		}
		r.Targets = append(r.Targets, targetsAt(m, callers)...)
	}
	return r
}

// targetsAt returns the targets of which both peers were measured.
func targetsAt(m measured, callers int) []target {
	ours, bare := m[cell{gopltGRPC, callers}], m[cell{connectGRPC, callers}]
	oursJSON, byHand := m[cell{gopltJSON, callers}], m[cell{netHTTPJSON, callers}]
	var targets []target
	if ours != nil && bare != nil {
		ratio := medians(pairwise(ours, bare, ratioOf))[metricRate]
		extra := medians(pairwise(ours, bare, difference))[metricClientAllocs]
		targets = append(targets,
			target{gopltGRPC + " / " + connectGRPC + ", calls per second", callers, ratio, leastOfConnect, ratio >= leastOfConnect},
			target{gopltGRPC + " - " + connectGRPC + ", client allocations per call", callers, extra, mostExtraAllocs, extra <= mostExtraAllocs})
	}
	if oursJSON != nil && byHand != nil {
		ratio := medians(pairwise(oursJSON, byHand, ratioOf))[metricRate]
		targets = append(targets,
			target{gopltJSON + " / " + netHTTPJSON + ", calls per second", callers, ratio, leastOfNetHTTP, ratio >= leastOfNetHTTP})
	}
	return targets
}

// medians returns the median of each metric.
func medians(rounds []values) values {
	var result values
	column := make([]float64, len(rounds))
	for metric := range metricCount {
		for i, round := range rounds {
			column[i] = round[metric]
		}
		result[metric] = median(column)
	}
	return result
}

// median sorts numbers, of which there must be one or more.
func median(numbers []float64) float64 {
	slices.Sort(numbers)
	middle := len(numbers) / 2
	if len(numbers)%2 == 0 {
		return (numbers[middle-1] + numbers[middle]) / 2
	}
	return numbers[middle]
}

// pairwise applies operation to each metric of the rounds that were measured one after the other, which cancels out how fast the
// machine was at that time.
func pairwise(rounds, base []values, operation func(a, b float64) float64) []values {
	result := make([]values, len(rounds))
	for i := range rounds {
		for metric := range metricCount {
			result[i][metric] = operation(rounds[i][metric], base[i][metric])
		}
	}
	return result
}

func difference(a, b float64) float64 { return a - b }

// ratioOf returns 0, which JSON can hold, where there is no ratio.
func ratioOf(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func thisMachine() machine {
	m := machine{
		CPU: cpuModel(), GOMAXPROCS: runtime.GOMAXPROCS(0), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Modules: map[string]string{},
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range build.Deps {
			switch dependency.Path {
			case "google.golang.org/grpc", "connectrpc.com/connect/v2", "google.golang.org/protobuf":
				m.Modules[dependency.Path] = dependency.Version
			}
		}
	}
	return m
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo") // Linux only; elsewhere the model is unknown
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
