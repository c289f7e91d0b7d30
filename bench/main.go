// Command bench measures goplt beside its peers, on one call that looks like ValidateToken: a token of some 200 bytes goes out, the
// claims of its owner come back.
//
//	go -C bench run .                                # every peer at 1, 16 and 128 callers, some three minutes
//	go -C bench run . -callers 128 -only 'grpc'      # a part
//	go -C bench run . -json > result.json            # for machines
//	go -C bench run . picks                          # what a pick of the balancer costs
//	go -C bench run . policies                       # what goplt's policies add to a call that succeeds at once
//	go -C bench run . discovery                      # how soon changes in Consul are obeyed, and what watches cost: some ten minutes
//	go -C bench run . simulate                       # what becomes of callers, instances and agents, on a clock of its own
//
// Each peer has a server and a client in processes of their own, which stay up for the whole run and are idle while others are
// measured. The load is a closed loop: each caller sends its next call when the last one is answered. Rounds are interleaved, every
// peer once per round, so that a slow minute of the machine falls on all of them; what is printed is the median of the rounds, and
// a ratio is the median of the rounds' ratios. Every call has a deadline, as calls in production have (-deadline 0 for none).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The ends of a process of this program.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	if role, ok := os.LookupEnv(roleVariable); ok {
		os.Exit(runChild(role, os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr)) //nolint:gocritic // stop only restores the signal's default, and the process ends
}

// runCalls measures calls, goplt's and its peers'.
func runCalls(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	plan, err := parsePlan(arguments, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	measured, err := measure(ctx, plan, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	result := summarize(plan, measured)
	if plan.json {
		err = result.writeJSON(stdout)
	} else {
		err = result.writeTable(stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench: write the result:", err)
		return exitFailed
	}
	return exitOK
}

// plan is what to measure.
type plan struct {
	peers    []peer
	callers  []int
	rounds   int
	duration time.Duration // of a cell: one peer at one number of callers in one round
	deadline time.Duration // of each call; 0 for none
	profiles string        // directory for CPU profiles; empty for none
	json     bool
}

const maxCallers = 10_000

func parsePlan(arguments []string, stderr io.Writer) (plan, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error, once
	duration := flags.Duration("d", time.Second, "`duration` of a cell: one peer at one number of callers in one round")
	rounds := flags.Int("rounds", 5, "`number` of rounds, of which the median counts")
	callers := flags.String("callers", "1,16,128", "`list` of the numbers of concurrent callers")
	only := flags.String("only", "", "measure only the peers whose name matches this `regexp`")
	deadline := flags.Duration("deadline", 10*time.Second, "deadline of each call, 0 for none")
	profiles := flags.String("profiles", "", "write the CPU profile of each process into this `directory`")
	asJSON := flags.Bool("json", false, "print JSON with the values of every round")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			writeMeasurements(stderr)
			fmt.Fprint(stderr, "\nPeers of calls:\n")
			for _, peer := range peers() {
				fmt.Fprintf(stderr, "  %-20s %s\n", peer.name, peer.about)
			}
			fmt.Fprint(stderr, "\nFlags of calls:\n")
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return plan{}, err
	}
	p := plan{rounds: *rounds, duration: *duration, deadline: *deadline, profiles: *profiles, json: *asJSON}
	if flags.NArg() > 0 {
		return plan{}, fmt.Errorf("unexpected argument %q: calls takes flags only, see bench -h", flags.Arg(0))
	}
	if p.duration < 10*time.Millisecond {
		return plan{}, fmt.Errorf("-d %v: want a duration of at least 10ms, such as 1s", p.duration)
	}
	if p.rounds < 1 {
		return plan{}, fmt.Errorf("-rounds %d: want 1 or more, best an odd number", p.rounds)
	}
	if p.deadline < 0 {
		return plan{}, fmt.Errorf("-deadline %v: want a duration such as 10s, or 0 for none", p.deadline)
	}
	var err error
	if p.callers, err = parseCallers(*callers); err != nil {
		return plan{}, err
	}
	if p.peers, err = matchingPeers(*only); err != nil {
		return plan{}, err
	}
	if p.profiles != "" {
		if err := os.MkdirAll(p.profiles, 0o755); err != nil {
			return plan{}, fmt.Errorf("-profiles: %w", err)
		}
	}
	return p, nil
}

func parseCallers(list string) ([]int, error) {
	var callers []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > maxCallers {
			return nil, fmt.Errorf("-callers %q: %q is not a number within 1 to %d; want a list such as 1,16,128", list, text, maxCallers)
		}
		callers = append(callers, n)
	}
	return callers, nil
}

func matchingPeers(only string) ([]peer, error) {
	expression, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only %q: want a regular expression: %w", only, err)
	}
	var matching []peer
	var names []string
	for _, peer := range peers() {
		names = append(names, peer.name)
		if expression.MatchString(peer.name) {
			matching = append(matching, peer)
		}
	}
	if len(matching) == 0 {
		return nil, fmt.Errorf("-only %q matches no peer; there are %s", only, strings.Join(names, ", "))
	}
	return matching, nil
}
