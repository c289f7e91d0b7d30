package simulation_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/internal/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an instance: it serves some calls at a time, and those that come meanwhile wait in the order in which they came.
type server struct {
	id      string
	zone    string
	slots   chan struct{}
	away    time.Duration  // how long the way there and back takes
	slowing func() float64 // how many times as long as usual it takes now
}

func newServer(number, slots int, slowing func() float64) *server {
	return &server{id: "instance-" + strconv.Itoa(number), slots: make(chan struct{}, slots), slowing: slowing}
}

func steady(factor float64) func() float64 { return func() float64 { return factor } }

// serve takes as long as a call takes. It ends at odd nanoseconds, where calls begin at even ones: what happens at the same time happens in any
// order, and the numbers would not be the same each time.
func (s *server) serve(work time.Duration) {
	s.slots <- struct{}{}
	took := time.Duration(float64(work) * s.slowing())
	if time.Now().Add(took).UnixNano()%2 == 0 {
		took++
	}
	time.Sleep(took) //nolint:forbidigo // on synctest's clock
	<-s.slots
}

// client is a process with a balancer of its own.
type client struct {
	picker *balancer.Picker
	stats  []*balancer.Stats
}

// fleet is some servers and some clients who know all of them.
type fleet struct {
	config  balancer.Config
	servers []*server
	clients []*client
	random  *rand.Rand
}

func newFleet(config balancer.Config, clients int, servers ...*server) *fleet {
	f := &fleet{config: config, random: rand.New(rand.NewPCG(42, 1)), clients: make([]*client, clients)}
	for nth := range f.clients {
		f.clients[nth] = &client{}
	}
	f.join(servers...)
	return f
}

// join adds servers, of which all clients hear at once.
func (f *fleet) join(servers ...*server) {
	first := len(f.servers) == 0
	f.servers = append(f.servers, servers...)
	for nth, c := range f.clients {
		config := f.config
		config.SubsetKey = "client-" + strconv.Itoa(nth) // where its round begins
		for range servers {
			stats := balancer.NewStats(config)
			if !first {
				stats.StartSlowly(time.Now())
			}
			c.stats = append(c.stats, stats)
		}
		members := make([]balancer.Member, len(f.servers))
		for at, server := range f.servers {
			members[at] = balancer.Member{ID: server.id, Zone: server.zone, Weight: 1, Stats: c.stats[at]}
		}
		c.picker = balancer.New(config, members, c.picker)
	}
}

// call is one that was made.
type call struct {
	server  int
	latency time.Duration
}

// run has clients, each picked at random, make calls at random times, at a rate for all of them together, and waits for the answers. All
// chance is drawn here, one after the other, so that it falls the same each time. How long a call takes at an instance that is not slow
// and not busy is exponentially distributed with a mean of work.
func (f *fleet) run(rate float64, work, duration time.Duration) []call {
	var mu sync.Mutex
	var calls []call
	var wg sync.WaitGroup
	time.Sleep(time.Duration(time.Now().UnixNano() & 1)) //nolint:forbidigo // on synctest's clock
	for end := time.Now().Add(duration); time.Now().Before(end); {
		time.Sleep(time.Duration(f.random.ExpFloat64()/rate*float64(time.Second)) &^ 1) //nolint:forbidigo // on synctest's clock
		c := f.clients[f.random.IntN(len(f.clients))]
		demand := time.Duration(f.random.ExpFloat64() * float64(work))
		began := time.Now()
		at := c.picker.Pick(balancer.Call{Now: began, Random: f.random.Uint64() | 1}, func(int) bool { return true })
		c.stats[at].Begin()
		wg.Go(func() {
			f.servers[at].serve(demand)
			time.Sleep(f.servers[at].away) //nolint:forbidigo // on synctest's clock
			latency := time.Since(began)
			c.stats[at].End(time.Now(), latency, balancer.OutcomeAnswered)
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, call{server: at, latency: latency})
		})
	}
	wg.Wait()
	return calls
}

// quantile of the calls' latencies.
func quantile(calls []call, q float64) time.Duration {
	latencies := make([]time.Duration, len(calls))
	for nth, c := range calls {
		latencies[nth] = c.latency
	}
	slices.Sort(latencies)
	return latencies[min(len(latencies)-1, int(q*float64(len(latencies))))]
}

// share of the calls that went to a server.
func share(calls []call, server int) float64 {
	count := 0
	for _, c := range calls {
		if c.server == server {
			count++
		}
	}
	return float64(count) / float64(len(calls))
}

// late is the share of calls that took longer than a deadline.
func late(calls []call, deadline time.Duration) float64 {
	count := 0
	for _, c := range calls {
		if c.latency > deadline {
			count++
		}
	}
	return float64(count) / float64(len(calls))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
