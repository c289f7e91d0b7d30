package consul

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// probeInterval is the longest time between two tries, together of all feeds, to reach an agent that is out of reach: a refused connection costs
	// nothing to speak of, and who waits for a restart wants to be back within a second.
	probeInterval = time.Second
	// comebackRate and comebackBurst limit the queries per second of the feeds that failed, together for each agent. An agent that starts, or a cluster
	// that has just elected a leader, fills its caches for each service that it is asked for; 50 a second is little to it, and a process with a
	// hundred targets is back in two seconds, while its last good sets stand.
	comebackRate  = 50
	comebackBurst = 10
)

// outage is what the feeds of one agent tell each other while it is out of reach. One of them, the prober, tries again every second; the others wait
// longer and longer, or until it got through. Then the limiter lets them come back one after another. Safe for concurrent use.
type outage struct {
	comeback *rate.Limiter

	mu     sync.Mutex
	prober *feed
	over   chan struct{} // closed when an agent that was out of reach answers; nil while it is in reach
}

func newOutage() *outage { return &outage{comeback: rate.NewLimiter(comebackRate, comebackBurst)} }

// lost notes that a feed could not reach the agent, and reports whether that feed is the prober now.
func (o *outage) lost(by *feed) (probes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over == nil {
		o.over = make(chan struct{})
	}
	if o.prober == nil {
		o.prober = by
	}
	return o.prober == by
}

// reached notes that the agent answered, whatever it said.
func (o *outage) reached() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over != nil {
		close(o.over)
		o.over, o.prober = nil, nil
	}
}

// leave ends a feed's part. If it was the prober the others try now, and the first that fails takes its place.
func (o *outage) leave(left *feed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.prober == left {
		close(o.over)
		o.over, o.prober = nil, nil
	}
}

// ended returns a channel that is closed when the agent answers again; a closed one if it does.
func (o *outage) ended() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over == nil {
		over := make(chan struct{})
		close(over)
		return over
	}
	return o.over
}

// await waits for a feed's turn to come back.
func (o *outage) await(ctx context.Context) error { return o.comeback.Wait(ctx) }
