package rpc

import (
	"errors"
	"slices"
	"strings"
	"time"

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
	if current.err == nil || current.err.Error() != err.Error() {
		t.logger.Warn("registry does not answer; keeping the instances known", "instances", len(current.instances), "error", err)
	}
	t.publishLocked(&view{instances: current.instances, updated: current.updated, err: err})
}

// adopt makes set the current one: instances that were known keep their connections and what was learned, new ones are added, those
// that are gone finish their calls and are closed.
func (t *Transport) adopt(set []registry.Instance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[instanceKey]*instance, len(set))
	instances := make([]*instance, 0, len(set))
	for _, described := range set {
		key := keyOf(described)
		if next[key] != nil {
			continue
		}
		known := t.known[key]
		if known == nil {
			known = newInstance(described, &t.config, t.security, t.logger)
			t.logger.Debug("instance added", "instance", described.ID, "addr", described.Addr())
		} else {
			known.described.Store(&described)
		}
		next[key] = known
		instances = append(instances, known)
	}
	slices.SortFunc(instances, func(a, b *instance) int { return strings.Compare(a.id, b.id) })
	previous := t.known
	t.known = next
	t.publishLocked(&view{instances: instances, updated: time.Now()})
	t.drained = slices.DeleteFunc(t.drained, func(removed *instance) bool { return removed.inFlight.Load() == 0 })
	for key, gone := range previous {
		if next[key] == nil {
			t.logger.Debug("instance removed", "instance", gone.id, "addr", gone.addr)
			gone.remove(t.config.Pool.DrainTimeout)
			t.drained = append(t.drained, gone)
		}
	}
}

func (t *Transport) publishLocked(next *view) {
	t.view.Store(next)
	close(t.changed)
	t.changed = make(chan struct{})
}
