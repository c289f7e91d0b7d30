package pool

import "time"

// Stats is what a pool did and holds at one moment.
type Stats struct {
	// Open counts the connections, those that only finish their calls included; InFlight the slots taken on them, those reserved included.
	Open, InFlight int
	// Queued counts the callers who wait for a connection.
	Queued int
	// Dials counts the connections that were tried to open, DialFailures those that could not be: for a name with several addresses, all
	// that is tried of them is one dial.
	Dials, DialFailures uint64
	// Pings counts the HTTP/2 pings sent.
	Pings uint64
	// PingInterval is how long a connection with calls may be silent before it is pinged: as configured, and doubled whenever the peer
	// complained (ENHANCE_YOUR_CALM). 0 means that there are no pings.
	PingInterval time.Duration
	// Ended counts the connections taken out of use.
	Ended Endings
}

// Endings counts connections by why they were taken out of use. What [Pool.Close] closes is not counted.
type Endings struct {
	// Idle had no call for the idle timeout.
	Idle uint64
	// Age had reached the maximum age.
	Age uint64
	// GoAway was announced by the peer.
	GoAway uint64
	// PingTimeout had a peer that did not answer.
	PingTimeout uint64
	// Lost was closed by the peer without notice, broken, or not fit for a further call after the latest.
	Lost uint64
	// Abandoned was closed by its caller, with [Conn.Abandon].
	Abandoned uint64
	// Renewed was taken out of use by [Pool.Renew].
	Renewed uint64
}

// reason is why a connection was taken out of use.
type reason int

const (
	reasonIdle reason = iota
	reasonAge
	reasonGoAway
	reasonPingTimeout
	reasonLost
	reasonAbandoned
	reasonRenewed

	reasons
)

// Stats returns the counts. It takes the pool's lock for as long as it takes to ask each connection.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := Stats{
		Open: len(p.open), Queued: p.queue.Len(), Dials: p.dialed, DialFailures: p.dialFailures,
		Ended: Endings{
			Idle: p.endings[reasonIdle], Age: p.endings[reasonAge], GoAway: p.endings[reasonGoAway],
			PingTimeout: p.endings[reasonPingTimeout], Lost: p.endings[reasonLost], Abandoned: p.endings[reasonAbandoned], Renewed: p.endings[reasonRenewed],
		},
	}
	for conn := range p.open {
		stats.InFlight += conn.client.InFlight()
	}
	if p.pace != nil {
		stats.Pings, stats.PingInterval = p.pace.sent.Load(), time.Duration(p.pace.interval.Load())
	}
	return stats
}
