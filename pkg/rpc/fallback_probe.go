package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
)

// fallbackPace says when probes are made.
type fallbackPace struct {
	timeout            time.Duration // of a probe by one protocol
	pause, maxPause    time.Duration // between probes because of doubts that were not confirmed; doubled each time
	again, longest     time.Duration // until gRPC is probed again where it was learned not to get through; doubled each time
	jitter             float64       // of again
	probesOfATransport int           // at a time
}

func defaultFallbackPace() fallbackPace {
	return fallbackPace{
		timeout: 5 * time.Second, pause: time.Second, maxPause: time.Minute, again: time.Minute, longest: 10 * time.Minute, jitter: 0.2,
		probesOfATransport: maxProbes,
	}
}

// finding is what a probe by one protocol found, the more the greater.
type finding int

const (
	foundNothing finding = iota // nobody answered, or something that says nothing of the protocol
	foundFails                  // evidence that gRPC does not get through
	foundAnswer                 // an answer over the protocol's version of HTTP that there is no health to ask for, by whomever
	foundStatus                 // a grpc-status that says so, which has no trailers that could be missing
	foundWorks                  // a message, and by gRPC trailers with a status after it
)

// String completes "a probe ".
func (f finding) String() string {
	return [...]string{
		"brought nothing", "failed", "was answered over HTTP/2", "brought a grpc-status", "brought a message and a trailer",
	}[f]
}

// probing is what is found out of one instance, by one probe at a time.
type probing struct {
	// ask probes by a protocol over a connection of its own.
	ask    func(ctx context.Context, by Protocol) (finding, error)
	asking chan struct{} // has room for the one probe that asks: one that was stopped takes a moment to end
	stop   func()        // ends the probe that is planned or under way; nil if there is none

	notBefore time.Time     // when the next probe because of a doubt may begin
	pause     time.Duration // that it waits for
	interval  time.Duration // after which gRPC is looked at again; 0 if nothing was learned of this registration
}

// beginLocked has a probe made after a delay, in place of any other. Its context ends when its result is not to be known any more.
func (f *fallback) beginLocked(delay time.Duration, probe func(ctx context.Context)) {
	f.stopLocked()
	if f.resting {
		return
	}
	ctx, cancel := context.WithCancel(f.probes.ctx)
	planned := time.AfterFunc(delay, func() { f.probes.begin(ctx, f.asking, probe) })
	f.stop = func() {
		planned.Stop()
		cancel()
	}
}

