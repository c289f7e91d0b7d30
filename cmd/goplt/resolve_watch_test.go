package main

import (
	"context"
	"strings"
	"testing"
)

// startWatch runs resolve --watch until the test ends.
func startWatch(t *testing.T, args ...string) (stdout, stderr *lines) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, stderr = newLines(), newLines()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"resolve", "--watch", "--interval", "10ms"}, args...), nil, strings.NewReader(""), stdout, stderr)
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("resolve --watch exited with %d when it was interrupted", code)
		}
	})
	return stdout, stderr
}

// TestResolveWatch: a client's view of an instance that serves and of one that does not, as it changes.
func TestResolveWatch(t *testing.T) {
	addr, _ := startServe(t)
	gone := unusedAddr(t)
	stdout, _ := startWatch(t, "static:///"+addr+","+gone, "--log-level", "error")
	stdout.await(t, "INSTANCE ")
	shown := stdout.awaitAll(t, "probe passes", "is ejected for 30s: 5 probes in a row failed", "the probe fails: ")
	passes, ejected, reason := shown[0], shown[1], shown[2]
	for _, want := range []string{addr, "grpc", "closed", "serving", "joined", "s)"} { // the last of a probe's latency
		if !strings.Contains(passes, want) {
			t.Errorf("no %q in %q", want, passes)
		}
	}
	for _, want := range []string{gone, "probe fails", "ejected until "} {
		if !strings.Contains(ejected, want) {
			t.Errorf("no %q in %q", want, ejected)
		}
	}
	if strings.Contains(ejected, "s)") {
		t.Errorf("a latency of a probe that failed: %q", ejected)
	}
	if !strings.HasPrefix(reason, gone) || !strings.Contains(reason, "connection refused") {
		t.Errorf("got %q, want to see why", reason)
	}
}

// TestResolveWatchFailure: while the registry does not answer, the error is told once and the command goes on.
func TestResolveWatchFailure(t *testing.T) {
	_, stderr := startWatch(t, "consul://"+unusedAddr(t)+"/auth", "--log-level", "error")
	if got := stderr.await(t, "what was shown last stands"); !strings.Contains(got, "goplt: resolve consul://") || !strings.Contains(got, "refused") {
		t.Errorf("got %q", got)
	}
}

func TestResolveWatchAsJSON(t *testing.T) {
	addr, _ := startServe(t)
	stdout, _ := startWatch(t, "static:///"+addr, "--output", "json")
	got := stdout.await(t, `"probe":`)
	for _, want := range []string{`"target":"static:///` + addr + `"`, `"ejection":"serving"`, `"change":`, `"latency":`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}
