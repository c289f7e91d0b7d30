package servicestest

import (
	"sync"
	"testing"
	"time"
)

// Freeze makes the other side look hung: connections stay open and new ones are accepted, but no byte passes in either direction until
// thaw, as when a process is stopped or, beyond a load balancer, a machine is lost. The kernel goes on acknowledging what clients send,
// up to what its buffers hold: see [Proxy.BlackHole] for where it would not. Nothing is lost. A piece of data that is being passed on in
// the very moment may still arrive.
func (p *Proxy) Freeze() (thaw func()) {
	return p.impede(&impediment{}, nil)
}

// SlowDrip lets only so many bytes pass every so often, for each connection and direction by itself: 1 byte at a time, or a bandwidth,
// such as 12500 bytes every 100ms for 1 Mbit/s.
func (p *Proxy) SlowDrip(bytes int, every time.Duration) (end func()) {
	return p.impede(&impediment{bytes: max(bytes, 1), every: every}, nil)
}

// Refuse has new connections refused, as when no process listens. Those that are open go on, unless [Proxy.DropConnections] ends them.
// accept listens again at the same address.
func (p *Proxy) Refuse() (accept func()) {
	p.mu.Lock()
	p.refusing++
	if p.refusing == 1 {
		_ = p.listener.Close() // Fails if the proxy is closed.
	}
	p.mu.Unlock()
	return p.impede(&impediment{harmless: true}, func() {
		p.refusing--
		if p.refusing > 0 || p.closed {
			return
		}
		if err := p.listen(p.Addr); err != nil {
			p.fail(err)
			return
		}
		if p.holes > 0 {
			p.fail(dropPackets(p.listener))
		}
		p.start()
	})
}

// BlackHole makes the way to the proxy lose all packets from clients, without an answer of any kind: those of open connections, which are
// half-open from then on, and those that would open new ones. Nor does anything come back. After heal, connections that clients have not
// given up go on, once TCP sends again. It needs Linux, but no privileges; elsewhere, it skips the test.
func (p *Proxy) BlackHole(tb testing.TB) (heal func()) {
	tb.Helper()
	p.mu.Lock()
	p.holes++
	p.mu.Unlock()
	// Nothing is to be passed on any more when the sockets fall silent.
	heal = p.impede(&impediment{}, func() {
		p.holes--
		if p.holes == 0 {
			p.fail(p.eachSocket(passPackets))
		}
	})
	p.mu.Lock()
	err := p.eachSocket(dropPackets)
	p.mu.Unlock()
	if err != nil {
		heal()
		tb.Skipf("servicestest: this system makes no black holes: %v", err)
	}
	return heal
}

// eachSocket does something to the listener and to all connections of clients. The caller holds the lock.
func (p *Proxy) eachSocket(do func(socket any) error) error {
	if p.refusing == 0 && !p.closed {
		if err := do(p.listener); err != nil {
			return err
		}
	}
	for r := range p.relays {
		if r.isOpen() {
			if err := do(r.client); err != nil && r.isOpen() {
				return err
			}
		}
	}
	return nil
}

// DropConnections resets all connections that are open now (RST), on both sides, and returns how many there were. New ones are accepted.
func (p *Proxy) DropConnections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	dropped := 0
	for r := range p.relays {
		if r.isOpen() {
			r.reset()
			dropped++
		}
	}
	return dropped
}

// Clear ends all faults that the functions returned would end.
func (p *Proxy) Clear() {
	p.mu.Lock()
	ends := make([]func(), 0, len(p.impeding))
	for _, end := range p.impeding {
		ends = append(ends, end)
	}
	p.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// impede adds an impediment until end is called, which calls undo with the lock held.
func (p *Proxy) impede(by *impediment, undo func()) (end func()) {
	by.ended = make(chan struct{})
	end = sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.impeding, by)
		if undo != nil {
			undo()
		}
		close(by.ended)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.impeding[by] = end
	return end
}

// worst returns the impediment that lets the least pass, nil if there is none.
func (p *Proxy) worst() (worst *impediment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for by := range p.impeding {
		switch {
		case by.harmless:
		case by.bytes == 0:
			return by
		case worst == nil || float64(by.every)/float64(by.bytes) > float64(worst.every)/float64(worst.bytes):
			worst = by
		}
	}
	return worst
}

// pace waits until some of n bytes may pass, and returns how many; 0 if done is closed before.
func (p *Proxy) pace(n int, done <-chan struct{}) int {
	var waited *impediment
	for {
		by := p.worst()
		switch {
		case by == nil:
			return n
		case by == waited && by.bytes > 0:
			return min(n, by.bytes)
		}
		if !by.wait(done) {
			return 0
		}
		waited = by
	}
}

// wait waits as long as the impediment keeps back what comes next. It reports false if done is closed before.
func (i *impediment) wait(done <-chan struct{}) bool {
	var due <-chan time.Time
	if i.bytes > 0 {
		timer := time.NewTimer(i.every)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
	case <-i.ended:
	case <-done:
		return false
	}
	return true
}
