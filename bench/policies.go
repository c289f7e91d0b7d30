package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
)

// policySetting is what calls are made with, beside the bare wire.
type policySetting struct {
	name      string
	deadline  time.Duration // that the caller sets for each call; 0 for none, so that it is the configuration that sets one
	configure func(*rpc.ClientConfig)
	once      bool // whether the method does not declare that it may be executed more than once
	aimed     bool // whether the aims hold for it
}

const (
	authServiceName = "goplt.auth.v1.AuthService"
	// callersDeadline is that of calls in production. It is later than the attempt time-out, so an attempt that may be repeated has a deadline of its
	// own.
	callersDeadline = 10 * time.Second
	never           = time.Hour
)

func policySettings() []policySetting {
	method := func(config rpc.MethodConfig) func(*rpc.ClientConfig) {
		return func(client *rpc.ClientConfig) { client.Methods = map[string]rpc.MethodConfig{authServiceName: config} }
	}
	limit := func(adaptive bool) func(*rpc.ClientConfig) {
		return func(client *rpc.ClientConfig) {
			client.Admission = rpc.AdmissionConfig{MaxConcurrentCalls: 100, Adaptive: adaptive}
		}
	}
	defaults := func(*rpc.ClientConfig) {}
	return []policySetting{
		{"default, not idempotent", callersDeadline, defaults, true, true},
		{"default, idempotent", callersDeadline, defaults, false, true},
		{"default, idempotent, no deadline of the caller's", 0, defaults, false, true},
		{"without an attempt time-out", callersDeadline, func(client *rpc.ClientConfig) { client.AttemptTimeout = 0 }, false, false},
		{"with a bulkhead", callersDeadline, limit(false), false, false},
		{"with an adaptive limit", callersDeadline, limit(true), false, false},
		{"with hedges after a fixed delay", callersDeadline, method(rpc.MethodConfig{Hedge: rpc.HedgeConfig{Delay: never}}), false, false},
		{"with hedges after a quantile", callersDeadline, method(rpc.MethodConfig{Hedge: rpc.HedgeConfig{Delay: never, Quantile: 0.95}}), false, false},
	}
}

// What the policies may cost a call that succeeds at once.
const (
	mostPolicyNanos  = 1500
	mostPolicyAllocs = 6
)

// policyCost is what a call costs with the policies of one setting, on top of the bare wire.
type policyCost struct {
	Setting    string  `json:"setting"`
	Protocol   string  `json:"protocol"`
	Nanos      float64 `json:"cpu_ns_more_per_call"`
	Allocs     float64 `json:"allocs_more_per_call"`
	Bytes      float64 `json:"bytes_more_per_call"`
	BareNanos  float64 `json:"bare_cpu_ns_per_call"`
	BareAllocs float64 `json:"bare_allocs_per_call"`
	Aimed      bool    `json:"aimed"`
	Met        bool    `json:"met,omitempty"`
}

func runPolicies(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench policies", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	duration := flags.Duration("d", 200*time.Millisecond, "`duration` of a cell: one setting over one protocol in one round")
	rounds := flags.Int("rounds", 9, "`number` of rounds")
	calls := flags.Int("calls", 100, "`number` of calls that one of two which are compared makes before it is the other's turn")
	only := flags.String("only", "", "measure only the settings whose name matches this `regexp`")
	asJSON := flags.Bool("json", false, "print JSON")
	err := flags.Parse(arguments)
	var settings []policySetting
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, "usage: bench policies [flags]\n\nFlags:\n")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return exitOK
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: policies takes flags only, see bench policies -h", flags.Arg(0))
	case *duration < time.Millisecond:
		err = fmt.Errorf("-d %v: want a duration of at least 1ms, such as 200ms", *duration)
	case *rounds < 1:
		err = fmt.Errorf("-rounds %d: want 1 or more", *rounds)
	case *calls < 1:
		err = fmt.Errorf("-calls %d: want 1 or more, such as 100", *calls)
	default:
		settings, err = matchingSettings(*only)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	costs, err := measurePolicies(ctx, settings, *rounds, *calls, *duration)
	if err == nil {
		if *asJSON {
			encoder := json.NewEncoder(stdout)
			encoder.SetIndent("", "  ")
			err = encoder.Encode(costs)
		} else {
			err = writePolicies(stdout, costs)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	return exitOK
}

func matchingSettings(only string) ([]policySetting, error) {
	expression, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only %q: want a regular expression: %w", only, err)
	}
	settings := slices.DeleteFunc(policySettings(), func(setting policySetting) bool { return !expression.MatchString(setting.name) })
	if len(settings) == 0 {
		return nil, fmt.Errorf("-only %q matches no setting; there are those that bench policies prints", only)
	}
	return settings, nil
}

// writePolicies prints a row per setting, and whether the aims are met.
func writePolicies(w io.Writer, costs []policyCost) error {
	var out strings.Builder
	about := thisMachine()
	fmt.Fprintf(&out, "%s, %s, GOMAXPROCS 1, %s\n", about.CPU, about.OS, about.Go)
	fmt.Fprint(&out, "A call that succeeds at once, on a connection in memory whose peer answers at once: what the policies add to the bare wire,\n"+
		"which is connecthttp on an http.ClientConn, with a deadline of its caller's. CPU ns (allocations, bytes), of the least disturbed\n"+
		"turns; without the collection of garbage, which costs some 0.4 ns per byte here.\n\n")
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tgRPC\tits bare wire\tJSON\tits bare wire")
	var verdicts []string
	for nth, cost := range costs {
		if nth == 0 || costs[nth-1].Setting != cost.Setting {
			fmt.Fprint(table, cost.Setting)
		}
		fmt.Fprintf(table, "\t%+.0f (%+.0f, %+.0f B)\t%.0f (%.0f)", cost.Nanos, cost.Allocs, cost.Bytes, cost.BareNanos, cost.BareAllocs)
		if nth == len(costs)-1 || costs[nth+1].Setting != cost.Setting {
			fmt.Fprintln(table)
		}
		if cost.Aimed {
			verdicts = append(verdicts, fmt.Sprintf("aim: %s, %s: %.0f ns, %.0f allocations; at most %d ns, %d allocations: %s\n",
				cost.Protocol, cost.Setting, cost.Nanos, cost.Allocs, mostPolicyNanos, mostPolicyAllocs, map[bool]string{true: "met", false: "MISSED"}[cost.Met]))
		}
	}
	_ = table.Flush() // out is a strings.Builder, which does not fail
	fmt.Fprintln(&out)
	out.WriteString(strings.Join(verdicts, ""))
	_, err := io.WriteString(w, out.String())
	return err
}
