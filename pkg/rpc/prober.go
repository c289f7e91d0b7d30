package rpc

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/0x1d/goplt/internal/outlier"
)

// probeTarget is an instance as the prober sees it.
type probeTarget interface {
	// outlierHost returns the instance's record. It is the same each time.
	outlierHost() *outlier.Host
	// inUse reports whether this client means to use the instance: it is in the set, and in the subset.
	inUse() bool
	// probe asks the instance, as it is spoken to by a client of the protocol spoken, whether it takes calls. ctx bounds it.
	probe(ctx context.Context, spoken Protocol) error
}

// prober drives a transport's outlier detector in time, and probes instances, each once at a time: those that await it to be re-admitted,
// and, where so configured, those that serve and that the client means to use.
//
// It has one goroutine, and that only while there is a time to wait for: calls since the last look at the rates, an instance that is out, or
// active probing of instances that there are. A transport that is idle costs nothing and never wakes up.
type prober struct {
	config   OutlierConfig
	protocol Protocol
	detector *outlier.Detector
	targets  func() []probeTarget // the current instances

	ctx    context.Context //nolint:containedctx // the lifetime of the probes, which no call bounds
	cancel context.CancelFunc
	work   sync.WaitGroup // the goroutine and the probes
	nudge  chan struct{}  // tells the goroutine to look again; sent to with mu held

	mu      sync.Mutex
	running bool // whether there is a goroutine
	closed  bool
	probing map[*outlier.Host]struct{} // those whose probe is under way

	// What follows is the goroutine's alone; each begins where the one before ended.
	round    []probeTarget // of active probing: those not probed yet
	roundDue time.Time     // of the next round; zero if none is planned
}

// maxProbes bounds the probes of one transport that are under way at a time.
const maxProbes = 4

// newProber returns a prober, whose detector is the one to make the hosts of targets with. targets may be called at any time until close. When
// they change, its detector is told by SetHosts, after targets has begun to return the new ones. If ejection is switched off, nothing ejects or
// probes, and the prober never has a goroutine for longer than a look.
func newProber(config OutlierConfig, protocol Protocol, targets func() []probeTarget) *prober {
	if !config.Enabled {
		config.ConsecutiveFailures, config.SuccessRate.Enabled, config.FailurePercentage.Enabled, config.Probe.Interval = 0, false, false, 0
	}
	p := &prober{config: config, protocol: protocol, targets: targets, nudge: make(chan struct{}, 1), probing: make(map[*outlier.Host]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.detector = outlier.New(config.detection(), p.wake)
	return p
}

// detection is the part of the configuration that the detector obeys.
func (c *OutlierConfig) detection() outlier.Config {
	return outlier.Config{
		Interval: c.Interval, BaseEjection: c.BaseEjection, MaxEjection: c.MaxEjection,
		MaxEjectedPercent: c.MaxEjectedPercent, PanicPercent: c.PanicPercent, ConsecutiveFailures: c.ConsecutiveFailures,
		SuccessRate: outlier.SuccessRate(c.SuccessRate), FailurePercentage: outlier.FailurePercentage(c.FailurePercentage),
	}
}

// wake has the prober look for what is due. It does not block.
func (p *prober) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
	case p.running:
		select {
		case p.nudge <- struct{}{}:
		default: // it is told already
		}
	default:
		p.running = true
		p.work.Go(p.run)
	}
}

// close ends the probes under way and waits for all that the prober started. Nothing is started after it. It may be called more than once.
func (p *prober) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.work.Wait()
}

// run does what is due when it is, until there is nothing left to wait for.
func (p *prober) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p.ctx.Err() == nil {
		next := p.step(time.Now())
		if next.IsZero() {
			if p.leave() {
				return
			}
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-timer.C:
		case <-p.nudge:
		case <-p.ctx.Done():
		}
	}
}

// leave reports whether the goroutine may end, because nobody woke it since it looked, and if so, has the next wake start another.
func (p *prober) leave() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.nudge) > 0 {
		return false
	}
	p.running = false
	return true
}

// step does what is due and returns when the next thing will be, apart from what waits for a probe to end.
func (p *prober) step(now time.Time) (next time.Time) {
	next = p.detector.Sweep(now)
	targets := p.targets()
	for _, target := range targets {
		host := target.outlierHost()
		if host.Ejected() && p.hasRoom() && !p.isProbing(host) && host.BeginProbe(now) {
			p.begin(target)
		}
	}
	p.planRound(now, targets)
	for len(p.round) > 0 && p.hasRoom() {
		target := p.round[0]
		p.round = p.round[1:]
		host := target.outlierHost()
		// One that is out is probed when its time has come, one beyond the subset is not to cost connections, and one that keeps a probe waiting for
		// longer than the interval is not to take the room of others.
		if !host.Ejected() && target.inUse() && !p.isProbing(host) {
			p.begin(target)
		}
	}
	if next.IsZero() || !p.roundDue.IsZero() && p.roundDue.Before(next) {
		next = p.roundDue
	}
	return next
}

// planRound begins a round of active probing when one is due. The first comes somewhere within an interval, so that clients that start together do
// not probe together.
func (p *prober) planRound(now time.Time, targets []probeTarget) {
	switch {
	case p.config.Probe.Interval <= 0:
	case len(targets) == 0:
		p.round, p.roundDue = nil, time.Time{}
	case p.roundDue.IsZero():
		p.roundDue = now.Add(rand.N(p.config.Probe.Interval))
	case !now.Before(p.roundDue):
		p.roundDue = now.Add(p.config.Probe.Interval*4/5 + rand.N(p.config.Probe.Interval*2/5+1))
		if len(p.round) == 0 { // else the last one goes on: more instances than there is time for
			p.round = targets
		}
	}
}

func (p *prober) hasRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.probing) < maxProbes
}

func (p *prober) isProbing(host *outlier.Host) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, probing := p.probing[host]
	return probing
}

// begin probes an instance beside the goroutine. When the probe has ended, there is room for another.
func (p *prober) begin(target probeTarget) {
	host := target.outlierHost()
	p.mu.Lock()
	p.probing[host] = struct{}{}
	p.mu.Unlock()
	p.work.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.probing, host)
			p.mu.Unlock()
			p.wake()
		}()
		ctx, cancel := context.WithTimeout(p.ctx, p.config.Probe.Timeout)
		defer cancel()
		err := target.probe(ctx, p.protocol)
		if p.ctx.Err() == nil { // else it was the prober that was closed, which says nothing of the instance
			host.Probed(time.Now(), err)
		}
	})
}
