package consul_test

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// census counts the requests under way at an agent.
type census struct {
	agent *fakeAgent

	mu                   sync.Mutex
	blocking, reads      int
	mostBlocking, mostIn int
}

func (c *census) RoundTrip(r *http.Request) (*http.Response, error) {
	count := &c.reads
	if r.URL.Query().Has("index") {
		count = &c.blocking
	}
	c.mu.Lock()
	*count++
	c.mostBlocking, c.mostIn = max(c.mostBlocking, c.blocking), max(c.mostIn, c.blocking+c.reads)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		*count--
	}()
	return c.agent.RoundTrip(r)
}

// services makes an instance of each of count services, named s0 and so on, whose ID is given.
func services(f *fakeAgent, count int, id string) {
	entries := make([]*api.ServiceEntry, count)
	for at := range entries {
		name := fmt.Sprintf("s%d", at)
		entries[at] = entry(name+"."+id, 80)
		entries[at].Service.Service = name
	}
	f.set(entries...)
}

// follow calls Next of each watcher until its set has the one instance "name.id", and returns how long that took each.
func follow(t *testing.T, watchers []registry.Watcher, id string) []time.Duration {
	t.Helper()
	began := time.Now()
	took := make([]time.Duration, len(watchers))
	var group sync.WaitGroup
	for at, w := range watchers {
		group.Go(func() {
			for {
				set, err := w.Next(t.Context())
				if errors.Is(err, registry.ErrClosed) || t.Context().Err() != nil {
					t.Errorf("target %d: %v", at, err)
					return
				}
				if err == nil && len(set) == 1 && set[0].ID == fmt.Sprintf("s%d.%s", at, id) {
					took[at] = time.Since(began)
					return
				}
			}
		})
	}
	group.Wait()
	return took
}

func watchServices(t *testing.T, r *consul.Registry, count int) []registry.Watcher {
	t.Helper()
	watchers := make([]registry.Watcher, count)
	for at := range watchers {
		watchers[at] = watch(t, r, fmt.Sprintf("s%d", at))
	}
	return watchers
}

func TestAThousandWatchersShareOneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 1000
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		watchers := make([]registry.Watcher, count)
		before := runtime.NumGoroutine()
		for at := range watchers {
			watchers[at] = watch(t, r, []string{"auth", "consul:///auth", "consul://agent.test:8500/auth"}[at%3])
			expect(t, watchers[at], "1")
		}
		synctest.Wait()
		if got := len(healthQueries(f)); got != 2 {
			t.Errorf("%d queries, want one for the first set and one that waits", got)
		}
		if more := runtime.NumGoroutine() - before; more > 3 { // the feed's, and what the deadline of its query takes
			t.Errorf("%d goroutines for %d watchers", more, count)
		}
		f.set(entry("2", 80))
		for _, w := range watchers {
			expect(t, w, "2")
		}
		pass(time.Second) // of the test's own time
		waiting := healthQueries(f)[2]
		for at, w := range watchers {
			if waiting.Context().Err() != nil {
				t.Fatalf("the query ended with %d watchers left", count-at)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		if waiting.Context().Err() == nil || len(healthQueries(f)) != 3 {
			t.Errorf("after the last watcher left the query goes on; there were %d", len(healthQueries(f)))
		}
		expect(t, watch(t, r), "2") // who comes then asks anew
		if got := len(healthQueries(f)); got < 4 {
			t.Errorf("a new watch made no query")
		}
	})
}

func TestQuestionsThatDifferAreAskedEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		f.services["1@node-1"].Service.Tags = []string{"blue"}
		r, _ := open(t, f, func(c *consul.Config) { c.Datacenter = "eu" })
		for _, target := range []string{"auth", "consul:///auth?dc=eu", "consul:///auth?passing=false"} {
			expect(t, watch(t, r, target), "1")
		}
		synctest.Wait()
		if got := len(healthQueries(f)); got != 2 {
			t.Fatalf("%d queries for three ways to say the same", got)
		}
		for _, target := range []string{"consul:///auth?dc=us", "consul:///auth?tag=blue", "consul:///auth?passing=true", "consul://other:1/auth"} {
			expect(t, watch(t, r, target), "1")
		}
		synctest.Wait()
		if got := len(healthQueries(f)); got != 10 {
			t.Errorf("%d queries, want two for each of five questions", got)
		}
	})
}

// Nothing is asked before the first Next, and a watcher that was never asked closes.
func TestWatchAloneAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		r, _ := open(t, f)
		w := watch(t, r)
		synctest.Wait()
		if err := w.Close(); err != nil || len(f.asked("/")) != 0 {
			t.Errorf("%d requests, %v", len(f.asked("/")), err)
		}
	})
}

func TestWatchersHearErrorsEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, logged := open(t, f)
		one, two := watch(t, r), watch(t, r)
		expect(t, one, "1")
		expect(t, two, "1")
		f.answerWith(always(http.StatusForbidden, "no"))
		expectError(t, one, consul.ErrForbidden)
		expectError(t, two, consul.ErrForbidden)
		late := watch(t, r) // has the set that stands, and then the error
		before := len(healthQueries(f))
		expect(t, late, "1")
		expectError(t, late, consul.ErrForbidden)
		if asked := len(healthQueries(f)) - before; asked != 0 {
			t.Errorf("the late watcher made %d queries", asked)
		}
		if got := logged.count("the watch fails"); got != 1 {
			t.Errorf("the failure is logged %d times", got)
		}
	})
}

