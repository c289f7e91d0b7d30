package static

import (
	"context"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// watcher implements [registry.Watcher]: it answers once, and then waits for its end.
type watcher struct {
	instances []registry.Instance
	answered  bool // belongs to Next
	registry  <-chan struct{}
	once      sync.Once
	closed    chan struct{}
}

var _ registry.Watcher = (*watcher)(nil)

func (w *watcher) Next(ctx context.Context) ([]registry.Instance, error) {
	select {
	case <-w.closed:
		return nil, registry.ErrClosed
	case <-w.registry:
		return nil, registry.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !w.answered {
		w.answered = true
		return append(make([]registry.Instance, 0, len(w.instances)), w.instances...), nil // without tags or metadata to share
	}
	select {
	case <-w.closed:
		return nil, registry.ErrClosed
	case <-w.registry:
		return nil, registry.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *watcher) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}
