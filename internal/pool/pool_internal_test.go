package pool

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"
)

// silentPeer accepts connections and never says a word, which is all that an HTTP/1.1 connection without a call needs.
func silentPeer(t *testing.T) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func newTestPool(t *testing.T, addr string) *Pool {
	t.Helper()
	p := New(Config{Kind: HTTP1, Addr: addr, MaxConnections: 1, DialTimeout: 10 * time.Second})
	t.Cleanup(p.Close)
	return p
}

// TestUnreportedRelease: net/http does not report the end of a call that began while its state hook ran. The connection's slot must be
// found nevertheless, at once by those who come later, and soon by those who wait already.
func TestUnreportedRelease(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, silentPeer(t).Addr().String())
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.client.SetStateHook(nil)
	conn.client.Release()
	if again, err := p.Acquire(t.Context()); err != nil || again != conn {
		t.Fatalf("got %p, %v, want the only connection %p", again, err, conn)
	}

	waited := make(chan error, 1)
	go func() {
		_, err := p.Acquire(t.Context())
		waited <- err
	}()
	awaitQueue(p, 1)
	conn.client.Release()
	if err := <-waited; err != nil {
		t.Errorf("who waited got %v", err)
	}
}

func awaitQueue(p *Pool, length int64) {
	for p.queued.Load() != length {
		runtime.Gosched()
	}
}

// TestNobodyOvertakes: a slot that is free goes to who waits, not to who comes by.
func TestNobodyOvertakes(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, silentPeer(t).Addr().String())
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.client.SetStateHook(nil)
	served := make(chan string, 2)
	acquire := func(name string) {
		if _, err := p.Acquire(t.Context()); err != nil {
			name += ": " + err.Error()
		}
		served <- name
	}
	go acquire("first")
	awaitQueue(p, 1)
	conn.client.Release()
	go acquire("second")
	if name := <-served; name != "first" {
		t.Errorf("%s was served before the first", name)
	}
	awaitQueue(p, 1)
	conn.Release()
	if name := <-served; name != "second" {
		t.Errorf("got %s, want the second", name)
	}
}

// TestAnsweredAndGone: a slot given to a caller whose context ended at the same time is not lost.
func TestAnsweredAndGone(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, silentPeer(t).Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // each has an even chance
		conn, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
		conn, err = p.wait(ctx)
		switch {
		case err == nil:
			conn.Release()
		case !errors.Is(err, context.Canceled):
			t.Fatalf("got %v, want the context's error", err)
		}
	}
}

// TestIdleIsNoProof: a connection that is listed as idle, but in use, is neither handed out nor closed.
func TestIdleIsNoProof(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, silentPeer(t).Addr().String())
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	conn.parked = true
	p.idle = append(p.idle, conn)
	p.mu.Unlock()
	if again := p.take(); again != nil {
		t.Errorf("a connection in use was handed out: %p", again)
	}
	if !conn.Usable() || p.Len() != 1 {
		t.Error("a connection in use was retired")
	}
	conn.Release()
	conn.stateChanged(conn.client)
	if len(p.idle) != 1 {
		t.Errorf("listed as idle %d times, want once", len(p.idle))
	}
	if first, second := p.take(), p.take(); first != conn || second != nil {
		t.Errorf("got %p and %p, want %p once", first, second, conn)
	}
}

// TestRetiredWhileReserved: whoever retires a connection, and whoever reserves a slot on it at the same time, agree on who closes it.
func TestRetiredWhileReserved(t *testing.T) {
	t.Parallel()
	listener := silentPeer(t)
	for range 200 {
		p := newTestPool(t, listener.Addr().String())
		conn, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
		reserved := make(chan bool)
		go func() { reserved <- conn.reserve() }()
		conn.retire(reasonIdle)
		if <-reserved {
			if conn.client.Err() != nil {
				t.Fatal("closed with a slot reserved")
			}
			conn.Release()
		}
		if conn.client.Err() == nil || p.Len() != 0 {
			t.Fatal("left open with nothing on it")
		}
		p.Close()
	}
}
