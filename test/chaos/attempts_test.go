//go:build integration && linux

package chaos_test

import (
	"sync"
	"time"
)

// attemptCount counts the attempts that a transport makes at an instance. One that leaves and comes back may begin to count anew.
type attemptCount struct{ before, now uint64 }

// watchAttempts counts the attempts that transports make, those at instances that leave included, until it is ended.
func watchAttempts(routes []route) (end func() map[string]uint64) {
	stop := make(chan struct{})
	counts := make(map[string]map[string]attemptCount)
	for _, by := range routes {
		counts[by.name] = make(map[string]attemptCount)
	}
	look := func() {
		for _, by := range routes {
			for _, known := range by.transport.Status().Instances {
				count := counts[by.name][known.ID]
				if known.Calls < count.now {
					count.before += count.now
				}
				count.now = known.Calls
				counts[by.name][known.ID] = count
			}
		}
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			look()
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
		}
	})
	return sync.OnceValue(func() map[string]uint64 {
		close(stop)
		watching.Wait()
		look()
		totals := make(map[string]uint64)
		for by, attempts := range counts {
			for _, count := range attempts {
				totals[by] += count.before + count.now
			}
		}
		return totals
	})
}
