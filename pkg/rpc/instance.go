package rpc

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/0x1d/goplt/internal/balancer"
	"github.com/0x1d/goplt/internal/outlier"
	"github.com/0x1d/goplt/internal/pool"
	"github.com/0x1d/goplt/internal/resilience"
	grpcclient "github.com/0x1d/goplt/internal/services/grpc/client"
	httpclient "github.com/0x1d/goplt/internal/services/http/client"
	"github.com/0x1d/goplt/pkg/registry"
)

// instance is what a transport keeps of one instance for as long as the registry names it: how to speak to it, its connections, breaker
// and counts. It is shared by all snapshots that hold it.
type instance struct {
	described atomic.Pointer[registry.Instance]
	id, addr  string

	grpc, http wire
	newWire    func(Protocol) wire // with a pool of its own
	fallback   *fallback

	host         *outlier.Host       // nil if there is no ejection
	breaker      *resilience.Breaker // nil if switched off
	breakerShut  atomic.Bool         // whether the breaker is anything but closed; spares the hot path the breaker's lock
	stats        *balancer.Stats
	calls, fails atomic.Uint64

	wanted     atomic.Bool // whether this client means to use it, and so keeps a minimum of connections: it is in the set, and in the subset
	warming    sync.Mutex  // so that the last to decide which pool keeps them has seen what is known last
	lastProbe  atomic.Pointer[ProbeStatus]
	changes    *changes
	lastChange atomic.Pointer[Change]

	removed   atomic.Bool // takes no further attempts
	expiry    *time.Timer // of a removed instance, which it closes; belongs to the transport's mutex
	closeOnce sync.Once
}

// opening is how connections are opened.
type opening struct {
	tls  *tls.Config                                                       // nil for cleartext
	dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil for TCP
}

// wire is one protocol to one instance.
type wire struct {
	protocol  Protocol
	pool      *pool.Pool
	transport connect.Transport
}

// instanceKey tells instances apart. A registration that changes is still the same instance: it keeps its connections and what they showed.
type instanceKey struct{ id, addr string }

func keyOf(described registry.Instance) instanceKey {
	return instanceKey{id: described.ID, addr: described.Addr()}
}

// protocolHint is the key of the metadata by which an instance may say how it is spoken to; see [registry.Instance]. With http, gRPC is never tried.
// With grpc, only proof that gRPC does not get through has it spoken to otherwise.
const protocolHint = "protocol"

func newInstance(
	described registry.Instance, config *ClientConfig, opening opening, changes *changes, prober *prober, probes *fallbackProbes,
) *instance {
	i := &instance{id: described.ID, addr: described.Addr(), changes: changes, stats: balancer.NewStats(config.Balancer.internal())}
	i.described.Store(&described)
	i.newWire = func(protocol Protocol) wire { return newWire(protocol, i.addr, config, opening) }
	i.grpc, i.http = i.newWire(ProtocolGRPC), i.newWire(ProtocolHTTP)
	i.fallback = newFallback(i, hintOf(described), probes)
	if prober != nil {
		i.host = prober.detector.NewHost(i.ejectionChanged)
	}
	if config.Breaker.Enabled {
		i.breaker = resilience.NewBreaker(resilience.BreakerConfig{
			FailureRate: config.Breaker.FailureRate, MinCalls: config.Breaker.MinCalls, Window: config.Breaker.Window,
			OpenFor: config.Breaker.OpenFor, HalfOpenSuccesses: config.Breaker.HalfOpenSuccesses,
			OnChange: func(from, to string) {
				i.breakerShut.Store(to != "closed")
				if to == "open" {
					i.stats.StartSlowly(time.Now()) // else its failures would keep the balancer from letting it be probed
				}
				changes.notef(slog.LevelWarn, i, "has a circuit breaker that is %s, which was %s", to, from)
			},
		})
	}
	return i
}

// ejectionChanged is told of each change of phase in the ejection of the instance.
func (i *instance) ejectionChanged(change outlier.Change) {
	switch change.Phase {
	case outlier.Ejected:
		i.changes.notef(slog.LevelWarn, i, "is ejected for %v: %s", change.Until.Sub(change.Since).Round(time.Millisecond), change.Reason)
	case outlier.AwaitingProbe:
		i.changes.notef(slog.LevelInfo, i, "awaits a probe: %s", change.Reason)
	case outlier.Serving:
		i.stats.StartSlowly(change.Since)
		i.changes.notef(slog.LevelInfo, i, "serves again: %s", change.Reason)
	}
}

