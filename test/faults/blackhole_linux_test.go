//go:build integration

package faults_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// blackHole returns an address that answers nothing to who wants to connect, neither yes nor no, without the privileges that a firewall needs: Linux
// drops the SYN of a connection for which the listener's queue has no room, and nobody empties this one's. It ends with the test.
func blackHole(t testing.TB) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		t.Fatalf("a listener on TCP is a %T", listener)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), 0) }) // again, which shortens the queue
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		filling, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		cancel()
		if err != nil {
			return listener.Addr().String()
		}
		t.Cleanup(func() { _ = filling.Close() })
	}
}
