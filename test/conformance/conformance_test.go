package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestConformance runs the whole suite against each peer. The number of cases is checked because a configuration that claims less than it
// should, or a suite that skips, would pass too.
func TestConformance(t *testing.T) {
	for _, row := range []struct {
		name         string
		suite        suite
		knownFailing string // a file, if there are any
		passed       int
		failed       int // that are known to
	}{
		{"server", suite{
			mode: "server", config: "testdata/server.yaml", peer: []string{"server"},
			byTheClock: []string{"Deadline Propagation", "Timeouts", "Server Message Size"},
		}, "", 3632, 0},
		{"client by gRPC", clientSuite("grpc"), "", 646, 0},
		{"client by HTTP", clientSuite("http"), "", 314, 0},
		{"client by either", clientSuite("auto"), "testdata/client-auto-known-failing.txt", 952, 8},
	} {
		t.Run(row.name, func(t *testing.T) {
			var options []string
			if row.knownFailing != "" {
				options = append(options, "--known-failing", "@"+row.knownFailing)
			}
			for _, name := range row.suite.byTheClock {
				options = append(options, "--known-flaky", name+"/**")
			}
			said := row.suite.run(t, options...)
			passed, failed := counts(t, said)
			late := row.suite.late(said)
			for name, why := range late {
				t.Logf("tried again alone: %s:\n%s", name, why)
				row.suite.run(t, "--run", name, "--parallel", "1", "--trace")
			}
			passed, failed = passed+len(late), failed-len(late)
			if passed != row.passed || failed != row.failed {
				t.Errorf("%d cases passed and %d failed as known; want %d and %d\n%s", passed, failed, row.passed, row.failed, said)
			}
			t.Logf("%d cases passed, %d failed as known", passed, failed)
		})
	}
}

// suite is what the tool of go.mod is to do.
type suite struct {
	mode   string
	config string
	peer   []string
	// byTheClock are the parts of the suite that allow for some tenths of a second, which a busy machine may take to do nothing at all, or in
	// which the client's deadline may cut off the answer that tells of the server's. Where one of their cases fails among all the others, it has
	// to pass alone.
	byTheClock []string
}

func clientSuite(protocol string) suite {
	return suite{
		mode: "client", config: "testdata/client-" + protocol + ".yaml", peer: []string{"client", "-protocol", protocol},
		byTheClock: []string{"Deadline Propagation", "Timeouts", "Client Cancellation"},
	}
}

// patience bounds a run of the suite, which takes seconds.
const patience = 5 * time.Minute

// run returns what the tool says. Unless something is wrong, it ends well, and neither it nor the peers write to stderr.
func (s suite) run(t *testing.T, options ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tool, err := exec.CommandContext(ctx, "go", "tool", "-n", "connectconformance").Output() // builds it, if it is not in the cache
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("build the suite: %v\n%s", err, failed.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	peer, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	arguments := append([]string{"--mode", s.mode, "--conf", s.config}, options...)
	arguments = append(append(arguments, "--", peer), s.peer...)
	var stdout, stderr bytes.Buffer
	run := exec.CommandContext(ctx, strings.TrimSpace(string(tool)), arguments...)
	run.Env = append(os.Environ(), peerKey+"=yes")
	run.Stdout, run.Stderr = &stdout, &stderr
	run.Cancel = func() error { return run.Process.Signal(syscall.SIGTERM) }
	run.WaitDelay = 10 * time.Second
	if err := run.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("%q: %v\n%s\n%s", arguments, err, &stdout, &stderr)
	}
	return stdout.String()
}

// late returns the cases of those by the clock that the tool says to have failed, and why.
func (s suite) late(said string) map[string]string {
	late := make(map[string]string)
	for _, found := range failedPattern.FindAllStringSubmatch(said, -1) {
		part, _, _ := strings.Cut(found[1], "/")
		if slices.Contains(s.byTheClock, part) {
			late[found[1]] = found[2]
		}
	}
	return late
}

var (
	failedPattern = regexp.MustCompile(`(?m)^INFO: (.*) failed \(as expected\):\n((?:\t.*\n)*)`)
	passedPattern = regexp.MustCompile(`(?m)^(\d+) passed, \d+ failed$`)
	knownPattern  = regexp.MustCompile(`(?m)^\(Another (\d+) failed as expected`)
)

// counts reads the tool's summary.
func counts(t *testing.T, said string) (passed, failed int) {
	t.Helper()
	for pattern, count := range map[*regexp.Regexp]*int{passedPattern: &passed, knownPattern: &failed} {
		if found := pattern.FindStringSubmatch(said); found != nil {
			if _, err := fmt.Sscan(found[1], count); err != nil {
				t.Fatal(err)
			}
		}
	}
	return passed, failed
}

// peerKey has the test binary be a peer of the suite, so that the peers are under the race detector when the tests are.
const peerKey = "GOPLT_CONFORMANCE_PEER"

func TestMain(m *testing.M) {
	if os.Getenv(peerKey) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	code := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err := goleak.Find(); err != nil { // after all the calls that the suite can think of
		fmt.Fprintf(os.Stderr, "conformance %v: %v\n", os.Args[1:], err)
		code = 1
	}
	os.Exit(code)
}
