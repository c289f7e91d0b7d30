package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// memoryConn is the client's end of a connection in memory, whose peer gives each request the same answer within the write that completes it. So
// nothing of a server, of the kernel or of a network is in what calls on it cost, and hardly anything of the peer: it looks at no more than it must.
type memoryConn struct {
	mu     sync.Mutex
	more   sync.Cond // told when there is more to read, or nothing more will come
	peer   memoryPeer
	asked  []byte       // written by the client, and not taken by the peer yet
	answer bytes.Buffer // to be read by the client
	closed bool
}

// memoryPeer takes from what was asked what is complete, and adds to the answer.
type memoryPeer interface {
	serve(asked []byte, answer *bytes.Buffer) (taken int)
}

var _ net.Conn = (*memoryConn)(nil)

func newMemoryConn(peer memoryPeer) *memoryConn {
	c := &memoryConn{peer: peer}
	c.more.L = &c.mu
	return c
}

func (c *memoryConn) Read(buffer []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.answer.Len() == 0 && !c.closed {
		c.more.Wait()
	}
	if c.answer.Len() == 0 {
		return 0, io.EOF
	}
	return c.answer.Read(buffer)
}

func (c *memoryConn) Write(buffer []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.asked = append(c.asked, buffer...)
	for {
		taken := c.peer.serve(c.asked, &c.answer)
		if taken == 0 {
			break
		}
		c.asked = c.asked[:copy(c.asked, c.asked[taken:])]
	}
	if c.answer.Len() > 0 {
		c.more.Signal()
	}
	return len(buffer), nil
}

func (c *memoryConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.more.Broadcast()
	return nil
}

func (*memoryConn) LocalAddr() net.Addr              { return memoryAddr{} }
func (*memoryConn) RemoteAddr() net.Addr             { return memoryAddr{} }
func (*memoryConn) SetDeadline(time.Time) error      { return nil } // nothing here takes time
func (*memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (*memoryConn) SetWriteDeadline(time.Time) error { return nil }

// memoryAddress is where the peer is said to be. Nobody looks it up.
const memoryAddress = "127.0.0.1:80"

type memoryAddr struct{}

func (memoryAddr) Network() string { return "tcp" }
func (memoryAddr) String() string  { return memoryAddress }

// http1Peer answers each request over HTTP/1.1.
type http1Peer struct{ response []byte }

func newHTTP1Peer(contentType string, body []byte) *http1Peer {
	header := "HTTP/1.1 200 OK\r\nContent-Type: " + contentType + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	return &http1Peer{append([]byte(header), body...)}
}

var contentLength = []byte("\r\nContent-Length: ")

func (p *http1Peer) serve(asked []byte, answer *bytes.Buffer) int {
	header, _, ok := bytes.Cut(asked, []byte("\r\n\r\n"))
	if !ok {
		return 0
	}
	length := 0
	if _, after, ok := bytes.Cut(header, contentLength); ok {
		for at := 0; at < len(after) && after[at] != '\r'; at++ {
			length = 10*length + int(after[at]-'0')
		}
	}
	total := len(header) + 4 + length
	if len(asked) < total {
		return 0
	}
	answer.Write(p.response)
	return total
}

// http2Peer answers each request over HTTP/2 with a header, a message and a trailer, as gRPC does.
type http2Peer struct {
	header, data, trailer []byte // the payloads of the frames
	greeted               bool
	consumed              int // bytes of the connection's window that were not given back
}

// newGRPCPeer answers message.
func newGRPCPeer(message []byte) *http2Peer {
	const statusOK = 0x88 // of HPACK's static table: ":status: 200"
	data := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return &http2Peer{
		header:  appendField([]byte{statusOK}, "content-type", "application/grpc+proto"),
		data:    append(data, message...),
		trailer: appendField(nil, "grpc-status", "0"),
	}
}

// appendField adds a header field that HPACK does not index, of a name and a value shorter than 127 bytes (RFC 7541, section 6.2.2).
func appendField(block []byte, name, value string) []byte {
	block = append(block, 0, byte(len(name)))
	block = append(block, name...)
	block = append(block, byte(len(value)))
	return append(block, value...)
}

// Of HTTP/2 (RFC 9113), what the peer has to know.
const (
	http2Preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	http2HeaderLen   = 9
	http2FullWindow  = 1<<31 - 1
	http2FirstWindow = 1<<16 - 1

	frameData, frameHeaders, frameSettings, framePing, frameWindowUpdate = 0, 1, 4, 6, 8
	flagEndStream, flagAck, flagEndHeaders                               = 1, 1, 4
)

func (p *http2Peer) serve(asked []byte, answer *bytes.Buffer) int {
	if !p.greeted {
		if len(asked) < len(http2Preface) {
			return 0
		}
		p.greeted = true
		writeFrame(answer, frameSettings, 0, 0, nil)
		writeFrame(answer, frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, http2FullWindow-http2FirstWindow))
		return len(http2Preface)
	}
	if len(asked) < http2HeaderLen {
		return 0
	}
	length := int(asked[0])<<16 | int(asked[1])<<8 | int(asked[2])
	if len(asked) < http2HeaderLen+length {
		return 0
	}
	kind, flags, stream, payload := asked[3], asked[4], binary.BigEndian.Uint32(asked[5:]), asked[http2HeaderLen:http2HeaderLen+length]
	switch {
	case (kind == frameSettings || kind == framePing) && flags&flagAck == 0:
		if kind == frameSettings {
			payload = nil
		}
		writeFrame(answer, kind, flagAck, 0, payload)
	case kind == frameData:
		if p.consumed += length; p.consumed > http2FullWindow/2 {
			writeFrame(answer, frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(p.consumed)))
			p.consumed = 0
		}
	}
	if (kind == frameData || kind == frameHeaders) && flags&flagEndStream != 0 {
		writeFrame(answer, frameHeaders, flagEndHeaders, stream, p.header)
		writeFrame(answer, frameData, 0, stream, p.data)
		writeFrame(answer, frameHeaders, flagEndHeaders|flagEndStream, stream, p.trailer)
	}
	return http2HeaderLen + length
}

func writeFrame(out *bytes.Buffer, kind, flags byte, stream uint32, payload []byte) {
	var header [http2HeaderLen]byte
	header[0], header[1], header[2] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload))
	header[3], header[4] = kind, flags
	binary.BigEndian.PutUint32(header[5:], stream)
	out.Write(header[:])
	out.Write(payload)
}
