//go:build integration

package faults_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// peer is an instance that speaks HTTP/2 in the clear frame by frame, as a row wants it: net/http's server knows no misbehaviour.
type peer struct {
	addr string
	// accepted counts the connections, open those that are.
	accepted, open atomic.Int64

	executions *ledger
	serving    sync.WaitGroup
	mu         sync.Mutex
	conns      []net.Conn
}

// startPeer has each connection served by serve, which is told its number, from 1; when serve returns, the connection is closed.
func startPeer(t testing.TB, executions *ledger, serve func(number int64, conn *peerConn)) *peer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: listener.Addr().String(), executions: executions}
	p.serving.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			number := p.accepted.Add(1)
			p.open.Add(1)
			p.mu.Lock()
			p.conns = append(p.conns, raw)
			p.mu.Unlock()
			p.serving.Go(func() {
				defer p.open.Add(-1)
				defer raw.Close()
				serve(number, &peerConn{Conn: raw, peer: p, framer: http2.NewFramer(raw, raw), partial: make(map[uint32]*peerRequest)})
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for _, conn := range p.conns {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.serving.Wait()
	})
	return p
}

// peerConn is one connection of a peer. Reading belongs to the function that serves it.
type peerConn struct {
	net.Conn

	peer    *peer
	framer  *http2.Framer
	partial map[uint32]*peerRequest
}

// peerRequest is a request that arrived completely.
type peerRequest struct {
	stream uint32
	path   string
	body   bytes.Buffer
}

// greet reads the client's preface and sends SETTINGS. It reports false if the connection ended.
func (c *peerConn) greet(settings ...http2.Setting) bool {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.Conn, preface); err != nil {
		return false
	}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c.framer.WriteSettings(settings...) == nil
}

// next returns the next complete request, and false when the connection ended.
func (c *peerConn) next() (*peerRequest, bool) {
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
			c.partial[frame.StreamID] = &peerRequest{stream: frame.StreamID, path: frame.PseudoValue("path")}
		case *http2.DataFrame:
			request := c.partial[frame.StreamID]
			request.body.Write(frame.Data())
			if frame.StreamEnded() {
				delete(c.partial, frame.StreamID)
				return request, true
			}
		}
		if err != nil {
			return nil, false
		}
	}
}

// execute notes a request as executed and answers it.
func (c *peerConn) execute(request *peerRequest) {
	// The ID of the call is the first field of either request: five bytes of gRPC, then the tag and the text.
	id, n := protowire.ConsumeString(request.body.Bytes()[6:])
	if n < 0 {
		panic("a request without an ID")
	}
	c.peer.executions.note(id)
	var answer proto.Message = loginResponse(id)
	if request.path == "/goplt.auth.v1.AuthService/ValidateToken" {
		answer = validateResponse(id)
	}
	payload, err := proto.Marshal(answer)
	if err != nil {
		panic(err)
	}
	c.header(request.stream, false, ":status", "200", "content-type", "application/grpc")
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload)))
	_ = c.framer.WriteData(request.stream, false, append(framed, payload...)) // a client that is gone shows when reading
	c.header(request.stream, true, "grpc-status", "0")
}

// header sends a block of headers, names and values in turn.
func (c *peerConn) header(stream uint32, end bool, pairs ...string) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for at := 0; at < len(pairs); at += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: pairs[at], Value: pairs[at+1]}) // into memory
	}
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
}

// refuse ends a stream of which nothing was processed.
func (c *peerConn) refuse(stream uint32) {
	_ = c.framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
}

// goAway announces that no stream after last is or will be processed.
func (c *peerConn) goAway(last uint32) { _ = c.framer.WriteGoAway(last, http2.ErrCodeNo, nil) }

// drain reads until the client closes the connection.
func (c *peerConn) drain() { _, _ = io.Copy(io.Discard, c.Conn) }
