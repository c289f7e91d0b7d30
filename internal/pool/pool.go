package pool

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by Acquire after Close.
var ErrClosed = errors.New("connection pool is closed")

// Kind is the HTTP version that a pool speaks.
type Kind int

const (
	// HTTP2 connections carry many calls at a time; without TLS by prior knowledge (RFC 9113, section 3.3).
	HTTP2 Kind = iota
	// HTTP1 connections carry one call at a time.
	HTTP1
)

func (k Kind) alpn() string {
	if k == HTTP2 {
		return "h2"
	}
	return "http/1.1"
}

// Config configures a [Pool]. Kind, Addr, MaxConnections and DialTimeout are required.
type Config struct {
	Kind Kind
	// Addr is the instance's host:port.
	Addr string
	// TLS protects the connections; nil for cleartext. An empty ServerName means the host of Addr.
	TLS *tls.Config
	// Dial, if not nil, opens the connections to Addr in place of TCP: without its keep-alives, and without the race of a name's addresses. It is
	// given the network "tcp". TLS is spoken on what it returns.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// MaxConnections bounds the connections that take calls, those being dialed included. Not counted are connections that only finish the
	// calls they have, and one whose age is up and which takes calls until its successor is there.
	MaxConnections int
	// MinConnections are kept open from Warm on; 0 means that connections are opened for callers alone.
	MinConnections int
	// DialTimeout bounds the opening of one connection up to the moment that it can carry a call.
	DialTimeout time.Duration
	// IdleTimeout closes connections without calls, down to the minimum; 0 means never.
	IdleTimeout time.Duration
	// MaxAge, with a jitter of 20 % for each connection, is when a connection takes no further calls and is closed after the last it has;
	// 0 means never.
	MaxAge time.Duration
	// PingInterval is how long an HTTP/2 connection with calls may be silent before a ping asks for a sign of life; 0 means no pings.
	// PingTimeout is how long that may take before the connection is closed.
	PingInterval, PingTimeout time.Duration
}

// Pool keeps the connections to one instance. It opens the first one when it is asked for it, or told to be warm. Safe for concurrent use.
//
// No method of an [http.ClientConn] that may change its state is called with mu held: each may run the state hook, which takes mu.
type Pool struct {
	config Config
	dialer *dialer
	// ready are the connections that take calls. Acquire looks through the HTTP/2 ones without a lock; replaced under mu.
	ready  atomic.Pointer[[]*Conn]
	queued atomic.Int64 // the length of queue, for those who do not hold mu
	// serving counts those who asked for the queue to be served; the first of them is at it.
	serving atomic.Int64

	mu      sync.Mutex
	queue   list.List          // of *waiter, in order of arrival
	idle    []*Conn            // HTTP/1.1 connections that are free, unless someone was quicker; the latest used last
	open    map[*Conn]struct{} // all connections, those that only finish their calls included
	dialing int                // dials under way
	// noDialBefore holds further dials back after one failed beside connections that work.
	noDialBefore time.Time
	closed       bool

	warm    bool  // whether MinConnections holds
	leaving *Conn // of those in ready, the one whose age is up and that waits for its successor
	// setbacks counts failed dials and connections lost young, in a row; noRefillBefore is when connections may be opened again that no
	// caller waits for.
	setbacks       int
	noRefillBefore time.Time

	dialed, dialFailures uint64
	endings              [reasons]uint64
	pace                 *pingPace // nil if there are no pings

	upkeep      *time.Timer     // nil until it is first needed
	wakeAt      time.Time       // when upkeep runs next; zero if it does not
	queueSweeps *time.Timer     // not nil while armed
	ctx         context.Context //nolint:containedctx // the lifetime of dials, which outlive the caller who asked first; replaced by Redial
	cancel      context.CancelFunc
	dials       sync.WaitGroup
	closeOnce   sync.Once
}

// New returns a pool without connections.
func New(config Config) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	pace := newPingPace(config)
	p := &Pool{config: config, dialer: newDialer(config, pace), pace: pace, open: make(map[*Conn]struct{}), ctx: ctx, cancel: cancel}
	p.ready.Store(new([]*Conn))
	return p
}

// Acquire returns a connection with a slot reserved. If none has a slot free, it opens one as far as the limit allows, and waits, behind
// those who came before, for whichever slot comes free first. When ctx ends, it returns its error at once.
//
// Errors prove that nothing of the caller's request was sent; [ErrNotHTTP2] among them that the peer speaks no HTTP/2. The error of a
// dial is returned to all who wait for it, and to nobody after them; as long as there are connections that work, it is not returned at
// all, because those will serve the caller in time.
func (p *Pool) Acquire(ctx context.Context) (*Conn, error) {
	if err := ctx.Err(); err != nil { // net/http writes a request over HTTP/1.1 before it looks at its context
		return nil, fmt.Errorf("connection to %s: %w", p.config.Addr, err)
	}
	if conn := p.TryAcquire(); conn != nil {
		return conn, nil
	}
	return p.wait(ctx)
}

// TryAcquire returns a connection with a slot reserved, or nil if there is none or if others wait for one.
func (p *Pool) TryAcquire() *Conn {
	if p.queued.Load() > 0 {
		return nil
	}
	return p.take()
}

// take reserves a slot on a connection that is there.
func (p *Pool) take() *Conn {
	if p.config.Kind == HTTP1 {
		return p.takeIdle()
	}
	for _, conn := range *p.ready.Load() {
		if conn.reserve() {
			return conn
		}
	}
	return nil
}

func (p *Pool) takeIdle() *Conn {
	for {
		p.mu.Lock()
		last := len(p.idle) - 1
		if last < 0 {
			p.mu.Unlock()
			break
		}
		conn := p.idle[last]
		p.idle = p.idle[:last]
		conn.parked = false
		p.mu.Unlock()
		if conn.reserve() {
			return conn
		}
	}
	// A call that began and ended while the state hook ran for the one before was not reported, so idle may lack its connection.
	for _, conn := range *p.ready.Load() {
		if conn.client.Available() > 0 && conn.reserve() {
			return conn
		}
	}
	return nil
}

// Busy reports whether there are as many connections as there may be, and calls on them: whoever waits then waits for those calls, and not for a
// dial.
func (p *Pool) Busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.liveLocked() >= p.config.MaxConnections &&
		slices.ContainsFunc(*p.ready.Load(), func(conn *Conn) bool { return conn.Usable() && conn.client.InFlight() > 0 })
}

// Len returns how many connections are open, those that only finish their calls included.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Close closes all connections, which ends the calls on them, and waits for dials under way. Those who wait for a connection get
// [ErrClosed]. It may be called more than once.
func (p *Pool) Close() {
	p.closeOnce.Do(func() {
		p.mu.Lock()
		p.closed = true
		for _, timer := range []*time.Timer{p.upkeep, p.queueSweeps} {
			if timer != nil {
				timer.Stop()
			}
		}
		p.failLocked(ErrClosed)
		p.cancel()
		p.mu.Unlock()
		p.dials.Wait()
		p.mu.Lock()
		open := p.open
		p.open, p.idle, p.leaving = nil, nil, nil
		p.ready.Store(new([]*Conn))
		p.mu.Unlock()
		for conn := range open {
			conn.retired.Store(true)
			_ = conn.client.Close()
		}
	})
}
