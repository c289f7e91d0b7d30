package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// result is what a run of the command left.
type result struct {
	code           int
	stdout, stderr string
}

// execute runs the command with arguments and the test's environment without GOPLT_ variables.
func execute(t *testing.T, args ...string) result {
	t.Helper()
	return executeWith(t, nil, strings.NewReader(""), args...)
}

func executeWith(t *testing.T, environ []string, stdin io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, environ, stdin, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// writeFile writes a file into a directory of the test's own and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := t.TempDir() + "/" + name
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lines is a writer that hands on each line as it comes.
type lines struct {
	mu   sync.Mutex
	rest string
	out  chan string
}

func newLines() *lines { return &lines{out: make(chan string, 1024)} }

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest += string(data)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(data), nil
		}
		l.rest = rest
		l.out <- line
	}
}

// await returns the next line that holds a text.
func (l *lines) await(t *testing.T, text string) string {
	t.Helper()
	return l.awaitAll(t, text)[0]
}

// awaitAll returns the next line that holds each text. The lines may come in any order.
func (l *lines) awaitAll(t *testing.T, texts ...string) []string {
	t.Helper()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	found := make([]string, len(texts))
	for missing := len(texts); missing > 0; {
		select {
		case line := <-l.out:
			for at, text := range texts {
				if found[at] == "" && strings.Contains(line, text) {
					found[at] = line
					missing--
				}
			}
		case <-patience.C:
			t.Fatalf("waited in vain for lines with each of %q; found %q", texts, found)
		}
	}
	return found
}

// startServe runs goplt serve until the test ends, and returns the address that it prints.
func startServe(t *testing.T, args ...string) (addr string, stderr *lines) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, stderr := newLines(), newLines()
	ended := make(chan int, 1)
	go func() {
		args := append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)
		ended <- run(ctx, args, []string{"GOPLT_SERVER_DEREGISTER_DELAY=0s"}, strings.NewReader(""), stdout, stderr)
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("serve exited with %d", code)
		}
	})
	addr, ok := strings.CutPrefix(stdout.await(t, ""), "listening on ")
	if !ok {
		t.Fatalf("serve did not print its address")
	}
	return addr, stderr
}
