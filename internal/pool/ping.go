package pool

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// pingFrame is what asks the peer whether it is there (RFC 9113, section 6.7). net/http takes no notice of an answer to a ping that is
// none of its own, but that the peer is alive.
const pingFrame = "\x00\x00\x08" + "\x06" + "\x00" + "\x00\x00\x00\x00" + "goplt\x00\x00\x00" // length, type, flags, stream, data

var errPingTimeout = errors.New("peer did not answer a ping")

// pingPace is how often a pool's connections ping; they share it.
type pingPace struct {
	interval atomic.Int64 // nanoseconds
	timeout  time.Duration
	sent     atomic.Uint64
}

// newPingPace returns nil if there are to be no pings.
func newPingPace(config Config) *pingPace {
	if config.Kind != HTTP2 || config.PingInterval <= 0 {
		return nil
	}
	p := &pingPace{timeout: config.PingTimeout}
	p.interval.Store(int64(config.PingInterval))
	return p
}

// slow doubles the interval at which a peer found that there were too many pings, unless that has been done already.
func (p *pingPace) slow(complainedOf time.Duration) {
	for {
		current := p.interval.Load()
		if slower := int64(2 * complainedOf); slower <= current || p.interval.CompareAndSwap(current, slower) {
			return
		}
	}
}

// pinger asks the peer of one connection whether it is there, when calls wait for it and it has been silent for the interval, and closes
// the connection if not a byte came within the timeout. It sends its frames between those of net/http, which would also ping while no
// call is under way: that is for what gRPC servers end connections.
//
// Its timer runs while there are calls, and once more after the last. As it is set for a whole interval when a call begins, silence from
// before that is not held against the peer.
type pinger struct {
	conn  *observedConn
	pace  *pingPace
	epoch time.Time // the times below are since then

	// reserved counts the slots that were handed out and not used yet: no calls as the peer sees it.
	reserved atomic.Int64
	slots    func() int   // how many slots are taken, those reserved included; set before the first call
	heardAt  atomic.Int64 // when the peer last sent anything
	armed    atomic.Bool  // whether the timer runs; set under mu, unset by the timer alone

	sendMu sync.Mutex // held while anything is written, so that frames do not mix
	sent   sendScanner
	broken bool // whether a write failed: nothing is known of the boundaries then
	// wanted asks whoever holds sendMu to send a ping.
	wanted atomic.Bool

	mu       sync.Mutex
	timer    *time.Timer
	asking   bool // whether a ping is not answered
	askedAt  time.Duration
	interval time.Duration // by which the latest ping was due; 0 if there was none
	stopped  bool
}

func newPinger(conn *observedConn, pace *pingPace) *pinger {
	return &pinger{conn: conn, pace: pace, epoch: time.Now(), sent: newSendScanner()}
}

// heard notes that the peer sent something.
func (p *pinger) heard() { p.heardAt.Store(int64(time.Since(p.epoch))) }

// waiting reports whether calls wait for the peer. It may err on the side of yes. If a slot is used or given back while it looks, it may
// err on the side of no; both look after the timer afterwards.
func (p *pinger) waiting() bool {
	reserved := p.reserved.Load()
	return int64(p.slots()) > reserved
}

// keep makes sure that the timer runs if calls wait.
func (p *pinger) keep() {
	if p.armed.Load() || !p.waiting() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.armed.Swap(true) {
		return
	}
	p.asking = false
	p.armLocked(time.Duration(p.pace.interval.Load()))
}

func (p *pinger) armLocked(in time.Duration) {
	if p.timer == nil {
		p.timer = time.AfterFunc(in, p.tick)
		return
	}
	p.timer.Reset(in)
}

func (p *pinger) tick() {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return
	}
	now, interval := time.Since(p.epoch), time.Duration(p.pace.interval.Load())
	heard := time.Duration(p.heardAt.Load())
	if p.asking && heard < p.askedAt {
		if left := p.askedAt + p.pace.timeout - now; left > 0 {
			p.armLocked(min(left, interval))
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		p.conn.fail(fmt.Errorf("%w within %v", errPingTimeout, p.pace.timeout))
		return
	}
	p.asking = false
	p.mu.Unlock()
	if !p.waiting() { // asked with no lock held: stop takes it from within net/http
		p.armed.Store(false)
		p.keep() // for a call that began in between, and took the timer to be running
		return
	}
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return
	}
	if left := interval - (now - heard); left > 0 {
		p.armLocked(left)
		p.mu.Unlock()
		return
	}
	p.asking, p.askedAt, p.interval = true, now, interval
	p.armLocked(min(p.pace.timeout, interval)) // before the ping is written, which may block
	p.mu.Unlock()
	p.wanted.Store(true)
	p.sendWanted()
}

// write writes on behalf of net/http.
func (p *pinger) write(buffer []byte) (int, error) {
	p.sendMu.Lock()
	n, err := p.conn.send(buffer)
	p.sent.scan(buffer[:n])
	p.broken = p.broken || err != nil
	p.sendMu.Unlock()
	p.sendWanted()
	return n, err
}

// sendWanted sends a ping if one is wanted and it can go out now: otherwise, whoever is writing comes here afterwards.
func (p *pinger) sendWanted() {
	for p.wanted.Load() && p.sendMu.TryLock() {
		sendable := p.sent.fits() && !p.broken
		if sendable {
			p.wanted.Store(false)
			_, err := p.conn.send([]byte(pingFrame))
			if p.broken = err != nil; !p.broken {
				p.pace.sent.Add(1)
			}
		}
		p.sendMu.Unlock()
		if !sendable {
			return // until the frame that is being written in parts has been
		}
	}
}

// calm slows down if the peer complained after it was pinged. gRPC servers then say "too_many_pings" (gRFC A8); others say nothing, so
// the words are not asked for.
func (p *pinger) calm() {
	p.mu.Lock()
	interval := p.interval
	p.mu.Unlock()
	if interval > 0 {
		p.pace.slow(interval)
	}
}

func (p *pinger) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}
