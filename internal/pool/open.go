package pool

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// redialPause is how long no further connection is opened after one failed beside others that work.
const redialPause = time.Second

var (
	errShortLived = errors.New("the peer closed the connection before its first call")
	errOutdated   = errors.New("the dial was given up, see Redial")
)

// grow opens connections for those who wait, as far as that is allowed and called for. It reports false if a slot has come free
// meanwhile. HTTP/2 connections are opened one at a time, because one may serve all who wait.
func (p *Pool) grow() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.anyFreeLocked() {
		return false
	}
	live := p.liveLocked()
	if p.closed || len(*p.ready.Load()) > 0 && time.Now().Before(p.noDialBefore) {
		return true
	}
	wanted := p.queue.Len()
	if p.config.Kind == HTTP2 {
		wanted = min(wanted, 1)
	}
	for p.dialing < wanted && live+p.dialing < p.config.MaxConnections {
		var budget time.Duration
		if first := p.queue.Front().Value.(*waiter); !first.deadline.IsZero() { //nolint:errcheck,forcetypeassert // as in answerFirstLocked
			budget = max(time.Until(first.deadline), time.Nanosecond)
		}
		p.dialLocked(budget)
	}
	return true
}

// liveLocked counts the connections that take calls towards the limit. One that only serves until its successor is there does not count.
func (p *Pool) liveLocked() int {
	live := len(*p.ready.Load())
	if p.leaving != nil {
		live--
	}
	return live
}

func (p *Pool) dialLocked(budget time.Duration) {
	p.dialing++
	p.dialed++
	ctx := p.ctx
	p.dials.Go(func() { p.openOne(ctx, budget) })
}

// anyFreeLocked reports whether a connection has a slot now, so that callers who queued behind a dial do not each add another.
func (p *Pool) anyFreeLocked() bool {
	return slices.ContainsFunc(*p.ready.Load(), func(conn *Conn) bool { return conn.Usable() && conn.client.Available() > 0 })
}

// openOne opens one connection and serves those who wait. What came of it is nobody's, and no failure, if ctx ended meanwhile; others are then opened
// in its place.
func (p *Pool) openOne(ctx context.Context, budget time.Duration) {
	observed, client, err := p.dialer.dial(ctx, budget)
	var conn *Conn
	if err == nil {
		conn = p.newConn(observed, client)
	}
	p.mu.Lock()
	p.dialing--
	switch {
	case p.closed:
		err = ErrClosed
	case ctx.Err() != nil:
		err = errOutdated
	case err == nil && !conn.Usable():
		err = fmt.Errorf("dial %s: %w", p.config.Addr, errShortLived)
	}
	var succeeded *Conn
	switch {
	case err == nil:
		succeeded = p.publishLocked(conn)
	case errors.Is(err, errOutdated):
		p.refillLocked()
	default:
		p.dialFailedLocked(err)
	}
	p.mu.Unlock()
	if err != nil && client != nil {
		_ = client.Close()
	}
	if succeeded != nil {
		succeeded.retire(reasonAge)
		p.tend() // for the next of its age
	}
	p.serve()
}

func (p *Pool) newConn(observed *observedConn, client *http.ClientConn) *Conn {
	now := time.Now()
	conn := &Conn{pool: p, client: client, observed: observed, born: now}
	conn.lastUsed.Store(now.UnixNano())
	if age := p.config.MaxAge; age > 0 {
		conn.expires = now.Add(jitter(age, ageJitter))
	}
	if observed.pings != nil {
		observed.pings.slots = client.InFlight
	}
	// Both before the connection is known to anyone, so that they miss nothing.
	client.SetStateHook(conn.stateChanged)
	observed.goingAway.Store(new(conn.goingAway))
	return conn
}

// publishLocked makes a connection available, and returns the one that waited for this, if any.
func (p *Pool) publishLocked(conn *Conn) (succeeded *Conn) {
	succeeded, p.leaving = p.leaving, nil
	p.open[conn] = struct{}{}
	ready := append(slices.Clone(*p.ready.Load()), conn)
	p.ready.Store(&ready)
	if p.config.Kind == HTTP1 {
		conn.parked = true
		p.idle = append(p.idle, conn)
	}
	if p.config.IdleTimeout > 0 {
		p.wakeLocked(p.config.IdleTimeout)
	}
	if !conn.expires.IsZero() {
		p.wakeLocked(time.Until(conn.expires))
	}
	return succeeded
}

// dialFailedLocked gives the error of a dial to those who waited for it.
func (p *Pool) dialFailedLocked(err error) {
	p.dialFailures++
	switch {
	case len(*p.ready.Load()) > 0:
		p.noDialBefore = time.Now().Add(redialPause)
	case p.config.Kind == HTTP1:
		p.answerFirstLocked(answer{err: err}) // each who waits has a dial, as far as the limit allows
	default:
		p.failLocked(err)
	}
	p.setBackLocked()
	p.refillLocked()
}
