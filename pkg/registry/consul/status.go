package consul

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"
)

// WatchState says how the watch of a target fares.
type WatchState string

// The values of [WatchState].
const (
	// StateWaiting is that of a watch which nobody asked yet, or whose first answer is to come.
	StateWaiting WatchState = "waiting"
	// StateOK says that Consul's last answer is the set.
	StateOK WatchState = "ok"
	// StateEmptyGrace says that Consul's last answer is that there are no instances, which is about to take effect.
	StateEmptyGrace WatchState = "empty-grace"
	// StateSnapshot says that Consul has not answered since the start, and that the instances are those of the snapshot on disk.
	StateSnapshot WatchState = "snapshot"
	// StateFailing says that Consul is out of reach, has no leader, or gave an answer that cannot be believed.
	StateFailing WatchState = "failing"
	// StateForbidden says that access control stands between the watch and the instances; see [ErrForbidden].
	StateForbidden WatchState = "forbidden"
	// StateRefused says that Consul calls the question wrong; see [ErrRefused].
	StateRefused WatchState = "refused"
)

// stateOf returns the state that an error leads to.
func stateOf(err error) WatchState {
	switch {
	case err == nil:
		return StateOK
	case errors.Is(err, ErrForbidden):
		return StateForbidden
	case errors.Is(err, ErrRefused):
		return StateRefused
	default:
		return StateFailing
	}
}

// WatchStatus is what is known of one question that a registry asks, for all watchers that share it. A target with failover asks one in each
// datacenter, and has a status of its own beside theirs.
type WatchStatus struct {
	// Target is the text of a target that asks this.
	Target string
	// Agent is the address of the agent that is asked.
	Agent string
	// State says how the watch fares, Since from when on.
	State WatchState
	Since time.Time
	// Err is the last error; nil where all is well.
	Err error
	// Instances is the size of the set that stands, those included whose removal is damped.
	Instances int
	// Answered is when Consul last gave an answer that was believed; zero if it never did.
	Answered time.Time
	// Index is the index of Consul's last answer.
	Index uint64
	// Watchers is how many watch; for a datacenter of targets with failover, these.
	Watchers int
	// Queries is how many queries were sent; 0 for a target with failover, as those of its datacenters count them.
	Queries uint64
	// Serving is, for a target with failover, the target of the datacenter whose instances stand; else empty.
	Serving string
}

// Status returns the status of each question that is watched, sorted by target and agent. It asks nobody.
func (r *Registry) Status() []WatchStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]WatchStatus, 0, len(r.feeds))
	for _, watched := range r.feeds {
		status := watched.report.read()
		status.Target, status.Agent, status.Watchers = watched.text, watched.agent.where, watched.users
		status.Queries, status.Instances = watched.queries.Load(), len(watched.latest().set)
		all = append(all, status)
	}
	for _, watched := range r.chains {
		status := watched.status()
		status.Watchers = watched.users
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b WatchStatus) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Agent, b.Agent))
	})
	return all
}

// report is the part of a status that a feed's goroutine writes and others read.
type report struct {
	mu     sync.Mutex
	status WatchStatus
}

func (r *report) read() WatchStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// enter notes the state after an attempt, and its error.
func (r *report) enter(state WatchState, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.State != state {
		r.status.State, r.status.Since = state, time.Now()
	}
	r.status.Err = err
}

// answered notes that Consul gave an answer.
func (r *report) answered(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Answered, r.status.Index = time.Now(), index
}
