//go:build integration

package faults_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
	"github.com/0x1d/goplt/pkg/rpc"
)

// service is the service that all rows call. Each has an agent of its own, so that it needs no other name.
const service = "auth"

// settings returns the default configuration with the agent at an address and registrations that have no check: what an instance has to show is the
// row's to say.
func settings(agent string, changes ...func(*config.Config)) *config.Config {
	cfg := config.Default()
	cfg.Discovery.Consul.Address = agent
	cfg.Discovery.Consul.Check.Kind = consul.CheckNone
	cfg.Discovery.Consul.Logger = slog.New(slog.DiscardHandler)
	for _, change := range changes {
		change(cfg)
	}
	return cfg
}

// newRegistry returns the registry of a configuration. It is closed with the test.
func newRegistry(t *testing.T, cfg *config.Config) registry.ServiceRegistry {
	t.Helper()
	reg, closeRegistry, err := goplt.NewRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeRegistry)
	return reg
}

// newTransport returns a transport to the service of its rows. It is closed with the test.
func newTransport(t *testing.T, cfg *config.Config, reg registry.ServiceRegistry) *rpc.Transport {
	t.Helper()
	transport, err := goplt.NewTransport(cfg, reg, service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return transport
}

// connect returns a transport over a registry of its own.
func connect(t *testing.T, cfg *config.Config) *rpc.Transport {
	t.Helper()
	return newTransport(t, cfg, newRegistry(t, cfg))
}

// ids returns the IDs of the instances that the transport knows, sorted.
func ids(transport *rpc.Transport) []string {
	var known []string
	for _, instance := range transport.Status().Instances {
		known = append(known, instance.ID)
	}
	return known
}

// awaitIDs waits until the transport knows exactly these instances.
func awaitIDs(t testing.TB, transport *rpc.Transport, want ...string) {
	t.Helper()
	slices.Sort(want)
	await(t, "instances "+strings.Join(want, ", "), func() bool { return slices.Equal(ids(transport), want) })
}

// expectIDs fails unless the transport knows exactly these instances.
func expectIDs(t testing.TB, transport *rpc.Transport, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := ids(transport); !slices.Equal(got, want) {
		t.Errorf("the transport knows %q, want %q", got, want)
	}
}

// awaitServers waits until the transport knows exactly these instances, which registered themselves.
func awaitServers(t testing.TB, transport *rpc.Transport, servers ...*instance) {
	t.Helper()
	await(t, fmt.Sprintf("%d instances", len(servers)), func() bool { return slices.Equal(addrsKnown(transport), addrsOf(servers)) })
}

// expectServers fails unless the transport knows exactly these instances, which registered themselves.
func expectServers(t testing.TB, transport *rpc.Transport, servers ...*instance) {
	t.Helper()
	if got, want := addrsKnown(transport), addrsOf(servers); !slices.Equal(got, want) {
		t.Errorf("the transport knows %q, want %q", got, want)
	}
}

func addrsKnown(transport *rpc.Transport) []string {
	var known []string
	for _, instance := range transport.Status().Instances {
		known = append(known, instance.Addr)
	}
	slices.Sort(known)
	return known
}

func addrsOf(servers []*instance) []string {
	var addrs []string
	for _, server := range servers {
		addrs = append(addrs, server.Addr())
	}
	slices.Sort(addrs)
	return addrs
}

// statusOf returns what the transport knows of an instance; nothing if it does not know it.
func statusOf(transport *rpc.Transport, id string) rpc.InstanceStatus {
	for _, instance := range transport.Status().Instances {
		if instance.ID == id {
			return instance
		}
	}
	return rpc.InstanceStatus{}
}

// registerAt makes an instance at an address findable.
func registerAt(t testing.TB, reg registry.ServiceRegistry, id, addr string) registry.Registration {
	t.Helper()
	host, port := split(t, addr)
	registration, err := reg.Register(t.Context(), registry.Instance{ID: id, Service: service, Host: host, Port: port, Weight: 1})
	if err != nil {
		t.Fatal(err)
	}
	return registration
}

// journal keeps what is logged, a line for each record.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(line)
}

// logger returns a logger that writes to the journal.
func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, nil))
}

// count returns how many lines have all of the texts.
func (j *journal) count(texts ...string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	found := 0
	for line := range strings.Lines(j.lines.String()) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			found++
		}
	}
	return found
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}

// meter counts the queries that go to an agent.
type meter struct {
	http.RoundTripper

	queries atomic.Int64
}

// newMeter returns a meter over a network of its own, which is closed with the test.
func newMeter(t *testing.T) *meter {
	t.Helper()
	network := &http.Transport{IdleConnTimeout: time.Minute}
	t.Cleanup(network.CloseIdleConnections)
	return &meter{RoundTripper: network}
}

// RoundTrip implements [http.RoundTripper].
func (m *meter) RoundTrip(request *http.Request) (*http.Response, error) {
	m.queries.Add(1)
	return m.RoundTripper.RoundTrip(request)
}

// CloseIdleConnections is what the registry calls when it closes.
func (m *meter) CloseIdleConnections() {
	if network, ok := m.RoundTripper.(*http.Transport); ok {
		network.CloseIdleConnections()
	}
}
