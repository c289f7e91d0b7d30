//go:build unix

package testprocess

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Child is the test program once more, in a process of its own, which a test may pause, kill and ask to end. It belongs to one goroutine.
type Child struct {
	t       testing.TB
	cmd     *exec.Cmd
	stdin   io.Closer
	reading sync.WaitGroup
	over    bool
}

// StartChild runs the test program with a variable, such as "SERVE=1", by which its TestMain knows that it is not to test. A child is to end when its
// standard input does, and to say on its standard output that it is ready, in a line that begins so. What follows in that line is returned when
// it is said, and ok is false if the child ended before. Other lines are given to said, one after the other: what was written whole is told even of a
// child that is killed thereafter. The child is killed when the test ends.
func StartChild(t testing.TB, variable, ready string, said func(line string)) (child *Child, detail string, ok bool) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &Child{t: t, cmd: exec.CommandContext(context.Background(), program)} //nolint:gosec // this very program
	c.cmd.Env = append(os.Environ(), variable)
	c.cmd.Stderr = os.Stderr
	EndWithParent(c.cmd)
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	t.Cleanup(c.Kill)
	lines := bufio.NewScanner(stdout)
	for !ok && lines.Scan() {
		if detail, ok = strings.CutPrefix(lines.Text(), ready); !ok {
			said(lines.Text())
		}
	}
	c.reading.Go(func() {
		for lines.Scan() {
			said(lines.Text())
		}
	})
	return c, detail, ok
}

// Kill ends the process at once, whether it runs or is paused, and returns when all that it said has been told. It does nothing to one that is over.
func (c *Child) Kill() {
	if !c.over {
		_ = c.cmd.Process.Kill()
		_ = c.await() // that it was killed
	}
}

// End asks the process to end, waits until it has, and returns its failure if it has one.
func (c *Child) End() error {
	_ = c.stdin.Close()
	return c.await()
}

func (c *Child) await() error {
	c.over = true
	c.reading.Wait() // first: waiting for the process closes the pipe
	_ = c.stdin.Close()
	return c.cmd.Wait()
}

// Pause stops the process in whatever it does; its connections stay open.
func (c *Child) Pause() { c.signal(syscall.SIGSTOP) }

// Continue lets a paused process go on.
func (c *Child) Continue() { c.signal(syscall.SIGCONT) }

func (c *Child) signal(signal syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(signal); err != nil {
		c.t.Fatal(err)
	}
}
