//go:build integration

package consul_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/consul"
)

// client returns Consul's own client of an agent, for what the registry has no use for.
func client(t *testing.T, agent *consultest.Agent) *api.Client {
	t.Helper()
	made, err := api.NewClient(&api.Config{Address: agent.Address, HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func put(t *testing.T, to *api.Client, services ...*api.AgentServiceRegistration) {
	t.Helper()
	for _, service := range services {
		if err := to.Agent().ServiceRegister(service); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIntegrationParameters(t *testing.T) { //nolint:tparallel // what follows the subtests changes what they find
	t.Parallel()
	agent := consultest.Start(t)
	to := client(t, agent)
	put(t, to,
		&api.AgentServiceRegistration{
			ID: "a", Name: "auth", Port: 80, Tags: []string{"blue"}, Meta: map[string]string{"version": "1"},
			TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1", Port: 9000}},
		},
		&api.AgentServiceRegistration{ID: "b", Name: "auth", Port: 80, Address: "10.0.0.2", Meta: map[string]string{"version": "2"}},
		&api.AgentServiceRegistration{ID: "c", Name: "auth", Port: 80, Address: "10.0.0.3", Check: &api.AgentServiceCheck{
			CheckID: "c", TTL: "1h", Status: api.HealthWarning,
		}, Weights: &api.AgentWeights{Passing: 9, Warning: 4}},
	)
	if _, _, err := to.PreparedQuery().Create(&api.PreparedQueryDefinition{
		Name: "blue-auth", Service: api.ServiceQuery{Service: "auth", Tags: []string{"blue"}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	r := overAgent(t, agent.Address, func(c *consul.Config) { c.QueryInterval = time.Second })
	for target, want := range map[string][]string{
		"consul:///auth":                                                 {"a 127.0.0.1:80 1 passing", "b 10.0.0.2:80 1 passing", "c 10.0.0.3:80 4 warning"},
		"consul:///auth?passing=true":                                    {"a 127.0.0.1:80 1 passing", "b 10.0.0.2:80 1 passing"},
		"consul:///auth?tag=blue":                                        {"a 127.0.0.1:80 1 passing"},
		`consul:///auth?filter=Service.Meta.version=="2"`:                {"b 10.0.0.2:80 1 passing"},
		"consul:///auth?address=wan":                                     {"a 192.0.2.1:9000 1 passing", "b 10.0.0.2:80 1 passing", "c 10.0.0.3:80 4 warning"},
		"consul:///auth?address=lan_ipv4&tag=blue":                       {"a 127.0.0.1:80 1 passing"},
		"consul:///auth?query=blue-auth":                                 {"a 127.0.0.1:80 1 passing"},
		"consul:///auth?query=blue-auth&address=wan&consistency=default": {"a 192.0.2.1:9000 1 passing"},
		"consul:///auth?consistency=consistent&tag=blue":                 {"a 127.0.0.1:80 1 passing"},
		"consul:///auth?dc=dc1&failover=dc2&tag=blue":                    {"a 127.0.0.1:80 1 passing"},
		"consul:///auth?dc=dc2&failover=dc1&tag=blue":                    {"a 127.0.0.1:80 1 passing"}, // which the agent cannot reach
	} {
		t.Run(target, func(t *testing.T) { //nolint:paralleltest // what follows changes what these find
			w := watch(t, r, target)
			for {
				set, err := w.Next(t.Context())
				if err != nil { // of the datacenter that there is not
					if !strings.Contains(target, "dc=dc2") || t.Context().Err() != nil {
						t.Fatal(err)
					}
					continue
				}
				got := make([]string, len(set))
				for at, i := range set {
					got[at] = fmt.Sprintf("%s %s %d %s", i.ID, i.Addr(), i.Weight, i.Health)
				}
				if !slices.Equal(got, want) {
					t.Errorf("\n got %q\nwant %q", got, want)
				}
				return
			}
		})
	}
	for target, want := range map[string]string{ // what a Community Edition agent of version 1.22 calls wrong
		"consul:///auth?ns=other":         "status 400",
		"consul:///auth?partition=other":  "status 400",
		"consul:///auth?filter=Service.X": "status 500",
	} {
		if err := expectError(t, watch(t, r, target), consul.ErrRefused); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", target, err)
		}
	}
	if err := expectError(t, watch(t, r, "consul:///auth?query=none"), nil); !strings.Contains(err.Error(), `execute prepared query "none": status 404`) {
		t.Errorf("a query that there is not: %v", err)
	}
	// Another instance is found by the next execution.
	w := watch(t, r, "consul:///auth?query=blue-auth")
	await(t, w, "a")
	put(t, to, &api.AgentServiceRegistration{ID: "d", Name: "auth", Port: 80, Tags: []string{"blue"}})
	await(t, w, "a", "d")
}

// Fault 14, by a check that a real agent keeps.
func TestIntegrationFlappingCheck(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	to := client(t, agent)
	put(t, to,
		&api.AgentServiceRegistration{ID: "a", Name: "auth", Port: 80},
		&api.AgentServiceRegistration{ID: "b", Name: "auth", Port: 81, Check: &api.AgentServiceCheck{CheckID: "b", TTL: "1h", Status: api.HealthPassing}})
	r := overAgent(t, agent.Address)
	w := watch(t, r)
	await(t, w, "a", "b")
	var flapping sync.WaitGroup
	ended := make(chan struct{})
	flapping.Go(func() {
		defer close(ended)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for at := range 100 {
			<-ticker.C
			if err := to.Agent().UpdateTTL("b", "", []string{api.HealthCritical, api.HealthPassing}[at%2]); err != nil {
				t.Errorf("update the check: %v", err)
			}
		}
		if err := to.Agent().UpdateTTL("b", "", api.HealthCritical); err != nil { // for good
			t.Errorf("update the check: %v", err)
		}
	})
	defer flapping.Wait()
	reports := 0
	for {
		set, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			if len(set) == 1 {
				t.Logf("%d reports in 10s of flapping", reports)
				return
			}
		default:
			reports++
			if len(set) != 2 {
				t.Fatalf("the set is %v while the check flaps", set)
			}
		}
	}
}

// More targets than the agent accepts connections from one address, which are 200.
func TestIntegrationMoreTargetsThanConnections(t *testing.T) {
	t.Parallel()
	const count = 400
	agent := consultest.Start(t)
	to := client(t, agent)
	service := func(at int, id string) *api.AgentServiceRegistration {
		return &api.AgentServiceRegistration{ID: fmt.Sprintf("s%d", at), Name: fmt.Sprintf("s%d", at), Port: 80, Address: "10.0.0." + id}
	}
	for at := range count {
		put(t, to, service(at, "1"))
	}
	r := overAgent(t, agent.Address)
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	watchers := watchServices(t, r, count)
	moved := func(host string) []time.Duration {
		took := make([]time.Duration, count)
		began := time.Now()
		var group sync.WaitGroup
		for at, w := range watchers {
			group.Go(func() {
				for {
					set, err := w.Next(t.Context())
					if err != nil {
						t.Errorf("target %d: %v", at, err)
						if errors.Is(err, registry.ErrClosed) || t.Context().Err() != nil {
							return
						}
					}
					if len(set) == 1 && set[0].Host == host {
						took[at] = time.Since(began)
						return
					}
				}
			})
		}
		group.Wait()
		slices.Sort(took)
		return took
	}
	took := moved("10.0.0.1")
	t.Logf("first sets: median %v, last %v", took[count/2], took[count-1])
	t.Logf("for each of %d targets: %.1f goroutines, %.1f KiB of heap", count, float64(runtime.NumGoroutine()-goroutines)/count,
		float64(heapInUse()-heap)/1024/count)
	done := make(chan []time.Duration)
	go func() { done <- moved("10.0.0.2") }()
	began := time.Now()
	for at := range count {
		put(t, to, service(at, "2"))
	}
	registered := time.Since(began)
	took = <-done
	t.Logf("changes, registered within %v: median %v, last %v", registered, took[count/2], took[count-1])
	if last := took[count-1]; last > registered+20*time.Second {
		t.Errorf("the last change was seen after %v", last)
	}
	for _, status := range r.Status() {
		if status.State != consul.StateOK {
			t.Errorf("%+v", status)
		}
	}
}

func heapInUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapInuse + stats.StackInuse)
}

// A client that starts while Consul is down has the instances of its last run.
func TestIntegrationStartWhileConsulIsDown(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	directory := t.TempDir()
	snapshots := func(c *consul.Config) { c.Snapshot.Dir = directory }
	owner := overAgent(t, agent.Address)
	register(t, owner, instance())
	before := overAgent(t, agent.Address, snapshots)
	await(t, watch(t, before), "auth-1")
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(filepath.Join(directory, "*")); err != nil || len(files) != 1 {
		entries, _ := os.ReadDir(directory)
		t.Fatalf("snapshots: %v, %v", entries, err)
	}
	agent.Kill()
	after := overAgent(t, agent.Address, snapshots)
	w := watch(t, after)
	await(t, w, "auth-1")
	expectError(t, w, nil)
	statusOf(t, after, consul.StateSnapshot)
	agent.Restart()
	second := instance()
	second.ID = "auth-2"
	register(t, owner, second)
	await(t, w, "auth-1", "auth-2")
	statusOf(t, after, consul.StateOK)
}
