//go:build integration

package faults_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/internal/testprocess"
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
	*testprocess.Child

	addr string
}

// startChild starts an instance and waits until it listens. The process ends with the test.
func startChild(t testing.TB, executions *ledger) *child {
	t.Helper()
	process, addr, ok := testprocess.StartChild(t, childVariable+"=1", "listening on ", func(line string) {
		if id, ok := strings.CutPrefix(line, "executed "); ok {
			executions.note(id)
		}
	})
	if !ok {
		t.Fatal("an instance in a process of its own does not start")
	}
	return &child{process, addr}
}
