package rpc

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/0x1d/goplt/internal/balancer"
	"github.com/0x1d/goplt/internal/outlier"
	"github.com/0x1d/goplt/pkg/registry"
)

// watch starts to follow the target.
func (t *Transport) watch() {
	t.watching.Go(func() {
		watcher, err := t.registry.Watch(t.target)
		if err != nil {
			t.report(err)
			return
		}
		defer func() { _ = watcher.Close() }()
		for {
			set, err := watcher.Next(t.ctx)
			switch {
			case t.ctx.Err() != nil:
				return
			case err != nil:
				t.report(err)
				if errors.Is(err, registry.ErrClosed) {
					return
				}
			default:
				t.adopt(set)
			}
		}
	})
}

// report notes that the registry failed to answer. The instances stay: an error is not an empty set.
func (t *Transport) report(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	current := t.view.Load()
	level := slog.LevelDebug
	if current.err == nil { // the first of a row
		level = slog.LevelWarn
	}
	t.mu.later(func() {
		t.logger.Log(t.ctx, level, "registry does not answer; keeping the instances known", "instances", len(current.instances), "error", err)
	})
	t.publishLocked(&view{instances: current.instances, picker: current.picker, updated: current.updated, err: err})
}

// adopt makes set the current one: instances that were known keep their connections and what was learned, new ones are added, those
// that are gone are retired.
func (t *Transport) adopt(set []registry.Instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, before := time.Now(), t.view.Load()
	next := make(map[instanceKey]*instance, len(set))
	instances := make([]*instance, 0, len(set))
	for _, described := range set {
		key := keyOf(described)
		if next[key] != nil {
			continue
		}
		known := t.known[key]
		switch {
		case known != nil:
			t.mu.later(known.describe(described)...)
		case t.reclaimLocked(key):
			known = t.retired[key]
			delete(t.retired, key)
			t.mu.later(known.describe(described)...)
		default:
			known = newInstance(described, &t.config, t.opening, &t.changes, t.prober, t.fallbacks)
			if !before.updated.IsZero() {
				known.stats.StartSlowly(now) // those of the first set are all alike
			}
			t.mu.later(t.changes.rememberf(slog.LevelDebug, known, "joined"))
		}
		next[key] = known
		instances = append(instances, known)
	}
	slices.SortFunc(instances, func(a, b *instance) int { return strings.Compare(a.id, b.id) })
	previous := t.known
	t.known = next
	picker := t.pickerOf(instances, before.picker)
	t.publishLocked(&view{instances: instances, picker: picker, updated: now})
	for at, known := range instances {
		known.want(picker.InSubset(at), t.config.Protocol) // after describe, which may forget the protocol
	}
	if t.prober != nil {
		hosts := make([]*outlier.Host, len(instances))
		for at, known := range instances {
			hosts[at] = known.host
		}
		t.prober.detector.SetHosts(hosts)
	}
	for key, gone := range previous {
		if next[key] == nil {
			t.retireLocked(key, gone)
		}
	}
}

func (t *Transport) pickerOf(instances []*instance, previous *balancer.Picker) *balancer.Picker {
	members := make([]balancer.Member, len(instances))
	for at, known := range instances {
		described := known.described.Load()
		members[at] = balancer.Member{ID: known.id, Weight: described.Weight, Zone: described.Zone, Stats: known.stats}
	}
	return balancer.New(t.balancing, members, previous)
}

// retireLocked takes an instance out of use. Its attempts under way may finish, for up to the drain timeout; if the registry names it again within
// that time, it goes on as if it had never been gone, so that a registry that flaps does not cost connections.
func (t *Transport) retireLocked(key instanceKey, gone *instance) {
	reason := "the registry no longer names it"
	if gone.described.Load().Health == registry.HealthCritical {
		reason = "its checks go on failing"
	}
	t.mu.later(t.changes.rememberf(slog.LevelDebug, gone, "left: %s", reason))
	gone.removed.Store(true)
	gone.want(false, t.config.Protocol)
	gone.fallback.rest()
	t.retired[key] = gone
	gone.expiry = time.AfterFunc(t.config.Pool.DrainTimeout, func() {
		gone.close()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.retired[key] == gone {
			delete(t.retired, key)
		}
	})
}

// reclaimLocked puts a retired instance back into use, and reports whether there was one whose time is not over.
func (t *Transport) reclaimLocked(key instanceKey) bool {
	retired := t.retired[key]
	if retired == nil || t.config.Pool.DrainTimeout == 0 || !retired.expiry.Stop() {
		return false
	}
	retired.removed.Store(false)
	retired.fallback.wake()
	t.mu.later(t.changes.rememberf(slog.LevelDebug, retired, "came back"))
	return true
}

func (t *Transport) publishLocked(next *view) {
	t.view.Store(next)
	close(t.changed)
	t.changed = make(chan struct{})
}
