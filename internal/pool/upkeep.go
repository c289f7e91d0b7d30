package pool

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// ageJitter keeps connections that were opened together, to all instances of a restarted service perhaps, from being renewed together.
	ageJitter = 0.2
	// recentUse is how long after its latest call a pool's only connection is taken to be wanted again.
	recentUse = time.Minute
	// drainSweep is how often it is looked whether a connection that finishes its calls has done so, although nothing announced it; see
	// [Conn.stateChanged].
	drainSweep = 30 * time.Second
	// Connections that no caller waits for are opened after a pause of refillPause, doubled with each further setback up to maxRefillPause.
	refillPause    = time.Second
	maxRefillPause = 30 * time.Second
	refillJitter   = 0.2
	// shortLife is the age below which the loss of a connection is a setback. Otherwise a peer that accepts connections and closes them
	// would be dialed without end.
	shortLife = 10 * time.Second
)

// Warm has the pool open MinConnections and keep them, without waiting for it: what is lost, retired or could not be opened is opened
// anew in the background, from the second failure in a row on after a pause of 1 s, doubled with each further one up to 30 s.
func (p *Pool) Warm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warm = true
	p.refillLocked()
}

// Cool ends what Warm began: connections are opened for callers alone, and closed when they are idle.
func (p *Pool) Cool() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.warm {
		return // nothing was kept; a set's update cools the pools of all instances that are not wanted
	}
	p.warm = false
	p.wakeLocked(0)
}

// Redial gives up the dials under way, and has others made in their place: whoever waits for a connection gets what is found from now on. The
// connections there are stay in use.
func (p *Pool) Redial() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.dialing == 0 {
		return
	}
	p.cancel()
	p.ctx, p.cancel = context.WithCancel(context.Background())
}

// Renew takes the connections there are out of use, those being dialed included, so that further calls go over new ones. The calls on them finish.
func (p *Pool) Renew() {
	p.Redial()
	for _, conn := range *p.ready.Load() {
		conn.retire(reasonRenewed)
	}
}

// keptLocked is how many connections there are to be without anyone asking.
func (p *Pool) keptLocked() int {
	if !p.warm {
		return 0
	}
	return min(p.config.MinConnections, p.config.MaxConnections)
}

// refillLocked opens the connections that are missing.
func (p *Pool) refillLocked() {
	if p.closed {
		return
	}
	wanted := p.keptLocked()
	if p.leaving != nil {
		wanted = max(wanted, 1)
	}
	missing := wanted - p.liveLocked() - p.dialing
	if missing <= 0 {
		return
	}
	if pause := time.Until(p.noRefillBefore); pause > 0 {
		p.wakeLocked(pause)
		return
	}
	for range missing {
		p.dialLocked(0)
	}
}

// setBackLocked has refills pause. What goes wrong during a pause is a part of the same trouble.
func (p *Pool) setBackLocked() {
	now := time.Now()
	if now.Before(p.noRefillBefore) {
		return
	}
	p.setbacks++
	pause := refillPause
	for doubled := 1; doubled < p.setbacks && pause < maxRefillPause; doubled++ {
		pause *= 2
	}
	p.noRefillBefore = now.Add(jitter(min(pause, maxRefillPause), refillJitter))
}

// retiredLocked sees to what a retired connection leaves behind.
func (p *Pool) retiredLocked(conn *Conn, why reason) {
	p.endings[why]++
	if p.leaving == conn {
		p.leaving = nil
	}
	switch lost := why == reasonLost || why == reasonGoAway || why == reasonPingTimeout; {
	case time.Since(conn.born) >= shortLife:
		p.setbacks = 0
	case lost && p.setbacks == 0:
		p.setbacks = 1 // once is chance
	case lost:
		p.setBackLocked()
	}
	p.refillLocked()
}

// wakeLocked has tend run in good time.
func (p *Pool) wakeLocked(in time.Duration) {
	at := time.Now().Add(in)
	switch {
	case p.closed || !p.wakeAt.IsZero() && !at.Before(p.wakeAt):
		return
	case p.upkeep == nil:
		p.upkeep = time.AfterFunc(in, p.tend)
	default:
		p.upkeep.Reset(in)
	}
	p.wakeAt = at
}

// tend retires connections that are idle or old, opens those that are missing, and sets the timer for the next time.
func (p *Pool) tend() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.wakeAt = time.Time{}
	due := p.dueLocked(time.Now())
	p.mu.Unlock()
	for _, conn := range due.drained {
		conn.closeIfDone()
	}
	for _, conn := range due.idle {
		conn.retire(reasonIdle)
	}
	for _, conn := range due.aged {
		conn.retire(reasonAge)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refillLocked()
	if due.next > 0 {
		p.wakeLocked(due.next)
	}
}

// due is what there is to do.
type due struct {
	drained, idle, aged []*Conn
	next                time.Duration // until there may be more; 0 if there will not
}

func (d *due) again(in time.Duration) {
	if d.next == 0 || in < d.next {
		d.next = in
	}
}

// dueLocked looks for connections to retire: of those that are idle the ones unused for longest, as far as the minimum allows, and of
// those whose age is up all that may be missed. One that may not becomes the one that leaves when its successor is there.
func (p *Pool) dueLocked(now time.Time) (found due) {
	var aged, idle []*Conn
	for conn := range p.open {
		if conn.retired.Load() {
			found.drained = append(found.drained, conn)
			found.again(drainSweep)
			continue
		}
		if p.config.MaxAge > 0 {
			if left := conn.expires.Sub(now); left > 0 {
				found.again(left)
			} else {
				aged = append(aged, conn)
			}
		}
		if p.config.IdleTimeout > 0 {
			left := p.config.IdleTimeout - conn.unused(now)
			if left <= 0 && conn.client.InFlight() == 0 {
				idle = append(idle, conn)
			}
			if left <= 0 {
				left = p.config.IdleTimeout
			}
			found.again(left)
		}
	}
	p.leaving = nil // chosen anew, in case that it is not needed any more
	live, kept := p.liveLocked(), p.keptLocked()
	slices.SortFunc(idle, func(a, b *Conn) int { return cmp.Compare(a.lastUsed.Load(), b.lastUsed.Load()) })
	slices.SortFunc(aged, func(a, b *Conn) int { return a.expires.Compare(b.expires) })
	spare := len(idle)
	if kept > 0 {
		spare = min(spare, max(live-kept, 0))
	}
	found.idle = idle[:spare]
	live -= spare
	for _, conn := range aged {
		needed := kept
		if conn.client.InFlight() > 0 || conn.unused(now) < recentUse {
			needed = max(kept, 1)
		}
		switch {
		case slices.Contains(found.idle, conn):
		case live > needed:
			found.aged = append(found.aged, conn)
			live--
		case p.leaving == nil:
			p.leaving = conn
			live--
		}
	}
	return found
}

// unused is for how long the connection has had no call, if it has none now.
func (c *Conn) unused(now time.Time) time.Duration { return now.Sub(time.Unix(0, c.lastUsed.Load())) }

// jitter changes a duration by up to a share of it, either way.
func jitter(around time.Duration, share float64) time.Duration {
	return time.Duration(float64(around) * (1 + share*(2*rand.Float64()-1))) //nolint:gosec // chance, not secrecy
}
