// Package safelog keeps a log handler that panics from doing harm. A handler is its user's code, and the library logs where nobody could recover from
// what that does: from goroutines of its own, with which the process would end, and in the middle of calls that have nothing to do with it.
package safelog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
)

// New returns a logger like the one given that loses a record whose handler panics, and goes on. The first panic is told on standard error, with its
// stack: there is no other place left. A logger that is safe already is returned as it is.
func New(logger *slog.Logger) *slog.Logger {
	if _, safe := logger.Handler().(*handler); safe {
		return logger
	}
	return slog.New(&handler{inner: logger.Handler(), first: new(sync.Once)})
}

// handler is a user's handler whose panics end here.
type handler struct {
	inner slog.Handler
	first *sync.Once // of the panics of all that derive from one handler
}

var _ slog.Handler = (*handler)(nil)

// Enabled implements [slog.Handler]. With a panic, nothing is enabled.
func (h *handler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() {
		if reason := recover(); reason != nil {
			_ = h.tell(reason) // nobody asks why
			enabled = false
		}
	}()
	return h.inner.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *handler) Handle(ctx context.Context, record slog.Record) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = h.tell(reason)
		}
	}()
	return h.inner.Handle(ctx, record)
}

// WithAttrs implements [slog.Handler]. With a panic, the attributes are lost.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.derived(func() slog.Handler { return h.inner.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler]. With a panic, there is no group.
func (h *handler) WithGroup(name string) slog.Handler {
	return h.derived(func() slog.Handler { return h.inner.WithGroup(name) })
}

func (h *handler) derived(derive func() slog.Handler) (next *handler) {
	defer func() {
		if reason := recover(); reason != nil {
			_ = h.tell(reason) // as above
			next = h
		}
	}()
	return &handler{inner: derive(), first: h.first}
}

// tell returns a panic as an error. It is called while that is recovered from, so that the stack is the panic's.
func (h *handler) tell(reason any) error {
	err := fmt.Errorf("a log handler panicked, and its record is lost: %v", reason)
	h.first.Do(func() { fmt.Fprintf(os.Stderr, "goplt: %v\n%s", err, debug.Stack()) })
	return err
}
