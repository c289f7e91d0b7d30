//go:build integration

package faults_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/internal/testprocess"
)

var long = flag.Bool("faults.long", false, "make outages and load as long as the fault matrix has them")

// stalls tells of any call's lateness whether the machine's is to blame.
var stalls testprocess.Stalls

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		serveAsChild()
		return
	}
	flag.Parse()
	// The rows wait for time-outs, checks and elections more than they compute.
	if set := flag.Lookup("test.parallel"); set.Value.String() == set.DefValue {
		if err := set.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	before := testprocess.OpenFiles()
	endWatch := stalls.Watch()
	status := m.Run()
	endWatch()
	if status == 0 {
		if err := testprocess.ExpectNothingLeft(before); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// row begins a test of a row. It runs beside others, and must leave no goroutine behind: those that it starts are told from others' by their label,
// which goroutines hand down.
func row(t *testing.T) {
	t.Helper()
	t.Parallel()
	begin(t)
}

// begin is row for a test that runs alone.
func begin(t *testing.T) {
	t.Helper()
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("row", t.Name())))
	t.Cleanup(func() { // the last of all, as it is the first
		pprof.SetGoroutineLabels(context.Background())
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for deadline := time.Now().Add(10 * time.Second); ; <-ticker.C {
			left := goroutines(t.Name())
			if left == "" {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("goroutines are left:\n%s", left)
				return
			}
		}
	})
}

// goroutines returns the stacks of the goroutines that the named test began, directly or not.
func goroutines(test string) string {
	var all strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return err.Error()
	}
	var left []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", "row", test)) {
			left = append(left, stack)
		}
	}
	return strings.Join(left, "\n\n")
}

// within is how long a test waits for what has to happen, on machines that are busy.
const within = time.Minute

// await returns as soon as what is expected has happened.
func await(t testing.TB, what string, happened func() bool) {
	t.Helper()
	awaitFor(t, within, what, happened)
}

// awaitFor is await for what takes its time.
func awaitFor(t testing.TB, longest time.Duration, what string, happened func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(longest); !happened(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %s", longest, what)
		}
	}
}

// pass lets time pass in which nothing must happen.
func pass(t testing.TB, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// expectWithin fails unless what began is over in time, not counting what the machine had to wait.
func expectWithin(t testing.TB, limit time.Duration, began time.Time, what string) {
	t.Helper()
	ended := time.Now()
	if took := ended.Sub(began); took > limit && took-stalls.Between(began, ended) > limit {
		t.Errorf("%s took %v, want at most %v", what, took, limit)
	}
}
