package pool

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// tlsCloseTimeout bounds the farewell to a TLS peer that does not read, as net/http does.
const tlsCloseTimeout = 250 * time.Millisecond

// observedConn is a connection that knows what passed through it: whether anything was written, and what the peer's HTTP/2 frames
// said about the connection. It sits above TLS, so it sees plain bytes.
type observedConn struct {
	net.Conn

	kind Kind

	writeMu sync.Mutex
	written uint64
	closed  bool

	frames frameScanner // used by Read alone, which net/http calls from one goroutine
	// greeted is closed when net/http has acted on the peer's SETTINGS, when the peer's first bytes tell that it speaks something else, or
	// when the connection ends before either.
	greeted chan struct{}
	greetMu sync.Once
	// greeting is what the first bytes were; valid once greeted is closed.
	greeting greeting
	// goAway is set when the peer announced to take no further streams. goingAway is then called once, if it is set by then: whoever sets
	// it looks at goAway afterwards.
	goAway    atomic.Bool
	goingAway atomic.Pointer[func()]
}

func observe(conn net.Conn, kind Kind) *observedConn {
	return &observedConn{Conn: conn, kind: kind, greeted: make(chan struct{})}
}

func (c *observedConn) Read(buffer []byte) (int, error) {
	if c.kind != HTTP2 {
		return c.Conn.Read(buffer)
	}
	if c.frames.settled {
		// net/http reads on only when it has acted on what it has. Now, and no sooner, the connection's number of slots is the peer's.
		c.greet(greetingSettings)
	}
	n, err := c.Conn.Read(buffer)
	c.frames.scan(buffer[:n])
	if told := c.frames.greeting; told == greetingHTTP1 || told == greetingOther {
		c.greet(told)
	}
	if c.frames.goAway && !c.goAway.Swap(true) {
		if goingAway := c.goingAway.Load(); goingAway != nil {
			(*goingAway)()
		}
	}
	if err != nil {
		c.greet(greetingNone)
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
	defer c.greet(greetingNone) // net/http stops reading without an error when it does not like a frame
	if secured, ok := c.Conn.(*tls.Conn); ok {
		defer time.AfterFunc(tlsCloseTimeout, func() { _ = secured.NetConn().Close() }).Stop()
	}
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
