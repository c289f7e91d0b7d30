package consul_test

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

// meters is a [metric.MeterProvider] that keeps what it is told, by instrument and attributes. The SDK has a reader for this, but would be a
// requirement of every program that uses this module.
type meters struct {
	noop.MeterProvider

	mu        sync.Mutex
	counts    map[string]int64
	callbacks map[*registration]metric.Callback
}

func (m *meters) Meter(string, ...metric.MeterOption) metric.Meter { return &meter{to: m} }

type meter struct {
	noop.Meter

	to *meters
}

type counter struct {
	noop.Int64Counter

	name string
	to   *meters
}

type gauge struct {
	noop.Int64ObservableGauge

	name string
}

type registration struct {
	noop.Registration

	of *meters
}

func (m *meter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return &counter{name: name, to: m.to}, nil
}

func (m *meter) Int64ObservableGauge(name string, _ ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return &gauge{name: name}, nil
}

func (m *meter) RegisterCallback(callback metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	m.to.mu.Lock()
	defer m.to.mu.Unlock()
	made := &registration{of: m.to}
	m.to.callbacks[made] = callback
	return made, nil
}

func (r *registration) Unregister() error {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	delete(r.of.callbacks, r)
	return nil
}

func key(name string, set attribute.Set) string {
	return name + " " + set.Encoded(attribute.DefaultEncoder())
}

func (c *counter) Add(_ context.Context, more int64, options ...metric.AddOption) {
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	c.to.counts[key(c.name, metric.NewAddConfig(options).Attributes())] += more
}

// observer is what a callback reports to.
type observer struct {
	noop.Observer

	seen map[string]int64
}

func (o observer) ObserveInt64(instrument metric.Int64Observable, value int64, options ...metric.ObserveOption) {
	o.seen[key(instrument.(*gauge).name, metric.NewObserveConfig(options).Attributes())] = value
}

// collect returns all values there are now.
func (m *meters) collect(t *testing.T) map[string]int64 {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := maps.Clone(m.counts)
	for _, callback := range m.callbacks {
		if err := callback(t.Context(), observer{seen: seen}); err != nil {
			t.Error(err)
		}
	}
	return seen
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meters{counts: make(map[string]int64), callbacks: make(map[*registration]metric.Callback)}
		f := newFakeAgent(entry("1", 80), entry("2", 80))
		r, _ := open(t, f, func(c *consul.Config) { c.MeterProvider = m })
		w := watch(t, r)
		expect(t, w, "1", "2")
		synctest.Wait()
		const of = "agent=agent.test:8500,"
		want := map[string]int64{
			"goplt.discovery.queries " + of + "result=ok,target=consul:///auth":    1,
			"goplt.discovery.instances " + of + "target=consul:///auth":            2,
			"goplt.discovery.watch.state " + of + "state=ok,target=consul:///auth": 1,
		}
		if diff := cmp.Diff(want, m.collect(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		f.answerWith(always(http.StatusForbidden, "no"))
		expectError(t, w, consul.ErrForbidden)
		delete(want, "goplt.discovery.watch.state "+of+"state=ok,target=consul:///auth")
		want["goplt.discovery.queries "+of+"result=forbidden,target=consul:///auth"] = 1
		want["goplt.discovery.watch.state "+of+"state=forbidden,target=consul:///auth"] = 1
		if diff := cmp.Diff(want, m.collect(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for name := range m.collect(t) {
			if !strings.HasPrefix(name, "goplt.discovery.queries") {
				t.Errorf("after Close %s is still observed", name)
			}
		}
	})
}