var _ probeTarget = (*instance)(nil)

func (i *instance) outlierHost() *outlier.Host { return i.host }
func (i *instance) inUse() bool                { return i.wanted.Load() }

func hintOf(described registry.Instance) Protocol { return Protocol(described.Metadata[protocolHint]) }

// describe takes over what the registry now says of the instance, and returns what logs the changes. What was learned of its protocol is forgotten
// with a new registration, which may be of another program, whose connections would have ended with it; and when the instance says something else of
// its protocol.
func (i *instance) describe(next registry.Instance) (logs []func()) {
	notef := func(level slog.Level, format string, args ...any) {
		logs = append(logs, i.changes.rememberf(level, i, format, args...))
	}
	last, hint := i.described.Swap(&next), hintOf(next)
	if (last.Revision != next.Revision || hintOf(*last) != hint) && i.fallback.register(hint) {
		notef(slog.LevelInfo, "registered anew: its protocol is what it says, not what was learned")
	}
	if last.Revision != next.Revision {
		i.grpc.pool.Redial() // whoever waits must not be told what the program of before does not speak
	}
	if last.Weight != next.Weight {
		notef(slog.LevelInfo, "has weight %d instead of %d", next.Weight, last.Weight)
	}
	if last.Zone != next.Zone {
		notef(slog.LevelInfo, "is in zone %q instead of %q", next.Zone, last.Zone)
	}
	if last.Health != next.Health {
		const unknown = "of unknown health"
		notef(slog.LevelDebug, "is %s in the registry, and was %s", cmp.Or(next.Health, unknown), cmp.Or(last.Health, unknown))
	}
	return logs
}

func newWire(protocol Protocol, addr string, config *ClientConfig, opening opening) wire {
	connections := pool.Config{
		Kind: grpcclient.Connection, Addr: addr, TLS: opening.tls, Dial: opening.dial,
		MaxConnections: config.Pool.MaxConnections, MinConnections: config.Pool.MinConnections,
		DialTimeout: config.Pool.DialTimeout, IdleTimeout: config.Pool.IdleTimeout, MaxAge: config.Pool.MaxAge,
		PingInterval: config.Pool.PingInterval, PingTimeout: config.Pool.PingTimeout,
	}
	options := []connecthttp.Option{
		connecthttp.WithReadMaxBytes(config.MaxReceiveBytes), connecthttp.WithSendMaxBytes(config.MaxSendBytes),
		connecthttp.WithCompressMinBytes(config.CompressMinBytes),
	}
	if config.CompressRequests {
		options = append(options, connecthttp.WithSendGzip())
	}
	doer := httpDoer{answered: grpcclient.Answered, grpc: true}
	if protocol == ProtocolGRPC {
		options = append(options, grpcclient.Options()...)
	} else {
		connections.Kind, connections.MaxConnections = httpclient.Connection, config.Pool.MaxHTTPConnections
		options = append(options, httpclient.Options()...)
		doer = httpDoer{answered: httpclient.Answered, wholeMessages: true}
	}
	scheme := "http://"
	if opening.tls != nil {
		scheme = "https://"
	}
	return wire{protocol: protocol, pool: pool.New(connections), transport: connecthttp.NewTransport(doer, scheme+addr, options...)}
}

// wireFor returns how to speak to the instance now.
func (i *instance) wireFor(protocol Protocol) *wire {
	if protocol == ProtocolHTTP || protocol == ProtocolAuto && i.fallback.byHTTP() {
		return &i.http
	}
	return &i.grpc
}

// want says whether this client means to use the instance, and so whether its minimum of connections is kept.
func (i *instance) want(used bool, spoken Protocol) {
	i.wanted.Store(used)
	i.keepWarm(spoken)
}

