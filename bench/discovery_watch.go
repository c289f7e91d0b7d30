package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
	"github.com/hashicorp/go-hclog"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// The kinds of watches that others are compared with, or that are compared.
const (
	watchLoop   = "loop on the API"
	watchPlan   = "api/watch"
	watchGoplt  = "goplt registry"
	watchTarget = "goplt transports"
	watchShared = "goplt transports, 1 service"
)

// watchKind is one way to watch many services in one process.
type watchKind struct {
	name, about string
	shared      bool // whether all watch one service
	// open begins to watch services, and does not wait for their instances.
	open func(agent string, services []string) (*watching, error)
}

// watching is watches that are open.
type watching struct {
	known   func() int    // how many know instances
	queries func() uint64 // how many were sent
	stop    func()
}

// watchKinds returns all there are. The first is the one that the others' ratios refer to.
func watchKinds() []watchKind {
	return []watchKind{
		{watchLoop, "a goroutine for each service with a blocking query of Consul's own API, asked again after 1 s where that fails", false, openLoops},
		{watchPlan, "the watch package of Consul's own API, a plan for each service", false, openPlans},
		{watchGoplt, "a watcher for each service, of one registry", false, openRegistry},
		{watchTarget, "a transport for each service, over one registry; idle, without a connection to an instance", false, openTransports},
		{watchShared, "as many transports to one service", true, openTransports},
	}
}

// watchTask is what a child process that watches is for.
type watchTask struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
}

// footprint is what watches weigh and cost in their process.
type footprint struct {
	Known       int           `json:"known"` // how many watches know instances
	Goroutines  int           `json:"goroutines"`
	Heap        int64         `json:"heap_bytes"`  // reachable
	Stacks      int64         `json:"stack_bytes"` // of goroutines
	Connections int           `json:"connections"` // to the agent
	Queries     uint64        `json:"queries"`     // sent since the last footprint
	CPU         time.Duration `json:"cpu"`         // since then
	Elapsed     time.Duration `json:"elapsed"`     // since then
}

// openLimit is how long watches have to know instances. Those of which an agent refuses some never all do.
const openLimit = 20 * time.Second

// serviceNames are those that children watch, and whose instances the parent registers.
func serviceNames(count int) []string {
	names := make([]string, count)
	for at := range names {
		names[at] = fmt.Sprintf("idle-%04d", at)
	}
	return names
}

// serveAsWatcher opens watches, and answers each command, after its duration, with what they weigh more than nothing and have cost meanwhile.
func serveAsWatcher(task assignment, commands *json.Decoder, replies *json.Encoder) error {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // and so package log's: net/http says of each connection that the agent refuses what we count
	fail := func(err error) error { return errors.Join(err, replies.Encode(reply{Error: err.Error()})) }
	_, port, err := net.SplitHostPort(task.Addr)
	if err != nil {
		return fail(err)
	}
	at := slices.IndexFunc(watchKinds(), func(kind watchKind) bool { return kind.name == task.Watch.Kind })
	if at < 0 {
		return fail(fmt.Errorf("no kind of watches is named %q", task.Watch.Kind))
	}
	kind, services := watchKinds()[at], serviceNames(task.Watch.Count)
	if kind.shared {
		services = slices.Repeat(services[:1], len(services))
	}
	before := weigh()
	opened, err := kind.open(task.Addr, services)
	if err != nil {
		return fail(err)
	}
	defer opened.stop()
	for began := time.Now(); opened.known() < len(services) && time.Since(began) < openLimit; {
		if err := rest(context.Background(), 50*time.Millisecond); err != nil {
			return fail(err)
		}
	}
	return answerAll(commands, replies, reply{Addr: task.Addr}, func(c command) reply {
		began, used, asked := time.Now(), currentUsage(), opened.queries()
		if err := rest(context.Background(), c.Duration); err != nil {
			return reply{Error: err.Error()}
		}
		cost := footprint{
			CPU: currentUsage().since(used).CPU, Elapsed: time.Since(began), Queries: opened.queries() - asked,
			Known: opened.known(), Connections: connectionsTo(port),
		}
		now := weigh()
		cost.Goroutines, cost.Heap, cost.Stacks = now.Goroutines-before.Goroutines, now.Heap-before.Heap, now.Stacks-before.Stacks
		return reply{Watch: cost}
	})
}

