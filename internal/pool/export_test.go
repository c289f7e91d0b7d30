package pool

import (
	"context"
	"net"
)

// Queued returns how many callers wait for a connection.
func (p *Pool) Queued() int { return int(p.queued.Load()) }

// DialFailed reports whether a dial has failed beside connections that work.
func (p *Pool) DialFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.noDialBefore.IsZero()
}

// NewOver returns a pool whose connections are opened by connect, in place of the kernel.
func NewOver(config Config, connect func(ctx context.Context, network, addr string) (net.Conn, error)) *Pool {
	p := New(config)
	p.dialer.connect = connect
	return p
}

// Sleeps reports whether the pool has set no timer.
func (p *Pool) Sleeps() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		if pings := conn.observed.pings; pings != nil && pings.armed.Load() {
			return false
		}
	}
	return p.wakeAt.IsZero() && p.queueSweeps == nil
}
