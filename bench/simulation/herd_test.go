//go:build !race

// Not under the race detector, whose runtime fails in a bubble of testing/synctest with as many events: https://go.dev/issue/78156.

package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
	"github.com/hashicorp/go-hclog"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// herd has watchers of as many services follow an agent until the context ends, each from some time within the first minute on.
type herd struct {
	name   string
	away   time.Duration // for how long the agent is
	within time.Duration // all are back
	peak   int           // the most queries in a tenth of a second that are no herd; 0 for those who are one
	follow func(t *testing.T, ctx context.Context, by *agent, services []string)
}

const watchers = 1000

func herds() []herd {
	const outage = 30 * time.Second
	return []herd{
		{"goplt, 1000 processes", outage, 2 * time.Second, 450, followByProcesses},
		{"goplt, 1 process", outage, 22 * time.Second, 40, followByOneProcess},
		{"loop, asks again at once", 100 * time.Millisecond, time.Second, 0, followByLoops(0)}, // it makes a million attempts in 1 s
		{"loop, asks again after 1 s", outage, 2 * time.Second, 0, followByLoops(time.Second)},
		{"api/watch", outage, 3 * time.Minute, 0, followByPlans},
	}
}

// TestSimulationHerd: the agent of 1000 watchers restarts. As many processes, which know nothing of each other, are back within a second or so, and
// not all at one moment; one process with as many targets spreads its queries over seconds. Who asks again at once, or after fixed times, comes
// back as one: their queries broke at one moment. What chance the registry draws is its own and not seeded, so that its figures differ by some percent.
func TestSimulationHerd(t *testing.T) {
	fmt.Fprintf(t.Output(), "The agent of %d watchers restarts: queries from when it is back, for 2 minutes; a reset connection ends every query that waits\n", watchers)
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "watchers\taway\tin 10 ms\tin 100 ms\tin 1 s\thalf back after\tall after\trefused per s\t")
	least := watchers // of the peaks of those who are a herd
	peaks := map[string]int{}
	for _, h := range herds() {
		synctest.Test(t, func(t *testing.T) {
			by, services := newAgent(), make([]string, watchers)
			for at := range services {
				services[at] = fmt.Sprintf("s%d", at)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var following sync.WaitGroup
			following.Go(func() { h.follow(t, ctx, by, services) })
			rest(ctx, 3*time.Minute)
			by.leave()
			rest(ctx, h.away)
			by.comeBack()
			rest(ctx, 2*time.Minute)
			back, half, all := by.recovery()
			peaks[h.name] = by.peak(100 * time.Millisecond)
			fmt.Fprintf(table, "%s\t%v\t%d\t%d\t%d\t%.1f s\t%.1f s\t%.0f\t\n", h.name, h.away, by.peak(10*time.Millisecond), peaks[h.name],
				by.peak(time.Second), half.Seconds(), all.Seconds(), float64(by.refused)/h.away.Seconds())
			cancel() // only now: what its end frees for others is no part of the herd
			following.Wait()
			if back != watchers || all > h.within {
				t.Errorf("%s: %d are back, the last after %v, want all %d within %v", h.name, back, all, watchers, h.within)
			}
		})
		if h.peak == 0 {
			least = min(least, peaks[h.name])
		}
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
	for _, h := range herds() {
		if h.peak > 0 && (peaks[h.name] > h.peak || peaks[h.name] > least/2) {
			t.Errorf("%s: %d queries in a tenth of a second, want at most %d and half of the %d of a herd", h.name, peaks[h.name], h.peak, least)
		}
	}
}

func followByProcesses(t *testing.T, ctx context.Context, by *agent, services []string) {
	t.Helper()
	everyoneOf(ctx, services, func(service string) { followByRegistry(t, ctx, by, []string{service}) })
}

func followByOneProcess(t *testing.T, ctx context.Context, by *agent, services []string) {
	t.Helper()
	followByRegistry(t, ctx, by, services)
}

// followByRegistry follows services as one process does.
func followByRegistry(t *testing.T, ctx context.Context, by *agent, services []string) {
	t.Helper()
	config := consul.DefaultConfig()
	config.Address, config.Transport, config.Logger = "agent.test:8500", by, slog.New(slog.DiscardHandler)
	found, err := consul.New(config)
	if err != nil {
		t.Error(err)
		return
	}
	everyoneOf(ctx, services, func(service string) {
		watcher, err := found.Watch(registry.Target{Service: service})
		if err != nil {
			t.Error(err)
			return
		}
		for {
			if _, err := watcher.Next(ctx); ctx.Err() != nil || errors.Is(err, registry.ErrClosed) {
				return
			}
		}
	})
	if err := found.Close(); err != nil {
		t.Error(err)
	}
}

// followByLoops follows services as the documentation of blocking queries is mostly read: the index of the last answer goes into the next query,
// and after an error one asks again.
func followByLoops(pause time.Duration) func(*testing.T, context.Context, *agent, []string) {
	return func(t *testing.T, ctx context.Context, by *agent, services []string) {
		t.Helper()
		client := apiClient(t, by)
		everyoneOf(ctx, services, func(service string) {
			for index := uint64(0); ctx.Err() == nil; {
				_, meta, err := client.Health().Service(service, "", true, (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
				if err != nil {
					rest(ctx, pause)
					continue
				}
				index = meta.LastIndex
			}
		})
	}
}

// followByPlans follows services by the watch package of Consul's own API.
func followByPlans(t *testing.T, ctx context.Context, by *agent, services []string) {
	t.Helper()
	client := apiClient(t, by)
	everyoneOf(ctx, services, func(service string) {
		plan, err := watch.Parse(map[string]any{"type": "service", "service": service})
		if err != nil {
			t.Error(err)
			return
		}
		plan.Handler = func(uint64, any) {}
		defer context.AfterFunc(ctx, plan.Stop)()
		if err := plan.RunWithClientAndHclog(client, hclog.NewNullLogger()); err != nil {
			t.Error(err)
		}
	})
}

func apiClient(t *testing.T, by *agent) *api.Client {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: "agent.test:8500", HttpClient: &http.Client{Transport: by}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// everyoneOf follows each of services from some time within the first minute on, and waits for their end.
func everyoneOf(ctx context.Context, services []string, follow func(service string)) {
	random := rand.New(rand.NewPCG(42, 3))
	var all sync.WaitGroup
	for _, service := range services {
		delay := time.Duration(random.Int64N(int64(time.Minute)))
		all.Go(func() {
			rest(ctx, delay)
			follow(service)
		})
	}
	all.Wait()
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