// keepWarm has the pool of the protocol that the instance is spoken to by now keep its minimum of connections, and the other none.
func (i *instance) keepWarm(spoken Protocol) {
	i.warming.Lock()
	defer i.warming.Unlock()
	for _, wire := range []*wire{&i.grpc, &i.http} {
		if i.wanted.Load() && wire == i.wireFor(spoken) {
			wire.pool.Warm()
		} else {
			wire.pool.Cool()
		}
	}
}

// enter counts an attempt in, unless the instance was removed in the meantime: then another has to be picked.
func (i *instance) enter() bool {
	i.stats.Begin()
	if i.removed.Load() {
		i.stats.End(time.Time{}, 0, balancer.OutcomeNone)
		return false
	}
	return true
}

// close ends the connections, and the attempts on them.
func (i *instance) close() {
	i.closeOnce.Do(func() {
		i.fallback.rest()
		i.grpc.pool.Close()
		i.http.pool.Close()
	})
}

// mayServe reports whether the breaker would let an attempt through, and, if ejection is to be heeded, the instance is not out.
func (i *instance) mayServe(heedEjection bool) bool { //nolint:revive // it is the detector's state, not a mode
	if heedEjection && i.host.Ejected() {
		return false
	}
	return !i.breakerShut.Load() || i.breaker.MayServe()
}

// permit is a breaker's leave to make an attempt.
type permit int

const (
	permitNone  permit = iota // none: the attempt is made against the breaker, which is not told of it
	permitFree                // of a closed breaker, or none at all: is told of the outcome if it is still closed then
	permitProbe               // of a half-open breaker, which has few: has to be told of the outcome, exactly once
)

// acquirePermit asks the breaker. Each answer has to be followed by one record.
func (i *instance) acquirePermit() permit {
	switch {
	case !i.breakerShut.Load():
		return permitFree
	case i.breaker.TryAcquirePermit():
		return permitProbe
	default:
		return permitNone
	}
}

// finish counts an attempt out that ended now, after its outcome. latency is how long the instance took, once there was a connection; 0 says nothing
// of it.
func (i *instance) finish(permit permit, result outcome, latency time.Duration, now time.Time) {
	i.calls.Add(1)
	seen := balancer.OutcomeNone
	switch {
	case result == outcomeFailure:
		i.fails.Add(1)
		seen = balancer.OutcomeFailed
	case latency > 0 && result == outcomeSuccess:
		seen = balancer.OutcomeAnswered
	case latency > 0:
		seen = balancer.OutcomeUnanswered // its caller waited for so long in vain
	}
	if result == outcomeBusy {
		result = outcomeSuccess // to all but the balancer, as a fast refusal to serve must not draw more calls
	}
	defer func() { i.stats.End(now, latency, seen) }() // also if a change is logged by a handler that panics
	i.record(permit, result)
	if result == outcomeFailure && i.breakerShut.Load() {
		// The breaker keeps calls away, and forgot what was measured so that its probes come through. What fails from then on, of all that was in
		// flight when it opened above all, must not have the balancer avoid the instance again.
		seen = balancer.OutcomeNone
	}
	switch {
	case i.host == nil:
	case result == outcomeSuccess:
		i.host.Succeeded()
	case result == outcomeFailure:
		i.host.Failed(now)
	}
}

// leave undoes enter for an attempt that is not made.
func (i *instance) leave(permit permit) {
	i.record(permit, outcomeNone)
	i.stats.End(time.Time{}, 0, balancer.OutcomeNone)
}

// record answers a permit. An attempt that says nothing of the instance (its caller gave up) leaves a breaker as it is: a probe's permit is given
// back. An attempt that began before the breaker opened is no probe, and must not answer for one.
func (i *instance) record(permit permit, result outcome) {
	switch {
	case i.breaker == nil || permit == permitNone || permit == permitFree && i.breakerShut.Load():
	case result == outcomeSuccess:
		i.breaker.RecordSuccess()
	case result == outcomeFailure:
		i.breaker.RecordFailure()
	case permit == permitProbe:
		i.breaker.Release()
	}
}

// outcome is what an attempt says of its instance.
type outcome int

const (
	outcomeNone    outcome = iota // nothing: the caller gave up, or the request could not even be written
	outcomeSuccess                // it answers, be it with an error of its own
	outcomeBusy                   // it answers that it cannot serve now
	outcomeFailure                // it cannot be reached, keeps silent, or something before it answers in its place
)
