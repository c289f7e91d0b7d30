package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/internal/consultest/script"
)

func TestWatchesOfEveryKindAreMeasured(t *testing.T) {
	const count = 5
	agent := script.Start(t, script.Instance("1", "127.0.0.1", 1), script.Instance("2", "127.0.0.1", 2))
	for _, kind := range watchKinds() {
		cell, err := measureWatches(t.Context(), agent.Address, 0, idleCell{Kind: kind.name, Count: count}, 50*time.Millisecond, io.Discard)
		if err != nil {
			t.Fatalf("%s: %v", kind.name, err)
		}
		weight, connections := cell.Weight, count
		if kind.shared {
			connections = 1
		}
		if weight.Known != count || weight.Goroutines < count || weight.Heap <= 0 || weight.Stacks <= 0 || weight.Elapsed < 50*time.Millisecond {
			t.Errorf("%s: implausible: %+v", kind.name, weight)
		}
		if weight.Connections < connections || weight.Connections > 2*connections { // one that waits, and where dials raced one that is idle
			t.Errorf("%s: %d connections to the agent, want %d", kind.name, weight.Connections, connections)
		}
	}
}

func TestSeekersFollowAnAgent(t *testing.T) {
	var instances []*api.ServiceEntry
	for _, name := range []string{staying, moving} {
		serving, err := hostAuth(named{name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(serving.stop)
		host, port, err := net.SplitHostPort(serving.addr)
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, script.Instance(name, host, number))
	}
	agent := script.Start(t, instances[0])
	for _, kind := range seekers() {
		agent.Set(instances[0])
		dialed, err := kind.dial(agent.Address, "auth")
		if err != nil {
			t.Fatal(err)
		}
		calling := startCaller(dialed)
		t.Cleanup(calling.close)
		following := &lane{service: "auth", callers: []*caller{calling}}
		for _, there := range []bool{true, false, true} {
			began := time.Now()
			calling.expect(began, there)
			if there {
				agent.Set(instances...)
			} else {
				agent.Set(instances[0])
			}
			if err := following.settle(t.Context(), began, began, "a change"); err != nil {
				t.Fatalf("%s: %v", kind.name, err)
			}
		}
		if calls, failed := calling.made(); failed > 0 {
			t.Errorf("%s: %d of %d calls failed", kind.name, failed, calls)
		}
	}
}

// TestFirstPickThatObeys plays calls to a caller: each begins so many ms after the change, and is answered by an instance.
func TestFirstPickThatObeys(t *testing.T) {
	failed := errors.New("failed")
	type played struct {
		at     int // ms
		answer string
		err    error
	}
	for _, test := range []struct {
		name  string
		there bool
		calls []played
		want  int // ms; negative if not yet
	}{
		{"comes", true, []played{{-1, moving, nil}, {1, staying, nil}, {2, moving, nil}, {3, staying, nil}, {4, moving, nil}}, 2},
		{"does not come", true, []played{{1, staying, nil}, {2, staying, nil}}, -1},
		{"goes", false, []played{{-1, staying, nil}, {1, staying, nil}, {2, moving, nil}, {3, staying, nil}, {4, staying, nil}}, 3},
		{"stays", false, []played{{1, staying, nil}, {2, moving, nil}}, -1},
		{"fails", true, []played{{1, "", failed}}, -1},
	} {
		changed := time.Now().Add(-time.Hour)
		var c caller
		c.expect(changed, test.there)
		for _, call := range test.calls {
			c.note(changed.Add(time.Duration(call.at)*time.Millisecond), call.answer, call.err)
		}
		c.wrong = changed // long ago
		got, ok := c.obeyed()
		if ok != (test.want >= 0) || ok && got.Milliseconds() != int64(test.want) {
			t.Errorf("%s: obeyed after %v, %t, want %d ms", test.name, got, ok, test.want)
		}
	}
}

func TestQuantileOfDurations(t *testing.T) {
	var all []time.Duration
	for n := range time.Duration(100) {
		all = append(all, 100-n)
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantileOf(all, q); got != want {
			t.Errorf("quantile %v of 1 to 100 is %d, want %d", q, got, want)
		}
	}
	if got := quantileOf(all[:1], 0.99); got != 100 {
		t.Errorf("quantile of one is %d", got)
	}
}

func TestDiscoveryPrintsTables(t *testing.T) {
	weight := footprint{Known: 200, Goroutines: 600, Heap: 200 << 10, Stacks: 200 << 10, Connections: 200, CPU: 2 * time.Second, Elapsed: time.Second}
	all := weight
	all.Known = 1000
	result := discoveryResult{
		Consul: "1.2.3",
		Changes: []changeSummary{{Change: "registration", Request: time.Millisecond, Clients: []obedience{
			{Client: "goplt", P50: 2 * time.Millisecond, P99: 3 * time.Millisecond, Max: 4 * time.Millisecond, Calls: 10, Failed: 1},
		}}},
		Idle: []idleCell{{Kind: watchLoop, Count: 1000, Limited: true, Weight: weight}, {Kind: watchGoplt, Count: 1000, Limited: true, Weight: all}},
	}
	plan := discoveryPlan{changes: 1, lanes: 4, watches: []int{1000}, duration: time.Second}
	var out strings.Builder
	if err := result.write(&out, plan); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "NaN") {
		t.Errorf("a ratio to what was not measured:\n%s", out.String())
	}
	result.Idle = append(result.Idle, idleCell{Kind: watchLoop, Count: 1000, Weight: all})
	if err := result.write(&out, plan); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Consul 1.2.3", "of 1 services", "1.0        2.0  3.0  4.0", "goplt: 1 of 10 calls failed", "agent without a limit", "0.60 (1.00)", "2000.0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestOwnerEndsWhatBelongsToIt(t *testing.T) {
	var ended []string
	var log strings.Builder
	err := withOwner(t.Context(), &log, func(owner consultest.T) error {
		owner.Cleanup(func() { ended = append(ended, "first") })
		owner.Cleanup(func() {
			if owner.Context().Err() == nil || !owner.Failed() {
				t.Error("what is cleaned up does not see the end and the failure")
			}
			ended = append(ended, "second")
		})
		owner.Fatalf("it is %d", 7)
		return nil
	})
	if err == nil || err.Error() != "it is 7" || !slices.Equal(ended, []string{"second", "first"}) {
		t.Errorf("%v; ended %v", err, ended)
	}
	if err := withOwner(t.Context(), &log, func(consultest.T) error { return context.Canceled }); !errors.Is(err, context.Canceled) {
		t.Errorf("an error became %v", err)
	}
}

func TestProcessCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	used := currentUsage().CPU
	for used < 50*time.Millisecond {
		used = currentUsage().CPU
	}
	if got := processCPU(os.Getpid()); got < used-20*time.Millisecond || got > used+10*time.Second {
		t.Errorf("this process used %v of a CPU, want at least the %v of before", got, used)
	}
	if got := processCPU(0); got != 0 {
		t.Errorf("no process used %v", got)
	}
}
