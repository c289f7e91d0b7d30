package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
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

// Config configures a [Pool]. All fields but TLS and the ping settings are required.
type Config struct {
	Kind Kind
	// Addr is the instance's host:port.
	Addr string
	// TLS protects the connections; nil for cleartext. An empty ServerName means the host of Addr.
	TLS *tls.Config
	// MaxConnections bounds the connections, those being dialed included.
	MaxConnections int
	// DialTimeout bounds the opening of one connection up to the moment that it can carry a call.
	DialTimeout time.Duration
	// IdleTimeout closes connections without calls; 0 means never.
	IdleTimeout time.Duration
	// PingInterval and PingTimeout configure HTTP/2 pings; an interval of 0 means none.
	PingInterval, PingTimeout time.Duration
}

// Pool keeps the connections to one instance. It opens the first one when it is asked for it. Safe for concurrent use.
type Pool struct {
	config Config
	dialer *dialer
	// ready is what Acquire looks through without a lock: HTTP/2 connections that may have a slot free.
	ready   atomic.Pointer[[]*Conn]
	waiting atomic.Int64

	mu      sync.Mutex
	idle    []*Conn            // HTTP/1.1 connections without a call, the latest used last
	open    map[*Conn]struct{} // all connections, those that only finish their calls included
	count   int                // connections that can take calls, and those being dialed
	dialing *dialCall          // the HTTP/2 dial under way, which all callers share
	changed chan struct{}      // closed and replaced when a slot or a connection has become free
	closed  bool

	reaper *time.Timer
	ctx    context.Context //nolint:containedctx // the lifetime of the pool's own dials, which outlive the caller who asked first
	cancel context.CancelFunc
	dials  sync.WaitGroup
}

// Conn is a connection with one slot reserved for the caller, who gives it back by exactly one of RoundTrip and Release.
type Conn struct {
	pool     *Pool
	client   *http.ClientConn
	observed *observedConn
	lastUsed atomic.Int64 // Unix nanoseconds
	retired  atomic.Bool  // takes no further calls; set under pool.mu
	parked   bool         // in pool.idle; guarded by pool.mu
}

type dialCall struct {
	done chan struct{}
	err  error // valid once done is closed
}

// New returns a pool without connections.
func New(config Config) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{
		config: config, dialer: newDialer(config), open: make(map[*Conn]struct{}), changed: make(chan struct{}),
		ctx: ctx, cancel: cancel,
	}
	p.ready.Store(new([]*Conn))
	return p
}

// Acquire returns a connection with a slot reserved, opening one if none has a slot free and the limit allows, else waiting for one.
// Errors prove that nothing of the caller's request was sent; [ErrNotHTTP2] among them that the peer speaks no HTTP/2.
func (p *Pool) Acquire(ctx context.Context) (*Conn, error) {
	if conn := p.take(); conn != nil {
		return conn, nil
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	var dial *dialCall // the one that this caller waits for
	for {
		var changed <-chan struct{}
		var err error
		if dial, changed, err = p.grow(ctx, dial); err != nil {
			return nil, err
		}
		// Looked at only now, when this caller counts as waiting, so that no release between the two can go unseen.
		if conn := p.take(); conn != nil {
			return conn, nil
		}
		var dialed chan struct{}
		if dial != nil {
			dialed = dial.done
		}
		select {
		case <-dialed:
			if dial.err != nil {
				return nil, dial.err
			}
			dial = nil
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a connection to %s: %w", p.config.Addr, ctx.Err())
		}
	}
}

// take reserves a slot on a connection that is there.
func (p *Pool) take() *Conn {
	if p.config.Kind == HTTP1 {
		return p.takeIdle()
	}
	for _, conn := range *p.ready.Load() {
		if !conn.usable() {
			p.retire(conn)
			continue
		}
		if conn.client.Reserve() == nil {
			conn.lastUsed.Store(time.Now().UnixNano())
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
			return nil
		}
		conn := p.idle[last]
		p.idle = p.idle[:last]
		conn.parked = false
		p.mu.Unlock()
		if conn.client.Reserve() == nil {
			conn.lastUsed.Store(time.Now().UnixNano())
			return conn
		}
		p.retire(conn)
	}
}

// grow starts to open a connection if that is allowed and called for, and returns what to wait for: the end of a dial, nil if there is
// none, and any change. current is the dial that the caller waits for already. HTTP/2 callers share one dial at a time, because
// one connection may serve them all.
func (p *Pool) grow(ctx context.Context, current *dialCall) (*dialCall, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, nil, ErrClosed
	case current != nil:
		return current, p.changed, nil
	case p.dialing != nil:
		return p.dialing, p.changed, nil
	case len(p.idle) > 0 || p.anyFreeLocked():
		return nil, closedChannel, nil
	case p.count >= p.config.MaxConnections:
		return nil, p.changed, nil
	}
	dial := &dialCall{done: make(chan struct{})}
	if p.config.Kind == HTTP2 {
		p.dialing = dial
	}
	p.count++
	var budget time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		budget = max(time.Until(deadline), time.Nanosecond)
	}
	p.dials.Go(func() { p.openOne(dial, budget) })
	return dial, p.changed, nil
}

// anyFreeLocked reports whether a connection has a slot now, so that callers who queued behind a dial do not each add another.
func (p *Pool) anyFreeLocked() bool {
	return slices.ContainsFunc(*p.ready.Load(), func(conn *Conn) bool { return conn.usable() && conn.client.Available() > 0 })
}