// A watcher that is slow sees the latest set, and none where that is the one it has.
func TestSlowWatcherSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		slow := watch(t, r)
		expect(t, slow, "1")
		change := func(id string) {
			f.set(entry(id, 80))
			pass(time.Second) // of the test's own time
		}
		change("2")
		change("3")
		expect(t, slow, "3")
		change("2")
		change("3")
		untilQuiet(t, slow, time.Second)
	})
}

// Fault 4, the herd: an agent that restarts is asked again by one target within a second, and then by the others one after another.
func TestAgentRestartReleasesNoHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 400
		f := newFakeAgent()
		services(f, count, "a")
		r, _ := open(t, f, func(c *consul.Config) { c.MaxQueries = 150 })
		watchers := watchServices(t, r, count)
		follow(t, watchers, "a")

		f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		began := time.Now()
		pass(3 * time.Minute) // of the test's own time
		tries := 0
		for _, q := range healthQueries(f) {
			if q.at.After(began.Add(2 * time.Minute)) {
				tries++
			}
		}
		if tries < 60 || tries > 60*2+count*4 { // one each second or less, and one of each target in 15 to 30s
			t.Errorf("%d tries in the third minute", tries)
		}

		services(f, count, "b")
		f.answerWith(nil)
		back := time.Now()
		took := follow(t, watchers, "b")
		if first := slices.Min(took); first > 1500*time.Millisecond {
			t.Errorf("the first target is back after %v", first)
		}
		if last := slices.Max(took); last > 12*time.Second {
			t.Errorf("the last target is back after %v", last)
		}
		asked := make(map[time.Duration]int) // in each second, without those of targets that are back and wait
		for _, q := range healthQueries(f) {
			if q.at.After(began) && !q.URL.Query().Has("index") {
				asked[q.at.Sub(began)/time.Second]++
			}
		}
		for second, count := range asked {
			if count > 60 {
				t.Errorf("%d tries in second %d", count, second)
			}
		}
		for second := range back.Sub(began) / time.Second {
			if asked[second] == 0 {
				t.Errorf("no try in second %d", second)
			}
		}
	})
}

// Fault 4: one target is back within a second or so, however long the agent was away.
func TestRecoversSoonAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1")
		f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		before := len(healthQueries(f))
		pass(10 * time.Minute) // of the test's own time
		if tries := len(healthQueries(f)) - before; tries > 1300 {
			t.Errorf("%d tries in ten minutes", tries)
		}
		f.answerWith(nil)
		f.set(entry("2", 80))
		began := time.Now()
		for {
			set, err := w.Next(t.Context())
			if err == nil && set[0].ID == "2" {
				break
			}
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("back after %v", took)
		}
	})
}

// The target that tries for all may be closed: another takes its place.
func TestProberLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		services(f, 2, "a")
		r, _ := open(t, f)
		watchers := watchServices(t, r, 2)
		follow(t, watchers, "a")
		f.answerWith(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		pass(time.Minute) // of the test's own time
		queries := healthQueries(f)
		prober := queries[len(queries)-1].URL.Path
		left := 0
		if prober == "/v1/health/service/s1" {
			left = 1
		}
		if err := watchers[left].Close(); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		services(f, 2, "b")
		f.answerWith(nil)
		began := time.Now()
		other := 1 - left
		for {
			set, err := watchers[other].Next(t.Context())
			if err == nil && set[0].ID == fmt.Sprintf("s%d.b", other) {
				break
			}
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("back after %v", took)
		}
	})
}

// More targets than turns: the agent's limit of connections holds, and each target has the news in its turn.
func TestMoreTargetsThanQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count, turns = 400, 100
		f := newFakeAgent()
		services(f, count, "a")
		counted := &census{agent: f}
		r, _ := open(t, f, func(c *consul.Config) { c.Transport, c.MaxQueries = counted, turns })
		watchers := watchServices(t, r, count)
		follow(t, watchers, "a")
		for _, id := range []string{"b", "c"} {
			pass(time.Minute) // of the test's own time
			services(f, count, id)
			if last := slices.Max(follow(t, watchers, id)); last > 16*time.Second {
				t.Errorf("the last target has %s after %v", id, last)
			}
		}
		asked := make(map[string]int)
		since := time.Now()
		pass(2 * time.Minute)
		for _, q := range healthQueries(f) {
			if q.at.After(since) {
				asked[q.URL.Path]++
			}
		}
		for path, queries := range asked {
			if queries < 7 || queries > 10 {
				t.Errorf("%s had %d turns in two minutes, want one in 15s", path, queries)
			}
		}
		if len(asked) != count {
			t.Errorf("%d targets had a turn", len(asked))
		}
		counted.mu.Lock()
		defer counted.mu.Unlock()
		if counted.mostBlocking != turns || counted.mostIn > turns+16 {
			t.Errorf("at most %d queries waited, and %d were under way; want %d and at most %d", counted.mostBlocking, counted.mostIn, turns, turns+16)
		}
	})
}

// A target that comes when all turns are taken for long has its first set at once, and later ones by asking in between.
func TestTargetWithoutATurnPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent()
		services(f, 2, "a")
		r, _ := open(t, f, func(c *consul.Config) { c.MaxQueries = 1 })
		watchers := watchServices(t, r, 2)
		follow(t, watchers[:1], "a")
		synctest.Wait() // until it waits, for a minute
		expect(t, watchers[1], "s1.a")
		f.mu.Lock() // nobody is told
		f.services["s1.a@node-1"].Service.ModifyIndex++
		f.mu.Unlock()
		began := time.Now()
		expect(t, watchers[1], "s1.a")
		if took := time.Since(began); took > 16*time.Second {
			t.Errorf("the change is seen after %v", took)
		}
		if err := watchers[1].Close(); err != nil { // in the queue
			t.Error(err)
		}
	})
}
