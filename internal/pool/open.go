package pool

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// redialPause is how long no further connection is opened after one failed beside others that work.
const redialPause = time.Second

var errShortLived = errors.New("the peer closed the connection before its first call")

// grow opens connections for those who wait, as far as that is allowed and called for. It reports false if a slot has come free
// meanwhile. HTTP/2 connections are opened one at a time, because one may serve all who wait.
func (p *Pool) grow() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.anyFreeLocked() {
		return false
	}
	live := len(*p.ready.Load())
	if p.closed || live > 0 && time.Now().Before(p.noDialBefore) {
		return true
	}
	wanted := p.queue.Len()
	if p.config.Kind == HTTP2 {
		wanted = min(wanted, 1)
	}
	for p.dialing < wanted && live+p.dialing < p.config.MaxConnections {
		p.dialing++
		var budget time.Duration
		if first := p.queue.Front().Value.(*waiter); !first.deadline.IsZero() { //nolint:errcheck,forcetypeassert // as in answerFirstLocked
			budget = max(time.Until(first.deadline), time.Nanosecond)
		}
		p.dials.Go(func() { p.openOne(budget) })
	}
	return true
}

// anyFreeLocked reports whether a connection has a slot now, so that callers who queued behind a dial do not each add another.
func (p *Pool) anyFreeLocked() bool {
	return slices.ContainsFunc(*p.ready.Load(), func(conn *Conn) bool { return conn.Usable() && conn.client.Available() > 0 })
}

// openOne opens one connection and serves those who wait.
func (p *Pool) openOne(budget time.Duration) {
	observed, client, err := p.dialer.dial(p.ctx, budget)
	var conn *Conn
	if err == nil {
		conn = &Conn{pool: p, client: client, observed: observed}
		conn.lastUsed.Store(time.Now().UnixNano())
		// Both before the connection is known to anyone, so that they miss nothing.
		client.SetStateHook(conn.stateChanged)
		observed.goingAway.Store(new(conn.goingAway))
	}
	p.mu.Lock()
	p.dialing--
	switch {
	case p.closed:
		err = ErrClosed
	case err == nil && !conn.Usable():
		err = fmt.Errorf("dial %s: %w", p.config.Addr, errShortLived)
	}
	if err != nil {
		p.dialFailedLocked(err)
	} else {
		p.publishLocked(conn)
	}
	p.mu.Unlock()
	if err != nil && client != nil {
		_ = client.Close()
	}
	p.serve()
}

func (p *Pool) publishLocked(conn *Conn) {
	p.open[conn] = struct{}{}
	ready := append(slices.Clone(*p.ready.Load()), conn)
	p.ready.Store(&ready)
	if p.config.Kind == HTTP1 {
		conn.parked = true
		p.idle = append(p.idle, conn)
	}
	p.armReaperLocked()
}

// dialFailedLocked gives the error of a dial to those who waited for it.
func (p *Pool) dialFailedLocked(err error) {
	switch {
	case len(*p.ready.Load()) > 0:
		p.noDialBefore = time.Now().Add(redialPause)
	case p.config.Kind == HTTP1:
		p.answerFirstLocked(answer{err: err}) // each who waits has a dial, as far as the limit allows
	default:
		p.failLocked(err)
	}
}
