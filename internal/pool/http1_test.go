package pool_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/0x1d/goplt/internal/pool"
)

// TestHTTP1Reuse: calls one after the other share a connection, also those that were given up before they began.
// Not in parallel: net/http does not use a connection again whose write it has not seen to be done 50 ms after the answer, as on a busy machine.
func TestHTTP1Reuse(t *testing.T) {
	server := startServer(t, http1, 0, echoRemote)
	config := config(server.addr, pool.HTTP1)
	config.MaxConnections = 10
	p := newPool(t, config)
	for range 20 {
		mustCall(t, p)
		acquire(t, p).Release()
	}
	if accepted := server.accepted.Load(); accepted != 1 {
		t.Errorf("%d connections, want 1", accepted)
	}
}

// TestAcquireAfterEnd: a caller whose time is over gets no connection, not even one that is free: over HTTP/1.1, the request might still leave.
func TestAcquireAfterEnd(t *testing.T) {
	t.Parallel()
	p := newPool(t, config(startServer(t, http1, 0, echoRemote).addr, pool.HTTP1))
	mustCall(t, p)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := p.Acquire(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v; want context.Canceled", conn, err)
		conn.Release()
	}
}

// TestHTTP1Limit: more callers than connections are all served, by as many connections as are allowed.
// Not in parallel: net/http does not use a connection again whose write it has not seen to be done 50 ms after the answer, as on a busy machine.
func TestHTTP1Limit(t *testing.T) {
	const callers, connections = 100, 5
	var serving, most atomic.Int64
	all := make(chan struct{})
	server := startServer(t, http1, 0, func(w http.ResponseWriter, r *http.Request) {
		now := serving.Add(1)
		defer serving.Add(-1)
		if now == connections {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		<-all // the first are held until there are as many as can be
		for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
		}
		echoRemote(w, r)
	})
	config := config(server.addr, pool.HTTP1)
	config.MaxConnections = connections
	p := newPool(t, config)
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			conn, err := p.Acquire(t.Context())
			if err == nil {
				_, err = call(t.Context(), conn)
			}
			if err != nil {
				t.Errorf("call: %v", err)
			}
		})
	}
	running.Wait()
	if accepted := server.accepted.Load(); accepted != connections || most.Load() != connections {
		t.Errorf("%d connections, %d calls at a time, want %d of each", accepted, most.Load(), connections)
	}
}

// TestHTTP1ClosedWhileIdle: what the server has closed is not handed out.
func TestHTTP1ClosedWhileIdle(t *testing.T) {
	t.Parallel()
	idle := make(chan struct{})
	peer := startPeer(t, func(number int64, conn net.Conn) error {
		if number > 1 {
			return serveOnce(conn)
		}
		if err := serveOnce(conn); err != nil {
			return err
		}
		<-idle
		return nil
	})
	p := newPool(t, config(peer.addr, pool.HTTP1))
	mustCall(t, p)
	close(idle)
	eventually(t, "the connection's end is noticed", func() bool { return p.Len() == 0 })
	mustCall(t, p)
	if accepted := peer.accepted.Load(); accepted != 2 {
		t.Errorf("%d connections, want 2", accepted)
	}
}

// serveOnce answers one request of HTTP/1.1, and keeps the connection.
func serveOnce(conn net.Conn) error {
	if _, err := io.ReadAtLeast(conn, make([]byte, 4<<10), len("POST")); err != nil {
		return err
	}
	_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	return err
}

// TestHTTP1BodyNotRead: a connection with a response half read cannot carry another call.
func TestHTTP1BodyNotRead(t *testing.T) {
	t.Parallel()
	server := startServer(t, http1, 0, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
	})
	p := newPool(t, config(server.addr, pool.HTTP1))
	response, err := start(t.Context(), acquire(t, p))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	<-server.closed
	eventually(t, "the connection is gone", func() bool { return p.Len() == 0 })
	mustCall(t, p)
	if accepted := server.accepted.Load(); accepted != 2 {
		t.Errorf("%d connections, want 2", accepted)
	}
}

// TestAbandon: the count of bytes is what the peer got at most, and it is final.
func TestAbandon(t *testing.T) {
	t.Parallel()
	received := make(chan int64, 1)
	arrived := make(chan struct{})
	peer := startPeer(t, func(_ int64, conn net.Conn) error {
		first := make([]byte, 1)
		if _, err := io.ReadFull(conn, first); err != nil {
			return err
		}
		close(arrived)
		rest, _ := io.Copy(io.Discard, conn)
		received <- 1 + rest
		return nil
	})
	p := newPool(t, config(peer.addr, pool.HTTP1))
	conn := acquire(t, p)
	if n := conn.BytesWritten(); n != 0 {
		t.Errorf("%d bytes written before any call", n)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), conn)
		ended <- err
	}()
	<-arrived
	written := conn.Abandon()
	if err := <-ended; err == nil {
		t.Error("the call succeeded")
	}
	if got := <-received; got > int64(written) {
		t.Errorf("the peer got %d bytes, more than the %d counted", got, written)
	}
	if again := conn.Abandon(); again != written || conn.BytesWritten() != written {
		t.Errorf("the count went from %d to %d", written, again)
	}
	eventually(t, "no connection is open", func() bool { return p.Len() == 0 })
	conn = acquire(t, p)
	if n := conn.Abandon(); n != 0 {
		t.Errorf("%d bytes written on a connection without a call", n)
	}
	if _, err := call(t.Context(), conn); err == nil || errors.Is(err, pool.ErrClosed) {
		t.Errorf("a call on an abandoned connection: got %v, want its error", err)
	}
	if n := conn.BytesWritten(); n != 0 {
		t.Errorf("%d bytes written after Abandon", n)
	}
}

// TestAbandonReservation: an HTTP/1.1 connection is closed for whom it is reserved, or for whom it was last, and not for those before.
// Not in parallel: net/http does not use a connection again whose write it has not seen to be done 50 ms after the answer, as on a busy machine.
func TestAbandonReservation(t *testing.T) {
	server := startServer(t, http1, 0, echoRemote)
	p := newPool(t, config(server.addr, pool.HTTP1))

	first := acquire(t, p)
	stale := first.Reservation()
	if _, err := call(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := acquire(t, p)
	first.AbandonReservation(stale)
	if _, err := call(t.Context(), second); err != nil {
		t.Errorf("a call on a connection that was not its predecessor's to abandon: %v", err)
	}
	if accepted := server.accepted.Load(); accepted != 1 {
		t.Errorf("%d connections; want one, used again", accepted)
	}

	third := acquire(t, p)
	third.AbandonReservation(third.Reservation())
	if _, err := call(t.Context(), third); err == nil {
		t.Error("a call on an abandoned connection succeeded")
	}
	fourth := acquire(t, p)
	last := fourth.Reservation()
	if _, err := call(t.Context(), fourth); err != nil {
		t.Fatal(err)
	}
	fourth.AbandonReservation(last)
	mustCall(t, p)
	if accepted := server.accepted.Load(); accepted != 3 {
		t.Errorf("%d connections; want a new one after each that was abandoned", accepted)
	}
}
