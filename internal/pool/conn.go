package pool

import (
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Conn is a connection with one slot reserved for the caller, who gives it back by exactly one of RoundTrip and Release.
type Conn struct {
	pool      *Pool
	client    *http.ClientConn
	observed  *observedConn
	born      time.Time
	expires   time.Time    // when it reaches its maximum age; zero if there is none
	lastUsed  atomic.Int64 // Unix nanoseconds of the latest end of a call
	abandoned atomic.Bool
	retired   atomic.Bool // takes no further calls; set under pool.mu
	// reservation numbers those of an HTTP/1.1 connection, of which one follows the other; reservedNoMore follows the last.
	reservation atomic.Uint64
	parked      bool // in pool.idle; guarded by pool.mu
}

// RoundTrip sends a request in the slot reserved. The response's body has to be closed.
func (c *Conn) RoundTrip(request *http.Request) (*http.Response, error) {
	if pings := c.observed.pings; pings != nil {
		pings.reserved.Add(-1)
		pings.keep()
	}
	return c.client.RoundTrip(request)
}

// Release gives the reserved slot back unused.
func (c *Conn) Release() {
	c.unreserve()
	if c.retired.Load() {
		c.closeIfDone()
	}
	c.pool.serve() // the state hook does the same, unless it is running already
}

// Abandon closes the connection and returns how many bytes were ever written to it; nothing more will be.
func (c *Conn) Abandon() uint64 {
	c.abandoned.Store(true)
	_ = c.client.Close()
	_ = c.observed.Close()
	return c.observed.bytesWritten()
}

const reservedNoMore = math.MaxUint64

// Reservation identifies the slot reserved, of an HTTP/1.1 connection.
func (c *Conn) Reservation() uint64 { return c.reservation.Load() }

// AbandonReservation is Abandon for one who may not have the slot any more: if another has reserved it since, or does so now, nothing happens.
func (c *Conn) AbandonReservation(reservation uint64) {
	if c.reservation.CompareAndSwap(reservation, reservedNoMore) {
		c.Abandon()
	}
}

// BytesWritten returns how many bytes were written to the connection so far.
func (c *Conn) BytesWritten() uint64 { return c.observed.bytesWritten() }

// Disowned reports whether the peer said by GOAWAY that it processed no call of this connection and will process none (RFC 9113, section 6.8).
// net/http does not say so of the first call on a connection if there was an error too.
func (c *Conn) Disowned() bool { return c.observed.disowned.Load() }

// SaidGoodbye reports whether the peer, which has processed calls of this connection, closes it by a GOAWAY without an error, as servers do that
// bound its age, or stop. One that has processed none may never do so.
func (c *Conn) SaidGoodbye() bool {
	return c.observed.goAway.Load() && !c.observed.complained.Load() && !c.Disowned()
}

// Usable reports whether the connection may take a further call: it is open, and neither its peer nor the pool is about to close it.
// After a failed RoundTrip, it tells a request that could not be sent from a connection that could not send it.
func (c *Conn) Usable() bool {
	return !c.retired.Load() && !c.observed.goAway.Load() && c.client.Err() == nil
}

// reserve takes a slot, if the connection has one free.
func (c *Conn) reserve() bool {
	if c.retired.Load() || c.observed.goAway.Load() || c.client.Reserve() != nil {
		if !c.Usable() {
			c.retire(c.ended())
		}
		return false
	}
	if c.pool.config.Kind == HTTP1 {
		if last := c.reservation.Load(); last == reservedNoMore || !c.reservation.CompareAndSwap(last, last+1) {
			c.client.Release()
			return false // it is being abandoned
		}
	}
	if pings := c.observed.pings; pings != nil {
		pings.reserved.Add(1)
	}
	// Whoever retires the connection looks for calls on it after marking it. So either they see this reservation and leave the connection
	// open, or this sees the mark.
	if c.retired.Load() {
		c.unreserve()
		c.closeIfDone()
		return false
	}
	return true
}

func (c *Conn) unreserve() {
	pings := c.observed.pings
	if pings != nil {
		pings.reserved.Add(-1)
	}
	c.client.Release()
	if pings != nil {
		pings.keep()
	}
}

// ended tells why a connection is not usable that the pool did not retire.
func (c *Conn) ended() reason {
	switch {
	case c.abandoned.Load():
		return reasonAbandoned
	case c.observed.failure.Load() != nil:
		return reasonPingTimeout
	case c.observed.goAway.Load():
		return reasonGoAway
	default:
		return reasonLost
	}
}

// stateChanged runs when a call ended, or the connection did. It may run inside RoundTrip or Reserve, so it is called with no lock held.
//
// net/http compares the connection's state before and after, and runs one hook at a time. A call that begins and ends while the hook
// runs therefore goes unreported; takeIdle, the sweeps of the queue and [Pool.tend] make up for it.
func (c *Conn) stateChanged(client *http.ClientConn) {
	if client.Err() != nil || c.retired.Load() {
		c.retire(c.ended())
	} else {
		c.lastUsed.Store(time.Now().UnixNano())
		if c.pool.config.Kind == HTTP1 {
			c.park()
		}
	}
	c.pool.serve()
}

// goingAway runs when the peer announced to take no further calls on the connection.
func (c *Conn) goingAway() {
	c.retire(reasonGoAway)
	c.pool.serve()
}

// park makes an HTTP/1.1 connection that finished its call available again.
func (c *Conn) park() {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.parked || c.retired.Load() || c.client.Available() == 0 {
		return
	}
	if _, published := p.open[c]; published {
		c.parked = true
		p.idle = append(p.idle, c)
	}
}

// retire takes the connection out of use. It is closed at once if it carries no call, and else when its last call ends.
func (c *Conn) retire(why reason) {
	p := c.pool
	p.mu.Lock()
	if !c.retired.Swap(true) {
		isConn := func(other *Conn) bool { return other == c }
		p.idle = slices.DeleteFunc(p.idle, isConn)
		ready := slices.DeleteFunc(slices.Clone(*p.ready.Load()), isConn)
		p.ready.Store(&ready)
		if _, published := p.open[c]; published {
			p.retiredLocked(c, why)
		}
	}
	p.mu.Unlock()
	c.closeIfDone()
}

// closeIfDone closes a retired connection that carries no call.
func (c *Conn) closeIfDone() {
	p := c.pool
	if c.client.InFlight() > 0 && c.client.Err() == nil {
		p.mu.Lock()
		p.wakeLocked(drainSweep)
		p.mu.Unlock()
		return
	}
	p.mu.Lock()
	_, open := p.open[c]
	delete(p.open, c)
	p.mu.Unlock()
	if open {
		_ = c.client.Close()
	}
}
