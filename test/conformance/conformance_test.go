package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
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
		mode         string
		config       string
		knownFailing string // a file, if there are any
		peer         []string
		passed       int
		failed       int // that are known to
	}{
		{"server", "server", "testdata/server.yaml", "", []string{"server"}, 3632, 0},
		{"client by gRPC", "client", "testdata/client-grpc.yaml", "", []string{"client", "-protocol", "grpc"}, 646, 0},
		{"client by HTTP", "client", "testdata/client-http.yaml", "", []string{"client", "-protocol", "http"}, 314, 0},
		{
			"client by either", "client", "testdata/client-auto.yaml", "testdata/client-auto-known-failing.txt",
			[]string{"client", "-protocol", "auto"},
			952, 8,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			arguments := []string{"--mode", row.mode, "--conf", row.config, "--trace"}
			if row.knownFailing != "" {
				arguments = append(arguments, "--known-failing", "@"+row.knownFailing)
			}
			said, complaints, err := runSuite(t, append(append(arguments, "--", executable(t)), row.peer...))
			if err != nil || complaints != "" {
				t.Fatalf("%v\n%s\n%s", err, said, complaints)
			}
			passed, failed := counts(t, said)
			if passed != row.passed || failed != row.failed {
				t.Errorf("%d cases passed and %d failed as known; want %d and %d\n%s", passed, failed, row.passed, row.failed, said)
			}
			t.Logf("%d cases passed, %d failed as known", passed, failed)
		})
	}
}

// patience bounds a run of the suite, which takes seconds.
const patience = 5 * time.Minute

// runSuite runs the tool of go.mod and returns what it wrote, and what it and the peers wrote to stderr, which is nothing unless something
// is wrong with them.
func runSuite(t *testing.T, arguments []string) (said, complaints string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tool, err := exec.CommandContext(ctx, "go", "tool", "-n", "connectconformance").Output() // builds it, if it is not in the cache
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("build the suite: %v\n%s", err, failed.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	suite := exec.CommandContext(ctx, strings.TrimSpace(string(tool)), arguments...)
	suite.Env = append(os.Environ(), peerKey+"=yes")
	suite.Stdout, suite.Stderr = &stdout, &stderr
	suite.Cancel = func() error { return suite.Process.Signal(syscall.SIGTERM) }
	suite.WaitDelay = 10 * time.Second
	err = suite.Run()
	return stdout.String(), stderr.String(), err
}

var (
	passedPattern = regexp.MustCompile(`(?m)^(\d+) passed, (\d+) failed$`)
	knownPattern  = regexp.MustCompile(`(?m)^\(Another (\d+) failed as expected`)
)

// counts reads the suite's summary.
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

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
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
