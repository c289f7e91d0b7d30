package rpc_test

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

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
)

// h2Peer is an HTTP/2 server in the clear that does what a test says, frame by frame, where net/http's server knows no misbehaviour.
type h2Peer struct {
	Addr string
	// Requests counts the complete requests that arrived, on all connections: an upper bound of the executions.
	Requests atomic.Int64

	listener net.Listener
	serving  sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

// h2Conn is one connection of an h2Peer. It belongs to the function that serves it.
type h2Conn struct {
	net.Conn

	peer    *h2Peer
	framer  *http2.Framer
	partial map[uint32]*h2Request
}

// h2Request is a request that arrived completely.
type h2Request struct {
	Stream uint32
	Header http.Header
	Body   bytes.Buffer
}

// startH2Peer has each connection served by serve, which is told its number, from 1; when serve returns, the connection is closed.
func startH2Peer(t testing.TB, serve func(number int, conn *h2Conn)) *h2Peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := &h2Peer{Addr: listener.Addr().String(), listener: listener}
	peer.serving.Go(func() {
		for number := 1; ; number++ {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			peer.mu.Lock()
			peer.open = append(peer.open, raw)
			peer.mu.Unlock()
			peer.serving.Go(func() {
				defer raw.Close()
				serve(number, &h2Conn{Conn: raw, peer: peer, framer: http2.NewFramer(raw, raw), partial: make(map[uint32]*h2Request)})
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		peer.mu.Lock()
		for _, conn := range peer.open {
			_ = conn.Close()
		}
		peer.mu.Unlock()
		peer.serving.Wait()
	})
	return peer
}

// Greet reads the client's preface and sends SETTINGS. It reports false if the connection ended.
func (c *h2Conn) Greet(settings ...http2.Setting) bool {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.Conn, preface); err != nil {
		return false
	}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c.framer.WriteSettings(settings...) == nil
}

// Next returns the next complete request, and false when the connection ended.
func (c *h2Conn) Next() (*h2Request, bool) {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return nil, false
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = c.framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			request := &h2Request{Stream: frame.StreamID, Header: make(http.Header)}
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
func (c *h2Conn) Drain() { _, _ = io.Copy(io.Discard, c.Conn) }

// Reset ends a stream.
func (c *h2Conn) Reset(stream uint32, code http2.ErrCode) { _ = c.framer.WriteRSTStream(stream, code) }

// GoAway announces that no stream after last is or will be processed.
func (c *h2Conn) GoAway(last uint32, code http2.ErrCode) { _ = c.framer.WriteGoAway(last, code, nil) }

// Header sends response headers, of which the first must be :status.
func (c *h2Conn) Header(stream uint32, end http2.Flags, fields ...hpack.HeaderField) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range fields {
		_ = encoder.WriteField(field)
	}
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end == http2.FlagHeadersEndStream,
	})
}

// Begin sends the headers of a gRPC response.
func (c *h2Conn) Begin(stream uint32) {
	c.Header(stream, 0, hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
}

// Message sends bytes as a gRPC message.
func (c *h2Conn) Message(stream uint32, payload []byte) {
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload)))
	_ = c.framer.WriteData(stream, false, append(framed, payload...))
}

// End sends a gRPC status as the trailers.
func (c *h2Conn) End(stream uint32, code connect.Code) {
	c.Header(stream, http2.FlagHeadersEndStream, hpack.HeaderField{Name: "grpc-status", Value: strconv.Itoa(int(code))})
}

// Answer answers a request as a healthy gRPC server does.
func (c *h2Conn) Answer(stream uint32, message proto.Message) {
	payload, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	c.Begin(stream)
	c.Message(stream, payload)
	c.End(stream, 0)
}

// Serve answers every request like a healthy auth service, counting, until the connection ends.
func (c *h2Conn) Serve(executed *atomic.Int64) {
	for {
		request, ok := c.Next()
		if !ok {
			return
		}
		executed.Add(1)
		c.AnswerAuth(request)
	}
}

// AnswerAuth answers a request to the auth service.
func (c *h2Conn) AnswerAuth(request *h2Request) {
	var answer proto.Message = &authv1.LoginResponse{Tokens: &authv1.TokenPair{AccessToken: "a"}}
	if request.Header.Get(":path") == "/goplt.auth.v1.AuthService/ValidateToken" {
		answer = &authv1.ValidateTokenResponse{Claims: &authv1.TokenClaims{UserId: "u"}}
	}
	c.Answer(request.Stream, answer)
}
