package servicestest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// HTTP2Conn is one connection of an [HTTP2Server].
//
// Reading belongs to the script's goroutine. The methods that write may be called by others too, one at a time or at once. What cannot be
// written, to a client that is gone, shows when reading. The conn itself writes bytes that are no frames.
type HTTP2Conn struct {
	net.Conn

	// Number counts the server's connections, from 1.
	Number int
	// Framer writes frames for which there is no method, invalid ones if it is told to. It must not be used while another goroutine writes.
	Framer *http2.Framer

	server   *HTTP2Server
	last     uint32          // stream that began
	began    []*HTTP2Request // by the last frame
	complete []*HTTP2Request // not yet returned by Next

	mu      sync.Mutex // guards partial, and is held to write
	partial map[uint32]*HTTP2Request
}

// HTTP2Request is a request that arrived, at least with its headers.
type HTTP2Request struct {
	// Stream is the ID of its stream.
	Stream uint32
	// Header has the headers, trailers and pseudo-headers such as ":path" included.
	Header http.Header
	// Body is what has arrived of the body. Of a gRPC request, the message begins with the sixth byte.
	Body bytes.Buffer
}

// Path returns the path, which is the procedure.
func (r *HTTP2Request) Path() string { return r.Header.Get(":path") }

// Greet reads the client's preface and sends SETTINGS. It reports false if the connection ended.
func (c *HTTP2Conn) Greet(settings ...http2.Setting) bool {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.Conn, preface); err != nil {
		return false
	}
	c.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c.write(func() error { return c.Framer.WriteSettings(settings...) }) == nil
}

// Next returns the next complete request, and false when the connection ended. On the way, it acknowledges SETTINGS and pings, and gives
// the client the flow-control window that its requests take.
func (c *HTTP2Conn) Next() (*HTTP2Request, bool) {
	for len(c.complete) == 0 {
		if err := c.readFrame(); err != nil {
			return nil, false
		}
	}
	next := c.complete[0]
	c.complete = c.complete[1:]
	return next, true
}

// NextHeaders returns the next request whose headers arrive, whether its body has or not, and false when the connection ended: for an
// early response. Next goes on reading the body, and returns the request, too.
func (c *HTTP2Conn) NextHeaders() (*HTTP2Request, bool) {
	for c.began = nil; len(c.began) == 0; {
		if err := c.readFrame(); err != nil {
			return nil, false
		}
	}
	return c.began[0], true
}

func (c *HTTP2Conn) readFrame() error {
	frame, err := c.Framer.ReadFrame()
	if err != nil {
		return err
	}
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return c.write(c.Framer.WriteSettingsAck)
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return c.write(func() error { return c.Framer.WritePing(true, frame.Data) })
		}
	case *http2.MetaHeadersFrame:
		c.readHeaders(frame)
	case *http2.DataFrame:
		return c.readData(frame)
	case *http2.RSTStreamFrame:
		c.forget(frame.StreamID)
	}
	return nil
}

func (c *HTTP2Conn) readHeaders(frame *http2.MetaHeadersFrame) {
	if frame.StreamID > c.last {
		c.last = frame.StreamID
		request := &HTTP2Request{Stream: frame.StreamID, Header: make(http.Header)}
		c.began = append(c.began, request)
		c.mu.Lock()
		c.partial[frame.StreamID] = request
		c.mu.Unlock()
	}
	c.continues(frame, func(request *HTTP2Request) {
		for _, field := range frame.Fields {
			request.Header.Add(field.Name, field.Value)
		}
	})
}

func (c *HTTP2Conn) readData(frame *http2.DataFrame) error {
	c.continues(frame, func(request *HTTP2Request) { request.Body.Write(frame.Data()) })
	if frame.Length == 0 {
		return nil
	}
	return c.write(func() error {
		if err := c.Framer.WriteWindowUpdate(0, frame.Length); err != nil || frame.StreamEnded() {
			return err
		}
		return c.Framer.WriteWindowUpdate(frame.StreamID, frame.Length)
	})
}

