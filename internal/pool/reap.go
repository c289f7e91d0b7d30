package pool

import "time"

// armReaperLocked makes sure that idle connections are looked for, as long as there are connections.
func (p *Pool) armReaperLocked() {
	if p.config.IdleTimeout > 0 && p.reaper == nil {
		p.reaper = time.AfterFunc(p.config.IdleTimeout, p.reap)
	}
}

// reap retires the connections that had no call for the idle timeout.
func (p *Pool) reap() {
	now := time.Now()
	next := p.config.IdleTimeout
	var expired []*Conn
	p.mu.Lock()
	for conn := range p.open {
		switch left := p.config.IdleTimeout - now.Sub(time.Unix(0, conn.lastUsed.Load())); {
		case conn.client.InFlight() > 0:
		case left > 0:
			next = min(next, left)
		default:
			expired = append(expired, conn)
		}
	}
	p.mu.Unlock()
	for _, conn := range expired {
		conn.retire()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.open) == 0 {
		p.reaper = nil
		return
	}
	p.reaper.Reset(next)
}
