package consul

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// scope names the instrumentation.
const scope = "github.com/0x1d/goplt/pkg/registry/consul"

// metrics reports to OpenTelemetry, which does nothing where the program has no SDK:
//
//	goplt.discovery.queries      counter: queries sent, by target and result (the state that the answer alone leads to)
//	goplt.discovery.watch.state  gauge: 1 for the state that each target is in
//	goplt.discovery.instances    gauge: instances of the set that stands, by target
type metrics struct {
	queries      metric.Int64Counter
	registration metric.Registration
}

// newMetrics makes the instruments. They read status whenever the SDK collects, until close.
func newMetrics(provider metric.MeterProvider, status func() []WatchStatus) (*metrics, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter(scope)
	queries, err := meter.Int64Counter("goplt.discovery.queries", metric.WithUnit("{query}"), metric.WithDescription("Queries sent to Consul."))
	if err != nil {
		return nil, err
	}
	states, err := meter.Int64ObservableGauge("goplt.discovery.watch.state", metric.WithDescription("1 for the state that the watch of a target is in."))
	if err != nil {
		return nil, err
	}
	instances, err := meter.Int64ObservableGauge("goplt.discovery.instances",
		metric.WithUnit("{instance}"), metric.WithDescription("Instances of the set that stands."))
	if err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for _, watched := range status() {
			target, agent := attribute.String("target", watched.Target), attribute.String("agent", watched.Agent)
			to.ObserveInt64(states, 1, metric.WithAttributes(target, agent, attribute.String("state", string(watched.State))))
			to.ObserveInt64(instances, int64(watched.Instances), metric.WithAttributes(target, agent))
		}
		return nil
	}, states, instances)
	if err != nil {
		return nil, err
	}
	return &metrics{queries: queries, registration: registration}, nil
}

// queried counts a query of a feed.
func (m *metrics) queried(ctx context.Context, by *feed, err error) {
	m.queries.Add(ctx, 1, metric.WithAttributes(
		attribute.String("target", by.text), attribute.String("agent", by.agent.where), attribute.String("result", string(stateOf(err)))))
}

func (m *metrics) close() error { return m.registration.Unregister() }
