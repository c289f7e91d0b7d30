package pool

import (
	"net"
	"sync"
	"sync/atomic"
)

// observedConn is a connection that knows what passed through it: whether anything was written, and what the peer's HTTP/2 frames
// said about the connection. It sits above TLS, so it sees plain bytes.
type observedConn struct {
	net.Conn

	kind Kind

	writeMu sync.Mutex
	written uint64
	closed  bool

	frames frameScanner
	// greeted is closed when the peer's first bytes tell what it speaks, or when reading fails before they do.
	greeted chan struct{}
	greetMu sync.Once
	// greeting is what the first bytes were; valid once greeted is closed.
	greeting greeting
	// goAway is set when the peer announced to take no further streams.
	goAway atomic.Bool
}

type greeting int

const (
	greetingNone     greeting = iota // the connection failed before it showed
	greetingSettings                 // an HTTP/2 SETTINGS frame
	greetingHTTP1                    // an HTTP/1.x status line
	greetingOther                    // neither
)

func observe(conn net.Conn, kind Kind) *observedConn {
	return &observedConn{Conn: conn, kind: kind, greeted: make(chan struct{})}
}

func (c *observedConn) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	if c.kind == HTTP2 {
		if n > 0 {
			c.frames.scan(buffer[:n], c)
		}
		if err != nil {
			c.greet(greetingNone)
		}
	}
	return n, err
}

// Write counts before it writes, so that a count of zero proves that nothing left.
func (c *observedConn) Write(buffer []byte) (int, error) {
	c.writeMu.Lock()
	if c.closed {
		c.writeMu.Unlock()
		return 0, net.ErrClosed
	}
	c.written += uint64(len(buffer))
	c.writeMu.Unlock()
	return c.Conn.Write(buffer)
}

func (c *observedConn) Close() error {
	c.writeMu.Lock()
	c.closed = true
	c.writeMu.Unlock()
	return c.Conn.Close()
}

// bytesWritten returns how many bytes were handed to the kernel so far. After Close, the number is final.
func (c *observedConn) bytesWritten() uint64 {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.written
}

func (c *observedConn) greet(g greeting) {
	c.greetMu.Do(func() {
		c.greeting = g
		close(c.greeted)
	})
}

// frameScanner follows the boundaries of HTTP/2 frames (RFC 9113, section 4.1) through the bytes as they are read, without copying
// them, to see the first frame and any GOAWAY.
type frameScanner struct {
	header  [frameHeaderLen]byte
	have    int
	payload int
	first   bool // whether the first frame has been seen
}

const (
	frameHeaderLen = 9
	frameSettings  = 0x4
	frameGoAway    = 0x7
)

func (s *frameScanner) scan(data []byte, conn *observedConn) {
	for len(data) > 0 {
		if s.payload > 0 {
			skip := min(s.payload, len(data))
			s.payload -= skip
			data = data[skip:]
			continue
		}
		n := copy(s.header[s.have:], data)
		s.have += n
		data = data[n:]
		if !s.first && s.have >= len(http1Prefix) && string(s.header[:len(http1Prefix)]) == http1Prefix {
			conn.greet(greetingHTTP1)
		}
		if s.have < frameHeaderLen {
			return
		}
		s.have = 0
		s.payload = int(s.header[0])<<16 | int(s.header[1])<<8 | int(s.header[2])
		switch kind := s.header[3]; {
		case !s.first && kind == frameSettings:
			conn.greet(greetingSettings)
		case !s.first:
			conn.greet(greetingOther)
		case kind == frameGoAway:
			conn.goAway.Store(true)
		}
		s.first = true
	}
}

const http1Prefix = "HTTP/1."
