package consul

import (
	"context"
	"slices"
	"sync"

	"github.com/0x1d/goplt/pkg/registry"
)

// source is what watchers of one target share.
type source interface {
	latest() news
	listen(l listener)
	unlisten(l listener)
	// start begins to ask, once.
	start()
}

// watcher implements [registry.Watcher]. It owns no goroutine and asks nothing itself: it compares what its source knows with what Next returned
// last, so a thousand of them on a target cost the agent what one does.
type watcher struct {
	source  source
	release func() // gives the source up, and waits for it after the last

	wake    chan struct{} // holds one value while there may be news
	closed  chan struct{}
	ending  sync.Once
	closing sync.Once

	// What Next saw last; it has one caller at a time.
	returned   []registry.Instance // shared with the source; nil before the first
	failed     bool                // what it returned was an error
	sets, errs uint64
}

var _ registry.Watcher = (*watcher)(nil)

func newWatcher(from source, release func()) *watcher {
	w := &watcher{source: from, release: release, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	from.listen(w)
	return w
}

// heard implements [listener].
func (w *watcher) heard(news) {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next implements [registry.Watcher]. The context bounds the waiting, not the query, which others share and the next Next goes on with.
func (w *watcher) Next(ctx context.Context) ([]registry.Instance, error) {
	for {
		select {
		case <-w.closed:
			return nil, registry.ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w.source.start()
		if set, isNew, err := w.unseen(); isNew || err != nil {
			return set, err
		}
		select {
		case <-w.wake:
		case <-w.closed:
		case <-ctx.Done():
		}
	}
}

// unseen returns what the source knows and Next has not returned: a set that differs, or that stands again after an error, else an error. Each error
// is of an attempt, before which the source waited, so that a caller who asks on at once does not spin.
func (w *watcher) unseen() (set []registry.Instance, isNew bool, err error) {
	now := w.source.latest()
	if now.sets != w.sets {
		w.sets = now.sets
		if w.returned == nil || !slices.EqualFunc(now.set, w.returned, registry.Instance.Equal) {
			w.returned, w.failed = now.set, false
			return copied(now.set), true, nil
		}
	}
	switch {
	case now.err != nil && now.errs != w.errs:
		w.errs, w.failed = now.errs, true
		return nil, false, now.err
	case now.err == nil && w.failed && w.returned != nil:
		w.failed = false
		return copied(w.returned), true, nil
	}
	return nil, false, nil
}

// copied returns a set that is the caller's to change.
func copied(set []registry.Instance) []registry.Instance {
	own := make([]registry.Instance, len(set))
	for at, instance := range set {
		own[at] = instance.Clone()
	}
	return own
}

// end makes Next return, and does not wait.
func (w *watcher) end() { w.ending.Do(func() { close(w.closed) }) }

// Close implements [registry.Watcher].
func (w *watcher) Close() error {
	w.end()
	w.closing.Do(func() {
		w.source.unlisten(w)
		w.release()
	})
	return nil
}
