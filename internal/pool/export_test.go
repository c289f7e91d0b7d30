package pool

// Queued returns how many callers wait for a connection.
func (p *Pool) Queued() int { return int(p.queued.Load()) }

// DialFailed reports whether a dial has failed beside connections that work.
func (p *Pool) DialFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.noDialBefore.IsZero()
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
