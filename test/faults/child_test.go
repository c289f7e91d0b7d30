//go:build integration

package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

// childVariable tells this program to be an instance, and not to test, in a process that a test can stop and kill.
const childVariable = "GOPLT_TEST_FAULTS_CHILD"

// serveAsChild hosts an instance until standard input ends, as it does when the test process does. It says on standard output where it listens, and
// what it executes.
func serveAsChild() {
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	var printing sync.Mutex
	say := func(format string, args ...any) {
		printing.Lock()
		defer printing.Unlock()
		fmt.Fprintf(os.Stdout, format, args...)
	}
	handlers := connectrpc.NewServer()
	authv1connect.RegisterAuthServiceHandler(handlers, newHandler(newLedger(), new(atomic.Int64), func(_ context.Context, id string) error {
		say("executed %s\n", id)
		return nil
	}))
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config))
	if err == nil {
		err = server.Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	say("listening on %s\n", server.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// child is an instance in a process of its own.
type child struct {
	addr string

	cmd     *exec.Cmd
	reading sync.WaitGroup
}

// startChild starts an instance and waits until it listens. The process ends with the test.
func startChild(t testing.TB, executions *ledger) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(context.Background(), os.Args[0])}
	c.cmd.Env = append(os.Environ(), childVariable+"=1")
	c.cmd.Stderr = os.Stderr
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
	lines := bufio.NewScanner(stdout)
	if lines.Scan() {
		c.addr, _ = strings.CutPrefix(lines.Text(), "listening on ")
	}
	c.reading.Go(func() {
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "executed "); ok {
				executions.note(id)
			}
		}
	})
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		c.reading.Wait()
		_ = stdin.Close()
		_ = c.cmd.Wait() // that it was killed
	})
	if c.addr == "" {
		t.Fatal("an instance in a process of its own does not start")
	}
	return c
}

// pause stops the process in whatever it does; its connections stay open.
func (c *child) pause(t testing.TB) { c.signal(t, syscall.SIGSTOP) }

// goOn lets a paused process go on.
func (c *child) goOn(t testing.TB) { c.signal(t, syscall.SIGCONT) }

func (c *child) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}