var closedChannel = func() <-chan struct{} {
	channel := make(chan struct{})
	close(channel)
	return channel
}()

// openOne opens one connection for dial.
func (p *Pool) openOne(dial *dialCall, budget time.Duration) {
	observed, client, err := p.dialer.dial(p.ctx, budget)
	var conn *Conn
	if err == nil {
		conn = &Conn{pool: p, client: client, observed: observed}
		conn.lastUsed.Store(time.Now().UnixNano())
	}
	p.mu.Lock()
	if p.dialing == dial {
		p.dialing = nil
	}
	if err == nil && p.closed {
		err = ErrClosed
		_ = client.Close()
	}
	if err != nil {
		p.count--
	} else {
		p.open[conn] = struct{}{}
		if p.config.Kind == HTTP2 {
			ready := append(slices.Clone(*p.ready.Load()), conn)
			p.ready.Store(&ready)
		} else {
			conn.parked = true
			p.idle = append(p.idle, conn)
		}
		p.armReaperLocked()
	}
	dial.err = err
	close(dial.done)
	p.broadcastLocked()
	p.mu.Unlock()
	if err == nil {
		client.SetStateHook(conn.stateChanged)
	}
}

// usable reports whether the connection may take a further call: it is open and its peer has not announced to close it.
func (c *Conn) usable() bool { return !c.observed.goAway.Load() && c.client.Err() == nil }

// Usable reports whether the connection is open and its peer has not announced to close it. After a failed RoundTrip, it tells a request
// that could not be sent from a connection that could not send it.
func (c *Conn) Usable() bool { return c.usable() }

// stateChanged runs when a call ended, or the connection did. It may run inside RoundTrip, so it is called with no lock held.
func (c *Conn) stateChanged(client *http.ClientConn) {
	p := c.pool
	if client.Err() != nil || c.retired.Load() {
		p.retire(c)
		return
	}
	if p.config.Kind == HTTP1 {
		p.park(c)
		return
	}
	if p.waiting.Load() > 0 {
		p.mu.Lock()
		p.broadcastLocked()
		p.mu.Unlock()
	}
}

// park makes an HTTP/1.1 connection that finished its call available again.
func (p *Pool) park(conn *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn.parked || conn.retired.Load() || conn.client.Available() == 0 {
		return
	}
	conn.parked = true
	p.idle = append(p.idle, conn)
	if p.waiting.Load() > 0 {
		p.broadcastLocked()
	}
}

// retire takes a connection out of use. It is closed at once if it carries no call, and else when its last call ends.
func (p *Pool) retire(conn *Conn) {
	p.mu.Lock()
	p.retireLocked(conn)
	p.mu.Unlock()
	if conn.client.InFlight() == 0 || conn.client.Err() != nil {
		_ = conn.client.Close()
		p.mu.Lock()
		delete(p.open, conn)
		p.mu.Unlock()
	}
}

func (p *Pool) retireLocked(conn *Conn) {
	if conn.retired.Swap(true) {
		return
	}
	p.count--
	isConn := func(other *Conn) bool { return other == conn }
	p.idle = slices.DeleteFunc(p.idle, isConn)
	ready := slices.DeleteFunc(slices.Clone(*p.ready.Load()), isConn)
	p.ready.Store(&ready)
	p.broadcastLocked()
}

func (p *Pool) broadcastLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// RoundTrip sends a request in the slot reserved. The response's body has to be closed.
func (c *Conn) RoundTrip(request *http.Request) (*http.Response, error) {
	return c.client.RoundTrip(request)
}

// Release gives the reserved slot back unused.
func (c *Conn) Release() { c.client.Release() }

// Abandon closes the connection and returns how many bytes were ever written to it; nothing more will be.
func (c *Conn) Abandon() uint64 {
	_ = c.client.Close()
	_ = c.observed.Close()
	return c.observed.bytesWritten()
}

// BytesWritten returns how many bytes were written to the connection so far.
func (c *Conn) BytesWritten() uint64 { return c.observed.bytesWritten() }

// Len returns how many connections are open, those that only finish their calls included.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Close closes all connections, which ends the calls on them, and waits for dials under way. It may be called more than once.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.cancel()
	p.broadcastLocked()
	p.mu.Unlock()
	p.dials.Wait()
	p.mu.Lock()
	open := p.open
	p.open = make(map[*Conn]struct{})
	p.mu.Unlock()
	for conn := range open {
		_ = conn.client.Close()
	}
}

// armReaperLocked makes sure that idle connections are looked for, as long as there are any.
func (p *Pool) armReaperLocked() {
	if p.config.IdleTimeout <= 0 || p.closed {
		return
	}
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.config.IdleTimeout, p.reap)
		return
	}
	p.reaper.Reset(p.config.IdleTimeout)
}

// reap retires the connections that had no call for the idle timeout.
func (p *Pool) reap() {
	now := time.Now()
	next := p.config.IdleTimeout
	var expired []*Conn
	p.mu.Lock()
	for conn := range p.open {
		if conn.client.InFlight() > 0 {
			conn.lastUsed.Store(now.UnixNano())
			continue
		}
		if left := p.config.IdleTimeout - now.Sub(time.Unix(0, conn.lastUsed.Load())); left > 0 {
			next = min(next, left)
			continue
		}
		expired = append(expired, conn)
	}
	if !p.closed && len(expired) < len(p.open) {
		p.reaper.Reset(next)
	}
	p.mu.Unlock()
	for _, conn := range expired {
		p.retire(conn)
	}
}
