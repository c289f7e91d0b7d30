//go:build integration

package faults_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect/v2"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/internal/consultest/script"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// guarded is a transport that finds two instances through an agent with access control, by the token in a file, under calls.
type guarded struct {
	*load

	agent     *consultest.Agent
	admin     registry.ServiceRegistry
	transport *rpc.Transport
	meter     *meter
	journal   *journal
	tokenFile string
	token     string // in the file
}

const readAll = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`

func startGuarded(t *testing.T) *guarded {
	t.Helper()
	executions := newLedger()
	g := &guarded{
		agent: consultest.Start(t, consultest.WithACL()), meter: newMeter(t), journal: new(journal), tokenFile: filepath.Join(t.TempDir(), "token"),
	}
	g.rotate(t, readAll)
	g.admin = newRegistry(t, settings(g.agent.Address, func(cfg *config.Config) { cfg.Discovery.Consul.Token = consultest.ManagementToken }))
	fleet(t, g.admin, executions, host{}, host{})
	g.transport = connect(t, settings(g.agent.Address, func(cfg *config.Config) {
		cfg.Discovery.Consul.TokenFile = g.tokenFile
		cfg.Discovery.Consul.Transport, cfg.Discovery.Consul.Logger = g.meter, g.journal.logger()
		cfg.Discovery.Consul.Wait = time.Second // so that a query with another token comes soon
	}))
	g.load = startLoad(t, g.transport, executions, mixed, 5*time.Second)
	awaitIDs(t, g.transport, instanceID(0), instanceID(1))
	return g
}

// rotate puts a new token with these rights in the file, at once for who reads it.
func (g *guarded) rotate(t testing.TB, rules string) {
	t.Helper()
	g.token = g.agent.CreateToken(rules)
	fresh := g.tokenFile + ".new"
	if err := os.WriteFile(fresh, []byte(g.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, g.tokenFile); err != nil {
		t.Fatal(err)
	}
}

// expectKept waits until the watch fails, and fails the test unless that is said once, the instances stand, and the agent is asked no more than
// now and then.
func (g *guarded) expectKept(t testing.TB) {
	t.Helper()
	await(t, "the watch to fail", func() bool { return g.transport.Status().Error != "" })
	before, began := g.meter.queries.Load(), time.Now()
	pass(t, 3*time.Second)
	if asked := g.meter.queries.Load() - before; asked > 7 {
		t.Errorf("the agent was asked %d times in %v", asked, time.Since(began))
	}
	expectIDs(t, g.transport, instanceID(0), instanceID(1))
	if got := g.journal.count("level=ERROR"); got != 1 {
		t.Errorf("the alert was logged %d times, want once:\n%s", got, g.journal.text())
	}
	if got := g.transport.Status().Error; !strings.Contains(got, "access") {
		t.Errorf("the status says %q, which does not name access control", got)
	}
}

// expectRecovered puts a token in the file that may see everything, and waits for an instance that is new.
func (g *guarded) expectRecovered(t testing.TB) {
	t.Helper()
	g.rotate(t, readAll)
	registerAt(t, g.admin, instanceID(2), host{}.start(t, g.executions).Addr())
	awaitIDs(t, g.transport, instanceID(0), instanceID(1), instanceID(2))
	if got := g.transport.Status().Error; got != "" {
		t.Errorf("the status still says %q", got)
	}
	g.mustSucceed(t)
}

// TestRow07Forbidden: the token is revoked, and later replaced in its file.
func TestRow07Forbidden(t *testing.T) {
	row(t)
	g := startGuarded(t)
	g.agent.DeleteToken(g.token)
	g.expectKept(t)
	g.expectRecovered(t)
}

// TestRow08FilteredByACL: the token in the file may ask, but sees nothing, which Consul answers with an empty list.
func TestRow08FilteredByACL(t *testing.T) {
	row(t)
	g := startGuarded(t)
	g.rotate(t, `node_prefix "" { policy = "read" }`)
	g.expectKept(t)
	g.expectRecovered(t)
}

// TestRow09ReallyEmpty: the last instance is gone for good. Callers are told at once that there is none, after the grace.
func TestRow09ReallyEmpty(t *testing.T) {
	row(t)
	const grace = 500 * time.Millisecond
	agent := consultest.Start(t)
	cfg := settings(agent.Address, func(cfg *config.Config) { cfg.Discovery.Consul.EmptyGrace = grace })
	reg, executions := newRegistry(t, cfg), newLedger()
	server := host{}.start(t, executions)
	registration := registerAt(t, reg, instanceID(0), server.Addr())
	transport := connect(t, cfg)
	succeed(t, transport, executions, unrepeatable)
	began := time.Now()
	if err := registration.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitIDs(t, transport)
	if took := time.Since(began); took < grace {
		t.Errorf("the instance was given up after %v, before the grace of %v was over", took, grace)
	}
	for _, what := range both {
		began := time.Now()
		made := invoke(t.Context(), transport, what, 10*time.Second)
		if !errors.Is(made.err, rpc.ErrNoInstances) || connectrpc.CodeOf(made.err) != connectrpc.CodeUnavailable {
			t.Errorf("the call ends with %v, want unavailable and ErrNoInstances", made.err)
		}
		expectWithin(t, time.Second, began, "a call without instances")
		if got := executions.executions(made.id); got != 0 {
			t.Errorf("the call was executed %d times", got)
		}
	}
	registerAt(t, reg, instanceID(0), server.Addr())
	await(t, "the instance to be back", func() bool { return invoke(t.Context(), transport, unrepeatable, time.Second).err == nil })
}

// TestRow10Unreadable: answers that are no list of instances, or one without an end.
func TestRow10Unreadable(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	var sent atomic.Int64
	for name, answer := range map[string]script.Answer{
		"truncated": script.Truncated(), "null": script.Body("null"), "not JSON": script.Body("<html>"), "no list": script.Body(`{"a":1}`),
		"64 MiB": script.Large(size, &sent),
	} {
		t.Run(name, func(t *testing.T) {
			row(t)
			s := startScripted(t)
			s.agent.AnswerAll(answer)
			await(t, "the failure to show", func() bool { return s.transport.Status().Error != "" })
			s.goOn(t, 100)
			expectIDs(t, s.transport, instanceID(0), instanceID(1))
			if name == "64 MiB" && sent.Load() >= size {
				t.Errorf("%d bytes were read", sent.Load())
			}
			s.agent.AnswerAll(nil)
			s.setInstances(t, 3)
			awaitIDs(t, s.transport, instanceID(0), instanceID(1), instanceID(2))
			s.mustSucceed(t)
		})
	}
}

// TestRow10Memory runs alone, as it measures what the process holds.
func TestRow10Memory(t *testing.T) {
	begin(t)
	s := startScripted(t)
	s.stop()
	var sent atomic.Int64
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, most := heap(), uint64(0)
	s.agent.AnswerAll(script.Large(64<<20, &sent))
	await(t, "the failure to show", func() bool {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		most = max(most, stats.HeapAlloc)
		return s.transport.Status().Error != ""
	})
	// 32 MiB are let through, and a buffer that grows to hold them is twice as large, with the one before beside it.
	if most > before+160<<20 {
		t.Errorf("%d MiB were held at a time", (most-before)>>20)
	}
	s.agent.AnswerAll(nil)
	await(t, "the memory to be free again", func() bool { return heap() < before+8<<20 })
	t.Logf("%d MiB at most were held for an answer of 64 MiB, of which %d MiB were sent", (most-before)>>20, sent.Load()>>20)
}

// TestRow12ServiceName: a name that would be another path of Consul's API never becomes a request.
func TestRow12ServiceName(t *testing.T) {
	row(t)
	agent := script.Start(t)
	for _, target := range []string{"../kv/x", "consul:///../kv/x", "consul:///%2e%2e%2fkv%2fx", "consul:///a/b", "consul:///.."} {
		cfg := settings(agent.Address)
		cfg.Services = map[string]config.ServiceConfig{service: {Target: target, Client: cfg.Defaults}}
		transport, err := goplt.NewTransport(cfg, newRegistry(t, cfg), service)
		if !errors.Is(err, registry.ErrInvalidTarget) {
			t.Errorf("%s: %v, want ErrInvalidTarget", target, err)
		}
		if err == nil {
			made := invoke(t.Context(), transport, idempotent, time.Second)
			t.Errorf("%s: a call ends with %v", target, errors.Join(made.err, transport.Close()))
		}
	}
	if got := agent.Requests(); got != 0 {
		t.Errorf("%d requests were made", got)
	}
}
