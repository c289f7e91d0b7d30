package main

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// measurement is one of the things that bench can measure, named by the first argument.
type measurement struct {
	name, about string
	run         func(ctx context.Context, arguments []string, stdout, stderr io.Writer) int
}

// measurements returns them all. The first is made where none is named.
func measurements() []measurement {
	return []measurement{
		{"calls", "goplt's calls beside its peers' (the default)", runCalls},
		{"picks", "what a pick of the balancer costs, by policy and number of instances", runPicks},
		{"policies", "what goplt's policies add to a call that succeeds at once, beside the bare wire", runPolicies},
		{"discovery", "how soon clients obey what changes in a real Consul, and what their watches cost", runDiscovery},
		{"simulate", "what balancer, retries and hedges do to callers and instances, and a restart to an agent of Consul, in virtual time", runSimulate},
	}
}

// run is the parent process: it measures what arguments ask for and prints it.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	if len(arguments) == 0 || strings.HasPrefix(arguments[0], "-") {
		return runCalls(ctx, arguments, stdout, stderr)
	}
	var names []string
	for _, m := range measurements() {
		if m.name == arguments[0] {
			return m.run(ctx, arguments[1:], stdout, stderr)
		}
		names = append(names, m.name)
	}
	fmt.Fprintf(stderr, "bench: unexpected argument %q: there are the measurements %s; see bench -h\n", arguments[0], strings.Join(names, ", "))
	return exitUsage
}

func writeMeasurements(w io.Writer) {
	fmt.Fprint(w, "usage: bench [measurement] [flags]\n\nMeasurements, each with -h for its flags:\n")
	for _, m := range measurements() {
		fmt.Fprintf(w, "  %-20s %s\n", m.name, m.about)
	}
}
