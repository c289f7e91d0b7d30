//go:build integration && linux

package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/internal/consultest"
	"github.com/0x1d/goplt/pkg/rpc"
)

// fleet is what the instances of a run are.
var fleet = []traits{
	{},
	{behindGateway: true},
	{ownProcess: true},
	{ownProcess: true, behindGateway: true},
	{behindGateway: true},
	{ownProcess: true},
}

// leastIdempotent is the share of idempotent calls that have to succeed.
const leastIdempotent = 0.999

// hedgeDelay is after what time a call is made beside itself by the transport that hedges.
const hedgeDelay = 50 * time.Millisecond

// TestChaos breaks what can break under calls. See the package's documentation.
func TestChaos(t *testing.T) {
	w := startWorld(t)
	hangs := time.AfterFunc(2*w.length+10*time.Minute, func() { panic(fmt.Sprintf("seed %d: the test hangs", w.seed)) })
	defer hangs.Stop()
	w.awaitKnown(t)
	load := startLoad(w.seed, w.routes, w.open, w.ledger, w.results)
	t.Cleanup(func() { load.end() }) // before what it needs, if the test ends early
	w.run(t)
	if !load.end() {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2) // that it cannot be written
		t.Fatalf("seed %d: callers have not returned long after their deadlines", w.seed)
	}
	attempts := w.endWatch()
	w.converge(t)
	w.close(t)

	executions, _ := w.ledger.total()
	t.Logf("seed %d, %v: %d calls and streams, %d executions\n%s", w.seed, w.length, load.made.Load(), executions, w.results.table(attempts))
	t.Logf("faults:\n%s", w.struck())
	t.Logf("why calls failed:\n%s", w.results.explained())
	for _, problem := range w.results.tooFew(leastIdempotent) {
		w.problem(t, problem, time.Now())
	}
	w.expect(t)
}

// world is all that takes part in a run.
type world struct {
	seed      uint64
	length    time.Duration
	agent     *consultest.Agent
	instances []*instance
	routes    []route
	ledger    *ledger
	results   *results
	diary     *diary
	schedule  []fault
	open      opener
	endWatch  func() map[string]uint64

	closeRegistry, closeServing func()

	mu       sync.Mutex
	problems int
	past     []period // when what was broken, the oldest first
}

func startWorld(t *testing.T) *world {
	t.Helper()
	w := &world{seed: *seedFlag, length: *lengthFlag}
	if w.seed == 0 {
		w.seed = rand.Uint64()
		*seedFlag = w.seed
	}
	w.schedule = newSchedule(w.seed, w.length, fleet)
	w.diary = openDiary(t, *logFlag)
	t.Logf("seed %d: %d faults; to break the same again: go test -race -tags=integration -run TestChaos ./test/chaos -v -chaos.seed=%d -chaos.for=%v",
		w.seed, len(w.schedule), w.seed, w.length)
	problem := func(what string, since time.Time) { w.problem(t, what, since) }
	w.ledger = newLedger(problem)
	w.results = newResults(problem, func(made *outcome) { w.failed(t, made) })
	w.agent = consultest.Start(t)
	w.startInstances(t)
	w.startRoutes(t)
	return w
}

func (w *world) startInstances(t *testing.T) {
	t.Helper()
	reg, closeRegistry, err := goplt.NewRegistry(settings(w.agent.Address))
	if err != nil {
		t.Fatal(err)
	}
	w.closeServing = closeRegistry
	t.Cleanup(closeRegistry)
	for number, of := range fleet {
		w.instances = append(w.instances, newInstance(t, number+1, of, w.agent.Address, reg, w.ledger))
	}
}

func (w *world) startRoutes(t *testing.T) {
	t.Helper()
	reg, closeRegistry, err := goplt.NewRegistry(settings(w.agent.Address))
	if err != nil {
		t.Fatal(err)
	}
	w.closeRegistry = closeRegistry
	t.Cleanup(closeRegistry)
	w.open = func(name string, protocol rpc.Protocol, adjust func(*rpc.ClientConfig)) (*rpc.Transport, error) {
		cfg := settings(w.agent.Address)
		cfg.Defaults.Protocol = protocol
		adjust(&cfg.Defaults)
		return goplt.NewTransport(cfg, reg, service, goplt.WithLogger(w.diary.logger(name)))
	}
	for _, as := range []struct {
		name     string
		protocol rpc.Protocol
		adjust   func(*rpc.ClientConfig)
	}{
		{"auto", rpc.ProtocolAuto, func(*rpc.ClientConfig) {}},
		{"grpc", rpc.ProtocolGRPC, func(*rpc.ClientConfig) {}},
		{"http", rpc.ProtocolHTTP, func(*rpc.ClientConfig) {}},
		{"hedged", rpc.ProtocolAuto, func(cfg *rpc.ClientConfig) {
			cfg.Methods = map[string]rpc.MethodConfig{"goplt.auth.v1.AuthService.ValidateToken": {Hedge: rpc.HedgeConfig{Delay: hedgeDelay, MaxHedges: 2}}}
		}},
	} {
		transport, err := w.open(as.name, as.protocol, as.adjust)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = transport.Close() }) // what there is to say of it, close says
		w.routes = append(w.routes, route{as.name, transport})
	}
	w.endWatch = watchAttempts(w.routes)
	t.Cleanup(func() { w.endWatch() })
}

// struck says how many faults of each kind there were.
func (w *world) struck() string {
	counts := make(map[string]int)
	for _, f := range w.schedule {
		counts[f.kind.name]++
	}
	return counted(counts)
}

// close ends all, and checks what only the end tells.
func (w *world) close(t *testing.T) {
	t.Helper()
	for _, by := range w.routes {
		if err := by.transport.Close(); err != nil {
			w.problem(t, fmt.Sprintf("closing the transport by %s: %v", by.name, err), time.Now())
		}
	}
	w.closeRegistry()
	var stopping sync.WaitGroup
	for _, i := range w.instances {
		stopping.Go(func() {
			if err := i.stop(); err != nil {
				w.problem(t, fmt.Sprintf("stopping %s: %v", i.name(), err), time.Now())
			}
		})
	}
	stopping.Wait()
	w.closeServing()
	w.ledger.settle(time.Now())
	if _, open := w.ledger.total(); open > 0 {
		w.problem(t, fmt.Sprintf("%d calls have not ended", open), time.Now())
	}
}

// expect has the test fail for problems that were not reported for their number.
func (w *world) expect(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.problems > 0 {
		t.Errorf("seed %d: %d problems", w.seed, w.problems)
	}
}
