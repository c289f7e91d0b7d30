//go:build integration

package faults_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
	"github.com/0x1d/goplt/pkg/rpc"
)

// aloneVariable tells the tests that they run in a process of their own, which may end.
const aloneVariable = "GOPLT_TEST_FAULTS_ALONE"

// TestRow37ServerLogger: a handler panics, and so does the handler of the server's log that is told of it. In a process of its own, as that is what
// is at stake.
func TestRow37ServerLogger(t *testing.T) {
	row(t)
	if os.Getenv(aloneVariable) == "" {
		alone := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		alone.Env = append(os.Environ(), aloneVariable+"=1")
		if said, err := alone.CombinedOutput(); err != nil {
			t.Errorf("the process of a server whose log panics ended: %v\n%.3000s", err, said)
		}
		return
	}
	for _, spoken := range byBoth {
		executions, records := newLedger(), new(atomic.Int64)
		doomed := new(atomic.Bool)
		handlers := connectrpc.NewServer()
		authv1connect.RegisterAuthServiceHandler(handlers, newHandler(executions, new(atomic.Int64), func(context.Context, string) error {
			if doomed.Load() {
				panic("a handler")
			}
			return nil
		}))
		config := rpc.DefaultServerConfig()
		config.Listen = "127.0.0.1:0"
		server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithServerLogger(slog.New(panickingHandler{records})))
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (&instance{Server: server}).halt(t) })
		transport := reach(t, inMemory(speaking(spoken)), server.Addr())
		for _, what := range both {
			doomed.Store(true)
			invoke(t.Context(), transport, what, patience).expect(t, executions, connectrpc.CodeInternal, 1)
			doomed.Store(false)
			invoke(t.Context(), transport, what, patience).expect(t, executions, 0, 1)
		}
		if records.Load() == 0 {
			t.Error("nothing was logged: the test tests nothing")
		}
		expectUntouched(t, transport, spokenBy(spoken))
	}
}
