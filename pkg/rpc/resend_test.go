package rpc_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestFault20RefusedThenLostByTheOtherProtocol: gRPC is refused with evidence that makes it doubtful, the same call is then executed over HTTP and
// its answer lost. It must not be sent again.
func TestFault20RefusedThenLostByTheOtherProtocol(t *testing.T) {
	listener := listen(t)
	var executed, grpcCalls, httpCalls atomic.Int64
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	serveConn := func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		reader := bufio.NewReader(conn)
		first, err := reader.Peek(3)
		if err != nil {
			return
		}
		if string(first) != "PRI" { // executes, and loses the answer
			request, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, request.Body)
			httpCalls.Add(1)
			executed.Add(1)
			return
		}
		if _, err := io.CopyN(io.Discard, reader, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(conn, reader)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = framer.WriteSettings()
		path := ""
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
				_ = framer.WriteSettingsAck()
			}
			if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
				path = headers.PseudoValue("path")
			}
			if data, ok := frame.(*http2.DataFrame); ok && data.StreamEnded() {
				if strings.HasPrefix(path, "/grpc.health") {
					return // a probe
				}
				if grpcCalls.Add(1) > 1 { // executes it, and loses the answer
					executed.Add(1)
					return
				}
				// In one piece, as a proxy would that takes leave of HTTP/2.
				var out strings.Builder
				both := http2.NewFramer(&out, nil)
				_ = both.WriteRSTStream(data.StreamID, http2.ErrCodeHTTP11Required)
				_ = both.WriteGoAway(0, http2.ErrCodeNo, nil)
				_, _ = io.WriteString(conn, out.String())
			}
		}
	}
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serveConn(conn) })
		}
	})
	t.Cleanup(func() { _ = listener.Close() })
	transport, _ := only(t, listener.Addr().String(), nil)
	err := login(t.Context(), transport)
	expectCode(t, err, connect.CodeUnavailable)
	if got := executed.Load(); got != 1 {
		t.Errorf("login was executed %d times (%d by HTTP, gRPC calls %d); want once", got, httpCalls.Load(), grpcCalls.Load())
	}
}