// weigh returns what is there now.
func weigh() footprint {
	runtime.GC()
	runtime.GC() // what finalizers held is free now
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return footprint{Goroutines: runtime.NumGoroutine(), Heap: int64(memory.HeapAlloc), Stacks: int64(memory.StackInuse)}
}

// openLoops keeps of each service the last instances, as a user of the loop does.
func openLoops(agent string, services []string) (*watching, error) {
	client, closeIdle, err := apiTo(agent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	var asked atomic.Uint64
	latest := make([]atomic.Pointer[[]*api.ServiceEntry], len(services))
	for at, service := range services {
		following.Go(func() {
			loop(ctx, client, service, func() { asked.Add(1) }, func(entries []*api.ServiceEntry) { latest[at].Store(&entries) })
		})
	}
	return &watching{known: func() int { return knownOf(latest) }, queries: asked.Load, stop: func() {
		cancel()
		following.Wait()
		closeIdle()
	}}, nil
}

func knownOf(latest []atomic.Pointer[[]*api.ServiceEntry]) int {
	count := 0
	for at := range latest {
		if entries := latest[at].Load(); entries != nil && len(*entries) > 0 {
			count++
		}
	}
	return count
}

func openPlans(agent string, services []string) (*watching, error) {
	client, closeIdle, err := apiTo(agent)
	if err != nil {
		return nil, err
	}
	var following sync.WaitGroup
	var asked atomic.Uint64
	latest := make([]atomic.Pointer[[]*api.ServiceEntry], len(services))
	plans := make([]*watch.Plan, len(services))
	for at, service := range services {
		if plans[at], err = watch.Parse(map[string]any{"type": "service", "service": service, "passingonly": true}); err != nil {
			return nil, err
		}
		find := plans[at].Watcher
		plans[at].Watcher = func(plan *watch.Plan) (watch.BlockingParamVal, any, error) {
			asked.Add(1)
			return find(plan)
		}
		plans[at].Handler = func(_ uint64, found any) {
			if entries, ok := found.([]*api.ServiceEntry); ok {
				latest[at].Store(&entries)
			}
		}
	}
	for _, plan := range plans {
		following.Go(func() { _ = plan.RunWithClientAndHclog(client, hclog.NewNullLogger()) }) // ends with Stop
	}
	return &watching{known: func() int { return knownOf(latest) }, queries: asked.Load, stop: func() {
		for _, plan := range plans {
			plan.Stop()
		}
		following.Wait()
		closeIdle()
	}}, nil
}

// openRegistry asks each watcher for its first set only: its source goes on without being asked, and what is measured are no goroutines of ours.
func openRegistry(agent string, services []string) (*watching, error) {
	found, err := registryOver(agent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	var known atomic.Int64
	next := make(chan registry.Watcher, len(services))
	for _, service := range services {
		watcher, err := found.Watch(registry.Target{Service: service})
		if err != nil {
			cancel()
			return nil, errors.Join(err, found.Close())
		}
		next <- watcher // lives until the registry is closed
	}
	close(next)
	const askers = 16
	for range askers {
		asking.Go(func() {
			for watcher := range next {
				for ctx.Err() == nil {
					if set, err := watcher.Next(ctx); err == nil && len(set) > 0 {
						known.Add(1)
						break
					}
				}
			}
		})
	}
	queries := func() (sum uint64) {
		for _, status := range found.Status() {
			sum += status.Queries
		}
		return sum
	}
	return &watching{known: func() int { return int(known.Load()) }, queries: queries, stop: func() {
		cancel()
		asking.Wait()
		_ = found.Close()
	}}, nil
}

func openTransports(agent string, services []string) (*watching, error) {
	found, err := registryOver(agent)
	if err != nil {
		return nil, err
	}
	transports := make([]*rpc.Transport, len(services))
	stop := func() {
		for _, transport := range transports {
			if transport != nil {
				_ = transport.Close()
			}
		}
		_ = found.Close()
	}
	for at, service := range services {
		if transports[at], err = rpc.NewTransport(service, found); err != nil {
			stop()
			return nil, err
		}
	}
	known := func() (count int) {
		for _, transport := range transports {
			if len(transport.Status().Instances) > 0 { // which begins to watch
				count++
			}
		}
		return count
	}
	queries := func() (sum uint64) {
		for _, status := range found.Status() {
			sum += status.Queries
		}
		return sum
	}
	return &watching{known: known, queries: queries, stop: stop}, nil
}
