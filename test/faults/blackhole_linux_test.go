//go:build integration

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lossyListener accepts connections whose way can be lost: then nothing that the client sends arrives, nor is acknowledged or refused, as when the
// machine is gone. A filter at each socket drops the packets, for which Linux asks no privileges.
type lossyListener struct {
	net.Listener

	mu    sync.Mutex
	conns []syscall.RawConn
}

// Accept implements [net.Listener].
func (l *lossyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection of TCP is a %T", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, raw)
	return conn, nil
}

// accepted returns how many connections there were.
func (l *lossyListener) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// lose loses the way of all connections that were accepted so far.
func (l *lossyListener) lose(t testing.TB) {
	t.Helper()
	const returnConstant = 0x06 // BPF_RET | BPF_K
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, raw := range l.conns {
		var failed error
		err := raw.Control(func(fd uintptr) {
			//nolint:staticcheck // what replaces it would be one more dependency
			failed = syscall.AttachLsf(int(fd), []syscall.SockFilter{{Code: returnConstant, K: 0}}) // keep no byte of any packet
		})
		if err := errors.Join(err, failed); err != nil {
			t.Fatal(err)
		}
	}
}

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
