package pool_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/0x1d/goplt/internal/pool"
)

// TestGoAwayWhileIdle is row 18 of the fault matrix: the connection is closed, unasked, and the next call is made on a new one.
func TestGoAwayWhileIdle(t *testing.T) {
	t.Parallel()
	peer := startPeer(t, func(number int64, conn net.Conn) error {
		s, err := greet(conn)
		if err != nil {
			return err
		}
		if number > 1 {
			return s.answerAll()
		}
		stream, err := s.awaitRequest()
		if err != nil {
			return err
		}
		if err := s.answer(stream); err != nil {
			return err
		}
		if err := s.WriteGoAway(stream, http2.ErrCodeNo, nil); err != nil {
			return err
		}
		return awaitEOF(conn)
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	mustCall(t, p)
	if err := <-peer.ended; err != nil { // which ends when the pool closes the connection
		t.Errorf("peer: %v", err)
	}
	mustCall(t, p)
	if accepted := peer.accepted.Load(); accepted != 2 {
		t.Errorf("%d connections, want 2", accepted)
	}
	eventually(t, "one connection is left", func() bool { return p.Len() == 1 })
}

// TestGoAwayInFlight is the second half of row 19: a call that the peer has accepted completes, calls after it go to a new connection, and
// the old one is closed when nothing is left on it.
func TestGoAwayInFlight(t *testing.T) {
	t.Parallel()
	announced, finish := make(chan struct{}), make(chan struct{})
	peer := startPeer(t, func(number int64, conn net.Conn) error {
		s, err := greet(conn)
		if err != nil {
			return err
		}
		if number > 1 {
			return s.answerAll()
		}
		stream, err := s.awaitRequest()
		if err != nil {
			return err
		}
		if err := s.WriteGoAway(stream, http2.ErrCodeNo, nil); err != nil {
			return err
		}
		close(announced)
		<-finish
		if err := s.answer(stream); err != nil {
			return err
		}
		return awaitEOF(conn)
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	first := acquire(t, p)
	ended := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), first)
		ended <- err
	}()
	<-announced
	eventually(t, "the announcement has arrived", func() bool { return !first.Usable() })
	mustCall(t, p) // although the limit is one connection: the old one does not count
	if n := p.Len(); n != 2 {
		t.Errorf("%d connections are open, want 2", n)
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-peer.ended; err != nil {
		t.Errorf("peer: %v", err)
	}
	eventually(t, "one connection is left", func() bool { return p.Len() == 1 })
}

// TestGoAwayWhileReserved: a slot that was reserved before the announcement keeps the connection open until it is given back.
func TestGoAwayWhileReserved(t *testing.T) {
	t.Parallel()
	announce := make(chan struct{})
	peer := startPeer(t, func(_ int64, conn net.Conn) error {
		s, err := greet(conn)
		if err != nil {
			return err
		}
		<-announce
		if err := s.WriteGoAway(0, http2.ErrCodeNo, nil); err != nil {
			return err
		}
		return awaitEOF(conn)
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	conn := acquire(t, p)
	close(announce)
	eventually(t, "the announcement has arrived", func() bool { return !conn.Usable() })
	if n := p.Len(); n != 1 {
		t.Errorf("%d connections are open, want 1", n)
	}
	conn.Release()
	if err := <-peer.ended; err != nil {
		t.Errorf("peer: %v", err)
	}
	eventually(t, "no connection is left", func() bool { return p.Len() == 0 })
}

// TestPeerClosesFreshConnection is row 25: whoever asks next gets a new connection.
func TestPeerClosesFreshConnection(t *testing.T) {
	t.Parallel()
	closeIt := make(chan struct{})
	peer := startPeer(t, func(number int64, conn net.Conn) error {
		s, err := greet(conn)
		if err != nil {
			return err
		}
		if number > 1 {
			return s.answerAll()
		}
		<-closeIt
		return nil
	})
	p := newPool(t, config(peer.addr, pool.HTTP2))
	acquire(t, p).Release()
	close(closeIt)
	eventually(t, "the connection's end is noticed", func() bool { return p.Len() == 0 })
	mustCall(t, p)
}

// TestIdleTimeout: a connection without calls is closed in time, and only that.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	for _, kind := range []pool.Kind{pool.HTTP2, pool.HTTP1} {
		release := make(chan struct{})
		server := startServer(t, []func(*http.Protocols){cleartextHTTP2, http1}[kind], 1, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-release
			echoRemote(w, r)
		})
		config := config(server.addr, kind)
		config.MaxConnections, config.IdleTimeout = 3, 50*time.Millisecond
		p := newPool(t, config)
		idle, reserved, busy := acquire(t, p), acquire(t, p), acquire(t, p)
		response, err := start(t.Context(), busy)
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		idle.Release()
		<-server.closed
		if elapsed := time.Since(started); elapsed < config.IdleTimeout {
			t.Errorf("kind %d: closed after %v", kind, elapsed)
		}
		if n := p.Len(); n != 2 || !reserved.Usable() || !busy.Usable() {
			t.Errorf("kind %d: %d connections are open, want those with a call and a reservation", kind, n)
		}
		started = time.Now()
		close(release)
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Errorf("kind %d: the call that outlived the idle timeout: %v", kind, err)
		}
		_ = response.Body.Close()
		if _, err := call(t.Context(), reserved); err != nil {
			t.Errorf("kind %d: the slot that was reserved beyond the idle timeout: %v", kind, err)
		}
		for range 2 {
			<-server.closed
			if elapsed := time.Since(started); elapsed < config.IdleTimeout {
				t.Errorf("kind %d: closed %v after its call, want the whole idle timeout", kind, elapsed)
			}
		}
		mustCall(t, p)
	}
}
