package pool

// Queued returns how many callers wait for a connection.
func (p *Pool) Queued() int { return int(p.queued.Load()) }

// DialFailed reports whether a dial has failed beside connections that work.
func (p *Pool) DialFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.noDialBefore.IsZero()
}
