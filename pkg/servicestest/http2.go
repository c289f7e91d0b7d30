package servicestest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// HTTP2Server is an HTTP/2 server in the clear on a port of this machine that does what a script says, frame by frame, where a real server
// knows no misbehaviour: GOAWAY at the wrong time, streams refused or reset, a response cut off within a message, bytes that are no HTTP/2.
type HTTP2Server struct {
	// Addr is where it listens, such as "127.0.0.1:43210".
	Addr string
	// URL is the same as a URL.
	URL string
	// Accepted counts the connections, Open those whose script goes on. They are to be read.
	Accepted, Open atomic.Int64
	// Requests counts the requests that arrived completely, on all connections: an upper bound of the executions. It is to be read.
	Requests atomic.Int64

	serving sync.WaitGroup
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	closed  bool
}

// StartHTTP2 starts a server that has each connection served by script, in a goroutine of its own; when script returns, the connection is
// closed. When the test ends, the server closes all connections, which ends what scripts wait for, and waits for the scripts.
//
// A healthy gRPC server, but for its first connection, on which the first call is refused, and may be sent again:
//
//	server := servicestest.StartHTTP2(t, func(conn *servicestest.HTTP2Conn) {
//		conn.Greet()
//		for request, ok := conn.Next(); ok; request, ok = conn.Next() {
//			if conn.Number == 1 && request.Stream == 1 {
//				conn.Reset(request.Stream, http2.ErrCodeRefusedStream)
//				continue
//			}
//			conn.Answer(request.Stream, &orders.PlaceResponse{})
//		}
//	})
//
// A script that does not call [HTTP2Conn.Greet] sends no SETTINGS. One that greets with a [http2.SettingMaxConcurrentStreams] of 1 takes
// one call at a time.
func StartHTTP2(tb testing.TB, script func(conn *HTTP2Conn)) *HTTP2Server {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &HTTP2Server{Addr: listener.Addr().String(), URL: "http://" + listener.Addr().String(), conns: make(map[net.Conn]struct{})}
	s.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.serve(conn, script)
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		s.closed = true
		for conn := range s.conns {
			_ = conn.Close()
		}
		s.mu.Unlock()
		s.serving.Wait()
	})
	return s
}

func (s *HTTP2Server) serve(conn net.Conn, script func(conn *HTTP2Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return
	}
	s.conns[conn] = struct{}{}
	number := int(s.Accepted.Add(1))
	s.Open.Add(1)
	s.serving.Go(func() {
		defer func() {
			_ = conn.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, conn)
			s.Open.Add(-1)
		}()
		script(&HTTP2Conn{
			Conn: conn, Number: number, Framer: http2.NewFramer(conn, conn), server: s, partial: make(map[uint32]*HTTP2Request),
		})
	})
}
