package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// runSimulate runs the tests of the simulation package, whose tables it prints. They are tests because synctest's clock is theirs alone, and
// because what they print has to be right: a simulation in which the balancer does not do what it should fails.
func runSimulate(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench simulate", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	only := flags.String("only", "", "make only the simulations whose test's name, after TestSimulation, begins with a match of this `regexp`")
	err := flags.Parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, "usage: bench simulate [flags], in the directory of the module, which it takes the simulations from\n\nFlags:\n")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: simulate takes flags only, see bench simulate -h", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	command := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^TestSimulation("+*only+")", "./simulation")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, stderr
	if err := command.Run(); err != nil {
		_, _ = output.WriteTo(stdout)
		fmt.Fprintln(stderr, "bench: the simulations failed:", err)
		return exitFailed
	}
	switch written, err := writeTestOutput(stdout, &output); {
	case err != nil:
		fmt.Fprintln(stderr, "bench: write the result:", err)
		return exitFailed
	case written == 0:
		fmt.Fprintf(stderr, "bench: -only %q matches no simulation; the names are those of ./simulation's tests after TestSimulation\n", *only)
		return exitUsage
	}
	return exitOK
}

// writeTestOutput writes what tests have written to testing.T.Output, which is indented, and nothing else; a blank line between tests. It returns
// the number of lines.
func writeTestOutput(w io.Writer, output io.Reader) (written int, err error) {
	lines := bufio.NewScanner(output)
	for between := false; lines.Scan(); {
		line, ok := strings.CutPrefix(lines.Text(), "    ")
		if !ok {
			between = true
			continue
		}
		if between && written > 0 {
			line = "\n" + line
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return written, err
		}
		written++
		between = false
	}
	return written, lines.Err()
}
