//go:build integration && linux

package chaos_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/rpc"
)

// awaitKnown waits until all transports know all instances.
func (w *world) awaitKnown(t *testing.T) {
	t.Helper()
	for _, by := range w.routes {
		w.await(t, by.name+" to know all instances", func() bool { return len(w.missing(by)) == 0 })
	}
}

// missing returns what keeps a transport from calling each instance as usual.
func (w *world) missing(by route) []string {
	var missing []string
	known := by.transport.Status().Instances
	for _, i := range w.instances {
		at := slices.IndexFunc(known, func(status rpc.InstanceStatus) bool { return status.Addr == i.proxy.Addr })
		switch {
		case at < 0:
			missing = append(missing, i.name()+" is not known")
		case known[at].Breaker != "closed":
			missing = append(missing, i.name()+" has a breaker that is "+known[at].Breaker)
		case known[at].Ejection != "serving":
			missing = append(missing, i.name()+" is "+known[at].Ejection)
		}
	}
	if len(known) > len(w.instances) {
		missing = append(missing, fmt.Sprintf("%d instances are known", len(known)))
	}
	return missing
}

// convergence is how long it may take until all is well again.
const convergence = 30 * time.Second

// converge expects that, with nothing broken any more, each transport comes to call each instance as usual, and with success.
func (w *world) converge(t *testing.T) {
	t.Helper()
	began := time.Now()
	var converging sync.WaitGroup
	for _, by := range w.routes {
		converging.Go(func() {
			if missing := w.convergeBy(by, began.Add(convergence)); len(missing) > 0 {
				w.problem(t, fmt.Sprintf("by %s, %v after the last fault: %s", by.name, convergence, strings.Join(missing, ", ")), began)
			}
		})
	}
	converging.Wait()
	t.Logf("all is well again after %v", time.Since(began).Round(time.Millisecond))
}

// convergeBy makes calls by a transport until all is as usual, or until a deadline, and returns what is not.
func (w *world) convergeBy(by route, deadline time.Time) (missing []string) {
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	before := served(by.transport)
	for calls := 1; ; calls++ {
		id := fmt.Sprintf("call %d after all, by %s", calls, by.name)
		w.ledger.begin(id, false)
		ctx, cancel := context.WithTimeout(context.Background(), maxTimeout)
		err := invoke(identified(ctx, id), by.transport, idempotent, id)
		cancel()
		w.ledger.end(id, err == nil)
		missing = w.missing(by)
		for id, count := range served(by.transport) {
			if count <= before[id] {
				missing = append(missing, id+" is not called with success")
			}
		}
		if len(missing) == 0 || time.Now().After(deadline) {
			return missing
		}
		<-pause.C
	}
}

// served returns how many attempts the instances served, by ID.
func served(transport *rpc.Transport) map[string]uint64 {
	counts := make(map[string]uint64)
	for _, known := range transport.Status().Instances {
		counts[known.ID] = known.Calls - known.Failures
	}
	return counts
}

// await returns as soon as what is expected has happened.
func (w *world) await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(time.Minute); !happened(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("seed %d: waited in vain for %s", w.seed, what)
		}
	}
}
