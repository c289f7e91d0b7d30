package rpc

import (
	"context"
	"log/slog"

	"github.com/0x1d/goplt/internal/outlier"
	"github.com/0x1d/goplt/pkg/registry"
)

// Probed is an instance outside of a transport, for the tests of probes.
type Probed struct {
	instance *instance
	probes   *fallbackProbes
}

// NewProbed returns the instance without connections.
func NewProbed(described registry.Instance, config *ClientConfig) *Probed {
	probes := newFallbackProbes(defaultFallbackPace())
	return &Probed{newInstance(described, config, opening{}, &changes{logger: slog.New(slog.DiscardHandler)}, nil, probes), probes}
}

// Probe probes it.
func (p *Probed) Probe(ctx context.Context, spoken Protocol) error {
	return p.instance.probe(ctx, spoken)
}

// Traces returns what calls leave behind: attempts, failures, and those in flight.
func (p *Probed) Traces() (calls, failures uint64, inFlight int64) {
	return p.instance.calls.Load(), p.instance.fails.Load(), p.instance.stats.InFlight()
}

// SpeaksHTTP reports whether gRPC was learned not to get through.
func (p *Probed) SpeaksHTTP() bool { return p.instance.fallback.byHTTP() }

// Breaker returns the state of its breaker.
func (p *Probed) Breaker() string { return p.instance.breaker.State() }

// probedTarget is a [Probed] under a prober.
type probedTarget struct {
	*instance

	host *outlier.Host
}

func (p probedTarget) outlierHost() *outlier.Host { return p.host }
func (p probedTarget) inUse() bool                { return true }

// Watch has a prober watch it, beside another instance that has no calls. It tells of changes until stop.
func (p *Probed) Watch(config OutlierConfig, onChange func(outlier.Change)) (host *outlier.Host, stop func()) {
	target := probedTarget{instance: p.instance}
	work := newProber(config, ProtocolAuto, func() []probeTarget { return []probeTarget{target} })
	target.host = work.detector.NewHost(onChange)
	work.detector.SetHosts([]*outlier.Host{target.host, work.detector.NewHost(nil)})
	return target.host, work.close
}

// Close closes its connections.
func (p *Probed) Close() {
	p.instance.close()
	p.probes.close()
}
