package pool

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
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
	// disowned is set when a GOAWAY named 0 as the last stream that was processed, or may be.
	disowned atomic.Bool
	// complained is set when a GOAWAY named an error.
	complained atomic.Bool
	calmed     bool // whether a complaint of the peer was heeded; used by Read alone

	pings *pinger // nil if there are none
	// failure is why the connection was closed from this side, if there is a reason that its calls should see.
	failure atomic.Pointer[error]
}

// observe watches a connection. pace is nil if it is not to ping.
func observe(conn net.Conn, kind Kind, pace *pingPace) *observedConn {
	c := &observedConn{Conn: conn, kind: kind, greeted: make(chan struct{})}
	if pace != nil {
		c.pings = newPinger(c, pace)
	}
	return c
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
	if c.pings != nil && n > 0 {
		c.pings.heard()
	}
	c.frames.scan(buffer[:n])
	if told := c.frames.greeting; told == greetingHTTP1 || told == greetingOther {
		c.greet(told)
	}
	if c.frames.goAway && !c.goAway.Swap(true) {
		if goingAway := c.goingAway.Load(); goingAway != nil {
			(*goingAway)()
		}
	}
	if c.frames.explained && c.frames.lastStream == 0 {
		c.disowned.Store(true)
	}
	if c.frames.code != http2.ErrCodeNo {
		c.complained.Store(true)
	}
	if c.pings != nil && c.frames.code == http2.ErrCodeEnhanceYourCalm && !c.calmed {
		c.calmed = true
		c.pings.calm()
	}
	if err != nil {
		c.greet(greetingNone)
		if failure := c.failure.Load(); failure != nil {
			err = *failure
		}
	}
	return n, err
}

func (c *observedConn) Write(buffer []byte) (int, error) {
	if c.pings != nil {
		return c.pings.write(buffer)
	}
	return c.send(buffer)
}

// send counts before it writes, so that a count of zero proves that nothing left.
func (c *observedConn) send(buffer []byte) (int, error) {
	c.writeMu.Lock()
	if c.closed {
		c.writeMu.Unlock()
		return 0, net.ErrClosed
	}
	c.written += uint64(len(buffer))
	c.writeMu.Unlock()
	return c.Conn.Write(buffer)
}

// fail closes the connection and has its calls fail with err.
func (c *observedConn) fail(err error) {
	c.failure.CompareAndSwap(nil, &err)
	_ = c.Close()
}

func (c *observedConn) Close() error {
	if c.pings != nil {
		c.pings.stop()
	}
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
