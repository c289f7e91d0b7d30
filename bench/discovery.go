package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/0x1d/goplt/internal/consultest"
)

// discoveryPlan is what to measure of discovery.
type discoveryPlan struct {
	changes  int           // of each kind; 0 to leave them out
	lanes    int           // services that change at the same time
	watches  []int         // numbers of idle watches; none to leave them out
	kinds    []watchKind   // of idle watches
	duration time.Duration // of a cell: one kind of watches, so many of them
	json     bool
}

// discoveryResult is what the measurement says.
type discoveryResult struct {
	Machine machine         `json:"machine"`
	Consul  string          `json:"consul"`
	Load    string          `json:"load"` // of the machine before it began, over 1, 5 and 15 minutes; empty if unknown
	Changes []changeSummary `json:"changes,omitempty"`
	Idle    []idleCell      `json:"idle,omitempty"`

	AgentCPU time.Duration `json:"agent_cpu,omitempty"` // of an agent that nobody watches, in as long as a cell takes
}

func runDiscovery(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	plan, err := parseDiscovery(arguments, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	stderr = &lockedWriter{w: stderr}
	result := discoveryResult{Machine: thisMachine(), Load: loadOfMachine()}
	err = withOwner(ctx, stderr, func(t consultest.T) error { return measureDiscovery(ctx, t, plan, &result, stderr) })
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("stopped: %w", context.Cause(ctx))
	case err != nil:
	case plan.json:
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(result)
	default:
		err = result.write(stdout, plan)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	return exitOK
}

func parseDiscovery(arguments []string, stderr io.Writer) (discoveryPlan, error) {
	flags := flag.NewFlagSet("bench discovery", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	p := discoveryPlan{}
	flags.IntVar(&p.changes, "changes", 100, "`number` of changes of each kind, 0 for none")
	flags.IntVar(&p.lanes, "services", 4, "`number` of services that change at the same time")
	flags.DurationVar(&p.duration, "d", 20*time.Second, "`duration` of a cell: one kind of idle watches, so many of them; as long goes by before it")
	watches := flags.String("watches", "100,1000", "`list` of the numbers of idle watches, empty for none")
	only := flags.String("only", "", "measure only the kinds of idle watches whose name matches this `regexp`")
	flags.BoolVar(&p.json, "json", false, "print JSON")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, "usage: bench discovery [flags]\n\nIt starts Consul agents, whose command takes minutes to build the first time.\n")
			fmt.Fprint(stderr, "\nIdle watches:\n")
			for _, kind := range watchKinds() {
				fmt.Fprintf(stderr, "  %-32s %s\n", kind.name, kind.about)
			}
			fmt.Fprint(stderr, "\nFlags:\n")
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return p, err
	}
	switch {
	case flags.NArg() > 0:
		return p, fmt.Errorf("unexpected argument %q: discovery takes flags only, see bench discovery -h", flags.Arg(0))
	case p.changes < 0:
		return p, fmt.Errorf("-changes %d: want 1 or more, or 0 for none", p.changes)
	case p.lanes < 1:
		return p, fmt.Errorf("-services %d: want 1 or more", p.lanes)
	case p.duration < 100*time.Millisecond:
		return p, fmt.Errorf("-d %v: want a duration of at least 100ms, such as 20s", p.duration)
	}
	var err error
	if p.kinds, err = matchingKinds(*only); err != nil {
		return p, err
	}
	p.watches, err = parseWatches(*watches)
	return p, err
}

func matchingKinds(only string) ([]watchKind, error) {
	expression, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only %q: want a regular expression: %w", only, err)
	}
	var names []string
	for _, kind := range watchKinds() {
		names = append(names, kind.name)
	}
	matching := slices.DeleteFunc(watchKinds(), func(kind watchKind) bool { return !expression.MatchString(kind.name) })
	if len(matching) == 0 {
		return nil, fmt.Errorf("-only %q matches no kind of watches; there are %s", only, strings.Join(names, ", "))
	}
	return matching, nil
}

func parseWatches(list string) ([]int, error) {
	if list == "" {
		return nil, nil
	}
	const most = 100_000
	var counts []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("-watches %q: %q is not a number within 1 to %d; want a list such as 100,1000", list, text, most)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// measureDiscovery starts an agent and measures what is planned.
func measureDiscovery(ctx context.Context, t consultest.T, p discoveryPlan, result *discoveryResult, progress io.Writer) error {
	usual := consultest.Start(t)
	client, closeIdle, err := apiTo(usual.Address)
	if err != nil {
		return err
	}
	defer closeIdle()
	self, err := client.Agent().Self()
	if err != nil {
		return err
	}
	result.Consul, _ = self["Config"]["Version"].(string)
	if p.changes > 0 {
		if result.Changes, err = measureChanges(ctx, usual.Address, client, p, progress); err != nil {
			return err
		}
	}
	if len(p.watches) == 0 {
		return nil
	}
	registerIdle(usual, slices.Max(p.watches))
	if err := rest(ctx, p.duration); err != nil {
		return err
	}
	before := processCPU(usual.PID())
	if err := rest(ctx, p.duration); err != nil {
		return err
	}
	result.AgentCPU = processCPU(usual.PID()) - before
	result.Idle, err = measureIdle(ctx, t, usual, p, progress)
	return err
}

func (r *discoveryResult) write(w io.Writer, p discoveryPlan) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s, GOMAXPROCS %d, %s, Consul %s", r.Machine.CPU, r.Machine.OS, r.Machine.GOMAXPROCS, r.Machine.Go, r.Consul)
	if r.Load != "" {
		fmt.Fprintf(&out, ", load average %s before", r.Load)
	}
	fmt.Fprintln(&out)
	if len(r.Changes) > 0 {
		writeChanges(&out, r.Changes, p)
	}
	if len(r.Idle) > 0 {
		writeIdle(&out, r.Idle, p)
		fmt.Fprintf(&out, "\nan agent that nobody watches: %.1f ms/s\n", inMilliseconds(r.AgentCPU)/p.duration.Seconds())
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// loadOfMachine returns the load averages as Linux says them.
func loadOfMachine() string {
	content, _ := os.ReadFile("/proc/loadavg") // elsewhere there is none
	fields := strings.Fields(string(content))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
