package rpc

import (
	"context"
	"fmt"
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

// finding is what a probe by one protocol found.
type finding int

const (
	foundNothing  finding = iota // nobody answered, or something that says nothing of the protocol
	foundWorks                   // a message, and by gRPC trailers with a status after it
	foundFails                   // evidence that gRPC does not get through
	foundNoHealth                // an answer that there is no health to ask for, which by gRPC has no trailers that could be missing
)

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

// begin runs a probe beside its caller, or not at all once the probes are closed.
func (p *fallbackProbes) begin(probe func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.work.Go(func() {
		select {
		case p.room <- struct{}{}:
			defer func() { <-p.room }()
			probe()
		case <-p.ctx.Done():
		}
	})
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
	case got.err == nil || got.offersNone():
		found = foundNoHealth
	}
	if got.err != nil {
		return found, fmt.Errorf("health by %s: %w", by, got.err)
	}
	return found, nil
}
