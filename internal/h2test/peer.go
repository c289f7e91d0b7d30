// Package h2test gives tests an HTTP/2 server that does what the test says, frame by frame, where net/http's server knows no misbehaviour.
package h2test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// Peer is an HTTP/2 server in the clear on a free port of this machine.
type Peer struct {
	Addr string
	// Accepted counts the connections, Open those that are.
	Accepted, Open atomic.Int64
	// Requests counts the complete requests that arrived, on all connections: an upper bound of the executions.
	Requests atomic.Int64

	serving sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

// Conn is one connection of a [Peer]. Reading belongs to the function that serves it. What cannot be written, to a client that is gone, shows when
// reading.
type Conn struct {
	net.Conn

	peer *Peer
	// Framer writes what no method does.
	Framer *http2.Framer

	partial map[uint32]*Request
}

// Request is a request that arrived completely.
type Request struct {
	Stream uint32
	Header http.Header
	Body   bytes.Buffer
}

// Start has each connection served by serve, which is told its number, from 1; when serve returns, the connection is closed.
func Start(t testing.TB, serve func(number int, conn *Conn)) *Peer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := &Peer{Addr: listener.Addr().String()}
	peer.serving.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			number := int(peer.Accepted.Add(1))
			peer.Open.Add(1)
			peer.mu.Lock()
			peer.conns = append(peer.conns, raw)
			peer.mu.Unlock()
			peer.serving.Go(func() {
				defer peer.Open.Add(-1)
				defer func() { _ = raw.Close() }()
				serve(number, &Conn{Conn: raw, peer: peer, Framer: http2.NewFramer(raw, raw), partial: make(map[uint32]*Request)})
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		peer.mu.Lock()
		for _, conn := range peer.conns {
			_ = conn.Close()
		}
		peer.mu.Unlock()
		peer.serving.Wait()
	})
	return peer
}

// Greet reads the client's preface and sends SETTINGS. It reports false if the connection ended.
func (c *Conn) Greet(settings ...http2.Setting) bool {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.Conn, preface); err != nil {
		return false
	}
	c.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c.Framer.WriteSettings(settings...) == nil
}

// Next returns the next complete request, and false when the connection ended.
func (c *Conn) Next() (*Request, bool) {
	for {
		frame, err := c.Framer.ReadFrame()
		if err != nil {
			return nil, false
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = c.Framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = c.Framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			request := &Request{Stream: frame.StreamID, Header: make(http.Header)}
			for _, field := range frame.Fields {
				request.Header.Add(field.Name, field.Value)
			}
			c.partial[frame.StreamID] = request
		case *http2.DataFrame:
			request := c.partial[frame.StreamID]
			request.Body.Write(frame.Data())
			if frame.StreamEnded() {
				delete(c.partial, frame.StreamID)
				c.peer.Requests.Add(1)
				return request, true
			}
		}
		if err != nil {
			return nil, false
		}
	}
}

// Drain reads until the client closes the connection.
func (c *Conn) Drain() { _, _ = io.Copy(io.Discard, c.Conn) }

// Reset ends a stream.
func (c *Conn) Reset(stream uint32, code http2.ErrCode) { _ = c.Framer.WriteRSTStream(stream, code) }

// GoAway announces that no stream after last is or will be processed.
func (c *Conn) GoAway(last uint32, code http2.ErrCode) { _ = c.Framer.WriteGoAway(last, code, nil) }

// Header sends response headers, of which the first must be :status.
func (c *Conn) Header(stream uint32, end http2.Flags, fields ...hpack.HeaderField) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range fields {
		_ = encoder.WriteField(field)
	}
	_ = c.Framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end == http2.FlagHeadersEndStream,
	})
}

// Begin sends the headers of a gRPC response.
func (c *Conn) Begin(stream uint32) {
	c.Header(stream, 0, hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
}

// Message sends bytes as a gRPC message.
func (c *Conn) Message(stream uint32, payload []byte) {
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload))) //nolint:gosec // a test's message is small
	_ = c.Framer.WriteData(stream, false, append(framed, payload...))
}

// End sends a gRPC status as the trailers.
func (c *Conn) End(stream uint32, code connect.Code) {
	c.Header(stream, http2.FlagHeadersEndStream, hpack.HeaderField{Name: "grpc-status", Value: strconv.Itoa(int(code))})
}

// Answer answers a request as a healthy gRPC server does.
func (c *Conn) Answer(stream uint32, message proto.Message) {
	payload, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	c.Begin(stream)
	c.Message(stream, payload)
	c.End(stream, 0)
}
