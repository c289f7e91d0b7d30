package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/0x1d/goplt/internal/consultest"
)

// owner is the [consultest.T] of this program. It belongs to one goroutine.
type owner struct {
	ctx    context.Context // its life, as that of a test
	cancel context.CancelFunc
	log    io.Writer
	ends   []func()
	failed bool
}

// fatal is what Fatal panics with, and withOwner recovers.
type fatal struct{ text string }

// withOwner calls do with what agents can belong to, and ends them when it returns. An agent that fails is an error.
func withOwner(ctx context.Context, log io.Writer, do func(t consultest.T) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &owner{ctx: ctx, cancel: cancel, log: log}
	defer t.end()
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case fatal:
			err = errors.New(failure.text)
		default:
			panic(failure)
		}
	}()
	return do(t)
}

func (t *owner) end() {
	t.cancel()
	for _, end := range slices.Backward(t.ends) {
		end()
	}
}

func (t *owner) Context() context.Context          { return t.ctx }
func (t *owner) Cleanup(end func())                { t.ends = append(t.ends, end) }
func (t *owner) Failed() bool                      { return t.failed }
func (*owner) Helper()                             {}
func (t *owner) Logf(format string, args ...any)   { fmt.Fprintf(t.log, format+"\n", args...) }
func (t *owner) Errorf(format string, args ...any) { t.failed = true; t.Logf(format, args...) }
func (t *owner) Fatalf(format string, args ...any) { t.Fatal(fmt.Sprintf(format, args...)) }

func (t *owner) Fatal(args ...any) {
	t.failed = true
	panic(fatal{fmt.Sprint(args...)})
}

func (t *owner) TempDir() string {
	t.Helper()
	directory, err := os.MkdirTemp("", "goplt-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

// processCPU returns the time that a process has been on a CPU, to the hundredth of a second; 0 where there is no /proc.
func processCPU(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the name before it may hold spaces
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	const tick = 10 * time.Millisecond // of USER_HZ, which is 100 on all that Go runs on
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick
}

// connectionsTo returns how many TCP connections this process has to a port; 0 where there is no /proc.
func connectionsTo(port string) int {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	own := map[string]bool{}
	descriptors, _ := os.ReadDir("/proc/self/fd")
	for _, descriptor := range descriptors {
		to, _ := os.Readlink("/proc/self/fd/" + descriptor.Name()) // one that is closed by now is none
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	const established = "01"
	count := 0
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		sockets, _ := os.ReadFile(table)
		for line := range strings.Lines(string(sockets)) {
			fields := strings.Fields(line)
			if len(fields) > 9 && strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", number)) && fields[3] == established && own[fields[9]] {
				count++
			}
		}
	}
	return count
}
