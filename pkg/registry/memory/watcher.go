package memory

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// watcher implements [registry.Watcher]. It owns no goroutine: Next waits for the service's channel.
type watcher struct {
	registry *Registry
	service  string
	keep     func(registry.Instance) bool
	last     []registry.Instance // returned last; belongs to Next
	answered bool                // Next returned a set
	once     sync.Once
	closed   chan struct{}
}

var _ registry.Watcher = (*watcher)(nil)

func (w *watcher) Next(ctx context.Context) ([]registry.Instance, error) {
	for {
		select {
		case <-w.closed:
			return nil, registry.ErrClosed
		case <-w.registry.closed:
			return nil, registry.ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		current, changed := w.snapshot()
		if !w.answered || !slices.EqualFunc(current, w.last, registry.Instance.Equal) {
			w.last, w.answered = current, true
			return clone(current), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-w.closed:
		case <-w.registry.closed:
		}
	}
}

func (w *watcher) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// snapshot returns the set of now, sorted, and a channel that is closed when it may have changed.
func (w *watcher) snapshot() ([]registry.Instance, <-chan struct{}) {
	w.registry.mu.Lock()
	defer w.registry.mu.Unlock()
	found := w.registry.service(w.service)
	current := make([]registry.Instance, 0, len(found.entries))
	for _, entry := range found.entries {
		if entry.usable() && w.keep(entry.instance) {
			current = append(current, entry.instance)
		}
	}
	slices.SortFunc(current, func(a, b registry.Instance) int { return cmp.Compare(a.ID, b.ID) })
	return current, found.changed
}

func clone(instances []registry.Instance) []registry.Instance {
	cloned := make([]registry.Instance, len(instances))
	for at, instance := range instances {
		cloned[at] = instance.Clone()
	}
	return cloned
}