// stopLocked ends the probe that is planned or under way.
func (f *fallback) stopLocked() {
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

// probeLocked has the instance probed because of a doubt, unless it is already, or was lately.
func (f *fallback) probeLocked() {
	now, evidence := time.Now(), f.suspicion.evidence
	if f.stop != nil || now.Before(f.notBefore) {
		return
	}
	if now.Sub(f.notBefore) > f.probes.pace.maxPause {
		f.pause = 0 // the doubts of before are long over
	}
	f.noteLockedf(slog.LevelInfo, "is probed, because gRPC may not get through: %v", evidence)
	f.beginLocked(0, func(ctx context.Context) { f.probe(ctx, evidence) })
}

// probe finds out what a doubt is worth.
func (f *fallback) probe(ctx context.Context, evidence error) {
	byGRPC, err := f.find(ctx, ProtocolGRPC)
	byHTTP := foundNothing
	if byGRPC != foundNothing && byGRPC != foundWorks {
		byHTTP, _ = f.find(ctx, ProtocolHTTP)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	f.stopLocked()
	switch {
	case byGRPC == foundFails && byHTTP == foundWorks:
		f.suspectLocked(fmt.Errorf("%w; and a probe found: %w", evidence, err), foundWorks)
		f.learnLocked()
		return
	case byGRPC == foundWorks:
		f.settleLocked() // whatever it was, it is not gRPC that does not get through
	case byHTTP != foundNothing && f.is(stateDoubt):
		f.suspicion.untold = true
		f.suspicion.answered = f.suspicion.answered || byHTTP == foundWorks
		if f.decideLocked() {
			return
		}
	}
	f.waitLocked(max(f.probes.pace.pause, 2*f.pause))
}

// waitLocked has the next probe because of a doubt wait.
func (f *fallback) waitLocked(pause time.Duration) {
	f.pause = min(pause, f.probes.pace.maxPause)
	f.notBefore = time.Now().Add(f.pause)
}

// lookAgainLocked has gRPC looked at again after the interval, if it was learned not to get through.
func (f *fallback) lookAgainLocked() {
	if f.interval == 0 {
		return
	}
	spread := 1 + f.probes.pace.jitter*(2*rand.Float64()-1)
	until := f.suspicion.until
	f.beginLocked(time.Duration(float64(f.interval)*spread), func(ctx context.Context) { f.look(ctx, until) })
}

// look finds out whether gRPC gets through again: whether a probe finds what disproves the evidence that it did not. Where that takes a message and a
// trailer, an instance without health goes on by HTTP until it registers anew: its calls get through, and none is risked to find out more.
func (f *fallback) look(ctx context.Context, until finding) {
	found, _ := f.find(ctx, ProtocolGRPC)
	if found >= until && ctx.Err() == nil {
		f.instance.grpc.pool.Renew() // connections of before may still go through what was in the way
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case found >= until:
		f.moveLockedf(stateGRPC, slog.LevelInfo, "speaks gRPC again: a probe %v", found)
	default:
		f.interval = min(2*f.interval, f.probes.pace.longest)
		f.lookAgainLocked()
	}
}

// find probes by a protocol, for as long as that may take.
func (f *fallback) find(ctx context.Context, by Protocol) (finding, error) {
	ctx, cancel := context.WithTimeout(ctx, f.probes.pace.timeout)
	defer cancel()
	return f.ask(ctx, by)
}

// fallbackProbes owns the probes of a transport's instances.
type fallbackProbes struct {
	pace   fallbackPace
	ctx    context.Context //nolint:containedctx // the lifetime of the probes, which no call bounds
	cancel context.CancelFunc
	room   chan struct{} // as large as the number of probes that may be under way

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

func newFallbackProbes(pace fallbackPace) *fallbackProbes {
	p := &fallbackProbes{pace: pace, room: make(chan struct{}, pace.probesOfATransport)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// begin runs a probe beside its caller, once there is room for it, and for one more of its instance; not at all if ctx has ended by then, which is
// below the probes' own.
func (p *fallbackProbes) begin(ctx context.Context, instance chan struct{}, probe func(ctx context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.work.Go(func() {
		if !enter(ctx, instance) {
			return
		}
		defer func() { <-instance }()
		if !enter(ctx, p.room) {
			return
		}
		defer func() { <-p.room }()
		probe(ctx)
	})
}

// enter waits for a place in a room, and reports false if ctx ended first.
func enter(ctx context.Context, room chan struct{}) bool {
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if ctx.Err() != nil { // both may have happened
		<-room
		return false
	}
	return true
}

// close ends the probes under way and waits for them. None begins after it.
func (p *fallbackProbes) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.work.Wait()
}

// askApart asks grpc.health.v1 for the server as a whole, the one name that every server with health knows, over a connection that no call uses and
// that is closed afterwards. The error says what is wrong, if anything is.
func (i *instance) askApart(ctx context.Context, by Protocol) (finding, error) {
	wire := i.newWire(by)
	defer wire.pool.Close()
	got := check(ctx, &wire, "")
	found := foundNothing
	switch shown := got.shown(); {
	case by == ProtocolGRPC && (shown == grpcclient.Blocked || shown == grpcclient.Doubtful):
		found = foundFails
	case by == ProtocolGRPC && got.err == nil && got.status != HealthServiceUnknown:
		found = foundWorks
	case by == ProtocolHTTP && got.answered():
		found = foundWorks // an error in Connect's form is Connect's answer
	case got.err != nil && !got.offersNone():
	case shown == grpcclient.Works:
		found = foundStatus
	default:
		found = foundAnswer
	}
	if got.err != nil {
		return found, fmt.Errorf("health by %s: %w", by, got.err)
	}
	return found, nil
}
