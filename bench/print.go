package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// columns says how each metric is called and printed.
var columns = [metricCount]struct{ key, title, format string }{
	metricRate:         {"calls_per_second", "calls/s", "%.0f"},
	metricP50:          {"p50_us", "p50 µs", "%.0f"},
	metricP99:          {"p99_us", "p99 µs", "%.0f"},
	metricClientCPU:    {"client_cpu_us_per_call", "CPU µs client", "%.1f"},
	metricServerCPU:    {"server_cpu_us_per_call", "server", "%.1f"},
	metricClientAllocs: {"client_allocs_per_call", "allocs client", "%.1f"},
	metricClientBytes:  {"client_bytes_per_call", "bytes", "%.0f"},
	metricServerAllocs: {"server_allocs_per_call", "allocs server", "%.1f"},
	metricServerBytes:  {"server_bytes_per_call", "bytes", "%.0f"},
}

// MarshalJSON writes the values by their metrics' names.
func (v values) MarshalJSON() ([]byte, error) {
	named := make(map[string]float64, len(v))
	for metric, value := range v {
		named[columns[metric].key] = value
	}
	return json.Marshal(named)
}

func (r result) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// writeTable prints one table per number of callers, each value with its ratio to grpc-go, and the targets.
func (r result) writeTable(w io.Writer) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s, GOMAXPROCS %d, %s\n", r.Machine.CPU, r.Machine.OS, r.Machine.GOMAXPROCS, r.Machine.Go)
	for _, module := range slices.Sorted(maps.Keys(r.Machine.Modules)) {
		fmt.Fprintf(&out, "%s %s\n", module, r.Machine.Modules[module])
	}
	fmt.Fprintf(&out, "median of %d rounds of %s each, calls with a deadline of %s; in parentheses the ratio to %s\n",
		r.Rounds, r.Cell, r.Deadline, grpcGo)

	for cells := range byCallers(r.Cells) {
		writeCells(&out, cells)
	}
	writeTargets(&out, r.Targets)
	_, err := io.WriteString(w, out.String())
	return err
}

// byCallers yields the runs of cells with the same number of callers.
func byCallers(cells []cellSummary) iter.Seq[[]cellSummary] {
	return func(yield func([]cellSummary) bool) {
		for len(cells) > 0 {
			n := slices.IndexFunc(cells, func(c cellSummary) bool { return c.Callers != cells[0].Callers })
			if n < 0 {
				n = len(cells)
			}
			if !yield(cells[:n]) {
				return
			}
			cells = cells[n:]
		}
	}
}

func writeCells(out io.Writer, cells []cellSummary) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "%s\t", callersText(cells[0].Callers))
	for _, column := range columns {
		fmt.Fprintf(table, "%s\t", column.title)
	}
	fmt.Fprintln(table)
	for _, c := range cells {
		fmt.Fprintf(table, "%s\t", c.Peer)
		for metric, column := range columns {
			fmt.Fprintf(table, column.format, c.Median[metric])
			if c.Ratio != nil {
				fmt.Fprintf(table, " (%.2f)", c.Ratio[metric])
			}
			fmt.Fprint(table, "\t")
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush() // out is a strings.Builder, which does not fail
}

func writeTargets(out io.Writer, targets []target) {
	if len(targets) == 0 {
		return
	}
	fmt.Fprintln(out, "\ntargets")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	ordered := slices.SortedStableFunc(slices.Values(targets), func(a, b target) int { return cmp.Compare(a.Name, b.Name) })
	for _, t := range ordered {
		verdict, relation := "met", "at least"
		if !t.Met {
			verdict = "MISSED"
		}
		if strings.Contains(t.Name, " - ") {
			relation = "at most"
		}
		fmt.Fprintf(table, "%s\t%s\t%.2f\t%s %.2f\t%s\n", t.Name, callersText(t.Callers), t.Value, relation, t.Limit, verdict)
	}
	_ = table.Flush()
}

func callersText(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return strconv.Itoa(n) + " callers"
}