// continues adds to a request, unless its stream was reset, and may complete it.
func (c *HTTP2Conn) continues(frame interface {
	http2.Frame
	StreamEnded() bool
}, add func(*HTTP2Request),
) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stream := frame.Header().StreamID
	request := c.partial[stream]
	if request == nil {
		return
	}
	add(request)
	if frame.StreamEnded() {
		delete(c.partial, stream)
		c.complete = append(c.complete, request)
		c.server.Requests.Add(1)
	}
}

// forget forgets a request that will not be completed.
func (c *HTTP2Conn) forget(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.partial, stream)
}

// Drain reads until the client closes the connection.
func (c *HTTP2Conn) Drain() { _, _ = io.Copy(io.Discard, c.Conn) }

// Abort resets the connection (RST).
func (c *HTTP2Conn) Abort() {
	abortive(c.Conn)
	_ = c.Close() // The aim is that it ends.
}

// Reset ends a stream (RST_STREAM), and with it a request that is not complete. A code of [http2.ErrCodeRefusedStream] says that it was
// not processed.
func (c *HTTP2Conn) Reset(stream uint32, code http2.ErrCode) {
	c.forget(stream)
	_ = c.write(func() error { return c.Framer.WriteRSTStream(stream, code) })
}

// GoAway announces that no stream after last was or will be processed (GOAWAY). Those up to last may still be answered.
func (c *HTTP2Conn) GoAway(last uint32, code http2.ErrCode) {
	_ = c.write(func() error { return c.Framer.WriteGoAway(last, code, nil) })
}

// Headers sends headers or, after them, trailers, which are pairs of names, in lower case, and values; in headers, ":status" is first. With
// end, nothing comes after them.
func (c *HTTP2Conn) Headers(stream uint32, end bool, pairs ...string) {
	if len(pairs)%2 != 0 {
		panic(fmt.Sprintf("servicestest: header %q has no value", pairs[len(pairs)-1]))
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for pair := range slices.Chunk(pairs, 2) {
		// Sensitive fields stay out of the table of the connection's state, so that each block stands for itself.
		_ = encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1], Sensitive: true}) // A buffer takes all.
	}
	_ = c.write(func() error {
		return c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	})
}

// Data sends bytes of a body; with end, nothing comes after them. The client's flow-control window, 64 KiB at first, is the script's to
// mind.
func (c *HTTP2Conn) Data(stream uint32, end bool, body []byte) {
	const maxFrame = 16 << 10 // unless the client's SETTINGS say more
	_ = c.write(func() error {
		for ; len(body) > maxFrame; body = body[maxFrame:] {
			if err := c.Framer.WriteData(stream, false, body[:maxFrame]); err != nil {
				return err
			}
		}
		return c.Framer.WriteData(stream, end, body)
	})
}

// Begin sends the headers of a gRPC response.
func (c *HTTP2Conn) Begin(stream uint32) {
	c.Headers(stream, false, ":status", strconv.Itoa(http.StatusOK), "content-type", "application/grpc")
}

// Message sends bytes as a gRPC message, after Begin.
func (c *HTTP2Conn) Message(stream uint32, payload []byte) {
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload))) //nolint:gosec // a test's message is small
	c.Data(stream, false, append(framed, payload...))
}

// End sends a gRPC status as the trailers, after Begin and any messages. 0 is OK.
func (c *HTTP2Conn) End(stream uint32, code connect.Code) {
	c.Headers(stream, true, "grpc-status", strconv.Itoa(int(code)))
}

// Answer answers a request as a healthy gRPC server does. A message that cannot be marshalled is a mistake in the script, and panics.
func (c *HTTP2Conn) Answer(stream uint32, message proto.Message) {
	payload, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	c.Begin(stream)
	c.Message(stream, payload)
	c.End(stream, 0)
}

// write writes with nobody else.
func (c *HTTP2Conn) write(frames func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return frames()
}
