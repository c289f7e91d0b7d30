package pool_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/0x1d/goplt/internal/pool"
)

// TestClose ends calls under way and those who wait, and refuses whoever comes later.
func TestClose(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		arrived := make(chan struct{})
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 1, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(arrived)
			<-r.Context().Done()
		})
		p := newPool(t, config(server.addr, kind))
		called, waited := make(chan error, 1), make(chan error, 1)
		conn := acquire(t, p)
		go func() {
			_, err := call(t.Context(), conn)
			called <- err
		}()
		<-arrived
		go func() {
			_, err := p.Acquire(t.Context())
			waited <- err
		}()
		eventually(t, "a caller waits", func() bool { return p.Queued() == 1 })
		var closing sync.WaitGroup
		closing.Go(p.Close)
		closing.Go(p.Close)
		closing.Wait()
		if err := <-called; err == nil {
			t.Error("the call in flight succeeded")
		}
		if err := <-waited; !errors.Is(err, pool.ErrClosed) {
			t.Errorf("who waited got %v, want ErrClosed", err)
		}
		if _, err := p.Acquire(t.Context()); !errors.Is(err, pool.ErrClosed) {
			t.Errorf("who came later got %v, want ErrClosed", err)
		}
		if n := p.Len(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		conn.Release() // of no effect, and no panic
	}
}

// TestCloseDuringDial: Close does not wait for what a silent peer will never send.
func TestCloseDuringDial(t *testing.T) {
	t.Parallel()
	accepted := make(chan struct{})
	peer := startPeer(t, func(_ int64, conn net.Conn) error {
		close(accepted)
		return awaitEOF(conn)
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	waited := make(chan error, 1)
	go func() {
		_, err := p.Acquire(t.Context())
		waited <- err
	}()
	<-accepted
	p.Close()
	if err := <-waited; !errors.Is(err, pool.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := <-peer.ended; err != nil { // ends when the connection does
		t.Errorf("peer: %v", err)
	}
}

// TestCloseWhileCallersCome: nobody is left waiting, and nothing stays open.
func TestCloseWhileCallersCome(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 2, echoRemote)
		config := config(server.addr, kind)
		config.MaxConnections = 3
		p := newPool(t, config)
		var callers sync.WaitGroup
		served := make(chan struct{}, 1000)
		for range 20 {
			callers.Go(func() {
				for {
					conn, err := p.Acquire(t.Context())
					if err != nil {
						if !errors.Is(err, pool.ErrClosed) {
							t.Errorf("got %v, want ErrClosed", err)
						}
						return
					}
					_, _ = call(t.Context(), conn) // fails when it is cut off
					select {
					case served <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 20 {
			<-served
		}
		p.Close()
		callers.Wait()
		if n := p.Len(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
	}
}
