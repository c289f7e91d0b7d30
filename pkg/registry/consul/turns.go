package consul

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// turnInterval is how long a target may be without a query that waits for its changes, where there are more targets than [Config.MaxQueries]:
	// so late, at most, such a change is seen.
	turnInterval = 15 * time.Second
	// maxReads is how many queries that the agent answers at once may be under way. Together with [Config.MaxQueries] and a connection or two of
	// registrations it stays well below the agent's limit of connections of one client.
	maxReads = 16
)

// turns lets a bounded number of queries be under way at an agent, first come, first served. Safe for concurrent use.
type turns struct {
	mu    sync.Mutex
	free  int
	queue []chan struct{} // each closed when its owner has a turn
}

// take waits for a turn, but not longer than patience; 0 means without bound. It reports whether there is one, which the caller gives back.
func (t *turns) take(ctx context.Context, patience time.Duration) (bool, error) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true, nil
	}
	mine := make(chan struct{})
	t.queue = append(t.queue, mine)
	t.mu.Unlock()

	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-mine:
		return true, nil
	case <-late:
	case <-ctx.Done():
	}
	t.mu.Lock()
	at := slices.Index(t.queue, mine)
	if at >= 0 {
		t.queue = slices.Delete(t.queue, at, at+1)
	}
	t.mu.Unlock()
	switch {
	case ctx.Err() != nil && at < 0:
		t.give() // came too late
		return false, ctx.Err()
	case ctx.Err() != nil:
		return false, ctx.Err()
	default:
		return at < 0, nil
	}
}

// give gives a turn back.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.free++
		return
	}
	close(t.queue[0])
	t.queue = slices.Delete(t.queue, 0, 1)
}
